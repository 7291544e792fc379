"""Exponential Runge-Kutta steps: the linear part exactly, the rest by quadrature."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

from torch import Tensor

from solvers.flow import Flow
from solvers.phi import Degrees
from solvers.rows import Rows, State
from solvers.semilinear import Actions, Semilinear
from solvers.stepper import Accuracy, Step, Stepper


class ETDRK2(Stepper):
    """The second-order exponential Runge-Kutta method of Cox and Matthews.

    With ``g = rest`` and ``F = A x + source + g`` at t::

        a    = x + h phi_1(h A) F
        x(t + h) = a + h phi_2(h A) (g(t + h, a) - g(t, x)),      error a - x(t + h)

    Exact where g is constant, of order 2 whatever the size of h A, L-stable. The estimate is the
    error of the first-order result a. How many products a step takes follows from the sizes of
    the two vectors: near rest h F is small, and its function need not be known to many digits.
    Where gradients are taken the derivative of the step has to be right too, which sets a least
    degree of about ``sqrt(h Lambda log(h Lambda / rtol))``.

    Source:
        Cox and Matthews, Exponential time differencing for stiff systems, J. Comput. Phys. 176
        (2002), equations 20 to 22; order for stiff problems: Hochbruck and Ostermann, SIAM J.
        Numer. Anal. 43 (2005).

    Example:
        >>> ETDRK2().order, ETDRK2().error_order, ETDRK2().adaptive
        (2, 2, True)
    """

    name = "etdrk2"
    order = 2
    error_order = 2
    adaptive = True
    needs_slope = False

    split: Semilinear
    actions: Actions

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Take the field apart and enclose the spectrum of its operator.

        Raises:
            ValueError: the field has no operator or no rest, or the operator no functions.
        """
        ready = copy(self)
        ready.split = Semilinear.of(flow, self.name)
        ready.actions = Actions(ready.split.A, accuracy)
        return ready

    def plan(self, f: Any, x: State, fx: State | None) -> dict[str, Degrees]:
        """Open the place where the step notes its degrees, so that a replay takes the same."""
        return {}

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: dict[str, Degrees] | None = None,
    ) -> Step:
        """Advance by one step; see `Stepper.step`. ``fx`` is not used."""
        (start,) = x
        notes = {} if plan is None else plan
        sizes, allowed = self.split.sizes(f), self.actions.allowed(start)
        before = self.split.rest(f, 0.0, start)
        slope = self.split.linear(start) + before
        first = start + h * self.actions("first", 1, slope, sizes, allowed, notes)
        change = self.split.rest(f, 1.0, first) - before
        correction = h * self.actions("second", 2, change, sizes, allowed, notes)
        return Step((first + correction,), (-correction,) if error else None)
