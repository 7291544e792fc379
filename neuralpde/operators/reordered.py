"""A sparse matrix with its nodes in an order in which neighbours lie close together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from solvers.products import products

if TYPE_CHECKING:
    from neuralpde.operators.operator import SparseOperator
    from neuralpde.operators.pattern import Pattern

# An order is worth the way there and back if it brings neighbours that much closer.
CLOSER = 0.9


class Reordered:
    """Products with `P A P^T`, P a permutation of the nodes.

    A product reads the rows of a state in the order of the edges; where the rows of neighbours lie
    close together they are still in the cache. Every row is summed in the order in which A sums it,
    so that results are those of A to the bit.

    Args:
        A: on the CPU.
        order: the node that stands at each place.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> path, _ = Pattern.from_edges(torch.tensor([0, 2]), torch.tensor([2, 1]), 3)
    >>> A = SparseOperator(path, torch.tensor([2.0, 3.0]))
    >>> found, x = Reordered(A, torch.tensor([0, 2, 1])), torch.tensor([[1.0], [5.0], [7.0]])
    >>> y = found.addmm_(torch.empty(3, 1), found.enter(x, torch.empty(3, 1)))
    >>> found.leave(y, torch.empty(3, 1)).flatten().tolist(), (A @ x).flatten().tolist()
    ([14.0, 0.0, 15.0], [14.0, 0.0, 15.0])
    """

    def __init__(self, A: SparseOperator, order: Int64[Tensor, " nodes"]) -> None:
        self.order, pattern = order, A.pattern
        self._inverse = torch.empty_like(order)
        self._inverse[order] = torch.arange(len(order), device="cpu")
        count = pattern.crow.diff()[order]
        crow = torch.zeros_like(pattern.crow)
        crow[1:] = count.cumsum(0)
        moved = (pattern.crow[:-1][order] - crow[:-1]).repeat_interleave(count)
        entry = moved + torch.arange(pattern.nnz, device="cpu")
        col = self._inverse[pattern.col[entry].long()].to(crow.dtype)
        size = (A.num_nodes, A.num_nodes)
        values = A.values.detach()[entry]
        self._matrix = torch.sparse_csr_tensor(
            crow, col, values, size, device="cpu", check_invariants=False
        )

    @classmethod
    def of(cls, A: SparseOperator) -> Reordered | None:
        """Return products with a self-adjoint matrix, or None where another order gains nothing.

        Graphs of a batch are left where they are: each lies close together as it is.
        """
        if A.num_graphs > 1 or not A.self_adjoint or A.dtype in (torch.float16, torch.bfloat16):
            return None
        order = A.pattern.near_order if A.device.type == "cpu" else None
        return None if order is None else cls(A, order)

    def enter(self, x: Float[Tensor, "nodes some"], out: Tensor) -> Tensor:
        """Return `P x`, in `out`, which is contiguous."""
        return torch.index_select(x, 0, self.order, out=out)

    def leave(self, y: Float[Tensor, "nodes some"], out: Tensor) -> Tensor:
        """Return `P^T y`, in `out`."""
        if out.is_contiguous():
            return torch.index_select(y, 0, self._inverse, out=out)
        return out.copy_(y.index_select(0, self._inverse))

    def addmm_(self, y: Tensor, x: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
        """Set `y <- beta y + alpha P A P^T x` in place; see `Operator.addmm_`."""
        products.total += 1
        return torch.addmm(y, self._matrix, x, beta=beta, alpha=alpha, out=y)


def near_order(pattern: Pattern) -> Int64[Tensor, " nodes"] | None:
    """Return an order in which neighbours lie closer together; None where that is hard to find.

    It is the reversed order of Cuthill and McKee (1969), found by scipy in time linear in the
    entries.

    Args:
        pattern: symmetric, on the CPU.

    >>> from neuralpde.operators import Pattern
    >>> one, other = torch.tensor([0, 3, 1, 2]), torch.tensor([3, 1, 2, 4])
    >>> path, _ = Pattern.from_edges(torch.cat([one, other]), torch.cat([other, one]), 5)
    >>> order = near_order(path)
    >>> None if order is None else order.tolist()
    [4, 2, 1, 3, 0]
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    if pattern.col.dtype is not torch.int32 or not pattern.nnz:
        return None
    sets = (np.ones(pattern.nnz, np.int8), pattern.col.numpy(), pattern.crow.numpy())
    matrix = csr_matrix(sets, shape=(pattern.num_nodes, pattern.num_nodes))
    found = reverse_cuthill_mckee(matrix, symmetric_mode=True)
    order = torch.from_numpy(found.astype(np.int64))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device="cpu")
    row, col = pattern.row, pattern.col.long()
    before, after = (row - col).abs_().sum(), (place[row] - place[col]).abs_().sum()
    return order if after < CLOSER * before else None
