"""Weights of sums over the terms of a series, applied graph by graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Inexact
from torch import Tensor

Weights = Inexact[np.ndarray, " degree"]
"""Weights of the powers or polynomials 0, 1, ... of a matrix, up to the degree of a series."""


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
        self._rows = torch.tensor(table).to(like).unbind()
        self.degree = len(table) - 1

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

    def plus(self, k: int, v: Tensor, y: Tensor) -> Tensor:
        """Return ``y + w_k v``, differentiable."""
        return y.addcmul(v, self._weight(k)) if k <= self.degree and self._used[k] else y

    def _weight(self, k: int) -> Tensor:
        row = self._rows[k]
        return row if self._batch is None else row.index_select(0, self._batch).unsqueeze(1)


def degree_of(tables: Sequence[Table]) -> int:
    """Return the largest degree of several tables."""
    return max(table.degree for table in tables)
