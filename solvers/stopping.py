"""When a run ends before its last time."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from solvers.rows import State


class Stop(Protocol):
    """Ends the graphs for which it returns True; `name` goes into their status."""

    name: str

    def __call__(self, t: np.ndarray, x: State, fx: State | None) -> np.ndarray:
        """Which graphs `[graphs]` are to stop, given the times and the new state."""
