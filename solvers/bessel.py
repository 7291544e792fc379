"""Coefficients of unitary series: Bessel functions, with the degree that a tolerance asks for."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from solvers.coefficients import NEGLIGIBLE, check_argument
from solvers.weights import Weights

# The backward recurrence is rescaled where it has grown by this.
LARGE = 1e150
# It starts this much beyond what is negligible, so that what it starts with is forgotten.
AHEAD = 8


def bessel_degree(
    z: float | Float[np.ndarray, "*shape"], tail: float
) -> Float[np.ndarray, "*shape"]:
    """Bound the degree beyond which a Chebyshev series of e^(-i z y) is below a tolerance.

    For ``k > z`` Kapteyn's inequality bounds ``|J_k(z)| <= e^(-F(k))`` with ``F(k) = k acosh(k / z)
    - sqrt(k^2 - z^2)``, whose slope is ``acosh(k / z)``: what is left out after the degree m is at
    most ``2 e^(-F(m)) / (1 - e^(-acosh(m / z)))``.

    Args:
        z: any number of arguments, not negative.
        tail: between 0 and 1.

    Returns:
        Whole numbers as float64, of the shape of ``z``; 0 where ``z`` is 0.

    Source:
        NIST Digital Library of Mathematical Functions, 10.14.8.

    Example:
        >>> bessel_degree(np.array([0.0, 18.3]), 1e-4).tolist()
        [0.0, 33.0]
    """
    z = np.asarray(z, dtype=np.float64)
    goal = np.log(2 / tail)
    safe = np.maximum(z, 1e-300)
    # At twice z and beyond, F(m) > 0.45 m; a convex F is solved from the right.
    m = 2 * safe + 2.3 * goal + 1.0
    for _ in range(60):
        slope = np.arccosh(np.maximum(m / safe, 1.0 + 1e-9))
        room = m * slope - np.sqrt(np.maximum(m * m - safe * safe, 0.0))
        step = (room - goal + np.log(-np.expm1(-slope))) / slope
        m = np.maximum(m - step, safe * (1.0 + 1e-9))
        if np.all(np.abs(step) <= 1e-3 * (1 + m)):
            break
    return np.where(z > 0, np.ceil(m * (1 + 1e-6) + 1.0), 0.0)


@lru_cache(maxsize=4096)
def rotation(z: float, tail: float) -> Weights:
    """Expand ``e^(-i z y) = sum_k i^(-k) c_k T_k(y)`` on [-1, 1].

    ``c_0 = J_0(z)`` and ``c_k = 2 J_k(z)``; what is left out is at most the sum of its moduli.

    Args:
        z: not negative.
        tail: largest error allowed on [-1, 1].

    Returns:
        The numbers c_k, real; the degree is the smallest one for which those left out sum to no
        more than ``tail``. Read-only.

    Raises:
        ValueError: z beyond 1e9.

    Source:
        Tal-Ezer and Kosloff, J. Chem. Phys. 81 (1984), 3967.

    Example:
        >>> rotation(0.0, 1e-4).tolist(), len(rotation(18.3, 1e-4)) - 1
        ([1.0], 29)
    """
    weights = _all_rotation(z)
    left_out = np.append(np.cumsum(np.abs(weights[:0:-1]))[::-1], 0.0)
    degree = int(np.argmax(left_out + NEGLIGIBLE <= tail)) if tail > NEGLIGIBLE else -1
    return weights[: degree + 1 or None]


@lru_cache(maxsize=256)
def _all_rotation(z: float) -> Weights:
    weights: Weights = 2 * bessel(z, int(bessel_degree(z, NEGLIGIBLE)))
    weights[0] /= 2
    weights.flags.writeable = False
    return weights


def bessel(z: float, degree: int) -> Weights:
    """Compute ``J_0(z), ..., J_m(z)``, each to a few units of the rounding of 1.

    Miller's backward recurrence ``J_(k-1) = (2 k / z) J_k - J_(k+1)``, which is stable from above,
    made unique by ``J_0^2 + 2 sum_k J_k^2 = 1``, a sum without cancellation. (Scipy's `jv` is wrong
    by 4e-14 at z = 3000, and twenty times slower.)

    Args:
        z: not negative.
        degree: m, so large that the recurrence beyond it is negligible.

    Source:
        NIST Digital Library of Mathematical Functions, 3.6(iii), 10.6.1, 10.23.3.

    Example:
        >>> bessel(1.0, 20)[:2].round(6).tolist()
        [0.765198, 0.440051]
    """
    check_argument(z)
    values: Weights = np.zeros(degree + AHEAD + 1)
    if z <= NEGLIGIBLE:
        values[0] = 1.0
        return values[: degree + 1]
    above, here = 0.0, 1.0 / LARGE
    values[-1] = here
    for k in range(len(values) - 1, 0, -1):
        above, here = here, 2 * k / z * here - above
        if abs(here) > LARGE:
            above, here = above / LARGE**2, here / LARGE**2
            values[k:] /= LARGE**2
        values[k - 1] = here
    values /= np.abs(values).max()
    values /= np.sqrt(values[0] ** 2 + 2 * np.cumsum(values[:0:-1] ** 2)[-1])
    return values[: degree + 1]
