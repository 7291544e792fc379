"""Schedules of diffusion models, which place noise levels: sigma = (1 - t) / t, data at t = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from solvers.schedules.schedule import ClosedForm, Fractions, Grid, Named, closed


@dataclass(frozen=True)
class AlignYourSteps(ClosedForm):
    """The grid that is optimal for Gaussian data of standard deviation c.

    Equal steps of arctan(sigma / c) in the noise level sigma = (1 - t) / t, that is
    ``t = 1 / (1 + c tan(pi (1 - q) / 2))``. The density is c / (c^2 t^2 + (1 - t)^2), the loss of
    flow matching on such data; c = 1 is the trigonometric grid sin / (sin + cos), whose name here
    is "trig".

    Args:
        c: standard deviation of the data, positive.

    Raises:
        ValueError: unless c is positive and finite.

    References:
        Sabour, Fidler and Kreis, Align your steps, ICML 2024, arXiv:2404.14507, theorem 3.1, with
        noise levels from infinity to 0.

    Example:
        >>> AlignYourSteps().grid(10).round(4)[1:6].tolist()
        [0.1367, 0.2452, 0.3375, 0.4208, 0.5]
    """

    c: float = 1.0
    name: ClassVar[str] = "ays"

    def __post_init__(self) -> None:
        """Refuse data without a spread."""
        if not 0 < self.c < np.inf:
            raise ValueError(f"AlignYourSteps(c={self.c}): c must be positive and finite")

    def at(self, q: Fractions) -> Fractions:
        """The time sin / (sin + c cos)."""
        s, c = np.sin(np.pi / 2 * q), np.cos(np.pi / 2 * q)
        return np.asarray(s / (s + self.c * c))

    def reverse(self) -> AlignYourSteps:
        """The grid of 1 / c."""
        return AlignYourSteps(1 / self.c)


@dataclass(frozen=True)
class Shift(ClosedForm):
    """Equal steps of the noise 1 - t, shifted towards noise: ``1 - t = s y / (1 + (s - 1) y)``.

    Here y = 1 - q. Times are ``t = q / (s - (s - 1) q)``: odds t / (1 - t) are divided by s.

    Args:
        s: the shift, positive; 1 is uniform, more makes short steps at the source.

    Raises:
        ValueError: unless s is positive and finite.

    References:
        Esser et al., Scaling rectified flow transformers, ICML 2024, arXiv:2403.03206.

    Example:
        >>> Shift(3.0).grid(2).tolist()  # the odds 1 become 1/3
        [0.0, 0.25, 1.0]
    """

    s: float = 3.0
    name: ClassVar[str] = "shift"

    def __post_init__(self) -> None:
        """Refuse shifts that do not rise."""
        if not 0 < self.s < np.inf:
            raise ValueError(f"Shift(s={self.s}): s must be positive and finite")

    def at(self, q: Fractions) -> Fractions:
        """The time of odds q / (1 - q) / s."""
        return q / (q + self.s * (1 - q))

    def reverse(self) -> Shift:
        """The shift by 1 / s."""
        return Shift(1 / self.s)


@dataclass(frozen=True)
class Karras(Named):
    """Noise levels that are equally spaced in ``sigma^(1/rho)``, then 0: ``t = 1 / (1 + sigma)``.

    n steps have the n levels from `high` to `low`, and 0. The first time is 0 in place of
    1 / (1 + high): a flow starts at its source, of infinite level.

    Args:
        rho: the exponent, positive; more makes more levels low.
        low: last level but one.
        high: first level.

    Raises:
        ValueError: unless rho is positive and 0 < low < high.

    References:
        Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS
        2022, arXiv:2206.00364, eq. 5 and its values.

    Example:
        >>> Karras(rho=1.0, low=1.0, high=3.0).levels(3).tolist()
        [3.0, 2.0, 1.0]
        >>> Karras(rho=1.0, low=1.0, high=3.0).grid(3).round(4).tolist()
        [0.0, 0.3333, 0.5, 1.0]
    """

    rho: float = 7.0
    low: float = 0.002
    high: float = 80.0
    name: ClassVar[str] = "karras"

    def __post_init__(self) -> None:
        """Refuse levels that do not fall."""
        if not (0 < self.rho < np.inf and 0 < self.low < self.high < np.inf):
            raise ValueError(
                f"Karras(rho={self.rho}, low={self.low}, high={self.high}): rho must be positive, "
                "and 0 < low < high"
            )

    def levels(self, n: int) -> Float[np.ndarray, " levels"]:
        """The n noise levels above 0.

        Args:
            n: number of steps.
        """
        if n == 1:
            return np.array([self.high])
        q = np.arange(n) / (n - 1)
        roots = self.high ** (1 / self.rho), self.low ** (1 / self.rho)
        levels = (roots[0] * (1 - q) + roots[1] * q) ** self.rho
        levels[[0, -1]] = self.high, self.low
        return np.asarray(levels)

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        if n < 1:
            raise ValueError(f"{n} steps; a grid has at least one")
        return closed(1 / (1 + self.levels(n)[1:]))
