"""Time grids on [0, 1] for fixed-step methods."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, " points"]
"""Float64 times on [0, 1], strictly increasing, the first exactly 0 and the last exactly 1."""


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
class Named:
    """A frozen dataclass of parameters that can be asked for by name and written as JSON.

    Attributes:
        name: how users ask for the schedule.
    """

    name: ClassVar[str]

    def to_json(self) -> str:
        """Write the schedule as JSON.

        Returns:
            A JSON object: its name and its parameters.

        Example:
            >>> Power(2.0).to_json()
            '{"name": "power", "p": 2.0}'
        """
        parameters = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps({"name": self.name, **parameters})


@dataclass(frozen=True)
class Uniform(Named):
    """Equal steps, ``t_i = i / n``.

    Example:
        >>> Uniform().grid(4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    name: ClassVar[str] = "uniform"

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        return _checked(_fractions(n))


@dataclass(frozen=True)
class Cosine(Named):
    """Short steps at both ends, ``t_i = (1 - cos(pi i / n)) / 2``.

    Example:
        >>> Cosine().grid(3).round(12).tolist()
        [0.0, 0.25, 0.75, 1.0]
    """

    name: ClassVar[str] = "cosine"

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        return _checked(np.sin(np.pi / 2 * _fractions(n)) ** 2)


@dataclass(frozen=True)
class Power(Named):
    """Short steps at the start for ``p > 1``, at the end for ``p < 1``: ``t_i = (i / n)^p``.

    Args:
        p: the exponent, positive.

    Raises:
        ValueError: unless p is positive and finite.

    Example:
        >>> Power(2.0).grid(2).tolist()
        [0.0, 0.25, 1.0]
    """

    p: float = 2.0
    name: ClassVar[str] = "power"

    def __post_init__(self) -> None:
        if not 0 < self.p < np.inf:
            raise ValueError(f"Power(p={self.p}): p must be positive and finite")

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        return _checked(_fractions(n) ** self.p)


@dataclass(frozen=True)
class Points(Named):
    """Given times.

    Args:
        times: strictly increasing, from exactly 0 to exactly 1.

    Raises:
        ValueError: for other times.

    Example:
        >>> Points((0.0, 0.1, 1.0)).grid(2).tolist()
        [0.0, 0.1, 1.0]
    """

    times: Sequence[float]
    name: ClassVar[str] = "points"

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(float(time) for time in self.times))
        _checked(np.array(self.times))

    def grid(self, n: int) -> Grid:
        """Give the times.

        Args:
            n: number of steps; must be the number of steps of the times.

        Returns:
            The times.

        Raises:
            ValueError: if the times make another number of steps.
        """
        if n != len(self.times) - 1:
            raise ValueError(
                f"these Points make {len(self.times) - 1} steps, not {n}; "
                f"ask for steps={len(self.times) - 1}"
            )
        return np.array(self.times)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    schedule.name: schedule for schedule in (Uniform, Cosine, Power, Points)
}
"""The schedules that have a name; ``get`` and ``from_json`` look here."""


def get(schedule: str | Schedule) -> Schedule:
    """Turn a name into a schedule with its default parameters.

    Args:
        schedule: a name, or a schedule, which is returned as it is.

    Returns:
        The schedule.

    Raises:
        ValueError: for an unknown name, or the name of a schedule without defaults.
        TypeError: for anything without a ``grid``.

    Example:
        >>> get("cosine")
        Cosine()
    """
    if isinstance(schedule, str):
        return _build(schedule, {})
    if not isinstance(schedule, Schedule):
        raise TypeError(
            f"{schedule!r} is no schedule; give one of {sorted(SCHEDULES)} or an object with "
            "grid(n)"
        )
    return schedule


def from_json(text: str) -> Schedule:
    """Read a schedule that ``to_json`` wrote.

    Args:
        text: a JSON object with a name and parameters.

    Returns:
        The schedule.

    Raises:
        ValueError: for an unknown name or parameters that do not fit it.

    Example:
        >>> from_json('{"name": "power", "p": 3.0}')
        Power(p=3.0)
    """
    parameters = json.loads(text)
    if not isinstance(parameters, dict) or "name" not in parameters:
        raise ValueError(f"{text!r} is no schedule; needed is an object with a name")
    return _build(parameters.pop("name"), parameters)


def _build(name: str, parameters: dict[str, object]) -> Schedule:
    if name not in SCHEDULES:
        nearest = difflib.get_close_matches(str(name), SCHEDULES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown schedule {name!r}; the nearest is {nearest!r}, all are {sorted(SCHEDULES)}"
        )
    try:
        return SCHEDULES[name](**parameters)
    except TypeError as mismatch:
        raise ValueError(f"schedule {name!r} with {parameters}: {mismatch}") from mismatch


def _fractions(n: int) -> Grid:
    if n < 1:
        raise ValueError(f"{n} steps; a grid has at least one")
    return np.arange(n + 1) / n


def _checked(times: Grid) -> Grid:
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or times[-1] != 1:
        raise ValueError(f"times must run from exactly 0 to exactly 1, got {times}")
    if not (np.diff(times) > 0).all():
        raise ValueError(
            f"times must increase strictly, got {times}; with a power, p or the number of steps "
            "may be too large for float64"
        )
    return times
