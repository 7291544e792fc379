"""Operator splitting: the linear part and the rest in turn, each by what is best for it."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

from torch import Tensor

from solvers.explicit import explicit
from solvers.flow import Flow
from solvers.phi import Degrees
from solvers.rows import Rows, State
from solvers.semilinear import Actions, Semilinear
from solvers.stepper import Accuracy, Step, Stepper


class Strang(Stepper):
    """Strang splitting: half a step of the linear flow, a step of the rest, half a linear step.

    The linear flow ``x' = A x + source`` is followed exactly, to rounding, and ``x' = rest(t, x)``
    by the classical Runge-Kutta method on the whole step::

        x(t + h) = E(h / 2) R(t, t + h) E(h / 2) x(t)

    Each half is what it would be alone: without a rest the step is exact, without A it is ``rk4``.
    Constants, masses and maximum principles that both parts keep are kept. It is of order 2, and
    needs a fixed grid: its error is that of the splitting, of which one step shows nothing. Where
    a stiff A is balanced by a rest as large, the balance is lost within each step, and the error
    with it: take ``etdrk2`` there.

    Source:
        Strang, On the construction and comparison of difference schemes, SIAM J. Numer. Anal. 5
        (1968), 506.

    Example:
        >>> Strang().order, Strang().adaptive
        (2, False)
    """

    name = "strang"
    order = 2
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
        error: bool = False,
        mid: bool = False,
        plan: dict[str, Degrees] | None = None,
    ) -> Step:
        """Advance by one step; see `Stepper.step`. ``fx`` is not used."""
        (start,) = x
        notes = {} if plan is None else plan
        middle = self._half("before", f, h, start, notes)

        def rest(c: float, y: State) -> State:
            return (self.split.rest(f, c, y[0]),)

        kicked = explicit("rk4").step(rest, h, (middle,), rest(0.0, (middle,)), error=False)
        return Step((self._half("after", f, h, kicked.x[0], notes),))

    def _half(
        self, name: str, f: Any, h: float | Tensor, x: Tensor, notes: dict[str, Degrees]
    ) -> Tensor:
        """Return the state after half a step of the linear flow."""
        sizes, allowed = self.split.sizes(f) / 2, self.actions.allowed(x)
        if f.flow.structure.source is None:
            return self.actions(name, 0, x, sizes, allowed, notes)
        slope = self.split.linear(x)
        return x + h / 2 * self.actions(name, 1, slope, sizes, allowed, notes)
