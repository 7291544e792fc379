"""What `stop=` of a solve takes: conditions that end each graph before its last time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.tracking import SAFETY, EnergyTrack, Tolerance
from solvers.events import Event
from solvers.failure import unknown_name
from solvers.rows import State
from solvers.stopping import (
    Condition,
    Mask,
    Scene,
    SteadyState,
    Stopping,
    Times,
    Told,
    WallTime,
    Watcher,
)

__all__ = ["Condition", "EnergyBelow", "EnergyReading", "Event", "SteadyState", "WallTime"]

NAMES = ("EnergyBelow", "Event", "SteadyState", "WallTime")


@dataclass(frozen=True)
class EnergyBelow(Condition):
    """Ends each graph once its Dirichlet energy is down to a fraction of the first: E <= c E(x0).

    E is the field's own energy, `traj.energy`, read where it is measured anyway. The graph ends
    after the step that gets below. A fraction below what the tolerances let the energy show warns
    at the start.

    Args:
        fraction: Between 0 and 1.

    Raises:
        ValueError: For other fractions, and for a solve without a graph.

    Example:
        >>> EnergyBelow(0.01)
        EnergyBelow(fraction=0.01)
    """

    fraction: float
    name = "energy"

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(
                f"fraction is {self.fraction}; it is one of E(x0): give a number between 0 and 1"
            )

    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        """Get ready for one solve; a piecewise field goes on from the first piece's start."""
        first = None if before is None else getattr(before, "first", None)
        return _Low(self, scene.energy, first)


@dataclass
class EnergyReading:
    """The energy that a solve measures along its way, as conditions read it.

    Args:
        track: Where the measurements stand.
        tolerance: The error of the states.
        eps: Their rounding.
        entries: Entries of the energy's state per graph.
    """

    track: EnergyTrack
    tolerance: Tolerance
    eps: float
    entries: Tensor

    def newest(self) -> np.ndarray:
        """The newest energy of each graph."""
        values: np.ndarray = self.track.newest.energy.double().cpu().numpy()
        return values

    def error(self) -> np.ndarray:
        """How far off the newest energies may be."""
        parts = self.track.newest
        floor = self.track.floor(parts, self.tolerance, self.eps, self.entries)
        values: np.ndarray = floor.cpu().numpy() / SAFETY
        return values


class _Low(Watcher):
    """Compares energies with the first ones."""

    def __init__(
        self, condition: EnergyBelow, reading: EnergyReading | None, first: np.ndarray | None
    ) -> None:
        if reading is None:
            raise ValueError(
                f"{condition} reads the energy of a graph, and this solve has none: "
                "solve(field, x0, t, graph)"
            )
        self.name, self.condition, self.reading = condition.name, condition, reading
        self.first = first

    def ends(self, t: Times, x: State, fx: State | None, moved: Mask) -> Mask:
        now = self.reading.newest()
        if self.first is None:
            self.first = now
            self._look_for_errors()
        below: np.ndarray = moved & (now <= self.condition.fraction * self.first)
        return below

    def _look_for_errors(self) -> None:
        assert self.first is not None
        error, aim = self.reading.error(), self.condition.fraction * self.first
        hidden = np.flatnonzero((aim < error) & (aim > 0))
        if len(hidden):
            g = int(hidden[0])
            warnings.warn(
                f"{self.condition}: at these tolerances the energy may be off by {error[g]:.2g}, "
                f"more than the {aim[g]:.2g} to be reached, and may never get there. Lower rtol "
                "and atol, or use error_scale='deviation'",
                stacklevel=2,
            )


def posed(stop: Any, graph: Graph | None, x0: Any) -> Stopping | None:
    """What was given as `stop=`, as the conditions of one solve.

    Args:
        stop: None, a condition, a callable as `solvers.stopping.Told` has it, or several.
        graph: The graph that a field used as an event function is bound to.
        x0: The first state.

    Raises:
        TypeError: For anything else, with the nearest condition.

    Example:
        >>> [one.name for one in posed((SteadyState(), WallTime(9.0)), None, None).conditions]
        ['steady state', 'wall time']
    """
    several: Sequence[Any] = tuple(stop) if isinstance(stop, (tuple, list)) else (stop,)
    if stop is None or not several:
        return None
    conditions = tuple(_condition(one, graph, x0) for one in several)
    return Stopping(conditions, packed=isinstance(x0, (tuple, list)))


def _condition(one: Any, graph: Graph | None, x0: Any) -> Condition:
    if isinstance(one, str):
        wanted = one.title().replace(" ", "").replace("_", "")
        raise TypeError(
            f"stop is {one!r}, no condition: {unknown_name('condition', wanted, NAMES)}"
        )
    if isinstance(one, type):
        raise TypeError(f"stop is the class {one.__name__}; give one of its kind, {one.__name__}()")
    if isinstance(one, Condition):
        return one.on(graph, x0)
    if callable(one):
        return Told(one)
    raise TypeError(
        f"stop holds {one!r}; give SteadyState(...), EnergyBelow(fraction), Event(fn), "
        "WallTime(seconds) from neuralpde.stopping, a callable stop(t, x, slope), or several as a "
        "tuple"
    )
