"""Score from velocity and velocity from score, where the source is standard normal."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralpde.flows.paths import Isotropic, Time, column


def score_from_velocity(path: Isotropic, t: Time, x: Tensor, velocity: Tensor) -> Tensor:
    """The marginal score of a path from standard normal noise, from its marginal velocity.

    With `x_t = b x1 + n z`, `n^2 = a^2 + s^2` (source and noise of the path are one normal number),

        s = (b v - b' x) / (n (b' n - b n'))

    which is `(t v - x) / (1 - t)` on straight lines.

    Args:
        path: The path; ends are independent and the source is N(0, I).
        t: One time, `[points]`, or a column.
        x: Where.
        velocity: The marginal velocity there.

    Raises:
        ValueError: Outside the path's ends, and where no noise is left.

    References:
        Albergo, Boffi, Vanden-Eijnden, Stochastic interpolants, arXiv:2303.08797.

    >>> from neuralpde.flows.linear import Linear
    >>> x = torch.tensor([[1.0]])  # N(0, 1) to N(0, 1) at t = 1/2: v = 0, the variance is 1/2
    >>> score_from_velocity(Linear(), 0.5, x, 0 * x).item()
    -2.0
    """
    b, db, strength = _strength(path, t, x)
    if not bool((strength != 0).all()):
        raise ValueError("no noise is left at t = 1, and the score is infinite: stop before")
    return (b * velocity - db * x) / strength


def velocity_from_score(path: Isotropic, t: Time, x: Tensor, score: Tensor) -> Tensor:
    """The inverse of `score_from_velocity`: `v = (b' x + n (b' n - b n') s) / b`.

    Args:
        path: The path; ends are independent and the source is N(0, I).
        t: One time, `[points]`, or a column.
        x: Where.
        score: The marginal score there.

    Raises:
        ValueError: Outside the path's ends, and where there is no signal: at pure noise the score
            does not know of the data.

    >>> from neuralpde.flows.linear import Linear
    >>> x = torch.tensor([[1.0]])
    >>> velocity_from_score(Linear(), 0.5, x, -2 * x).item()
    0.0
    """
    b, db, strength = _strength(path, t, x)
    if not bool((b != 0).all()):
        raise ValueError(
            "at t = 0 the score is that of pure noise and tells no velocity: start "
            "after it, or learn the velocity"
        )
    return (db * x + strength * score) / b


def _strength(path: Isotropic, t: Time, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, its slope, and n (b' n - b n'), which has no singular slope."""
    times = torch.as_tensor(t, dtype=torch.float64, device=x.device)
    path.check(times)
    c = path.coefficients(times)
    strength = c.db * (c.a**2 + c.s**2) - c.b * (c.a * c.da + c.s * c.ds)
    b, db, strength = (column(one.to(x.dtype), x) for one in (c.b, c.db, strength))
    return b, db, strength
