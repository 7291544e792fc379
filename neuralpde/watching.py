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
    """

    t: Tensor
    x: Any
    slope: Any
    graph: Graph | None


class WatchTrack:
    """Calls the measures and keeps their values, on the device, until the solve is over.

    Args:
        measures: Callables of a `Snapshot`; each gives one number, one per graph, or several per
            graph, `[graphs, parts]`.
        graph: The graph, or None.
        packed: Whether the state is a tuple.

    Raises:
        ValueError: When two measures have the same name.
    """

    def __init__(self, measures: tuple[Any, ...], graph: Graph | None, packed: bool) -> None:
        self.measures = {series_name(measure): measure for measure in measures}
        if len(self.measures) < len(measures):
            names = [series_name(measure) for measure in measures]
            raise ValueError(f"watch holds two measures of one name: {', '.join(names)}")
        self.graph, self.packed = graph, packed
        self.graphs = 1 if graph is None else graph.num_graphs
        self.times: list[np.ndarray] = []
        self.moved: list[np.ndarray] = []
        self.values: dict[str, list[Tensor]] = {name: [] for name in self.measures}
        self.floors: dict[str, list[Tensor]] = {name: [] for name in self.measures}

    def __call__(self, t: np.ndarray, x: Any, slope: Any, moved: np.ndarray) -> None:
        """Measure a new state."""
        if not moved.any():
            return
        state = x if self.packed else x[0]
        known = None if slope is None else slope if self.packed else slope[0]
        with torch.no_grad():
            shot = Snapshot(torch.from_numpy(t), state, known, self.graph)
            for name, measure in self.measures.items():
                value, floor = read(measure, shot)
                if value.numel() in (1, self.graphs):
                    value, floor = (v.reshape(-1).expand(self.graphs) for v in (value, floor))
                elif value.dim() != 2 or len(value) != self.graphs:
                    raise ValueError(
                        f"the measure {name!r} returned shape {tuple(value.shape)}; give one "
                        f"number, one per graph ({self.graphs}), or several per graph "
                        f"[{self.graphs}, parts]"
                    )
                self.values[name].append(value)
                self.floors[name].append(floor)
        self.times.append(t)
        self.moved.append(moved)

    def series(self) -> dict[str, Series]:
        """One series per measure."""
        if not self.moved:
            return {}
        # Ctrl-C may have come between the notes of one step.
        count = len(self.moved)
        times, moved = np.stack(self.times[:count]), np.stack(self.moved)
        t = own_points(times, moved)
        found = {}
        for name, values in self.values.items():
            y, floor = (
                own_points(torch.stack(numbers[:count]).double().cpu().numpy(), moved)
                for numbers in (values, self.floors[name])
            )
            convention = str(getattr(self.measures[name], "convention", name))
            found[name] = Series(t, y, convention, floor)
        return found


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
