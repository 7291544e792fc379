"""Sums over the graphs of a batch, or over the columns of each: what inner products are made of."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Matrix = Float[Tensor, "rows entries"]
Numbers = Float[Tensor, "graphs columns"]


class Groups:
    """The entries of a matrix ``[rows, entries]`` in groups that must not see each other.

    A group is a graph, or with `separate` one column of one graph. Numbers per group have shape
    ``[graphs, 1]`` or ``[graphs, entries]``, in float64.

    Args:
        batch: graph of each row, sorted; None for one graph.
        num_graphs: number of graphs.
        separate: whether every column is a group of its own.

    Example:
        >>> a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> Groups(None, 1).dot(a, a).tolist(), Groups(None, 1, separate=True).dot(a, a).tolist()
        ([[30.0]], [[10.0, 20.0]])
    """

    def __init__(
        self,
        batch: Int64[Tensor, " rows"] | None = None,
        num_graphs: int = 1,
        *,
        separate: bool = False,
    ) -> None:
        self.batch, self.num_graphs, self.separate = batch, num_graphs, separate
        self.rows: Tensor | None = None
        if batch is not None:
            self.rows = torch.bincount(batch, minlength=num_graphs).double().unsqueeze(1)

    def by_column(self, separate: bool) -> Groups:
        """Return the same graphs with columns apart, or together."""
        return self if separate == self.separate else self._like(separate)

    def _like(self, separate: bool) -> Groups:
        other = Groups(separate=separate)
        other.batch, other.num_graphs, other.rows = self.batch, self.num_graphs, self.rows
        return other

    def dot(self, a: Matrix, b: Matrix, weight: Tensor | None = None) -> Numbers:
        """Sum ``weight a b`` over each group, in float64.

        Args:
            a: a matrix.
            b: another.
            weight: one number per row, or None for ones.
        """
        product = a.double() * b
        if weight is not None:
            product = product * weight.unsqueeze(1)
        if self.batch is None:
            return product.sum(0, keepdim=True) if self.separate else product.sum().view(1, 1)
        if not self.separate:
            product = product.sum(1, keepdim=True)
        return product.new_zeros(self.num_graphs, product.shape[1]).index_add(
            0, self.batch, product
        )

    def rms(self, a: Matrix) -> Numbers:
        """Root mean square of each group; 0 for a graph without rows.

        Example:
            >>> Groups().rms(torch.tensor([[3.0, 4.0]])).item()
            3.5355339059327378
        """
        width = 1 if self.separate else a.shape[1]
        rows = float(a.shape[0]) if self.rows is None else self.rows
        return (self.dot(a, a) / (rows * width + 1e-300)).sqrt()

    def spread(self, numbers: Numbers, like: Matrix) -> Tensor:
        """Give each row the numbers of its graph, in the dtype of `like`; it multiplies a matrix.

        Example:
            >>> groups = Groups(torch.tensor([0, 0, 1]), 2)
            >>> groups.spread(torch.tensor([[5.0], [7.0]]), torch.ones(3, 2)).flatten().tolist()
            [5.0, 5.0, 7.0]
        """
        numbers = numbers.to(like.dtype)
        return numbers if self.batch is None else numbers.index_select(0, self.batch)

    def only(self, graphs: Bool[Tensor, " graphs"], a: Matrix) -> Matrix:
        """Return the matrix with zeros in the rows of all other graphs.

        Example:
            >>> groups = Groups(torch.tensor([0, 1]), 2)
            >>> groups.only(torch.tensor([True, False]), torch.tensor([[1.0], [torch.nan]]))
            tensor([[1.],
                    [0.]])
        """
        return self.select(graphs, a, torch.zeros_like(a))

    def select(self, graphs: Bool[Tensor, " graphs"], yes: Matrix, no: Matrix) -> Matrix:
        """Take the rows of these graphs from `yes` and the others from `no`."""
        if bool(graphs.all()):
            return yes
        if self.batch is None or not bool(graphs.any()):
            return no
        return torch.where(graphs[self.batch].unsqueeze(1), yes, no)
