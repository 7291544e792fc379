"""Measures that need not be read at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuralpde.watching import series_name
from solvers.series import read


@dataclass(frozen=True)
class Every:
    """A measure for `watch` that is read at the start, every so many steps, and at the end.

    Args:
        measure: A measure, or any callable of a snapshot.
        steps: How many accepted steps there are from one reading to the next.

    >>> from analysis import Norm
    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Heat
    >>> import torch
    >>> ring, x0 = catalogue.ring(4), torch.eye(4)[:, :1]
    >>> traj = solve(Heat(), x0, 1.0, ring, solver="rk4", steps=10, watch=Every(Norm(), 4))
    >>> [round(t, 1) for t in traj["frobenius"].t.tolist()]
    [0.0, 0.4, 0.8, 1.0]
    """

    measure: Callable[..., Any]
    steps: int

    def __post_init__(self) -> None:
        """Refuse what is no cadence."""
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; at least 1 lies between two readings")

    @property
    def every(self) -> int:
        """How often `watch` reads it."""
        return self.steps

    @property
    def name(self) -> str:
        """The measure's name."""
        return series_name(self.measure)

    @property
    def convention(self) -> str:
        """The measure's formula."""
        return str(getattr(self.measure, "convention", self.name))

    def __call__(self, *arguments: Any) -> Tensor:
        """The measure's value."""
        return read(self.measure, *arguments)[0]

    def reading(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """The measure's value and its error."""
        return read(self.measure, *arguments)
