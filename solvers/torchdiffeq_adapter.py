"""torchdiffeq's solvers on tuples of tensors: its numbers, our way of failing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.answer import MORE_STEPS, Answer, Blind, FieldFunction, blind_rows, lookout, padded
from solvers.failure import (
    DONE,
    INTERRUPTED,
    MAX_STEPS,
    NOT_FINITE,
    STEP_TOO_SMALL,
    unknown_name,
)
from solvers.observed import EXHAUSTED, Adapted, Counted, Gridded
from solvers.rows import Rows, State

UNDERFLOW, OVERFLOW = "underflow in dt", "non-finite values"
"""How torchdiffeq's assertions begin; any other assertion is the field's own."""

FOREIGN = "scipy_solver"
"""Its wrapper of scipy: steps cannot be seen, nor gradients be taken."""

UNEQUAL = 1e-4
"""Relative difference of steps that rounding in single precision explains."""

FEW = 20
"""Steps in which a field that stopped a solve shows itself again."""


@dataclass(frozen=True)
class Method:
    """One of torchdiffeq's methods.

    Args:
        name: Its name there.

    Raises:
        ValueError: For an unknown name, with the nearest one.

    >>> Method("rk4").fixed, Method("dopri8").fixed
    (True, False)
    """

    name: str

    def __post_init__(self) -> None:
        """Look the name up."""
        if self.name not in names():
            raise unknown_name("torchdiffeq method", self.name, names())

    @property
    def fixed(self) -> bool:
        """Whether it steps along a grid."""
        from torchdiffeq._impl.odeint import SOLVERS
        from torchdiffeq._impl.solvers import FixedGridODESolver

        return issubclass(SOLVERS[self.name], FixedGridODESolver)

    @property
    def multistep(self) -> bool:
        """Whether it is an Adams method, whose coefficients belong to equal steps."""
        return self.name.endswith("adams")

    @property
    def visible(self) -> bool:
        """Whether its steps can be watched and differentiated."""
        return self.name != FOREIGN


def names() -> tuple[str, ...]:
    """The methods of the installed torchdiffeq.

    >>> "dopri5" in names()
    True
    """
    from torchdiffeq._impl.odeint import SOLVERS

    return tuple(SOLVERS)


def integrate(
    f: FieldFunction,
    x0: State,
    t: Tensor,
    method: Method,
    *,
    packed: bool = False,
    rows: Rows | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    grid: np.ndarray | None = None,
    max_steps: int = 10_000,
    leaves: Sequence[Tensor] | None = None,
) -> Answer:
    """Solve with torchdiffeq; its assertions become a status.

    Args:
        f: The field on packed states.
        x0: First state.
        t: Save times `[saved]`, strictly monotone, float64; may require grad.
        method: Which one.
        packed: Whether torchdiffeq sees a tuple (its norm is then the largest over the parts).
        rows: How rows belong to graphs; the error norm of a batch is the largest over graphs.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        grid: All points of a fixed grid, among them `t`.
        max_steps: Most steps tried.
        leaves: None: autograd through the solver; else the tensors whose gradients the continuous
            adjoint computes.

    Raises:
        ValueError: For an Adams method on steps that are not equal.

    >>> x0, t = (torch.ones(1, dtype=torch.float64),), torch.tensor([0.0, 1.0]).double()
    >>> answer = integrate(lambda t, x: (-x[0],), x0, t, Method("dopri5"))
    >>> round(answer.x[0][-1].item(), 3), answer.status
    (0.368, ['done'])
    """
    if grid is not None and method.multistep:
        _check_equal(method, grid)
    rows, times = rows or Rows(), t.detach().cpu().numpy()
    kind: Callable[..., Counted] = (
        Gridded if method.fixed else partial(Adapted, max_steps=max_steps)
    )
    # torchdiffeq warns of callbacks that a method does not know, so each has its own set.
    kind = kind if method.visible else Counted
    observed = kind(f, packed, rows, float(times[0]))
    call = _Call(observed, method, rtol, atol, grid, max_steps, leaves)
    try:
        x = call(x0, t)
    except AssertionError as error:
        status = _status(str(error))
        if status is None:
            raise
        answer = _partial(call, x0, t, status, str(error))
    except KeyboardInterrupt:
        answer = _broken(call, tuple(p[None] for p in x0), times, INTERRUPTED, "interrupted")
        answer.interrupted = True
    else:
        if len(x[0]) < len(t):
            answer = _broken(call, x, times, STEP_TOO_SMALL, "scipy gave up without a word")
        else:
            answer = _finished(observed, x, times)
    answer.nfe = observed.nfe
    answer.accepted = observed.tried if method.fixed else observed.accepted
    answer.rejected = observed.tried - answer.accepted
    return answer


@dataclass
class _Call:
    """One call of odeint or odeint_adjoint, which may be repeated on fewer times."""

    observed: Counted
    method: Method
    rtol: float
    atol: float
    grid: np.ndarray | None
    max_steps: int
    leaves: Sequence[Tensor] | None

    def __call__(self, x0: State, t: Tensor) -> State:
        import torchdiffeq

        options: dict[str, Any] = {}
        adjoint: dict[str, Any] = {}
        if self.grid is not None:
            options["grid_constructor"] = _placing(self.grid)
            # torchdiffeq solves decreasing times in -t, and does not flip this one.
            adjoint["grid_constructor"] = _placing(
                self.grid * np.sign(self.grid[-1] - self.grid[0])
            )
        if not self.method.fixed and self.method.visible:
            options["max_num_steps"] = adjoint["max_num_steps"] = self.max_steps
        if self.observed.rows.num_graphs > 1:
            options["norm"] = self._norm
        given = {"rtol": self.rtol, "atol": self.atol, "options": options}
        given["method"] = self.method.name
        y0 = x0 if self.observed.packed else x0[0]
        t = t.to(x0[0].device)
        if self.leaves is None:
            x = torchdiffeq.odeint(self.observed, y0, t, **given)
        else:
            x = torchdiffeq.odeint_adjoint(
                self.observed,
                y0,
                t,
                **given,
                adjoint_options=adjoint,
                adjoint_params=tuple(self.leaves),
            )
        return tuple(x) if self.observed.packed else (x,)

    def _norm(self, x: Any) -> Tensor:
        squares = self.observed.rows.mean_square(x if self.observed.packed else (x,))
        return squares.max().sqrt()


def _check_equal(method: Method, grid: np.ndarray) -> None:
    steps = np.diff(grid)
    if (np.abs(steps - steps.mean()) > UNEQUAL * np.abs(steps.mean())).any():
        raise ValueError(
            f"torchdiffeq:{method.name} takes its steps to be equal, and here they lie between "
            f"{np.abs(steps).min():.4g} and {np.abs(steps).max():.4g}, which would give wrong "
            "results without a word: use a uniform grid that contains the saved times, or a "
            "one-step method such as 'rk4'"
        )


def _placing(grid: np.ndarray) -> Callable[[Any, Any, Tensor], Tensor]:
    """A constructor of the grid's part between the times that torchdiffeq asks for."""
    start, span = float(grid[0]), float(grid[-1] - grid[0])

    def place(f: Any, x0: Any, t: Tensor) -> Tensor:
        times = t.detach().cpu().numpy()
        low, high = sorted((times[0], times[-1]))
        inside = grid[(grid >= low) & (grid <= high)]
        inside = inside if (inside[-1] - inside[0]) * (times[-1] - times[0]) >= 0 else inside[::-1]
        points = torch.from_numpy(inside.copy()).to(t)
        if not t.requires_grad:
            return points
        # Saved times move themselves; the points between them go with both ends.
        share = (points - start) / span
        shift = t - t.detach()
        moved = points + (1 - share) * shift[0] + share * shift[-1]
        slot = {float(time): k for k, time in enumerate(times)}
        pairs = zip(inside, moved, strict=True)
        return torch.stack([t[slot[p]] if p in slot else m for p, m in pairs])

    return place


def _finished(observed: Counted, x: State, t: np.ndarray) -> Answer:
    """A result; on fixed grids graphs may have been lost on the way without a word."""
    graphs = observed.rows.num_graphs
    final = tuple(part[-1] for part in x)
    observed.note(float(t[-1]), final)
    assert observed.x is not None
    status, messages = [DONE] * graphs, {}
    if not observed.lost:
        ended = observed.reached.tolist()
        return Answer(x, final, ended, status, growth=observed.growth)
    for g, when in observed.lost.items():
        status[g] = NOT_FINITE
        who = f"graph {g}" if graphs > 1 else "the solve"
        blind = _blind_on_grid(observed, g, when)
        cause = blind or (
            "the state is nan or inf there although the field was finite before. The step is "
            "probably outside the method's stability interval: use more steps, or an adaptive "
            "solver such as 'tsit5'."
        )
        messages[g] = f"{who} stopped at t={when:.6g} of {t[-1]:g}: {cause}"
    sign = 1.0 if t[-1] >= t[0] else -1.0
    lost = np.array([observed.lost.get(g, sign * np.inf) for g in range(graphs)])
    slots = [tuple(part[s] for part in x) for s in range(len(t))]
    blank = tuple(torch.full_like(part[0], torch.nan) for part in x)
    kept = [
        observed.rows.select(sign * (time - lost) < 0, slot, blank)
        for time, slot in zip(t, slots, strict=True)
    ]
    states = tuple(torch.stack(parts) for parts in zip(*kept, strict=True))
    good = np.array([word == DONE for word in status])
    last = observed.rows.select(good, final, observed.x)
    return Answer(states, last, observed.reached.tolist(), status, messages)


def _blind(call: _Call, x: State, when: float, end: float) -> Blind | None:
    """Where the field is to blame: at the last state, or in the steps that would come next."""
    observed = call.observed
    rows = blind_rows(observed.f, _time(when, x), x)
    if rows or not call.method.visible:
        return Blind(when, rows) if rows else None
    again = Adapted(lookout(observed.f), observed.packed, observed.rows, when, max_steps=FEW)
    try:
        with torch.no_grad():
            replace(call, observed=again, leaves=None)(
                x, torch.tensor([when, end], dtype=torch.float64, device="cpu")
            )
    except Blind as found:
        return found
    except AssertionError as error:
        if _status(str(error)) is None:
            raise
    return None


def _blind_on_grid(observed: Counted, g: int, when: float) -> Blind | None:
    """Where the field is to blame for losing graph g: before the step, or after it."""
    assert observed.x is not None
    batch = observed.rows.batch
    for t in (float(observed.reached[g]), when):
        rows = blind_rows(observed.f, _time(t, observed.x), observed.x)
        own = [row for row in rows if batch is None or int(batch[row]) == g]
        if own:
            return Blind(t, own)
    return None


def _time(t: float, x: State) -> Tensor:
    return torch.tensor(t, dtype=x[0].dtype.to_real(), device=x[0].device)


def _status(text: str) -> str | None:
    """Our word for what torchdiffeq's assertion says; None for assertions of the field."""
    words = {UNDERFLOW: STEP_TOO_SMALL, OVERFLOW: NOT_FINITE, EXHAUSTED: MAX_STEPS}
    return next((word for start, word in words.items() if text.startswith(start)), None)


def _partial(call: _Call, x0: State, t: Tensor, status: str, text: str) -> Answer:
    """The saved times before the failure; steps do not depend on them, so they are solved again."""
    observed = call.observed
    seen, times = dict(vars(observed)), t.detach().cpu().numpy()
    sign = 1.0 if times[-1] >= times[0] else -1.0
    rows = int((sign * (times - observed.reached[0]) <= 0).sum())
    x = tuple(part[None] for part in x0)
    if rows > 1:
        observed.tried = 0
        x = call(x0, t[:rows])
        vars(observed).update(seen)
    return _broken(call, x, times, status, text.split(":")[0])


def _broken(call: _Call, x: State, t: np.ndarray, status: str, text: str) -> Answer:
    observed = call.observed
    if observed.x is None:
        observed.x = tuple(part[-1].detach() for part in x)
        observed.reached[:] = t[len(x[0]) - 1]
    last, when, graphs = observed.x, float(observed.reached[0]), observed.rows.num_graphs
    who = "the batch" if graphs > 1 else "the solve"
    what = f"{who} stopped at t={when:.6g} of {t[-1]:g} (torchdiffeq: {text})"
    if status in (STEP_TOO_SMALL, NOT_FINITE):
        blind = _blind(call, last, when, float(t[-1]))
        status = status if blind is None else NOT_FINITE
        cause = blind or "the solution probably blows up or jumps there; end before it."
        what += f": {cause}"
    elif status == MAX_STEPS:
        what += f": {MORE_STEPS}"
    messages = dict.fromkeys(range(graphs), what)
    return Answer(padded(x, len(t)), last, [when] * graphs, [status] * graphs, messages)
