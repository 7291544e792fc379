"""Implicit-explicit Runge-Kutta steps: the linear part by solving, the rest by evaluating."""

from __future__ import annotations

from copy import copy
from math import sqrt
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.chebyshev import PerGraph, recorded
from solvers.failure import LINEAR_SOLVE_FAILED
from solvers.flow import Flow
from solvers.groups import Groups, Matrix
from solvers.implicit_gradient import EXACT
from solvers.krylov import Solved, conjugate_gradients
from solvers.problem import Operator
from solvers.rows import Rows, State
from solvers.semilinear import Precision, Semilinear
from solvers.stepper import Accuracy, Step, Stepper, Trouble

GAMMA = 1 - 1 / sqrt(2)
DELTA = 1 - 1 / (2 * GAMMA)
# What conjugate gradients leave is smooth and of one sign for many steps, so that it adds up.
SHARE = 1e-3


class ARS222(Stepper):
    """The second-order implicit-explicit method (2, 2, 2) of Ascher, Ruuth and Spiteri.

    With ``f = A x + source + g`` in which ``g = rest`` is explicit and A implicit,
    ``gamma = 1 - 1 / sqrt 2``, ``delta = 1 - 1 / (2 gamma)``::

        y = x + gamma h (A y + g(t, x))
        x(t + h) = x + h (delta g(t, x) + (1 - delta) g(t + gamma h, y))
                     + h ((1 - gamma) A y + gamma A x(t + h))

    L-stable in A; between order 1 and 2 where a stiff A is balanced by a rest as large. The
    estimate ``x(t + h) - x - (y - x) / gamma`` compares with the first-order result that goes on
    as it went to y; it is of order 2 and bounded for any size of h A. Both systems have the matrix
    ``I - gamma h A`` and are solved for changes of the state: near rest they cost nothing. It is
    done by conjugate gradients with the diagonal as preconditioner, which choose the best
    polynomial for the spectrum that is there; a Chebyshev series of the resolvent would have to
    do for all of its enclosure. Gradients come from the implicit function theorem: a solve with
    the same matrix.

    Source:
        Ascher, Ruuth and Spiteri, Implicit-explicit Runge-Kutta methods for time-dependent partial
        differential equations, Appl. Numer. Math. 25 (1997), section 2.6.

    Example:
        >>> ARS222().order, ARS222().error_order, round(GAMMA, 4), round(DELTA, 4)
        (2, 2, 0.2929, -0.7071)
    """

    name = "ars222"
    order = 2
    error_order = 2
    adaptive = True
    needs_slope = False

    split: Semilinear
    shifted: Shifted
    _precision: Precision

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Take the field apart.

        Raises:
            ValueError: the field has no operator or no rest, or the operator is not self-adjoint.
        """
        ready = copy(self)
        ready.split = Semilinear.of(flow, self.name)
        A = ready.split.A
        if not A.self_adjoint:
            walk = A.generator is not None or A.stochastic is not None
            raise ValueError(
                "solver 'ars222' solves with I - gamma h A by conjugate gradients, which need a "
                f"self-adjoint operator, and that of {flow.structure.name} is not known to be: "
                + ("use 'etdrk2', which goes by uniformisation, or " if walk else "use ")
                + "'trbdf2', or make the graph undirected (graph.undirected())"
            )
        ready.shifted = Shifted(A)
        ready._precision = Precision(accuracy, ready.shifted.norms, SHARE)
        return ready

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: None = None,
    ) -> Step:
        """Advance by one step; see `Stepper.step`. ``fx`` is not used."""
        (start,) = x
        sizes, allowed = GAMMA * self.split.sizes(f), self._precision.allowed(start)
        before = self.split.rest(f, 0.0, start)
        slope = self.split.linear(start) + before
        change, lost = self.shifted.solve(sizes, GAMMA * h * slope, allowed)
        middle = self.split.rest(f, GAMMA, start + change)
        # The first system subtracted from the second: A y goes without a product.
        right = (1 - GAMMA) / GAMMA * change + (1 - DELTA) * h * (middle - before)
        more, lost_too = self.shifted.solve(sizes, right, allowed)
        whole = change + more
        return Step(
            (start + whole,),
            (whole - change / GAMMA,) if error else None,
            trouble=self._trouble(f, lost | lost_too, sizes),
        )

    def _trouble(
        self, f: Any, lost: Bool[np.ndarray, " graphs"], sizes: PerGraph
    ) -> Trouble | None:
        if not lost.any():
            return None
        clocks = lost if len(f.h) > 1 else np.array([lost.any()])
        lo, hi = (end.detach().cpu().numpy() for end in self.split.A.spectrum())
        shift = np.maximum(sizes * lo, sizes * hi)[lost].max()
        text = (
            "Conjugate gradients did not solve (I - gamma h A) y = b in "
            f"{self.shifted.limit} products"
        )
        if shift >= 1:
            text = (
                "(I - gamma h A) is not safely positive definite: gamma h A may have eigenvalues "
                f"up to {shift:.3g}, and has to stay below 1"
            )
        return Trouble(
            LINEAR_SOLVE_FAILED,
            clocks,
            f"{text}. Take smaller steps (more steps, or a smaller rtol), or use 'etdrk2', which "
            "solves no systems.",
        )


class Shifted:
    """Solving with ``I - s A``, a shift s for each graph, every column on its own if it may be.

    Errors and residuals are root mean squares, weighted by the metric in which A is self-adjoint.
    Where no eigenvalue of ``s A`` is positive an error is at most its residual.

    Args:
        A: self-adjoint operator.

    Attributes:
        limit: most products of one solve.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> A = SparseOperator(Pattern.identity(1), -torch.ones(1).double(), symmetric=True)
        >>> b = torch.full((1, 1), 3.0).double()
        >>> y, lost = Shifted(A).solve(np.array([0.5]), b, np.array([1e-9]))
        >>> y.item(), lost.tolist()
        (2.0, [False])
    """

    limit = 1000

    def __init__(self, A: Operator) -> None:
        self._outer = A
        self.A = A = A.core
        self.rows = Rows(A.batch if A.num_graphs > 1 else None, A.num_graphs)
        self.groups = Groups(self.rows.batch, A.num_graphs, separate=A.separate)
        self.diagonal = A.diagonal().unsqueeze(1)
        self.metric = A.metric
        self.weight: float | Tensor = 1.0
        if self.metric is not None:
            mean = self.groups.dot(self.metric.unsqueeze(1), torch.ones_like(self.diagonal))
            each = self.metric.unsqueeze(1) / self.groups.spread(mean / self._nodes(), mean)
            self.weight = each.sqrt().to(A.dtype)

    def _nodes(self) -> Tensor | float:
        nodes = self.groups.rows
        return float(len(self.diagonal)) if nodes is None else nodes.clamp(min=1.0)

    def norms(self, x: Tensor) -> PerGraph:
        """Return the root mean square of each graph's part of a state."""
        together = self.groups.by_column(False)
        found: PerGraph = together.rms(self._matrix(x.detach()) * self.weight)[:, 0].cpu().numpy()
        return found

    def solve(
        self, s: PerGraph, b: Tensor, allowed: PerGraph
    ) -> tuple[Tensor, Bool[np.ndarray, " graphs"]]:
        """Return ``(I - s A)^-1 b``, and the graphs where it was not found.

        Differentiable once in b and in the tensors of A. Graphs where b is not finite get NaN.

        Args:
            s: shift of each graph.
            b: right-hand side, real or complex.
            allowed: largest residual of each graph.
        """
        flat = self._matrix(b)
        lost = np.zeros(len(s), dtype=np.bool_)
        (y,) = recorded(_Inverse, self, s, allowed, lost, flat, *self.A.tensors)
        y = self._outer.leave(y)
        if b.is_complex():
            return torch.view_as_complex(y.reshape(*b.shape, 2)), lost
        return y.reshape(b.shape), lost

    def _matrix(self, x: Tensor) -> Matrix:
        real = torch.view_as_real(x) if x.is_complex() else x
        return self._outer.enter(real.reshape(len(x), real.shape[1:].numel()).contiguous())

    def iterate(self, s: float | Tensor, b: Matrix, tolerance: Tensor) -> Solved:
        """Run conjugate gradients on ``(I - s A) y = b``."""
        diagonal = 1.0 - s * self.diagonal
        return conjugate_gradients(
            lambda v: v - s * (self.A @ v),
            b,
            tolerance,
            self.groups,
            weight=self.weight,
            preconditioner=torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)),
            metric=self.metric,
            limit=self.limit,
        )


class _Inverse(torch.autograd.Function):
    """The solution of the shifted system; the way back is another one with the same matrix."""

    @staticmethod
    def forward(
        ctx: Any,
        shifted: Shifted,
        s: PerGraph,
        allowed: PerGraph,
        lost: Bool[np.ndarray, " graphs"],
        b: Matrix,
        *tensors: Tensor,
    ) -> tuple[Tensor]:
        ctx.shifted, ctx.s = shifted, shifted.rows.spread(s, b)
        found = shifted.iterate(ctx.s, b, torch.as_tensor(allowed, device=b.device))
        finite = found.residual.isfinite()
        lost |= (finite & ~found.reached).cpu().numpy()
        y = shifted.groups.select(finite, found.x, torch.full_like(b, torch.nan))
        ctx.save_for_backward(y)
        return (y,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        shifted, s, (y,) = ctx.shifted, ctx.s, ctx.saved_tensors
        metric = 1.0 if shifted.metric is None else shifted.metric.to(g).unsqueeze(1)
        right = g / metric
        sizes = shifted.groups.rms(right * shifted.weight).amax(1)
        found = shifted.iterate(s, right, EXACT[g.dtype] * sizes)
        if not bool(found.reached.all()):
            raise RuntimeError(
                "the adjoint system of an implicit step could not be solved by conjugate gradients "
                f"in {shifted.limit} products; take smaller steps (a smaller rtol, or more steps)"
            )
        back = metric * found.x
        entries: tuple[Tensor | None, ...] = tuple(None for _ in ctx.needs_input_grad[5:])
        if any(ctx.needs_input_grad[5:]):
            entries = shifted.A.gradients(s * back, y)
        return None, None, None, None, back, *entries
