"""Steps of stochastic fields, dX = f(t, X) dt + g(t, X) dW, on fixed grids."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from solvers.brownian import Brownian
from solvers.explicit import combine
from solvers.flow import Flow
from solvers.increments import Increments
from solvers.noise import NoiseTerm
from solvers.normals import check_seed
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper

SEEDS = 2**63 - 1
"""Seeds drawn from a generator are below this."""


def drawn_seed(generator: torch.Generator | None = None) -> int:
    """One draw from a generator, or from torch's own.

    >>> drawn_seed(torch.Generator().manual_seed(1)) == drawn_seed(torch.Generator().manual_seed(1))
    True
    """
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(SEEDS, (), generator=generator, device=device))


class Drivers:
    """The noise of a state: Brownian paths, or increments, for every entry of every part.

    Args:
        seed: A number, or one for each graph; see `Brownian`.
        rows: How rows belong to graphs.
        like: A state: its shapes, device and dtype are those of the increments.
        shared: Whether other grids meet the same path.

    >>> drivers = Drivers(1, Rows(), (torch.zeros(2),))
    >>> zero, one, two = (np.array([t]) for t in (0.0, 1.0, 2.0))
    >>> first, second = drivers(zero, one)[0], drivers(one, two)[0]
    >>> torch.allclose(drivers(zero, two)[0], first + second)
    True
    """

    def __init__(
        self, seed: int | Sequence[int], rows: Rows, like: State, shared: bool = True
    ) -> None:
        self.seed, self.rows = seed, rows
        self._kind = Brownian if shared else Increments
        self._like = tuple(part.detach()[:0] if part.dim() else part.detach() for part in like)
        self._shapes = [tuple(part.shape) for part in like]
        self._nodes = [self._shapes[0][0] if self._shapes[0] else 1]
        if rows.batch is not None:
            self._nodes = torch.bincount(rows.batch, minlength=rows.num_graphs).tolist()
        self._together = [
            self._kind(seed, shape, nodes=self._nodes if shape else None, part=k)
            for k, shape in enumerate(self._shapes)
        ]
        self._alone: dict[int, list[Brownian | Increments]] = {}

    def __call__(self, start: np.ndarray, end: np.ndarray) -> State:
        """W(end) - W(start) from the clocks' `start` to their `end`; clocks that stay get 0."""
        going = start != end
        times = np.unique(np.stack([start[going], end[going]]), axis=1)
        if times.shape[1] == 1:
            first, last = times[:, 0].tolist()
            whole = tuple(path.increment(first, last) for path in self._together)
            if not going.all():
                whole = self.rows.select(going, whole, tuple(0 * one for one in whole))
        else:
            whole = tuple(
                torch.zeros(shape, dtype=torch.float64, device="cpu") for shape in self._shapes
            )
            ends = np.cumsum(self._nodes)
            for g in np.flatnonzero(going):
                for one, path in zip(whole, self._of(int(g)), strict=True):
                    own = path.increment(float(start[g]), float(end[g]))
                    one[ends[g] - self._nodes[g] : ends[g]] = own
        return tuple(one.to(part) for one, part in zip(whole, self._like, strict=True))

    def _of(self, g: int) -> list[Brownian | Increments]:
        """The paths of one graph, which keeps its own time."""
        if g not in self._alone:
            seed, first = self.seed, sum(self._nodes[:g])
            if not isinstance(seed, int):
                seed, first = seed[g], 0
            self._alone[g] = [
                self._kind(seed, (self._nodes[g], *shape[1:]), part=k, first=first)
                for k, shape in enumerate(self._shapes)
            ]
        return self._alone[g]


@dataclass(frozen=True)
class Stretch:
    """What a step needs to know of its interval: where the clocks were, and where they go."""

    h: np.ndarray
    end: np.ndarray


class StochasticStepper(Stepper):
    """A one-step method for stochastic fields on a fixed grid, of any schedule.

    The increments of W come from `Brownian` paths: they belong to the seed and to the times alone,
    so that solves with one seed on different grids follow the same path, and a gradient that
    replays steps meets the same noise. In falling time the increments are W(t - h) - W(t), and the
    Ito integral is that of the reversed path, as samplers in reversed time use it.

    Args:
        seed: Of the path: a number from 0 to 2^64 - 1, or one for each graph; None lets the solve
            draw one from its generator.
        shared: Whether grids of one seed share their path. If not, the noise is that of
            `Increments`: a draw a step in place of some thirty, for those who only sample.

    Attributes:
        stochastic: True: the method is for fields with noise, and for no others.
        strong: The strong order; 1 for additive noise.
    """

    stochastic = True
    strong: float
    order = 1
    stability = 2.0
    seed: int | Sequence[int] | None

    def __init__(self, seed: int | Sequence[int] | None = None, *, shared: bool = True) -> None:
        self.seed, self.shared = seed, shared
        self._rows = Rows()
        self._drivers: Drivers | None = None

    def __repr__(self) -> str:
        apart = "" if self.shared else ", shared=False"
        return f"{type(self).__name__}(seed={self.seed}{apart})"

    def seeded(self, generator: torch.Generator | None) -> Self:
        """Return the method with a seed drawn from a generator, unless it has one.

        >>> EulerMaruyama(seed=5).seeded(None).seed
        5
        """
        other = copy(self)
        other.seed = drawn_seed(generator) if self.seed is None else self.seed
        return other

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Check that there is noise, and of a kind that the method follows."""
        name, noise = flow.structure.name, flow.structure.noise
        if noise is None:
            raise ValueError(
                f"solver {self.name!r} is for stochastic fields, and {name} declares no noise: add "
                "Noise(scale) to it, or use a deterministic solver such as 'heun'"
            )
        self.check(noise, name)
        own = self.seeded(None)
        assert own.seed is not None
        check_seed(own.seed, rows.num_graphs)
        own._rows, own._drivers = rows, None
        return own

    def check(self, noise: NoiseTerm, name: str) -> None:
        """Refuse noise in a convention that the method does not converge to.

        Raises:
            ValueError: With the reason and the method to take instead.
        """

    def plan(self, f: Any, x: State, fx: State | None) -> Stretch:
        """Note the interval of the step."""
        if self._drivers is None:
            assert self.seed is not None
            self._drivers = Drivers(self.seed, self._rows, x, self.shared)
        end = f.t + f.h if f.end is None else f.end
        return Stretch(f.h, np.where(f.h != 0, end, f.t))

    def increments(self, f: Any, plan: Stretch) -> State:
        """The increments of W over a step; a step cut short of its plan ends where it is cut."""
        assert self._drivers is not None
        return self._drivers(f.t, np.where(f.h == plan.h, plan.end, f.t + f.h))

    @staticmethod
    def _noise(f: Any, c: float, x: State, dw: State) -> State:
        noise: NoiseTerm = f.flow.structure.noise
        f.flow.nfe += noise.counted
        return noise(f.time(c), x, dw)


class EulerMaruyama(StochasticStepper):
    """The Euler-Maruyama method, `x(t+h) = x + h f(t, x) + g(t, x) dW`, for Ito equations.

    Strong order 1/2, and 1 for additive noise; weak order 1. One evaluation per step.

    Args:
        seed: Of the Brownian path; None lets the solve draw one.
        shared: See `StochasticStepper`.

    References:
        Maruyama, Rend. Circ. Mat. Palermo 4 (1955), 48; Kloeden and Platen, Numerical solution of
        stochastic differential equations, 1992, sections 10.2 and 14.1.

    >>> EulerMaruyama().name, EulerMaruyama().strong
    ('euler_maruyama', 0.5)
    """

    name = "euler_maruyama"
    strong = 0.5

    def check(self, noise: NoiseTerm, name: str) -> None:
        """Refuse multiplicative noise in Stratonovich's sense."""
        if not noise.additive and noise.convention != "ito":
            raise ValueError(
                f"{self.name} converges to the Ito solution, and {name} has multiplicative noise "
                "in Stratonovich's sense: use 'stochastic_heun', or add g g' / 2 to the drift and "
                "say convention='ito'"
            )

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Any = None,
    ) -> Step:
        """Advance by one step; see `Stepper.step`."""
        kick = self._noise(f, 0.0, x, self.increments(f, plan))
        drifted = combine(x, h, (1.0,), (fx,))
        return Step(tuple(y + k for y, k in zip(drifted, kick, strict=True)))


class StochasticHeun(StochasticStepper):
    """The stochastic Heun method, for Stratonovich equations and for additive noise.

    `y = x + h f(t, x) + g(t, x) dW`, then
    `x(t+h) = x + h/2 (f(t, x) + f(t+h, y)) + (g(t, x) + g(t+h, y)) dW / 2`.

    Strong order 1 where the noise is additive or acts entry by entry; the deterministic part has
    order 2. Two evaluations per step.

    Args:
        seed: Of the Brownian path; None lets the solve draw one.
        shared: See `StochasticStepper`.

    References:
        Ruemelin, Numerical treatment of stochastic differential equations, SIAM J. Numer. Anal. 19
        (1982), 604; Burrage, Burrage and Tian, Proc. R. Soc. A 460 (2004), 373.

    >>> StochasticHeun().name, StochasticHeun().strong
    ('stochastic_heun', 1.0)
    """

    name = "stochastic_heun"
    strong = 1.0

    def check(self, noise: NoiseTerm, name: str) -> None:
        """Refuse multiplicative noise in Ito's sense."""
        if not noise.additive and noise.convention != "stratonovich":
            raise ValueError(
                f"{self.name} converges to the Stratonovich solution, and {name} has "
                "multiplicative noise in Ito's sense: use 'euler_maruyama', or subtract g g' / 2 "
                "from the drift and say convention='stratonovich'"
            )

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Any = None,
    ) -> Step:
        """Advance by one step; see `Stepper.step`."""
        dw = self.increments(f, plan)
        noise: NoiseTerm = f.flow.structure.noise
        first = self._noise(f, 0.0, x, dw)
        guess = combine(x, h, (1.0,), (fx,))
        guess = tuple(y + k for y, k in zip(guess, first, strict=True))
        second = self._noise(f, 1.0, guess, dw) if noise.counted else first
        drifted = combine(x, h, (0.5, 0.5), (fx, f(1.0, guess)))
        kicks = zip(drifted, first, second, strict=True)
        return Step(tuple(y + 0.5 * (k + m) for y, k, m in kicks))
