"""What a sampler needs to know of a law that moves: the marginal velocity and score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from neuralpde.fields.field import Field
from neuralpde.flows.conversions import score_from_velocity, velocity_from_score
from neuralpde.flows.paths import Isotropic, column

Function = Callable[[Tensor, Any], Any]
"""A function of time and state; a `Field` or an `nn.Module` where it has parameters."""


class Heads(NamedTuple):
    """Velocity and score at one time and state.

    >>> import torch
    >>> Heads(torch.zeros(1), torch.ones(1)).score.item()
    1.0
    """

    velocity: Tensor
    score: Tensor


class Model(Field):
    """A law p_t that moves, as its velocity v and its score s = grad log p_t.

    As a field it is the probability flow dx/dt = v(t, x). A subclass gives `both`, one evaluation.
    The time is 0-d, or a column with one entry for each point.

    Attributes:
        sigma: The noise of the bridge whose marginals these are, where there is one;
            `StochasticSampler` takes it by default.

    >>> import torch
    >>> x = torch.tensor([[2.0]])
    >>> still = Pair(lambda t, x: 0 * x, lambda t, x: -x)  # N(0, 1) at all times
    >>> still.both(torch.tensor(0.5), x).score.item()
    -2.0
    """

    batched_time = True
    needs_graph = False
    sigma: float | None = None

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """Velocity and score; override this."""
        raise TypeError(f"{type(self).__name__} gives no velocity and score: define both(t, x)")

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity alone."""
        return self.both(t, x).velocity

    def score(self, t: Tensor, x: Tensor) -> Tensor:
        """The score alone."""
        return self.both(t, x).score

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity, as dx/dt."""
        return self.velocity(t, x)


class Pair(Model):
    """A velocity and a score that were given, or learned, apart.

    Args:
        velocity: v(t, x).
        score: s(t, x).
        sigma: See `Model`.

    >>> import torch
    >>> pair = Pair(lambda t, x: x, lambda t, x: -x)
    >>> pair.bind(None, torch.ones(1))(torch.tensor(0.0), torch.ones(1)).item()
    1.0
    """

    def __init__(self, velocity: Function, score: Function, sigma: float | None = None) -> None:
        super().__init__()
        self.velocities, self.scores, self.sigma = velocity, score, sigma

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """Both functions."""
        return Heads(self.velocities(t, x), self.scores(t, x))

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity alone, one evaluation."""
        v: Tensor = self.velocities(t, x)
        return v

    def score(self, t: Tensor, x: Tensor) -> Tensor:
        """The score alone, one evaluation."""
        s: Tensor = self.scores(t, x)
        return s


class Drifts(Model):
    """The law of a diffusion known by its drifts in both directions of time.

    `dx = f dt + sigma dW` forward and `dx = b dt + sigma dW` backward have the same law when
    `v = (f + b) / 2` and `s = (f - b) / sigma^2`.

    Args:
        forward: f(t, x).
        backward: b(t, x).
        sigma: The noise, positive.

    Raises:
        ValueError: Without noise.

    References:
        Nelson, Dynamical theories of Brownian motion, 1967; Anderson, Stochastic Process. Appl. 12
        (1982), 313.

    >>> import torch
    >>> settled = Drifts(lambda t, x: -x, lambda t, x: x, 2**0.5)  # Ornstein-Uhlenbeck, N(0, 1)
    >>> v, s = settled.both(torch.tensor(0.0), torch.tensor([3.0]))
    >>> v.item(), round(s.item(), 6)
    (0.0, -3.0)
    """

    def __init__(self, forward: Function, backward: Function, sigma: float) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma={sigma}: both drifts tell the score only where there is noise")
        self.onward, self.back, self.sigma = forward, backward, float(sigma)

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """Mean and difference of the drifts."""
        assert self.sigma is not None
        f, b = self.onward(t, x), self.back(t, x)
        return Heads(0.5 * (f + b), (f - b) / self.sigma**2)


class FromVelocity(Model):
    """The law of a path from standard normal noise, known by its velocity alone.

    Args:
        velocity: v(t, x).
        path: The path; see `score_from_velocity`.

    >>> import torch
    >>> from neuralpde.flows.linear import Linear
    >>> FromVelocity(lambda t, x: 0 * x, Linear()).both(torch.tensor(0.5), torch.ones(1, 1)).score
    tensor([[-2.]])
    """

    def __init__(self, velocity: Function, path: Isotropic) -> None:
        super().__init__()
        self.velocities, self.path = velocity, path

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """The velocity, and the score it implies."""
        v = self.velocities(t, x)
        return Heads(v, score_from_velocity(self.path, t, x, v))

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity alone, also where the score is infinite."""
        v: Tensor = self.velocities(t, x)
        return v


class FromScore(Model):
    """The law of a path from standard normal noise, known by its score alone.

    Args:
        score: s(t, x).
        path: The path; see `velocity_from_score`.

    >>> import torch
    >>> from neuralpde.flows.linear import Linear
    >>> law = FromScore(lambda t, x: -2 * x, Linear())
    >>> law.velocity(torch.tensor(0.5), torch.ones(1, 1)).item()
    0.0
    """

    def __init__(self, score: Function, path: Isotropic) -> None:
        super().__init__()
        self.scores, self.path = score, path

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """The score, and the velocity it implies."""
        s = self.scores(t, x)
        return Heads(velocity_from_score(self.path, t, x, s), s)


class Learned(Model):
    """A network with two heads, trained by `bridge_loss`: the velocity, and the score times s.

    The second head learns `-z`, the noise of `x_t = mean + s z` with its sign changed, which has
    the same size at all times; the score is that head divided by `s(t)`.

    Args:
        network: A function of time and state with twice as many channels as the state has: first
            the velocity, then the second head. A `Field` where it needs the graph.
        path: The path it is trained on, with noise.
        sigma: See `Model`.

    Raises:
        ValueError: For a path without noise.

    >>> import torch
    >>> from neuralpde.flows.paths import BrownianBridge
    >>> model = Learned(lambda t, x: torch.cat([x, -x], 1), BrownianBridge(1.0), sigma=1.0)
    >>> model.both(torch.tensor(0.5), torch.ones(1, 1))
    Heads(velocity=tensor([[1.]]), score=tensor([[-2.]]))
    """

    def __init__(
        self, network: nn.Module | Function, path: Isotropic, sigma: float | None = None
    ) -> None:
        super().__init__()
        if not path.noisy:
            raise ValueError(
                f"{path!r} has no noise whose score a second head could learn: train a velocity "
                "alone, and see FromVelocity for its score"
            )
        self.network, self.path, self.sigma = network, path, sigma

    def heads(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and second head, as they are trained."""
        v, head = self.network(t, x).chunk(2, dim=-1)
        return v, head

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """Velocity and score."""
        v, head = self.heads(t, x)
        times = t.double()
        self.path.check(times)
        s = self.path.coefficients(times).s.to(x.dtype)
        return Heads(v, head / column(s, x))

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity alone."""
        return self.heads(t, x)[0]
