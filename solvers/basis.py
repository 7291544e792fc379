"""Orthonormal bases of Krylov spaces, one for every column of every graph."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.guarantee import EPS
from solvers.problem import Operator
from solvers.rows import Rows

Pairs = Float[np.ndarray, "graphs columns"]
"""A number for each column of each graph: they share products and nothing else."""

Triples = Float[np.ndarray, "vectors graphs columns"]

# What the vectors of a basis take at first; doubled when it is full.
ROOM = 16
# An off-diagonal entry this small, in roundings of the operator, is none.
NOTHING = 10.0


class Basis:
    """Orthonormal vectors that span ``v, A v, A^2 v, ...``, for every column of every graph.

    Lanczos' recurrence ``beta_m v_(m+1) = A v_m - alpha_m v_m - beta_(m-1) v_(m-1)`` with full
    orthogonalisation against all vectors, in the inner product in which A is self-adjoint. A
    column whose space is exhausted goes on with zeros.

    Args:
        A: self-adjoint operator, float64.
        rows: rows of its graphs.
        v: starts, float64; may be zero.
        signs: 1 or -1 for each graph, times A.

    Attributes:
        size: norm of each start.
        products: number of products so far, the number of vectors.

    Source:
        Lanczos (1950); Parlett, The Symmetric Eigenvalue Problem (1980), chapter 13.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> path, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
        >>> L = SparseOperator(path, torch.tensor([1.0, -1.0, -1.0, 1.0]).double(), symmetric=True)
        >>> basis = Basis(L, Rows(), torch.tensor([[2.0], [0.0]]).double(), np.ones(1))
        >>> basis.grow()
        >>> basis.size.item(), [entries[0].item() for entries in basis.tridiagonal()]
        (2.0, [1.0, 1.0])
    """

    def __init__(
        self,
        A: Operator,
        rows: Rows,
        v: Float[Tensor, "nodes columns"],
        signs: Float[np.ndarray, " graphs"],
    ) -> None:
        self.A, self.rows = A, rows
        self._metric = None if A.metric is None else A.metric.to(v)
        self._signs = rows.spread(signs, v)
        lo, hi = A.spectrum()
        self._nothing = NOTHING * EPS * torch.maximum(lo.abs(), hi.abs()).to(v)
        self._diagonal: list[Tensor] = []
        self._off: list[Tensor] = []
        start = v.T.contiguous()
        norms = self._norms(start)
        self.size: Pairs = norms.T.cpu().numpy()
        self._vectors = v.new_empty(v.shape[1], ROOM, len(v))
        self._vectors[:, 0] = self._over(start, norms)

    @property
    def products(self) -> int:
        """Number of products so far."""
        return len(self._diagonal)

    def grow(self) -> None:
        """Multiply once more: one vector, one row of the tridiagonal matrices."""
        m = self.products
        if m + 1 == self._vectors.shape[1]:
            self._vectors = torch.cat([self._vectors, torch.empty_like(self._vectors)], 1)
        known = self._vectors[:, : m + 1]
        last = known[:, m]
        w = (self._signs * (self.A @ last.T.contiguous())).T.contiguous()
        along = self._dots(known, w)
        self._diagonal.append(along[:, m])
        w = self._without(w, known, along)
        # Once more, for what rounding left in it where little else is left.
        w = self._without(w, known, self._dots(known, w))
        norms = self._norms(w)
        norms = torch.where(norms > self._nothing, norms, torch.zeros_like(norms))
        self._off.append(norms)
        self._vectors[:, m + 1] = self._over(w, norms)

    def tridiagonal(self) -> tuple[Triples, Triples]:
        """Return the diagonal and the entries beside it, ``[vectors, graphs, columns]`` each.

        The last entry beside the diagonal leads out of the matrix.
        """
        both = (torch.stack(part).transpose(1, 2) for part in (self._diagonal, self._off))
        diagonal, beside = (part.cpu().numpy() for part in both)
        return diagonal, beside

    def along(self, x: Float[Tensor, "nodes columns"]) -> Triples:
        """Return the products of all vectors but the last with a state."""
        dots = self._dots(self._vectors[:, : self.products], x.T.contiguous())
        found: Triples = dots.permute(1, 2, 0).cpu().numpy()
        return found

    def combined(
        self, coefficients: Float[np.ndarray, "graphs columns times vectors"]
    ) -> Float[Tensor, "times nodes columns"]:
        """Return sums of the basis vectors, for each column with weights of its own."""
        weights = torch.as_tensor(coefficients, device=self._vectors.device).to(self._vectors)
        known = self._vectors[:, : weights.shape[-1]]
        if self.rows.batch is None:
            found = torch.bmm(weights[0], known)
        else:
            parts = (
                (weights[self.rows.batch, :, time].permute(1, 2, 0) * known).sum(1)
                for time in range(weights.shape[2])
            )
            found = torch.stack(list(parts), 1)
        return found.permute(1, 2, 0).contiguous()

    def _dots(self, vectors: Tensor, w: Tensor) -> Float[Tensor, "columns vectors graphs"]:
        weighted = w if self._metric is None else w * self._metric
        if self.rows.batch is None:
            return torch.bmm(vectors, weighted.unsqueeze(2))
        products = vectors * weighted.unsqueeze(1)
        empty = products.new_zeros(*products.shape[:2], self.rows.num_graphs)
        return empty.index_add_(2, self.rows.batch, products)

    def _without(self, w: Tensor, vectors: Tensor, dots: Tensor) -> Tensor:
        if self.rows.batch is None:
            return torch.baddbmm(w.unsqueeze(1), dots.transpose(1, 2), vectors, alpha=-1).squeeze(1)
        return w - (dots[:, :, self.rows.batch] * vectors).sum(1)

    def _norms(self, w: Tensor) -> Float[Tensor, "columns graphs"]:
        return self._dots(w.unsqueeze(1), w)[:, 0].clamp(min=0.0).sqrt()

    def _over(self, w: Tensor, norms: Tensor) -> Tensor:
        inverse = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
        return w * (inverse if self.rows.batch is None else inverse[:, self.rows.batch])


def column_norms(x: Float[Tensor, "nodes columns"], rows: Rows, metric: Tensor | None) -> Pairs:
    """Return the norm of each column in each graph, weighted by the metric.

    Example:
        >>> column_norms(torch.tensor([[3.0], [4.0]]).double(), Rows(), None).tolist()
        [[5.0]]
    """
    squares = x.square() if metric is None else x.square() * metric.to(x).unsqueeze(1)
    if rows.batch is None:
        sums = squares.sum(0, keepdim=True)
    else:
        sums = squares.new_zeros(rows.num_graphs, x.shape[1]).index_add(0, rows.batch, squares)
    norms: Pairs = sums.sqrt().cpu().numpy()
    return norms
