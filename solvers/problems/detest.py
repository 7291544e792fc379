"""Non-stiff problems of DETEST, written down from the paper and solved in closed form.

Hull, Enright, Fellen and Sedgwick, Comparing numerical methods for ordinary differential
equations, SIAM J. Numer. Anal. 9 (1972) 603-637. All run from 0 to 20. Copies in public test suites
carry slips in C5 and E4; the problems here are those whose solutions can be checked by hand.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from solvers.problems.ode import ODE

_PAPER = "Hull et al. 1972"
_ECCENTRICITY = 0.5


def _logistic(t: float) -> tuple[float, ...]:
    return (20.0 / (1.0 + 19.0 * math.exp(-t / 4.0)),)


def _rigid(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([b * c, -a * c, -0.51 * a * b], -1)


def _rigid_at(t: float) -> tuple[float, ...]:
    from scipy.special import ellipj

    sn, cn, dn, _ = ellipj(t, 0.51)
    return float(sn), float(cn), float(dn)


def _chain(t: Tensor, x: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(x, (1, 1))
    return padded[:-2] - 2.0 * x + padded[2:]


def _chain_at(t: float) -> tuple[float, ...]:
    # tridiag(1, -2, 1) of size 10 has eigenvectors sin(pi j k / 11).
    k = np.arange(1, 11)
    modes = np.sin(np.pi * np.outer(k, k) / 11)
    decay = np.exp((2 * np.cos(np.pi * k / 11) - 2) * t)
    return tuple((modes @ (decay * modes[:, 0]) * 2 / 11).tolist())


def _orbit(t: Tensor, x: Tensor) -> Tensor:
    place, speed = x[:2], x[2:]
    return torch.cat([speed, -place / place.square().sum() ** 1.5])


def _orbit_at(t: float) -> tuple[float, ...]:
    # Kepler's equation u - e sin u = t by Newton's method.
    e, u = _ECCENTRICITY, t
    for _ in range(50):
        u -= (u - e * math.sin(u) - t) / (1 - e * math.cos(u))
    r, b = 1 - e * math.cos(u), math.sqrt(1 - e * e)
    return math.cos(u) - e, b * math.sin(u), -math.sin(u) / r, b * math.cos(u) / r


def _bessel(t: Tensor, x: Tensor) -> Tensor:
    y, slope = x.unbind(-1)
    s = t + 1.0
    return torch.stack([slope, -slope / s - (1.0 - 0.25 / s**2) * y], -1)


def _bessel_at(t: float) -> tuple[float, ...]:
    # J_1/2(s) = sqrt(2 / (pi s)) sin s.
    s = t + 1.0
    root = math.sqrt(2.0 / (math.pi * s))
    return root * math.sin(s), root * (math.cos(s) - math.sin(s) / (2 * s))


def _fall(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[1], 0.032 - 0.4 * x[1] ** 2])


def _fall_at(t: float) -> tuple[float, ...]:
    # v = V tanh(0.4 V t) with V^2 = 0.032 / 0.4.
    top = math.sqrt(0.08)
    return 30.0 + math.log(math.cosh(0.4 * top * t)) / 0.4, top * math.tanh(0.4 * top * t)


def _pursuit(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[1], (1.0 + x[1] ** 2).sqrt() / (25.0 - t)])


def _pursuit_at(t: float) -> tuple[float, ...]:
    # arsinh x' = log(25 / (25 - t)).
    left = 1.0 - t / 25.0
    return -12.5 * math.log(left) - 6.25 * (1 - left**2), (1 / left - left) / 2


A4 = ODE("A4", lambda t, x: x / 4 * (1 - x / 20), (1.0,), (0.0, 20.0), None, _PAPER, _logistic)
B5 = ODE("B5", _rigid, (0.0, 1.0, 1.0), (0.0, 20.0), None, _PAPER, _rigid_at, small=1.0)
C3 = ODE("C3", _chain, (1.0, *[0.0] * 9), (0.0, 20.0), None, _PAPER, _chain_at, small=1.0)
D3 = ODE("D3", _orbit, _orbit_at(0.0), (0.0, 20.0), None, _PAPER, _orbit_at, small=1.0)
E1 = ODE("E1", _bessel, _bessel_at(0.0), (0.0, 20.0), None, _PAPER, _bessel_at, small=1.0)
E4 = ODE("E4", _fall, (30.0, 0.0), (0.0, 20.0), None, _PAPER, _fall_at)
E5 = ODE("E5", _pursuit, (0.0, 0.0), (0.0, 20.0), None, _PAPER, _pursuit_at)

DETEST = (A4, B5, C3, D3, E1, E4, E5)
"""The seven of them."""
