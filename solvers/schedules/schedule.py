"""What a schedule is: times on [0, 1] for fixed-step methods, and how they are written down."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, " points"]
"""Float64 times on [0, 1], strictly increasing, the first exactly 0 and the last exactly 1."""

Fractions = Float[np.ndarray, " points"]
"""Which part of the steps is behind, from 0 to 1."""


@runtime_checkable
class Schedule(Protocol):
    """Anything that places ``n + 1`` times on [0, 1]."""

    def grid(self, n: int) -> Grid:
        """Place the times.

        Args:
            n: number of steps.

        Returns:
            ``n + 1`` strictly increasing float64 times, the first 0 and the last 1, exactly.
        """
        ...


@dataclass(frozen=True)
class Named(ABC):
    """A frozen dataclass of parameters that can be asked for by name and written as JSON.

    Attributes:
        name: how users ask for the schedule.

    Example:
        >>> from solvers.schedules import Power
        >>> Power(3.0).name, Power(3.0).plain()
        ('power', {'name': 'power', 'p': 3.0})
    """

    name: ClassVar[str]

    @abstractmethod
    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""

    def plain(self) -> dict[str, Any]:
        """The schedule as plain data, which JSON knows how to write.

        Returns:
            Its name and its parameters.
        """
        parameters = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"name": self.name, **parameters}

    def to_json(self) -> str:
        """Write the schedule as JSON; numbers come back bit for bit.

        Returns:
            A JSON object: its name and its parameters.

        Example:
            >>> from solvers.schedules import Power
            >>> Power(2.0).to_json()
            '{"name": "power", "p": 2.0}'
        """
        return json.dumps(self.plain(), default=Named.plain, allow_nan=False)

    def reverse(self) -> Named:
        """The schedule run backwards, ``t_i -> 1 - t_{n - i}``.

        Returns:
            A schedule of the same kind where there is one, else :class:`Reversed`.

        Example:
            >>> from solvers.schedules import Power
            >>> Power(2.0).reverse().grid(2).tolist()
            [0.0, 0.75, 1.0]
        """
        return Reversed(self)


class ClosedForm(Named):
    """A schedule whose times are one increasing function of the fraction of the steps."""

    @abstractmethod
    def at(self, q: Fractions) -> Float[np.ndarray, " points"]:
        """The time before which a fraction q of the steps is taken, for 0 < q < 1."""

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        q = fractions(n)
        return closed(self.at(q[1:-1]))


@dataclass(frozen=True)
class Reversed(Named):
    """Another schedule run backwards, ``t_i -> 1 - t_{n - i}``.

    Args:
        schedule: the other one, of those that have a name.

    Raises:
        TypeError: for anything without a name, which could not be written down.

    Example:
        >>> from solvers.schedules import Power
        >>> mirror = Reversed(Power(2.0))  # 1 - (1 - q)^2
        >>> mirror.grid(4).tolist()
        [0.0, 0.4375, 0.75, 0.9375, 1.0]
    """

    schedule: Named
    name: ClassVar[str] = "reversed"

    def __post_init__(self) -> None:
        """Refuse what has no name."""
        if not isinstance(self.schedule, Named):
            raise TypeError(f"Reversed({self.schedule!r}): give a schedule of solvers.schedules")

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        return checked(1 - self.schedule.grid(n)[::-1])

    def reverse(self) -> Named:
        """The schedule itself, as it was."""
        return self.schedule


def fractions(n: int) -> Fractions:
    """The fractions ``i / n``.

    Args:
        n: number of steps.

    Raises:
        ValueError: for less than one step.

    Example:
        >>> fractions(2).tolist()
        [0.0, 0.5, 1.0]
    """
    if n < 1:
        raise ValueError(f"{n} steps; a grid has at least one")
    return np.arange(n + 1) / n


def closed(inner: Float[np.ndarray, " inner"]) -> Grid:
    """A grid of its inner times: 0 before, 1 after, and a check.

    Args:
        inner: strictly increasing, above 0 and below 1.

    Raises:
        ValueError: for others.

    Example:
        >>> closed(np.array([0.5])).tolist()
        [0.0, 0.5, 1.0]
    """
    return checked(np.concatenate([[0.0], inner, [1.0]]))


def checked(times: Float[np.ndarray, " points"]) -> Grid:
    """Times, if they are a grid.

    Args:
        times: strictly increasing, from exactly 0 to exactly 1.

    Raises:
        ValueError: for other times.

    Example:
        >>> checked(np.array([0.0, 0.5, 1.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or times[-1] != 1:
        raise ValueError(f"times must run from exactly 0 to exactly 1, got {times}")
    if not (np.diff(times) > 0).all():
        raise ValueError(
            f"times must increase strictly, got {times}; the schedule may be too steep, or the "
            "steps too many, for float64"
        )
    return times
