"""Dense output inside one step."""

from __future__ import annotations

from torch import Tensor

from solvers.rows import State

Number = float | Tensor
"""A number, or one per row: ``[rows, 1, ..., 1]``."""


def hermite(
    theta: Number,
    h: Number,
    x0: State,
    f0: State,
    x1: State,
    f1: State,
    mid: State | None = None,
) -> State:
    """Interpolate the state at ``t + theta h`` inside the step from ``t`` to ``t + h``.

    The cubic with values ``x0, x1`` and slopes ``f0, f1`` at both ends; with ``mid``, the quartic
    that also passes through it at ``theta = 1/2``:
    ``quartic = cubic + 16 theta^2 (1 - theta)^2 (mid - cubic(1/2))``. At 0 and 1 it gives ``x0``
    and ``x1`` exactly. Differentiable in everything.

    Args:
        theta: where in the step, from 0 to 1: a number, or one per row.
        h: the step: a number, or one per row.
        x0: the state at ``t``.
        f0: the field there.
        x1: the state at ``t + h``.
        f1: the field there.
        mid: the state at ``t + h/2``, or None.

    Returns:
        The state at ``t + theta h``, in new tensors.

    Source:
        Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.6; Shampine,
        Math. Comp. 46 (1986).

    Example:
        >>> import torch
        >>> zero, one, three = torch.zeros(1), torch.ones(1), torch.tensor([3.0])
        >>> hermite(0.5, 1.0, (zero,), (zero,), (one,), (three,))  # t^3
        (tensor([0.1250]),)
    """
    rise = theta * theta * (3 - 2 * theta)
    start = theta * (1 - theta) * (1 - theta)
    end = theta * theta * (theta - 1)
    if mid is None:
        states = (x0, x1, f0, f1)
        weights = (1 - rise, rise, h * start, h * end)
        return _weigh(weights, states)
    bump = 16 * theta * theta * (1 - theta) * (1 - theta)
    slope = bump / 8
    return _weigh(
        (1 - rise - bump / 2, rise - bump / 2, h * (start - slope), h * (end + slope), bump),
        (x0, x1, f0, f1, mid),
    )


def _weigh(weights: tuple[Number, ...], states: tuple[State, ...]) -> State:
    return tuple(_sum(weights, parts) for parts in zip(*states, strict=True))


def _sum(weights: tuple[Number, ...], parts: tuple[Tensor, ...]) -> Tensor:
    total = _fit(weights[0], parts[0]) * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = total + _fit(weight, part) * part
    return total


def _fit(weight: Number, part: Tensor) -> Number:
    if isinstance(weight, Tensor) and weight.dim():
        return weight.reshape(-1, *[1] * (part.dim() - 1))
    return weight
