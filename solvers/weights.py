"""Weights of sums over the terms of a series, applied graph by graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Inexact
from torch import Tensor

from solvers.lasting import lasting

Weights = Inexact[np.ndarray, " degree"]
"""Weights of the powers or polynomials 0, 1, ... of a matrix, up to the degree of a series."""

# Shorter sums are over before it pays to ask how two terms at once are rounded.
LONG = 8
# Products of matrices turn to another precision, where that is allowed, beyond some size.
PROBE = 8_191


def rounds_alike(like: Tensor) -> bool:
    """Whether two terms are added in one pass, to the bit as they are one after the other.

    A matrix with two columns times a vector is such a pass, and reads a sum once instead of twice.
    How it rounds is the library's affair, and may change with the precision that products of
    matrices are allowed (`torch.set_float32_matmul_precision`), so that it is tried each time.

    Args:
        like: gives dtype and device.

    Example:
        >>> rounds_alike(torch.ones(1, device="meta"))
        False
    """
    if like.device.type != "cpu":
        return False
    y, terms, weights = _sample(like.dtype)
    one_by_one = torch.addcmul(y, terms[0], weights[0]).addcmul_(terms[1], weights[1])
    return torch.equal(torch.addmv(y, terms.t(), weights), one_by_one)


@cache
def _sample(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    with lasting():
        numbers = (
            torch.linspace(1.0, 1e4, 3 * PROBE, dtype=torch.float64, device="cpu").sin_().to(dtype)
        )
        y, *terms = numbers.view(3, -1)
        return y, torch.stack(terms), numbers[:2].clone()


class Table:
    """The weights of one sum ``sum_k w_k V_k`` over the terms of a series, in every graph.

    One graph multiplies with numbers, several with columns ``[nodes, 1]``, by the same kernel,
    so that a batch gives what its graphs give alone; beyond its own degree a graph adds zeros.

    Args:
        columns: the weights of each graph; all the same object where graphs share them.
        batch: graph of each node, or None.
        like: a state; gives dtype and device.

    Attributes:
        degree: largest index of a weight that is not 0 in all graphs.
        imaginary: the table of imaginary parts, where weights are complex; this one then holds the
            real ones.

    Example:
        >>> table = Table([np.array([0.5, 0.5])], None, torch.ones(1, 1))
        >>> y = table.begin(torch.ones(1, 1))
        >>> table.add(1, torch.full((1, 1), 3.0), y)
        >>> y.item()
        2.0
        >>> table.take(1, torch.tensor([1.0, 3.0]).view(2, 1, 1), y)
        >>> y.item()
        2.0
    """

    imaginary: Table | None = None

    def __init__(self, columns: Sequence[Weights], batch: Tensor | None, like: Tensor) -> None:
        shared = all(column is columns[0] for column in columns)
        self._batch = None if shared else batch
        if shared:
            table = columns[0]
        else:
            table = np.zeros((max(map(len, columns)), len(columns)))
            for graph, column in enumerate(columns):
                table[: len(column), graph] = column
        used = np.asarray(table != 0 if shared else table.any(1))
        self._used = used.tolist()
        self._table = torch.tensor(table, device="cpu").to(like)
        self._rows = self._table.unbind()
        self.degree = len(table) - 1
        self._paired = self._batch is None and self.degree >= LONG and rounds_alike(like)

    @classmethod
    def complex(cls, columns: Sequence[Weights], batch: Tensor | None, like: Tensor) -> Table:
        """Return the table of the real parts, which knows that of the imaginary parts.

        Sums are taken in real arithmetic, so that a batch still gives what its graphs give alone.
        """
        halves = {id(column): (column.real.copy(), column.imag.copy()) for column in columns}
        real, imaginary = zip(*(halves[id(column)] for column in columns), strict=True)
        table = cls(real, batch, like)
        table.imaginary = cls(imaginary, batch, like)
        return table

    def begin(self, v: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``w_0 v``, in ``out`` if that is given."""
        return torch.mul(v, self._weight(0), out=out)

    def add(self, k: int, v: Tensor, y: Tensor) -> None:
        """Add ``w_k v`` to ``y`` in place."""
        if k <= self.degree and self._used[k]:
            y.addcmul_(v, self._weight(k))

    def take(self, k: int, terms: Tensor, y: Tensor) -> None:
        """Add ``w_(k-1) V_(k-1) + w_k V_k`` to ``y`` in place; put it there if k is 1.

        Args:
            k: odd.
            terms: ``[2, nodes, columns]``, ``V_(k-1)`` and ``V_k``; contiguous.
            y: the sum; contiguous.
        """
        if k > 1 and not any(self._used[k - 1 : k + 1]):
            return
        if self._paired and k <= self.degree:
            both, weights, flat = terms.view(2, -1).t(), self._table[k - 1 : k + 1], y.view(-1)
            if k == 1:
                torch.mv(both, weights, out=flat)
            else:
                flat.addmv_(both, weights)
            return
        if k == 1:
            self.begin(terms[0], y)
        else:
            self.add(k - 1, terms[0], y)
        self.add(k, terms[1], y)

    def plus(self, k: int, v: Tensor, y: Tensor) -> Tensor:
        """Return ``y + w_k v``, differentiable."""
        return y.addcmul(v, self._weight(k)) if k <= self.degree and self._used[k] else y

    def _weight(self, k: int) -> Tensor:
        row = self._rows[k]
        return row if self._batch is None else row.index_select(0, self._batch).unsqueeze(1)


def degree_of(tables: Sequence[Table]) -> int:
    """Return the largest degree of several tables."""
    return max(table.degree for table in tables)
