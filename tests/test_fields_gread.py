"""GREAD: its symbol, its invariant intervals, and which reactions are solved exactly."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralpde import catalogue, solve
from neuralpde.fields import GRAND, GREAD, Field, Heat, Reaction
from neuralpde.operators import Quadratic
from neuralpde.testing import check_field

F64 = torch.float64
T = torch.tensor(0.0, dtype=F64)
GRAPH = catalogue.barbell(3, 1)
NORMS = ("rw", "sym", "augmented")


def state(channels: int = 3) -> Tensor:
    return torch.randn(7, channels, dtype=F64)


def averaging(norm: str) -> Tensor:
    """A, dense."""
    return torch.eye(7, dtype=F64) - GRAPH.to(dtype=F64).laplacian(norm).to_dense()


REACTIONS = {
    "f": lambda x: x * (1 - x),
    "ac": lambda x: x * (1 - x**2),
    "z": lambda x: x * (x - x**2),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("reaction", ["bs", *REACTIONS, "st"])
def test_slopes_are_diffusion_and_reaction(norm: str, reaction: str) -> None:
    x, x0, A = state(), state(), averaging(norm)
    b = torch.tensor([0.5, -1.0, 2.0], dtype=F64)
    bound = GREAD(3, reaction, diffusion=Heat(norm), rate=0.4, strength=b).bind(GRAPH, x0)
    react = {"bs": lambda x: A @ (x - A @ x), "st": lambda x: x0, **REACTIONS}[reaction]
    torch.testing.assert_close(bound(T, x), 0.4 * (A @ x - x) + b * react(x))


@pytest.mark.parametrize("norm", NORMS)
def test_blurring_sharpening_has_its_symbol_on_every_mode(norm: str) -> None:
    # x' = (-a l + b l (1 - l)) x along eigenvectors of I - A with eigenvalue l.
    a, b, t = 0.3, 1.2, 1.7
    field = GREAD(1, diffusion=Heat(norm), rate=a, strength=b)
    L = GRAPH.to(dtype=F64).laplacian("rw" if norm == "rw" else norm).to_dense()
    values, vectors = torch.linalg.eig(L)
    lam, V = values.real, vectors.real
    x = V.sum(1, keepdim=True)
    traj = solve(field, x, t, GRAPH, rtol=1e-11)
    assert traj.stats.solver == "chebyshev"
    expected = V @ torch.exp(t * (-a * lam + b * lam * (1 - lam)))[:, None]
    torch.testing.assert_close(traj.final, expected, rtol=1e-9, atol=1e-9)


def test_blurring_sharpening_grows_below_its_threshold_and_shrinks_above() -> None:
    a, b = 0.3, 1.0
    lam, V = torch.linalg.eigh(GRAPH.to(dtype=F64).laplacian("sym").to_dense())
    bound = GREAD(1, diffusion=Heat("sym"), rate=a, strength=b).bind(GRAPH, V[:, :1])
    rates = torch.stack([v @ bound(T, v[:, None])[:, 0] for v in V.T])
    moving = lam > 1e-9
    assert torch.equal(rates[moving] > 0, lam[moving] < 1 - a / b)


def test_the_enclosure_of_its_operator_is_the_range_of_the_symbol() -> None:
    bound = GREAD(1, diffusion=Heat("sym"), rate=1.0, strength=1.0).bind(GRAPH, state(1))
    operator = bound.operator
    assert isinstance(operator, Quadratic)
    (lo,), (hi,) = operator.spectrum()
    # -l^2 on [0, 2]: nothing grows.
    assert abs(float(hi)) < 1e-9
    assert abs(float(lo) + 4) < 1e-9


def test_one_number_per_channel_is_exact_as_well() -> None:
    b = torch.tensor([0.5, -1.0, 2.0], dtype=F64)
    x, A, eye = state(), averaging("sym"), torch.eye(7, dtype=F64)
    field = GREAD(3, diffusion=Heat("sym"), rate=0.4, strength=b)
    traj = solve(field, x, 1.5, GRAPH, rtol=1e-10)
    assert traj.stats.solver == "chebyshev"
    for k in range(3):
        flow = 0.4 * (A - eye) + b[k] * (A - A @ A)
        torch.testing.assert_close(traj.final[:, k], torch.linalg.matrix_exp(1.5 * flow) @ x[:, k])


def test_constants_do_not_react_to_blurring_and_sharpening() -> None:
    x = torch.full((7, 3), 2.5, dtype=F64)
    for diffusion in (Heat("rw"), None):
        bound = GREAD(3, diffusion=diffusion).double().bind(GRAPH, x)
        assert bound(T, x).abs().max() < 1e-14


@pytest.mark.parametrize("reaction", ["f", "ac", "z"])
@pytest.mark.parametrize("kind", ["walk", "attention"])
def test_states_stay_in_their_interval(reaction: str, kind: str) -> None:
    diffusion: Field = Heat("rw") if kind == "walk" else GRAND(3, rate=1.0).double()
    field = GREAD(3, reaction, diffusion=diffusion, rate=0.3, strength=3.0)
    low = -1.0 if reaction == "ac" else 0.0
    x = low + (1.0 - low) * torch.rand(7, 3, dtype=F64)
    x[0], x[-1] = low, 1.0
    found = solve(field, x, torch.linspace(0, 8, 17), GRAPH, rtol=1e-8, atol=1e-9).x
    assert found.min() >= low - 1e-8
    assert found.max() <= 1 + 1e-8


def test_without_diffusion_fisher_is_the_logistic_curve() -> None:
    x = torch.full((7, 1), 0.1, dtype=F64)
    field = GREAD(1, "f", diffusion=Heat("rw"), rate=0.7, strength=1.5)
    final = solve(field, x, 2.0, GRAPH, rtol=1e-10, atol=1e-11).final
    expected = 0.1 / (0.1 + 0.9 * math.exp(-3.0))
    torch.testing.assert_close(final, torch.full_like(final, expected))


def test_its_solvers_see_a_pointwise_rest() -> None:
    field = GREAD(3, "ac", diffusion=Heat("rw"), rate=0.5, strength=2.0)
    bound = field.bind(GRAPH, state())
    assert bound.pointwise
    assert bound.operator.generator == "row"
    x = state()
    same = Heat("rw", 0.5) + Reaction.allen_cahn(2.0)
    expected = solve(same, x, 1.0, GRAPH, solver="dopri5", rtol=1e-9, atol=1e-10).final
    found = solve(field, x, 1.0, GRAPH, solver="etdrk2", rtol=1e-6, atol=1e-7).final
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_source_makes_the_stationary_mean_grow_linearly_and_is_exact() -> None:
    x = state()
    field = GREAD(3, "st", rate=0.6, strength=0.3).double()
    with torch.no_grad():
        A = field.diffusion.bind(GRAPH, x).operator.shifted(1.0, 1.0).to_dense()
        values, vectors = torch.linalg.eig(A.T)
        pi = vectors[:, values.real.argmax()].real
        traj = solve(field, x, 100.0, GRAPH, rtol=1e-10)
    assert traj.stats.solver == "uniformisation"
    torch.testing.assert_close(pi @ traj.final, (1 + 30.0) * (pi @ x), rtol=1e-8, atol=1e-8)


def test_scaling_both_rates_only_rescales_time() -> None:
    x = state()
    slow = GREAD(3, diffusion=Heat("sym"), rate=0.2, strength=0.3)
    fast = GREAD(3, diffusion=Heat("sym"), rate=0.8, strength=1.2)
    one = solve(slow, x, 4.0, GRAPH, rtol=1e-11).final
    torch.testing.assert_close(one, solve(fast, x, 1.0, GRAPH, rtol=1e-11).final)


def test_learned_numbers_start_where_the_paper_has_them() -> None:
    field = GREAD(3)
    assert field.rate.item() == field.strength.item() == 0.5
    per_channel = GREAD(50, per_channel=True)
    b = per_channel.strength
    assert isinstance(b, nn.Parameter)
    assert b.min() < 0 < b.max()
    assert b.abs().max() <= 1


def test_a_bound_field_keeps_no_parameter_that_its_operator_stands_for() -> None:
    x, kept = torch.rand(7, 3), {}
    for reaction in ("bs", "f", "st"):
        bound = GREAD(3, reaction).bind(GRAPH, x)
        held = vars(bound).items()
        kept[reaction] = {k for k, v in held if isinstance(v, Tensor) and v.requires_grad}
        assert not list(bound.parameters())
    assert kept == {"bs": set(), "f": {"beta"}, "st": {"source"}}


@pytest.mark.parametrize("reaction", ["bs", "f", "st"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_it_keeps_the_contract(reaction: str, per_channel: bool) -> None:
    # Fisher's reaction blows up below zero.
    x0 = torch.rand(7, 3)
    check_field(GREAD(3, reaction, per_channel=per_channel), GRAPH, x0)
    check_field(GREAD(3, reaction, per_channel=per_channel, diffusion=Heat("rw")), GRAPH, x0)


def test_presets_are_the_published_settings() -> None:
    cora = GREAD.preset("Cora")
    field = GREAD(**cora.settings)
    assert (field.channels, field.reaction, cora.solver, cora.steps) == (64, "bs", "rk4", 8)
    assert GREAD.preset("Chameleon").steps == 1
    with pytest.raises(ValueError, match="did you mean 'Texas'"):
        GREAD.preset("Texs")


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="unknown reaction"):
        GREAD(3, "fisher")
    with pytest.raises(ValueError, match=r"takes \[nodes, 3\]"):
        GREAD(3, diffusion=Heat("rw")).bind(GRAPH, torch.zeros(7, 2))
    for diffusion in (GRAND(3, variant="nonlinear"), GRAND(3, source=True)):
        with pytest.raises(ValueError, match="not A x - x with a fixed matrix"):
            GREAD(3, diffusion=diffusion).bind(GRAPH, torch.zeros(7, 3))
