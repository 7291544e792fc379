"""Stabilised explicit steps for diffusion: as many stages as stability asks for, order two."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.flow import Flow
from solvers.legendre import Stage, reach, recurrence, stages
from solvers.radius import Radius
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper

LARGEST = 201
"""Most stages of an adaptive step: beyond, rounding (about s^1.5 eps) and lost steps grow dear."""

LONGEST = float(reach(LARGEST))
"""The h rho of an adaptive step at most."""

Stages = Int[np.ndarray, " clocks"]


class RKL2(Stepper):
    """The stabilised Runge-Kutta-Legendre method of order two, for nonlinear diffusion.

    An explicit method whose number of stages s follows from the step: with
    ``h rho <= (s^2+s-2)/2``, rho the spectral radius of the field's Jacobian, every damped mode
    is damped. A unit of time costs ``s/h``, about ``sqrt(2 rho/h)`` evaluations instead of the
    ``1.8 rho`` of explicit methods; there is nothing to solve. The error estimate is
    ``0.8 (x_n - x_{n+1}) + 0.4 h (F_n + F_{n+1})``, times ``sqrt(1e-3 / rtol)`` below rtol = 1e-3:
    local errors of size tol^(3/2) keep the global error proportional to tol (Soderlind and Wang,
    J. Comput. Appl. Math. 185 (2006)), which costs 1.2 times the work at 1e-4. Every graph with
    its own clock has its own number of stages.

    Eigenvalues should be real or nearly so, in the direction of time negative: the method is
    stable up to |Im h lambda| of about 2 at Re -1, 3 at -5 and 7 at -10, whatever s. Steps that
    known eigenvalues would make unstable are cut, and `story` says so. Backward in time diffusion
    grows; then the method is an ordinary one with 3 stages, no worse and no better.

    Args:
        radius: the spectral radius, if you know it; else it is bounded or estimated.

    Source:
        Meyer, Balsara, Aslam, J. Comput. Phys. 257 (2014), section 3; the estimate: Sommeijer,
        Shampine, Verwer, J. Comput. Appl. Math. 88 (1998), eq. 2.10.

    Example:
        >>> x = (torch.tensor(1.0, dtype=torch.float64),)
        >>> f = lambda c, x: (-4.0 * x[0],)
        >>> RKL2().step(f, 0.5, x, f(0.0, x), plan=np.array([3])).x[0].item()
        0.466667
    """

    name = "rkl2"
    order = 2
    error_order = 3
    adaptive = True
    fsal = True
    dense = True
    radius: Radius
    free: bool
    used: _Used
    weight: float = 1.0

    def __init__(self, radius: float | None = None) -> None:
        if radius is not None and not 0 < radius < np.inf:
            raise ValueError(f"radius is {radius}; give a positive number, or None to estimate it")
        self.known = radius

    def __repr__(self) -> str:
        return f"RKL2(radius={self.known!r})" if self.known else "RKL2()"

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Return a stepper that watches the radius of this solve."""
        own = copy(self)
        own.radius = Radius(flow, self.known)
        own.free = accuracy.rtol is not None
        own.weight = _weight(accuracy)
        own.used = _Used()
        return own

    def limit(self, h: Float[np.ndarray, " clocks"]) -> Float[np.ndarray, " clocks"]:
        """Cut steps to 201 stages and to the region; and where fewer stages pay for it."""
        radius = self.radius.radius
        if not self.free or np.isnan(radius).all():
            return h
        with np.errstate(invalid="ignore", divide="ignore"):
            most = np.fmin(self.radius.longest, LONGEST / radius)
            cut = np.fmin(h, most)
            s = stages(np.nan_to_num(cut * radius))
            shorter = reach(np.maximum(s - 2, 3)) / radius * (1 - 1e-12)
            pays = (s > 3) & (cut * (s - 2) < shorter * s)
        self.used.cut += most < h
        chosen: Float[np.ndarray, " clocks"] = np.where(pays, shorter, cut)
        return chosen

    def plan(self, f: Any, x: State, fx: State | None) -> Stages:
        """Choose the numbers of stages of the clocks."""
        assert fx is not None
        return self.choose(f.t, f.h, x, fx)

    def choose(
        self, t: Float[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"], x: State, fx: State
    ) -> Stages:
        """Find the numbers of stages for steps ``h``; clocks with a step of 0 take no part."""
        self.radius.update(t, h, x, fx)
        s = stages(np.abs(h) * np.nan_to_num(self.radius.radius))
        self.used.note(s, h, self.radius.radius)
        return s

    def judged(
        self, step: Step, accepted: Bool[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"]
    ) -> None:
        """Count the steps since the last look at the radius."""
        self.radius.judged(accepted, h != 0, step.error)

    def story(self) -> str:
        """What the steps were like."""
        return self.used.told(self.radius)

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Stages | None = None,
    ) -> Step:
        """Advance by one step.

        Args:
            f: the field inside the step: ``f(c, x)`` is its value at ``t + c h``; c is an array
                where the clocks' stages differ.
            h: the step, negative for backward: a number, or a tensor with one value per row.
            x: the state at ``t``.
            fx: the field there, ``f(0, x)``.
            error: whether to estimate the error, which evaluates the field at the new state.
            mid: nothing: cubic interpolation is good enough.
            plan: the numbers of stages, from `plan`.

        Returns:
            The new state, with error and slope if asked for.

        Raises:
            ValueError: without a plan.
        """
        if plan is None:
            raise ValueError("a step of rkl2 needs its number of stages: plan=np.array([s]), s odd")
        new = self._stages(f, h, x, fx, plan)
        if not error:
            return Step(new)
        slope = f(1.0, new)
        return Step(new, local_error(h, x, new, fx, slope, self.weight), slope)

    @staticmethod
    def _stages(f: Any, h: float | Tensor, x: State, fx: State, s: Stages) -> State:
        own = len(s) > 1 and bool((s != s[0]).any())
        width = 4.0 / (s * s + s - 2.0)
        sums = []
        for part, slope in zip(x, fx, strict=True):
            spread = f.flow.clocks.spread(width, part) if own else float(width[0])
            sums.append(_Sum(part, slope, _fit(h, part) * spread))
        now = tuple(one.first() for one in sums)
        for j, stage in enumerate(recurrence(int(s.max())), start=2):
            node = np.minimum(stage.node * width, 1.0) if own else stage.node * float(width[0])
            slope = f(node, now)
            new = tuple(one.next(stage, F) for one, F in zip(sums, slope, strict=True))
            # A graph whose own stages are done waits for the others.
            now = f.flow.clocks.select(s >= j, new, now) if own else new
        return now


class _Sum:
    """The stages of one part of the state: differences from the start, in two buffers."""

    def __init__(self, x: Tensor, slope: Tensor, k: float | Tensor) -> None:
        self.x, self.k = x, k
        self.slope = slope if isinstance(k, float) else slope * k
        self.before: Tensor | None = None
        self.now = slope * (k / 3)

    def first(self) -> Tensor:
        return self.x + self.now

    def next(self, stage: Stage, slope: Tensor) -> Tensor:
        """The next stage, given the field at the last one."""
        if self.before is None:
            total = self.now * stage.blend
        elif torch.is_grad_enabled():
            total = torch.lerp(self.before, self.now, stage.blend)
        else:
            total = torch.lerp(self.before, self.now, stage.blend, out=self.before)
        # Nobody has saved this sum for a backward pass: safe in place.
        if isinstance(self.k, float):
            total.add_(slope, alpha=self.k * stage.slope)
            total.add_(self.slope, alpha=-self.k * stage.slope * stage.first)
        else:
            total.addcmul_(self.k, slope, value=stage.slope)
            total.add_(self.slope, alpha=-stage.slope * stage.first)
        self.before, self.now = self.now, total
        return torch.add(self.x, total, alpha=stage.scale)


def _fit(h: float | Tensor, like: Tensor) -> float | Tensor:
    if not isinstance(h, Tensor) or not h.dim():
        return h
    return h.reshape(-1, *[1] * (like.dim() - 1))


def local_error(
    h: float | Tensor, x: State, new: State, fx: State, slope: State, weight: float = 1.0
) -> State:
    """Estimate the local error of a step of `RKL2` from its ends, without gradient.

    Of any other step it says what rkl2 would make of it.

    Args:
        h: the step.
        x: the state before it.
        new: the state after it.
        fx: the field before it.
        slope: the field after it.
        weight: factor of the estimate.

    Example:
        >>> x, y, f, g = ((torch.tensor(v),) for v in (0.0, 1.0, 3.0, 3.0))
        >>> round(local_error(0.5, x, y, f, g)[0].item(), 6)
        0.4
    """
    with torch.no_grad():
        error = []
        for a, b, F, G in zip(x, new, fx, slope, strict=True):
            part = torch.add(F, G).mul_(_fit(h, F)).mul_(0.4 * weight)
            error.append(part.add_(a, alpha=0.8 * weight).sub_(b, alpha=0.8 * weight))
        return tuple(error)


def _weight(accuracy: Accuracy) -> float:
    tolerance = max(accuracy.rtol or 0.0, accuracy.atol or 0.0)
    return max(1.0, float((1e-3 / tolerance) ** 0.5)) if tolerance else 1.0


@dataclass
class _Used:
    """What steps were like, for the report."""

    fewest: int = 10**9
    most: int = 0
    radii: list[float] = field(default_factory=lambda: [np.inf, 0.0])
    cut: Any = 0

    def note(
        self, s: Stages, h: Float[np.ndarray, " clocks"], radius: Float[np.ndarray, " clocks"]
    ) -> None:
        """Remember the stages and the radii of the clocks that move."""
        going = h != 0
        if not going.any():
            return
        self.fewest = min(self.fewest, int(s[going].min()))
        self.most = max(self.most, int(s[going].max()))
        low, high = radius[going].min(), radius[going].max()
        self.radii = [min(self.radii[0], float(low)), max(self.radii[1], float(high))]

    def told(self, radius: Radius) -> str:
        """The report."""
        if not self.most:
            return ""
        low, high = self.radii
        span = f"{high:.3g}" if high < 1.05 * low else f"{low:.3g} to {high:.3g}"
        counts = f"{self.fewest} to {self.most}" if self.fewest < self.most else f"{self.most}"
        text = f"{counts} stages, spectral radius {span}"
        if radius.spent:
            text += f" ({radius.spent} evaluations to know it)"
        if np.any((np.asarray(self.cut) > 0) & np.isfinite(radius.longest)):
            text += (
                f"; steps were cut to h = {radius.longest.min():.3g} because eigenvalues reach "
                f"|Im| = {radius.outliers.max():.3g}, outside the region of rkl2"
            )
        if radius.growth.max(initial=0.0) > 0.5 * high:
            text += (
                f"; modes grow by up to e^({radius.growth.max():.3g} t) in this direction of time"
            )
        return text
