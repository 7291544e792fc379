"""Paths of diffusion models: noise at t = 0, data at t = 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.flows.paths import Coefficients, Isotropic


@dataclass(frozen=True)
class Diffusing(Isotropic):
    """A path `x_t = alpha(t) x1 + sigma(t) z` from noise to data; subclasses give both.

    The source is the noise itself: x0 does not enter (`a = 0`), and whatever stands there is
    ignored. `alpha` grows to 1 and `sigma` falls to 0, where the score is infinite; so the path
    ends at `1 - cut`.

    Args:
        cut: Distance of the last time from 1.

    Raises:
        ValueError: Unless 0 < cut < 1.

    References:
        Song et al., Score-based generative modeling through stochastic differential equations,
        ICLR 2021, arXiv:2011.13456; Albergo, Boffi, Vanden-Eijnden, Stochastic interpolants,
        arXiv:2303.08797.

    >>> path, data = CosinePath(), torch.ones(1, 1)
    >>> round(path.velocity(0.5, 2**0.5 * data, 0 * data, data).item(), 4)  # z = 1: pi/2 (1 - 1)
    0.0
    """

    cut: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse a cut that is none."""
        if not 0 < self.cut < 1:
            raise ValueError(f"cut={self.cut}: the score is infinite at t = 1; cut in (0, 1)")

    @property
    def ends(self) -> tuple[float, float]:
        """The times 0 and `1 - cut`."""
        return 0.0, 1 - self.cut


@dataclass(frozen=True)
class CosinePath(Diffusing):
    """The cosine path, `alpha = sin(pi t / 2)`, `sigma = cos(pi t / 2)`.

    Args:
        cut: Distance of the last time from 1.

    References:
        Nichol and Dhariwal, Improved denoising diffusion probabilistic models, ICML 2021,
        arXiv:2102.09672, without their offset; Albergo and Vanden-Eijnden, arXiv:2209.15571.

    >>> c = CosinePath().coefficients(torch.tensor(0.5).double())
    >>> round((c.b**2 + c.s**2).item(), 12)
    1.0
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """Sine and cosine, with their slopes."""
        quarter = math.pi / 2
        b, s, zero = torch.sin(quarter * t), torch.cos(quarter * t), torch.zeros_like(t)
        return Coefficients(zero, b, s, zero, quarter * s, -quarter * b)


@dataclass(frozen=True)
class VariancePreserving(Diffusing):
    """The path of a diffusion `dX = -beta X / 2 dr + sqrt(beta) dW` in the reversed time r = 1 - t.

    `alpha^2 = exp(-beta_min r - (beta_max - beta_min) r^2 / 2)`, `sigma^2 = 1 - alpha^2`. At t = 0
    a rest of the data is left: alpha = 0.0066 for the defaults, so that a standard normal source
    is not quite the law there.

    Args:
        cut: Distance of the last time from 1.
        beta_min: Rate at the data, positive.
        beta_max: Rate at the noise, positive.

    Raises:
        ValueError: For rates that are not positive, or a cut outside (0, 1).

    References:
        Song et al., ICLR 2021, arXiv:2011.13456.

    >>> c = VariancePreserving().coefficients(torch.tensor(0.0).double())
    >>> round(c.b.item(), 4), round((c.b**2 + c.s**2).item(), 12)
    (0.0066, 1.0)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        super().__post_init__()
        if not (self.beta_min > 0 and self.beta_max > 0):
            raise ValueError(f"rates {self.beta_min}, {self.beta_max}: both must be positive")

    def coefficients(self, t: Tensor) -> Coefficients:
        """Signal and noise, with their slopes."""
        r, growth = 1 - t, self.beta_max - self.beta_min
        log_b = -0.5 * self.beta_min * r - 0.25 * growth * r**2
        slope = 0.5 * (self.beta_min + growth * r)
        b, s, zero = log_b.exp(), (-torch.expm1(2 * log_b)).sqrt(), torch.zeros_like(t)
        return Coefficients(zero, b, s, zero, slope * b, -slope * b**2 / s)
