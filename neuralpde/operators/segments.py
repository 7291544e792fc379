"""Sums, maxima and softmax over groups of entries: those of one row, or of one column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from neuralpde.operators.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Segments:
    """The groups into which entries fall.

    Args:
        index: group of each entry.
        size: number of groups.
        crow: where each group begins, and the last one ends, if entries are sorted by group.
        pattern: where the entries are.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3)
    >>> Segments.rows(pattern).max(torch.tensor([1.0, 3.0, 2.0])).tolist()
    [3.0, 2.0, -inf]
    """

    index: Tensor
    size: int
    crow: Tensor | None = None
    pattern: Pattern | None = None

    @classmethod
    def rows(cls, pattern: Pattern) -> Segments:
        """Return the groups of entries that have one row: a receiver.

        >>> Segments.rows(Pattern.identity(2)).index.tolist()
        [0, 1]
        """
        return cls(pattern.row, len(pattern.crow) - 1, pattern.crow, pattern)

    @classmethod
    def columns(cls, pattern: Pattern) -> Segments:
        """Return the groups of entries that have one column: a sender.

        >>> Segments.columns(Pattern.identity(2)).index.tolist()
        [0, 1]
        """
        return cls(pattern.col.long(), len(pattern.crow) - 1, None, pattern)

    def sum(self, values: Float[Tensor, " nnz"]) -> Float[Tensor, " groups"]:
        """Return the sum over each group."""
        return values.new_zeros(self.size).scatter_add(0, self.index, values)

    def max(self, values: Float[Tensor, " nnz"]) -> Float[Tensor, " groups"]:
        """Return the largest value of each group, -inf of an empty one, without gradients."""
        values = values.detach()
        if self.crow is None or torch.compiler.is_compiling():
            least = values.new_full((self.size,), -torch.inf)
            return least.scatter_reduce(0, self.index, values, "amax")
        return torch.segment_reduce(values, "max", offsets=self.crow, initial=-torch.inf)

    def spread(self, values: Float[Tensor, " groups"]) -> Float[Tensor, " nnz"]:
        """Return the value of its group for each entry."""
        return values.index_select(0, self.index)

    def shares(self, parts: Float[Tensor, " nnz"]) -> Float[Tensor, " nnz"]:
        """Return each part of the sum over its group as a share of it; 0 where the sum is 0.

        >>> Segments(torch.tensor([0, 0]), 1).shares(torch.tensor([1.0, 3.0])).tolist()
        [0.25, 0.75]
        """
        total = self.sum(parts)
        return parts / self.spread(torch.where(total == 0, 1.0, total))


def softmax(
    scores: Float[Tensor, " nnz"], prior: Float[Tensor, " nnz"] | None, group: Segments
) -> Float[Tensor, " nnz"]:
    """Return `w e^s / sum w e^s`, the sums over the groups; `w` is the prior, 1 where None.

    >>> softmax(torch.zeros(2), None, Segments(torch.tensor([0, 0]), 1)).tolist()
    [0.5, 0.5]
    """
    if torch.compiler.is_compiling() or (prior is not None and prior.requires_grad):
        return group.shares(_parts(scores, prior, group))
    form: type[Function] = _Softmax
    shares: Tensor = form.apply(scores, prior, group)
    return shares


def _parts(scores: Tensor, prior: Tensor | None, group: Segments) -> Tensor:
    """`w e^(s - c)`, c the largest score of the group."""
    parts = torch.exp(scores - group.spread(group.max(scores)))
    return parts if prior is None else parts * prior


class _Softmax(Function):
    """Its derivative is a symmetric matrix, `diag(p) - p p^T` in each group."""

    @staticmethod
    def forward(scores: Tensor, prior: Tensor | None, group: Segments) -> Tensor:
        if scores.device.type != "cpu":
            return group.shares(_parts(scores, prior, group))
        parts = torch.exp(scores)
        if prior is not None:
            parts *= prior
        total = group.spread(group.sum(parts))
        if not len(total):
            return parts
        # Few groups need their scores shifted; the sums tell which, each for itself.
        room = torch.finfo(total.dtype).tiny ** 0.5
        low, high = torch.aminmax(total)
        if room < low and high < 1.0 / room:
            return parts.div_(total)
        fine = (total > room) & (total < 1.0 / room)
        return group.shares(torch.where(fine, parts, _parts(scores, prior, group)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.group = inputs[2]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _Softmax._derivative(ctx, g), None, None

    @staticmethod
    def jvp(ctx: Any, ds: Tensor, *_: None) -> Tensor:
        return _Softmax._derivative(ctx, ds)

    @staticmethod
    def _derivative(ctx: Any, direction: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        group: Segments = ctx.group
        found: Tensor = p * (direction - group.spread(group.sum(p * direction)))
        return found
