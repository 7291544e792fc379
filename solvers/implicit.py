"""Implicit one-step methods for stiff fields, with products instead of matrices."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.control import Control
from solvers.failure import LINEAR_SOLVE_FAILED, NEWTON_FAILED, STEP_TOO_SMALL
from solvers.flow import Flow, Stages
from solvers.groups import Groups, Matrix
from solvers.implicit_gradient import attach
from solvers.implicit_tableaus import IMPLICIT_TABLEAUS, ImplicitTableau
from solvers.jacobian import looks_symmetric, twice_differentiable
from solvers.layout import Layout
from solvers.matrix_field import MatrixField
from solvers.newton import Equations, Newton
from solvers.resolvent import small
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper, Trouble

TARGET = 1e-2
"""Error of a stage in units of the step's tolerance (Hairer and Wanner II, IV.8: kappa)."""

EXACT = {torch.float64: 1e-10, torch.float32: 1e-6}
"""Error of a stage relative to the state's root mean square, where there is no tolerance."""

CAREFUL = Control(safety=0.8, grow=5.0)
"""A rejected step costs a whole Newton iteration: a third fewer of them than with the default."""


@dataclass(frozen=True)
class Experience:
    """What earlier steps taught: the plan of the next one.

    Attributes:
        seen: how Newton's iteration contracted in each graph; see `solvers.newton`.
        symmetric: which graphs have a symmetric Jacobian, by a test.
        differences: whether products with the Jacobian have to be differences.
    """

    seen: Float[Tensor, "graphs 2"]
    symmetric: Bool[Tensor, " graphs"]
    differences: bool = False


@dataclass
class ImplicitStep(Step):
    """A step with what it taught."""

    experience: Experience | None = None


class DiagonallyImplicit(Stepper):
    """The implicit method of a tableau.

    Each stage ``y = x + h sum_{j<i} a_ij k_j + h d f(t + c_i h, y)`` is solved by Newton's
    iteration with linear systems in ``I - h d J``, every graph by itself: by conjugate gradients
    with the diagonal as preconditioner where the field declares a self-adjoint operator and a
    pointwise rest, else by LU up to 100 unknowns, else by conjugate gradients where a test finds J
    symmetric, else by GMRES(20).

    Adaptive solves make the error of a stage 1e-2 of the tolerance; fixed grids 1e-10 of the
    state's size, root mean square per graph, in float64 and 1e-6 in float32. The estimate of the
    local error is filtered through ``(I - h d J)^-1``. Save times are stepped on, not interpolated.
    Where an eigenvalue of ``h d J`` has a real part above 1 the step is tried again with less: the
    method and its estimate damp such modes, and would miss the jump that they lead to. GMRES and
    conjugate gradients show it only where the residuals have met it.

    Gradients come from the implicit function theorem: a linear system with ``I - h d J^T`` per
    stage, solved to 1e-12 (1e-6 in float32); the iterations are not differentiated. They are those
    of the exact stages, taken at the stages as they were solved.

    `nfe` counts evaluations of the field and products with its Jacobian alike, for both cost a
    pass through the field; what gradients need is not counted.

    Args:
        tableau: the coefficients.
        exact: relative error of stages on fixed grids, instead of the values above.

    Example:
        >>> from solvers.integrate import Loop
        >>> from solvers.pace import Fixed
        >>> euler, x = implicit_euler(), (torch.ones(1, dtype=torch.float64),)
        >>> flow = Flow(lambda t, x: (-x[0],), Rows(), x[0])
        >>> grid, ends = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0]])
        >>> Loop(flow, euler, Fixed(grid), Rows(), ends).run(x).tape.saved[1][0].item()
        0.25
    """

    stability = float("inf")
    control = CAREFUL

    def __init__(self, tableau: ImplicitTableau, exact: float | None = None) -> None:
        self.tableau, self.exact = tableau, exact
        self.name, self.order = tableau.name, tableau.order
        self.error_order = tableau.error_order
        self.adaptive = tableau.b_hat is not None
        self._d = float(tableau.d)
        self._c = [float(c) for c in tableau.c]
        # Stages are combined from h d k, so that weights are relative to d.
        self._a = [[float(weight / tableau.d) for weight in row[:-1]] for row in tableau.a]
        self._e: list[float] | None = None
        if tableau.b_hat is not None:
            pairs = zip(tableau.b, tableau.b_hat, strict=True)
            self._e = [float((b - b_hat) / tableau.d) for b, b_hat in pairs]
        self._rows, self._accuracy = Rows(), Accuracy()
        self._groups = Groups()
        self._learned: Experience | None = None
        self._used: set[str] = set()

    def __repr__(self) -> str:
        return f"DiagonallyImplicit({self.name!r})"

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Return a stepper of this solve's own.

        Raises:
            ValueError: for half precision, which cannot hold the residuals of linear systems.
        """
        if flow.dtype not in EXACT:
            raise ValueError(
                f"{self.name!r} solves linear systems, for which {flow.dtype} is too coarse; use "
                "x0.float() or x0.double(), or an explicit method"
            )
        own = copy(self)
        own._rows, own._accuracy = rows, accuracy
        own._groups = Groups(rows.batch, rows.num_graphs)
        own.needs_slope = self.tableau.explicit_part or accuracy.rtol is not None
        own._learned, own._used = None, set()
        return own

    def plan(self, f: Stages, x: State, fx: State | None) -> Experience:
        """Hand on what is known of the convergence; at first, look at the Jacobian's symmetry."""
        if self._learned is None:
            with torch.no_grad():
                self._learned = self._first(f, x)
        return self._learned

    def judged(
        self, step: Step, accepted: Bool[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"]
    ) -> None:
        """Remember what the step taught."""
        assert isinstance(step, ImplicitStep)
        self._learned = step.experience

    def story(self) -> str:
        """How its linear systems were solved."""
        return f"linear systems by {' and '.join(sorted(self._used))}" if self._used else ""

    def step(
        self,
        f: Stages,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Experience | None = None,
    ) -> ImplicitStep:
        """Advance by one step; see `Stepper.step`.

        Args:
            f: the field inside the step.
            h: the step.
            x: the state at its start.
            fx: the field there.
            error: whether to estimate the error, where the method can.
            mid: nothing.
            plan: what earlier steps taught.
        """
        layout, groups = Layout(x), self._groups
        scale = layout.column(h * self._d)
        start, slope = layout.pack(x), layout.pack(fx)
        with torch.no_grad():
            plan = plan or self._first(f, x)
            field = MatrixField(f, layout, groups, differences=plan.differences)
            equations = self._equations(field, scale, layout, x)
            newton = Newton(equations, plan.seen, plan.symmetric, self._used)
        parts = [scale * slope if self.needs_slope else torch.zeros_like(start)]
        y = start
        for c, row in zip(self._c[1:], self._a[1:], strict=True):
            right = start
            for weight, part in zip(row, parts, strict=True):
                if weight:
                    right = torch.add(right, part, alpha=weight)
            with torch.no_grad():
                # The derivative changes little from stage to stage.
                guess = right + parts[-1] if self.needs_slope else start
                y = newton.solve(c, right, guess, start)
            if torch.is_grad_enabled():
                y = attach(field.stage(c, scale, equations.moving, newton.symmetric), right, y)
            parts.append(y - right)
        estimate: State | None = None
        if error and self._e is not None:
            with torch.no_grad():
                total = torch.zeros_like(start)
                for weight, part in zip(self._e, parts, strict=True):
                    total = torch.add(total, part, alpha=weight)
                estimate = layout.unpack(newton.filtered(total))
        return ImplicitStep(
            layout.unpack(y),
            estimate,
            trouble=self._trouble(f, newton),
            experience=Experience(newton.seen, newton.symmetric, plan.differences),
        )

    def _first(self, f: Stages, x: State) -> Experience:
        """Nothing is known yet; but large Jacobians without structure are looked at."""
        layout, groups = Layout(x), self._groups
        field, point = MatrixField(f, layout, groups), layout.pack(x)
        ones = torch.ones(groups.num_graphs, dtype=torch.float64, device=point.device)
        symmetric = torch.zeros_like(ones, dtype=torch.bool)
        unknown = torch.inf * ones.unsqueeze(1).expand(-1, 2)
        if field.splits or bool(small(point, groups).all()):
            return Experience(unknown, symmetric)
        jacobian = field.linearised(0.0 * ones, point)
        symmetric = looks_symmetric(jacobian, groups)
        differences = not twice_differentiable(jacobian, groups)
        if differences:
            self._used.add("differences of the field, which cannot be differentiated twice")
        return Experience(unknown, symmetric, differences)

    def _equations(
        self, field: MatrixField, scale: float | Tensor, layout: Layout, x: State
    ) -> Equations:
        groups, start = self._groups, layout.pack(x)
        ones = torch.ones_like(start[:, :1])
        return Equations(
            field,
            scale,
            1.0 / self._level(layout, start, x),
            groups,
            groups.rms(ones * (scale if isinstance(scale, Tensor) else 1.0))[:, 0] > 0,
            1.0 if self._accuracy.rtol is None else TARGET,
            resolving=self._accuracy.rtol is not None,
        )

    def _level(self, layout: Layout, start: Matrix, x: State) -> Tensor:
        """What an error of one tolerance is, entry by entry or graph by graph."""
        groups, accuracy = self._groups, self._accuracy
        size = groups.spread(groups.rms(start), start)
        finfo = torch.finfo(start.dtype)
        if accuracy.rtol is None:
            level = (self.exact or EXACT[start.dtype]) * size
        elif accuracy.deviation is not None:
            # Near consensus only the deviation counts, however small, down to rounding.
            part = groups.rms(layout.pack(accuracy.deviation(x)))
            level = accuracy.rtol * groups.spread(part, start) + 8 * finfo.eps * size
        else:
            assert accuracy.atol is not None
            level = accuracy.atol + accuracy.rtol * start.abs()
        return level.clamp(min=finfo.tiny)

    def _trouble(self, f: Stages, newton: Newton) -> Trouble | None:
        lost = newton.lost.cpu().numpy()
        if not lost.any():
            return None
        status = STEP_TOO_SMALL
        if bool(newton.unsolved.any() | newton.unsolvable.any()):
            status = NEWTON_FAILED if bool(newton.unsolved.any()) else LINEAR_SOLVE_FAILED
        size = float(np.abs(f.h).max())
        remedy = (
            "Use more steps, or solver='trbdf2' with tolerances, which chooses its steps"
            if self._accuracy.rtol is None
            else "The field probably jumps or blows up there: end before it, or mend the field"
        )
        clocks = lost if len(f.t) == len(lost) else np.array([True])
        text = f"{newton.text} in a step of {size:.3g}. {remedy}."
        return Trouble(status, clocks, text, lost)


@cache
def trbdf2() -> DiagonallyImplicit:
    """Return TR-BDF2: second order, L-stable, with an error estimate of third order.

    Example:
        >>> trbdf2().order, trbdf2().adaptive
        (2, True)
    """
    return DiagonallyImplicit(IMPLICIT_TABLEAUS["trbdf2"])


@cache
def implicit_euler() -> DiagonallyImplicit:
    """Return Euler's method backward: first order, L-stable, compared with the trapezoidal rule.

    Example:
        >>> implicit_euler().order, implicit_euler().adaptive
        (1, True)
    """
    return DiagonallyImplicit(IMPLICIT_TABLEAUS["implicit_euler"])


@cache
def crank_nicolson() -> DiagonallyImplicit:
    """Return the trapezoidal rule: second order, A-stable, fixed steps only.

    It does not damp what is very stiff but turns its sign at every step: prefer `trbdf2` for rough
    first states.

    Example:
        >>> crank_nicolson().order, crank_nicolson().adaptive
        (2, False)
    """
    return DiagonallyImplicit(IMPLICIT_TABLEAUS["crank_nicolson"])
