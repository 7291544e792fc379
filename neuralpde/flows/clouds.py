"""Points of the usual sets in the plane, with every spread explicit."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.flows.mixtures import MOON_STD, dark_squares, moon_curve

Points = Float[Tensor, "points 2"]


def moon_points(
    n: int, generator: torch.Generator | None = None, *, std: float = MOON_STD
) -> Points:
    """Two half circles of radius 3 that reach into each other, with normal noise; float64.

    Args:
        n: Points.
        generator: Source of randomness.
        std: Of the noise.

    >>> x = moon_points(1000, torch.Generator().manual_seed(0), std=0.0)
    >>> x.amin(0).round().tolist(), x.amax(0).round().tolist()
    ([-4.0, -2.0], [5.0, 2.0])
    """
    angle = math.pi * _uniform(n, generator)
    which = torch.randint(2, (n,), generator=generator)
    return moon_curve(angle, which.double()) + std * _normal((n, 2), generator)


def checkerboard_points(n: int, generator: torch.Generator | None = None) -> Points:
    """Uniform on eight of the sixteen squares of a board on [-4, 4]^2; float64.

    Args:
        n: Points.
        generator: Source of randomness.

    >>> x = checkerboard_points(100, torch.Generator().manual_seed(0))
    >>> bool(((x / 2).floor().sum(1) % 2 == 0).all())
    True
    """
    corners = dark_squares().double()
    which = torch.randint(len(corners), (n,), generator=generator)
    return corners[which] + 2 * torch.rand((n, 2), generator=generator, dtype=torch.float64)


def swiss_roll_points(
    n: int, generator: torch.Generator | None = None, *, turns: float = 1.5, std: float = 0.2
) -> Points:
    """A spiral `r (cos a, sin a)` of radius up to 5 with normal noise; float64.

    The angle is `a = 3 pi / 2 + 2 pi turns u`, u uniform, and the radius is proportional to it.

    Args:
        n: Points.
        generator: Source of randomness.
        turns: Of the spiral.
        std: Of the noise.

    >>> x = swiss_roll_points(1000, torch.Generator().manual_seed(0), std=0.0)
    >>> round(x.norm(dim=1).max().item(), 1), round(x.norm(dim=1).min().item(), 1)
    (5.0, 1.7)
    """
    first, length = 1.5 * math.pi, 2 * math.pi * turns
    angle = first + length * _uniform(n, generator)
    around = torch.stack([angle.cos(), angle.sin()], 1)
    return 5 * angle[:, None] / (first + length) * around + std * _normal((n, 2), generator)


def circle_points(
    n: int,
    generator: torch.Generator | None = None,
    *,
    radii: tuple[float, ...] = (2.0, 4.0),
    std: float = 0.1,
) -> Points:
    """Circles about the origin, equally likely, with normal noise; float64.

    Args:
        n: Points.
        generator: Source of randomness.
        radii: Of the circles.
        std: Of the noise.

    >>> x = circle_points(50, torch.Generator().manual_seed(0), std=0.0)
    >>> sorted(set(x.norm(dim=1).round(decimals=6).tolist()))
    [2.0, 4.0]
    """
    angle = 2 * math.pi * _uniform(n, generator)
    which = torch.randint(len(radii), (n,), generator=generator)
    radius = torch.tensor(radii, dtype=torch.float64)[which, None]
    around = torch.stack([angle.cos(), angle.sin()], 1)
    return radius * around + std * _normal((n, 2), generator)


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64)


def _normal(shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
