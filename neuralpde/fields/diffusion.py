"""Linear diffusion: heat flow, and any operator built from the graph and the first state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.fields.constants import hold, per_graph
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Operator


class Heat(Field):
    """Heat flow, dx/dt = -rate L x.

    With "comb" and "rw" it averages neighbours until each component is constant; "sym" and
    "augmented" end in multiples of D^(1/2) 1 and (D+I)^(1/2) 1. On a graph with `node_weight` M
    the generator is -rate M^-1 L. Its energy is the form of the same L.

    Args:
        norm: "comb" (D - A), "rw" (I - D^-1 A), "sym" or "augmented"; see `Graph.laplacian`.
        rate: Diffusivity: a number, a tensor (0-d, or one entry per graph), or an
            `nn.Parameter` to learn it.

    Raises:
        ValueError: For a rate that is not finite, or is a tensor of more than one dimension.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> Heat(rate=2.0).bind(graph, x)(torch.tensor(0.0), x).flatten().tolist()
    [2.0, -2.0]
    """

    batched_time = True
    rate: float | Tensor

    def __init__(self, norm: str = "comb", rate: float | Tensor = 1.0) -> None:
        super().__init__()
        self.norm = norm
        hold(self, "rate", rate)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -rate L."""
        assert self.norm is not None
        rate = per_graph("rate", self.rate, graph.num_graphs)
        self.operator = graph.laplacian(self.norm) * -rate
        self.dissipation = torch.as_tensor(rate, dtype=torch.float64, device=graph.device).detach()

    def extra_repr(self) -> str:
        """The arguments."""
        rate = self.rate.tolist() if isinstance(self.rate, Tensor) else self.rate
        return f"norm={self.norm!r}, rate={rate}"


class Diffusion(Field):
    """Linear flow along an operator that is built once per solve, dx/dt = A(graph, x0) x.

    Args:
        build: Maps the graph and the first state to the operator A.
        norm: Which Dirichlet form belongs to it, "comb" unless said otherwise.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> field = Diffusion(lambda graph, x0: -graph.laplacian("rw"), norm="rw")
    >>> field.bind(graph, x)(torch.tensor(0.0), x).flatten().tolist()
    [1.0, -1.0]
    """

    batched_time = True

    def __init__(self, build: Callable[[Graph, Any], Operator], norm: str | None = None) -> None:
        super().__init__()
        self.build, self.norm = build, norm

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build the operator; a builder that is a module leaves its parameters behind."""
        self.operator = self.build(graph, x0)
        self._modules = {}
        vars(self).pop("build", None)


class Source(Field):
    """A constant inflow, dx/dt = strength x0, or strength times a given tensor.

    It keeps linear fields exactly solvable: x(t) = e^(tA) x0 + t phi_1(tA) source. Added to a
    diffusion it moves the stationary mean, `pi^T x(t) = pi^T x(0) + t pi^T source`, so that
    features grow without end unless `centred` takes the mean out of the source, as GRAND++ does
    for a source on labelled nodes.

    Args:
        strength: A number or a tensor that broadcasts against the state; an `nn.Parameter` is
            learned.
        of_x0: Whether it multiplies the first state (GRAND's source) instead of ones.
        centred: None, or with which mean taken out. The norm of the diffusion that it is added to,
            "comb", "rw", "sym" or "augmented": then the source has no part in the kernel of that
            Laplacian, component by component (the means are uniform for "comb", weighted by
            degrees for "rw"). Or weights `[nodes]`, a stationary distribution of any other
            diffusion: then the weighted mean over each graph is subtracted.

    Raises:
        ValueError: At bind, for a norm on a directed graph, or weights that do not fit or add up
            to zero.

    References:
        M. Thorpe et al., GRAND++: Graph neural diffusion with a source term, ICLR 2022.

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> Source(2.0, of_x0=True).bind(None, x)(torch.tensor(0.0), x).flatten().tolist()
    [2.0, 6.0]
    >>> field = Source(2.0, of_x0=True, centred="comb")
    >>> field.bind(torch.tensor([[0, 1], [1, 0]]), x)(torch.tensor(0.0), x).flatten().tolist()
    [-2.0, 2.0]
    """

    batched_time = True
    needs_graph = False
    strength: float | Tensor
    centred: str | None
    weights: Tensor | None

    def __init__(
        self,
        strength: float | Tensor = 1.0,
        *,
        of_x0: bool = False,
        centred: str | Float[Tensor, " nodes"] | None = None,
    ) -> None:
        super().__init__()
        hold(self, "strength", strength, dims=None)
        self.of_x0 = of_x0
        self.centred, weights = (None, centred) if isinstance(centred, Tensor) else (centred, None)
        self.register_buffer("weights", weights, persistent=False)
        self.needs_graph = centred is not None

    def prepare(self, graph: Graph | None, x0: State) -> None:
        """Freeze the source."""
        assert isinstance(x0, Tensor)
        strength = torch.as_tensor(self.strength, dtype=x0.dtype, device=x0.device)
        source = strength * x0 if self.of_x0 else strength.expand_as(x0).clone()
        if graph is not None and self.weights is not None:
            source = _without_mean(source, self.weights, graph)
        if graph is not None and self.centred is not None:
            if graph.directed:
                raise ValueError(
                    f"centred={self.centred!r} needs the stationary distribution, which degrees do "
                    "not give on a directed graph; pass it as weights [nodes], or use "
                    'graph.undirected(reduce="max")'
                )
            source = DirichletForm.of(graph, self.centred).deviation(source)
        self.source = source


def _without_mean(source: Tensor, weights: Tensor, graph: Graph) -> Tensor:
    if weights.shape != (graph.num_nodes,):
        raise ValueError(
            f"centred has shape {tuple(weights.shape)}; one weight per node is needed, "
            f"[{graph.num_nodes}]"
        )
    index = graph.batch
    if index is None:
        index = torch.zeros(graph.num_nodes, dtype=torch.int64, device=graph.device)
    weights = weights.to(source.device, torch.float64)
    total = weights.new_zeros(graph.num_graphs).index_add(0, index, weights)
    if not bool((total > 0).all()):
        raise ValueError("the weights of centred add up to zero in some graph; give positive ones")
    shares = (weights / total[index]).to(source.dtype).view(-1, *[1] * (source.dim() - 1))
    zeros = source.new_zeros(graph.num_graphs, *source.shape[1:])
    return source - zeros.index_add(0, index, shares * source)[index]
