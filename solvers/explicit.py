"""Explicit Runge-Kutta steps on tuples of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.rows import State
from solvers.tableaus import Tableau

Stage = Callable[[float, State], State]
"""The field inside a step: ``f(c, x)`` is its value at time ``t + c h``."""


@dataclass
class Step:
    """What one step gives.

    Attributes:
        x: the state at ``t + h``, in tensors of its own.
        error: estimate of the local error, or None where none was asked for.
        f: the field at ``(t + h, x)`` if the method evaluated it as its last stage, else None.
        mid: the state at ``t + h/2``, or None.
    """

    x: State
    error: State | None = None
    f: State | None = None
    mid: State | None = None


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
    used = sorted(
        ((weight, k) for weight, k in zip(weights, ks, strict=True) if weight),
        key=lambda term: -abs(term[0]),
    )
    return tuple(
        _accumulate(None if x is None else x[part], h, [(w, k[part]) for w, k in used])
        for part in range(len(ks[0]))
    )


def _accumulate(x: Tensor | None, h: float | Tensor, terms: list[tuple[float, Tensor]]) -> Tensor:
    # Weights relative to the largest save a pass, and the state is added last: one rounding of it.
    largest, total = terms[0]
    own = None
    for weight, k in terms[1:]:
        if own is None:
            total = own = torch.add(total, k, alpha=weight / largest)
        else:
            # Nobody has saved this sum for a backward pass: safe in place, and twice as fast.
            own.add_(k, alpha=weight / largest)
    scale = h * largest
    if isinstance(scale, Tensor) and scale.dim():
        scale = scale.reshape(-1, *[1] * (total.dim() - 1))
    out = None if torch.is_grad_enabled() else own
    if x is None:
        return torch.mul(total, scale, out=out)
    if isinstance(scale, Tensor):
        return torch.addcmul(x, scale, total, out=out)
    return torch.add(x, total, alpha=scale, out=out)


class ExplicitRungeKutta:
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
        self._a = [[float(w) for w in row] for row in tableau.a]
        self._b = [float(w) for w in tableau.b]
        self._error = (
            None
            if tableau.b_hat is None
            else [float(w - v) for w, v in zip(tableau.b, tableau.b_hat, strict=True)]
        )
        self._mid = None if tableau.mid is None else [float(w) for w in tableau.mid]

    def __repr__(self) -> str:
        return f"ExplicitRungeKutta({self.name!r})"

    def step(
        self,
        f: Stage,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
    ) -> Step:
        """Advance by one step.

        Args:
            f: the field; ``f(c, x)`` is its value at ``t + c h``.
            h: the step, negative for backward: a number, or a tensor with one value per row.
            x: the state at ``t``.
            fx: the field there, ``f(0, x)``.
            error: whether to estimate the error, where the method can.
            mid: whether to give the state at ``t + h/2``, where the tableau has weights for it.

        Returns:
            The new state and what was asked for.
        """
        ks = [fx]
        new = x
        for stage in range(1, self.stages):
            new = combine(x, h, self._a[stage], ks)
            ks.append(f(self._c[stage], new))
        if not self.fsal:
            new = combine(x, h, self._b, ks)
        return Step(
            x=new,
            error=combine(None, h, self._error, ks) if error and self._error else None,
            f=ks[-1] if self.fsal else None,
            mid=combine(x, h, self._mid, ks) if mid and self._mid else None,
        )
