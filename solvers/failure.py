"""How a run ends: the status of each graph, the two exceptions, and names that nearly match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solvers.trajectory import Trajectory

DONE = "done"
STOPPED = "stopped"
MAX_STEPS = "max_steps"
STEP_TOO_SMALL = "step_too_small"
NOT_FINITE = "not_finite"
LINEAR_SOLVE_FAILED = "linear_solve_failed"
NEWTON_FAILED = "newton_failed"
INTERRUPTED = "interrupted"

FAILURES = frozenset(
    {MAX_STEPS, STEP_TOO_SMALL, NOT_FINITE, LINEAR_SOLVE_FAILED, NEWTON_FAILED, INTERRUPTED}
)


class SolveFailed(RuntimeError):
    """A solve ended before its last time; it carries what was computed until then.

    Args:
        trajectory: The partial trajectory; entries that were not reached are NaN.
        reason: Which graph, when, why, and what to try.

    >>> error = SolveFailed(None, "graph 0 stopped at t=1")
    >>> str(error), error.trajectory is None
    ('graph 0 stopped at t=1', True)
    """

    def __init__(self, trajectory: Trajectory | None, reason: str) -> None:
        super().__init__(reason)
        self.trajectory = trajectory
        self.reason = reason


class SolveInterrupted(KeyboardInterrupt):
    """Ctrl-C during a solve; it carries what was computed until then.

    >>> issubclass(SolveInterrupted, KeyboardInterrupt)
    True
    """

    def __init__(self, trajectory: Trajectory | None, reason: str) -> None:
        super().__init__(reason)
        self.trajectory = trajectory
        self.reason = reason


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Build the error for a name nobody knows: the nearest one first, then all of them.

    >>> str(unknown_name("solver", "rk45", ["rk4", "euler"]))
    "unknown solver 'rk45'; did you mean 'rk4'? Known: euler, rk4"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")
