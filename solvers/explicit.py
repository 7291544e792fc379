"""Explicit Runge-Kutta steps on tuples of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.stage_matrix import HALF, StageMatrix
from solvers.stepper import Accuracy, Stage, Step, Stepper
from solvers.tableaus import TABLEAUS, Tableau

LONG, SMALL = 3, 2**13
"""Where a matrix of derivatives pays: more than so many terms per stage, and no more entries.

Its products are few, but not made for matrices as long as a large state.
"""


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

    Attributes:
        weights: as given.
        terms: how many of them are not zero.

    Example:
        >>> WeightedSum((0.0, 2.0))(None, 0.5, ((torch.ones(1),), (torch.tensor([3.0]),)))
        (tensor([3.]),)
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights
        used = sorted((-abs(w), j) for j, w in enumerate(weights) if w)
        self._first, self.terms = used[0][1], len(used)
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


class Derivatives(list[State]):
    """The derivatives of a step as the field gave them: their sums are differentiable."""

    def moved(self, x: State, h: float | Tensor, name: WeightedSum) -> State:
        """Return ``x + h sum_j w_j k_j``."""
        return name(x, h, self)

    def total(self, h: float | Tensor, name: WeightedSum) -> State:
        """Return ``h sum_j w_j k_j``."""
        return name(None, h, self)


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
        self._sums = [one for one in (*self._a, self._b, self._error, self._mid) if one is not None]
        self._long = sum(one.terms for one in self._sums) > LONG * self.stages
        self._begun = False
        self._matrix: StageMatrix[WeightedSum] | None = None

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

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Return the method with room for the derivatives of one solve."""
        own = copy(self)
        # A step that is run again for its gradients has to be the same to the last bit.
        own._begun = self._long and flow.dtype not in HALF and not accuracy.differentiated
        own._matrix = None
        return own

    def _derivatives(self, x: State, fx: State) -> Derivatives | StageMatrix[WeightedSum]:
        """What keeps the derivatives of the next step, the first of them."""
        if not self._begun or torch.is_grad_enabled() or max(map(Tensor.numel, x)) > SMALL:
            return Derivatives([fx])
        if self._matrix is None:
            self._matrix = StageMatrix({s: s.weights for s in self._sums}, self.stages, x)
        return self._matrix.start(fx)

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
        ks = self._derivatives(x, fx)
        new, slope = x, fx
        for c, weights in zip(self._c[1:], self._a, strict=True):
            new = ks.moved(x, h, weights)
            slope = f(c, new)
            ks.append(slope)
        if not self.fsal:
            new = ks.moved(x, h, self._b)
        half = ks.moved(x, h, self._mid) if mid and self._mid else None
        # The last: what it returns may be written to by the next sum.
        lost = ks.total(h, self._error) if error and self._error else None
        return Step(new, lost, slope if self.fsal else None, half)


@cache
def explicit(name: str) -> ExplicitRungeKutta:
    """Return the method of that name; steppers hold no state, so everyone shares it.

    Example:
        >>> explicit("rk4").order
        4
    """
    return ExplicitRungeKutta(TABLEAUS[name])
