"""Brownian increments that belong to their steps: cheaper than a path that all grids share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from solvers.brownian import runs
from solvers.normals import Normals

_STEPS = 1 << 32
"""Tells the counters of steps from those of paths."""


class Increments:
    """Independent increments of W, each a pure function of the seed and of both ends of its step.

    One draw a step, where `Brownian` takes some thirty: a gradient that replays steps, or a solve
    that is repeated, meets the same noise, but another grid meets other noise.

    Args:
        seed: See `Brownian`.
        shape: Of the values.
        nodes: See `Brownian`.
        part: Tells apart the parts of a state.
        first: See `Brownian`.

    >>> dW = Increments(seed=1, shape=(3,))
    >>> torch.equal(dW.increment(0.0, 0.5), dW.increment(0.0, 0.5))
    True
    >>> torch.equal(dW.increment(0.0, 0.5) + dW.increment(0.5, 1.0), dW.increment(0.0, 1.0))
    False
    """

    def __init__(
        self,
        seed: int | Sequence[int],
        shape: Sequence[int],
        *,
        nodes: Sequence[int] | None = None,
        part: int = 0,
        first: int = 0,
    ) -> None:
        self.shape, self._kind = tuple(shape), _STEPS + part
        counts, begin = runs(self.shape, nodes, first)
        self._normals = Normals(seed, counts, begin)

    def increment(self, start: float, end: float) -> Float64[Tensor, "*shape"]:
        """The increment from start to end, in either direction of time.

        >>> Increments(seed=1, shape=(2,)).increment(0.5, 0.5).tolist()
        [0.0, 0.0]
        """
        # 0 and -0 are one time.
        words = [int(np.float64(t + 0.0).view(np.uint64)) for t in (start, end)]
        numbers = self._normals.draw((words[0], words[1], self._kind))
        return torch.from_numpy(numbers * math.sqrt(abs(end - start))).reshape(self.shape)
