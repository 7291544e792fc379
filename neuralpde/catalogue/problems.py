"""Graph problems with known answers: a field, a graph, a first state, and where it gets.

Answers come from closed forms (scipy's `expm_multiply`) or from DOP853 at 3e-14, never from this
package's own solvers.

>>> from neuralpde.catalogue import problems
>>> heat = problems.heat()
>>> heat.error(heat.answer())
0.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.catalogue.families import barbell
from neuralpde.fields import GRAND, Field, Heat, OrnsteinUhlenbeck, Reaction, Wave
from neuralpde.graph import Graph

State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class GraphProblem:
    """dx/dt = field(t, x) on a graph, with the state that it reaches at t1.

    Attributes:
        name: What it is called.
        field: The field, not bound.
        graph: The graph.
        x0: The first state in float64; a pair (x, v) for fields of second order.
        t: Start and end.
        solution: x(t) in closed form; None where the answer is computed by DOP853.

    >>> from neuralpde.catalogue import path
    >>> still = GraphProblem("still", Heat(), path(2), torch.ones(2, 1).double(), (0.0, 1.0))
    >>> still.answer().flatten().tolist()
    [1.0, 1.0]
    """

    name: str
    field: Field
    graph: Graph
    x0: State
    t: tuple[float, float]
    solution: Callable[[float], State] | None = None

    def answer(self) -> State:
        """The state at the end, computed once.

        Raises:
            RuntimeError: When DOP853 does not get there.

        >>> wave().answer()[0].shape
        torch.Size([12, 2])
        """
        return self._end

    def error(self, x: State) -> float:
        """The distance of a state from the answer, relative to the answer's norm.

        >>> problem = allen_cahn()
        >>> round(problem.error(1.5 * problem.answer()), 6)
        0.5
        """
        right, found = _flat(self.answer()), _flat(x)
        return float((found - right).norm() / right.norm())

    @cached_property
    def _end(self) -> State:
        return _by_dop853(self) if self.solution is None else self.solution(self.t[1])


@dataclass(frozen=True)
class GraphProcess:
    """The graph Ornstein-Uhlenbeck process, dX = -L X dt + sigma dW, with its law.

    Attributes:
        field: `OrnsteinUhlenbeck(scale=sigma)`, not bound.
        graph: The graph, undirected.
        x0: The first state in float64, the same for all paths.
        sigma: Strength of the noise.

    >>> process = ornstein_uhlenbeck(sigma=2.0)
    >>> process.covariance(0.0).abs().max().item(), process.mean(0.0).equal(process.x0)
    (0.0, True)
    """

    field: OrnsteinUhlenbeck
    graph: Graph
    x0: Tensor
    sigma: float

    def mean(self, t: float) -> Float[Tensor, "nodes channels"]:
        """The mean e^(-tL) x0.

        >>> process = ornstein_uhlenbeck()
        >>> process.mean(2.0).sum(0).allclose(process.x0.sum(0))
        True
        """
        matrix = self.graph.laplacian("comb", dtype=torch.float64).to_scipy()
        return self.x0 if t == 0 else _exponential(-matrix, t, self.x0)

    def covariance(self, t: float) -> Float[Tensor, "nodes nodes"]:
        """The covariance of a channel, see `OrnsteinUhlenbeck.covariance`.

        >>> round(ornstein_uhlenbeck(sigma=3.0).covariance(2.0).sum().item() / 12, 9)
        18.0
        """
        return self.field.bind(self.graph, self.x0).covariance(t)


class Forcing(Field):
    """The same push on every node, dx/dt = amplitude sin(frequency t).

    Args:
        amplitude: Its largest value.
        frequency: Radians per unit of time.

    >>> field = Forcing(2.0, 1.0).bind(None, torch.zeros(2, 1))
    >>> field(torch.tensor(torch.pi / 2), torch.zeros(2, 1)).flatten().tolist()
    [2.0, 2.0]
    """

    batched_time = True
    pointwise = True

    def __init__(self, amplitude: float = 0.3, frequency: float = 3.0) -> None:
        super().__init__()
        self.amplitude, self.frequency = amplitude, frequency

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The push at time t."""
        return (self.amplitude * torch.sin(self.frequency * t)).to(x).expand_as(x)


class TanhDiffusion(Field):
    """Saturating diffusion, dx/dt = tanh(A x) - x with A = D^-1 W: nothing linear to split off.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> field = TanhDiffusion().bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> [round(v, 3) for v in field(torch.tensor(0.0), x).flatten().tolist()]
    [0.762, -1.0]
    """

    batched_time = True

    def prepare(self, graph: Graph, x0: Any) -> None:
        """Build A."""
        self.A = graph.adjacency("row")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """tanh(A x) - x."""
        return torch.tanh(self.A @ x) - x


def heat(graph: Graph | None = None, *, end: float = 2.0, channels: int = 2) -> GraphProblem:
    """Return heat flow, dx/dt = -L x, with x(t) = e^(-tL) x0.

    >>> heat().answer().sum(0).allclose(heat().x0.sum(0))
    True
    """
    graph, x0 = _start(graph, channels)
    matrix = graph.laplacian("comb", dtype=torch.float64).to_scipy()
    return GraphProblem(
        "heat", Heat(), graph, x0, (0.0, end), lambda t: _exponential(-matrix, t, x0)
    )


def allen_cahn(
    graph: Graph | None = None, *, end: float = 2.0, channels: int = 2, forced: bool = True
) -> GraphProblem:
    """Return Allen-Cahn, dx/dt = -L x + x - x^3 + 0.3 sin 3t; autonomous without the forcing.

    >>> allen_cahn(forced=False).field.label
    'Heat + Reaction'
    """
    graph, x0 = _start(graph, channels)
    field: Field = Heat() + Reaction.allen_cahn()
    if forced:
        field = field + Forcing(0.3, 3.0)
    name = "forced Allen-Cahn" if forced else "Allen-Cahn"
    return GraphProblem(name, field, graph, x0, (0.0, end))


def tanh_diffusion(
    graph: Graph | None = None, *, end: float = 3.0, channels: int = 2
) -> GraphProblem:
    """Return saturating diffusion, dx/dt = tanh(A x) - x.

    >>> tanh_diffusion().answer().abs().max() < 1
    tensor(True)
    """
    graph, x0 = _start(graph, channels)
    return GraphProblem("tanh diffusion", TanhDiffusion(), graph, x0, (0.0, end))


def grand(
    graph: Graph | None = None, *, end: float = 3.0, channels: int = 4, scale: float = 1.0
) -> GraphProblem:
    """Return nonlinear GRAND, dx/dt = A(x) x - x, the same weights every time.

    Args:
        graph: The graph.
        end: When it ends.
        channels: Channels of the state.
        scale: Factor on the attention scores.

    >>> grand().answer().max() < grand().x0.max()
    tensor(True)
    """
    graph, x0 = _start(graph, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        field = GRAND(channels, attention_dim=8, variant="nonlinear", rate=1.0).double()
        with torch.no_grad():
            field.attention.query.weight *= scale
    return GraphProblem("GRAND", field, graph, x0, (0.0, end))


def wave(
    graph: Graph | None = None, *, end: float = 3.0, channels: int = 2, damping: float = 0.0
) -> GraphProblem:
    """Return the wave equation, x'' = -L x - damping x', with its matrix exponential.

    >>> wave(damping=0.5).name
    'damped wave'
    """
    graph, x0 = _start(graph, channels)
    from scipy.sparse import block_array, eye_array

    L, one = graph.laplacian("comb", dtype=torch.float64).to_scipy(), eye_array(graph.num_nodes)
    # csr: expm_multiply is slow on what block_array gives by default.
    matrix = block_array([[0 * one, one], [-L, -damping * one]], format="csr")
    both = torch.cat([x0, torch.zeros_like(x0)])
    return GraphProblem(
        "damped wave" if damping else "wave",
        Wave(damping=damping),
        graph,
        (x0, torch.zeros_like(x0)),
        (0.0, end),
        lambda t: _exponential(matrix, t, both).chunk(2),
    )


def ornstein_uhlenbeck(
    graph: Graph | None = None, *, sigma: float = 0.5, channels: int = 2
) -> GraphProcess:
    """Return the graph Ornstein-Uhlenbeck process, dX = -L X dt + sigma dW.

    >>> ornstein_uhlenbeck().field.label
    'OrnsteinUhlenbeck'
    """
    graph, x0 = _start(graph, channels)
    return GraphProcess(OrnsteinUhlenbeck(scale=sigma), graph, x0, sigma)


def _start(graph: Graph | None, channels: int) -> tuple[Graph, Tensor]:
    """Twelve nodes by default; normal noise squeezed into [-1, 1], the same every time."""
    graph = barbell(5, 2) if graph is None else graph
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(graph.num_nodes, channels, dtype=torch.float64, generator=generator)
    return graph, noise.tanh()


def _exponential(matrix: Any, t: float, x: Tensor) -> Tensor:
    from scipy.sparse.linalg import expm_multiply

    return torch.from_numpy(expm_multiply(matrix * t, x.numpy()))


def _flat(x: State) -> Tensor:
    parts = x if isinstance(x, tuple) else (x,)
    return torch.cat([part.detach().double().flatten() for part in parts])


def _by_dop853(problem: GraphProblem) -> State:
    from scipy.integrate import solve_ivp

    parts = problem.x0 if isinstance(problem.x0, tuple) else (problem.x0,)
    bound = problem.field.bind(problem.graph, problem.x0)
    sizes = [part.numel() for part in parts]

    def shaped(flat: Tensor) -> State:
        pieces = zip(flat.split(sizes), parts, strict=True)
        states = tuple(piece.view(part.shape) for piece, part in pieces)
        return states if isinstance(problem.x0, tuple) else states[0]

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            now = torch.tensor(t, dtype=torch.float64)
            values: np.ndarray = _flat(bound(now, shaped(torch.from_numpy(y.copy())))).numpy()
        return values

    first = _flat(problem.x0).numpy()
    found = solve_ivp(slope, problem.t, first, method="DOP853", rtol=3e-14, atol=1e-15)
    if not found.success:
        raise RuntimeError(f"no reference for {problem.name}: {found.message}")
    return shaped(torch.from_numpy(found.y[:, -1].copy()))
