"""The steps of a solve, live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Step(Protocol):
    """What `solve` shows after a step."""

    @property
    def h(self) -> Tensor | None:
        """Sizes of the steps that led here."""


@dataclass(frozen=True)
class StepSize:
    """The size of the step that led to a state, negative backwards in time.

    It is no function of the state: `solve(watch=StepSize())` is its only use. NaN at the start, and
    at all saved times of solvers without steps (exact ones, those of other libraries). All steps,
    those that were refused and their errors included, stand in `Trajectory.steps`.

    Args:
        name: Name of its series.

    >>> import torch
    >>> from neuralpde import Graph, solve
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> traj = solve(
    ...     lambda t, x: -x, torch.ones(2, 1), 1.0, pair, solver="rk4", steps=2, watch=StepSize()
    ... )
    >>> traj["step size"].y.tolist()
    [nan, 0.5, 0.5]
    """

    name: str = "step size"
    convention = "step size h"

    def __call__(self, shot: Step, graph: object = None) -> Tensor:
        """The size per graph."""
        h = getattr(shot, "h", None)
        if h is None:
            raise TypeError(
                "a step size is no function of a state: solve(watch=StepSize()), or read the "
                "trajectory's steps"
            )
        size: Tensor = h
        return size
