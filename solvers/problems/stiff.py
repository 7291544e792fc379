"""Stiff problems of the literature with their end values."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.problems.ode import ODE

_TEST_SET = "Mazzia and Magherini, Test Set for IVP Solvers, release 2.4 (2008)"


def _rober(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    slow, fast, steady = 0.04 * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack([steady - slow, slow - steady - fast, fast], -1)


def _hires(t: Tensor, x: Tensor) -> Tensor:
    a, b, c, d, e, f, g, h = x.unbind(-1)
    caught = 280.0 * f * h
    return torch.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -caught + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            caught - 1.81 * g,
            -caught + 1.81 * g,
        ],
        -1,
    )


def _orego(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack(
        [77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)],
        -1,
    )


def _vdp(t: Tensor, x: Tensor) -> Tensor:
    y, z = x.unbind(-1)
    return torch.stack([z, 1000.0 * (1 - y * y) * z - y], -1)


def _vdpol(t: Tensor, x: Tensor) -> Tensor:
    y, z = x.unbind(-1)
    return torch.stack([z, 1e6 * ((1 - y * y) * z - y)], -1)


ROBER = ODE(
    "ROBER",
    _rober,
    (1.0, 0.0, 0.0),
    (0.0, 1e11),
    (0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050),
    f"Robertson 1966; {_TEST_SET}",
    small=1e-13,
    stiffness="rates from 0.04 to 3e7; lambda near -1e4 while the solution takes 1e11 to settle",
)

ROBER_SHORT = ODE(
    "ROBER to 40",
    _rober,
    (1.0, 0.0, 0.0),
    (0.0, 40.0),
    (7.158270687194e-01, 9.185534764558e-06, 2.841637457458e-01),
    "Robertson 1966; end value by Radau at 1e-12",
    small=1e-6,
    stiffness=ROBER.stiffness,
)

HIRES = ODE(
    "HIRES",
    _hires,
    (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057),
    (0.0, 321.8122),
    (
        0.7371312573325668e-3,
        0.1442485726316185e-3,
        0.5888729740967575e-4,
        0.1175651343283149e-2,
        0.2386356198831331e-2,
        0.6238968252742796e-2,
        0.2849998395185769e-2,
        0.2850001604814231e-2,
    ),
    f"Schaefer 1975; {_TEST_SET}",
    small=1e-4,
    stiffness="280 f h binds fast: lambda near -125",
)

OREGO = ODE(
    "OREGO",
    _orego,
    (1.0, 2.0, 3.0),
    (0.0, 360.0),
    (0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3),
    f"Field and Noyes 1974; {_TEST_SET}",
    small=1.0,
    stiffness="pulses: lambda down to -1e5 in the jumps between slow branches",
)

VDP = ODE(
    "VDP",
    _vdp,
    (2.0, 0.0),
    (0.0, 2000.0),
    (1.706167732170483, -0.8928097010247975e-3),
    f"van der Pol 1926, mu = 1000; {_TEST_SET}, unscaled",
    small=1e-6,
    stiffness="lambda near -3000 on the slow branch, +1000 in the jump",
)

VDPOL = ODE(
    "VDPOL",
    _vdpol,
    (2.0, 0.0),
    (0.0, 2.0),
    (0.1706167732170483e1, -0.8928097010247975),
    f"van der Pol 1926, epsilon = 1e-6; {_TEST_SET}",
    small=1.0,
    stiffness="VDP in time t / 1000: lambda near -3e6",
)
