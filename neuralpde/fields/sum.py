"""Sums of fields: their operators, sources and rests are merged."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

from torch import Tensor, nn

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph


class Sum(Field):
    """dx/dt = f1(t, x) + f2(t, x) + ...: one merged operator, one source, the rests added.

    Args:
        fields: The terms; nested sums are flattened.

    >>> import torch
    >>> from neuralpde.fields import Heat, Source
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x = torch.tensor([[1.0], [0.0]])
    >>> field = (Heat() + Source(2.0)).bind(graph, x)
    >>> field(torch.tensor(0.0), x).tolist(), field.affine
    ([[1.0], [1.0]], True)
    """

    has_rest = False

    def __init__(self, *fields: Field) -> None:
        super().__init__()
        flat = [part for f in fields for part in (f.parts if hasattr(f, "parts") else (f,))]
        self.terms = nn.ModuleList(flat)
        if any(part.pieces is not None for part in flat):
            raise ValueError("a piecewise field is added to piece by piece: Layers([f + g, ...])")
        orders = {part.order for part in flat}
        if orders != {1}:
            raise ValueError(f"only first-order fields add up; these have orders {sorted(orders)}")

    @property
    def parts(self) -> tuple[Any, ...]:
        """The terms."""
        return tuple(self.terms)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Merge what the terms prepared."""
        parts = self.parts
        operators = [part.operator for part in parts if part.operator is not None]
        sources = [part.source for part in parts if part.source is not None]
        self.operator = reduce(add, operators) if operators else None
        self.source = reduce(add, sources) if sources else None
        self.has_rest = any(part.has_rest for part in parts)
        self.batched_time = all(part.batched_time for part in parts)
        self.norm = next((part.norm for part in parts if part.norm is not None), None)
        # The merged operator and source stand for the terms' own, which must not be leaves too.
        for part in parts:
            part.operator = part.source = None
        rests = [part for part in parts if part.has_rest]
        self.terms = nn.ModuleList(rests)

    def rest(self, t: Tensor, x: Any) -> Any:
        """The terms' rests, added."""
        return reduce(add, (part(t, x) for part in self.parts))
