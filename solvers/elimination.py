"""Small systems, one per graph, by LU: their matrices are read off column by column."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from solvers.groups import Groups, Matrix


class Elimination:
    """``A x = b`` on small graphs, with A given by products and factored once.

    Graphs are probed together: one product gives one column of every graph's matrix, so that the
    price is the number of unknowns of the largest graph.

    Args:
        product: A as a function; it maps graphs to themselves. Or its transpose, see `transposed`.
        like: a right-hand side.
        groups: the graphs.
        graphs: which graphs to solve on.
        transposed: whether `product` gives ``A^T v``, while A is meant.

    Attributes:
        regular: which graphs have a matrix that can be inverted.

    Example:
        >>> A = torch.tensor([[2.0, 1.0], [0.0, 4.0]])
        >>> lu = Elimination(lambda v: A @ v, torch.ones(2, 1), Groups(), torch.tensor([True]))
        >>> lu.solve(torch.tensor([[3.0], [4.0]])).flatten().tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        product: Callable[[Matrix], Matrix],
        like: Matrix,
        groups: Groups,
        graphs: Bool[Tensor, " graphs"],
        *,
        transposed: bool = False,
    ) -> None:
        width = like.shape[1]
        rows = torch.arange(len(like), device=like.device)
        owner = torch.zeros_like(rows) if groups.batch is None else groups.batch
        first = torch.searchsorted(owner, torch.arange(groups.num_graphs, device=like.device))
        chosen = graphs[owner]
        # Where each entry stands in its graph's own vector, and its graph among the chosen ones.
        place = (rows - first[owner])[chosen].unsqueeze(1) * width
        self._place = place + torch.arange(width, device=like.device)
        among = graphs.long().cumsum(0) - 1
        self._graph = among[owner][chosen].unsqueeze(1).expand_as(self._place)
        self._rows = chosen
        size = int(self._place.max()) + 1 if self._place.numel() else 0
        count = int(graphs.sum())
        # Graphs with fewer unknowns are filled up with the identity.
        matrices = torch.eye(size, dtype=like.dtype, device=like.device).repeat(count, 1, 1)
        matrices[self._graph, self._place, self._place] = 0.0
        for k in range(size):
            unit = torch.zeros_like(like)
            unit[chosen] = (self._place == k).to(like)
            found = product(unit)[chosen]
            has = torch.zeros(count, dtype=torch.bool, device=like.device)
            has[self._graph[self._place == k]] = True
            kept = has[self._graph]
            index = (self._graph[kept], self._place[kept])
            if transposed:
                matrices[index[0], k, index[1]] = found[kept]
            else:
                matrices[index[0], index[1], k] = found[kept]
        self._shape = (count, size)
        self._matrices, self._chosen = matrices, graphs
        self._factors = torch.linalg.lu_factor_ex(matrices)
        good = self._factors.info == 0
        good &= self._factors.LU.flatten(1).isfinite().all(1)
        self.regular = torch.zeros_like(graphs)
        self.regular[graphs] = good

    @cached_property
    def negative(self) -> Bool[Tensor, " graphs"]:
        """Graphs whose matrix has an eigenvalue with a negative real part, beyond rounding.

        Most are cleared by Gershgorin's discs, of rows or of columns; the others are computed.
        """
        size, diagonal = self._matrices.abs(), self._matrices.diagonal(dim1=1, dim2=2)
        length = size.sum((1, 2))
        clear = torch.zeros_like(length, dtype=torch.bool)
        for axis in (1, 2):
            discs = diagonal + diagonal.abs() - size.sum(axis)
            clear |= (discs >= 0).all(1)
        found = torch.zeros_like(clear)
        look = length.isfinite() & ~clear
        if bool(look.any()):
            real = torch.linalg.eigvals(self._matrices[look].cpu()).real.amin(1).to(length)
            found[look] = real < -100 * torch.finfo(length.dtype).eps * length[look]
        graphs = torch.zeros_like(self._chosen)
        graphs[self._chosen] = found
        return graphs

    def solve(self, b: Matrix) -> Matrix:
        """Return ``A^-1 b``, zero in the rows of other graphs.

        Args:
            b: the right-hand side.
        """
        packed = b.new_zeros(self._shape)
        packed[self._graph, self._place] = b[self._rows]
        LU, pivots, _ = self._factors
        found = torch.linalg.lu_solve(LU, pivots, packed.unsqueeze(2)).squeeze(2)
        x = torch.zeros_like(b)
        x[self._rows] = found[self._graph, self._place]
        return x
