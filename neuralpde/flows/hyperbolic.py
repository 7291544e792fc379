"""What a bridge of linear diffusion is made of, mode by mode, in forms that never overflow.

A mode decays at the rate `a >= 0`, time runs from 0 to 1. Everything is written with
`q(x) = (1 - e^-x) / x`, which is 1 at 0, so that `a -> 0` is the Brownian bridge and large rates
underflow to 0 instead of overflowing. All functions are even in a, hence smooth functions of the
spectrum down to 0, with poles no nearer than `pi / t` to the real axis.
"""

from __future__ import annotations

import torch
from torch import Tensor


def share(a: Tensor, t: Tensor) -> Tensor:
    """`sinh(a t) / sinh(a)`: how much of the target the mean holds at time t.

    >>> share(torch.tensor([0.0, 1e4]), torch.tensor(0.25)).tolist()
    [0.25, 0.0]
    """
    return torch.exp(-a * (1 - t)) * t * _q(2 * a * t) / _q(2 * a)


def pull(a: Tensor, t: Tensor) -> Tensor:
    """`a / sinh(a t)`: the pull of an end that is t away.

    >>> pull(torch.tensor([0.0, 1e4]), torch.tensor(0.25)).tolist()
    [4.0, 0.0]
    """
    return torch.exp(-a * t) / (t * _q(2 * a * t))


def drag(a: Tensor, t: Tensor) -> Tensor:
    """`a coth(a t)`: the rate at which a mode is drawn to an end that is t away.

    >>> drag(torch.tensor([0.0, 1e4]), torch.tensor(0.25)).tolist()
    [4.0, 10000.0]
    """
    return (1 + torch.exp(-2 * a * t)) / (2 * t * _q(2 * a * t))


def excess(a: Tensor, t: Tensor) -> Tensor:
    """`(a / 2) (coth(a t) - 1)`: half of what `drag` has beyond a, without cancellation.

    >>> excess(torch.tensor([0.0, 1e4]), torch.tensor(0.25)).tolist()
    [2.0, 0.0]
    """
    return torch.exp(-2 * a * t) / (2 * t * _q(2 * a * t))


def gain(a: Tensor, t: Tensor) -> Tensor:
    """`(a / 2) (coth(a t) - coth(a (1 - t)))`: the rate at which deviations grow.

    As `(a / 2) sinh(a (1 - 2t)) / (sinh(a t) sinh(a (1 - t)))`, which keeps its digits at t = 1/2.

    >>> gain(torch.tensor([0.0, 1e4]), torch.tensor(0.25)).round(decimals=4).tolist()
    [1.3333, 0.0]
    """
    side = 1 - 2 * t
    fading = torch.exp(-2 * a * torch.minimum(t, 1 - t)) * _q(2 * a * side.abs())
    return side * fading / (2 * t * (1 - t) * _q(2 * a * t) * _q(2 * a * (1 - t)))


def variance(a: Tensor, t: Tensor) -> Tensor:
    """`sinh(a t) sinh(a (1 - t)) / (a sinh a)`: the variance under noise of size 1.

    >>> variance(torch.tensor([0.0, 1e4]), torch.tensor(0.5)).tolist()
    [0.25, 5e-05]
    """
    return t * (1 - t) * _q(2 * a * t) * _q(2 * a * (1 - t)) / _q(2 * a)


def _q(x: Tensor) -> Tensor:
    safe = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, -torch.expm1(-safe) / safe)
