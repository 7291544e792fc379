"""Mixtures of round normal laws: ends of paths whose marginals are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

EIGHT_STD = 0.1**0.25
"""The spread 0.5623 of each of the eight normals in the usual toy set, whose code passes the root
of its variance 0.1 as a covariance."""

MOON_STD = 0.6
"""The spread of the moons: noise 0.2, before they are scaled by 3."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of round normal laws, sum_k w_k N(m_k, std_k^2 I).

    Args:
        means: `[components, dim]`.
        stds: One for all, or `[components]`; not negative (0 is a point).
        weights: `[components]`, positive; equal by default. They are normalised.

    Raises:
        ValueError: For shapes that do not fit, negative spreads, weights that are not positive.

    >>> two = Mixture(torch.tensor([[-1.0], [1.0]]).double(), 0.0)
    >>> two.mean.item(), two.covariance.item(), two.sample(5).abs().unique().item()
    (0.0, 1.0, 1.0)
    """

    means: Float[Tensor, "components dim"]
    stds: Tensor
    weights: Tensor

    def __init__(
        self,
        means: Float[Tensor, "components dim"],
        stds: float | Tensor,
        weights: Tensor | None = None,
    ) -> None:
        if means.dim() != 2 or not len(means):
            raise ValueError(f"means are {tuple(means.shape)}; give [components, dim]")
        spread = torch.as_tensor(stds, dtype=means.dtype, device=means.device)
        share = means.new_ones(len(means)) if weights is None else weights.to(means)
        if spread.shape not in ((), means.shape[:1]) or share.shape != means.shape[:1]:
            raise ValueError(
                f"stds are {tuple(spread.shape)} and weights {tuple(share.shape)} for "
                f"{len(means)} components; give one each"
            )
        if not bool((spread >= 0).all()) or not bool((share > 0).all()):
            raise ValueError("spreads must not be negative, and weights must be positive")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "stds", spread.expand(len(means)))
        object.__setattr__(self, "weights", share / share.sum())

    @property
    def dim(self) -> int:
        """Numbers in a point."""
        return self.means.shape[1]

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        """The mean."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """The covariance, of components and between them."""
        off = self.means - self.mean
        inside = (self.weights * self.stds**2).sum() * torch.eye(self.dim).to(off)
        return (self.weights[:, None] * off).T @ off + inside

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "points dim"]:
        """Draw points."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(
            (n, self.dim), generator=generator, dtype=self.means.dtype, device=self.means.device
        )
        return self.means[which] + self.stds[which, None] * z

    def log_density(self, x: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
        """The logarithm of the density.

        >>> round(normal(1).log_density(torch.zeros(1, 1).double()).exp().item(), 6)
        0.398942
        """
        variance = (self.stds**2).to(x)
        square = (x[:, None] - self.means.to(x)).square().sum(-1)
        scale = 0.5 * self.dim * torch.log(2 * math.pi * variance)
        return torch.logsumexp(self.weights.to(x).log() - scale - square / (2 * variance), 1)


def normal(dim: int = 2, std: float = 1.0, mean: float = 0.0) -> Mixture:
    """One round normal law, float64.

    >>> normal(3, std=2.0).covariance.diagonal().tolist()
    [4.0, 4.0, 4.0]
    """
    return Mixture(torch.full((1, dim), mean, dtype=torch.float64), std)


def eight_gaussians(radius: float = 5.0, std: float = EIGHT_STD, tight: float = 1.0) -> Mixture:
    """Eight normals on a circle.

    Args:
        radius: Of the circle.
        std: Of each normal.
        tight: Factor of `std`; smaller ones concentrate the law.

    >>> law = eight_gaussians(tight=0.3)
    >>> round(law.covariance[0, 0].item(), 4), round(law.stds[0].item(), 4)
    (12.5285, 0.1687)
    """
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return Mixture(radius * torch.stack([angles.cos(), angles.sin()], 1), std * tight)


def moons(components: int = 16, std: float = MOON_STD, tight: float = 1.0) -> Mixture:
    """Two half circles of radius 3 that reach into each other, as normals along them.

    `2 * components` normals sit at the middles of equal pieces of the arcs. With 16 on each, 0.59
    apart, the arcs are smooth at the usual spread 0.6, and beads at `tight=0.3`. The centres are
    those of `moon_points`.

    Args:
        components: Normals on each moon.
        std: Of each normal.
        tight: Factor of `std`.

    >>> law = moons()
    >>> law.means.shape, [round(m, 4) for m in law.mean.tolist()]
    (torch.Size([32, 2]), [0.5, -0.25])
    """
    pieces = (torch.arange(components, dtype=torch.float64) + 0.5) * (math.pi / components)
    means = torch.cat(
        [moon_curve(pieces, torch.zeros_like(pieces)), moon_curve(pieces, torch.ones_like(pieces))]
    )
    return Mixture(means, std * tight)


def moon_curve(angle: Tensor, moon: Tensor) -> Tensor:
    """The points of both moons at angles from 0 to pi; `moon` is 0 above and 1 below.

    >>> moon_curve(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])).tolist()
    [[2.0, -1.0], [-1.0, 0.5]]
    """
    sign = 1 - 2 * moon
    return torch.stack(
        [3 * (moon + sign * angle.cos()) - 1, 3 * (0.5 * moon + sign * angle.sin()) - 1], -1
    )


def checkerboard(per_side: int = 3, std: float | None = None, tight: float = 1.0) -> Mixture:
    """Eight of the sixteen squares of a board on [-4, 4]^2, each of side 2, as a grid of normals.

    Args:
        per_side: Normals along the side of a square; there are `8 per_side^2` in all.
        std: Of each normal; 0.6 of their distance `2 / per_side` by default.
        tight: Factor of `std`.

    >>> law = checkerboard()
    >>> law.means.shape, round(law.stds[0].item(), 4)
    (torch.Size([72, 2]), 0.4)
    """
    step = 2 / per_side
    inside = (torch.arange(per_side, dtype=torch.float64) + 0.5) * step
    offsets = torch.cartesian_prod(inside, inside).reshape(-1, 2)
    squares = dark_squares().double()
    means = (squares[:, None] + offsets).reshape(-1, 2)
    return Mixture(means, (0.6 * step if std is None else std) * tight)


def dark_squares() -> Float[Tensor, "squares 2"]:
    """Lower left corners of the eight dark squares of the board on [-4, 4]^2.

    >>> dark_squares().shape, dark_squares()[0].tolist()
    (torch.Size([8, 2]), [-4.0, -4.0])
    """
    corners = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    return 2 * torch.tensor(corners, dtype=torch.get_default_dtype()) - 4
