"""What was asked to be watched, evaluated at the start and after every accepted step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.graph import Graph
from solvers.series import Series, read


@dataclass(frozen=True)
class Snapshot:
    """A state on its way, as measures see it.

    Attributes:
        t: Times of the graphs, float64 `[graphs]`.
        x: The new state.
        slope: dx/dt there if it is known, else None.
        graph: The graph, or None.
        h: Sizes of the steps that led here, float64 `[graphs]`; NaN at the start and where the
            solver takes no steps.
    """

    t: Tensor
    x: Any
    slope: Any
    graph: Graph | None
    h: Tensor | None = None


class WatchTrack:
    """Calls the measures and keeps their values, on the device, until the solve is over.

    A measure with an attribute `every` is called at that many steps from one time to the next, at
    the start and at the end.

    Args:
        measures: Callables of a `Snapshot`; each gives one number, one per graph, or several per
            graph, `[graphs, parts]`.
        graph: The graph, or None.
        packed: Whether the state is a tuple.
        stepping: Whether it is called after every step, not at saved times.

    Raises:
        ValueError: When two measures have the same name.
    """

    def __init__(
        self,
        measures: tuple[Any, ...],
        graph: Graph | None,
        packed: bool,
        *,
        stepping: bool = False,
    ) -> None:
        self.measures = {series_name(measure): measure for measure in measures}
        if len(self.measures) < len(measures):
            names = [series_name(measure) for measure in measures]
            raise ValueError(f"watch holds two measures of one name: {', '.join(names)}")
        self.graph, self.packed = graph, packed
        graphs = 1 if graph is None else graph.num_graphs
        self.notes = {name: Notes(name, one, graphs) for name, one in self.measures.items()}
        self.stepping, self._before = stepping, np.full(graphs, np.nan)
        self._steps = 0
        self._last: tuple[np.ndarray, Snapshot] | None = None

    def __call__(self, t: np.ndarray, x: Any, slope: Any, moved: np.ndarray) -> None:
        """Measure a new state."""
        if not moved.any():
            return
        state = x if self.packed else x[0]
        known = None if slope is None else slope if self.packed else slope[0]
        h = torch.from_numpy(t - self._before)
        shot = Snapshot(torch.from_numpy(t), state, known, self.graph, h)
        for notes in self.notes.values():
            notes.missed = notes.missed | moved
            if self._steps % notes.every == 0:
                notes.take(t, shot)
        self._last = (t, shot)
        self._steps += 1
        if self.stepping:
            self._before = np.where(moved, t, self._before)

    def series(self) -> dict[str, Series]:
        """One series per measure."""
        if self._last is None:
            return {}
        for notes in self.notes.values():
            if notes.every > 1 and notes.missed.any():
                notes.take(*self._last)
        return {name: notes.series() for name, notes in self.notes.items() if notes.moved}


class Notes:
    """The values of one measure.

    Args:
        name: Its name.
        measure: A callable of a `Snapshot`.
        graphs: Number of graphs.
    """

    def __init__(self, name: str, measure: Any, graphs: int) -> None:
        self.name, self.measure, self.graphs = name, measure, graphs
        self.every = int(getattr(measure, "every", 1))
        self.missed = np.zeros(graphs, dtype=bool)
        self.times: list[np.ndarray] = []
        self.moved: list[np.ndarray] = []
        self.values: list[Tensor] = []
        self.floors: list[Tensor] = []

    def take(self, t: np.ndarray, shot: Snapshot) -> None:
        """Note a state for the graphs that moved since the last one."""
        with torch.no_grad():
            value, floor = read(self.measure, shot)
        if value.numel() in (1, self.graphs):
            value, floor = (v.reshape(-1).expand(self.graphs) for v in (value, floor))
        elif value.dim() != 2 or len(value) != self.graphs:
            raise ValueError(
                f"the measure {self.name!r} returned shape {tuple(value.shape)}; give one "
                f"number, one per graph ({self.graphs}), or several per graph "
                f"[{self.graphs}, parts]"
            )
        self.values.append(value)
        self.floors.append(floor)
        self.times.append(t)
        moved, self.missed = self.missed, np.zeros_like(self.missed)
        self.moved.append(moved)

    def series(self) -> Series:
        """All values along time."""
        # Ctrl-C may have come between the notes of one step.
        count = len(self.moved)
        times, moved = np.stack(self.times[:count]), np.stack(self.moved)
        y, floor = (
            own_points(torch.stack(numbers[:count]).double().cpu().numpy(), moved)
            for numbers in (self.values, self.floors)
        )
        convention = str(getattr(self.measure, "convention", self.name))
        return Series(own_points(times, moved), y, convention, floor)


def series_name(measure: Any) -> str:
    """The name under which a measure's values stand: its `name`, or what Python calls it."""
    if not callable(measure):
        raise TypeError(f"watch holds {measure!r}; give callables of a snapshot")
    name = getattr(measure, "name", None) or getattr(measure, "__name__", None)
    return str(name or type(measure).__name__.lower())


def own_points(values: np.ndarray, moved: np.ndarray) -> Tensor:
    """Keep for each graph the points at which it moved; NaN after its last.

    Args:
        values: `[points, graphs]`, perhaps with an axis of parts behind.
        moved: Which graphs moved at each point.

    Returns:
        `[points]` for one graph, else `[most points of a graph, graphs]`; the axis of parts stays.
    """
    if values.shape[1] == 1:
        return torch.from_numpy(values[moved[:, 0], 0])
    counts = moved.sum(0)
    out = np.full((counts.max(), *values.shape[1:]), np.nan)
    for g, count in enumerate(counts):
        out[:count, g] = values[moved[:, g], g]
    return torch.from_numpy(out)
