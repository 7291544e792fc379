"""Coefficients of exponential series, each with the degree that its tolerance asks for."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.fft import dct
from scipy.special import ive

from solvers.weights import Weights

# Beyond this the Bessel functions of scipy lose their last digits, and nobody waits so long.
LARGEST_ARGUMENT = 1e9
# Mass of a series that is left out of every sum: below what float64 resolves.
NEGLIGIBLE = 1e-22


def degree_bound(
    z: float | Float[np.ndarray, "*shape"], tail: float
) -> Float[np.ndarray, "*shape"]:
    """Bound the degree beyond which a Chebyshev series of e^(-z (1 - y)) is below a tolerance.

    The coefficients are the probabilities of the difference X of two Poisson variables of mean
    z/2, so that ``P(|X| > m) <= 2 exp(sqrt(z^2 + m^2) - z - m asinh(m / z)) <= tail``.

    Args:
        z: any number of arguments, not negative.
        tail: between 0 and 1.

    Returns:
        Whole numbers as float64, of the shape of ``z``; 0 where ``z`` is 0.

    Source:
        Chernoff's bound.

    Example:
        >>> degree_bound(np.array([0.0, 18.3]), 1e-4).tolist()
        [0.0, 20.0]
    """
    z = np.asarray(z, dtype=np.float64)
    goal = np.log(2 / tail)
    safe = np.maximum(z, 1e-300)
    m = np.sqrt(2 * safe * goal) + 1e-3
    for _ in range(60):  # Newton from the left of a convex function lands right and stays there
        root = np.sqrt(safe * safe + m * m)
        slope = np.arcsinh(m / safe)
        excess = safe + m * slope - root - goal
        step = excess / slope
        m = np.maximum(m - step, 0.0)
        if np.all(np.abs(step) <= 1e-3 * (1 + m)):
            break
    return np.where(z > 0, np.ceil(m * (1 + 1e-6) + 2e-3), 0.0)


@lru_cache(maxsize=4096)
def exponential(z: float, tail: float) -> Weights:
    """Expand ``e^(-z (1 - y)) = sum_k c_k T_k(y)`` on [-1, 1].

    ``c_0 = ive(0, z)`` and ``c_k = 2 ive(k, z)`` are positive and sum to 1. What the series
    leaves out is given back by dividing by the sum, so that y = 1, the kernel of a diffusion,
    is kept exactly; the error is then at most twice the mass left out.

    Args:
        z: not negative.
        tail: largest error allowed on [-1, 1].

    Returns:
        The coefficients, their sum 1; the degree is the smallest one that suffices. Read-only.

    Raises:
        ValueError: z beyond 1e9.

    Example:
        >>> exponential(0.0, 1e-4).tolist(), len(exponential(18.3, 5e-5)) - 1
        ([1.0], 19)
    """
    weights = _all_exponential(z)
    left_out = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    degree = int(np.argmax(2 * (left_out + NEGLIGIBLE) <= tail)) if tail > 2 * NEGLIGIBLE else -1
    return _normalised(weights[: degree + 1 or None])


@lru_cache(maxsize=4096)
def integral(z: float, growth: float, tail: float) -> Weights:
    """Expand ``phi_1(growth - z (1 - y)) = sum_k d_k T_k(y)``, phi_1(w) = (e^w - 1) / w.

    As ``phi_1(w)`` is the integral of ``e^(s w)`` over [0, 1], the coefficients are positive and
    what a degree leaves out is, relative to ``phi_1(growth)``, less than for the exponential.

    Args:
        z: not negative.
        growth: exponent at y = 1.
        tail: largest error allowed, relative to ``phi_1(growth)``.

    Returns:
        The coefficients, their sum ``phi_1(growth)``. Read-only.

    Example:
        >>> integral(0.0, 0.0, 1e-4).tolist()
        [1.0]
    """
    degree = len(exponential(z, tail)) - 1
    nodes = len(_all_exponential(z)) + 1
    half_angle = np.pi * (np.arange(nodes) + 0.5) / (2 * nodes)
    weights = dct(phi_1(growth - 2 * z * np.sin(half_angle) ** 2), type=2)[: degree + 1] / nodes
    weights[0] /= 2
    return _normalised(weights, float(phi_1(np.float64(growth))))


def phi_1(w: Float[np.ndarray, "*shape"] | np.float64) -> Float[np.ndarray, "*shape"]:
    """Compute ``(e^w - 1) / w``, 1 at 0.

    Example:
        >>> phi_1(np.array([0.0, 1.0])).tolist()
        [1.0, 1.718281828459045]
    """
    w = np.asarray(w, dtype=np.float64)
    nonzero = np.where(w == 0, 1.0, w)
    return np.where(w == 0, 1.0, np.expm1(nonzero) / nonzero)


@lru_cache(maxsize=4096)
def poisson(q: float, tail: float) -> Weights:
    """Compute Poisson weights ``w_k = e^-q q^k / k!``, from the mode outwards.

    All are positive or 0; those of negligible size on the left are 0, those on the right are cut
    off, and the rest is normalised to the sum 1: ``sum_k w_k P^k`` with a stochastic P is then
    within ``tail`` of ``e^(q (P - I))`` in the norm in which P is a contraction.

    Args:
        q: mean, not negative.
        tail: largest error allowed.

    Returns:
        Weights of ``P^0, P^1, ...``. Read-only.

    Source:
        Fox and Glynn, Computing Poisson probabilities (1988).

    Example:
        >>> poisson(0.0, 1e-4).tolist(), len(poisson(18.3, 1e-4)) - 1
        ([1.0], 37)
    """
    weights = _all_poisson(q).copy()
    weights[np.cumsum(weights) <= 1e-3 * tail] = 0.0
    left_out = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    degree = int(np.argmax(left_out <= 0.499 * tail))
    return _normalised(weights[: degree + 1])


@lru_cache(maxsize=4096)
def poisson_integral(q: float, tail: float) -> Weights:
    """Expand ``phi_1(q (P - I)) = sum_k w_k P^k``, ``w_k = Pr[N > k] / q`` with N Poisson(q).

    Args:
        q: mean, not negative.
        tail: largest error allowed.

    Returns:
        Weights, none negative, their sum 1. Read-only.

    Example:
        >>> poisson_integral(0.0, 1e-4).tolist()
        [1.0]
    """
    every = _all_poisson(q)
    weights = np.cumsum(every[:0:-1])[::-1]
    if q == 0 or not weights.sum() > 0:
        return _normalised(np.ones(1))
    return _cut(weights / weights.sum(), tail)


@lru_cache(maxsize=4096)
def power_integral(q: float, tail: float) -> Weights:
    """Expand ``phi_1(q P) = sum_k q^k / (k + 1)! P^k``.

    Args:
        q: not negative.
        tail: largest error allowed, relative to ``phi_1(q)``.

    Returns:
        Weights, none negative, their sum ``phi_1(q)``. Read-only.

    Example:
        >>> power_integral(0.0, 1e-4).tolist()
        [1.0]
    """
    weights = _all_poisson(q)[1:]
    if q == 0 or not weights.sum() > 0:
        return _normalised(np.ones(1))
    return _cut(weights / weights.sum(), tail, float(phi_1(np.float64(q))))


@lru_cache(maxsize=256)
def _all_exponential(z: float) -> Weights:
    check_argument(z)
    weights: Weights = 2 * ive(np.arange(int(degree_bound(z, NEGLIGIBLE)) + 1), z)
    weights[0] /= 2
    return weights


@lru_cache(maxsize=256)
def _all_poisson(q: float) -> Weights:
    check_argument(q)
    mode = int(q)
    # The right tail by Chernoff's bound, exp(-x^2 / (2 (q + x / 3))) for a distance x.
    goal = -np.log(NEGLIGIBLE)
    width = int(np.ceil(goal / 3 + np.sqrt(goal * goal / 9 + 2 * goal * q))) + 2
    right = np.cumprod(q / np.arange(mode + 1, mode + width + 1))
    left = np.cumprod(np.arange(mode, 0, -1) / q) if mode else np.ones(0)
    return _normalised(np.concatenate([left[::-1], np.ones(1), right]))


def _cut(weights: Weights, tail: float, total: float = 1.0) -> Float[np.ndarray, " kept"]:
    left_out = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    degree = int(np.argmax(left_out <= 0.499 * tail))
    return _normalised(weights[: degree + 1], total)


def _normalised(weights: Weights, total: float = 1.0) -> Weights:
    # Added from the end, where they are small.
    weights = weights * (total / np.cumsum(weights[::-1])[-1])
    weights.flags.writeable = False
    return weights


def check_argument(z: float) -> None:
    """Refuse arguments of series beyond what scipy's Bessel functions hold.

    Raises:
        ValueError: z is negative, not finite, or beyond 1e9.

    Example:
        >>> check_argument(18.3)
    """
    if not 0 <= z <= LARGEST_ARGUMENT:
        raise ValueError(
            f"time times half the width of the spectrum is {z:.3g}; exact solves reach "
            f"{LARGEST_ARGUMENT:.0e}: shorten the interval, or solve it in parts"
        )
