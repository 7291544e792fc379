"""Schedules that are a formula: equal steps, short steps at one end or at both; given times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import betaincinv, expit, logit

from solvers.schedules.schedule import ClosedForm, Fractions, Grid, Named, checked


@dataclass(frozen=True)
class Uniform(ClosedForm):
    """Equal steps, ``t = q``; "linear" is another name of it.

    Example:
        >>> Uniform().grid(4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    name: ClassVar[str] = "uniform"

    def at(self, q: Fractions) -> Fractions:
        """The time q."""
        return q

    def reverse(self) -> Uniform:
        """The schedule itself."""
        return self


@dataclass(frozen=True)
class Cosine(ClosedForm):
    """Short steps at both ends, ``t = (1 - cos(pi q)) / 2``: the arcsine law, Beta(1/2, 1/2).

    Its density 1 / sqrt(t (1 - t)) is the root of the rate at which a Brownian bridge of unit
    noise between unit Gaussians exchanges what it knows of one end for the other.

    Example:
        >>> Cosine().grid(3).round(12).tolist()
        [0.0, 0.25, 0.75, 1.0]
    """

    name: ClassVar[str] = "cosine"

    def at(self, q: Fractions) -> Fractions:
        """The time sin(pi q / 2)^2."""
        return np.asarray(np.sin(np.pi / 2 * q) ** 2)

    def reverse(self) -> Cosine:
        """The schedule itself."""
        return self


@dataclass(frozen=True)
class Beta(ClosedForm):
    """Quantiles of a beta law, of density t^(a-1) (1-t)^(b-1): short steps at 0 for small a.

    Args:
        a: exponent at 0, positive; 1 is flat there.
        b: exponent at 1, positive.

    Raises:
        ValueError: unless both are positive and finite.

    References:
        Lee et al., Beta sampling is all you need, 2024, arXiv:2407.12173; 0.6 twice is the
        default of the diffusers library.

    Example:
        >>> Beta(0.6, 0.6).grid(10).round(4)[1:6].tolist()
        [0.0396, 0.1229, 0.234, 0.3627, 0.5]
    """

    a: float = 0.6
    b: float = 0.6
    name: ClassVar[str] = "beta"

    def __post_init__(self) -> None:
        """Refuse exponents without a law."""
        if not (0 < self.a < np.inf and 0 < self.b < np.inf):
            raise ValueError(f"Beta(a={self.a}, b={self.b}): both must be positive and finite")

    def at(self, q: Fractions) -> Fractions:
        """The quantile q."""
        return np.asarray(betaincinv(self.a, self.b, q))

    def reverse(self) -> Beta:
        """The law of 1 - t."""
        return Beta(self.b, self.a)


@dataclass(frozen=True)
class Power(ClosedForm):
    """Short steps at the start for ``p > 1``, ``t = q^p``; its mirror is ``Power(p).reverse()``.

    Args:
        p: the exponent, positive; below 1 the steps are short at the end.

    Raises:
        ValueError: unless p is positive and finite.

    Example:
        >>> Power(2.0).grid(2).tolist()
        [0.0, 0.25, 1.0]
    """

    p: float = 2.0
    name: ClassVar[str] = "power"

    def __post_init__(self) -> None:
        """Refuse exponents that do not rise from 0 to 1."""
        if not 0 < self.p < np.inf:
            raise ValueError(f"Power(p={self.p}): p must be positive and finite")

    def at(self, q: Fractions) -> Fractions:
        """The time q^p."""
        return q**self.p


@dataclass(frozen=True)
class Sigmoid(ClosedForm):
    """A logistic curve stretched onto [0, 1]: short steps at both ends.

    ``t = (l(k (q - 1/2)) - l(-k/2)) / (l(k/2) - l(-k/2))``, l the logistic function.

    Args:
        k: steepness, positive; 6 is gentle.

    Raises:
        ValueError: unless k is positive and finite.

    Example:
        >>> Sigmoid(12.0).grid(4).round(4).tolist()
        [0.0, 0.0451, 0.5, 0.9549, 1.0]
    """

    k: float = 12.0
    name: ClassVar[str] = "sigmoid"

    def __post_init__(self) -> None:
        """Refuse curves that do not rise."""
        if not 0 < self.k < np.inf:
            raise ValueError(f"Sigmoid(k={self.k}): k must be positive and finite")

    def at(self, q: Fractions) -> Fractions:
        """The stretched curve."""
        # sinh(kq/2) cosh(k/4) / (cosh(k(q - 1/2)/2) sinh(k/2)), without overflow and, unlike a
        # difference of two logistic numbers, without cancellation: for the lower half, mirrored.
        below = np.minimum(q, 1 - q)
        e = np.exp(-self.k / 2)
        rise = np.expm1(-self.k * below) / np.expm1(-self.k)
        low = np.exp(self.k * (below - 0.5)) * rise * (1 + e)
        low = low / (1 + np.exp(self.k * (below - 0.5)))
        return np.asarray(np.where(q <= 0.5, low, 1 - low))

    def reverse(self) -> Sigmoid:
        """The schedule itself."""
        return self


@dataclass(frozen=True)
class LogitUniform(ClosedForm):
    """Equal steps of ``log(t / (1 - t))`` between eps and 1 - eps, whose ends become 0 and 1.

    For a straight path from noise to data the logit is half the logarithm of the signal-to-noise
    ratio. The density is 1 / (t (1 - t)) and cannot reach the ends: the first step of n goes from
    0 to where the second of n equal logit steps from eps begins.

    Args:
        eps: where it starts, above 0 and below 1/2.

    Raises:
        ValueError: for another eps.

    Example:
        >>> LogitUniform(0.1).grid(4).round(4).tolist()  # odds 1/9, 1/3, 1, 3, 9
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    eps: float = 1e-3
    name: ClassVar[str] = "logit_uniform"

    def __post_init__(self) -> None:
        """Refuse a cut that is none."""
        if not 0 < self.eps < 0.5:
            raise ValueError(f"LogitUniform(eps={self.eps}): eps must lie between 0 and 1/2")

    def at(self, q: Fractions) -> Fractions:
        """The time, eps at q = 0 and 1 - eps at q = 1."""
        return np.asarray(expit(logit(self.eps) * (1 - 2 * q)))

    def reverse(self) -> LogitUniform:
        """The schedule itself."""
        return self


@dataclass(frozen=True)
class Points(Named):
    """Given times.

    Args:
        times: strictly increasing, from exactly 0 to exactly 1.

    Raises:
        ValueError: for other times.

    Example:
        >>> Points((0.0, 0.1, 1.0)).grid(2).tolist()
        [0.0, 0.1, 1.0]
    """

    times: Sequence[float]
    name: ClassVar[str] = "points"

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        object.__setattr__(self, "times", tuple(float(time) for time in self.times))
        checked(np.array(self.times))

    def grid(self, n: int) -> Grid:
        """Give the times.

        Args:
            n: number of steps; must be the number of steps of the times.

        Returns:
            The times.

        Raises:
            ValueError: if the times make another number of steps.
        """
        if n != len(self.times) - 1:
            raise ValueError(
                f"these Points make {len(self.times) - 1} steps, not {n}; "
                f"ask for steps={len(self.times) - 1}"
            )
        return np.array(self.times)

    def reverse(self) -> Points:
        """The mirrored times."""
        return Points(tuple(1 - time for time in reversed(self.times)))
