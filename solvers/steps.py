"""What a step controller tried: every step with its size, its error, and whether it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Try:
    """One step as the loop notes it.

    Attributes:
        t: Where the clocks stood after it.
        h: Signed sizes; 0 for clocks that it says nothing of.
        ratio: Errors in units of the tolerance, one per graph; NaN on a fixed grid.
        accepted: Whether it was taken.
    """

    t: np.ndarray
    h: np.ndarray
    ratio: np.ndarray
    accepted: bool


@dataclass(frozen=True, eq=False)
class Steps:
    """All steps of a solve in the order in which they were tried.

    Tensors are float64, `[tries]`, or `[tries, graphs]` where graphs keep their own clocks; NaN
    where a clock took no part.

    Attributes:
        t: Where each step began.
        h: Its signed size.
        ratio: Its error in units of the tolerance, taken up to 1; NaN on a fixed grid.
        accepted: Whether it was taken.

    >>> one = Try(np.array([0.5]), np.array([0.5]), np.array([0.2]), True)
    >>> steps = Steps.of([Try(np.zeros(1), np.ones(1), np.array([3.0]), False), one])
    >>> steps.t.tolist(), steps.h.tolist(), steps.accepted.tolist()
    ([0.0, 0.0], [1.0, 0.5], [False, True])
    """

    t: Float[Tensor, "tries ..."]
    h: Float[Tensor, "tries ..."]
    ratio: Float[Tensor, "tries ..."]
    accepted: Bool[Tensor, " tries"]

    @classmethod
    def of(cls, tries: Sequence[Try]) -> Steps:
        """Line up what the loop noted."""
        accepted = np.array([one.accepted for one in tries], dtype=bool)
        if not tries:
            none = torch.zeros(0, dtype=torch.float64, device="cpu")
            return cls(none, none, none, torch.from_numpy(accepted))
        t, h, ratio = (
            np.stack([getattr(one, name) for one in tries]) for name in ("t", "h", "ratio")
        )
        if ratio.shape != h.shape:
            # Graphs that share a clock share the worst error.
            ratio = ratio.max(1, keepdims=True)
        begun = np.where(accepted[:, None], t - h, t)
        columns = (np.where(h == 0, np.nan, values) for values in (begun, h, ratio))
        one = h.shape[1] == 1
        lined = [torch.from_numpy(column[:, 0] if one else column) for column in columns]
        return cls(lined[0], lined[1], lined[2], torch.from_numpy(accepted))

    @classmethod
    def joined(cls, parts: Sequence[Steps]) -> Steps:
        """The steps of solves that follow one another."""
        # A piece without steps does not know its clocks.
        some = [part for part in parts if len(part.accepted)] or list(parts[:1])
        return cls(
            *(torch.cat([getattr(part, name) for part in some]) for name in cls.__annotations__)
        )
