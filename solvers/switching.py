"""What "auto" runs on nonlinear fields: an explicit method, until stability limits its steps."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.explicit import explicit
from solvers.flow import Flow
from solvers.interpolation import hermite
from solvers.legendre import stages
from solvers.rows import Rows, State
from solvers.stabilised import LONGEST, RKL2
from solvers.stepper import Accuracy, Step, Stepper
from solvers.stiffness import Detector

PAYS = 0.8
"""Of the price; less must remain for a change to pay."""

BACK = 5
"""So many steps in a row must be dearer with rkl2 than with the explicit method."""

PAUSE = 50
"""Accepted steps without a look after a change that did not pay; twice as many each time."""


class Ways(NamedTuple):
    """Which method each clock takes in a step.

    Attributes:
        stiff: the clocks that run rkl2.
        stages: their plan, or None where no clock runs rkl2.
    """

    stiff: Bool[np.ndarray, " clocks"]
    stages: Int[np.ndarray, " clocks"] | None = None


class Switching(Stepper):
    """The method tsit5, and rkl2 from where stability limits the steps, clock by clock.

    A clock changes to rkl2 when three looks at its steps (see `solvers.stiffness`) find them near
    the stability interval and a unit of time cheaper with rkl2, and the spectrum, estimated then
    with at most 12 evaluations, confirms it. It changes back when five steps running cost more
    than steps of tsit5 at its stability interval would. Problems that are not stiff cost no
    evaluation more than with tsit5. Clocks of a batch change on their own; while some run tsit5
    and some rkl2, a step evaluates the field for both.

    Source:
        Changing the method by its price: Petzold, SIAM J. Sci. Stat. Comput. 4 (1983), 136.

    Example:
        >>> Switching().name, Switching().order
        ('tsit5', 5)
    """

    order = 5
    error_order: int | Int[np.ndarray, " clocks"] = 5
    adaptive = True
    fsal = True
    dense = True
    flow: Flow
    stiff: RKL2
    detector: Detector
    ways: Bool[np.ndarray, " clocks"]

    def __init__(self) -> None:
        self.plain = explicit("tsit5")
        self.name, self.stability = self.plain.name, self.plain.stability

    def __repr__(self) -> str:
        return "Switching()"

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Return a stepper that keeps the ways of this solve's clocks."""
        own = type(self)()
        clocks = flow.clocks.num_graphs
        own.flow, own.stiff = flow, RKL2().begin(flow, rows, accuracy)
        own.plain = self.plain.begin(flow, rows, accuracy)
        own.detector = Detector(flow, own.plain, accuracy, own.stiff.weight)
        own.ways = np.zeros(clocks, dtype=bool)
        own._dear, own._s = np.zeros(clocks, dtype=int), np.zeros(clocks, dtype=int)
        own._pause = np.full(clocks, PAUSE)
        own._t, own._changes = np.zeros(clocks), []
        own._refused = ""
        return own

    _dear: Int[np.ndarray, " clocks"]
    _s: Int[np.ndarray, " clocks"]
    _pause: Int[np.ndarray, " clocks"]
    _t: Float[np.ndarray, " clocks"]
    _changes: list[tuple[int, bool, str]]
    _refused: str

    def limit(self, h: Float[np.ndarray, " clocks"]) -> Float[np.ndarray, " clocks"]:
        """Cut the steps of rkl2 as it asks."""
        return np.where(self.ways, self.stiff.limit(h), h) if self.ways.any() else h

    def plan(self, f: Any, x: State, fx: State | None) -> Ways:
        """Choose a method for every clock, and the stages of rkl2."""
        assert fx is not None
        self._t = f.t + f.h
        sure = self.detector.sure & ~self.ways & (f.h != 0)
        if sure.any():
            self._consider(f, x, fx, sure)
        if not self.ways.any():
            return Ways(self.ways)
        self._s = self.stiff.choose(f.t, np.where(self.ways, f.h, 0.0), x, fx)
        return Ways(self.ways, self._s)

    def judged(
        self, step: Step, accepted: Bool[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"]
    ) -> None:
        """Look at the accepted steps: does stability limit them, does rkl2 pay?"""
        self.detector.judged(accepted & ~self.ways, h)
        if self.ways.any():
            tried = (h != 0) & self.ways
            self.stiff.radius.judged(accepted & tried, tried, step.error)
            self._look_back(accepted & tried, h)

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Ways | None = None,
    ) -> Step:
        """Advance by one step; see `Stepper.step`. Without a plan it is a step of tsit5."""
        stiff = plan is not None and plan.stiff.any()
        if not stiff:
            watched = self.detector.watch(f, h, x, fx) if error else f
            return self.plain.step(watched, h, x, fx, error=error, mid=mid)
        assert plan is not None
        going = f.h != 0
        if plan.stiff[going].all():
            return self.stiff.step(f, h, x, fx, error=error, plan=plan.stages)
        return self._both(f, h, x, fx, plan, error=error, mid=mid)

    def _both(
        self, f: Any, h: float | Tensor, x: State, fx: State, plan: Ways, *, error: bool, mid: bool
    ) -> Step:
        """Some clocks run tsit5 and some rkl2: a step of both, each with the others at rest."""
        clocks = self.flow.clocks
        share = clocks.spread(plan.stiff.astype(float), x[0])
        own, others = h * share, h * (1.0 - share)
        watched = self.detector.watch(f, others, x, fx) if error else f
        a = self.plain.step(watched, others, x, fx, error=error, mid=mid)
        b = self.stiff.step(f, own, x, fx, error=error or mid, plan=plan.stages)
        joined = Step(clocks.select(plan.stiff, b.x, a.x))
        if b.f is not None:
            assert a.f is not None
            joined.f = clocks.select(plan.stiff, b.f, a.f)
        if error:
            assert a.error is not None
            assert b.error is not None
            joined.error = clocks.select(plan.stiff, b.error, a.error)
        if mid:
            assert a.mid is not None
            assert b.f is not None
            half = hermite(0.5, own, x, fx, b.x, b.f, None)
            joined.mid = clocks.select(plan.stiff, half, a.mid)
        return joined

    def _consider(self, f: Any, x: State, fx: State, sure: Bool[np.ndarray, " clocks"]) -> None:
        """Look at the spectrum, and change where rkl2 still pays."""
        radius = self.stiff.radius
        radius.forget(sure)
        radius.update(f.t, np.where(sure, f.h, 0.0), x, fx, thorough=True)
        size, rho = np.abs(f.h), radius.radius
        with np.errstate(divide="ignore", invalid="ignore"):
            h = np.fmin(self.detector.wish, np.fmin(radius.longest, LONGEST / rho))
            pays = stages(np.nan_to_num(h * rho)) / h < PAYS * self.detector.price(size)
        go = sure & pays
        for c in np.flatnonzero(go):
            numbers = f"h rho = {size[c] * rho[c]:.2g}, interval {self.plain.stability:.2g}"
            self._changes.append((int(c), True, f"rkl2 from t={f.t[c]:.4g} ({numbers})"))
        for c in np.flatnonzero(sure & ~pays):
            self._refused = (
                f"at t={f.t[c]:.4g} steps are limited by stability (h rho = "
                f"{size[c] * rho[c]:.2g}), but eigenvalues reach |Im| = {radius.outliers[c]:.2g}, "
                "where rkl2 does not pay"
            )
        self.detector.settle(sure, np.where(go, 0, self._pause))
        self._pause = np.where(sure & ~pays, 2 * self._pause, self._pause)
        self._change(self.ways | go)

    def _look_back(
        self, accepted: Bool[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"]
    ) -> None:
        """Return to tsit5 where its longest stable steps would be cheaper."""
        rho = self.stiff.radius.radius
        with np.errstate(divide="ignore", invalid="ignore"):
            dear = self._s / h > self.detector.price(0.9 * self.plain.stability / rho)
        self._dear = np.where(accepted, np.where(dear, self._dear + 1, 0), self._dear)
        back = self.ways & (self._dear >= BACK)
        if not back.any():
            return
        for c in np.flatnonzero(back):
            numbers = f"h rho = {h[c] * rho[c]:.2g} with {self._s[c]} stages"
            self._changes.append((int(c), False, f"tsit5 from t={self._t[c]:.4g} ({numbers})"))
        self.detector.settle(back, self._pause)
        self._pause = np.where(back, 2 * self._pause, self._pause)
        self._dear = np.where(back, 0, self._dear)
        self._change(self.ways & ~back)

    def _change(self, ways: Bool[np.ndarray, " clocks"]) -> None:
        # Plans of earlier steps keep the old array.
        self.ways = ways
        self.error_order = np.where(ways, self.stiff.error_order, self.plain.error_order)
        self.stability = (self.stiff if ways.all() else self.plain).stability
        if self._changes:
            self.name = f"{self.plain.name}, {self.stiff.name}"

    def story(self) -> str:
        """When which method ran, and why."""
        if not self._changes:
            return self._refused
        clocks = len(self.ways)
        first = self._changes[0][0]
        own = [text for c, _, text in self._changes if c == first]
        more = f", and {len(own) - 4} more changes" if len(own) > 4 else ""
        text = f"steps were limited by stability: tsit5, then {', then '.join(own[:4])}{more}"
        if clocks > 1:
            changed = len({c for c, _, _ in self._changes})
            text = f"in {changed} of {clocks} graphs (the first: graph {first}) {text}"
        return f"{text}; rkl2: {self.stiff.story()}"
