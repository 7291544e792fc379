"""Which saved time each saved time of an exact solve is computed from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from solvers.coefficients import degree_bound

# Cost of adding a term to a sum, in products; and of starting again.
UPDATE, START = 0.2, 2.0
# No more saved times than this are considered as places to start again.
CANDIDATES = 200

Degrees = Callable[[Float[np.ndarray, "*shape"], float], Float[np.ndarray, "*shape"]]
"""Degrees that suffice for series of some arguments, to a tolerance."""


def restarts(
    reach: Float[np.ndarray, " times"],
    tail: float,
    most: int,
    degrees_of: Degrees = degree_bound,
) -> list[int]:
    """Choose the saved times from which a series is started again.

    One series gives all times, but every term is added to the sum of every time that needs it.
    Starting again from a saved time takes more products and fewer, shorter sums: a shortest path
    through the saved times finds the least of products plus updates.

    Args:
        reach: argument z of the series to each time, from the first, which is 0.
        tail: tolerance of a series.
        most: largest number of series.
        degrees_of: bounds the degree of a series by its argument and a tolerance.

    Returns:
        Indices of the starting times, the first 0.

    Example:
        >>> restarts(np.array([0.0, 1.0, 1.1]), 1e-4, 9), len(restarts(np.arange(200.0), 1e-4, 9))
        ([0], 9)
    """
    count = len(reach) - 1
    if count < 2 or most < 2 or (np.diff(reach) < 0).any():
        return [0]
    starts = np.arange(0, count, -(-count // CANDIDATES))
    span = reach[1:] - reach[starts, None]
    degrees = degrees_of(np.maximum(span, 0.0), tail)
    ahead = np.arange(1, count + 1) > starts[:, None]
    # cost[i, j]: one series from starts[i] that gives all times up to j + 1.
    cost = degrees + UPDATE * np.cumsum(np.where(ahead, degrees, 0.0), axis=1) + START
    best, previous = np.full(len(starts), np.inf), np.zeros(len(starts), dtype=int)
    best[0] = 0.0
    for i in range(1, len(starts)):
        total = best[:i] + cost[:i, starts[i] - 1]
        previous[i] = np.argmin(total)
        best[i] = total[previous[i]]
    chain = [int(np.argmin(best + cost[:, -1]))]
    while chain[-1]:
        chain.append(int(previous[chain[-1]]))
    chosen: list[int] = starts[chain[::-1]].tolist()
    return chosen if len(chosen) <= most else [chosen[i * len(chosen) // most] for i in range(most)]


class Plan:
    """Rounds of series that give all saved times of all graphs, each graph in its own way.

    Args:
        starts: for each graph the indices from which a series starts; empty for a graph that
            takes no part.
        count: number of saved times.

    Attributes:
        first: ``[rounds, graphs]``, the index from which each graph starts in a round.
        last: ``[rounds, graphs]``, the last index it gets to.
        parent: ``[times, graphs]``, the index from which each saved time is computed.
        series: number of series of each graph, at least 1.
        shared: whether all graphs do the same, and take part.

    Example:
        >>> plan = Plan([[0, 2], [0]], 4)
        >>> plan.first.tolist(), plan.last.tolist(), plan.parent.T.tolist()
        ([[0, 0], [2, 3]], [[2, 3], [3, 3]], [[0, 0, 0, 2], [0, 0, 0, 0]])
    """

    def __init__(self, starts: list[list[int]], count: int) -> None:
        rounds, graphs = max(1, *map(len, starts)), len(starts)
        self.first: Int[np.ndarray, "rounds graphs"] = np.full((rounds, graphs), count - 1)
        self.last: Int[np.ndarray, "rounds graphs"] = self.first.copy()
        self.parent: Int[np.ndarray, "times graphs"] = np.zeros((count, graphs), dtype=int)
        self.shared = bool(starts[0]) and all(chain == starts[0] for chain in starts)
        self.series = np.array([max(len(chain), 1) for chain in starts])
        for graph, chain in enumerate(starts):
            ends = [*chain[1:], count - 1][: len(chain)]
            for turn, (start, end) in enumerate(zip(chain, ends, strict=True)):
                self.first[turn, graph], self.last[turn, graph] = start, end
                self.parent[start + 1 : end + 1, graph] = start
