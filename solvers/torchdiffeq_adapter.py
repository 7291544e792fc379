"""torchdiffeq's solvers on tuples of tensors: its numbers, our way of failing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.answer import BLIND, MORE_STEPS, Answer, FieldFunction, blind_rows, padded
from solvers.failure import (
    DONE,
    INTERRUPTED,
    MAX_STEPS,
    NOT_FINITE,
    STEP_TOO_SMALL,
    unknown_name,
)
from solvers.rows import Rows, State

UNDERFLOW, OVERFLOW, EXHAUSTED = "underflow in dt", "non-finite values", "max_num_steps exceeded"
"""How torchdiffeq's assertions begin; any other assertion is the field's own."""

FOREIGN = "scipy_solver"
"""Its wrapper of scipy: steps cannot be seen, nor gradients be taken."""


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


@dataclass
class Counted:
    """The field as torchdiffeq calls it.

    Args:
        f: The field on packed states.
        packed: Whether torchdiffeq holds a tuple.
        rows: How rows belong to graphs.
        start: Where every graph is at first.

    Attributes:
        nfe: Evaluations.
        tried: Steps tried.
        accepted: Steps accepted.
        reached: The time of each graph's newest finite state.
        x: That state, every graph at its own time; None before the first step.
        lost: For graphs that stopped being finite, when that was seen.
    """

    f: FieldFunction
    packed: bool
    rows: Rows
    start: float
    nfe: int = 0
    tried: int = 0
    accepted: int = 0
    x: State | None = None
    lost: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Stand at the start."""
        self.reached = np.full(self.rows.num_graphs, self.start)

    def __call__(self, t: Tensor, x: Any) -> Any:
        """dx/dt."""
        self.nfe += 1
        out = self.f(t, x if self.packed else (x,))
        return out if self.packed else out[0]

    def note(self, t: float, x: State) -> None:
        """Keep the newest finite state of every graph, and when the others were lost."""
        with torch.no_grad():
            x = tuple(part.detach() for part in x)
            finite = torch.isfinite(self.rows.mean_square(x)).cpu().numpy()
            for g in np.flatnonzero(~finite):
                self.lost.setdefault(int(g), t)
            good = np.array([g not in self.lost for g in range(self.rows.num_graphs)])
            self.reached = np.where(good, t, self.reached)
            self.x = x if self.x is None else self.rows.select(good, x, self.x)


class Gridded(Counted):
    """On a fixed grid nobody but us looks for NaN."""

    def callback_step(self, t: Tensor, x: Any, dt: Tensor) -> None:
        """Look at the state before each step."""
        self.tried += 1
        self.note(float(t), x if self.packed else (x,))


@dataclass
class Adapted(Counted):
    """Adaptive steps; torchdiffeq's own limit on their number starts anew at saved times.

    Args:
        max_steps: Most steps tried in all.
    """

    max_steps: int = 10_000

    def callback_step(self, t: Tensor, x: Any, dt: Tensor) -> None:
        """Note the state before each try; torchdiffeq itself checks that it is finite."""
        self.reached = np.full_like(self.reached, float(t))
        self.x = tuple(part.detach() for part in (x if self.packed else (x,)))
        if self.tried >= self.max_steps:
            raise AssertionError(f"{EXHAUSTED} ({self.tried}>={self.max_steps})")
        self.tried += 1

    def callback_accept_step(self, t: Tensor, x: Any, dt: Tensor) -> None:
        """Count."""
        self.accepted += 1


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

    >>> x0, t = (torch.ones(1, dtype=torch.float64),), torch.tensor([0.0, 1.0]).double()
    >>> answer = integrate(lambda t, x: (-x[0],), x0, t, Method("dopri5"))
    >>> round(answer.x[0][-1].item(), 3), answer.status
    (0.368, ['done'])
    """
    rows = rows or Rows()
    observed = _observed(f, packed, rows, float(t[0]), method, max_steps)
    call = _Call(observed, method, rtol, atol, grid, max_steps, leaves)
    try:
        x = call(x0, t)
    except AssertionError as error:
        status = _status(str(error))
        if status is None:
            raise
        answer = _partial(call, x0, t, status, str(error))
    except KeyboardInterrupt:
        answer = _broken(call, tuple(p[None] for p in x0), x0, t, INTERRUPTED, "interrupted")
        answer.interrupted = True
    else:
        if len(x[0]) < len(t):
            answer = _broken(call, x, x0, t, STEP_TOO_SMALL, "scipy gave up without a word")
        else:
            answer = _finished(observed, x, t.detach().cpu().numpy())
    answer.nfe = observed.nfe
    answer.accepted = observed.tried if method.fixed else observed.accepted
    answer.rejected = observed.tried - answer.accepted
    return answer


def _observed(
    f: FieldFunction, packed: bool, rows: Rows, start: float, method: Method, max_steps: int
) -> Counted:
    # torchdiffeq warns of callbacks that a method does not know, so each has its own set.
    if not method.visible:
        return Counted(f, packed, rows, start)
    if method.fixed:
        return Gridded(f, packed, rows, start)
    return Adapted(f, packed, rows, start, max_steps=max_steps)


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
            adjoint["grid_constructor"] = _placing(-self.grid if t[-1] < t[0] else self.grid)
        if not self.method.fixed and self.method.visible:
            options["max_num_steps"] = adjoint["max_num_steps"] = self.max_steps
        if self.observed.rows.num_graphs > 1:
            options["norm"] = self._norm
        given = dict(rtol=self.rtol, atol=self.atol, method=self.method.name, options=options)
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
        return torch.stack([t[slot[p]] if p in slot else m for p, m in zip(inside, moved)])

    return place


def _finished(observed: Counted, x: State, t: np.ndarray) -> Answer:
    """A result; on fixed grids graphs may have been lost on the way without a word."""
    graphs = observed.rows.num_graphs
    final = tuple(part[-1] for part in x)
    observed.note(float(t[-1]), final)
    assert observed.x is not None
    status, messages = [DONE] * graphs, {}
    if not observed.lost:
        return Answer(x, final, observed.reached.tolist(), status)
    for g, when in observed.lost.items():
        status[g] = NOT_FINITE
        who = f"graph {g}" if graphs > 1 else "the solve"
        messages[g] = (
            f"{who} stopped at t={when:.6g} of {t[-1]:g}: the state is nan or inf there. The step "
            "is probably outside the method's stability interval, or the field is not finite: use "
            "more steps, or an adaptive solver such as 'tsit5'."
        )
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


def _status(text: str) -> str | None:
    """Our word for what torchdiffeq's assertion says; None for assertions of the field."""
    words = {UNDERFLOW: STEP_TOO_SMALL, OVERFLOW: NOT_FINITE, EXHAUSTED: MAX_STEPS}
    return next((word for start, word in words.items() if text.startswith(start)), None)


def _partial(call: _Call, x0: State, t: Tensor, status: str, text: str) -> Answer:
    """The saved times before the failure; steps do not depend on them, so they are solved again."""
    observed = call.observed
    seen = dict(vars(observed))
    sign = 1.0 if t[-1] >= t[0] else -1.0
    rows = int((sign * (t.detach().cpu().numpy() - observed.reached[0]) <= 0).sum())
    x = tuple(part[None] for part in x0)
    if rows > 1:
        observed.tried = 0
        x = call(x0, t[:rows])
        vars(observed).update(seen)
    return _broken(call, x, x0, t, status, text.split(":")[0])


def _broken(call: _Call, x: State, x0: State, t: Tensor, status: str, text: str) -> Answer:
    observed = call.observed
    if observed.x is None:
        observed.x = tuple(part[-1].detach() for part in x)
        observed.reached[:] = float(t[len(x[0]) - 1])
    last, when, graphs = observed.x, float(observed.reached[0]), observed.rows.num_graphs
    who = "the batch" if graphs > 1 else "the solve"
    what = f"{who} stopped at t={when:.6g} of {float(t[-1]):g} (torchdiffeq: {text})"
    if status in (STEP_TOO_SMALL, NOT_FINITE):
        now = torch.tensor(when, dtype=x0[0].dtype.to_real(), device=x0[0].device)
        row = blind_rows(observed.f, now, last)
        if row is None:
            what += ": the solution probably blows up or jumps there; end before it."
        else:
            status = NOT_FINITE
            what += f": {BLIND.format(row=row)}"
    elif status == MAX_STEPS:
        what += f": {MORE_STEPS}"
    return Answer(
        padded(x, len(t)), last, [when] * graphs, [status] * graphs, dict.fromkeys(range(graphs), what)
    )
