"""Coefficients of energy curves: of ``l e^(-2 t l)`` and ``e^(-2 t l)`` at many times."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import ive

from solvers.coefficients import NEGLIGIBLE, check_argument, degree_bound


def energy(
    times: Float[np.ndarray, " times"], lo: float, hi: float, tail: float
) -> tuple[Float[np.ndarray, "times degree"], Float[np.ndarray, " times"]]:
    """Expand ``g_t(l) = l e^(-2 t l)`` on [lo, hi] in ``T_k((lo + hi - 2 l) / (hi - lo))``.

    With ``h = (hi - lo) / 2`` and ``a_k = ive(k, 2 t h)`` the coefficients are, up to the factor
    ``e^(-2 t lo)``, twice ``lo a_k + h (a_k - (a_(k-1) + a_(k+1)) / 2)``, and once for k = 0.

    Args:
        times: not negative.
        lo: lower end of the interval.
        hi: upper end.
        tail: allowed sum of the absolute coefficients left out, relative to the largest of
            ``|lo|`` and ``|hi|``.

    Returns:
        Coefficients, a row for each time, all to one degree, and for each time the sum of the
        absolute coefficients left out.

    Raises:
        ValueError: a time or its argument ``2 t h`` is out of range.

    Example:
        >>> weights, _ = energy(np.zeros(1), 0.0, 2.0, 1e-9)
        >>> weights.tolist()
        [[1.0, -1.0]]
    """
    weights, beyond, _ = _energy(times, lo, hi, tail)
    return weights, beyond


def energy_and_decay(
    times: Float[np.ndarray, " times"], lo: float, hi: float, tail: float
) -> tuple[
    Float[np.ndarray, "times degree"],
    Float[np.ndarray, " times"],
    Float[np.ndarray, "times degree"],
    Float[np.ndarray, " times"],
]:
    """Expand as :func:`energy` does, and to the same degree as :func:`decay` does.

    Example:
        >>> weights, _, decays, _ = energy_and_decay(np.zeros(1), 0.0, 2.0, 1e-9)
        >>> weights.tolist(), decays.tolist()
        ([[1.0, -1.0]], [[1.0, 0.0]])
    """
    weights, beyond, bessel = _energy(times, lo, hi, tail)
    return weights, beyond, *_decay(times, lo, bessel[:, : weights.shape[1]])


def _energy(
    times: np.ndarray, lo: float, hi: float, tail: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    half, scale = (hi - lo) / 2, max(abs(lo), abs(hi))
    z = 2 * times * half
    check_argument(float(z.max(initial=0.0)))
    rest = max(NEGLIGIBLE, 1e-3 * tail)
    largest = int(degree_bound(z, rest / 4).max(initial=0.0)) + 2
    bessel = bessel_table(z, largest + 1)
    middle = bessel[:, :-1]
    before = np.concatenate([bessel[:, 1:2], bessel[:, :-2]], axis=1)
    weights = lo * middle + half * (middle - (before + bessel[:, 1:]) / 2)
    weights *= 2 * np.exp(-2 * times * lo)[:, None]
    weights[:, 0] /= 2
    absolute = np.abs(weights)
    beyond = np.cumsum(absolute[:, ::-1], axis=1)[:, ::-1] - absolute + rest * scale
    enough = (beyond <= max(tail, 2 * NEGLIGIBLE) * scale).all(0)
    degree = int(np.argmax(enough))
    return weights[:, : degree + 1], beyond[:, degree], bessel


def bessel_table(z: Float[np.ndarray, " times"], largest: int) -> Float[np.ndarray, "times orders"]:
    """Compute ``e^-z I_k(z)`` for all k up to the largest, a row for each z.

    The ratios ``r_k = I_k / I_(k-1)`` obey ``r_k = z / (2 k + z r_(k+1))``, stably downwards; what
    is not known at the start falls with the square of ``I_k`` there.

    Args:
        z: not negative.
        largest: order of the last column.

    Source:
        Abramowitz and Stegun 9.6.26; Gautschi, SIAM Review 9 (1967).

    Example:
        >>> bool(np.allclose(bessel_table(np.array([0.0, 3.0]), 2)[1], ive([0, 1, 2], 3.0)))
        True
    """
    start = int(np.ceil(1.2 * largest + 2 * np.sqrt(z.max(initial=0.0)))) + 24
    ratios = np.empty((largest + 1, len(z)))
    ratio = np.zeros_like(z)
    for k in range(start, 0, -1):
        ratio = z / (2 * k + z * ratio)
        if k <= largest:
            ratios[k] = ratio
    ratios[0] = ive(0, z)
    return np.cumprod(ratios, axis=0).T


def decay(
    times: Float[np.ndarray, " times"], lo: float, hi: float, degree: int
) -> tuple[Float[np.ndarray, "times degree"], Float[np.ndarray, " times"]]:
    """Expand ``e^(-2 t l)`` on [lo, hi] in ``T_k((lo + hi - 2 l) / (hi - lo))`` to one degree.

    Args:
        times: not negative.
        lo: lower end of the interval.
        hi: upper end.
        degree: largest k.

    Returns:
        Coefficients, a row for each time, and for each time the sum of those left out.

    Example:
        >>> weights, beyond = decay(np.array([0.0, 1.0]), 0.0, 2.0, 30)
        >>> weights.sum(1).round(12).tolist(), bool((beyond < 1e-12).all())
        ([1.0, 1.0], True)
    """
    z = 2 * times * (hi - lo) / 2
    check_argument(float(z.max(initial=0.0)))
    return _decay(times, lo, bessel_table(z, degree))


def _decay(times: np.ndarray, lo: float, bessel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = 2 * bessel
    weights[:, 0] /= 2
    # All of them are positive and sum to 1.
    beyond = np.maximum(1.0 - weights.sum(1), 0.0) + bessel.shape[1] * np.finfo(np.float64).eps
    grown = np.exp(-2 * times * lo)
    return weights * grown[:, None], beyond * grown
