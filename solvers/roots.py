"""Zeros of many functions at once, each inside a bracket of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, " functions"]

LIMIT = 60
"""Most evaluations; a smooth function needs about five."""


def zeros(
    f: Callable[[Values], Values],
    first: Values,
    last: Values,
    *,
    start: Values | None = None,
    slope: Values | None = None,
    tolerance: float | Values = 0.0,
    rounding: float = float(np.finfo(np.float64).eps),
) -> tuple[Values, Values]:
    """Find where functions of theta in [0, 1] fall from above zero to zero.

    The secant method, ``theta <- theta - f / slope``, halving the bracket whenever a step would
    leave it or the last one did not halve ``|f|``. It ends where a step is shorter than the
    tolerance, or where steps are tiny and ``|f|`` falls no more: then rounding is all there is.

    Args:
        f: all functions, each at its own theta; those that are found are evaluated with the
            others and not looked at. NaN counts as below zero.
        first: values at 0, above zero.
        last: values at 1, not above zero.
        start: first guesses; by default where the straight line between the ends is zero.
        slope: guesses of df/dtheta there; by default that line's.
        tolerance: of theta.
        rounding: relative error of the functions' arguments.

    Returns:
        The thetas, of the two nearest ones where f has different signs those with the smaller
        ``|f|``, and the slopes there.

    Source:
        Dekker, Finding a zero by means of successive linear interpolation (1969), with the halving
        that Brent, Algorithms for Minimization without Derivatives (1973), ch. 4, asks for.

    Example:
        >>> found, slope = zeros(lambda x: 0.25 - x * x, np.array([0.25]), np.array([-0.75]))
        >>> found.tolist()
        [0.5]
    """
    left, right = np.zeros_like(first), np.ones_like(first)
    chord = np.where(first != last, last - first, -1.0)
    slope = chord if slope is None else slope
    x = -first / chord if start is None else start
    above, below = first, last
    searching = last != 0
    x_old = y_old = np.full_like(first, np.nan)
    for _ in range(LIMIT):
        if not searching.any():
            break
        y = f(np.where(searching, x, right))
        y = np.where(np.isnan(y), -np.inf, y)
        halved = ~(np.abs(y) > np.abs(y_old) / 2)
        high, low = searching & (y > 0), searching & ~(y > 0)
        left, above = np.where(high, x, left), np.where(high, y, above)
        right, below = np.where(low, x, right), np.where(low, y, below)
        with np.errstate(invalid="ignore", divide="ignore"):
            secant = (y - y_old) / (x - x_old)
            usable = searching & np.isfinite(secant) & (secant != 0)
            slope = np.where(usable, secant, slope)
            step = -y / slope
        faded = ~halved & (np.abs(step) <= np.sqrt(rounding))
        near = (np.abs(step) <= tolerance) | (right - left <= tolerance)
        searching = searching & ~((y == 0) | near | faded)
        ahead = x + step
        inside = (ahead > left) & (ahead < right) & halved
        x_old, y_old = x, y
        x = np.where(inside, ahead, (left + right) / 2)
    return np.where(above < -below, left, right), slope
