"""The exact law of a path between two mixtures: velocity and score without any training."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.flows.mixtures import Mixture
from neuralpde.flows.models import Heads, Model
from neuralpde.flows.paths import Isotropic

ROWS = 1 << 22
"""Numbers handled at once where rates of entropy are summed up."""


class Moments(NamedTuple):
    """The laws of x_t for all pairs (i, j) of components.

    The first axis is of times: one for all points, or one for each.

    Attributes:
        mean: `[times, pairs, dim]`.
        slope: Of the mean, in t.
        var: `[times, pairs]`.
        half: Half the slope of the variance.

    >>> Moments._fields
    ('mean', 'slope', 'var', 'half')
    """

    mean: Tensor
    slope: Tensor
    var: Tensor
    half: Tensor


class MixtureFlow(Model):
    """The marginal law of an isotropic path between two mixtures, coupled independently.

    A pair of components (i, j) has `x_t ~ N(m, V I)` with `m = a m_i + b m_j` and
    `V = a^2 std_i^2 + b^2 std_j^2 + s^2`, and the law is the mixture of these:

        v = sum r (m' + V' / 2V (x - m)),   score = -sum r (x - m) / V

    with the probabilities r of the pairs at x. No network, no error of a model: what a sampler
    misses is the error of its steps.

    Args:
        source: The law at t = 0.
        target: The law at t = 1, of the same dimension.
        path: The path.
        sigma: See `Model`.

    Raises:
        ValueError: For different dimensions; in evaluations, for times outside `path.ends`.

    >>> from neuralpde.flows.linear import Linear
    >>> from neuralpde.flows.mixtures import normal
    >>> flow = MixtureFlow(normal(1), normal(1, mean=2.0), Linear())
    >>> flow.velocity(torch.tensor(0.5), torch.ones(1, 1)).item()
    2.0
    """

    def __init__(
        self, source: Mixture, target: Mixture, path: Isotropic, sigma: float | None = None
    ) -> None:
        super().__init__()
        if source.dim != target.dim:
            raise ValueError(f"the source has {source.dim} dimensions, the target {target.dim}")
        self.path, self.sigma, self.dim = path, sigma, source.dim
        pairs = len(source.means), len(target.means)
        first = torch.arange(pairs[0]).repeat_interleave(pairs[1])
        last = torch.arange(pairs[1]).repeat(pairs[0])
        for name, value in (
            ("means0", source.means[first]),
            ("means1", target.means[last]),
            ("var0", source.stds[first] ** 2),
            ("var1", target.stds[last] ** 2),
            ("weights", source.weights[first] * target.weights[last]),
        ):
            self.register_buffer(name, value.double(), persistent=False)

    means0: Tensor
    means1: Tensor
    var0: Tensor
    var1: Tensor
    weights: Tensor

    def moments(self, t: Tensor) -> Moments:
        """The laws of all pairs, float64."""
        times = t.detach().double().reshape(-1)
        self.path.check(times)
        a, b, s, da, db, ds = (one[:, None] for one in self.path.coefficients(times))
        return Moments(
            a[..., None] * self.means0 + b[..., None] * self.means1,
            da[..., None] * self.means0 + db[..., None] * self.means1,
            a**2 * self.var0 + b**2 * self.var1 + s**2,
            a * da * self.var0 + b * db * self.var1 + s * ds,
        )

    def both(self, t: Tensor, x: Float[Tensor, "points dim"]) -> Heads:
        """Velocity and score."""
        at = self._moments(t, x)
        return self._heads(at, self._logs(at, x)[0].softmax(1), x)

    def divergence(self, t: Tensor, x: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
        """The divergence of the velocity, `sum r (k dim + <u, s>) - <v, score>`.

        Here r, u and s are share, velocity and score of each pair, and `k = V' / 2V`.
        """
        at = self._moments(t, x)
        logs, square = self._logs(at, x)
        share = logs.softmax(1)
        v, score = self._heads(at, share, x)
        along = (x[:, None] @ at.slope.mT)[:, 0] - (at.mean * at.slope).sum(-1)
        growth = at.half / at.var
        turned = (along + growth * square) / at.var
        return (share * (self.dim * growth - turned)).sum(1) - (v * score).sum(1)

    def log_density(self, t: Tensor, x: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
        """The logarithm of the density of x_t."""
        return self._logs(self._moments(t, x), x)[0].logsumexp(1)

    def law(self, t: float) -> Mixture:
        """The law of x_t, as a mixture."""
        at = self.moments(torch.tensor(t, dtype=torch.float64))
        return Mixture(at.mean[0], at.var[0].sqrt(), self.weights)

    def entropy_rate(
        self,
        times: Float[Tensor, " times"],
        *,
        order: int = 16,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " times"]:
        """The rate d/dt H(x_t) = E[div v(x_t)], nats, float64.

        By Gauss and Hermite's rule for every pair of components, `order^dim` points each, or, in
        more than three dimensions, by random points. Where components overlap the rule converges
        slowly: three digits are usual, all of them where they are far apart.

        Args:
            times: Within `path.ends`.
            order: Of the rule, along each axis.
            samples: Random points instead.
            generator: Of the random points.

        Raises:
            ValueError: For a rule in more than three dimensions.

        >>> from neuralpde.flows.linear import Linear
        >>> from neuralpde.flows.mixtures import normal
        >>> flow = MixtureFlow(normal(2), normal(2, std=3.0), Linear())
        >>> round(flow.entropy_rate(torch.tensor([0.5])).item(), 9)  # V = 10/4, V' = 8: 8 / V
        3.2
        """
        if samples is None and self.dim > 3:
            raise ValueError(
                f"a rule of {order}^{self.dim} points for each pair is too much: give samples="
            )
        return torch.stack([self._rate(t, order, samples, generator) for t in times.double()])

    def _rate(
        self, t: Tensor, order: int, samples: int | None, generator: torch.Generator | None
    ) -> Tensor:
        if samples is not None:
            x = self.law(float(t)).sample(samples, generator)
            weights = x.new_full((samples,), 1 / samples)
        else:
            at = self.moments(t)
            nodes, rule = (one.to(at.mean) for one in _hermite(order, self.dim))
            spread = at.var[0].sqrt()[:, None, None]
            x = (at.mean[0][:, None] + spread * nodes).reshape(-1, self.dim)
            weights = (self.weights[:, None] * rule).reshape(-1)
        size = max(1, ROWS // (len(self.weights) * self.dim))
        pieces = zip(x.split(size), weights.split(size), strict=True)
        return torch.stack([w @ self.divergence(t, piece) for piece, w in pieces]).sum()

    def _moments(self, t: Tensor, x: Tensor) -> Moments:
        return Moments(*(one.to(x.dtype) for one in self.moments(t)))

    def _logs(self, at: Moments, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities of the pairs with their weights, and squared distances to their means."""
        # Axis by axis: differences of all pairs in all axes at once would be the largest tensor.
        square = torch.zeros_like(x[:, :1])
        for k in range(self.dim):
            square = square + (x[:, k, None] - at.mean[..., k]).square()
        scale = self.weights.to(x.dtype).log() - 0.5 * self.dim * torch.log(2 * math.pi * at.var)
        return scale - square / (2 * at.var), square

    @staticmethod
    def _heads(at: Moments, share: Tensor, x: Tensor) -> Heads:
        grown, pulled = share * (at.half / at.var), share / at.var
        v = _mean(share, at.slope) + grown.sum(1, keepdim=True) * x - _mean(grown, at.mean)
        return Heads(v, _mean(pulled, at.mean) - pulled.sum(1, keepdim=True) * x)


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    """Sums over the pairs, `[points, dim]`, of values at one time or at the points' own."""
    return weights @ values[0] if len(values) == 1 else (weights[:, None] @ values)[:, 0]


def _hermite(order: int, dim: int) -> tuple[Tensor, Tensor]:
    """Points `[order^dim, dim]` and weights of the rule for the standard normal law."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(order))
    grid = torch.cartesian_prod(*[nodes] * dim).reshape(-1, dim)
    rule = torch.cartesian_prod(*[weights / weights.sum()] * dim).reshape(-1, dim)
    return grid, rule.prod(1)
