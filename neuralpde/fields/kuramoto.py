"""Phases that pull each other along: the Kuramoto model on a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.constants import hold
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from solvers.rows import Rows

Frequencies = float | Tensor | Callable[[Graph, Tensor], Tensor]


class Kuramoto(Field):
    """The Kuramoto model, theta_i' = omega_i + K sum_j a_ij sin(theta_j - theta_i).

    Every channel is a phase of its own. By sin(b - a) = cos a sin b - sin a cos b the sum is
    cos(theta) (A sin theta) - sin(theta) (A cos theta): one product with both, nothing per edge.
    On undirected graphs it descends `lyapunov`, K sum_ij m_i a_ij (1 - cos(theta_j - theta_i)) / 2
    - sum_i m_i omega_i theta_i, with the metric m in which A is self-adjoint (ones for "none" and
    "sym"): theta' = -m^-1 grad. The mean of m theta' is that of m omega, and rates do not change
    when all phases of a component shift together. Two nodes lock iff |omega_1 - omega_2| <= 2 K
    (Adler's equation).

    Args:
        omega: Natural frequencies: a number, a tensor that broadcasts against the state
            (`[nodes, 1]` for one number per node), an `nn.Parameter` to learn them, or a function
            of the graph and the first state that returns such a tensor. Initial phases as
            frequencies, `lambda graph, x0: x0`, make different nodes settle at different phases.
        coupling: K: a number or a 0-d tensor; an `nn.Parameter` is learned.
        norm: Of the adjacency: "none", "row" (a mean over neighbours), "col" or "sym".

    Raises:
        ValueError: For numbers that are not finite; at bind, for frequencies that do not broadcast.

    References:
        Kuramoto, Chemical oscillations, waves, and turbulence (1984); on graphs: Rodrigues et al.,
        Phys. Rep. 610 (2016), 1; as a network: Nguyen et al., AISTATS 2024, arXiv:2311.03260.

    >>> import math
    >>> x = torch.tensor([[0.0], [math.pi / 2]])
    >>> field = Kuramoto(omega=0.5, coupling=2.0).bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> [round(rate, 6) for rate in field(torch.tensor(0.0), x).flatten().tolist()]
    [2.5, -1.5]
    """

    batched_time = True
    omega: Any
    coupling: float | Tensor

    def __init__(
        self,
        omega: Frequencies | nn.Parameter = 0.0,
        coupling: float | Tensor = 1.0,
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.kind = norm
        self.norm = "sym" if norm == "sym" else None
        if isinstance(omega, (int, float, Tensor)):
            hold(self, "omega", omega, dims=None)
        else:
            self.omega = omega
        hold(self, "coupling", coupling, dims=0)

    @classmethod
    def drawn(
        cls,
        nodes: int,
        width: float = 1.0,
        coupling: float | Tensor = 1.0,
        norm: str = "none",
        *,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Return the model with normal frequencies, of mean 0 and standard deviation `width`.

        >>> Kuramoto.drawn(3, generator=torch.Generator().manual_seed(0)).omega.shape
        torch.Size([3, 1])
        """
        return cls(width * torch.randn(nodes, 1, generator=generator), coupling, norm)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Normalise the adjacency, find the frequencies."""
        if not isinstance(x0, Tensor) or x0.is_complex():
            raise TypeError("phases are one real tensor [nodes, channels]")
        self.A = graph.adjacency(self.kind)
        omega: Any = self.omega(graph, x0) if callable(self.omega) else self.omega
        if isinstance(omega, Tensor):
            omega = omega.to(x0)
            sizes = zip(reversed(omega.shape), reversed(x0.shape), strict=False)
            if omega.dim() > x0.dim() or any(own not in (1, size) for own, size in sizes):
                raise ValueError(
                    f"omega has shape {tuple(omega.shape)} and the state {tuple(x0.shape)}; give "
                    "[nodes, 1] for one frequency per node"
                )
        self._parameters = {k: v for k, v in self._parameters.items() if k != "omega"}
        self._buffers.pop("omega", None)
        self.omega = omega
        if graph.directed:
            self.lyapunov = None

    def rest(self, t: Tensor, x: Float[Tensor, "nodes ..."]) -> Float[Tensor, "nodes ..."]:
        """Frequencies and pulls."""
        sin, cos, pulled_sin, pulled_cos = self._both(x)
        rates: Tensor = self.omega + self.coupling * (cos * pulled_sin - sin * pulled_cos)
        return rates

    def _potential(self, x: Float[Tensor, "nodes ..."]) -> Float[Tensor, " graphs"]:
        sin, cos, pulled_sin, pulled_cos = self._both(x)
        pull = (self.A @ torch.ones_like(x)) - cos * pulled_cos - sin * pulled_sin
        both = self.coupling * pull / 2 - self.omega * x
        if self.A.metric is not None:
            both = both * self.A.metric.to(both.dtype).view(-1, *[1] * (x.dim() - 1))
        return Rows(self.A.batch, self.A.num_graphs).sums((both,))

    # None on directed graphs, where there is no potential.
    lyapunov: Any = _potential

    def _both(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sin, cos = x.sin(), x.cos()
        pulled_sin, pulled_cos = (self.A @ torch.stack((sin, cos), dim=1)).unbind(1)
        return sin, cos, pulled_sin, pulled_cos

    def extra_repr(self) -> str:
        """The arguments."""
        return f"coupling={self.coupling!r}, norm={self.kind!r}"


def order_parameter(
    x: Float[Tensor, "nodes ..."], graph: object = None
) -> Float[Tensor, "graphs ..."]:
    """Return how far phases agree, r = |mean_j e^(i theta_j)|, of every graph and channel.

    1 where all agree, about 1 / sqrt(nodes) for random ones.

    Args:
        x: Phases.
        graph: The graph, or what stands for one; None for a single graph.

    References:
        Kuramoto, Chemical oscillations, waves, and turbulence (1984).

    >>> import math
    >>> order_parameter(torch.tensor([[0.0, 0.0], [0.0, math.pi]])).round(decimals=6).tolist()
    [[1.0, 0.0]]
    """
    batch, graphs = None, 1
    if graph is not None:
        owner = Graph.of(graph)
        batch, graphs = owner.batch, owner.num_graphs
    turns = torch.stack((x.cos(), x.sin()))
    if batch is None:
        means = turns.mean(1, keepdim=True)
    else:
        sums = turns.new_zeros(2, graphs, *x.shape[1:]).index_add(1, batch, turns)
        means = sums / torch.bincount(batch, minlength=graphs).view(-1, *[1] * (x.dim() - 1))
    r: Tensor = torch.linalg.vector_norm(means, dim=0)
    return r
