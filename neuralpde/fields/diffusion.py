"""Linear diffusion: heat flow, and any operator built from the graph and the first state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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
        self.dissipation = torch.as_tensor(rate, dtype=torch.float64).detach()

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

    It keeps linear fields exactly solvable: x(t) = e^(tA) x0 + t phi_1(tA) source.

    Args:
        strength: A number or a tensor that broadcasts against the state; an `nn.Parameter` is
            learned.
        of_x0: Whether it multiplies the first state (GRAND's source) instead of ones.

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> Source(2.0, of_x0=True).bind(None, x)(torch.tensor(0.0), x).flatten().tolist()
    [2.0, 6.0]
    """

    batched_time = True
    needs_graph = False
    strength: float | Tensor

    def __init__(self, strength: float | Tensor = 1.0, *, of_x0: bool = False) -> None:
        super().__init__()
        hold(self, "strength", strength, dims=None)
        self.of_x0 = of_x0

    def prepare(self, graph: Graph | None, x0: State) -> None:
        """Freeze the source."""
        assert isinstance(x0, Tensor)
        strength = torch.as_tensor(self.strength, dtype=x0.dtype, device=x0.device)
        self.source = strength * x0 if self.of_x0 else strength.expand_as(x0).clone()
