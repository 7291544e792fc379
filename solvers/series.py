"""One quantity along time, with the absolute error below which its values mean nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Series:
    """A quantity `y` at times `t`, NaN where its absolute error is larger than itself.

    Attributes:
        t: Times `[points]`, or `[points, graphs]`; NaN after a graph has ended.
        y: Values of the same shape, float64; NaN below the floor. A quantity of several numbers
            has them along one more axis, `[..., parts]`.
        convention: Which formula, in words; it belongs on every axis that shows the values.
        floor: Absolute error of each value (rounding, truncation, tolerance).

    >>> t = torch.linspace(0, 2, 5, dtype=torch.float64)
    >>> decay = Series(t, torch.exp(-3 * t), "demo")
    >>> round(decay.rate(), 6), round(decay.integral(), 6) == round((1 - math.exp(-6)) / 3, 6)
    (-3.0, True)
    """

    t: Float[Tensor, "points ..."]
    y: Float[Tensor, "points ..."]
    convention: str = ""
    floor: Float[Tensor, "points ..."] = field(
        default_factory=lambda: torch.zeros((), device="cpu")
    )

    def __post_init__(self) -> None:
        """Blank the values that lie below the floor."""
        t, y, floor = (one.detach().double().cpu() for one in (self.t, self.y, self.floor))
        floor = floor.expand(y.shape)
        # Short, and in the host's memory: numpy's calls are the cheaper ones.
        values, least = y.numpy(), floor.numpy()
        shown = np.where(~(values > least) & (least > 0), np.nan, values)
        object.__setattr__(self, "t", t)
        object.__setattr__(self, "y", torch.from_numpy(shown))
        object.__setattr__(self, "floor", floor)

    def part(self, k: int) -> Series:
        """One number of a quantity of several, as a series of its own.

        Args:
            k: Which.

        Raises:
            ValueError: The quantity has one number only.

        >>> pair = Series(torch.tensor([0.0, 1.0]), torch.tensor([[3.0, 5.0], [4.0, 6.0]]))
        >>> pair.part(1).y.tolist()
        [5.0, 6.0]
        """
        if self.y.dim() == self.t.dim():
            raise ValueError("this series has one number at each time; read .y")
        return Series(self.t, self.y[..., k], self.convention, self.floor[..., k])

    def rate(
        self, start: float | None = None, end: float | None = None
    ) -> float | Float[Tensor, " graphs"]:
        """The slope of log y: least squares over the window, by default the later half of it.

        For heat flow the energy decays at -2 lambda_2 in the end. Only positive values above the
        floor are used; fewer than two of them give NaN. One number, or one per graph.

        Args:
            start: First time of the window; by default the middle of the times that have values.
            end: Last time of the window.
        """
        t, y = self._columns()
        each = [_slope(t[:, g], y[:, g], start, end) for g in range(y.shape[1])]
        slopes = torch.tensor(each, dtype=torch.float64, device="cpu")
        return float(slopes[0]) if self.y.dim() == 1 else slopes.view(self.y.shape[1:])

    def integral(self) -> float | Float[Tensor, " graphs"]:
        """The integral of y over time, exact for piecewise exponential decay; NaN values end it."""
        t, y = self._columns()
        before, after = y[:-1], y[1:]
        ratio = torch.where((before > 0) & (after > 0), after / before, torch.ones_like(after))
        log = torch.log(ratio)
        tiny = log.abs() < 1e-4
        mean = torch.where(
            tiny, (before + after) / 2, (after - before) / torch.where(tiny, 1.0, log)
        )
        area = torch.nansum(mean * (t[1:] - t[:-1]), dim=0)
        return float(area[0]) if self.y.dim() == 1 else area.view(self.y.shape[1:])

    def _columns(self) -> tuple[Tensor, Tensor]:
        """Times and values side by side, `[points, columns]`, a column for each curve."""
        own = self.t.reshape(*self.t.shape, *[1] * (self.y.dim() - self.t.dim()))
        count = len(self.y)
        return own.expand(self.y.shape).reshape(count, -1), self.y.reshape(count, -1)

    def __str__(self) -> str:
        """First and last value with the convention."""
        y = self.y.reshape(len(self.y), -1)
        if y.shape[1] > 1:
            kind = "graphs" if self.y.dim() == self.t.dim() else "curves"
            return f"{self.convention}, {y.shape[1]} {kind}, {len(y)} points each"
        good = torch.nonzero(~y[:, 0].isnan())
        if not len(good):
            return f"{self.convention}: every value lies below its floor"
        last = int(good[-1])
        text = f"{y[0, 0].item():.4g} -> {y[last, 0].item():.4g} at t={self.t[last].item():g}"
        below = "" if last == len(y) - 1 else f"; below its floor {self.floor[-1].item():.2g} after"
        return f"{text} ({self.convention}, {len(y)} points{below})"


def read(measure: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
    """What a measure says, and the absolute error it knows of (zero where it tells none).

    >>> read(lambda x: 2 * x, 1.5)
    (tensor(3.), tensor(0.))
    """
    if hasattr(measure, "reading"):
        value, floor = measure.reading(*arguments)
        return value.detach(), floor.detach()
    value = measure(*arguments)
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value, device="cpu")
    return value.detach(), torch.zeros_like(value)


def _slope(t: Tensor, y: Tensor, start: float | None, end: float | None) -> float:
    good = (y > 0) & y.isfinite() & t.isfinite()
    if not bool(good.any()):
        return math.nan
    low = (
        (t[good].min() + t[good].max()) / 2 if start is None else torch.tensor(start, device="cpu")
    )
    good &= t >= low - 1e-12 * low.abs()
    if end is not None:
        good &= t <= end
    t, log = t[good], y[good].log()
    if len(t) < 2 or float(t.max() - t.min()) == 0.0:
        return math.nan
    t = t - t.mean()
    return float((t @ (log - log.mean())) / (t @ t))
