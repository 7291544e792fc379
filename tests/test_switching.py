"""What "auto" does on nonlinear fields: tsit5 until stability limits it, then rkl2."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Field, allen_cahn
from solvers.flow import Flow
from solvers.rows import Rows
from solvers.stepper import Accuracy
from solvers.switching import Switching, Ways

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def pendulum(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[1], -torch.sin(x[0])])


def lotka(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[0] * (1 - x[1]), x[1] * (x[0] - 1)])


def logistic(t: Tensor, x: Tensor) -> Tensor:
    return x * (1 - x) * (1 + torch.sin(5 * t))


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])


CALM = {
    "pendulum": (pendulum, torch.tensor([2.0, 0.0], dtype=F64), 60.0),
    "predators": (lotka, torch.tensor([2.0, 1.0], dtype=F64), 60.0),
    "seasons": (logistic, torch.tensor([0.01], dtype=F64), 6.0),
    "chaos": (lorenz, torch.ones(3, dtype=F64), 10.0),
}


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
@pytest.mark.parametrize("name", CALM)
def test_problems_that_are_not_stiff_get_tsit5_and_nothing_else(name: str, tol: float) -> None:
    field, x0, end = CALM[name]
    auto = solve(field, x0, end, rtol=tol, atol=tol)
    tsit5 = solve(field, x0, end, rtol=tol, atol=tol, solver="tsit5")
    assert auto.stats.solver == "tsit5"
    assert auto.stats.nfe == tsit5.stats.nfe
    assert torch.equal(auto.final, tsit5.final)


class Passes(TorchDispatchMode):
    """Counts the operations that read or write something of this many entries."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries, self.count = entries, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        touched = [one for one in (*args, out) if isinstance(one, Tensor)]
        self.count += any(one.numel() == self.entries for one in touched)
        return out


def test_looking_for_stiffness_costs_little() -> None:
    """Counted in passes over the state, on a field that is as cheap as a field can be."""
    graph, x0 = catalogue.ring(50), normal(50, 7)
    counts = []
    for solver in ("tsit5", "auto"):
        with torch.no_grad(), Passes(350) as passes:
            traj = solve(
                allen_cahn(0.1), x0, 12.0, graph, solver=solver, rtol=1e-6, atol=1e-6, max_steps=500
            )
        assert traj.stats.accepted > 30
        counts.append(passes.count)
    assert counts[0] < counts[1] < 1.03 * counts[0]


def change(traj: Trajectory) -> tuple[float, float]:
    """When rkl2 took over, and h rho then, from the reason."""
    found = re.search(r"then rkl2 from t=([\d.e+-]+) \(h rho = ([\d.]+)", traj.stats.reason)
    assert found is not None, traj.stats.reason
    return float(found.group(1)), float(found.group(2))


@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_stiff_diffusion_changes_to_rkl2_and_says_when(tol: float) -> None:
    graph, x0 = catalogue.star(80), normal(80, 2)
    how: dict[str, Any] = {"rtol": tol, "atol": tol}
    auto = solve(allen_cahn(), x0, 20.0, graph, **how)
    tsit5 = solve(allen_cahn(), x0, 20.0, graph, solver="tsit5", **how)
    assert auto.stats.solver == auto.settings["solver"] == "tsit5, rkl2"
    assert auto.stats.operator_products < tsit5.stats.operator_products / 3
    when, length = change(auto)
    # Three looks at 1e-3; noise of the stiff modes hides at 1e-5 that rkl2 pays.
    assert 0.1 < when < (0.5 if tol == 1e-3 else 6.0)
    assert 2 < length < 6
    assert "limited by stability" in auto.stats.reason
    L = graph.laplacian("comb", dtype=F64).to_dense().numpy()

    def flat(t: float, x: np.ndarray) -> np.ndarray:
        u = x.reshape(80, 2)
        return (-L @ u + u - u**3).ravel()

    exact = solve_ivp(flat, (0, 20), x0.numpy().ravel(), method="LSODA", rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(auto.final.numpy().ravel(), exact.y[:, -1], atol=10 * tol)


def test_it_changes_back_where_accuracy_limits_the_steps() -> None:
    """Pulled hard to a point until t = 10, then turning freely, for which rkl2 is far too dear."""
    goal = torch.tensor([1.0, 0.0], dtype=F64)
    kept: list[Switching] = []

    class Kept(Switching):
        def begin(self, *arguments: Any) -> Switching:
            kept.append(super().begin(*arguments))
            return kept[-1]

    def field(t: Tensor, x: Tensor) -> Tensor:
        late = torch.sigmoid(50 * (t - 10))
        turned = torch.stack([x[1], -x[0]])
        return (late - 1) * 200 * torch.sinh(x - goal) + 20 * late * turned

    x0, how = torch.tensor([2.0, 1.0], dtype=F64), {"rtol": 1e-5, "atol": 1e-5}
    traj = solve(field, x0, 13.0, solver=Kept(), **how)
    there, back = (traj.stats.reason.find(words) for words in ("then rkl2", "then tsit5"))
    assert 0 < there < back
    assert kept[0].error_order.tolist() == [5]
    plain = solve(field, x0, 13.0, solver="tsit5", **how)
    assert traj.stats.nfe < plain.stats.nfe / 2
    fine = solve(field, x0, 13.0, solver="tsit5", rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(traj.final, fine.final, rtol=0, atol=3e-3)
    stiff = solve(field, x0, 9.0, solver=Kept(), **how)
    assert stiff.stats.solver == "tsit5, rkl2"
    assert kept[1].error_order.tolist() == [3]


def test_tight_tolerances_bring_tsit5_back() -> None:
    graph, x0 = catalogue.grid(6, 6), normal(36, 1)
    auto = solve(allen_cahn(), x0, 40.0, graph, rtol=1e-8, atol=1e-8)
    tsit5 = solve(allen_cahn(), x0, 40.0, graph, solver="tsit5", rtol=1e-8, atol=1e-8)
    assert auto.stats.nfe < 1.3 * tsit5.stats.nfe
    fine = solve(allen_cahn(), x0, 40.0, graph, solver="dopri8", rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(auto.final, fine.final, rtol=0, atol=2e-7)


@pytest.mark.parametrize("damping", [1.5, 6.0])
def test_rotations_stay_with_tsit5(damping: float) -> None:
    """Eigenvalues -damping +- 20 i: stability limits the steps, and rkl2 could not help."""
    turn = torch.tensor([[-damping, 20.0], [-20.0, -damping]], dtype=F64)
    x0, how = torch.tensor([1.0, 0.0], dtype=F64), {"rtol": 1e-3, "atol": 1e-3}
    traj = solve(lambda t, x: turn @ x + 0.01 * torch.sin(t), x0, 60.0, **how)
    tsit5 = solve(lambda t, x: turn @ x + 0.01 * torch.sin(t), x0, 60.0, solver="tsit5", **how)
    assert traj.status == "done"
    assert traj.stats.solver == "tsit5"
    # A refusal costs a look at the spectrum, and each next one is twice as far away.
    assert traj.stats.nfe <= 1.01 * tsit5.stats.nfe
    assert ("|Im| = 20, where rkl2 does not pay" in traj.stats.reason) == (damping == 6.0)


class Hopping(Field):
    """dx/dt = -L tanh(x): hubs saturate, and explicit steps make them hop about unseen."""

    batched_time = True

    def prepare(self, graph: Graph, x0: Any) -> None:
        self.L = graph.laplacian("comb")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -(self.L @ torch.tanh(x))


def test_a_hub_among_many_nodes_is_seen() -> None:
    ring, hub = catalogue.ring(2000), torch.stack([torch.zeros(300).long(), torch.arange(1, 301)])
    spokes = torch.cat([hub, hub.flip(0)], 1)
    graph, x0 = Graph(torch.cat([ring.edge_index, spokes], 1), 2000), normal(2000, 2)
    traj = solve(Hopping(), x0, 3.0, graph, rtol=1e-3, atol=1e-3)
    assert traj.stats.solver == "tsit5, rkl2"
    when, _ = change(traj)
    assert when < 1.0
    fine = solve(Hopping(), x0, 3.0, graph, solver="tsit5", rtol=1e-7, atol=1e-7)
    assert float((traj.final - fine.final).abs().max()) < 0.02


class Driven(Field):
    """dx/dt = -L x + rate (x - x^3) + a sin(6 t), with the amplitude a as a second channel.

    Where there is one, accuracy limits the steps for ever.
    """

    batched_time = True

    def __init__(self, rate: float | Tensor = 1.0) -> None:
        super().__init__()
        self.rate = rate

    def prepare(self, graph: Graph, x0: Any) -> None:
        self.L = graph.laplacian("comb")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        u, a = x.split(1, 1)
        flow = -(self.L @ u) + self.rate * (u - u**3) + a * torch.sin(6 * t)
        return torch.cat([flow, torch.zeros_like(a)], 1)


BATCH = [catalogue.star(60), catalogue.path(2), catalogue.star(90), catalogue.path(3)]
WAYS = ["tsit5, rkl2", "tsit5", "tsit5, rkl2", "tsit5"]
AMPLITUDES = [0.0, 4.0, 0.0, 4.0]
STATES = [
    torch.cat([normal(g.num_nodes, 1, seed=k), torch.full((g.num_nodes, 1), a, dtype=F64)], 1)
    for k, (g, a) in enumerate(zip(BATCH, AMPLITUDES, strict=True))
]


def test_graphs_of_a_batch_change_on_their_own() -> None:
    how: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
    times = torch.linspace(0.0, 5.0, 31, dtype=F64)
    together = solve(Driven(), torch.cat(STATES), times, Graph.union(BATCH), **how)
    assert "in 2 of 4 graphs" in together.stats.reason
    first, solvers = 0, []
    for g, (graph, x0) in enumerate(zip(BATCH, STATES, strict=True)):
        alone = solve(Driven(), x0, times, graph, **how)
        rows = slice(first, first := first + graph.num_nodes)
        torch.testing.assert_close(together.x[:, rows], alone.x, rtol=1e-8, atol=1e-9)
        assert together.stats.accepted[g] == alone.stats.accepted
        assert together.stats.rejected[g] == alone.stats.rejected
        solvers.append(alone.stats.solver)
    assert solvers == WAYS


def test_no_method_is_tried_on_rows_of_the_other() -> None:
    """A step of rkl2 in which tsit5 would overflow, and give gradients of 0 times infinity."""
    rows = Rows(torch.tensor([0, 1]), 2)
    rate = torch.tensor([[1000.0], [1.0]], dtype=F64, requires_grad=True)
    x = torch.tensor([[3.0], [3.0]], dtype=F64, requires_grad=True)
    flow = Flow(lambda t, y: (-rate * torch.sinh(y[0]),), rows, x)
    t, h = np.zeros(2), np.array([0.5, 0.02])
    stepper = Switching().begin(flow, rows, Accuracy(1e-3, 1e-3))
    ways = Ways(np.array([True, False]), np.array([201, 3]))
    slope = flow(t, (x,))
    f = flow.stages(t, h)
    step = stepper.step(f, rows.spread(h, x), (x,), slope, plan=ways)
    found = torch.autograd.grad(step.x[0].sum(), (x, rate))
    assert all(bool(one.isfinite().all()) for one in (*step.x, *found))
    exact = 2 * math.atanh(math.tanh(1.5) * math.exp(-0.02))
    assert step.x[0][1].item() == pytest.approx(exact, rel=1e-3)


def test_gradients_replay_both_methods_and_stay_finite() -> None:
    """A step of rkl2 is far too long for tsit5, which must not be tried on these rows."""
    found = []
    for grad in ("tape", "replay"):
        x, rate = torch.cat(STATES).requires_grad_(), nn.Parameter(torch.tensor(1.0, dtype=F64))
        traj = solve(
            Driven(rate), x, [0.0, 2.7, 8.0], Graph.union(BATCH), rtol=1e-3, atol=1e-3, grad=grad
        )
        assert traj.stats.solver == "tsit5, rkl2"
        loss = traj.x[1].square().sum() + traj.final.sum()
        found.append((traj.x.detach(), *torch.autograd.grad(loss, (x, rate))))
    for tape, replay in zip(*found, strict=True):
        assert bool(tape.isfinite().all())
        torch.testing.assert_close(tape, replay, rtol=1e-11, atol=1e-12)


def test_the_gradient_is_that_of_the_solution() -> None:
    graph, x0 = catalogue.star(60), normal(60, 1)

    def final(rate: float) -> float:
        traj = solve(allen_cahn(rate), x0, 3.0, graph, solver="dopri8", rtol=1e-10, atol=1e-12)
        return float(traj.final.square().sum())

    rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
    traj = solve(allen_cahn(rate), x0, 3.0, graph, rtol=1e-5, atol=1e-6)
    assert traj.stats.solver == "tsit5, rkl2"
    (found,) = torch.autograd.grad(traj.final.square().sum(), rate)
    wanted = (final(1.001) - final(0.999)) / 0.002
    assert found.item() == pytest.approx(wanted, rel=5e-3)


def test_dense_output_goes_through_the_change() -> None:
    graph, x0 = catalogue.star(60), normal(60, 1)
    traj = solve(allen_cahn(), x0, 4.0, graph, save="steps", rtol=1e-4, atol=1e-4)
    when, _ = change(traj)
    for t in (0.5 * when, when + 0.01, 3.3):
        exact = solve(allen_cahn(), x0, t, graph, solver="dopri8", rtol=1e-9, atol=1e-11).final
        torch.testing.assert_close(traj.at(t), exact, rtol=0, atol=3e-3)


def test_backward_in_time_growth_is_left_to_tsit5() -> None:
    """In this direction of time nothing is damped, and the spectrum says so."""
    x0 = torch.tensor([1.0, 1e-3], dtype=F64)
    rates = torch.tensor([-1.0, -30.0], dtype=F64)
    traj = solve(lambda t, x: rates * torch.sin(x), x0, (1.0, 0.7), rtol=1e-4, atol=1e-9)
    assert traj.stats.solver == "tsit5"
    exact = 2 * torch.atan(torch.tan(x0 / 2) * torch.exp(rates * -0.3))
    torch.testing.assert_close(traj.final, exact, rtol=2e-3, atol=0)
    assert math.isfinite(float(traj.final.sum()))
