"""Stabilised steps: polynomial, order for any number of stages, counts, batches, gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import Legendre
from scipy.integrate import solve_ivp
from scipy.special import eval_legendre
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat, allen_cahn
from solvers.flow import Flow
from solvers.legendre import stages
from solvers.rows import Rows, State
from solvers.stabilised import RKL2
from solvers.stepper import Accuracy, Step

F64 = torch.float64
SIZES = [3, 5, 9, 31, 141]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def one_step(f: Any, h: Any, x: Tensor, s: int, **how: Any) -> Step:
    state = (x,)
    return RKL2().step(f, h, state, f(0.0, state), plan=np.array([s]), **how)


def closed_form(z: complex, s: int) -> complex:
    """1 - b + b P_s(1 + 4 z / (s^2+s-2)), the Legendre polynomial by numpy."""
    b = (s * s + s - 2) / (2 * s * (s + 1))
    return complex(1 - b + b * Legendre.basis(s)(1 + 4 * z / (s * s + s - 2)))


@pytest.mark.parametrize("s", SIZES)
def test_a_step_multiplies_each_mode_by_the_legendre_polynomial(s: int) -> None:
    beta = (s * s + s - 2) / 2
    z = torch.linspace(-beta, 0.5, 41, dtype=F64)
    b = (s * s + s - 2) / (2 * s * (s + 1))
    wanted = 1 - b + b * eval_legendre(s, 1 + 4 * z.numpy() / (s * s + s - 2))
    for h in (0.1, 1.0):
        step = one_step(lambda c, x, h=h: (z / h * x[0],), h, torch.ones_like(z), s)
        np.testing.assert_allclose(step.x[0].numpy(), wanted, rtol=0, atol=1e-12 * s)
    assert np.abs(wanted[z.numpy() <= 0]).max() <= 1
    assert abs(wanted[0]) < 0.2, "the far end of the interval is damped"


@pytest.mark.parametrize("s", [3, 5, 31])
def test_complex_modes_follow_the_same_polynomial(s: int) -> None:
    z = torch.tensor([-1 + 2j, -3 - 1j, 0.5j], dtype=torch.complex128)
    step = one_step(lambda c, x: (z * x[0],), 1.0, torch.ones_like(z), s)
    wanted = [closed_form(complex(one), s) for one in z]
    np.testing.assert_allclose(step.x[0].numpy(), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("s", SIZES)
def test_stages_lie_where_the_state_says_they_do(s: int) -> None:
    """For dx/dt = 1 the state is the time, so each stage shows its own node."""
    seen = []

    def clock(c: float, x: State) -> State:
        seen.append((c, x[0].item()))
        return (torch.ones_like(x[0]),)

    step = one_step(clock, 0.5, torch.zeros(1, dtype=F64), s)
    nodes = [c for c, _ in seen]
    assert [at for _, at in seen] == pytest.approx([0.5 * c for c in nodes], abs=1e-13)
    assert nodes[1:] == sorted(nodes[1:])
    assert nodes[-1] == 1.0
    assert step.x[0].item() == pytest.approx(0.5, abs=1e-13)
    # A slope of t is integrated exactly by a method of order two.
    ramp = RKL2().step(
        lambda c, x: (torch.full_like(x[0], c),), 1.0, (torch.zeros(1, dtype=F64),),
        (torch.zeros(1, dtype=F64),), plan=np.array([s]),
    )  # fmt: skip
    assert ramp.x[0].item() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("ratio", [1.0, 100.0, 1e4])
def test_order_two_whatever_the_number_of_stages(ratio: float) -> None:
    """y' = y cos t with a radius of ratio / h, so that s is 3, 15, 141 at every step size."""
    errors, steps = [], [10, 20, 40, 80, 160]
    for n in steps:
        solver = RKL2(radius=ratio * n / 2.0)
        x0 = torch.ones(1, dtype=F64)
        traj = solve(lambda t, x: x * torch.cos(t), x0, 2.0, solver=solver, steps=n)
        errors.append(abs(traj.final.item() - math.exp(math.sin(2.0))))
        assert traj.stats.nfe == n * int(stages(np.array([ratio]))[0])
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert slopes == pytest.approx([2.0] * 4, abs=0.15)


def test_the_error_estimate_is_of_order_three_and_up_to_twice_the_truth() -> None:
    for s in (3, 9, 41):
        third = (s * s + s - 6) / (9 * (s * s + s - 2))
        ratios = []
        for h in (0.04, 0.02):
            step = one_step(lambda c, x: (-x[0],), h, torch.ones(1, dtype=F64), s)
            assert step.error is not None
            truth = step.x[0].item() - math.exp(-h)
            ratios.append(step.error[0].item() / truth)
        predicted = -(0.2 - 0.8 * third) / (third - 1 / 6)
        assert [abs(one) for one in ratios] == pytest.approx([abs(predicted)] * 2, rel=0.05)
        assert 1.4 < abs(predicted) < 2.1


def test_evaluations_are_counted_and_the_last_slope_is_used_again() -> None:
    x0 = torch.ones(4, 1, dtype=F64)
    traj = solve(lambda t, x: -x, x0, 2.0, solver=RKL2(radius=1.0), rtol=1e-4, atol=1e-6)
    tries = traj.stats.accepted + traj.stats.rejected
    assert traj.stats.nfe == 2 + 3 * tries
    assert traj.final.numpy() == pytest.approx(np.full((4, 1), math.exp(-2)), rel=1e-3)
    estimated = solve(lambda t, x: -x, x0, 2.0, solver="rkl2", rtol=1e-4, atol=1e-6)
    words = estimated.stats.reason
    assert "spectral radius 1" in words
    spent = int(words.split("(")[1].split()[0])
    assert 2 <= spent <= 14
    tries = estimated.stats.accepted + estimated.stats.rejected
    assert estimated.stats.nfe == 2 + 3 * tries + spent


def test_steps_are_cut_to_201_stages_and_where_fewer_stages_pay() -> None:
    flow = Flow(lambda t, x: x, Rows(), torch.ones(1))
    free = RKL2(radius=10.0).begin(flow, Rows(), Accuracy(1e-3, 1e-3))
    # Up to 8.3 the reach of 3 stages, 5, is cheaper per unit of time than 5 stages.
    for h, wanted in ((0.4, 0.4), (0.55, 0.5), (0.83, 0.5), (0.85, 0.85), (9e9, 2030.0)):
        assert free.limit(np.array([h])) == pytest.approx([wanted], rel=1e-9)
    grid = RKL2(radius=10.0).begin(flow, Rows(), Accuracy())
    assert grid.limit(np.array([9e9])).tolist() == [9e9]


def test_errors_stay_proportional_to_the_tolerance() -> None:
    graph, x0 = catalogue.grid(5, 5), normal(25, 2)
    reference = solve(allen_cahn(), x0, 4.0, graph, solver="dopri8", rtol=1e-11, atol=1e-12).final
    for tol in (1e-3, 1e-4, 1e-5):
        final = solve(allen_cahn(), x0, 4.0, graph, solver="rkl2", rtol=tol, atol=tol).final
        error = float((final - reference).norm() / reference.norm())
        assert 0.1 * tol < error < 12 * tol, (tol, error)


def test_stiff_diffusion_costs_the_root_of_what_stability_asks() -> None:
    graph, x0 = catalogue.star(80), normal(80, 2)
    how: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
    cheap = solve(allen_cahn(), x0, 20.0, graph, solver="rkl2", **how)
    dear = solve(allen_cahn(), x0, 20.0, graph, solver="dopri5", **how)
    assert 8 * cheap.stats.operator_products < dear.stats.operator_products
    L = graph.laplacian("comb", dtype=F64).to_dense().numpy()

    def flat(t: float, x: np.ndarray) -> np.ndarray:
        u = x.reshape(80, 2)
        return (-L @ u + u - u**3).ravel()

    exact = solve_ivp(flat, (0, 20), x0.numpy().ravel(), method="LSODA", rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(cheap.final.numpy().ravel(), exact.y[:, -1], atol=5e-3)


BATCH = [catalogue.star(60), catalogue.ring(6), catalogue.path(9)]


@pytest.mark.parametrize("field", [allen_cahn(), Heat()], ids=["pointwise", "linear"])
def test_a_batch_gives_what_its_graphs_give_alone(field: Any) -> None:
    states = [normal(g.num_nodes, 2, seed=k) for k, g in enumerate(BATCH)]
    how: dict[str, Any] = {"solver": "rkl2", "rtol": 1e-4, "atol": 1e-5}
    times = [0.0, 1.3, 6.0]
    together = solve(field, torch.cat(states), times, Graph.union(BATCH), **how)
    first = 0
    for g, (graph, x0) in enumerate(zip(BATCH, states, strict=True)):
        alone = solve(field, x0, times, graph, **how)
        rows = slice(first, first := first + graph.num_nodes)
        torch.testing.assert_close(together.x[:, rows], alone.x, rtol=1e-9, atol=1e-10)
        assert together.stats.accepted[g] == alone.stats.accepted


def test_graphs_with_unlike_numbers_of_stages_step_together() -> None:
    """One step of a batch is one step of each graph, each with its own polynomial and clock."""
    rows = Rows(torch.tensor([0, 0, 1, 2]), 3)
    rate = torch.tensor([[-1.0], [-2.0], [-30.0], [-200.0]], dtype=F64)
    t, h, s = np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.4, 0.3]), np.array([3, 5, 13])
    x = (normal(4, 2),)

    def field(t: Tensor, x: State) -> State:
        return (rate * x[0] + torch.sin(t),)

    flow = Flow(field, rows, x[0])
    together = RKL2().step(
        flow.stages(t, h), rows.spread(h, x[0]), x, flow(t, x), plan=s
    )  # fmt: skip
    assert flow.nfe == 1 + 13
    assert together.error is not None
    for g in range(3):
        own = rows.batch == g

        def f(c, y, own=own, g=g):
            return (rate[own] * y[0] + math.sin(t[g] + c * h[g]),)

        mine = (x[0][own],)
        alone = RKL2().step(f, float(h[g]), mine, f(0.0, mine), plan=s[g : g + 1])
        assert alone.error is not None
        torch.testing.assert_close(together.x[0][own], alone.x[0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(together.error[0][own], alone.error[0], rtol=1e-9, atol=1e-13)


class Pull(nn.Module):
    """dx/dt = -rate L tanh(x), L of a path; both may be learned."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.L = graph.laplacian("comb", dtype=F64)
        self.rate = nn.Parameter(torch.tensor(30.0, dtype=F64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return -self.rate * (self.L @ torch.tanh(x)) + torch.sin(t)


def test_replayed_gradients_are_those_of_the_tape() -> None:
    graph, weight = catalogue.grid(4, 4), normal(16, 2, seed=3)
    field, x0 = Pull(graph), normal(16, 2).requires_grad_()
    found = []
    for grad in ("tape", "replay"):
        traj = solve(field, x0, [0.0, 0.31, 1.0], graph, solver="rkl2", rtol=1e-4, grad=grad)
        loss = (traj.x[1] * weight).sum() + traj.final.square().sum()
        found.append((traj.x.detach(), torch.autograd.grad(loss, (x0, field.rate))))
    (x, tape), (y, replay) = found
    assert torch.equal(x, y)
    for one, other in zip(tape, replay, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_batch_replays_its_graphs_own_stages() -> None:
    rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
    x0 = torch.cat([normal(g.num_nodes, 1, seed=k) for k, g in enumerate(BATCH)])
    found = []
    for grad in ("tape", "replay"):
        field = allen_cahn(rate)
        traj = solve(field, x0, 1.0, Graph.union(BATCH), solver="rkl2", rtol=1e-4, grad=grad)
        found.append(torch.autograd.grad(traj.final.square().sum(), rate)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("s", [3, 7])
def test_steps_pass_gradcheck_in_state_parameter_and_step(s: int) -> None:
    L = catalogue.path(4).laplacian("comb", dtype=F64).to_dense()

    def advance(x: Tensor, rate: Tensor, h: Tensor) -> Tensor:
        def f(c, y):
            return (-rate * (L @ torch.tanh(y[0])),)

        return RKL2().step(f, h, (x,), f(0.0, (x,)), plan=np.array([s])).x[0]

    scalars = (torch.tensor(value, dtype=F64, requires_grad=True) for value in (1.3, 0.7))
    inputs = (normal(4, 2).requires_grad_(), *scalars)
    assert torch.autograd.gradcheck(advance, inputs)
    rows = torch.tensor([[0.1], [0.2], [0.7], [0.0]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(advance, (*inputs[:2], rows))
    assert torch.autograd.gradgradcheck(advance, inputs)


@pytest.mark.parametrize("taped", [False, True])
def test_steps_write_to_no_tensor_that_the_field_has_seen(taped: bool) -> None:
    source, x = torch.full((3,), 2.0), torch.ones(3)
    seen: list[tuple[Tensor, Tensor]] = []

    def itself(c: float, y: State) -> State:
        seen.append((y[0], y[0].detach().clone()))
        return y

    with torch.set_grad_enabled(taped):
        constant = one_step(lambda c, y: (source,), 0.1, x, 9)
        grown = one_step(itself, 0.1, x, 9)
    assert source.tolist() == [2.0] * 3
    assert x.tolist() == [1.0] * 3
    assert all(torch.equal(now, then) for now, then in seen)
    assert grown.error is not None
    kept = {one.data_ptr() for one in (source, x, constant.x[0], grown.x[0], grown.error[0])}
    assert len(kept) == 5
    torch.testing.assert_close(constant.x[0], torch.full((3,), 1.2))


class Passes(TorchDispatchMode):
    """Counts the operations on something of this many entries."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries, self.count = entries, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += isinstance(out, Tensor) and out.numel() == self.entries
        return out


def test_a_stage_costs_four_passes_over_the_state() -> None:
    x = torch.randn(100, 7)
    counts = []
    for s in (21, 41):
        with torch.no_grad(), Passes(700) as passes:
            one_step(lambda c, y: y, 0.1, x, s)
        counts.append(passes.count)
    assert (counts[1] - counts[0]) / 20 == 4


def test_single_precision_follows_double() -> None:
    graph, x0 = catalogue.star(100), normal(100, 3).float()
    rough = solve(allen_cahn(), x0, 30.0, graph, solver="rkl2")
    fine = solve(allen_cahn(), x0.double(), 30.0, graph, solver="rkl2")
    assert rough.final.dtype == torch.float32
    torch.testing.assert_close(rough.final.double(), fine.final, rtol=0, atol=2e-4)
    assert rough.stats.nfe < 1.3 * fine.stats.nfe


def test_states_may_be_tuples_complex_or_numbers() -> None:
    def pair(t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return -80 * x[0] + x[1].sum(), -x[1]

    how: dict[str, Any] = {"solver": "rkl2", "rtol": 1e-5, "atol": 1e-7}
    fast, slow = solve(pair, (normal(3), normal(2)), 4.0, **how).final
    torch.testing.assert_close(slow, normal(2) * math.exp(-4), rtol=2e-4, atol=0)
    limit = (slow.sum() / 79).expand(3)
    torch.testing.assert_close(fast, limit, rtol=1e-3, atol=1e-5)
    number = solve(lambda t, x: -5 * x, torch.tensor(1 + 2j, dtype=torch.complex128), 1.0, **how)
    assert number.final.item() == pytest.approx((1 + 2j) * math.exp(-5), rel=1e-3)
