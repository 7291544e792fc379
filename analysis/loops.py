"""Fixed points and cycles of what is applied again and again: period, residual, contraction."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from analysis.multipliers import Linear, derivative, leading_eigenvalue
from solvers.trajectory import Trajectory

ROUNDS = 3
"""Returns in a row that make a period."""

ROUNDED, CLEAR = 64, 1000
"""Units of rounding up to which a gap between iterates means nothing, and from which its shrinking
can be read."""


@dataclass(frozen=True)
class Loop:
    """What iterates or a flow come to.

    Attributes:
        outcome: "fixed point", "cycle of period p" (p in iterations, or in time for a flow), or
            "undecided".
        reason: Why, with the numbers.
        period: p; 1 for fixed points of a map, 0 for those of a flow, NaN where undecided.
        residual: |h_{k+p} - h_k| / |h_k|, the largest of the last rounds, or |f| / |x| of a flow.
        contraction: Modulus of the leading eigenvalue of the return map h_k -> h_{k+p}: below 1 the
            loop attracts. NaN where nothing tells.
        rate: Largest real part of an eigenvalue of J_f at the fixed point of a flow, which attracts
            below 0; else NaN.
        state: A state on the loop, as it was last seen.

    >>> print(Loop("cycle of period 2", "gaps of 1e-16 over 3 rounds", 2, 1e-16))
    cycle of period 2: gaps of 1e-16 over 3 rounds
    """

    outcome: str
    reason: str
    period: float = math.nan
    residual: float = math.nan
    contraction: float = math.nan
    rate: float = math.nan
    state: Tensor | None = None

    @property
    def decided(self) -> bool:
        """Whether a loop was found."""
        return self.outcome != "undecided"

    def __str__(self) -> str:
        """Outcome and reason."""
        return f"{self.outcome}: {self.reason}"


def loop_of_states(
    states: Trajectory | Tensor, *, tolerance: float = 1e-6, longest: int = 16
) -> Loop:
    """Find the fixed point or cycle that iterates come to.

    The period is the least p with |h_{k+p} - h_k| < tolerance |h_k| for all k of the last 3 rounds.
    States below tolerance^2 of the largest count as zero. Iterates that still creep, so that
    their gaps would add up to more than the tolerance, are at no loop yet. The contraction is read
    from gaps above rounding: gap_{k+p} / gap_k.

    Args:
        states: Iterates `[iterates, ...]`, or a trajectory: a flow at times that are evenly spaced
            (the period then counts these), or the layers that `analysis.trace` gives, as `x[:-1]`
            where an activation follows the layer, as it does not follow the last one.
        tolerance: Relative.
        longest: Longest period that is looked for; four rounds of it must be there.

    Raises:
        ValueError: For fewer than 4 states, and a tolerance that rounding does not allow.

    References:
        The definition is the usual one of a recurrence with a threshold; the outcome is left open
        where it is not met.

    >>> signs = torch.tensor([1.0, -1.0]).repeat(8)[:, None]
    >>> loop_of_states(signs).outcome
    'cycle of period 2'
    """
    h = _flat(states)
    count, eps = len(h), torch.finfo(h.dtype).eps
    if count < ROUNDS + 1:
        raise ValueError(f"{count} states tell no loop; at least {ROUNDS + 1} are needed")
    if not 4 * eps <= tolerance < 1:
        raise ValueError(
            f"tolerance is {tolerance:g}; give at least {4 * eps:.2g} ({h.dtype}) and below 1"
        )
    sizes = torch.linalg.vector_norm(h, dim=1)
    if not bool(sizes.isfinite().all()):
        return Loop("undecided", "the iterates leave all bounds")
    longest = min(longest, count // (ROUNDS + 1))
    scale = sizes + tolerance * sizes.max()
    told = "no"
    for p in range(1, longest + 1):
        gaps = torch.linalg.vector_norm(h[p:] - h[:-p], dim=1) / scale[:-p].clamp(min=1e-300)
        last = float(gaps[-ROUNDS * p :].max())
        if last >= tolerance:
            continue
        contraction = _contraction(gaps, p, CLEAR * eps)
        if last > ROUNDED * eps and last > tolerance * (1 - contraction):
            told = (
                f"gaps of {last:.2g} that go by {contraction:.3g} a round are still to add up; no"
            )
            continue
        name = "fixed point" if p == 1 else f"cycle of period {p}"
        reason = f"relative gaps of at most {last:.2g} over the last {ROUNDS} rounds"
        state = _first(states)[-1].detach()
        return Loop(name, reason, p, last, contraction, state=state)
    nearest = float((torch.linalg.vector_norm(h[1:] - h[:-1], dim=1) / scale[:-1])[-1])
    reason = f"{told} period up to {longest} with relative gaps below {tolerance:g}"
    return Loop("undecided", f"{reason}; the last step is {nearest:.2g}", residual=nearest)


def loop_of_map(
    step: Callable[[Tensor], Tensor],
    x0: Tensor,
    *,
    steps: int = 1000,
    tolerance: float = 1e-6,
    longest: int = 16,
    project: Linear | None = None,
) -> Loop:
    """Apply a map again and again and say where it comes to, and how it contracts there.

    The loop is that of `loop_of_states`; its contraction is the leading eigenvalue of the Jacobian
    of the return map, by Arnoldi's method on products J v.

    Args:
        step: The map, such as one layer of a looped network, `lambda x: layer(x, edge_index)`.
        x0: The first state.
        steps: How often it is applied.
        tolerance: See `loop_of_states`.
        longest: Longest period that is looked for.
        project: A projection of perturbations, of the shape of the state, where only some count:
            `DirichletForm.of(graph).deviation` leaves out what all nodes share.

    >>> loop = loop_of_map(lambda x: 3.2 * x * (1 - x), torch.tensor([0.3], dtype=torch.float64))
    >>> loop.outcome, round(loop.contraction, 9)
    ('cycle of period 2', 0.16)
    """
    rounds = (ROUNDS + 1) * longest
    if steps < rounds:
        raise ValueError(f"steps is {steps}; periods up to {longest} take {rounds} at least")
    kept: deque[Tensor] = deque([x0.detach()], maxlen=rounds + 1)
    with torch.no_grad():
        for _ in range(steps):
            kept.append(step(kept[-1]))
    found = loop_of_states(torch.stack(list(kept)), tolerance=tolerance, longest=longest)
    if not found.decided:
        return found
    like = x0.detach()
    parts = [_real_derivative(step, x) for x in list(kept)[-int(found.period) - 1 : -1]]

    def around(v: Tensor) -> Tensor:
        for part in parts:
            v = part(v)
        return v

    value = leading_eigenvalue(around, real(like), "modulus", _real_projection(project, like))
    return replace(found, contraction=abs(value))


def real(x: Tensor) -> Tensor:
    """A state as one real vector.

    >>> real(torch.tensor([[1 + 2j]])).tolist()
    [1.0, 2.0]
    """
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).reshape(-1)


def shaped(v: Tensor, like: Tensor) -> Tensor:
    """A real vector as a state.

    >>> shaped(torch.tensor([1.0, 2.0]), torch.tensor([[0j]])).tolist()
    [[(1+2j)]]
    """
    if like.is_complex():
        return torch.view_as_complex(v.reshape(*like.shape, 2))
    return v.reshape(like.shape)


def _real_derivative(step: Callable[[Tensor], Tensor], at: Tensor) -> Linear:
    return derivative(lambda v: real(step(shaped(v, at))), real(at))


def _real_projection(project: Linear | None, like: Tensor) -> Linear | None:
    return None if project is None else lambda v: real(project(shaped(v, like)))


def _contraction(gaps: Tensor, p: int, rounding: float) -> float:
    """The mean factor of a round, over the last rounds before rounding takes over."""
    above = torch.nonzero(gaps <= rounding)[:, 0]
    stop = int(above[0]) if len(above) else len(gaps)
    rounds = min(ROUNDS, (stop - 1) // p) if stop > p else 0
    if rounds < 1:
        return math.nan
    return float((gaps[stop - 1] / gaps[stop - 1 - rounds * p]) ** (1 / rounds))


def _first(states: Trajectory | Tensor) -> Any:
    x = states.x if isinstance(states, Trajectory) else states
    return x[0] if isinstance(x, tuple) else x


def _flat(states: Trajectory | Tensor) -> Tensor:
    """Iterates as real rows, parts of tuples side by side."""
    x = states.x if isinstance(states, Trajectory) else states
    parts = x if isinstance(x, tuple) else (x,)
    rows = [
        (torch.view_as_real(part.detach()) if part.is_complex() else part.detach()).reshape(
            len(part), -1
        )
        for part in parts
    ]
    return torch.cat(rows, 1)
