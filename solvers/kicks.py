"""What steps of oscillators are made of: kicks, drifts and damps, done and undone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from solvers.flow import Stages
from solvers.rows import State

Number = float | Tensor


class Body(Protocol):
    """Whatever the parts of a step act on."""

    def kick(self, weight: float, node: float) -> None:
        """Act by the force, which is taken at the time t + node h."""

    def drift(self, weight: float) -> None:
        """Act by the velocity."""

    def damp(self, law: Damp) -> None:
        """Act by the damping."""


@dataclass(frozen=True)
class Kick:
    """The part ``v <- v + weight h force(t + node h, x)``."""

    weight: float
    node: float

    def on(self, body: Body) -> None:
        """Act."""
        body.kick(self.weight, self.node)


@dataclass(frozen=True)
class Drift:
    """The part ``x <- x + weight h v``."""

    weight: float

    def on(self, body: Body) -> None:
        """Act."""
        body.drift(self.weight)


@dataclass(frozen=True)
class Damp:
    """The part ``v <- factor(z) v`` with ``z = damping h``.

    Attributes:
        factor: What is left of the velocity; 1 at z = 0.
        slope: The derivative of the factor by z.
    """

    factor: Callable[[Number], Number]
    slope: Callable[[Number], Number]

    def on(self, body: Body) -> None:
        """Act."""
        body.damp(self)


Part = Kick | Drift | Damp


def _decay(z: Number) -> Number:
    return torch.exp(-z) if isinstance(z, Tensor) else math.exp(-z)


EXACT = Damp(_decay, lambda z: -_decay(z))
EXPLICIT = Damp(lambda z: 1.0 - z, lambda z: -1.0)
HALF_EXPLICIT = Damp(lambda z: 1.0 - 0.5 * z, lambda z: -0.5)
HALF_IMPLICIT = Damp(lambda z: 1.0 / (1.0 + 0.5 * z), lambda z: -0.5 / (1.0 + 0.5 * z) ** 2)
DAMPS = (EXACT, EXPLICIT, HALF_EXPLICIT, HALF_IMPLICIT)


def plain(number: Number) -> float:
    """Return a number without its gradient.

    >>> plain(torch.tensor(0.5, requires_grad=True))
    0.5
    """
    return float(number.detach() if isinstance(number, Tensor) else number)


def moved(x: Tensor, scale: Number, direction: Tensor) -> Tensor:
    """Return ``x + scale direction``, in memory of its own.

    >>> moved(torch.tensor([1.0, 2.0]), -0.5, torch.tensor([2.0, 2.0])).tolist()
    [0.0, 1.0]
    """
    if isinstance(scale, Tensor):
        return torch.addcmul(x, scale, direction)
    return torch.add(x, direction, alpha=scale)


class Advance:
    """The parts of a step, done one after the other.

    Args:
        f: The field inside the step.
        h: The step.
        x: Position and velocity.
        force: The force at the position, where it is known.
    """

    def __init__(self, f: Stages, h: Number, x: State, force: Tensor | None = None) -> None:
        self.f, self.h, self.force = f, h, force
        self.position, self.velocity = x

    def pull(self, node: float) -> Tensor:
        """The force at the position, evaluated once for all kicks there."""
        if self.force is None:
            flow = self.f.flow
            assert flow.structure.force is not None
            flow.nfe += 1
            self.force = flow.structure.force(self.f.time(node), self.position)
        return self.force

    def kick(self, weight: float, node: float) -> None:
        """Add to the velocity."""
        self.velocity = moved(self.velocity, weight * self.h, self.pull(node))

    def drift(self, weight: float) -> None:
        """Add to the position."""
        self.position, self.force = moved(self.position, weight * self.h, self.velocity), None

    def damp(self, law: Damp) -> None:
        """Scale the velocity."""
        self.velocity = self.velocity * law.factor(self.f.flow.structure.damping * self.h)


class Retreat(Advance):
    """The parts of a step, undone; they have to come in reverse."""

    def kick(self, weight: float, node: float) -> None:
        """Take from the velocity."""
        super().kick(-weight, node)

    def drift(self, weight: float) -> None:
        """Take from the position."""
        super().drift(-weight)

    def damp(self, law: Damp) -> None:
        """Scale the velocity back."""
        self.velocity = self.velocity / law.factor(self.f.flow.structure.damping * self.h)
