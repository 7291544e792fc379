"""Fields that swing, marches without a loop, and gradients to compare: for several test files."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, Trajectory, solve
from neuralpde.fields import Field
from neuralpde.fields.structure import structure
from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Stepper

SCHEMES = ["leapfrog", "kick_drift_damp", "symplectic_euler", "graphcon"]
SYMMETRIC = ["leapfrog", "kick_drift_damp"]
every_scheme = pytest.mark.parametrize("name", SCHEMES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Pendulums(Field):
    """x'' = -sin x + A x / 2 + cos 2t - damping x': a gradient force that depends on time."""

    order = 2
    batched_time = True

    def __init__(self, damping: float = 0.0) -> None:
        super().__init__()
        self.damping = damping

    def prepare(self, graph: Graph, x0: State) -> None:
        self.A = graph.adjacency()

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return 0.5 * (self.A @ x) - x.sin() + torch.cos(2 * t)


def march(
    method: Stepper, field: Field, graph: Graph, x: State, h: float, steps: int
) -> Iterator[State]:
    """The states after each step, without the loop of a solve."""
    known = structure(field.bind(graph, x), "field", packed=True)
    flow = Flow(field.bind(graph, x), Rows(), x[0], known)
    own = method.begin(flow, Rows(), Accuracy())
    t = np.zeros(1)
    slope = flow(t, x)
    for n in range(steps):
        t = np.array([n * h])
        step = own.step(flow.stages(t, np.array([h])), h, x, slope, error=False)
        x, slope = step.x, step.f if step.f is not None else flow(t + h, step.x)
        yield x


class Coupled(Field):
    """x'' = tanh(A x W + 1) (1.5 + cos t) - x - damping x': learned, nonlinear, never at rest."""

    order = 2
    batched_time = True

    def __init__(self, damping: float = 0.3) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(2, 2, seed=5))
        self.raw = nn.Parameter(torch.tensor(math.log(math.expm1(damping))).double())

    def prepare(self, graph: Graph, x0: State) -> None:
        self.A = graph.adjacency("row")
        self.damping = nn.functional.softplus(self.raw)

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.A @ (x @ self.weight) + 1.0) * (1.5 + torch.cos(t)) - x


Gradients = tuple[tuple[Tensor, ...], Trajectory]


def gradients(
    grad: str,
    graph: Graph,
    times: object,
    pick: Callable[[Trajectory], Tensor],
    field: Field | None = None,
    dtype: torch.dtype = torch.float64,
    **how: object,
) -> Gradients:
    field = (Coupled() if field is None else field).to(dtype)
    x0 = tuple(normal(graph.num_nodes, 2, seed=s).to(dtype).requires_grad_() for s in (1, 2))
    traj = solve(field, x0, times, graph, grad=grad, **how)
    assert traj.stats.gradient == grad
    found = torch.autograd.grad(pick(traj), (*x0, *field.parameters()), allow_unused=True)
    return tuple(torch.zeros(()) if one is None else one for one in found), traj


def everything(traj: Trajectory) -> Tensor:
    """A function of all that is saved and of the end."""
    weights = torch.linspace(1, 2, len(traj.x[0])).view(-1, 1, 1).to(traj.x[0])
    saved = [(part.nan_to_num() ** 2 * weights).sum() for part in traj.x]
    return saved[0] - saved[1] + traj.final[0].sin().sum() + traj.final[1].cos().sum()


def agree(ours: Gradients, theirs: Gradients, rtol: float = 1e-9) -> None:
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=0, atol=rtol * float(b.abs().max()))
