"""States between accepted steps: the interpolant of the step that covers a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.flow import Flow
from solvers.interpolation import hermite
from solvers.rows import State
from solvers.tape import Kept


@dataclass
class Dense:
    """Dense output of a run that kept all its steps.

    Args:
        kept: The starts of the steps, and the end.
        flow: Evaluates an end slope that the method did not leave behind.
        packed: Whether the user's state is a tuple.
    """

    kept: list[Kept]
    flow: Flow
    packed: bool

    def __call__(self, t: float) -> Tensor | State:
        """The state at a time inside the interval."""
        times = np.array([kept.t for kept in self.kept])
        sign = 1.0 if times[-1] >= times[0] else -1.0
        at = int(np.searchsorted(sign * times, sign * t, side="right")) - 1
        at = min(max(at, 0), len(self.kept) - 2)
        start, end = self.kept[at], self.kept[at + 1]
        h = end.t - start.t
        with torch.no_grad():
            slopes = [
                k.f if k.f is not None else self.flow(np.array([k.t]), k.x) for k in (start, end)
            ]
            x = hermite((t - start.t) / h, h, start.x, slopes[0], end.x, slopes[1], start.mid)
        return x if self.packed else x[0]
