"""Gradients of a solve: the tape, the replay, finite differences and what they keep in memory."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Field, Heat
from solvers.control import Control
from solvers.explicit import ExplicitRungeKutta
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.pace import Adaptive, Fixed
from solvers.replay import advance
from solvers.rows import Rows
from solvers.tableaus import TABLEAUS

SOLVERS = ["heun", "bosh3", "dopri5", "tsit5", "dopri8"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Mixing(Field):
    """tanh(A x W) cos t - k sin x, k frozen from x0 and W: W is read in both halves."""

    batched_time = True

    def __init__(self, weight: Tensor, rate: float = 1.0) -> None:
        super().__init__()
        self.weight, self.rate = nn.Parameter(weight.clone()), rate

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("row")
        self.frozen = torch.tanh(x0 @ self.weight).mean()

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return (
            torch.tanh(self.A @ (x @ self.weight)) * torch.cos(t)
            - self.rate * self.frozen * x.sin()
        )


def gradients(
    grad: str, graph: Graph, times: object, pick: Callable[[Trajectory], Tensor], **how: object
) -> tuple[tuple[Tensor, ...], Trajectory]:
    field, x0 = Mixing(normal(2, 2, seed=5), 3.0), normal(graph.num_nodes, 2).requires_grad_()
    traj = solve(field, x0, times, graph, grad=grad, **how)
    assert traj.stats.gradient == grad
    return torch.autograd.grad(pick(traj), (x0, field.weight)), traj


def everything(traj: Trajectory) -> Tensor:
    """A function of all that is saved and of the end."""
    assert isinstance(traj.x, Tensor)
    weights = torch.linspace(1, 2, len(traj.x), dtype=torch.float64).view(-1, 1, 1)
    return (traj.x.nan_to_num() ** 2 * weights).sum() + traj.final.sin().sum()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "times", [(0.0, 3.0), [0.0, 0.0, 0.31, 0.32, 1.7, 1.7, 3.0], [3.0, 1.0, 0.2]]
)
def test_replay_is_the_tape(solver: str, times: list[float]) -> None:
    graph = catalogue.barbell(3, 2)
    how = {"solver": solver, "rtol": 1e-5}
    tape, one = gradients("tape", graph, times, everything, **how)
    replay, other = gradients("replay", graph, times, everything, **how)
    assert torch.equal(one.x, other.x)
    assert one.stats.nfe == other.stats.nfe
    assert one.stats.accepted > 3
    for a, b in zip(tape, replay, strict=True):
        assert a.abs().max() > 0.1
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_rejected_steps_have_no_gradient() -> None:
    def kick(rate: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, x: -rate * (x - torch.where(t > 0.5, 1.0, 0.0))

    class Kick(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(20.0, dtype=torch.float64))

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return kick(self.rate)(t, x)

    found = []
    for grad in ("tape", "replay"):
        field, x0 = Kick(), normal(3).requires_grad_()
        traj = solve(field, x0, 1.0, solver="dopri5", grad=grad)
        assert traj.stats.rejected > 0
        found.append(torch.autograd.grad(traj.final.sum(), (x0, field.rate)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("solver", ["euler", "rk4", "tsit5", "dopri8"])
def test_replay_is_the_tape_on_fixed_grids(solver: str) -> None:
    graph, times = catalogue.ring(5), [0.0, 0.13, 2.0]
    how = {"solver": solver, "steps": 37}
    tape, _ = gradients("tape", graph, times, everything, **how)
    replay, _ = gradients("replay", graph, times, everything, **how)
    for a, b in zip(tape, replay, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_gradients_are_those_of_finite_differences(grad: str) -> None:
    graph = catalogue.path(3)

    def final(x0: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        field = Mixing(weight.detach())
        del field.weight
        field.weight = weight
        traj = solve(field, x0, [0.0, 0.4, 1.0], graph, solver="dopri5", steps=6, grad=grad)
        return traj.x, traj.final

    inputs = normal(3, 2).requires_grad_(), normal(2, 2, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(final, inputs)


def test_the_tape_can_be_differentiated_twice() -> None:
    def final(y0: Tensor, k: Tensor) -> Tensor:
        return solve(lambda t, y: -k * y**2, y0, 1.0, solver="rk4", steps=4).final

    inputs = normal(2).abs().requires_grad_(), torch.tensor(0.7).double().requires_grad_()
    assert torch.autograd.gradgradcheck(final, inputs)


@pytest.mark.parametrize("grad", ["tape", "replay"])
@pytest.mark.parametrize("how", [{"rtol": 1e-11, "atol": 1e-13}, {"steps": 300, "solver": "rk4"}])
def test_times_have_gradients(grad: str, how: dict[str, object]) -> None:
    t = torch.tensor([0.2, 0.9, 1.3, 2.0], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    traj = solve(lambda t, y: y * torch.cos(t), y0, t, grad=grad, **how)
    for s in range(4):
        (found,) = torch.autograd.grad(traj.x[s].sum(), t, retain_graph=True)
        value = math.exp(math.sin(float(t.detach()[s])) - math.sin(0.2))
        want = torch.zeros(4, dtype=torch.float64)
        want[s] += value * math.cos(float(t.detach()[s]))
        want[0] -= value * math.cos(0.2)
        torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-8)
        (slope,) = torch.autograd.grad(traj.x[s].sum(), y0, retain_graph=True)
        torch.testing.assert_close(slope, torch.full_like(slope, value), rtol=1e-7, atol=1e-8)


def test_the_end_time_alone_may_require_gradients() -> None:
    T = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    final = solve(lambda t, y: -y, torch.ones(1).double(), T, rtol=1e-10, atol=1e-12).final
    (found,) = torch.autograd.grad(final.sum(), T)
    assert float(found) == pytest.approx(-math.exp(-1.5), rel=1e-8)


@pytest.mark.parametrize("field_time", [True, False])
def test_batches_replay_graph_by_graph(field_time: bool) -> None:
    graphs = [catalogue.path(3), catalogue.star(12), catalogue.ring(4)]
    batch = Graph.union(graphs)
    found, weights = [], normal(batch.num_nodes, 1, seed=2)
    for grad in ("tape", "replay"):
        field = Mixing(normal(2, 2, seed=5), 3.0)
        field.batched_time = field_time
        x0 = normal(batch.num_nodes, 2).requires_grad_()
        traj = solve(field, x0, [0.0, 0.7, 2.0], batch, solver="dopri5", grad=grad)
        total = (traj.x * weights).sum() + (traj.final**2).sum()
        found.append(torch.autograd.grad(total, (x0, field.weight)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_stopped_and_failed_graphs_keep_their_gradients(grad: str) -> None:
    class Square(Field):
        batched_time = True

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return x**2

    class Past:
        name = "past"

        def __call__(self, t: np.ndarray, x: tuple[Tensor, ...], fx: object) -> np.ndarray:
            return np.array([False, float(t[1]) > 0.5, False])

    batch = Graph.union([catalogue.path(1)] * 3)
    first = torch.tensor([[0.3], [0.2], [2.0]], dtype=torch.float64, requires_grad=True)
    traj = solve(
        Square(),
        first,
        [0.0, 0.3, 1.0],
        batch,
        stop=Past(),
        grad=grad,
        raise_on_failure=False,
        rtol=1e-9,
        atol=1e-12,
    )
    assert traj.status == ("done", "stopped (past)", "step_too_small")
    (found,) = torch.autograd.grad(traj.x[1].sum(), first, retain_graph=True)
    torch.testing.assert_close(found, 1 / (1 - 0.3 * first.detach()) ** 2, rtol=1e-6, atol=0)
    (found,) = torch.autograd.grad(traj.final[:2].sum(), first)
    when = traj.ended[:2, None]
    torch.testing.assert_close(
        found[:2], 1 / (1 - when * first[:2].detach()) ** 2, rtol=1e-6, atol=0
    )
    assert float(found[2]) == 0.0


@pytest.mark.parametrize("grad", ["tape", "replay"])
@pytest.mark.parametrize("own_steps", [True, False])
def test_a_failed_graph_spoils_no_gradient_of_the_others(grad: str, own_steps: bool) -> None:
    class Square(Field):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor(1.0).double())
            self.batched_time = own_steps

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.k * x**2

    field, batch = Square(), Graph.union([catalogue.path(1)] * 2)
    x0 = torch.tensor([[0.3], [2.0]], dtype=torch.float64, requires_grad=True)
    traj = solve(field, x0, 1.0, batch, grad=grad, raise_on_failure=False, rtol=1e-8, atol=1e-10)
    assert traj.status == ("done", "step_too_small")
    slope, rate = torch.autograd.grad(traj.final[0].sum(), (x0, field.k))
    assert slope.flatten().tolist() == pytest.approx([1 / 0.49, 0.0])
    assert float(rate) == pytest.approx(0.09 / 0.49)


def test_every_accepted_state_can_be_differentiated() -> None:
    graph = catalogue.path(4)
    field, x0 = Mixing(normal(2, 2, seed=5)), normal(4, 2).requires_grad_()
    traj = solve(field, x0, 1.0, graph, save="steps")
    assert traj.stats.gradient == "tape"
    with pytest.raises(ValueError, match="grad='tape'"):
        solve(field, x0, 1.0, graph, save="steps", grad="replay")
    (found,) = torch.autograd.grad(traj.x[-2].sum(), x0)
    stop = float(traj.t[-2])
    other = solve(field, x0, stop, graph, rtol=1e-8, atol=1e-10)
    (want,) = torch.autograd.grad(other.final.sum(), x0)
    torch.testing.assert_close(found, want, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 16, 50, 128, 1000, 2049])
def test_a_replayed_solve_keeps_a_root_of_its_states(steps: int) -> None:
    pace = Fixed(np.linspace(0, 1, steps + 1)[:, None])
    flow = Flow(lambda t, x: (-x[0],), Rows(), torch.zeros((), dtype=torch.float64))
    stepper = ExplicitRungeKutta(TABLEAUS["euler"])
    loop = Loop(flow, stepper, pace, Rows(), np.array([[0.0], [1.0]]), replay=True, max_steps=10**4)
    run = loop.run((torch.ones(2, dtype=torch.float64),))
    kept, root = len(run.tape.checkpoints), math.sqrt(steps)
    assert root / 2 <= kept <= 2 * root + 2
    assert len(run.tape.moves) == steps
    ends = [at for at, _ in run.tape.checkpoints] + [steps]
    assert max(np.diff(ends)) <= 2 * root + 2


def test_replaying_holds_few_states_at_any_time() -> None:
    alive, most = 0, 0

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            nonlocal alive, most
            alive += ctx.needs_input_grad[0]
            most = max(most, alive)
            return -x

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:
            nonlocal alive
            alive -= 1
            return -g

    flow = Flow(lambda t, x: (Watched.apply(x[0]),), Rows(), torch.zeros((), dtype=torch.float64))
    for steps, limit in ((100, 25), (2500, 110)):
        alive = most = 0
        loop = Loop(
            flow,
            ExplicitRungeKutta(TABLEAUS["euler"]),
            Fixed(np.linspace(0, 1, steps + 1)[:, None]),
            Rows(),
            np.array([[0.0], [1.0]]),
        )
        x0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
        solution = advance(loop, (x0,), (), "replay")
        (found,) = torch.autograd.grad(solution.last[0].sum(), x0)
        assert most <= limit
        assert found.tolist() == pytest.approx([(1 - 1 / steps) ** steps] * 2)


def test_auto_chooses_by_length_and_says_so() -> None:
    graph, x0 = catalogue.path(4), normal(4, 2)
    field = Mixing(normal(2, 2))
    assert solve(field, x0, 1.0, graph, steps=30).stats.gradient == "tape"
    assert solve(field, x0, 1.0, graph, steps=31).stats.gradient == "replay"
    assert solve(field, x0, 1.0, graph).stats.gradient == "replay"
    assert solve(Heat(), x0, 1.0, graph, solver="tsit5").stats.gradient == "none"
    assert solve(lambda t, y: -y, x0.requires_grad_(), 1.0).stats.gradient == "tape"
    with torch.no_grad():
        assert not solve(field, x0, 1.0, graph).final.requires_grad
    assert not solve(field, x0, 1.0, graph, grad="none").final.requires_grad


def test_the_controller_has_no_gradient() -> None:
    # With steps frozen, x(T) = R(h rate)^n x0; a gradient through h would differ.
    rate = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    sizes: list[float] = []
    rows = Rows()
    flow = Flow(lambda t, x: (-rate * x[0],), rows, torch.zeros((), dtype=torch.float64))
    loop = Loop(
        flow,
        ExplicitRungeKutta(TABLEAUS["heun"]),
        Adaptive(1e-3, 1e-3, Control()),
        rows,
        np.array([[0.0], [2.0]]),
        monitors=(lambda t, *_: sizes.append(float(t[0])),),
    )
    final = advance(loop, (torch.ones(1, dtype=torch.float64),), (rate,), "tape").last[0]
    (found,) = torch.autograd.grad(final, rate)
    value, slope = 1.0, 0.0
    for h in np.diff(sizes):
        z = -0.8 * h
        factor, change = 1 + z + z * z / 2, -h * (1 + z)
        value, slope = value * factor, slope * factor + value * change
    assert float(final.detach()) == pytest.approx(value, rel=1e-12)
    assert float(found) == pytest.approx(slope, rel=1e-12)


def test_replay_refuses_a_function_that_hides_what_it_differentiates() -> None:
    rate = torch.ones((), dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"<lambda>.*grad='tape'"):
        solve(lambda t, x: -rate * x, x0, 1.0, grad="replay")
    (slope,) = torch.autograd.grad(solve(lambda t, x: -rate * x, x0, 1.0).final.sum(), rate)
    assert float(slope) == pytest.approx(-2 * math.exp(-1.0), rel=1e-3)
