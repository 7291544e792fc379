"""Schedules by name, and from JSON."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from typing import Any

from solvers.schedules.bridges import BridgeEntropy, BridgeSpread
from solvers.schedules.closed_forms import (
    Beta,
    Cosine,
    LogitUniform,
    Points,
    Power,
    Sigmoid,
    Uniform,
)
from solvers.schedules.density import Density
from solvers.schedules.noise_levels import AlignYourSteps, Karras, Shift
from solvers.schedules.pilots import Quantiles
from solvers.schedules.schedule import Reversed, Schedule

CLASSES = (
    Uniform,
    Cosine,
    Beta,
    Power,
    Sigmoid,
    LogitUniform,
    AlignYourSteps,
    Shift,
    Karras,
    BridgeEntropy,
    BridgeSpread,
    Density,
    Quantiles,
    Points,
    Reversed,
)
"""Every kind of schedule."""

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    **{schedule.name: schedule for schedule in CLASSES},
    "linear": Uniform,
    "trig": AlignYourSteps,
}
"""The schedules by name, two of them with a second one; ``get`` and ``from_json`` look here."""


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
    plain = json.loads(text)
    if not _named(plain):
        raise ValueError(f"{text!r} is no schedule; needed is an object with a name")
    return _read(plain)


def _named(plain: Any) -> bool:
    return isinstance(plain, dict) and "name" in plain


def _read(plain: dict[str, Any]) -> Schedule:
    """A schedule of plain data; parameters that are schedules come first."""
    rest = {key: value for key, value in plain.items() if key != "name"}
    parameters = {key: _read(value) if _named(value) else value for key, value in rest.items()}
    return _build(plain["name"], parameters)


def _build(name: str, parameters: dict[str, Any]) -> Schedule:
    if name not in SCHEDULES:
        nearest = difflib.get_close_matches(str(name), SCHEDULES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown schedule {name!r}; the nearest is {nearest!r}, all are {sorted(SCHEDULES)}"
        )
    try:
        return SCHEDULES[name](**parameters)
    except TypeError as mismatch:
        raise ValueError(f"schedule {name!r} with {parameters}: {mismatch}") from mismatch
