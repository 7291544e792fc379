"""Entropy rates of the Brownian bridge between Gaussian ends, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Times = Float[Tensor, " times"]


@dataclass(frozen=True)
class BridgeRates:
    """Rates of x_t = (1 - t) x0 + t x1 + sigma sqrt(t (1 - t)) z between Gaussian ends.

    Per number of the state, x0 has the variance s0^2, x1 the variance s1^2, and c is their
    covariance; then x_t has the variance `V = (1 - t)^2 s0^2 + t^2 s1^2 + (2c + sigma^2) t (1 - t)`
    and, with both ends known, `B = sigma^2 t (1 - t)`. All rates are in nats per unit of time, for
    a state of `dim` numbers, in float64. They keep their signs: a schedule takes the modulus.

    H(x_t) is the entropy of the state, H(x_t | x0, x1) the entropy of a state with known ends, and
    `I = H(x_t) - H(x_t | x0, x1)` what the state tells of its ends. Where sigma is 0, the state
    with known ends has no entropy, and only `marginal`, `loss` and `learned` are finite.

    Args:
        s0: standard deviation of the source, positive.
        s1: standard deviation of the target, positive.
        sigma: noise of the bridge.
        c: covariance of the ends, at most s0 s1 in modulus.

    Raises:
        ValueError: for other numbers.

    References:
        Trentini et al., Entropy across the bridge, 2026, arXiv:2605.16126, for the idea of the
        rate; the formulas are derived here.

    >>> import torch
    >>> unit = BridgeRates()
    >>> t = torch.tensor([0.25, 0.5], dtype=torch.float64)
    >>> unit.conditional(t, 3).tolist()  # 4 d / 3
    [4.0, 0.0]
    >>> unit.exchange(t, 3).tolist()  # d / (2 t (1 - t))
    [8.0, 6.0]
    """

    s0: float = 1.0
    s1: float = 1.0
    sigma: float = 1.0
    c: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no covariance."""
        if not (self.s0 > 0 and self.s1 > 0 and self.sigma >= 0):
            raise ValueError(f"{self}: s0 and s1 must be positive, sigma 0 or more")
        if not abs(self.c) <= self.s0 * self.s1:
            raise ValueError(f"{self}: a covariance is at most s0 s1 = {self.s0 * self.s1:g}")

    def variance(self, t: Times) -> Times:
        """V, the variance of one number of the state."""
        t = t.double()
        mixed = (2 * self.c + self.sigma**2) * t * (1 - t)
        return (1 - t) ** 2 * self.s0**2 + t**2 * self.s1**2 + mixed

    def conditional(self, t: Times, dim: int = 1) -> Times:
        """The rate of H(x_t | x0, x1), `dim (1 - 2t) / (2 t (1 - t))`; odd about 1/2.

        Without noise there is no such entropy; this is the limit of little noise.
        """
        t = t.double()
        return dim / 2 * (1 / t - 1 / (1 - t))

    def marginal(self, t: Times, dim: int = 1) -> Times:
        """The rate of H(x_t), the mean divergence of the marginal velocity: `dim V' / (2 V)`."""
        return dim / 2 * self._slope(t) / self.variance(t)

    def condmarg(self, t: Times, dim: int = 1) -> Times:
        """The rate of H(x_t | x0, x1) less that of H(x_t), `-dI/dt`: positive, then negative.

        It is `dim (s0^2 (1 - t)^2 - s1^2 t^2) / (2 t (1 - t) V)`; c and sigma enter through V
        alone. It vanishes at s0 / (s0 + s1), and its integral diverges at both ends.
        """
        t = t.double()
        above = (self.s0 * (1 - t)) ** 2 - (self.s1 * t) ** 2
        return dim / 2 * above / (t * (1 - t) * self.variance(t))

    def budget(self, t: Times, dim: int = 1) -> Times:
        """The excess of the modulus of `conditional` over that of `marginal`, or 0."""
        return (self.conditional(t, dim).abs() - self.marginal(t, dim).abs()).clamp(min=0)

    def loss(self, t: Times, dim: int = 1) -> Times:
        """The variance of the velocity that the state does not explain, E |u - v|^2.

        It is the least loss of flow matching at t: what stays when the network is exact.
        """
        t = t.double()
        along = self.s0**2 + self.s1**2 - 2 * self.c
        spread = (1 - 2 * t) ** 2 * self.sigma**2 / (4 * t * (1 - t))
        return dim * (along + spread - self._slope(t) ** 2 / (4 * self.variance(t)))

    def exchange(self, t: Times, dim: int = 1) -> Times:
        """The rate of H(x0 | x_t) - H(x1 | x_t): how fast x0 is forgotten and x1 learned."""
        return self._gain(1 - t.double(), self.s0, dim) + self._gain(t.double(), self.s1, dim)

    def learned(self, t: Times, dim: int = 1) -> Times:
        """The rate of what the state tells of the target alone.

        Without noise and covariance it is t / (1 - t) times the loss. With the noise level
        (1 - t) / t in the place of t this is the entropic time of Stancevic, Handke and Ambrogioni,
        2025, arXiv:2504.13612, for noise to data.
        """
        return self.marginal(t, dim) + self._gain(t.double(), self.s1, dim)

    def information(self, t: Times, dim: int = 1) -> Times:
        """I, what the state tells of its ends, `dim log(V / B) / 2`."""
        t = t.double()
        return dim / 2 * (self.variance(t) / (self.sigma**2 * t * (1 - t))).log()

    def _slope(self, t: Times) -> Times:
        """V'."""
        t = t.double()
        mixed = (2 * self.c + self.sigma**2) * (1 - 2 * t)
        return 2 * (t * self.s1**2 - (1 - t) * self.s0**2) + mixed

    def _gain(self, near: Times, s: float, dim: int) -> Times:
        """The rate of -H(x_t | end), with the end's standard deviation s; near is 1 at that end."""
        # Its variance is far (far D + noise near) / s^2, D the determinant of the ends' covariance.
        far, det = 1 - near, (self.s0 * self.s1) ** 2 - self.c**2
        noise = (self.sigma * s) ** 2
        return dim / 2 * (1 / far + (det - noise) / (far * det + noise * near))
