"""What a flow should keep: mass, and the functional of its field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.measures import Measure, Shot, sizes
from neuralpde.fields import Field
from neuralpde.graph import Graph


@dataclass(frozen=True)
class Mass(Measure):
    """The total over the nodes, sum_i m_i x_i, of one channel or of all together.

    m is the measure of a graph with `node_weight`, else 1: what heat flow with "comb" keeps. With
    `weight="degree"` it is what random-walk diffusion keeps.

    Args:
        channel: Which channel; by default the sum of all.
        weight: "measure" or "degree".
        name: Name of its series.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> Mass()(torch.tensor([[1.0], [3.0]]), edges).item()
    4.0
    """

    channel: int | None = None
    weight: str = "measure"
    name: str = "mass"

    def __post_init__(self) -> None:
        """Refuse a weight nobody knows."""
        if self.weight not in ("measure", "degree"):
            raise ValueError(f"weight is {self.weight!r}; allowed: 'measure', 'degree'")

    @property
    def convention(self) -> str:
        """The formula in words."""
        return "sum of " + ("d_i x_i" if self.weight == "degree" else "m_i x_i")

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The mass per graph."""
        return self._sum(x, graph)

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """Zero: a mass may vanish, and is right to rounding of its terms."""
        return torch.zeros_like(value)

    def _sum(self, x: Tensor, graph: Graph) -> Tensor:
        flat = x.reshape(len(x), -1)
        column = flat.sum(1) if self.channel is None else flat[:, self.channel]
        weight = graph.degree if self.weight == "degree" else graph.node_weight
        terms = column.double() if weight is None else column.double() * weight
        if graph.batch is None:
            return terms.sum(0, keepdim=True)
        return terms.new_zeros(len(sizes(graph))).index_add(0, graph.batch, terms)


class Lyapunov(Measure):
    """The functional of a field along its flow: a Hamiltonian, or what a gradient flow descends.

    Args:
        field: A field with `lyapunov`; it is bound to the first state that is measured.
        name: Name of its series.

    Raises:
        ValueError: When the field has none.

    >>> from neuralpde.fields import Wave
    >>> x, v = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [0.0]])
    >>> Lyapunov(Wave())((x, v), torch.tensor([[0, 1], [1, 0]])).item()
    2.5
    """

    def __init__(self, field: Field, name: str = "lyapunov") -> None:
        if field.lyapunov is None:
            raise ValueError(
                f"{field.label} has no lyapunov functional; fields that have one are listed in "
                "docs/fields.md as descending, and second-order ones have their energy"
            )
        self.field, self.name = field, name
        self.convention = f"functional of {field.label}"
        self._bound: Field | None = field if field.is_bound else None

    def __call__(self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None) -> Tensor:
        """The value per graph, of the whole state."""
        state, where = (x, graph) if isinstance(x, Tensor | tuple) else (x.x, x.graph)
        if self._bound is None:
            self._bound = self.field.bind(where, state)
        found: Tensor = self._bound.lyapunov(state)
        return found

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The value per graph; its rounding is not known."""
        value = self(x, graph)
        return value, torch.zeros_like(value)

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The value per graph, of a state that is one tensor."""
        return self(x, graph)
