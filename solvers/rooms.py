"""Room for working on a state some columns at a time, used again from piece to piece."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from solvers.columns import buffers, fitted, pieces
from solvers.lines import lines


class Room:
    """Two buffers for some columns of a state; all rooms of a state share their memory.

    Args:
        columns: which columns; None for all.
        first: contiguous buffer of their shape.
        second: another.

    Attributes:
        columns: as given.
        first: as given.
        second: as given.
        lines: both buffers as :func:`~solvers.lines.lines`.

    Example:
        >>> import torch
        >>> Room(slice(1, 2), torch.ones(2, 1), torch.ones(2, 1)).of(torch.eye(2)).flatten()
        tensor([0., 1.])
    """

    __slots__ = ("columns", "first", "lines", "second")

    def __init__(self, columns: slice | None, first: Tensor, second: Tensor) -> None:
        self.columns, self.first, self.second = columns, first, second
        self.lines = lines(first), lines(second)

    def of(self, x: Float[Tensor, "nodes columns"]) -> Float[Tensor, "nodes some"]:
        """Return the columns of a state that this room is for."""
        return x if self.columns is None else x[:, self.columns]


def rooms(x: Float[Tensor, "nodes columns"]) -> list[Room]:
    """Return a room for each piece of a state, on the same two buffers.

    Example:
        >>> import torch
        >>> [room.columns for room in rooms(torch.ones(5, 80))]
        [slice(0, 64, None), slice(64, 80, None)]
    """
    every, shared = pieces(x), buffers(x, 2)
    return [
        Room(
            None if len(every) == 1 else columns,
            *(fitted(buffer, x[:, columns]) for buffer in shared),
        )
        for columns in every
    ]
