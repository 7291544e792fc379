"""Explicit Runge-Kutta steps on tuples of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor

from solvers.rows import State
from solvers.stepper import Stage, Step, Stepper
from solvers.tableaus import TABLEAUS, Tableau


def combine(
    x: State | None, h: float | Tensor, weights: Sequence[float], ks: Sequence[State]
) -> State:
    """Add a weighted sum of derivatives to a state.

    ``y = x + h sum_j w_j k_j`` for every part; terms of weight zero are skipped. The result never
    shares memory with ``x`` or ``ks``, which are not written to. One pass over the state per
    term, the same arithmetic with and without autograd; differentiable, as often as wanted, in
    ``x``, ``h`` and ``ks``.

    Args:
        x: the state, or None for zero.
        h: a number, or a tensor: 0-d, or ``[rows, 1, ..., 1]`` with one value per row.
        weights: one number per element of ``ks``; at least one is not zero.
        ks: states of the same shapes as ``x``.

    Returns:
        The new state.

    Example:
        >>> x, k = (torch.tensor([1.0, 2.0]),), (torch.tensor([10.0, 20.0]),)
        >>> combine(x, 0.5, (0.25, 0.75), (k, x))
        (tensor([2.6250, 5.2500]),)
    """
    return WeightedSum(weights)(x, h, ks)


class WeightedSum:
    """The sum ``h sum_j w_j k_j`` for fixed weights, planned once; see :func:`combine`.

    Args:
        weights: one number per derivative; at least one is not zero.

    Example:
        >>> WeightedSum((0.0, 2.0))(None, 0.5, ((torch.ones(1),), (torch.tensor([3.0]),)))
        (tensor([3.]),)
    """

    def __init__(self, weights: Sequence[float]) -> None:
        used = sorted((-abs(w), j) for j, w in enumerate(weights) if w)
        self._first = used[0][1]
        self._largest = float(weights[self._first])
        self._others = [(j, float(weights[j]) / self._largest) for _, j in used[1:]]

    def __call__(self, x: State | None, h: float | Tensor, ks: Sequence[State]) -> State:
        """Add the sum to a state; see :func:`combine`."""
        scale = h * self._largest
        if len(ks[0]) == 1:
            return (self._part(None if x is None else x[0], scale, ks, 0),)
        return tuple(
            self._part(None if x is None else x[part], scale, ks, part)
            for part in range(len(ks[0]))
        )

    def _part(
        self, x: Tensor | None, scale: float | Tensor, ks: Sequence[State], part: int
    ) -> Tensor:
        # Weights relative to the largest save a pass, and the state is added last: one rounding.
        total = ks[self._first][part]
        own = None
        for j, ratio in self._others:
            if own is None:
                total = own = torch.add(total, ks[j][part], alpha=ratio)
            else:
                # Nobody has saved this sum for a backward pass: safe in place, twice as fast.
                own.add_(ks[j][part], alpha=ratio)
        out = None if torch.is_grad_enabled() else own
        if isinstance(scale, Tensor):
            if scale.dim():
                scale = scale.reshape(-1, *[1] * (total.dim() - 1))
            return (
                torch.mul(total, scale, out=out)
                if x is None
                else torch.addcmul(x, scale, total, out=out)
            )
        if x is None:
            return torch.mul(total, scale, out=out)
        return torch.add(x, total, alpha=scale, out=out)


class ExplicitRungeKutta(Stepper):
    """The explicit Runge-Kutta method of a tableau.

    ``k_i = f(t + c_i h, x + h sum_{j<i} a_ij k_j)``, ``x(t + h) = x + h sum_i b_i k_i``.

    Args:
        tableau: the coefficients.

    Attributes:
        name: of the tableau.
        order: of the solution.
        error_order: the q in the step factor ``ratio^(-1/q)``: order of the local error estimate,
            torchdiffeq's ``order``.
        adaptive: whether there is an error estimate.
        fsal: whether the last stage is the field at the new point.
        stages: number of stages; a step costs ``stages - 1`` evaluations, the first being known.
        stability: length of the real negative stability interval.
        dense: whether the step has an interpolant worthy of the method.
        control: step controller of an adaptive solve; None stands for the integral one.
        dense_order: 4 (quartic through ``mid``) or 3 (cubic Hermite).

    Example:
        >>> from solvers.tableaus import TABLEAUS
        >>> heun = ExplicitRungeKutta(TABLEAUS["heun"])
        >>> x = (torch.tensor(1.0),)
        >>> heun.step(lambda c, x: (-x[0],), 0.5, x, (-x[0],)).x
        (tensor(0.6250),)
    """

    def __init__(self, tableau: Tableau) -> None:
        self.name = tableau.name
        self.order = tableau.order
        self.fsal = tableau.fsal
        self.stages = len(tableau.c)
        self.stability = tableau.stability
        self.adaptive = tableau.b_hat is not None
        self.error_order = tableau.error_order
        self.dense = tableau.dense
        self.dense_order = 4 if tableau.mid is not None else 3
        self._c = [float(c) for c in tableau.c]
        self._a = [WeightedSum([float(w) for w in row]) for row in tableau.a[1:]]
        self._b = WeightedSum([float(w) for w in tableau.b])
        self._error = self._mid = None
        if tableau.b_hat is not None:
            differences = zip(tableau.b, tableau.b_hat, strict=True)
            self._error = WeightedSum([float(w - v) for w, v in differences])
        if tableau.mid is not None:
            self._mid = WeightedSum([float(w) for w in tableau.mid])

    def __repr__(self) -> str:
        return f"ExplicitRungeKutta({self.name!r})"

    def controlled(self, control: Any) -> ExplicitRungeKutta:
        """Return the same method with a step controller of its own.

        Args:
            control: from `solvers.control`, such as ``PI()``.

        Example:
            >>> from solvers.control import PI
            >>> explicit("tsit5").controlled(PI()).control.kP
            0.3
        """
        other = copy(self)
        other.control = control
        return other

    def step(
        self,
        f: Stage,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: None = None,
    ) -> Step:
        """Advance by one step.

        Args:
            f: the field; ``f(c, x)`` is its value at ``t + c h``.
            h: the step, negative for backward: a number, or a tensor with one value per row.
            x: the state at ``t``.
            fx: the field there, ``f(0, x)``.
            error: whether to estimate the error, where the method can.
            mid: whether to give the state at ``t + h/2``, where the tableau has weights for it.
            plan: nothing.

        Returns:
            The new state and what was asked for.
        """
        ks = [fx]
        new = x
        for c, weights in zip(self._c[1:], self._a, strict=True):
            new = weights(x, h, ks)
            ks.append(f(c, new))
        if not self.fsal:
            new = self._b(x, h, ks)
        return Step(
            x=new,
            error=self._error(None, h, ks) if error and self._error else None,
            f=ks[-1] if self.fsal else None,
            mid=self._mid(x, h, ks) if mid and self._mid else None,
        )


@cache
def explicit(name: str) -> ExplicitRungeKutta:
    """Return the method of that name; steppers hold no state, so everyone shares it.

    Example:
        >>> explicit("rk4").order
        4
    """
    return ExplicitRungeKutta(TABLEAUS[name])
