"""Where a sparse matrix has entries: index sets, found once and shared by many operators."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from neuralpde.operators.reordered import near_order
from solvers.lasting import kept, lasting

with warnings.catch_warnings():
    # torch announces once per process that CSR tensors are in beta; here it says so to nobody.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(
        torch.zeros(1, dtype=torch.int32, device="cpu"),
        torch.zeros(0, dtype=torch.int32, device="cpu"),
        torch.zeros(0, device="cpu"),
        (0, 0),
        device="cpu",
        check_invariants=False,
    )

_LIVING: WeakValueDictionary[tuple[int, int], Pattern] = WeakValueDictionary()
"""The patterns that somebody holds, by where their index sets lie in memory."""


class Pattern:
    """The entries of a square sparse matrix, row by row, columns rising within a row.

    Entry `e` stands at `(row[e], col[e])`. A pattern never changes, so the transposed order, the
    diagonal and the pattern completed by the diagonal are found once, when first asked for.

    Args:
        crow: `[nodes + 1]`, entries of row `i` are `crow[i] .. crow[i + 1] - 1`.
        col: `[nnz]`, columns, rising and without repetition within each row.
        num_nodes: number of rows and of columns.

    Attributes:
        crow: as given, int32 where nodes and entries can be counted in it.
        col: as given, of the same dtype.
        num_nodes: as given.

    >>> pattern, slot = Pattern.from_edges(torch.tensor([1, 0]), torch.tensor([0, 1]), 3)
    >>> pattern.crow.tolist(), pattern.col.tolist(), slot.tolist()
    ([0, 1, 2, 2], [1, 0], [1, 0])
    """

    def __init__(
        self, crow: Int[Tensor, " rows"], col: Int[Tensor, " nnz"], num_nodes: int
    ) -> None:
        wide = max(num_nodes, col.numel()) >= torch.iinfo(torch.int32).max
        index = torch.int64 if wide else torch.int32
        self.crow, self.col, self.num_nodes = crow.to(index), col.to(index), num_nodes
        self._copies: dict[int, Pattern] = {}
        if not torch.compiler.is_compiling():
            _LIVING.setdefault((self.crow.data_ptr(), self.col.data_ptr()), self)

    @classmethod
    def of(cls, crow: Int[Tensor, " rows"], col: Int[Tensor, " nnz"]) -> Pattern:
        """Return the pattern that has these very index sets, not copies; a new one if none has.

        >>> pattern = Pattern.identity(2)
        >>> Pattern.of(pattern.crow, pattern.col) is pattern
        True
        """
        found = _LIVING.get((crow.data_ptr(), col.data_ptr()))
        if found is None or (len(found.crow), len(found.col)) != (len(crow), len(col)):
            return cls(crow, col, len(crow) - 1)
        return found

    @classmethod
    def from_edges(
        cls, row: Int[Tensor, " edges"], col: Int[Tensor, " edges"], num_nodes: int
    ) -> tuple[Pattern, Int[Tensor, " edges"]]:
        """Return the pattern of a list of positions and the entry that each of them became.

        Repeated positions become one entry: `index_add` of their values at `slot` sums them.

        Args:
            row: rows (receivers), in any order.
            col: columns (senders).
            num_nodes: number of rows and of columns.

        >>> pattern, slot = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([1, 1]), 2)
        >>> pattern.nnz, slot.tolist()
        (1, [0, 0])
        """
        keys = row.long() * num_nodes + col.long()
        keys, slot = torch.unique(keys, return_inverse=True)
        return cls._from_keys(keys, num_nodes), slot

    @classmethod
    def _from_keys(cls, keys: Tensor, num_nodes: int) -> Pattern:
        width = max(num_nodes, 1)
        crow = keys.new_zeros(num_nodes + 1)
        torch.cumsum(torch.bincount(keys // width, minlength=num_nodes), 0, out=crow[1:])
        return cls(crow, keys % width, num_nodes)

    @classmethod
    def identity(cls, num_nodes: int, device: torch.device | None = None) -> Pattern:
        """Return the pattern of a diagonal matrix.

        >>> Pattern.identity(2).col.tolist()
        [0, 1]
        """
        count = torch.arange(num_nodes + 1, device=device)
        return cls(count, count[:-1], num_nodes)

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.col.numel()

    @property
    def device(self) -> torch.device:
        """Where the index sets are."""
        return self.col.device

    @kept
    def row(self) -> Int[Tensor, " nnz"]:
        """Row of each entry, int64."""
        nodes = torch.arange(self.num_nodes, device=self.device)
        return nodes.repeat_interleave(self.crow.diff().long(), output_size=self.nnz)

    @kept
    def _keys(self) -> Tensor:
        return self.row * self.num_nodes + self.col

    @kept
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The transposed matrix as `(crow, col, perm)`; its values are `values[perm]`."""
        perm = torch.argsort(self.col, stable=True)
        crow = torch.zeros_like(self.crow)
        counts = torch.bincount(self.col, minlength=self.num_nodes)
        crow[1:] = counts.cumsum(0)
        return crow, self.row[perm].to(self.col.dtype), perm.to(self.col.dtype)

    @kept
    def T(self) -> Pattern:
        """The pattern of the transposed matrix; its own transpose is this very object."""
        other = Pattern(self.transposed[0], self.transposed[1], self.num_nodes)
        inverse = torch.empty_like(self.transposed[2])
        inverse[self.transposed[2].long()] = torch.arange(self.nnz, device=self.device).to(inverse)
        other.__dict__["transposed"] = (self.crow, self.col, inverse)
        other.__dict__["T"] = self
        return other

    @kept
    def diagonal(self) -> Int[Tensor, " nodes"]:
        """Entry at `(i, i)` for each node, -1 where there is none; int64."""
        entries = (self.row == self.col).nonzero().flatten()
        found = torch.full((self.num_nodes,), -1, device=self.device)
        found[self.row[entries]] = entries
        return found

    @kept
    def has_diagonal(self) -> bool:
        """Whether every node has its diagonal entry."""
        return bool((self.diagonal >= 0).all())

    @kept
    def is_diagonal(self) -> bool:
        """Whether all diagonal entries are there, and no others."""
        return self.nnz == self.num_nodes and self.has_diagonal

    @kept
    def every_row(self) -> bool:
        """Whether no row is without entries."""
        return bool((self.crow.diff() > 0).all())

    @kept
    def every_column(self) -> bool:
        """Whether no column is without entries."""
        return bool((torch.bincount(self.col, minlength=self.num_nodes) > 0).all())

    @kept
    def longest_row(self) -> int:
        """Largest number of entries in a row."""
        return int(self.crow.diff().max()) if self.num_nodes else 0

    @kept
    def near_order(self) -> Int64[Tensor, " nodes"] | None:
        """Order of the nodes that brings neighbours closer, see `near_order`; None if none does."""
        return near_order(self)

    @kept
    def _filled(self) -> tuple[Pattern, Tensor]:
        if self.has_diagonal:
            return self, torch.arange(self.nnz, device=self.device)
        nodes = torch.arange(self.num_nodes, device=self.device)
        keys, slot = torch.unique(
            torch.cat([self._keys, nodes * (self.num_nodes + 1)]), return_inverse=True
        )
        return Pattern._from_keys(keys, self.num_nodes), slot[: self.nnz]

    def with_diagonal(self) -> tuple[Pattern, Int[Tensor, " nnz"]]:
        """Return this pattern with every diagonal entry, and where its own entries went.

        Always the same objects, so that operators made from them share one pattern.

        >>> pattern, _ = Pattern.from_edges(torch.tensor([1]), torch.tensor([0]), 2)
        >>> filled, slot = pattern.with_diagonal()
        >>> filled.row.tolist(), filled.col.tolist(), slot.tolist()
        ([0, 1, 1], [0, 0, 1], [1])
        """
        return self._filled

    def union(self, other: Pattern) -> tuple[Pattern, Tensor | None, Tensor | None]:
        """Return the pattern of a sum of two matrices, and where the entries of both went.

        A slot of None says that the entries stay where they are.

        Raises:
            ValueError: the matrices differ in size.

        >>> pattern, _ = Pattern.from_edges(torch.tensor([1]), torch.tensor([0]), 2)
        >>> union, left, right = pattern.union(Pattern.identity(2))
        >>> union is pattern.with_diagonal()[0], left.tolist(), right.tolist()
        (True, [1], [0, 2])
        """
        if self.num_nodes != other.num_nodes:
            raise ValueError(
                f"operators on {self.num_nodes} and on {other.num_nodes} nodes do not combine"
            )
        if self.same_as(other):
            return self, None, None
        if other.is_diagonal:
            filled, slot = self.with_diagonal()
            return filled, None if filled is self else slot, filled.diagonal
        if self.is_diagonal:
            union, theirs, mine = other.union(self)
            return union, mine, theirs
        if self._known_as_completing(other):
            return self, None, other.with_diagonal()[1]
        if other._known_as_completing(self):
            return other, self.with_diagonal()[1], None
        keys, slot = torch.unique(torch.cat([self._keys, other._keys]), return_inverse=True)
        if keys.numel() == self.nnz:
            return self, None, slot[self.nnz :]
        if keys.numel() == other.nnz:
            return other, slot[: self.nnz], None
        return Pattern._from_keys(keys, self.num_nodes), slot[: self.nnz], slot[self.nnz :]

    def placed(self, values: Tensor, slot: Tensor | None) -> Float[Tensor, " nnz"]:
        """Return the sums of values that became the same entry; a slot of None keeps them."""
        return values if slot is None else values.new_zeros(self.nnz).index_add(0, slot, values)

    def same_as(self, other: Pattern) -> bool:
        """Whether both describe the same entries.

        >>> Pattern.identity(2).same_as(Pattern.identity(2))
        True
        """
        return self is other or (
            self.num_nodes == other.num_nodes
            and self.nnz == other.nnz
            and torch.equal(self.crow, other.crow)
            and torch.equal(self.col, other.col)
        )

    def _known_as_completing(self, other: Pattern) -> bool:
        return "_filled" in other.__dict__ and other._filled[0] is self

    def csr(self, values: Float[Tensor, " nnz"]) -> Tensor:
        """Return the torch CSR matrix that has `values` at the entries.

        >>> Pattern.identity(2).csr(torch.tensor([1.0, 2.0])).to_dense().tolist()
        [[1.0, 0.0], [0.0, 2.0]]
        """
        size = (self.num_nodes, self.num_nodes)
        device = values.device
        return torch.sparse_csr_tensor(
            self.crow, self.col, values, size, device=device, check_invariants=False
        )

    def copies(self, count: int) -> Pattern:
        """Return the pattern of a block-diagonal matrix of `count` such blocks, always the same.

        Entry `e` of block `b` is entry `b nnz + e`.

        >>> Pattern.identity(1).copies(3).same_as(Pattern.identity(3))
        True
        """
        if count == 1:
            return self
        if count in self._copies:
            return self._copies[count]
        with lasting():
            return self._copied(count)

    def _copied(self, count: int) -> Pattern:
        block = torch.arange(count, device=self.device)[:, None]
        crow = (self.crow[:-1] + block * self.nnz).flatten()
        crow = torch.cat([crow, crow.new_full((1,), count * self.nnz)])
        col = (self.col + block * self.num_nodes).flatten()
        other = Pattern(crow, col, count * self.num_nodes)
        other.__dict__["row"] = (self.row + block * self.num_nodes).flatten()
        if not torch.compiler.is_compiling():
            self._copies[count] = other
        return other

    @kept
    def _moved(self) -> dict[torch.device, Pattern]:
        return {}

    def to(self, device: torch.device | str) -> Pattern:
        """Return the pattern on `device`: itself, or one and the same copy each time.

        >>> pattern = Pattern.identity(2)
        >>> pattern.to("cpu") is pattern
        True
        """
        device = torch.device(device)
        if device.type == self.device.type and device.index in (None, self.device.index):
            return self
        if device not in self._moved:
            self._moved[device] = Pattern(self.crow.to(device), self.col.to(device), self.num_nodes)
        return self._moved[device]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # What was found on demand is found again: torch cannot copy its own CSR tensors.
        return Pattern, (self.crow, self.col, self.num_nodes)

    def __repr__(self) -> str:
        return f"Pattern({self.num_nodes} nodes, {self.nnz} entries)"
