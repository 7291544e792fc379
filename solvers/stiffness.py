"""Seeing that stability limits an explicit method, and what rkl2 would cost instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.control import error_ratio, tolerance_scale
from solvers.explicit import ExplicitRungeKutta, combine
from solvers.flow import Flow
from solvers.legendre import stages
from solvers.rows import State
from solvers.spectrum import inner, norm
from solvers.stabilised import local_error
from solvers.stepper import Accuracy

EVERY = 8
"""Accepted steps between two looks: a look costs about ten passes over the state."""

NEAR = 0.6
"""From this part of the stability interval on, steps count as limited, and each is looked at."""

SURE = 3
"""So many looks must find that rkl2 pays."""

TRIAL = 10
"""After so many limited steps rkl2 is tried even where its price seems too high: the noise that
stiff modes keep up at the stability limit, which rkl2 damps, makes its error look larger."""

ASTRAY = 0.7
"""``|h (F_n + F_{n+1}) / 2 - d| / |d|`` of a step d: at most 0.4 where accuracy limits it, above 1
where large slopes lead nowhere, as on nodes that explicit steps make hop about."""

HOPE = 4.0
"""How much longer its steps may then turn out to be."""

PAYS = 0.8
"""Of the price; less must remain for a change to pay."""

AGAINST = 0.1
"""Cosine between what a mode does and where it is, beyond which it is damped, not turned."""

MARGIN = 1.2
"""The radius seen in a step is one from below."""


class Detector:
    """Looks at the steps of an explicit method whose last two stages are both at their ends.

    With ``dk = k_s - k_{s-1}`` and ``dx = x_s - x_{s-1}``, the ratio ``rho = |dk|^2 / |<dk, dx>|``
    is the Jacobian's size along a direction in which stiff modes prevail when they limit the step.
    It never exceeds the radius of a symmetric definite Jacobian, and is larger than Hairer's
    ``|dk| / |dx|``, which misses one hub among thousands of nodes. Where dk does not point against
    dx (growth, rotation), nothing is concluded. The ends of the step also tell how large the
    error of rkl2 would be, so how long its steps, and with ``h rho`` its price per unit of time,
    s / h. No evaluation is spent.

    Args:
        flow: the field on its clocks.
        method: the explicit method.
        accuracy: the tolerances.
        weight: rkl2's factor of its error estimate.

    Attributes:
        hits: looks that found that rkl2 pays, less those that did not.
        limited: looks that found that stability limits the step, less those that did not.
        wish: the steps that rkl2 would take.

    Source:
        After Hairer and Wanner, Solving Ordinary Differential Equations II (1996), IV.2.

    Example:
        >>> from solvers.explicit import explicit
        >>> from solvers.rows import Rows
        >>> flow = Flow(lambda t, x: x, Rows(), torch.ones(1))
        >>> Detector(flow, explicit("tsit5"), Accuracy(1e-3, 1e-6)).price(np.array([0.5])).tolist()
        [12.0]
    """

    def __init__(
        self, flow: Flow, method: ExplicitRungeKutta, accuracy: Accuracy, weight: float = 1.0
    ) -> None:
        clocks = flow.clocks.num_graphs
        self.flow, self.accuracy, self.weight = flow, accuracy, weight
        self.evaluations, self.interval = method.stages - 1, method.stability
        self.hits, self.limited = np.zeros(clocks, dtype=int), np.zeros(clocks, dtype=int)
        self.wish = np.zeros(clocks)
        self._since, self._pause = np.zeros(clocks, dtype=int), np.zeros(clocks, dtype=int)
        self._seen: _Seen | None = None
        self._sign = np.ones(clocks)

    @property
    def sure(self) -> Bool[np.ndarray, " clocks"]:
        """The clocks for which rkl2 pays, as far as steps show."""
        return (self.hits >= SURE) | (self.limited >= TRIAL)

    def price(self, h: Float[np.ndarray, " clocks"]) -> Float[np.ndarray, " clocks"]:
        """Evaluations of the explicit method per unit of time."""
        with np.errstate(divide="ignore"):
            return self.evaluations / h

    def settle(
        self, clocks: Bool[np.ndarray, " clocks"], pause: Int[np.ndarray, " clocks"]
    ) -> None:
        """Start afresh for these clocks, after so many accepted steps."""
        self.hits = np.where(clocks, 0, self.hits)
        self.limited = np.where(clocks, 0, self.limited)
        self._pause = np.where(clocks, pause, self._pause)
        self._since = np.where(clocks, 0, self._since)

    def watch(self, f: Any, h: float | Tensor, x: State, fx: State) -> Any:
        """The field inside the next step, watched if somebody will look at it."""
        self._sign = np.sign(f.h)
        due = (self._pause == 0) & ((self._since >= EVERY - 1) | (self.limited > 0))
        self._seen = _Seen(f, h, x, fx) if due.any() else None
        return f if self._seen is None else self._seen

    def judged(
        self, accepted: Bool[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"]
    ) -> None:
        """Look at the accepted steps that are due."""
        self._since = self._since + accepted
        look = accepted & (self._pause == 0) & ((self._since >= EVERY) | (self.limited > 0))
        self._pause = np.maximum(self._pause - accepted, 0)
        if self._seen is not None and look.any():
            with torch.no_grad():
                self._look(self._seen, look, h)
        self._seen = None

    def _look(
        self,
        seen: _Seen,
        look: Bool[np.ndarray, " clocks"],
        h: Float[np.ndarray, " clocks"],
    ) -> None:
        clocks = self.flow.clocks
        (x6, k6), (new, slope) = seen.ends
        bend = combine(None, 1.0, (1.0, -1.0), (slope, k6))
        way = combine(None, 1.0, (1.0, -1.0), (new, x6))
        size, damped = inner(clocks, bend, bend), -self._sign * inner(clocks, bend, way)
        against = damped > AGAINST * np.sqrt(size * inner(clocks, way, way))
        rho = np.divide(size, damped, out=np.zeros_like(size), where=against)
        error = local_error(seen.h, seen.x, new, seen.fx, slope, self.weight)
        moved = norm(clocks, combine(None, 1.0, (1.0, -1.0), (new, seen.x)))
        defect = norm(clocks, error) / np.maximum(0.8 * self.weight * moved, 1e-300)
        limited = look & ((h * rho >= NEAR * self.interval) | (defect >= ASTRAY))
        pays = np.zeros_like(limited)
        if limited.any():
            accuracy = self.accuracy
            scale = tolerance_scale(seen.x, new, accuracy.rtol or 0.0, accuracy.atol or 0.0)
            ratio = error_ratio(error, scale, clocks).cpu().numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                wish = h * np.clip(0.9 * ratio ** (-1 / 3), 0.2, 10.0)
                # Steps that are limited by stability are about as long as the interval.
                length = MARGIN * wish * np.maximum(rho, self.interval / h)
                pays = limited & (stages(np.nan_to_num(length)) / wish < PAYS * self.price(h))
            self.wish = np.where(look, np.where(pays, wish, HOPE * h), self.wish)
        self.hits = _counted(self.hits, look, pays)
        self.limited = _counted(self.limited, look, limited)
        self._since = np.where(look, 0, self._since)


def _counted(
    count: Int[np.ndarray, " clocks"],
    look: Bool[np.ndarray, " clocks"],
    found: Bool[np.ndarray, " clocks"],
) -> Int[np.ndarray, " clocks"]:
    return np.where(look, np.where(found, count + 1, np.maximum(count - 1, 0)), count)


class _Seen:
    """The field inside a step, with a memory of the step's start and of its last two stages."""

    def __init__(self, f: Any, h: float | Tensor, x: State, fx: State) -> None:
        self.f, self.h, self.x, self.fx = f, h, x, fx
        self.ends: list[tuple[State, State]] = []

    def __call__(self, c: float, x: State) -> State:
        slope: State = self.f(c, x)
        self.ends = [*self.ends[-1:], (x, slope)]
        return slope
