"""The exact law of a path between two normal laws in any coupling: Schroedinger's among them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.flows.models import Heads, Model
from neuralpde.flows.paths import Isotropic, column


def schroedinger_covariance(std0: float, std1: float, sigma: float) -> float:
    """Cov(x0, x1) of the Schroedinger bridge between N(m0, std0^2) and N(m1, std1^2).

    `c = (sqrt(4 std0^2 std1^2 + sigma^4) - sigma^2) / 2`, of the coupling closest to Brownian
    motion with noise sigma on [0, 1]: entropic optimal transport with regularisation 2 sigma^2.

    References:
        Janati, Muzellec, Peyre, Cuturi, Entropic optimal transport between unbalanced Gaussian
        measures has a closed form, NeurIPS 2020, arXiv:2006.02572; Bunne, Hsieh, Cuturi, Krause,
        The Schroedinger bridge between Gaussian measures has a closed form, AISTATS 2023,
        arXiv:2202.05722.

    >>> schroedinger_covariance(1.0, 1.0, 0.0), round(schroedinger_covariance(1.0, 1.0, 1.0), 6)
    (1.0, 0.618034)
    """
    root = math.sqrt(4 * std0**2 * std1**2 + sigma**4)
    return 2 * std0**2 * std1**2 / (root + sigma**2)


class GaussianFlow(Model):
    """The marginal law of an isotropic path between N(m0, std0^2 I) and N(m1, std1^2 I).

    Coordinates are alike and independent, with `Cov(x0, x1) = cov` in each. Then
    `x_t ~ N(m, V)` with `m = a m0 + b m1`, `V = a^2 std0^2 + b^2 std1^2 + 2 a b cov + s^2`, and

        v = m' + V' / 2V (x - m),   score = -(x - m) / V

    With `cov = schroedinger_covariance(std0, std1, sigma)` on a `BrownianBridge(sigma)` it is the
    Schroedinger bridge; with 0 it has the same ends, but another coupling of them.

    Args:
        mean0: Mean of the source: a number, or `[dim]`.
        std0: Standard deviation of the source.
        mean1: Mean of the target.
        std1: Standard deviation of the target.
        path: The path.
        cov: Covariance of the ends, at most `std0 std1` in size.
        sigma: See `Model`.

    Raises:
        ValueError: For spreads that are not positive, or too large a covariance; in evaluations,
            for times outside `path.ends`.

    >>> from neuralpde.flows.linear import Linear
    >>> flow = GaussianFlow(0.0, 1.0, 3.0, 2.0, Linear())
    >>> flow.carry(0.0, 1.0, torch.tensor([1.0])).item()  # 3 + 2 x
    5.0
    """

    def __init__(
        self,
        mean0: float | Tensor,
        std0: float,
        mean1: float | Tensor,
        std1: float,
        path: Isotropic,
        cov: float = 0.0,
        sigma: float | None = None,
    ) -> None:
        super().__init__()
        if not (std0 > 0 and std1 > 0 and abs(cov) <= std0 * std1):
            raise ValueError(
                f"std0={std0}, std1={std1}, cov={cov}: spreads are positive, and the covariance is "
                "at most their product in size"
            )
        self.means = torch.as_tensor(mean0).double(), torch.as_tensor(mean1).double()
        self.stds, self.cov, self.path, self.sigma = (std0, std1), cov, path, sigma

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The mean `[times, dim or 1]` and the variance `[times]` of x_t, float64."""
        mean, _, var, _ = self._moments(t)
        return mean, var

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """Velocity and score."""
        mean, slope, var, half = (one.to(x) for one in self._moments(t))
        off = x - mean
        return Heads(slope + column(half / var, x) * off, -off / column(var, x))

    def divergence(self, t: Tensor, x: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
        """The divergence of the velocity, `dim V' / 2V`."""
        _, _, var, half = (one.to(x) for one in self._moments(t))
        return (x.shape[-1] * half / var).expand(len(x))

    def log_density(self, t: Tensor, x: Float[Tensor, "points dim"]) -> Float[Tensor, " points"]:
        """The logarithm of the density of x_t."""
        mean, var = (one.to(x) for one in self.moments(t))
        scale = x.shape[-1] * torch.log(2 * math.pi * var)
        return -0.5 * ((x - mean).square().sum(-1) / var + scale)

    def entropy_rate(self, t: Float[Tensor, " times"], dim: int) -> Float[Tensor, " times"]:
        """The rate d/dt H(x_t) = dim V' / 2V, nats, float64."""
        _, _, var, half = self._moments(t)
        return dim * half / var

    def carry(self, start: float, end: float, x: Tensor) -> Tensor:
        """The flow map of the velocity, `m_end + sqrt(V_end / V_start) (x - m_start)`."""
        mean, var = (one.to(x) for one in self.moments(torch.tensor([start, end]).double()))
        return mean[1] + (var[1] / var[0]).sqrt() * (x - mean[0])

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        times = t.detach().double().reshape(-1)
        self.path.check(times)
        a, b, s, da, db, ds = self.path.coefficients(times)
        (m0, m1), (std0, std1) = (m.to(times.device) for m in self.means), self.stds
        var = a**2 * std0**2 + b**2 * std1**2 + 2 * a * b * self.cov + s**2
        half = a * da * std0**2 + b * db * std1**2 + (a * db + da * b) * self.cov + s * ds
        mean = a[:, None] * m0 + b[:, None] * m1
        return mean, da[:, None] * m0 + db[:, None] * m1, var, half
