"""A field as torchdiffeq calls it: counted, and watched through torchdiffeq's callbacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.answer import FieldFunction
from solvers.rows import Rows, State

EXHAUSTED = "max_num_steps exceeded"
"""torchdiffeq's words when its own limit is reached, and ours."""


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
        growth: Largest |x| on a fixed grid in multiples of the first.
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
    growth: float = 1.0
    _first: np.ndarray | None = None

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
            size = self.rows.mean_square(x).cpu().numpy()
            finite = np.isfinite(size)
            self._first = size if self._first is None else self._first
            seen = finite & (self._first > 0)
            self.growth = max([self.growth, *np.sqrt(size[seen] / self._first[seen])])
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
        self.note(float(t.detach()), x if self.packed else (x,))


@dataclass
class Adapted(Counted):
    """Adaptive steps; torchdiffeq's own limit on their number starts anew at saved times.

    Args:
        max_steps: Most steps tried in all.
    """

    max_steps: int = 10_000

    def callback_step(self, t: Tensor, x: Any, dt: Tensor) -> None:
        """Note the state before each try; torchdiffeq itself checks that it is finite."""
        self.reached = np.full_like(self.reached, float(t.detach()))
        self.x = tuple(part.detach() for part in (x if self.packed else (x,)))
        if self.tried >= self.max_steps:
            raise AssertionError(f"{EXHAUSTED} ({self.tried}>={self.max_steps})")
        self.tried += 1

    def callback_accept_step(self, t: Tensor, x: Any, dt: Tensor) -> None:
        """Count."""
        self.accepted += 1
