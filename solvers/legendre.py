"""The stabilised Legendre polynomials of `rkl2`: coefficients, length and shape of the region."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

FEWEST = 3
"""The smallest number of stages."""

SPARES = np.array([1.0, 1.15, 1.35, 1.7])
"""Factors of the spectral radius that are tried: more stages than the real axis asks for."""

WIDEST = 61
"""Regions of eigenvalues off the real axis are examined up to this number of stages."""


def reach(stages: int | Int[np.ndarray, "*clocks"]) -> Float[np.ndarray, "*clocks"]:
    """Compute the length of the real stability interval, ``(s^2 + s - 2) / 2``.

    Args:
        stages: the odd number s.

    Returns:
        The largest h rho.

    Source:
        Meyer, Balsara, Aslam, J. Comput. Phys. 257 (2014), eq. 22.

    Example:
        >>> reach(3), reach(np.array([5, 7])).tolist()
        (array(5.), [14.0, 27.0])
    """
    s = np.asarray(stages, dtype=float)
    length: Float[np.ndarray, "*clocks"] = np.asarray((s * s + s - 2) / 2)
    return length


def stages(length: Float[np.ndarray, " clocks"]) -> Int[np.ndarray, " clocks"]:
    """Find the smallest odd number of stages, at least 3, that reaches that far.

    Args:
        length: h rho.

    Returns:
        Odd numbers. Odd, because even ones do not damp the end of the interval.

    Example:
        >>> stages(np.array([0.1, 5.0, 5.1, 1e4])).tolist()
        [3, 3, 5, 141]
    """
    s = np.ceil((np.sqrt(9.0 + 8.0 * length) - 1.0) / 2.0 - 1e-9).astype(int)
    odd: Int[np.ndarray, " clocks"] = np.maximum(s + 1 - s % 2, FEWEST)
    return odd


@dataclass(frozen=True)
class Stage:
    """One stage j, ``E_j = E_{j-2} + blend (E_{j-1} - E_{j-2}) + k slope (F_{j-1} - first F_0)``.

    ``Y_j = Y_0 + scale E_j`` and ``k = 4 h / (s^2 + s - 2)``: scaled so that an average of two
    terms takes the place of a sum, which saves a pass over the state.

    Attributes:
        blend: share of ``E_{j-1}``.
        slope: factor of the new slope.
        first: how much of the first slope is taken off.
        scale: of the difference from the start.
        node: ``c_{j-1}``, where the new slope is taken, times ``(s^2 + s - 2) / 4``.
    """

    blend: float
    slope: float
    first: float
    scale: float
    node: float


@cache
def recurrence(s: int) -> tuple[Stage, ...]:
    """Return stages 2 to s; the first is ``E_1 = k F_0 / 3``.

    ``Y_j = mu_j Y_{j-1} + nu_j Y_{j-2} + (1 - mu_j - nu_j) Y_0 + mu~_j h F_{j-1} + g~_j h F_0``
    with ``mu_j = (2j-1) b_j / (j b_{j-1})``, ``nu_j = -(j-1) b_j / (j b_{j-2})``,
    ``mu~_j = mu_j w``, ``g~_j = (b_{j-1} - 1) mu~_j``, ``b_j = (j^2+j-2) / (2j(j+1))``,
    ``b_0 = b_1 = b_2 = 1/3`` and ``w = 4 / (s^2+s-2)``, which alone depends on s.

    Source:
        Meyer, Balsara, Aslam, J. Comput. Phys. 257 (2014), eqs. 16-17.

    Example:
        >>> recurrence(3)[0]
        Stage(blend=1.5, slope=1.5, first=0.6666666666666667, scale=1.0, node=0.333333333333333)
    """
    b = [1 / 3, 1 / 3, *((j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, s + 1))]
    found, before, now, node = [], 1.0, 1.0, 1 / 3
    for j in range(2, s + 1):
        mu = (2 * j - 1) / j * b[j] / b[j - 1]
        nu = -(j - 1) / j * b[j] / b[j - 2]
        scale = mu * now + nu * before
        found.append(Stage(mu * now / scale, mu / scale, 1 - b[j - 1], scale, node))
        before, now, node = now, scale, (j * j + j - 2) / 4
    return tuple(found)


def amplification(
    z: Complex[np.ndarray, "*points"], s: Int[np.ndarray, "*points"]
) -> Complex[np.ndarray, "*points"]:
    """Compute the stability polynomial ``R_s(z) = 1 - b_s + b_s P_s(1 + 4 z / (s^2+s-2))``.

    Args:
        z: h lambda.
        s: number of stages of each; broadcasts against ``z``.

    Returns:
        What a step multiplies the mode of eigenvalue lambda with.

    Source:
        Meyer, Balsara, Aslam, J. Comput. Phys. 257 (2014), eqs. 15, 21.

    Example:
        >>> amplification(np.array([0.0, -5.0]), np.array(3)).round(4).real.tolist()
        [1.0, 0.1667]
    """
    s = np.asarray(s)
    u = 1 + 4 * np.asarray(z) / (s * s + s - 2)
    u, s = np.broadcast_arrays(u, s)
    before, now = np.ones_like(u), u
    for j in range(2, int(s.max()) + 1):
        before, now = now, np.where(s >= j, ((2 * j - 1) * u * now - (j - 1) * before) / j, now)
    b = (s * s + s - 2) / (2 * s * (s + 1))
    value: Complex[np.ndarray, "*points"] = 1 - b + b * now
    return value


def room(values: Complex[np.ndarray, " values"], radius: float) -> tuple[float, float]:
    """Find how long steps may be for eigenvalues off the real axis.

    The region is long but narrow: |Im z| up to 2 at Re z = -1, 3 at -5, 7 at -10 and 1 at its far
    end, where more stages help. Damped eigenvalues must stay damped for this and all shorter steps:
    ``|R_s(h lambda)| <= 1`` with ``s = stages(spare h radius)``. That covers those between them
    and zero too.

    Args:
        values: known eigenvalues in the direction of time; growing ones set no limit.
        radius: the spectral radius.

    Returns:
        The longest step (infinite where the region was not left up to 61 stages; at least
        1/radius, where error control is enough) and the spare factor.

    Example:
        >>> room(np.array([-1.0 + 0.0j, -2.0]), 2.0)
        (inf, 1.0)
        >>> longest, spare = room(np.array([-1.0 + 1.0j]), 2.0**0.5)
        >>> 1.0 < float(longest) < 3.0
        True
    """
    points = values[(values.real < 0) & (values.imag > 1e-3 * radius)]
    if not len(points):
        return np.inf, 1.0
    lengths = np.geomspace(1.0, float(reach(WIDEST)), 60)
    s = stages(SPARES[:, None] * lengths)
    z = lengths[:, None] / radius * points
    fits: Bool[np.ndarray, "spares lengths"] = (
        np.abs(amplification(z, np.minimum(s, WIDEST)[:, :, None])) <= 1 + 1e-9
    ).all(2)
    fits[:, 0] = True
    last = np.where(fits.all(1), len(lengths), fits.argmin(1)) - 1
    best = int(np.argmax(lengths[last] / s[np.arange(len(SPARES)), last]))
    free = bool(fits[best].all())
    return (np.inf if free else float(lengths[last[best]]) / radius), float(SPARES[best])
