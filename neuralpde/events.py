"""The first time a function of the solution changes sign, differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.fields.field import State
from neuralpde.solve import solve
from solvers.events import Event
from solvers.failure import MAX_STEPS, STOPPED, SolveFailed
from solvers.trajectory import Trajectory

MAX_EVENT_STEPS = 20_000
HORIZON = 1e12
"""How far an event is looked for; the number of steps ends the search long before."""

METHODS = ("dopri5", "tsit5", "dopri8", "bosh3", "heun")

WANTED = f"{STOPPED} ({Event.name})"

Function = Callable[[Tensor, Any], Any]


def first_event(
    func: Function,
    y0: State,
    t: Tensor,
    event_fn: Function,
    *,
    solver: str,
    grad: str,
    rtol: float,
    atol: float,
    max_steps: int | None = None,
) -> tuple[Tensor, State]:
    """Solve from t[0] towards t[1] and beyond until `event_fn` changes sign.

    torchdiffeq's words for a solve with `stop=Event(event_fn)`, whose docstring has the equations.

    Args:
        func: dy/dt.
        y0: First state.
        t: Start, and a time on the way.
        event_fn: g(t, y), any number of entries.
        solver: One of our adaptive steppers.
        grad: "tape" or "replay".
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Most steps tried.

    Returns:
        t* and the states at t[0] and t*.

    Raises:
        RuntimeError: When there is no event.
        ValueError: For other solvers; when gradients are taken of a grazed event.

    >>> start = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> when, _ = first_event(lambda t, y: 0 * y + 1, torch.zeros(1).double(), start,
    ...     lambda t, y: y - 3, solver="tsit5", grad="tape", rtol=1e-6, atol=1e-6)
    >>> round(when.item(), 12)
    3.0
    """
    if solver not in METHODS:
        raise ValueError(
            f"nobody knows how far an event is, so that it needs adaptive steps of ours, and "
            f"{solver!r} has none; use 'dopri5', 'tsit5', 'dopri8', 'bosh3' or 'adaptive_heun', or "
            "solve(..., stop=Event(event_fn))"
        )
    packed = isinstance(y0, tuple)
    first, second = t.detach().double().tolist()
    far = first + float(np.copysign(HORIZON, second - first))
    given: dict[str, Any] = {
        "solver": solver,
        "rtol": rtol,
        "atol": atol,
        "max_steps": MAX_EVENT_STEPS if max_steps is None else int(max_steps),
    }
    times = torch.cat(
        [t[:1].double().cpu(), torch.tensor([far], dtype=torch.float64, device="cpu")]
    )
    found = solve(func, y0, times, stop=Event(event_fn), grad=grad, raise_on_failure=False, **given)
    if found.status != WANTED:
        raise _missed(found, far)
    assert found.ended is not None
    start, last = (one if isinstance(one, tuple) else (one,) for one in (y0, found.final))
    solution = tuple(torch.stack(ends) for ends in zip(start, last, strict=True))
    return found.ended.to(t), solution if packed else solution[0]


def _missed(found: Trajectory, far: float) -> RuntimeError:
    """Why there was no event."""
    if found.status != MAX_STEPS and not found.succeeded:
        return SolveFailed(found, " ".join(found.messages.values()))
    ended = far if found.ended is None else float(found.ended)
    return RuntimeError(
        f"event_fn did not change sign up to t={ended:.6g}, after {found.stats.accepted} steps; "
        "check its sign at the start, or raise options={'max_num_steps': n}"
    )
