"""A field on its clocks: dx/dt for every graph at that graph's own time, and counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.rows import Rows, State
from solvers.structure import Structure

FieldFunction = Callable[[Tensor, State], State]
NOTHING_KNOWN = Structure()


class Flow:
    """The field f(t, x) as the steppers see it.

    Args:
        field: Maps a time tensor and a state (a tuple of tensors) to the derivative, a tuple too.
        clocks: How rows map to clocks; one clock for all rows, or one for each graph.
        like: A tensor of the state: its device and (real) dtype are those of the time.
        structure: What the field declares of itself.

    Attributes:
        nfe: Evaluations so far; whoever evaluates a part of the structure alone counts it here.

    >>> flow = Flow(lambda t, x: (t * x[0],), Rows(None, 1), torch.ones(2))
    >>> flow(np.array([3.0]), (torch.ones(2),))[0].tolist(), flow.nfe
    ([3.0, 3.0], 1)
    """

    def __init__(
        self,
        field: FieldFunction,
        clocks: Rows,
        like: Tensor,
        structure: Structure = NOTHING_KNOWN,
    ) -> None:
        self.field, self.clocks, self.structure = field, clocks, structure
        self.device, self.dtype = like.device, like.real.dtype if like.is_complex() else like.dtype
        self.nfe = 0

    def time(self, t: Float[np.ndarray, " clocks"]) -> Tensor:
        """The clocks' times as the field reads them: 0-d, or `[rows, 1]` for several clocks."""
        if len(t) == 1:
            return torch.tensor(t[0], dtype=self.dtype, device=self.device)
        assert self.clocks.batch is not None
        column = torch.from_numpy(t).to(self.device)[self.clocks.batch].unsqueeze(1)
        return column.to(self.dtype)

    def __call__(self, t: Float[np.ndarray, " clocks"], x: State) -> State:
        """dx/dt at the clocks' times `t` `[clocks]`."""
        self.nfe += 1
        return self.field(self.time(t), x)

    def stages(
        self,
        t: Float[np.ndarray, " clocks"],
        h: Float[np.ndarray, " clocks"],
        end: Float[np.ndarray, " clocks"] | None = None,
    ) -> Stages:
        """The field inside a step of sizes `h` from the times `t`, to `end` on a fixed grid."""
        return Stages(self, t, h, end)


class Stages:
    """The field inside a step, as a function of the stage's node c: dx/dt at t + c h.

    Attributes:
        flow: The field on its clocks.
        t: Times of the clocks at the start of the step.
        h: Signed sizes of the clocks' steps; 0 for a clock that has ended.
        end: Where the steps of a fixed grid end, exactly: t + h may differ by a rounding, and the
            next step starts here. None where the steps are adaptive.

    >>> flow = Flow(lambda t, x: (t * x[0],), Rows(), torch.ones(2))
    >>> f = flow.stages(np.array([1.0]), np.array([0.5]))
    >>> f(1.0, (torch.ones(2),))[0].tolist(), f.time(0.5).item()
    ([1.5, 1.5], 1.25)
    """

    __slots__ = ("_size", "_start", "end", "flow", "h", "t")

    def __init__(
        self,
        flow: Flow,
        t: Float[np.ndarray, " clocks"],
        h: Float[np.ndarray, " clocks"],
        end: Float[np.ndarray, " clocks"] | None = None,
    ) -> None:
        self.flow, self.t, self.h, self.end = flow, t, h, end
        self._start, self._size = float(t[0]), float(h[0])

    def time(self, c: float | Float[np.ndarray, " clocks"]) -> Tensor:
        """The time t + c h as the field reads it."""
        flow = self.flow
        if len(self.t) > 1:
            return flow.time(self.t + c * self.h)
        start: Tensor = torch.scalar_tensor(
            self._start + float(c) * self._size, dtype=flow.dtype, device=flow.device
        )
        return start

    def __call__(self, c: float | Float[np.ndarray, " clocks"], x: State) -> State:
        """dx/dt at t + c h; c may differ from clock to clock."""
        flow = self.flow
        flow.nfe += 1
        return flow.field(self.time(c), x)
