"""Who chooses the steps: an error controller, or a grid known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from solvers.control import Control, error_ratio, initial_step
from solvers.flow import Flow
from solvers.masks import every, some
from solvers.rows import Rows, State
from solvers.stepper import Step, Stepper

Deviation = Callable[[State], State]


class Sizes:
    """Errors in units of what is allowed, in buffers that are used again.

    Fresh memory for every step would cost as much as the arithmetic.

    Args:
        x: a state.
        rtol: relative tolerance.
        atol: absolute tolerance.
    """

    def __init__(self, x: State, rtol: float, atol: float) -> None:
        self.rtol, self.new = rtol, tuple(part.detach() for part in x)
        self._before, self._after, self._work = (
            [part.abs() for part in self.new] for _ in ("before", "after", "work")
        )
        real = self._work[0]
        self._atol = real.new_tensor(max(atol, torch.finfo(real.dtype).tiny))

    def scaled(self, error: State, x: State, new: State) -> State:
        """Error / (atol + rtol max(|x|, |new|)); the next call writes to it again."""
        if x is self.new:
            # The new state of the last step: its size is known.
            self._before, self._after = self._after, self._before
        else:
            for part, size in zip(x, self._before, strict=True):
                torch.abs(part, out=size)
        for e, part, before, after, work in zip(
            error, new, self._before, self._after, self._work, strict=True
        ):
            torch.maximum(before, torch.abs(part, out=after), out=work)
            torch.add(self._atol, work, alpha=self.rtol, out=work)
            # The sign of a real error does not matter to its square.
            torch.div(e if e.dtype is work.dtype else e.abs(), work, out=work)
        self.new = new
        return tuple(self._work)


@dataclass
class Adaptive:
    """Steps from an error estimate: RMS of error / (atol + rtol scale) per graph, at most 1.

    Args:
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        control: The controller.
        deviation: Maps a state to the part that the error is compared with; None: the state.
    """

    rtol: float
    atol: float
    control: Control = field(default_factory=Control)
    deviation: Deviation | None = None
    adaptive = True
    _h: np.ndarray = field(init=False, repr=False)
    _history: Any = field(init=False, repr=False)
    _sizes: Sizes | None = field(init=False, default=None, repr=False)
    _first: np.ndarray | None = field(init=False, default=None, repr=False)

    def start(
        self,
        flow: Flow,
        t: np.ndarray,
        end: np.ndarray,
        x: State,
        fx: State,
        stepper: Stepper,
        rows: Rows,
    ) -> None:
        """Choose the first step of every clock (Hairer, Norsett, Wanner I, II.4)."""
        first = initial_step(
            lambda h, y: flow(t + h, y),
            x,
            fx,
            stepper.error_order,
            self.rtol,
            self.atol,
            flow.clocks,
            end - t,
        )
        # Time has to see the first step.
        self._h = np.maximum(np.abs(first), np.minimum(4 * _finest(t, end), np.abs(end - t)))
        self._history = self.control.start(len(t))
        if self.deviation is not None:
            with torch.no_grad():
                self._first = rows.mean_squares(self.deviation(x))

    def propose(self, left: np.ndarray) -> np.ndarray:
        """The size of the next step, given the way that is left; it lands when that is near.

        A way between one and two steps is halved: a short last step would leave the noise of the
        step before it undamped.
        """
        h = self._h
        if every(left > 2.0 * h):
            return h
        return np.where(left <= 1.01 * h, left, np.where(left < 2.0 * h, left / 2, h))

    def ratio(self, x: State, step: Step, rows: Rows) -> np.ndarray:
        """The error of a step in units of the tolerance, one number per graph."""
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self.ratio(x, step, rows)
        assert step.error is not None
        if self.deviation is not None:
            scale = self._deviation_scale(x, step.x, rows)
            return error_ratio(step.error, scale, rows).cpu().numpy()
        if self._sizes is None:
            self._sizes = Sizes(x, self.rtol, self.atol)
        scaled = self._sizes.scaled(step.error, x, step.x)
        ratio: np.ndarray = np.sqrt(rows.mean_squares(scaled))
        return ratio

    def _deviation_scale(self, x: State, new: State, rows: Rows) -> State:
        # atol shrinks with the deviation itself: a fixed one would drown what is left near
        # consensus. Rounding of the whole state is the floor; no step size gets below it.
        assert self.deviation is not None
        assert self._first is not None
        before, after = self.deviation(x), self.deviation(new)
        now, first = rows.mean_squares(before), self._first
        size = np.sqrt(rows.mean_squares(x))
        left = np.sqrt(np.divide(now, first, out=np.ones_like(now), where=first > 0))
        finfo = torch.finfo(x[0].dtype)
        atol = self.atol * np.minimum(left, 1.0)
        atol = np.maximum(atol, 8 * finfo.eps * size + finfo.tiny)
        return tuple(
            torch.maximum(a.abs(), b.abs()) * self.rtol + rows.spread(atol, a)
            for a, b in zip(before, after, strict=True)
        )

    def judge(
        self, ratio: np.ndarray, h: np.ndarray, going: np.ndarray, order: int | np.ndarray
    ) -> np.ndarray:
        """Accept or reject the steps of sizes h per clock, and choose the next sizes."""
        accepted: np.ndarray = ratio <= 1.0
        size = h * self.control.factor(ratio, order, self._history)
        cut = accepted & (h < self._h)
        if some(cut):
            # A step cut short to land on a saved time says little about the next one.
            size = np.where(cut, np.maximum(size, self._h), size)
        if every(going):
            self._h = size
            return accepted
        self._h = np.where(going, size, self._h)
        accepted &= going
        return accepted

    def stuck(self, t: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Clocks whose next step is lost in the rounding of their time."""
        lost: np.ndarray = self._h <= 2 * _finest(t, end)
        return lost

    def recover(self, clocks: np.ndarray, t: np.ndarray, end: np.ndarray) -> None:
        """Let these clocks start anew, after the graphs that held them up have ended."""
        self._h = np.where(clocks, np.abs(end - t) * 1e-3, self._h)


def _finest(t: np.ndarray, end: np.ndarray) -> np.ndarray:
    finest: np.ndarray = np.spacing(np.maximum(np.abs(t), np.abs(end) * 1e-12))
    return finest


@dataclass
class Fixed:
    """Steps from a grid known beforehand, one per clock.

    Args:
        grid: `[points, clocks]` times, each column from its start to its end; a column that needs
            fewer points repeats its end.
    """

    grid: np.ndarray
    adaptive = False
    rtol: float = 0.0
    atol: float = 0.0

    def __post_init__(self) -> None:
        """Stand at the first point."""
        self._next = np.ones(self.grid.shape[1], dtype=int)

    def ahead(self) -> np.ndarray:
        """The points that the next steps lead to."""
        points: np.ndarray = self.grid[
            np.minimum(self._next, len(self.grid) - 1), np.arange(self.grid.shape[1])
        ]
        return points

    def propose(self, left: np.ndarray) -> np.ndarray:
        """The way to the next point of the grid."""
        at = np.minimum(self._next, len(self.grid) - 1)
        clocks = np.arange(self.grid.shape[1])
        size: np.ndarray = np.abs(self.grid[at, clocks] - self.grid[at - 1, clocks])
        return size

    def landed(self, going: np.ndarray) -> np.ndarray:
        """The points just reached; the clocks move on to the next ones."""
        at = np.minimum(self._next, len(self.grid) - 1)
        self._next = self._next + going
        return self.grid[at, np.arange(len(at))]
