"""Samplers as fields: the probability flow, and diffusions with the same marginals."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neuralpde.fields.field import Field
from neuralpde.flows.models import Function, Model
from solvers.noise import NoiseTerm

Level = float | Callable[[Tensor], float | Tensor]
"""A noise level g: a number, or a function of time."""


class ProbabilityFlow(Field):
    """The ordinary differential equation dx/dt = v(t, x), which carries p_0 to p_1.

    Args:
        velocity: v(t, x): a function, a network, a field, or a `Model`, which is one already.

    Attributes:
        batched_time: That of the velocity; a plain function reads one time for all.

    References:
        Song et al., ICLR 2021, arXiv:2011.13456; Lipman et al., ICLR 2023,
        arXiv:2210.02747.

    >>> import torch
    >>> from neuralpde import solve
    >>> shift = ProbabilityFlow(lambda t, x: torch.full_like(x, 3.0))
    >>> solve(shift, torch.zeros(1, 1), (0.0, 1.0), solver="euler", steps=2).final.item()
    3.0
    """

    needs_graph = False

    def __init__(self, velocity: Function) -> None:
        super().__init__()
        self.velocity = velocity
        self.batched_time = bool(getattr(velocity, "batched_time", False))

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity."""
        v: Tensor = self.velocity(t, x)
        return v


class StochasticSampler(Field):
    """A stochastic sampler `dx = (v + g^2 s / 2) dt + g dW`, which has the marginals of dx/dt = v.

    For any noise level g(t); the level of the bridge itself, its sigma, gives the law of whole
    paths too. In falling time (`solve` from 1 to 0) the drift is `v - g^2 s / 2`: say `backward`.

    Solve it between the ends of the path, on a fixed grid: `solve(StochasticSampler(model),
    x0, path.ends, solver="stochastic_heun", steps=n, schedule=..., generator=...)`; generators in
    the same state give the same Brownian path on every grid. Where g is a function, solvers count
    its evaluations in `nfe` too.

    Args:
        model: Velocity and score.
        noise: g: a number, or a function of time; the model's `sigma` by default.
        backward: Whether time falls.

    Raises:
        ValueError: For a negative noise, and for none where the model has no sigma.

    References:
        Song et al., ICLR 2021, arXiv:2011.13456; Tong et al., AISTATS 2024,
        arXiv:2307.03672.

    >>> import torch
    >>> from neuralpde.flows.models import Pair
    >>> still = Pair(lambda t, x: 0 * x, lambda t, x: -x)  # N(0, 1) at all times
    >>> onward = StochasticSampler(still, noise=2.0).bind(None, torch.ones(1))
    >>> onward(torch.tensor(0.5), torch.ones(1)).item(), onward.noise.values()
    (-2.0, (2.0,))
    """

    needs_graph = False

    def __init__(self, model: Model, noise: Level | None = None, *, backward: bool = False) -> None:
        super().__init__()
        level = model.sigma if noise is None else noise
        if level is None:
            raise ValueError(
                f"{type(model).__name__} is of no bridge with a sigma: give noise=, a number or a "
                "function g(t)"
            )
        if not callable(level) and not level >= 0:
            raise ValueError(f"noise is {level!r}; a level is not negative")
        self.model, self.level, self.backward = model, level, backward
        self.batched_time = model.batched_time

    def inherited_noise(self) -> NoiseTerm:
        """The noise g(t) dW."""
        return NoiseTerm(self.level)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The drift."""
        g = self.level(t) if callable(self.level) else self.level
        v, s = self.model.both(t, x)
        half = 0.5 * g**2
        return v - half * s if self.backward else v + half * s

    def extra_repr(self) -> str:
        """The level and the direction."""
        return f"noise={self.level!r}, backward={self.backward}"
