"""GRAFF: the gradient of its energy, its modes in closed form, smoothing and sharpening."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from neuralpde import catalogue, solve
from neuralpde.fields import GRAFF, SymmetricWeights
from neuralpde.graph import Graph
from neuralpde.testing import check_field

F64 = torch.float64
T = torch.tensor(0.0, dtype=F64)
STYLES = ("sum", "prod", "neg_prod", "diag", "diag_dom")
GRAPH = catalogue.barbell(3, 1)


def field_of(channels: int = 3, weights: str = "sum", **settings: object) -> GRAFF:
    field = GRAFF(channels, weights, **settings).double()
    if field.inflow is not None:
        torch.nn.init.normal_(field.inflow)
    return field


def state(channels: int = 3, nodes: int = 7) -> Tensor:
    return torch.randn(nodes, channels, dtype=F64)


def matrix(field: GRAFF) -> Tensor:
    """W as a matrix."""
    W = field.weights().detach()
    return torch.diag(W) if W.dim() == 1 else W


def walk(graph: Graph = GRAPH, loops: float = 0.0) -> Tensor:
    """D^(-1/2) (A + s I) D^(-1/2), made anew from the edge list."""
    A = loops * torch.eye(graph.num_nodes, dtype=F64)
    A[graph.edge_index[1], graph.edge_index[0]] += graph.edge_weight
    root = A.sum(1).rsqrt()
    return root[:, None] * A * root


def energy(field: GRAFF, x: Tensor, x0: Tensor, A: Tensor) -> Tensor:
    """E(x) term by term."""
    total = -0.5 * torch.einsum("ij,ik,kl,jl->", A, x, matrix(field), x)
    if field.omega is not None:
        total = total + 0.5 * (x.square() * field.omega).sum()
    if field.inflow is not None:
        drive = -field.inflow * x0 if field.paper else x0 @ field.inflow
        total = total + (x * drive).sum()
    return total


def fixed(w: list[float], omega: float = 0.0) -> GRAFF:
    """The field with diagonal W and Omega = omega I."""
    field = field_of(len(w), "diag")
    with torch.no_grad():
        field.weights.offset.copy_(torch.tensor(w, dtype=F64))
        field.omega.fill_(omega)
    return field


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("paper", [False, True])
def test_the_slope_is_minus_the_gradient_of_the_energy(style: str, paper: bool) -> None:
    field = field_of(3, style, source=True, self_loops=1.0, paper=paper)
    x, x0 = state().requires_grad_(), state()
    A = walk(loops=1.0)
    value = energy(field, x, x0, A)
    (gradient,) = torch.autograd.grad(value, x)
    bound = field.bind(GRAPH, x0)
    torch.testing.assert_close(bound(T, x), -gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bound.lyapunov(x)[0], value)


@pytest.mark.parametrize("act", [None, torch.tanh])
def test_a_frozen_operator_gives_what_a_recomputed_one_gives(act: object) -> None:
    field = field_of(3, "diag_dom", act=act)
    x = state()
    bound = field.bind(GRAPH, x)
    for _ in range(3):
        again = walk() @ x @ matrix(field) - x * field.omega
        again = again if act is None else act(again)
        torch.testing.assert_close(bound(T, x), again, rtol=1e-13, atol=1e-13)
        x = x + 0.1 * again.detach()


@pytest.mark.parametrize("style", STYLES)
def test_w_is_symmetric_to_the_bit_and_has_the_signs_of_its_style(style: str) -> None:
    weights = SymmetricWeights(5, style).double()
    W = weights()
    W = torch.diag(W) if W.dim() == 1 else W
    assert torch.equal(W, W.T)
    values = torch.linalg.eigvalsh(W)
    if style == "prod":
        assert values.min() > -1e-12
    elif style == "neg_prod":
        assert values.max() < 1e-12
    else:
        assert values.min() < 0 < values.max()
    assert all(
        g.isfinite().all() and g.abs().sum() > 0
        for g in torch.autograd.grad(W.sum(), list(weights.parameters()))
    )


def test_diagonally_dominant_weights_take_their_signs_from_the_dominance() -> None:
    weights = SymmetricWeights(6, "diag_dom").double()
    with torch.no_grad():
        weights.dominance.fill_(-1.5)
        weights.offset.zero_()
    assert torch.linalg.eigvalsh(weights()).max() < 0


@pytest.mark.parametrize("act", [None, torch.relu, torch.tanh])
def test_the_energy_falls_at_the_rate_of_the_squared_slope(act: object) -> None:
    field = field_of(3, "sum", source=True, act=act)
    x = state()
    bound = field.bind(GRAPH, x)
    times = torch.linspace(0, 2, 41, dtype=F64)
    traj = solve(field, x, times, GRAPH, rtol=1e-10, atol=1e-11)
    energies = torch.stack([bound.lyapunov(one)[0] for one in traj.x]).detach()
    assert (energies.diff() <= 1e-9 * energies.abs().max()).all()
    if act is None:
        middle, h = traj.x[20].detach(), float(times[1])
        rate = (energies[21] - energies[19]) / (2 * h)
        # Central differences are right to h^2.
        assert float(rate) == pytest.approx(
            -float(bound(T, middle).detach().square().sum()), rel=2e-2
        )


def test_the_rate_of_the_energy_is_exact_by_autograd() -> None:
    bound, x = field_of(source=True).bind(GRAPH, state()), state()
    slope = bound(T, x).detach()
    _, rate = torch.autograd.functional.jvp(lambda y: bound.lyapunov(y), x, slope)
    torch.testing.assert_close(rate[0], -slope.square().sum())
    assert gradcheck(bound.lyapunov, (x.requires_grad_(),))


def test_modes_grow_and_decay_in_closed_form() -> None:
    w, omega, t = [1.5, -0.7], 0.4, 1.3
    field = fixed(w, omega)
    lam, V = torch.linalg.eigh(torch.eye(7, dtype=F64) - walk())
    for k in (0, 3, 6):
        x = V[:, k, None] * torch.ones(1, 2, dtype=F64)
        traj = solve(field, x, t, GRAPH, rtol=1e-11)
        assert traj.stats.solver == "chebyshev"
        factors = torch.exp(t * (torch.tensor(w, dtype=F64) * (1 - lam[k]) - omega))
        torch.testing.assert_close(traj.final, x * factors, rtol=1e-9, atol=1e-9)


def test_linear_flow_is_the_dense_exponential_also_with_many_channels_and_a_source() -> None:
    field = field_of(36, "sum", source=True)
    x = state(36)
    traj = solve(field, x, 1.0, GRAPH, rtol=1e-10)
    flow = torch.kron(walk(), matrix(field)) - torch.kron(
        torch.eye(7, dtype=F64), torch.diag(field.omega.detach())
    )
    size = len(flow)
    augmented = torch.zeros(size + 1, size + 1, dtype=F64)
    augmented[:-1, :-1], augmented[:-1, -1] = flow, -(x @ field.inflow.detach()).flatten()
    whole = torch.linalg.matrix_exp(augmented)
    expected = whole[:-1, :-1] @ x.flatten() + whole[:-1, -1]
    torch.testing.assert_close(traj.final.flatten(), expected, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("repels", [False, True])
def test_flow_is_dominated_by_low_or_high_frequencies_as_the_signs_of_w_say(repels: bool) -> None:
    # Low frequencies win where |w_-| (rho - 1) < w_+, rho the largest eigenvalue of I - A.
    graph = catalogue.ring(5)
    rho = float(torch.linalg.eigvalsh(torch.eye(5, dtype=F64) - walk(graph))[-1])
    w = [1.0, (-1.5 if repels else -0.6) / (rho - 1)]
    traj = solve(fixed(w), state(2, 5), 18.0, graph, rtol=1e-6)
    assert traj["rayleigh"].y[-1].item() == pytest.approx(rho if repels else 0.0, abs=1e-4)


@pytest.mark.parametrize("style", ["prod", "neg_prod"])
def test_attraction_smooths_and_repulsion_sharpens(style: str) -> None:
    graph, field = catalogue.ring(5), field_of(3, style, external=False)
    with torch.no_grad():
        field.weights.matrix.div_(torch.linalg.matrix_norm(field.weights.matrix, 2))
    traj = solve(field, state(3, 5), 18.0, graph, rtol=1e-6)
    rho = float(torch.linalg.eigvalsh(torch.eye(5, dtype=F64) - walk(graph))[-1])
    expected = 0.0 if style == "prod" else rho
    assert traj["rayleigh"].y[-1].item() == pytest.approx(expected, abs=1e-5)


def test_without_a_residual_low_frequencies_win_whatever_w_is() -> None:
    # x+ = A x W: the largest |w (1 - lambda)| is at lambda = 0, unless the graph is bipartite.
    A, W, x = walk(), matrix(field_of(3, "neg_prod")), state()
    for _ in range(400):
        x = A @ x @ W
        x = x / x.norm()
    assert abs(torch.einsum("ik,ij,jk->", x, torch.eye(7, dtype=F64) - A, x)) < 1e-10


def test_euler_descends_the_energy_up_to_its_limit_and_not_beyond() -> None:
    # W = -I, Omega = 1.2: the Hessian 1.2 + 1 - lambda is positive, its top 2.2 at lambda = 0.
    field, limit = fixed([-1.0, -1.0], 1.2), 2 / 2.2
    lam, V = torch.linalg.eigh(torch.eye(7, dtype=F64) - walk())
    x = V[:, :1] * torch.ones(1, 2, dtype=F64)
    bound = field.bind(GRAPH, x)
    assert abs(float(lam[0])) < 1e-12
    for h, falls in ((0.98 * limit, True), (1.02 * limit, False)):
        y, energies = x, []
        for _ in range(6):
            energies.append(bound.lyapunov(y).item())
            y = y + h * bound(T, y).detach()
        steps = [later < before for before, later in pairwise(energies)]
        assert all(steps) is falls
        assert any(steps) is falls


def test_raw_energy_overflows_in_single_precision_and_the_rayleigh_quotient_does_not() -> None:
    # 3e19 squared is beyond float32: energies are added up in float64.
    field = fixed([4.0, 1.0]).float()
    x = torch.randn(7, 2)
    traj = solve(field, x, torch.linspace(0, 16, 9), GRAPH)
    grown = traj["norm"].y[-1]
    assert grown > 1e20
    assert torch.isinf((traj.final**2).sum())
    assert bool(traj["rayleigh"].y.isfinite().all())
    lam, V = torch.linalg.eigh(torch.eye(7, dtype=F64) - walk())
    weights = (V.T @ x[:, 0].double()).square() * torch.exp(2 * 16 * 4.0 * (1 - lam))
    expected = float((weights * lam).sum() / weights.sum())
    assert float(traj["rayleigh"].y[-1]) == pytest.approx(expected, abs=1e-5)


def test_states_beyond_single_precision_are_told_honestly() -> None:
    field, x = fixed([4.0, 1.0]).float(), torch.randn(7, 2)
    traj = solve(field, x, torch.linspace(0, 64, 9), GRAPH)
    lost = ~traj.x.isfinite().flatten(1).all(1)
    assert bool(lost[-1])
    assert not bool(lost[:3].any())
    for name in ("energy", "rayleigh"):
        found = traj[name].y
        assert bool(found[lost].isnan().all())
        assert bool(found[:3].isfinite().all())


def test_what_has_overflowed_along_steps_is_unknown_and_not_zero() -> None:
    field, x = fixed([4.0, 1.0]).float(), torch.randn(7, 2)
    traj = solve(field, x, 16.0, GRAPH, solver="tsit5")
    found = traj["rayleigh"].y
    assert bool((found[found.isfinite()] > 0).all())
    assert bool(found[-1].isnan())
    assert bool(traj["energy"].y[-1].isnan())


def test_batches_of_graphs_have_energies_of_their_own() -> None:
    field, small = field_of(), catalogue.path(3)
    union, x = Graph.union([GRAPH, small]), state(nodes=10)
    both = field.bind(union, x).lyapunov(x)
    alone = [field.bind(GRAPH, x[:7]).lyapunov(x[:7]), field.bind(small, x[7:]).lyapunov(x[7:])]
    torch.testing.assert_close(both, torch.cat(alone))


@pytest.mark.parametrize("style", STYLES)
def test_it_keeps_the_contract(style: str) -> None:
    check_field(GRAFF(3, style, source=True), GRAPH)


@pytest.mark.parametrize("act", [torch.tanh, torch.nn.PReLU()])
def test_the_nonlinear_one_keeps_the_contract(act: object) -> None:
    smooth = act is torch.tanh
    check_field(GRAFF(3, "diag_dom", source=True, act=act), GRAPH, smooth=smooth)


def test_presets_are_the_published_settings() -> None:
    preset = GRAFF.preset("Chameleon")
    field = GRAFF(**preset.settings)
    assert (field.channels, field.weights.style, preset.steps) == (64, "diag_dom", 3)
    squirrel = GRAFF(**GRAFF.preset("Squirrel").settings)
    assert squirrel.omega is None
    assert squirrel.inflow is None
    assert math.isclose(GRAFF.preset("Pubmed").training["weight_decay"], 3.348e-4)
    with pytest.raises(ValueError, match="did you mean 'Cora'"):
        GRAFF.preset("cora")


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="unknown style of weights 'som'; did you mean 'sum'"):
        GRAFF(3, "som")
    with pytest.raises(ValueError, match="not negative"):
        GRAFF(3, self_loops=-1.0)
    with pytest.raises(ValueError, match=r"takes \[nodes, 3\]"):
        GRAFF(3).bind(GRAPH, torch.zeros(7, 2))
    with pytest.raises(TypeError, match=r"field.to\(torch.float64\)"):
        GRAFF(3).bind(GRAPH, state())
