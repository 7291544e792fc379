"""A Laplacian bridge as fields, which `solve` runs: its stochastic equation, and its flow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields import Field
from neuralpde.fields.field import State
from neuralpde.flows.laplacian_bridge import LaplacianBridge
from neuralpde.flows.paths import Time
from neuralpde.graph import Graph
from solvers.noise import NoiseTerm


class BridgeProcess(Field):
    """The Laplacian bridge to x1, `dx = (-c L x + sigma^2 grad log h(t, x)) dt + sigma dW`.

    Diffusion with noise, led to x1 by Doob's transform, h(t, x) = p(x1 | x_t = x). It starts in any
    x0 at t = 0; solve it up to `path.ends[1]`, where the drift becomes infinite. With a target that
    has as many channels as samples, or one for all.

    Explicit steps h have to resolve the fastest mode, h below 2 / (c lambda_max), and a last step
    of Heun's method be no longer than the path's `cut`, or nearly so: it looks at the drift there.

    Args:
        path: the bridge.
        x1: where it leads: `[nodes, ...]`, columns for all samples or one.

    References:
        J. L. Doob, Bull. Soc. Math. France 85 (1957), 431, for the transform.

    >>> import torch
    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.flows import LaplacianBridge
    >>> graph, rng = catalogue.path(3), torch.Generator().manual_seed(0)
    >>> path = LaplacianBridge(graph, sigma=0.1, cut=0.02)
    >>> x0, x1 = torch.zeros(3, 4).double(), torch.tensor([[1.0], [2.0], [4.0]]).double()
    >>> field = BridgeProcess(path, x1)
    >>> run = solve(field, x0, path.ends[1], graph, steps=64, generator=rng)
    >>> (run.final - x1).abs().max().item() < 0.2
    True
    """

    x1: Tensor
    batched_time = True

    def __init__(self, path: LaplacianBridge, x1: Float[Tensor, "nodes ..."]) -> None:
        super().__init__()
        self.path, self.norm = path, path.norm
        self.register_buffer("x1", x1, persistent=False)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -c L."""
        first = _checked(self.path, graph, x0)
        self.operator = -self.path.rate * graph.laplacian(self.path.norm)
        self.x1 = self.x1.to(first)

    def inherited_noise(self) -> NoiseTerm:
        """The noise sigma dW."""
        return NoiseTerm(self.path.sigma)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """What leads to x1."""
        return self.path.control(_clock(t), x, self.x1)

    def extra_repr(self) -> str:
        """The path."""
        return repr(self.path)


class BridgeFlow(Field):
    """The flow of the Laplacian bridge between x0 and x1: the ODE dx/dt = u_t(x | x0, x1).

    It carries the law of x_t along: from a sample of it at one time to one at any other, between
    `path.ends`. A point moves so that `V_t^(-1/2) (x - m_t)` stays what it is.

    Args:
        path: the bridge.
        x0: source, columns for all samples or one.
        x1: target.

    >>> import torch
    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.flows import LaplacianBridge
    >>> graph = catalogue.path(2)
    >>> path = LaplacianBridge(graph, cut=0.1)
    >>> x0, x1 = torch.zeros(2, 1).double(), torch.tensor([[1.0], [3.0]]).double()
    >>> start, end = (path.mean(t, x0, x1) for t in path.ends)
    >>> run = solve(BridgeFlow(path, x0, x1), start, path.ends, graph, rtol=1e-8, atol=1e-8)
    >>> (run.final - end).abs().max().item() < 1e-6
    True
    """

    x0: Tensor
    x1: Tensor
    batched_time = True

    def __init__(
        self,
        path: LaplacianBridge,
        x0: Float[Tensor, "nodes ..."],
        x1: Float[Tensor, "nodes ..."],
    ) -> None:
        super().__init__()
        self.path, self.norm = path, path.norm
        self.register_buffer("x0", x0, persistent=False)
        self.register_buffer("x1", x1, persistent=False)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Bring the ends to the dtype and device of the state."""
        first = _checked(self.path, graph, x0)
        self.x0, self.x1 = self.x0.to(first), self.x1.to(first)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity."""
        return self.path.velocity(_clock(t), x, self.x0, self.x1)

    def extra_repr(self) -> str:
        """The path."""
        return repr(self.path)


def _clock(t: Tensor) -> Time:
    return t.reshape(-1) if t.dim() else t


def _checked(path: LaplacianBridge, graph: Graph, x0: State) -> Tensor:
    if not isinstance(x0, Tensor):
        raise TypeError("the state of a Laplacian bridge is one tensor")
    own = path.graph
    same = graph.num_nodes == own.num_nodes and graph.edge_index.shape == own.edge_index.shape
    if not same or not torch.equal(graph.edge_index, own.edge_index.to(graph.device)):
        raise ValueError(f"the bridge lives on {own!r}, the solve on {graph!r}; pass the same one")
    return x0
