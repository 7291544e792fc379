"""Solving with I - s J, by the method that suits each graph: conjugate gradients, LU or GMRES."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.elimination import Elimination
from solvers.groups import Groups, Matrix
from solvers.jacobian import Jacobian
from solvers.krylov import Projection, Solved, conjugate_gradients, gmres

SMALL = 100
"""Graphs with up to so many unknowns are solved by LU, unless conjugate gradients are sure."""


@dataclass
class Outcome:
    """A solution of ``(I - s J) x = b``.

    Attributes:
        x: the solution.
        reached: which graphs got below their tolerance.
        residual: root mean square of the weighted residual of each graph.
    """

    x: Matrix
    reached: Bool[Tensor, " graphs"]
    residual: Float[Tensor, " graphs"]


class Resolvent:
    """The inverse of ``I - s J`` as a function.

    Self-adjoint Jacobians go by conjugate gradients with the diagonal as preconditioner, column
    by column where columns do not see each other; small graphs by LU; all others, and those where
    conjugate gradients meet a direction of no positive curvature, by GMRES.

    Args:
        jacobian: J.
        scale: s: a number, or one per row, the same within a graph.
        groups: the graphs.
        symmetric: which graphs have a symmetric Jacobian, by a test; ignored where J knows.
        transposed: whether to solve with ``I - s J^T``.
        used: takes the names of the methods that were needed.

    Attributes:
        symmetric: which graphs are still taken for symmetric.

    Example:
        >>> from solvers.jacobian import Recorded
        >>> J = Recorded(lambda y: -3.0 * y, torch.ones(2, 1), lambda: None)
        >>> found = Resolvent(J, 0.5, Groups()).solve(torch.ones(2, 1), torch.tensor([1e-6]))
        >>> found.x.flatten().tolist()
        [0.4, 0.4]
    """

    def __init__(
        self,
        jacobian: Jacobian,
        scale: float | Tensor,
        groups: Groups,
        symmetric: Bool[Tensor, " graphs"] | None = None,
        *,
        transposed: bool = False,
        used: set[str] | None = None,
    ) -> None:
        self._used = set() if used is None else used
        self._jacobian, self._scale, self._groups = jacobian, scale, groups
        self._transposed = transposed
        none = torch.zeros(groups.num_graphs, dtype=torch.bool, device=jacobian.value.device)
        if jacobian.symmetric is not None:
            symmetric = none | jacobian.symmetric
        self.symmetric = none if symmetric is None else symmetric.clone()
        self._indefinite = none
        self._seen: list[Projection] = []
        self._elimination: Elimination | None = None
        metric = jacobian.metric
        self._metric = None if metric is None else metric.reciprocal() if transposed else metric
        self._diagonal: Tensor | None = None
        if jacobian.diagonal is not None:
            diagonal = 1.0 - scale * jacobian.diagonal
            self._diagonal = torch.where(diagonal > 0, diagonal, 1.0)

    def solve(
        self,
        b: Matrix,
        tolerance: Float[Tensor, " graphs"],
        weight: float | Tensor = 1.0,
        active: Bool[Tensor, " graphs"] | None = None,
    ) -> Outcome:
        """Return ``(I - s J)^-1 b``.

        Args:
            b: the right-hand side.
            tolerance: for the root mean square of the weighted residual of each graph.
            weight: positive weights of the residual.
            active: graphs that are wanted; the others get zeros. None for all.
        """
        groups = self._groups
        open_ = torch.ones_like(self.symmetric) if active is None else active
        x, residual = torch.zeros_like(b), torch.zeros_like(tolerance)
        reached = ~open_
        direct = open_ & small(b, groups) & (self._jacobian.symmetric is not True)
        if bool(direct.any()):
            x = self._directly(b, direct)
            assert self._elimination is not None
            reached = reached | (direct & self._elimination.regular)
            open_ = open_ & ~direct
        for certain in (True, False):
            chosen = open_ & self.symmetric if certain else open_
            if not bool(chosen.any()):
                continue
            found = self._iterate(certain, groups.only(chosen, b), tolerance, weight)
            x = groups.select(chosen, found.x, x)
            residual = torch.where(chosen, found.residual, residual)
            reached = reached | (chosen & found.reached)
            done = found.reached
            if certain:
                again = chosen & ~found.reached
                if self._jacobian.symmetric is not None:
                    again = again & found.indefinite
                    self._indefinite = self._indefinite | (chosen & found.indefinite)
                self.symmetric = self.symmetric & ~again
                done = ~again
            open_ = open_ & ~(chosen & done)
        return Outcome(x, reached, residual)

    @property
    def growing(self) -> Bool[Tensor, " graphs"]:
        """Graphs in which ``s J`` was seen to have an eigenvalue with a real part above 1.

        Those solved by LU are looked at for certain. Conjugate gradients on known symmetry, and
        GMRES by its Ritz values, show what a right-hand side has led them to.
        """
        growing = self._indefinite
        if self._elimination is not None:
            growing = growing | self._elimination.negative
        for projection in self._seen:
            growing = growing | projection.negative().to(growing.device)
        return growing

    def _times(self, v: Matrix) -> Matrix:
        J = self._jacobian
        # A symmetric Jacobian is cheaper to pull back than to push forward.
        same = J.symmetric is None and bool(self.symmetric.all())
        backward = J.adjoint and (self._transposed or same)
        return v - self._scale * (J.transposed(v) if backward else J.times(v))

    def _iterate(
        self, certain: bool, b: Matrix, tolerance: Tensor, weight: float | Tensor
    ) -> Solved:
        groups = self._groups.by_column(self._jacobian.separate)
        self._used.add("conjugate gradients" if certain else "GMRES")
        if certain:
            return conjugate_gradients(
                self._times,
                b,
                tolerance,
                groups,
                weight=weight,
                preconditioner=self._diagonal,
                metric=self._metric,
            )
        found = gmres(
            self._times, b, tolerance, groups, weight=weight, preconditioner=self._diagonal
        )
        self._seen.extend(found.seen)
        return found

    def _directly(self, b: Matrix, graphs: Tensor) -> Matrix:
        self._used.add("LU")
        if self._elimination is None:
            J = self._jacobian
            turned = J.adjoint

            def product(v: Tensor) -> Tensor:
                return v - self._scale * (J.transposed(v) if turned else J.times(v))

            self._elimination = Elimination(
                product,
                b,
                self._groups,
                small(b, self._groups),
                transposed=turned != self._transposed,
            )
        return self._groups.only(graphs, self._elimination.solve(b))


def small(like: Matrix, groups: Groups) -> Bool[Tensor, " graphs"]:
    """Tell which graphs have at most `SMALL` unknowns.

    Example:
        >>> small(torch.zeros(101, 1), Groups()).tolist()
        [False]
    """
    if groups.rows is None:
        return torch.tensor([like.numel() <= SMALL], device=like.device)
    return groups.rows[:, 0] * like.shape[1] <= SMALL
