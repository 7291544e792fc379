"""Oscillators, x'' = force(t, x) - damping x', with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Oscillator:
    """x'' = force(t, x) - damping x', with the pair (x, x') that it reaches at t1.

    Attributes:
        name: As the literature calls it.
        force: The force on tensors; `t` is 0-d, `x` has shape `[n]`.
        damping: The number alpha.
        x0: First positions.
        v0: First velocities.
        t: Start and end.
        end: Positions, then velocities at the end; None where `solution` says it.
        source: Where problem and numbers come from.
        solution: Positions, then velocities in closed form; None where there is none.

    >>> spring = Oscillator("spring", lambda t, x: -x, 0.5, (1.0,), (2.0,), (0.0, 1.0), None, "")
    >>> [part.tolist() for part in spring.f(torch.tensor(0.0), spring.start())]
    [[2.0], [-2.0]]
    """

    name: str
    force: Callable[[Tensor, Tensor], Tensor]
    damping: float
    x0: tuple[float, ...]
    v0: tuple[float, ...]
    t: tuple[float, float]
    end: tuple[float, ...] | None
    source: str
    solution: Callable[[float], tuple[float, ...]] | None = None

    def f(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The same as a system of first order: (v, force(t, x) - damping v).

        >>> HARMONIC.f(torch.tensor(0.0), (torch.ones(1), torch.zeros(1)))
        (tensor([0.]), tensor([-4.]))
        """
        x, v = state
        return v, self.force(t, x) - self.damping * v

    def start(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """First positions and velocities in float64.

        >>> HARMONIC.start()[0].tolist()
        [1.0]
        """
        return (
            torch.tensor(self.x0, dtype=torch.float64),
            torch.tensor(self.v0, dtype=torch.float64),
        )

    def answer(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Positions and velocities at the end in float64.

        Raises:
            ValueError: For a problem that has neither `end` nor `solution`.

        >>> [round(part.item(), 3) for part in HARMONIC.answer()]
        [0.0, 2.0]
        """
        if self.end is None and self.solution is None:
            raise ValueError(f"{self.name} has neither an end value nor a solution; give one")
        values = self.end if self.solution is None else self.solution(self.t[1])
        x, v = torch.tensor(values, dtype=torch.float64).chunk(2)
        return x, v

    def error(self, state: tuple[Tensor, Tensor]) -> float:
        """The distance of (x, v) from the answer, relative to the answer's norm.

        >>> x, v = HARMONIC.answer()
        >>> round(HARMONIC.error((x, 1.5 * v)), 6)
        0.5
        """
        right, found = torch.cat(self.answer()), torch.cat(state).detach().double()
        return float((found - right).norm() / right.norm())


def _damped(t: float) -> tuple[float, ...]:
    # x'' + 0.4 x' + 4 x = 0, x(0) = 1, x'(0) = 0.
    decay, swing = 0.2, math.sqrt(4.0 - 0.04)
    fade = math.exp(-decay * t)
    x = fade * (math.cos(swing * t) + decay / swing * math.sin(swing * t))
    return x, -fade * 4.0 / swing * math.sin(swing * t)


def _driven(t: float) -> tuple[float, ...]:
    # x'' + 4 x = 3 cos t, x(0) = 1, x'(0) = 0: x = cos t, whatever the spring does.
    return math.cos(t), -math.sin(t)


HARMONIC = Oscillator(
    "harmonic",
    lambda t, x: -4.0 * x,
    0.0,
    (1.0,),
    (0.0,),
    (0.0, 0.75 * math.pi),
    None,
    "by hand",
    lambda t: (math.cos(2 * t), -2 * math.sin(2 * t)),
)

DAMPED = Oscillator(
    "damped",
    lambda t, x: -4.0 * x,
    0.4,
    (1.0,),
    (0.0,),
    (0.0, 3.0),
    None,
    "by hand",
    _damped,
)

DRIVEN = Oscillator(
    "driven",
    lambda t, x: 3.0 * torch.cos(t) - 4.0 * x,
    0.0,
    (1.0,),
    (0.0,),
    (0.0, 3.0),
    None,
    "by hand: the force depends on time",
    _driven,
)

DUFFING = Oscillator(
    "Duffing",
    lambda t, x: x - x**3 + 0.5 * torch.cos(t),
    0.2,
    (1.0,),
    (0.5,),
    (0.0, 2.0),
    (0.9946795536568756, -0.6963418776792219),
    "Duffing 1918; end value by Taylor series in 30 digits",
)
