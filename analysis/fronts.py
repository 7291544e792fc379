"""Work against precision: what an error costs along the points of several solvers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

Points = Iterable[tuple[float, float]]
"""Pairs (error, work) of one solver at several tolerances."""


def least_work(solvers: Mapping[str, Points], error: float) -> float:
    """What an error costs at least, between the points of each solver, log by log.

    A point with a smaller error for less work serves for a larger error too; below its smallest
    error a solver gives nothing.

    Args:
        solvers: The points of each solver; errors and work are positive.
        error: The error that is asked for.

    Returns:
        The work; infinite where no solver gets there.

    >>> points = {"euler": [(1e-1, 10.0), (1e-3, 1000.0)], "rk4": [(1e-4, 400.0)]}
    >>> [round(least_work(points, error)) for error in (1e-1, 1e-2, 1e-3)]
    [10, 100, 400]
    >>> least_work(points, 1e-5)
    inf
    """
    best = np.inf
    for points in solvers.values():
        errors, work = np.log(np.array(sorted(points))).T
        if np.log(error) >= errors[0]:
            # From the small errors on, nothing has to cost more than what is more precise.
            cheapest = np.minimum.accumulate(work)
            best = min(best, float(np.exp(np.interp(np.log(error), errors, cheapest))))
    return best


def ahead(
    solvers: Mapping[str, Points], peers: Mapping[str, Points], margin: float = 1.05
) -> list[tuple[str, float, float, float]]:
    """The points of peers that cost less than our solvers would take for the same error.

    Args:
        solvers: Our points.
        peers: Theirs.
        margin: How much less counts: our work over theirs.

    Returns:
        Their name, error and work, and our least work, for each such point.

    >>> ahead({"ours": [(1e-3, 20.0)]}, {"theirs": [(1e-3, 10.0), (1e-2, 30.0)]})
    [('theirs', 0.001, 10.0, 20.0)]
    """
    found = [
        (name, error, work, least_work(solvers, error))
        for name, points in peers.items()
        for error, work in points
    ]
    return [one for one in found if one[3] > margin * one[2]]
