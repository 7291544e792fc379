"""A function on an interval as a Chebyshev series, with a bound of what the series leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Functions = Callable[[Float[Tensor, " points"]], Float[Tensor, "*functions points"]]

FIRST, LAST = 16, 2048
"""Degrees at which a function is sampled, doubled from the first to the last."""

ROUNDED = 1e-14
"""Error relative to the largest value that rounding leaves in any case."""


@dataclass(frozen=True)
class Interpolant:
    """Functions on [lo, hi] as `sum_k c_k T_k(y)`, y in [-1, 1] the affine image of the argument.

    Attributes:
        coefficients: c, `[..., degree + 1]`, float64; differentiable where the functions are.
        lo: Lower end of the interval.
        hi: Upper end.
        error: Bound of the largest error on the interval, over all functions.

    >>> line = interpolant(lambda x: 2 * x + 1, 0.0, 4.0)
    >>> line.coefficients.tolist(), line(torch.tensor([3.0])).tolist()
    ([5.0, 4.0], [7.0])
    """

    coefficients: Float[Tensor, "*functions degrees"]
    lo: float
    hi: float
    error: float

    @property
    def degree(self) -> int:
        """Of the polynomials."""
        return self.coefficients.shape[-1] - 1

    def __call__(self, x: Float[Tensor, " points"]) -> Float[Tensor, "*functions points"]:
        """The polynomials at some points of the interval."""
        half = (self.hi - self.lo) / 2 or 1.0
        y = ((x.double() - self.lo) / half - 1.0).clamp(-1.0, 1.0)
        steps = torch.arange(self.degree + 1, dtype=torch.float64, device=x.device)
        return self.coefficients @ torch.cos(steps.unsqueeze(1) * torch.acos(y))


def interpolant(
    f: Functions, lo: float, hi: float, *, tol: float = 1e-10, limit: int = LAST
) -> Interpolant:
    """Interpolate functions on [lo, hi] to an absolute error of `tol`, all by one degree.

    The functions are sampled at the Chebyshev points of degrees 16, 32, ... until the upper half of
    the coefficients adds up to less than `tol / 4`; then the series is cut at the smallest degree
    whose remaining coefficients do. The error is bounded by the moduli of what was cut, twice: the
    constant is moved so that values at `lo` are exact (constants in the kernel of a Laplacian).
    What lies beyond the finest sampling is judged by the upper half of the coefficients, which is
    sound for functions without features narrower than the points.

    Args:
        f: Maps points `[points]` in float64 to values `[..., points]`, differentiable in whatever
            it holds.
        lo: Lower end.
        hi: Upper end; may equal `lo`.
        tol: Absolute tolerance.
        limit: Largest degree to sample at.

    Raises:
        ValueError: Values are not finite, or the tolerance is not reached; says what was.

    Source:
        L. N. Trefethen, Approximation Theory and Approximation Practice, 2013, ch. 3, 4 and 8.

    >>> found = interpolant(torch.exp, -1.0, 1.0, tol=1e-6)
    >>> found.degree, found.error < 1e-6
    (7, True)
    """
    if not hi > lo:
        point = f(torch.tensor([lo], dtype=torch.float64, device="cpu"))
        return Interpolant(point, lo, lo, 0.0)
    degree, left = FIRST, torch.inf
    while degree <= limit:
        c = _coefficients(f, lo, hi, degree)
        sizes = c.detach().abs().reshape(-1, degree + 1)
        allowed = max(tol, ROUNDED * float(sizes.sum(1).max()))
        beyond = sizes.flip(1).cumsum(1).flip(1).amax(0)
        left = float(beyond[degree // 2])
        if left <= allowed / 4:
            kept = int((beyond > allowed / 4).sum())
            error = 2.0 * float(beyond[kept]) + 2.0 * left
            c = c[..., : max(kept, 1)]
            signs = 1.0 - 2.0 * (torch.arange(c.shape[-1], device=c.device) % 2)
            start = f(torch.tensor([lo], dtype=torch.float64, device=c.device))[..., 0]
            moved = c[..., 0] + start - (c * signs).sum(-1)
            return Interpolant(torch.cat([moved.unsqueeze(-1), c[..., 1:]], -1), lo, hi, error)
        degree *= 2
    raise ValueError(
        f"Chebyshev series of degree {degree // 2} leave out {left:.2g} of a function on "
        f"[{lo:.4g}, {hi:.4g}], more than tol={tol:g} allows: it has a kink, a jump or a pole "
        "there, or very narrow features; make it smoother, or tol larger"
    )


def _coefficients(f: Functions, lo: float, hi: float, degree: int) -> Tensor:
    """The coefficients of the interpolant at the extrema of T_degree, by one cosine transform."""
    angle = torch.pi * torch.arange(degree + 1, dtype=torch.float64, device="cpu") / degree
    low, high = torch.sin(angle / 2).square(), torch.cos(angle / 2).square()
    # The cosine of a right angle is not 0 in floating point, and functions may end here.
    high[-1] = 0.0
    values = f(lo * low + hi * high)
    if not bool(values.detach().isfinite().all()):
        raise ValueError(f"a function has values that are not finite on [{lo:.4g}, {hi:.4g}]")
    # The real transform of the even extension is real.
    even = torch.cat([values, values[..., 1:-1].flip(-1)], -1)
    c: Tensor = torch.fft.rfft(even, dim=-1).real / degree
    ends = torch.ones(degree + 1, dtype=torch.float64, device=c.device)
    ends[0] = ends[-1] = 0.5
    return c * ends
