"""Step control: error ratios per graph, the next step, the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.explicit import combine
from solvers.rows import Rows, State

Trial = Callable[[Float[np.ndarray, " graphs"], State], State]
"""The field at a trial point: ``f(h, x)`` is its value at ``t + h``, one ``h`` per graph."""

# A smaller ratio says no more about the problem than this one does (Hairer and Wanner, FACOLD).
SMALLEST_REMEMBERED_RATIO = 1e-4

# Below this every factor is the largest; powers of it are finite.
SMALLEST_RATIO = 1e-200


@dataclass
class History:
    """What a controller remembers of each graph.

    Attributes:
        last: error ratio of the last accepted step.
        before: error ratio of the accepted step before that.
        rejected: whether the last step was rejected.
    """

    last: Float[np.ndarray, " graphs"]
    before: Float[np.ndarray, " graphs"]
    rejected: Bool[np.ndarray, " graphs"]


@dataclass(frozen=True)
class Control:
    """A proportional-integral-derivative step controller.

    ``h <- h clip(safety r_n^-(kI+kP+kD)/q r_{n-1}^(kP+2kD)/q r_{n-2}^-kD/q, shrink, grow)`` with
    the error ratios r of the latest accepted steps and q the order of the error estimate. The
    default is torchdiffeq's controller: integral only, and an accepted step never shrinks.

    Args:
        kI: integral coefficient.
        kP: proportional coefficient.
        kD: derivative coefficient.
        safety: aims below a ratio of 1.
        shrink: smallest factor.
        grow: largest factor.

    Raises:
        ValueError: unless ``0 < safety <= 1`` and ``0 < shrink < 1 < grow``.

    Source:
        Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.4; Soderlind,
        Digital filters in adaptive time-stepping (2003).

    Example:
        >>> control = Control()
        >>> control.factor(np.array([0.0, 1.0, 1e9]), 5, control.start(3)).tolist()
        [10.0, 0.9, 0.2]
    """

    kI: float = 1.0
    kP: float = 0.0
    kD: float = 0.0
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.safety <= 1 and 0 < self.shrink < 1 < self.grow):
            raise ValueError(
                f"safety={self.safety}, shrink={self.shrink}, grow={self.grow}; needed are "
                "0 < safety <= 1 and 0 < shrink < 1 < grow"
            )

    @property
    def remembers(self) -> bool:
        """Whether earlier ratios matter."""
        return self.kP != 0 or self.kD != 0

    def start(self, num_graphs: int) -> History:
        """Begin a solve.

        Args:
            num_graphs: number of graphs.

        Returns:
            The history of a solve that has taken no step.
        """
        return History(
            np.ones(num_graphs), np.ones(num_graphs), np.zeros(num_graphs, dtype=np.bool_)
        )

    def factor(
        self,
        ratio: Float[np.ndarray, " graphs"],
        order: int | Int[np.ndarray, " graphs"],
        history: History,
    ) -> Float[np.ndarray, " graphs"]:
        """Compute the factor that multiplies each graph's step; ratios up to 1 are accepted.

        A ratio that is NaN or infinite is a rejection. The history is updated in place: ratios
        only where the step was accepted.

        Args:
            ratio: error ratio of the step just tried.
            order: order q of the error estimate, a method's ``error_order``.
            history: from :meth:`start`.

        Returns:
            Factors between ``shrink`` and ``grow``.
        """
        safe = np.maximum(ratio, SMALLEST_RATIO)
        factor = self.safety * safe ** (-(self.kI + self.kP + self.kD) / order)
        if self.remembers:
            return self._remember(factor, ratio, order, history)
        history.rejected = ~(ratio <= 1)
        # fmax takes the number when the other is NaN: a NaN ratio shrinks the step. True is 1.
        factor = np.fmax(np.fmax(factor, self.shrink), ratio < 1)
        bounded: Float[np.ndarray, " graphs"] = np.fmin(factor, self.grow)
        return bounded

    def _remember(
        self,
        factor: Float[np.ndarray, " graphs"],
        ratio: Float[np.ndarray, " graphs"],
        order: int | Int[np.ndarray, " graphs"],
        history: History,
    ) -> Float[np.ndarray, " graphs"]:
        accepted = ratio <= 1
        with np.errstate(over="ignore", invalid="ignore"):
            factor = factor * history.last ** ((self.kP + 2 * self.kD) / order)
            factor = factor * history.before ** (-self.kD / order)
        factor = np.fmin(np.fmax(factor, self.shrink), self.grow)
        factor = np.where(accepted, factor, np.minimum(factor, self.safety))
        factor = np.where(accepted & history.rejected, np.minimum(factor, 1.0), factor)
        factor = np.where(ratio == 0, self.grow, factor)
        history.before = np.where(accepted, history.last, history.before)
        history.last = np.where(
            accepted, np.maximum(ratio, SMALLEST_REMEMBERED_RATIO), history.last
        )
        history.rejected = ~accepted
        return factor


def PI(kP: float = 0.3, kI: float = 0.4) -> Control:
    """Make a proportional-integral controller; smoother steps where stability limits them.

    Args:
        kP: proportional coefficient.
        kI: integral coefficient.

    Returns:
        The controller.

    Example:
        >>> PI().kP, PI().kI
        (0.3, 0.4)
    """
    return Control(kI=kI, kP=kP)


def PID(kP: float, kI: float, kD: float) -> Control:
    """Make a proportional-integral-derivative controller.

    Args:
        kP: proportional coefficient.
        kI: integral coefficient.
        kD: derivative coefficient.

    Returns:
        The controller.

    Example:
        >>> PID(0.2, 0.3, 0.1).kD
        0.1
    """
    return Control(kI=kI, kP=kP, kD=kD)


def tolerance_scale(x: State, x_new: State, rtol: float, atol: float) -> State:
    """Build the size of error allowed in each entry, ``atol + rtol max(|x|, |x_new|)``.

    Args:
        x: the state before the step.
        x_new: the state after it; ``x`` again for the scale at one point.
        rtol: relative tolerance.
        atol: absolute tolerance; never taken as smaller than the smallest normal number, so that
            entries that are and stay zero count as exact.

    Returns:
        Real positive tensors of the shapes of ``x``; NaN where ``x`` or ``x_new`` is.

    Example:
        >>> tolerance_scale((torch.tensor(-4.0),), (torch.tensor(1.0),), 0.5, 1.0)
        (tensor(3.),)
    """
    return tuple(_scale(old, new, rtol, atol) for old, new in zip(x, x_new, strict=True))


def _scale(old: Tensor, new: Tensor, rtol: float, atol: float) -> Tensor:
    with torch.no_grad():
        size = old.abs()
        if new is not old:
            torch.maximum(size, new.abs(), out=size)
        return size.mul_(rtol).add_(max(atol, torch.finfo(size.dtype).tiny))


def error_ratio(error: State, scale: State, rows: Rows) -> Float[Tensor, " graphs"]:
    """Compare an error estimate with what is allowed, per graph.

    ``r_g = sqrt(mean over the entries of g of |error / scale|^2)``, all parts together.

    Args:
        error: the estimate.
        scale: from :func:`tolerance_scale`, or any positive tensors of these shapes.
        rows: which rows belong to which graph.

    Returns:
        Float64 ratios without gradient; up to 1 is acceptable; NaN where an entry is NaN.

    Example:
        >>> error_ratio((torch.tensor([3.0, 4.0]),), (torch.tensor([1.0, 1.0]),), Rows()).item()
        3.5355339059327378
    """
    with torch.no_grad():
        scaled = tuple(e / s for e, s in zip(error, scale, strict=True))
        return rows.mean_square(scaled).sqrt_()


def _ratios(error: State, scale: State, rows: Rows) -> Float[np.ndarray, " graphs"]:
    """The same as numbers of the host."""
    scaled = tuple([e / s for e, s in zip(error, scale, strict=True)])
    ratios: Float[np.ndarray, " graphs"] = np.sqrt(rows.mean_squares(scaled))
    return ratios


def initial_step(
    f: Trial,
    x: State,
    fx: State,
    order: int | Int[np.ndarray, " graphs"],
    rtol: float,
    atol: float,
    rows: Rows,
    span: Float[np.ndarray, " graphs"],
) -> Float[np.ndarray, " graphs"]:
    """Choose the first step of each graph at the price of one evaluation, without gradient.

    Args:
        f: the field at a trial point, ``f(h, x)`` at time ``t + h``.
        x: the first state.
        fx: the field there.
        order: order q of the error estimate, a method's ``error_order`` (torchdiffeq passes q - 1
            to its own function, which adds 1).
        rtol: relative tolerance.
        atol: absolute tolerance.
        rows: which rows belong to which graph.
        span: time left to each graph; its sign is the direction, and neither the trial nor the
            result goes beyond it.

    Returns:
        Steps with the sign of ``span``.

    Source:
        Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.4.

    Example:
        >>> x = (torch.tensor(1.0, dtype=torch.float64),)
        >>> h = initial_step(lambda h, x: (-x[0],), x, (-x[0],), 2, 1e-2, 0.0, Rows(), np.ones(1))
        >>> h.round(4).tolist()
        [0.01]
    """
    with torch.no_grad():
        scale = tolerance_scale(x, x, rtol, atol)
        size, speed = _ratios(x, scale, rows), _ratios(fx, scale, rows)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slow = (size < 1e-5) | (speed < 1e-5)
            trial = np.where(slow, 1e-6, 0.01 * size / speed)
            trial = np.copysign(np.minimum(trial, np.abs(span)), span)
            there = f(trial, combine(x, rows.spread(trial, x[0]), (1.0,), (fx,)))
            change = tuple(new - old for new, old in zip(there, fx, strict=True))
            bend = _ratios(change, scale, rows) / np.abs(trial)
            flat = (speed <= 1e-15) & (bend <= 1e-15)
            step = np.where(
                flat,
                np.maximum(1e-6, np.abs(trial) * 1e-3),
                (0.01 / np.maximum(speed, bend)) ** (1 / order),
            )
        step = np.where(np.isfinite(bend), np.minimum(100 * np.abs(trial), step), np.abs(trial))
        signed: Float[np.ndarray, " graphs"] = np.copysign(np.minimum(step, np.abs(span)), span)
        return signed
