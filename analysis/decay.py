"""How fast a series decays, and by which law: exponential against algebraic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from solvers.series import Series

LEAST = 6
"""Values that a fit of three parameters needs at least."""

USUAL = 12
"""Values that the window holds by default where there are so many: slow decay takes long steps."""

RESOLUTION = 1e-6
"""Relative differences that no law is asked to explain: solvers leave such behind."""

SHIFTS = 1e-3, 1e3
"""Range of the shift of a power law, in lengths of the window."""

Values = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Law:
    """One fitted law of decay.

    Attributes:
        name: "exponential", y = level e^(-rate (t - start)), or "power",
            y = level ((t - origin) / (start - origin))^(-rate).
        rate: Decay rate, or exponent of the power.
        error: Its standard error, from the scatter around the law.
        level: The value at the start of the window.
        start: First time of the window.
        origin: Where the power law would be infinite; minus infinity for the exponential one.
        r2: Share of the variance of log y that the law explains.
        aic: Akaike's criterion; smaller is better, differences below 6 say little.

    >>> Law("power", 2.0, 0.0, 3.0, 1.0, 0.0, 1.0, 0.0)(torch.tensor([1.0, 2.0])).tolist()
    [3.0, 0.75]
    """

    name: str
    rate: float
    error: float
    level: float
    start: float
    origin: float
    r2: float
    aic: float

    def __call__(self, t: Float[torch.Tensor, " points"]) -> Float[torch.Tensor, " points"]:
        """The law at some times."""
        if self.name == "exponential":
            return self.level * torch.exp(-self.rate * (t - self.start))
        return self.level * ((t - self.origin) / (self.start - self.origin)) ** -self.rate


@dataclass(frozen=True)
class Decay:
    """Both laws, fitted to the same window.

    Attributes:
        exponential: y = C e^(-r t): the survey's C2 is r.
        power: y = C (t - t0)^(-p), t0 before the window.
        start: First time of the window.
        end: Last one.
        points: Values used.
        drop: Natural logarithm of the ratio of the first to the last value of the window.
        wander: Standard error of the rate where log y wanders about the law by independent
            increments, as in networks with new weights in every layer.

    >>> t = torch.linspace(1, 9, 33, dtype=torch.float64)
    >>> found = fit_decay(Series(t, t**-2.0), start=1.0)
    >>> found.law.name, round(found.power.rate, 2), round(found.steadiness, 2)
    ('power', 2.0, 0.11)
    """

    exponential: Law
    power: Law
    start: float
    end: float
    points: int
    drop: float
    wander: float

    @property
    def evidence(self) -> float:
        """AIC of the power law minus that of the exponential: above 0 speaks for exponential."""
        return self.power.aic - self.exponential.aic

    @property
    def steadiness(self) -> float:
        """The relative rate -d log y / dt of the power law at the end over that at the start.

        1 for exponential decay, 1/2 for t^(-p) on the later half of an interval from 0.
        """
        return (self.start - self.power.origin) / (self.end - self.power.origin)

    @property
    def error(self) -> float:
        """The standard error of the exponential rate, whether log y scatters or wanders."""
        return max(self.exponential.error, self.wander)

    @property
    def slowing(self) -> float:
        """By how much the power law's rate is smaller in the later half, in standard errors.

        The errors are those of independent increments: a curve that wanders bends now and then.
        """
        middle = (self.start + self.end) / 2 - self.power.origin
        ends = self.start - self.power.origin, self.end - self.power.origin
        early, late = math.log(middle / ends[0]), math.log(ends[1] / middle)
        change = self.power.rate * (early - late) / ((self.end - self.start) / 2)
        return change / (2 * self.wander) if self.wander > 0 else math.copysign(math.inf, change)

    @property
    def law(self) -> Law:
        """The law with the smaller AIC."""
        return self.exponential if self.evidence >= 0 else self.power

    def __str__(self) -> str:
        """The better law in words."""
        law = self.law
        form = "e^(-r t), r" if law.name == "exponential" else "(t - t0)^(-p), p"
        return (
            f"{form} = {law.rate:.4g} +- {law.error:.2g} on [{self.start:g}, {self.end:g}], "
            f"R2 {law.r2:.4f}, AIC of power minus exponential {self.evidence:.3g}"
        )


def fit_decay(series: Series, start: float | None = None, end: float | None = None) -> Decay:
    """Fit y = C e^(-r t) and y = C (t - t0)^(-p) to a series, by least squares on log y.

    Values count by the time they stand for (half the way to both neighbours), so that a stretch of
    small steps weighs no more than another. The origin t0 of the power law is chosen as well; far
    away it would imitate an exponential, for which Akaike's criterion makes it pay a parameter.

    Args:
        series: One curve; NaN values (below the floor) are left out.
        start: First time of the window; by default the middle of the times that have values (or
            the twelfth value from the end), so that what dies out first plays no part.
        end: Last time of the window.

    Raises:
        ValueError: For a batch, and for fewer than six positive values in the window.

    References:
        Rusch, Bronstein and Mishra, A survey on oversmoothing in graph neural networks, 2023,
        arXiv:2303.10993 (exponential decay is part of the definition); Akaike, IEEE Trans.
        Automat. Control 19 (1974), 716.

    >>> t = torch.linspace(0, 4, 41, dtype=torch.float64)
    >>> found = fit_decay(Series(t, 5 * torch.exp(-2 * t)))
    >>> found.law.name, round(found.law.rate, 6), found.start
    ('exponential', 2.0, 2.0)
    """
    if series.y.dim() > 1:
        raise ValueError(
            f"this series holds {series.y.shape[1]} graphs; fit one curve: Series(t[:, g], y[:, g])"
        )
    good = series.y.isfinite() & (series.y > 0) & series.t.isfinite()
    t, y = series.t[good].numpy(), series.y[good].numpy()
    if len(t):
        low = min((t[0] + t[-1]) / 2, t[-USUAL:][0]) if start is None else start
        high = t[-1] if end is None else end
        keep = (t >= low - 1e-12 * abs(low)) & (t <= high + 1e-12 * abs(high))
        t, y = t[keep], y[keep]
    if len(t) < LEAST or t[0] == t[-1]:
        raise ValueError(
            f"the window holds {len(t)} positive values above the floor, a fit needs {LEAST}; "
            "start it earlier, save more times, or use error_scale='deviation' to lower the floor"
        )
    log, weight = np.log(y), _shares(t)
    length = float(t[-1] - t[0])

    def power(log_shift: float) -> Law:
        return _line("power", t, log, weight, float(t[0]) - math.exp(log_shift) * length)

    bounds = math.log(SHIFTS[0]), math.log(SHIFTS[1])
    best = minimize_scalar(lambda s: power(s).aic, bounds=bounds, method="bounded")
    exponential, algebraic = _line("exponential", t, log, weight, -math.inf), power(best.x)
    steps = np.diff(log - np.log(algebraic(torch.from_numpy(t)).numpy()))
    wander = math.sqrt(float(np.mean(steps**2 / np.diff(t))) / length)
    drop = float(log[0] - log[-1])
    return Decay(exponential, algebraic, float(t[0]), float(t[-1]), len(t), drop, wander)


def _shares(t: Values) -> Values:
    """The time that each value stands for, one on average."""
    gaps = np.diff(t)
    shares = np.concatenate([gaps[:1], gaps[:-1] + gaps[1:], gaps[-1:]]) / 2
    scaled: Values = shares * len(t) / shares.sum()
    return scaled


def _line(name: str, t: Values, log: Values, weight: Values, origin: float) -> Law:
    """Weighted least squares log y = log level - rate u, u the time or its logarithm."""
    far = origin == -math.inf
    u = t - t[0] if far else np.log((t - origin) / (t[0] - origin))
    count, parameters = len(u), 2 if far else 3
    mean_u, mean_log = np.average(u, weights=weight), np.average(log, weights=weight)
    du, dlog = u - mean_u, log - mean_log
    spread = float(weight @ du**2)
    slope = float(weight @ (du * dlog)) / spread
    residual = float(weight @ (dlog - slope * du) ** 2)
    total = float(weight @ dlog**2)
    variance = residual / count + RESOLUTION**2
    return Law(
        name,
        -slope,
        math.sqrt(residual / (count - 2) / spread),
        math.exp(mean_log - slope * mean_u),
        float(t[0]),
        origin,
        1.0 - residual / total if total > 0 else 0.0,
        count * math.log(variance) + 2 * parameters,
    )
