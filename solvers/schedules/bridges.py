"""Schedules of Brownian bridges in closed form: quantiles of what the entropy travels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, logit

from solvers.schedules.schedule import ClosedForm, Fractions


@dataclass(frozen=True)
class BridgeEntropy(ClosedForm):
    """Quantiles of |dI/dt|, I what the state of a bridge between Gaussians tells of its ends.

    With s0, s1 the standard deviations of the ends, c their covariance, sigma the noise and
    ``x = log(t s1 / ((1 - t) s0))``, the information of the state about both ends is, per number,
    ``I = log(1 + (2c + 2 s0 s1 cosh x) / sigma^2) / 2``. It falls until t* = s0 / (s0 + s1), where
    x = 0, and rises again; it is infinite at both ends, so the quantiles are those between eps and
    1 - eps, and the ends are then moved to 0 and 1. The step that ends or begins at t* is long:
    the rate vanishes there. These are the literal quantiles; :class:`Density` tempers them.

    With ``sigma^2 + 2c = 2 s0 s1`` and s0 = s1 the marginal entropy is constant, and the grid is
    that of the conditional entropy alone: equal steps of log(t (1 - t)), half of them on each side.

    Args:
        s0: standard deviation of the source.
        s1: standard deviation of the target.
        sigma: noise of the bridge.
        c: covariance of the ends.
        eps: where the ends are cut, above 0 and below s0 / (s0 + s1) and s1 / (s0 + s1).

    Raises:
        ValueError: for other numbers.

    Example:
        >>> BridgeEntropy(eps=0.01).grid(10).round(4)[1:6].tolist()
        [0.0202, 0.0407, 0.0826, 0.1712, 0.5]
    """

    s0: float = 1.0
    s1: float = 1.0
    sigma: float = 1.0
    c: float = 0.0
    eps: float = 0.02
    name: ClassVar[str] = "bridge_entropy"

    def __post_init__(self) -> None:
        """Refuse ends without a law, and cuts beyond the turning point."""
        if not (self.s0 > 0 and self.s1 > 0 and self.sigma > 0):
            raise ValueError(f"{self}: s0, s1 and sigma must be positive")
        if not abs(self.c) <= self.s0 * self.s1:
            raise ValueError(f"{self}: a covariance is at most s0 s1 = {self.s0 * self.s1:g}")
        turn = min(self.s0, self.s1) / (self.s0 + self.s1)
        if not 0 < self.eps < turn:
            raise ValueError(f"{self}: eps must lie between 0 and {turn:g}")

    def at(self, q: Fractions) -> Fractions:
        """The time before which a fraction q of the way is gone, down and up."""
        lean = np.log(self.s1 / self.s0)
        down = self._depth(logit(self.eps) + lean)
        up = self._depth(-logit(self.eps) + lean)
        # What remains to t*, negative behind it; both ends weighted alike, so that q = 1/2 of a
        # symmetric bridge is t* exactly: the inverse is not smooth there.
        left = down * (1 - q) - up * q
        x = 2 * np.arcsinh(np.sqrt((self._flat + 1) * np.expm1(2 * np.abs(left)) / 2))
        return np.asarray(expit(-np.sign(left) * x - lean))

    @property
    def _flat(self) -> float:
        return (self.sigma**2 + 2 * self.c) / (2 * self.s0 * self.s1)

    def _depth(self, x: float) -> float:
        """I(x) - I(0), per number."""
        return float(0.5 * np.log1p(2 * np.sinh(x / 2) ** 2 / (self._flat + 1)))

    def reverse(self) -> BridgeEntropy:
        """The bridge from target to source."""
        return BridgeEntropy(self.s1, self.s0, self.sigma, self.c, self.eps)


@dataclass(frozen=True)
class BridgeSpread(ClosedForm):
    """Equal changes of a Brownian bridge's standard deviation, sqrt(t (1 - t)), up and down.

    The rate is that of the conditional entropy times the standard deviation, as rescaled entropic
    time has it; it can be integrated, so nothing is cut. ``t = (1 - sqrt(1 - 4 q^2)) / 2`` up to
    q = 1/2, and mirrored.

    References:
        Stancevic, Handke and Ambrogioni, Entropic time schedulers for generative diffusion models,
        2025, arXiv:2504.13612, for the rescaling; the bridge is our reading.

    Example:
        >>> BridgeSpread().grid(10).round(4)[:6].tolist()
        [0.0, 0.0101, 0.0417, 0.1, 0.2, 0.5]
    """

    name: ClassVar[str] = "bridge_spread"

    def at(self, q: Fractions) -> Fractions:
        """The time at which the standard deviation has changed by a fraction q of twice 1/2."""
        near = np.minimum(q, 1 - q)
        low = 2 * near**2 / (1 + np.sqrt(1 - 4 * near**2))
        return np.asarray(np.where(q <= 0.5, low, 1 - low))

    def reverse(self) -> BridgeSpread:
        """The schedule itself."""
        return self
