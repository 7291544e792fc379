"""The variational equation: a field together with its derivative along some tangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from neuralpde.fields import Layers
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Operator

Parts = tuple[Tensor, ...]


class Variational(Field):
    """x' = f(t, x) and y_k' = (df/dx) y_k for tangents y_k = dx/dc_k, which start at dx(0)/dc_k.

    The state is the tuple of the parts of x, followed by the tangents of each part, `[nodes,
    tangents, ...]`. Where f prepares something from its first state (attention, a source b x0), the
    derivative goes through that too, unless f is bound already: so the tangents are those of
    `solve(field, x0, t, graph).x`. Derivatives are taken in forward mode: one pass for each
    tangent, or one for all of them where f is A x + source + r(x), r acting entry by entry and A on
    each channel alike.

    It is bound and evaluated inside `torch.autograd.forward_ad.dual_level()`.

    Args:
        field: A field, bound or not, or any callable f(t, x).
        parts: How many tensors x is made of.
        packed: Whether the field takes a tuple.

    >>> from neuralpde.fields import Reaction
    >>> x, y = torch.tensor([[3.0]]), torch.tensor([[[1.0]]])
    >>> with forward_ad.dual_level():
    ...     square = Variational(Reaction([0.0, 0.0, 1.0])).bind(None, (x, y))
    ...     [part.item() for part in square(torch.tensor(0.0), (x, y))]
    [9.0, 6.0]
    """

    needs_graph = False

    def __init__(
        self, field: Field | Callable[[Tensor, Any], Any], parts: int = 1, packed: bool = False
    ) -> None:
        super().__init__()
        # In a tuple, so that it is no child, which would be bound to the state alone.
        self.held, self.parts, self.packed = (field,), parts, packed

    @classmethod
    def of(cls, field: Any, parts: int, packed: bool) -> Field:
        """The same, piece by piece where the field is piecewise.

        >>> from neuralpde.fields import Heat
        >>> len(Variational.of(Layers([Heat(), Heat()]), 1, False).pieces)
        2
        """
        pieces = getattr(field, "pieces", None)
        if pieces is None:
            return cls(field, parts, packed)
        return Layers([cls(piece, parts, packed) for piece in pieces], field.fractions)

    @property
    def label(self) -> str:
        """That of the field, and that its tangents come along."""
        inner = self.held[0]
        return f"{getattr(inner, 'label', type(inner).__name__)} with tangents"

    def prepare(self, graph: Graph | None, x0: State) -> None:
        """Bind the field, once or for each tangent."""
        field: Any = self.held[0]
        assert isinstance(x0, tuple)
        x, tangents = x0[: self.parts], x0[self.parts :]
        fields: tuple[Any, ...] = (field,)
        if isinstance(field, Field) and not field.is_bound:
            first = self._unpacked(x)
            if starts_matter(field, graph, first):
                moved = (self._dual(x, _column(tangents, k)) for k in range(tangents[0].shape[1]))
                fields = tuple(field.bind(graph, start) for start in moved)
            else:
                fields = (field.bind(graph, first),)
        one: Any = fields[0]
        self.fields = fields
        self.batched_time = getattr(one, "batched_time", False)
        self.by_entry = not self.packed and len(fields) == 1 and acts_by_entry(one)

    def forward(self, t: Tensor, x: Any) -> Parts:
        """Slopes of the state and of its tangents."""
        state, tangents = x[: self.parts], x[self.parts :]
        if self.by_entry:
            return self._together(t, state[0], tangents[0])
        found = [
            self._along(self.fields[k % len(self.fields)], t, state, _column(tangents, k))
            for k in range(tangents[0].shape[1])
        ]
        slopes = [
            torch.stack(columns, 1) for columns in zip(*(one for _, one in found), strict=True)
        ]
        return (*found[0][0], *slopes)

    def _along(self, field: Any, t: Tensor, x: Parts, y: Parts) -> tuple[Parts, Parts]:
        """The field and its derivative along one tangent."""
        out = field(t, self._dual(x, y))
        pairs = [forward_ad.unpack_dual(one) for one in (out if self.packed else (out,))]
        values = tuple(pair.primal for pair in pairs)
        return values, tuple(
            torch.zeros_like(pair.primal) if pair.tangent is None else pair.tangent
            for pair in pairs
        )

    def _together(self, t: Tensor, x: Tensor, y: Tensor) -> Parts:
        """The field and its derivatives along all tangents, where r acts entry by entry."""
        field: Any = self.fields[0]
        operator: Operator | None = field.operator
        if not field.has_rest:
            return field(t, x), torch.zeros_like(y) if operator is None else operator @ y
        (value,), (slope,) = self._along(field.rest, t, (x,), (torch.ones_like(x),))
        along = slope.unsqueeze(1) * y
        if operator is not None:
            value, along = value + operator @ x, along + operator @ y
        return value if field.source is None else value + field.source, along

    def _dual(self, x: Parts, y: Parts) -> State:
        pairs = zip(x, y, strict=True)
        return self._unpacked(tuple(forward_ad.make_dual(a, b.contiguous()) for a, b in pairs))

    def _unpacked(self, x: Parts) -> State:
        return x if self.packed else x[0]


def starts_matter(field: Any, graph: Graph | None, x0: State) -> bool:
    """Whether what a field prepares depends on its first state, as frozen attention does.

    >>> from neuralpde.fields import Source
    >>> x = torch.ones(2, 1)
    >>> starts_matter(Source(2.0), None, x), starts_matter(Source(2.0, of_x0=True), None, x)
    (False, True)
    """
    if not isinstance(field, Field) or field.is_bound or field.pieces is not None:
        return False
    with torch.enable_grad():
        parts = tuple(x0) if isinstance(x0, tuple) else (x0,)
        start = tuple(part.detach().requires_grad_() for part in parts)
        leaves = field.bind(graph, start if isinstance(x0, tuple) else start[0]).leaves()
        if not leaves:
            return False
        ones = [torch.ones_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(leaves, start, ones, allow_unused=True)
    return any(one is not None for one in found)


def acts_by_entry(field: Any) -> bool:
    """Whether a bound field is A x + source + r(x), r entry by entry and A on channels alike.

    >>> from neuralpde.fields import Reaction
    >>> acts_by_entry(Reaction([0.0, 1.0]).bind(None, torch.ones(2, 1)))
    True
    """
    if not isinstance(field, Field) or not field.splits or field.has_force:
        return False
    plain = field.operator is None or field.operator.separate
    return plain and (field.pointwise or not field.has_rest)


def seeds(
    like: Sequence[Tensor],
    part: int,
    sources: Tensor,
    directions: Float[Tensor, "sources tangents channels"],
) -> Parts:
    """Tangents that start at one node each, `[nodes, sources x tangents, ...]` for every part.

    Args:
        like: The parts of the state.
        part: Which of them is disturbed.
        sources: At which nodes.
        directions: In which directions of the flattened channels.

    >>> x, node = torch.zeros(2, 1), torch.tensor([1])
    >>> seeds((x,), 0, node, torch.ones(1, 1, 1))[0].flatten().tolist()
    [0.0, 1.0]
    """
    count = directions.shape[0] * directions.shape[1]
    blank = [one.new_zeros(len(one), count, *one.shape[1:]) for one in like]
    flat = blank[part].view(len(like[part]), count, -1)
    rows = sources.repeat_interleave(directions.shape[1])
    columns = torch.arange(count, device=rows.device)
    flat[rows, columns] = directions.reshape(count, -1).to(flat)
    return tuple(blank)


def _column(tangents: Parts, k: int) -> Parts:
    return tuple(one[:, k] for one in tangents)
