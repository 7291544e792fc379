"""Room for two states, some columns at a time, whose dot products are taken together."""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.columns import pieces
from solvers.rows import Rows
from solvers.sampled import Places

# Entries that one sum in single precision may take in, whole rows of them: one large entry among
# ones makes an error of 2e-6; measured.
LINE = 512
# Entries up to which doubles are one product of a matrix and a vector: a call is all that it costs.
SMALL = 2**14
# Narrower rows than this are multiplied faster as one tensor.
NARROW = 8


class Room:
    """Two matrices of one shape in one piece of memory, for some columns of a state.

    The dot products of one of them with both are read in one go, which is what energies and
    moments need, and leaves no product of entries in memory.

    Args:
        columns: which columns of a state.
        x: a state; gives shape, dtype and device.

    Attributes:
        columns: as given.
        first: contiguous matrix, not initialised.
        second: another.

    Example:
        >>> room = Room(slice(1, 2), torch.eye(2))
        >>> room.first.copy_(room.of(torch.eye(2))).flatten().tolist()
        [0.0, 1.0]
        >>> room.second.fill_(3.0).flatten().tolist(), room.sums(0).tolist()
        ([3.0, 3.0], [1.0, 3.0])
    """

    __slots__ = ("_by_lines", "_by_rows", "_flat", "_memory", "columns", "first", "second")

    _by_rows: Dots | None

    def __init__(self, columns: slice, x: Float[Tensor, "nodes columns"]) -> None:
        self.columns = columns
        rows, width = self.of(x).shape
        together = max(min(LINE // max(width, 1), rows), 1)
        memory = x.new_empty(2, -(-rows // together) * together, width)
        # The last line is filled up with rows that must not count.
        memory[:, rows:] = 0.0
        self.first, self.second = memory[:, :rows]
        self._memory, self._by_rows = memory, None
        small = x.dtype is torch.float64 and memory.numel() <= 2 * SMALL
        self._flat = memory.view(2, -1) if small else None
        self._by_lines = Dots(memory.view(2, -1, max(together * width, 1)))

    def moved(self, columns: slice) -> Room:
        """Return this room, its memory and all, for other columns of the same number."""
        other = copy(self)
        other.columns = columns
        return other

    def of(self, x: Float[Tensor, "nodes columns"]) -> Float[Tensor, "nodes some"]:
        """Return the columns of a state that this room is for."""
        return x[:, self.columns]

    def sums(self, which: int) -> Float[Tensor, " two"]:
        """Return the inner products of one matrix with the first and the second, float64.

        Args:
            which: 0 for the first matrix, 1 for the second.
        """
        if self._flat is not None:
            return torch.mv(self._flat, self._flat[which])
        return self._by_lines(which).sum(0, dtype=torch.float64)

    def inner(
        self, which: int, rows: Rows, metric: Float[Tensor, " nodes"] | None = None
    ) -> Float[Tensor, "two graphs"]:
        """Return the inner products of each graph, float64.

        Args:
            which: 0 for the first matrix, 1 for the second.
            rows: how rows belong to graphs.
            metric: one weight per row, or None for ones.
        """
        if metric is None and rows.batch is None:
            return self.sums(which).unsqueeze(1)
        of_rows = self.of_rows(which)
        if metric is not None:
            of_rows = of_rows * metric.to(of_rows).unsqueeze(1)
        return torch.stack([rows.sums((column,)) for column in of_rows.unbind(1)])

    def of_rows(self, which: int) -> Float[Tensor, "nodes two"]:
        """Return the same row by row, float64.

        Args:
            which: 0 for the first matrix, 1 for the second.
        """
        if self._by_rows is None:
            self._by_rows = Dots(self._memory)
        return self._by_rows(which)[: len(self.first)].double()


class Dots:
    """Dot products of rows of two matrices, each with itself and with the other.

    Args:
        both: the two matrices, one behind the other in memory.

    Example:
        >>> dots = Dots(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
        >>> dots(0).tolist(), dots(1).tolist()
        ([[5.0, 11.0]], [[11.0, 25.0]])
    """

    __slots__ = ("_both", "_rows", "_sampled")

    _sampled: Places | None

    def __init__(self, both: Float[Tensor, "two rows columns"]) -> None:
        self._both, self._sampled = both, None
        _, rows, columns = both.shape
        if rows and columns >= NARROW and both.device.type == "cpu":
            first = torch.arange(rows, dtype=torch.int32, device="cpu")
            crow = torch.arange(0, 2 * rows + 1, 2, dtype=torch.int32, device="cpu")
            col = torch.stack([first, first + rows], 1).flatten()
            self._rows = both.view(2 * rows, columns)
            self._sampled = Places(crow, col, (rows, 2 * rows), both.dtype)

    def __call__(self, which: int) -> Float[Tensor, "rows two"]:
        """Return them; the next call overwrites what this one returned."""
        one = self._both[which]
        if self._sampled is None:
            found: Tensor = torch.linalg.vecdot(one, self._both).t()
            return found
        return self._sampled(one, self._rows).view(-1, 2)


def rooms(x: Float[Tensor, "nodes columns"]) -> list[Room]:
    """Return a room for each piece of a state; pieces of one width share their memory.

    Example:
        >>> import torch
        >>> [room.columns for room in rooms(torch.ones(5, 80))]
        [slice(0, 64, None), slice(64, 80, None)]
    """
    found: list[Room] = []
    for columns in pieces(x):
        width = columns.stop - columns.start
        alike = next((room for room in found if room.first.shape[1] == width), None)
        found.append(Room(columns, x) if alike is None else alike.moved(columns))
    return found
