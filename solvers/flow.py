"""A field on its clocks: dx/dt for every graph at that graph's own time, and counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from solvers.rows import Rows, State

FieldFunction = Callable[[Tensor, State], State]


class Flow:
    """The field f(t, x) as the steppers see it.

    Args:
        field: Maps a time tensor and a state (a tuple of tensors) to the derivative, a tuple too.
        clocks: How rows map to clocks; one clock for all rows, or one for each graph.
        like: A tensor of the state: its device and (real) dtype are those of the time.

    >>> flow = Flow(lambda t, x: (t * x[0],), Rows(None, 1), torch.ones(2))
    >>> flow(np.array([3.0]), (torch.ones(2),))[0].tolist(), flow.nfe
    ([3.0, 3.0], 1)
    """

    def __init__(self, field: FieldFunction, clocks: Rows, like: Tensor) -> None:
        self.field, self.clocks = field, clocks
        self.device, self.dtype = like.device, like.real.dtype if like.is_complex() else like.dtype
        self.nfe = 0

    def time(self, t: np.ndarray) -> Tensor:
        """The clocks' times as the field reads them: 0-d, or `[rows, 1]` for several clocks."""
        if len(t) == 1:
            return torch.tensor(t[0], dtype=self.dtype, device=self.device)
        assert self.clocks.batch is not None
        column = torch.from_numpy(t).to(self.device)[self.clocks.batch].unsqueeze(1)
        return column.to(self.dtype)

    def __call__(self, t: np.ndarray, x: State) -> State:
        """dx/dt at the clocks' times `t` `[clocks]`."""
        self.nfe += 1
        return self.field(self.time(t), x)

    def stages(self, t: np.ndarray, h: np.ndarray) -> Callable[[float, State], State]:
        """The field as a function of the stage's node c: dx/dt at t + c h."""
        if len(t) > 1:
            return lambda c, x: self(t + c * h, x)
        start, size = float(t[0]), float(h[0])

        def stage(c: float, x: State) -> State:
            self.nfe += 1
            time = torch.scalar_tensor(start + c * size, dtype=self.dtype, device=self.device)
            return self.field(time, x)

        return stage
