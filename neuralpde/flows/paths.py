"""Probability paths: what lies between a source x0 at t = 0 and a target x1 at t = 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Time = float | Float[Tensor, ""] | Float[Tensor, " points"]
"""One time for all points, or one for each."""


class Sample(NamedTuple):
    """A point of a path between two ends, and what networks are trained on there.

    Attributes:
        t: times, as a column that broadcasts against x.
        x: the point.
        u: conditional velocity u_t(x | x0, x1), the target of flow matching.
        score: grad log p_t(x | x0, x1); None where the path has no noise.
        noise: the standard normal numbers that x was made of; None where there are none.

    >>> ends = torch.zeros(1, 2), torch.ones(1, 2)
    >>> at = BrownianBridge(1.0).sample(*ends, 0.5)
    >>> at.x.shape, bool((at.u == 1).all())
    (torch.Size([1, 2]), True)
    """

    t: Tensor
    x: Tensor
    u: Tensor
    score: Tensor | None
    noise: Tensor | None


class Coefficients(NamedTuple):
    """What an isotropic path is made of, x_t = a x0 + b x1 + s z, and the derivatives in t.

    >>> bridge = BrownianBridge(1.0).coefficients(torch.tensor(0.5))
    >>> [round(c.item(), 6) for c in bridge]
    [0.5, 0.5, 0.5, -1.0, 1.0, 0.0]
    """

    a: Tensor
    b: Tensor
    s: Tensor
    da: Tensor
    db: Tensor
    ds: Tensor


class Path(ABC):
    """A Gaussian law of x_t for every pair of ends, p_t(x | x0, x1).

    Points lie along the first axis; times are one for all points or `[points]`.

    >>> BrownianBridge(1.0, cut=0.1).ends
    (0.1, 0.9)
    """

    @property
    def ends(self) -> tuple[float, float]:
        """Times between which velocity and score are finite; nothing is clamped beyond them."""
        return 0.0, 1.0

    @abstractmethod
    def mean(self, t: Time, x0: Tensor, x1: Tensor) -> Tensor:
        """The mean of x_t."""

    @abstractmethod
    def spread(self, t: Time, z: Tensor) -> Tensor:
        """A square root of the covariance of x_t, applied to z."""

    @abstractmethod
    def velocity(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional velocity u_t(x | x0, x1)."""

    @abstractmethod
    def score(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional score grad log p_t(x | x0, x1)."""

    @abstractmethod
    def entropy_rate(self, t: Float[Tensor, " times"], dim: int) -> Float[Tensor, " times"]:
        """The rate d/dt H(x_t | x0, x1), nats, float64, of a state of so many numbers."""

    @property
    def noisy(self) -> bool:
        """Whether x_t is random when both ends are known."""
        return True

    def check(self, times: Tensor) -> None:
        """Refuse times outside `ends`, where something is infinite.

        Raises:
            ValueError: naming the times.
        """
        low, high = self.ends
        first, last = low - EDGE * low, high + EDGE * (1 - high)
        if not bool(((times >= first) & (times <= last)).all()):
            raise ValueError(
                f"times reach from {float(times.min()):g} to {float(times.max()):g}; "
                f"{type(self).__name__} has finite velocities in [{low:g}, {high:g}]"
            )

    def sample(
        self,
        x0: Float[Tensor, "points ..."],
        x1: Float[Tensor, "points ..."],
        t: Time,
        generator: torch.Generator | None = None,
    ) -> Sample:
        """Draw a point of the path between two ends, with its velocity and score.

        Args:
            x0: source.
            x1: target, of the same shape.
            t: one time, or `[points]`.
            generator: of the noise.

        Raises:
            ValueError: for ends of different shapes, or times outside `ends`.
        """
        if x0.shape != x1.shape:
            raise ValueError(f"x0 is {tuple(x0.shape)} and x1 is {tuple(x1.shape)}; pair them up")
        times = torch.as_tensor(t, dtype=x0.dtype, device=x0.device)
        if times.dim() > 1 or (times.dim() == 1 and len(times) != len(x0)):
            raise ValueError(f"times are {tuple(times.shape)}; give one, or [{len(x0)}]")
        self.check(times)
        x = self.mean(times, x0, x1)
        z = None
        if self.noisy:
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + self.spread(times, z)
        u = self.velocity(times, x, x0, x1)
        score = self.score(times, x, x0, x1) if self.noisy else None
        return Sample(column(times, x), x, u, score, z)


EDGE = 1e-2
"""Slack of times, as a part of the cut: single precision rounds a time at the end beyond it."""


@dataclass(frozen=True)
class Isotropic(Path):
    """A path x_t = a(t) x0 + b(t) x1 + s(t) z with the same noise for every number of the state.

    The velocity is `a' x0 + b' x1 + (s'/s) (x - a x0 - b x1)`, the score `-(x - mean) / s^2`, the
    entropy rate `dim s'/s`. Subclasses give `coefficients`.

    >>> x0, x1 = torch.zeros(1, 1), torch.ones(1, 1)
    >>> BrownianBridge(1.0).velocity(0.5, torch.tensor([[3.0]]), x0, x1).item()
    1.0
    """

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """a, b, s and their derivatives, of the shape of t."""

    def mean(self, t: Time, x0: Tensor, x1: Tensor) -> Tensor:
        """The mean a x0 + b x1."""
        c = self._at(t, x0)
        return c.a * x0 + c.b * x1

    def spread(self, t: Time, z: Tensor) -> Tensor:
        """The noise s z."""
        return self._at(t, z).s * z

    def velocity(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional velocity."""
        c = self._at(t, x)
        along = c.da * x0 + c.db * x1
        return along + c.ds / c.s * (x - c.a * x0 - c.b * x1) if self.noisy else along

    def score(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional score."""
        c = self._at(t, x)
        return (c.a * x0 + c.b * x1 - x) / c.s**2

    def entropy_rate(self, t: Float[Tensor, " times"], dim: int) -> Float[Tensor, " times"]:
        """The rate dim s'/s."""
        c = self.coefficients(t.double())
        return dim * c.ds / c.s

    def _at(self, t: Time, x: Tensor) -> Coefficients:
        times = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        return Coefficients(*(column(c.to(x.dtype), x) for c in self.coefficients(times)))


@dataclass(frozen=True)
class BrownianBridge(Isotropic):
    """A Brownian motion tied down at both ends, N((1 - t) x0 + t x1, sigma^2 t (1 - t)).

    Args:
        sigma: noise of the motion, positive.
        cut: distance of the first and the last time from the ends, where the velocity
            `x1 - x0 + (1 - 2t) / (2t (1 - t)) (x - mean)` is infinite.

    Raises:
        ValueError: unless sigma is positive and 0 < cut < 1/2.

    References:
        Tong et al., Simulation-free Schroedinger bridges via score and flow matching, AISTATS
        2024, arXiv:2307.03672.

    >>> bridge = BrownianBridge(2.0)
    >>> bridge.coefficients(torch.tensor(0.5)).s.item()
    1.0
    >>> bridge.entropy_rate(torch.tensor([0.25]), 3).item()
    4.0
    """

    sigma: float = 1.0
    cut: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse noise or a cut that is none."""
        if not self.sigma > 0 or not 0 < self.cut < 0.5:
            raise ValueError(
                f"sigma={self.sigma}, cut={self.cut}: sigma must be positive (a path without noise "
                "is Linear()), cut between 0 and 1/2"
            )

    @property
    def ends(self) -> tuple[float, float]:
        """The times `cut` and `1 - cut`."""
        return self.cut, 1 - self.cut

    def coefficients(self, t: Tensor) -> Coefficients:
        """The bridge's mean and standard deviation, with their slopes."""
        one = torch.ones_like(t)
        s = self.sigma * (t * (1 - t)).sqrt()
        return Coefficients(1 - t, t, s, -one, one, self.sigma**2 * (1 - 2 * t) / (2 * s))


def column(values: Tensor, x: Tensor) -> Tensor:
    """A number, or one for each point, as what broadcasts against a state.

    >>> column(torch.tensor([1.0, 2.0]), torch.ones(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    return values.reshape(-1, *[1] * (x.dim() - 1)) if values.dim() else values
