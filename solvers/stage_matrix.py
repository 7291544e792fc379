"""The derivatives of a Runge-Kutta step in one matrix, so that every sum of them is one product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

from solvers.rows import State

Name = TypeVar("Name")

HALF = (torch.float16, torch.bfloat16)
"""Products of these may be summed in their own precision."""


class StageMatrix(Generic[Name]):
    """Room for the derivatives of the steps of one solve, outside autograd.

    A sum of derivatives is one product of a matrix with a vector of weights: one call where term
    by term there are up to six. The derivatives are copied, so that whatever a field does with its
    tensors later changes nothing.

    Args:
        sums: the weights of every sum that will be asked for, under a name each.
        stages: number of derivatives.
        x: a state.

    Example:
        >>> x, k = (torch.tensor([1.0, 2.0]),), (torch.tensor([10.0, 20.0]),)
        >>> kept = StageMatrix({"heun": (0.25, 0.75)}, 2, x).start(k)
        >>> kept.append(x)
        >>> kept.moved(x, 0.5, "heun")
        (tensor([2.6250, 5.2500]),)
    """

    def __init__(self, sums: Mapping[Name, Sequence[float]], stages: int, x: State) -> None:
        self._weights = sums
        self._parts = [_Part(part, stages) for part in x]
        self._slots = list(zip(*(part.slots for part in self._parts), strict=True))
        self._sums: dict[Name, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}
        self._count = 0

    def start(self, fx: State) -> StageMatrix[Name]:
        """Forget the last step, and keep the first derivative of the next one."""
        self._count = 0
        self.append(fx)
        return self

    def append(self, k: State) -> None:
        """Keep the next derivative."""
        for slot, part in zip(self._slots[self._count], k, strict=True):
            slot.copy_(part)
        self._count += 1

    def moved(self, x: State, h: float | Tensor, name: Name) -> State:
        """Return ``x + h sum_j w_j k_j`` in new tensors; the state is added last: one rounding.

        Args:
            x: the state.
            h: the step: a number, or a tensor: 0-d, or with one value per row.
            name: of the sum.
        """
        new = []
        sums = self._sums.get(name) or self._sum(name)
        for part, (matrix, weights, flat, total) in zip(x, sums, strict=True):
            torch.mv(matrix, weights, out=flat)
            new.append(
                torch.addcmul(part, _column(h, part), total)
                if isinstance(h, Tensor)
                else torch.add(part, total, alpha=h)
            )
        return tuple(new)

    def total(self, h: float | Tensor, name: Name) -> State:
        """Return ``h sum_j w_j k_j`` in memory that the next call of either writes to again."""
        alpha = 1.0 if isinstance(h, Tensor) else h
        totals = []
        for matrix, weights, flat, total in self._sums.get(name) or self._sum(name):
            torch.addmv(flat, matrix, weights, beta=0.0, alpha=alpha, out=flat)
            totals.append(total.mul_(_column(h, total)) if isinstance(h, Tensor) else total)
        return tuple(totals)

    def _sum(self, name: Name) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """What a sum takes for each part: made when it is first asked for."""
        weights = tuple(self._weights[name])
        found = self._sums[name] = [part.sum(weights) for part in self._parts]
        return found


class _Part:
    """The derivatives of one part of the state, and room for their sums."""

    def __init__(self, part: Tensor, stages: int) -> None:
        entries = part.numel() * (2 if part.is_complex() else 1)
        room = part.new_empty((stages + 1, entries), dtype=part.dtype.to_real())
        *slots, self.flat = room.unbind()
        self.matrix, self.total = room.t(), _like(part, self.flat)
        self.slots = [_like(part, slot) for slot in slots]

    def sum(self, weights: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The matrix and its weights, and where the sum goes, flat and in the part's shape."""
        vector = _vector(weights, self.flat.dtype, self.flat.device)
        return self.matrix[:, : len(weights)], vector, self.flat, self.total


@cache
def _vector(weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(weights, dtype=dtype, device=device)


def _like(part: Tensor, flat: Tensor) -> Tensor:
    """A view of a flat real tensor that looks like a part of the state."""
    if part.is_complex():
        return torch.view_as_complex(flat.view(*part.shape, 2))
    return flat.view(part.shape)


def _column(h: Tensor, part: Tensor) -> Tensor:
    return h.reshape(-1, *[1] * (part.dim() - 1)) if h.dim() else h
