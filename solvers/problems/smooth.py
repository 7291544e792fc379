"""Problems that are not stiff: closed forms, three that peers test with, and two classics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solvers.problems.ode import ODE


def _brusselator(t: Tensor, x: Tensor) -> Tensor:
    u, v = x.unbind(-1)
    return torch.stack([1 + u * u * v - 4 * u, 3 * u - u * u * v], -1)


def _predators(t: Tensor, x: Tensor) -> Tensor:
    prey, hunters = x.unbind(-1)
    return torch.stack([prey * (1.5 - hunters), hunters * (prey - 3.0)], -1)


def _rotation(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([-x[1], x[0] - x[2], x[1]])


def _rotated(t: float) -> tuple[float, ...]:
    # The axis (1, 0, 1) stays; (1, 0, -1) turns in the plane it spans with (0, 1, 0).
    turn = math.sqrt(2.0) * t
    return (0.5 + math.cos(turn) / 2, math.sin(turn) / math.sqrt(2.0), 0.5 - math.cos(turn) / 2)


def _sine(t: Tensor, x: Tensor) -> Tensor:
    return 2 * x / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3


def _sine_at(t: float) -> tuple[float, ...]:
    waves = -(t**4) * math.cos(2 * t) / 2 + t**3 * math.sin(2 * t) / 2 + t**2 * math.cos(2 * t) / 4
    return (waves - t**3 + 2 * t**4 + (math.pi - 0.25) * t**2,)


_PEERS = "torchdiffeq, tests/problems.py; solved by hand"

DECAY = ODE(
    "decay",
    lambda t, x: -x,
    (1.0,),
    (0.0, 3.0),
    None,
    "Hull et al. 1972, A1",
    lambda t: (math.exp(-t),),
)

SEASON = ODE(
    "season",
    lambda t, x: x * torch.cos(t),
    (1.0,),
    (0.0, 3.0),
    None,
    "Hull et al. 1972, A3: the smallest problem on which a wrong node of a tableau shows",
    lambda t: (math.exp(math.sin(t)),),
)

LINE = ODE(
    "line",
    lambda t, x: 0.2 + (x - (0.2 * t + 3.0)) ** 5,
    (3.2,),
    (1.0, 8.0),
    None,
    _PEERS + " ('constant')",
    lambda t: (0.2 * t + 3.0,),
)

ROTATION = ODE(
    "rotation",
    _rotation,
    (1.0, 0.0, 0.0),
    (0.0, 4.0),
    None,
    _PEERS + " (a skew-symmetric matrix, as their 'linear')",
    _rotated,
    small=1.0,
)

SINE = ODE("sine", _sine, _sine_at(1.0), (1.0, 8.0), None, _PEERS, _sine_at)

BRUSSELATOR = ODE(
    "Brusselator",
    _brusselator,
    (1.5, 3.0),
    (0.0, 20.0),
    (0.4986370712683478, 4.596780349452011),
    "Hairer, Norsett and Wanner I, (II.4.15); end value by Taylor series in 30 digits",
)

LOTKA_VOLTERRA = ODE(
    "Lotka-Volterra",
    _predators,
    (1.0, 1.0),
    (0.0, 10.0),
    (1.0263447675750893, 0.9096910781360416),
    "Lotka, J. Phys. Chem. 14 (1910); end value by Taylor series in 30 digits",
)
