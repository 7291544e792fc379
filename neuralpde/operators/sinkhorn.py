"""Doubly stochastic matrices: rows and columns scaled until all their sums are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from neuralpde.operators.pattern import Pattern
from neuralpde.operators.trilinear import Matrix, apply
from solvers.groups import Groups
from solvers.krylov import conjugate_gradients

SWEEPS = 8
"""Alternating scalings before Newton's method takes over: far from the end they are safer."""

STEPS = 60
"""Most steps of Newton's method."""

LONGEST = 2.0
"""Largest entry of a step: within it no entry of the Hessian changes by more than a factor."""

ENOUGH = 1e-9
"""Column sums that differ from 1 by more are a failure."""

PRODUCTS = 8
"""Most iterations for one linear system for each node: a path takes 1, in exact arithmetic."""

EPS = torch.finfo(torch.float64).eps


def doubly_stochastic(pattern: Pattern, scores: Float[Tensor, " nnz"]) -> Float[Tensor, " nnz"]:
    """Return the entries of `P_ij = exp(s_ij + u_i + v_j)` whose rows and columns sum to 1.

    Sinkhorn's sweeps, which scale rows and columns in turn, in the logarithmic domain and float64;
    where they converge slowly (long graphs), Newton's method on the convex function
    `sum_i log sum_j exp(s_ij + v_j) - sum_j v_j` goes on, its systems `diag(c) - P^T P` solved by
    conjugate gradients. Rows are scaled last, so that their sums are exact. Where scores are
    symmetric to the bit, P is averaged with its transpose, and is symmetric to the bit too.

    The scaling exists where every entry lies on a permutation inside the pattern (total support):
    symmetric patterns with a full diagonal are such, and strongly connected ones with it.

    Gradients are those of the fixed point, by the implicit function theorem: one linear system
    whatever the number of sweeps. Twice differentiable.

    Args:
        pattern: entries.
        scores: logarithms of positive numbers; -inf leaves an entry out.

    Returns:
        The entries, float64. Column sums are 1 to 1e-9 at least, and mostly to rounding, see
        `columns_hold`.

    Raises:
        ValueError: there is no such scaling, or it was not reached; names the residual.

    References:
        R. Sinkhorn, P. Knopp, Pacific J. Math. 21 (1967), 343, for existence. P. Knight, D. Ruiz,
        IMA J. Numer. Anal. 33 (2013), 1029, for Newton's method.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
    >>> scores = torch.tensor([4.0, 1.0, 1.0, 1.0]).log()
    >>> doubly_stochastic(pattern, scores).tolist()
    [0.6666667, 0.3333333, 0.3333333, 0.6666667]
    """
    scores = scores.double()
    lost = _unsupported(pattern, scores.detach())
    if lost is not None:
        raise ValueError(
            f"there is no doubly stochastic matrix with these entries: {lost}; give all nodes "
            "self-loops and make the graph undirected (graph.undirected()), or use "
            'normalise="softmax"'
        )
    found: Tensor = _recorded(_Balanced, scores, _Scaling(pattern))
    if is_symmetric(pattern, scores) and columns_hold(pattern, found):
        found = (found + found.index_select(0, pattern.transposed[2])) / 2
    return found


def columns_hold(pattern: Pattern, values: Float[Tensor, " nnz"]) -> bool:
    """Whether the columns of a matrix with values in [0, 1] sum to 1, to rounding.

    >>> columns_hold(Pattern.identity(2), torch.tensor([1.0, 0.9]))
    False
    """
    wide = values.detach().double()
    sums = wide.new_zeros(pattern.num_nodes).index_add(0, pattern.col, wide)
    return _largest(sums) <= _rounding(pattern, torch.finfo(values.dtype).eps)


def is_symmetric(pattern: Pattern, values: Float[Tensor, " nnz"]) -> bool:
    """Whether the matrix with these values is symmetric to the bit.

    >>> is_symmetric(Pattern.identity(2), torch.tensor([1.0, 2.0]))
    True
    """
    if not pattern.same_as(pattern.T):
        return False
    return torch.equal(values, values.index_select(0, pattern.transposed[2]))


class _Scaling:
    """The scaling of the entries of one pattern, and the linear systems that belong to it."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern, self.groups = pattern, Groups()
        self.rounding = _rounding(pattern, EPS)

    def balance(self, scores: Tensor) -> Tensor:
        """Scale rows and columns."""
        v = scores.new_zeros(self.pattern.num_nodes)
        P, c = self._rows(scores, v)
        for step in range(SWEEPS + STEPS):
            size = _largest(c)
            if size <= self.rounding / 2 or not size < torch.inf:
                break
            before = v, P, c
            v = v - c.log() if step < SWEEPS else self._stepped(scores, v, P, c)
            P, c = self._rows(scores, v)
            if step >= SWEEPS and size <= ENOUGH and not _largest(c) < 0.5 * size:
                # Nothing but rounding is left.
                v, P, c = before if size < _largest(c) else (v, P, c)
                break
        size = _largest(c)
        if not size <= ENOUGH:
            raise ValueError(
                f"column sums still differ from 1 by {size:.2g} after {SWEEPS} sweeps and "
                f"{STEPS} steps of Newton's method; make the scores smaller (scale=)"
            )
        return P

    def solve(self, P: Matrix, values: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, b) with a + P b = r and b + P^T a = c, whose sums agree."""
        right = c - _times(P.backward(values), r)
        # Sums agree to rounding only, and no solution is closer than that.
        accuracy = 4 * EPS * self.groups.rms(torch.stack([r, c], 1))[:, 0]
        b = self._normal(P, values, right, torch.ones_like(c), accuracy)
        return r - _times(P.forward(values), b), b

    def _rows(self, scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Scale the rows of exp(s + v_j); return the entries and their sums over columns."""
        pattern = self.pattern
        shifted = scores + v.index_select(0, pattern.col)
        least = shifted.new_full((pattern.num_nodes,), -torch.inf)
        largest = least.scatter_reduce(0, pattern.row, shifted, "amax")
        parts = torch.exp(shifted - largest[pattern.row])
        P = parts / torch.zeros_like(v).index_add(0, pattern.row, parts)[pattern.row]
        return P, torch.zeros_like(v).index_add(0, pattern.col, P)

    def _stepped(self, scores: Tensor, v: Tensor, P: Tensor, c: Tensor) -> Tensor:
        """Take a step of Newton's method, no longer than its quadratic model is good."""
        size = self.groups.rms((1.0 - c).unsqueeze(1))
        accuracy = torch.clamp(size * size.clamp(max=1e-2), min=2 * EPS)[:, 0]
        step = self._normal(Matrix(self.pattern), P, 1.0 - c, c, accuracy)
        return v + step * (LONGEST / step.abs().max().clamp(min=LONGEST))

    def _normal(
        self, P: Matrix, values: Tensor, right: Tensor, diagonal: Tensor, accuracy: Tensor
    ) -> Tensor:
        """Solve (diag(d) - P^T P) b = right, up to constants and to a residual of `accuracy`."""
        forward, backward = P.forward(values), P.backward(values)
        right, diagonal = right.unsqueeze(1), diagonal.unsqueeze(1)
        found = conjugate_gradients(
            lambda x: diagonal * x - apply(backward, apply(forward, x)),
            right,
            accuracy,
            self.groups,
            preconditioner=diagonal,
            limit=PRODUCTS * max(self.pattern.num_nodes, 16),
        )
        return found.x.squeeze(1)


def _rounding(pattern: Pattern, eps: float) -> float:
    # A sum of exponentials of numbers of some size, and of as many as a row or a column has.
    return 2 * eps * (16 + max(pattern.longest_row, pattern.T.longest_row))


def _largest(c: Tensor) -> float:
    return float((c - 1.0).abs().max()) if len(c) else 0.0


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return apply(matrix, x.unsqueeze(1)).squeeze(1)


def _unsupported(pattern: Pattern, scores: Tensor) -> str | None:
    """Say which entry lies on no permutation inside the matrix, or None where all do."""
    kept = scores > -torch.inf
    if pattern.has_diagonal and bool(kept.all()) and pattern.same_as(pattern.T):
        return None
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

    row, col = pattern.row[kept].cpu().numpy(), pattern.col[kept].cpu().numpy()
    size = (pattern.num_nodes, pattern.num_nodes)
    matrix = csr_matrix((np.ones(len(row), dtype=np.int8), (row, col)), shape=size)
    partner = maximum_bipartite_matching(matrix, perm_type="column")
    if (partner < 0).any():
        return f"node {int((partner < 0).argmax())} has a place in no permutation along entries"
    # With a permutation moved to the diagonal, an entry lies on one if it lies on a cycle.
    strong = connected_components(matrix[:, partner], connection="strong")[1]
    place = partner.argsort()
    bad = strong[row] != strong[place[col]]
    return f"({row[bad][0]}, {col[bad][0]}) lies on no permutation" if bad.any() else None


def _recorded(form: type[Function], *arguments: object) -> Any:
    return form.apply(*arguments)


class _Balanced(Function):
    """The entries as a function of the scores."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scaling: _Scaling) -> Tensor:
        values = scaling.balance(scores)
        ctx.scaling = scaling
        ctx.save_for_backward(values)
        ctx.save_for_forward(values)
        return values

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _Balanced._derivative(ctx, g), None

    @staticmethod
    def jvp(ctx: Any, ds: Tensor, _: None) -> Tensor:
        # The matrix of derivatives of entries by scores is symmetric.
        return _Balanced._derivative(ctx, ds)

    @staticmethod
    def _derivative(ctx: Any, g: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        pattern, blank = ctx.scaling.pattern, g.new_zeros(ctx.scaling.pattern.num_nodes)
        flow = values * g
        sums = blank.index_add(0, pattern.row, flow), blank.index_add(0, pattern.col, flow)
        a, b = _recorded(_Solved, values, *sums, ctx.scaling)
        found: Tensor = flow - values * (a[pattern.row] + b.index_select(0, pattern.col))
        return found


class _Solved(Function):
    """The solution (a, b) of a + P b = r and b + P^T a = c."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, r: Tensor, c: Tensor, scaling: _Scaling
    ) -> tuple[Tensor, Tensor]:
        a, b = scaling.solve(Matrix(scaling.pattern), values, r, c)
        ctx.scaling = scaling
        ctx.save_for_backward(values, a, b)
        return a, b

    @staticmethod
    def backward(ctx: Any, da: Tensor, db: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        values, a, b = ctx.saved_tensors
        pattern = ctx.scaling.pattern
        r, c = _recorded(_Solved, values, da, db, ctx.scaling)
        crossed = r[pattern.row] * b.index_select(0, pattern.col)
        crossed = crossed + a[pattern.row] * c.index_select(0, pattern.col)
        return -crossed, r, c, None
