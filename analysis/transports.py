"""Many small problems of optimal transport as one linear program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog
from scipy.sparse import csr_array

TOGETHER = 20_000
"""Variables of one linear program; beyond, one run costs more than starting another."""


class Move(NamedTuple):
    """Mass that is to be moved: supply and demand have the same total."""

    supply: Float[np.ndarray, " sources"]
    demand: Float[np.ndarray, " sinks"]
    cost: Float[np.ndarray, "sources sinks"]


def transports(moves: Sequence[Move]) -> Float[np.ndarray, " moves"]:
    """The least cost of each move.

    Starting a linear program costs far more than solving a small one: they are solved together.

    Raises:
        ArithmeticError: When the linear program fails.

    >>> one = Move(np.array([0.5, 0.5]), np.array([1.0]), np.array([[1.0], [3.0]]))
    >>> two = Move(np.array([1.0, 1.0]), np.array([1.0, 1.0]), np.array([[1.0, 5.0], [1.0, 2.0]]))
    >>> transports([one, two]).tolist()
    [2.0, 3.0]
    """
    sizes = np.array([move.cost.size for move in moves], dtype=np.int64)
    found, start = [np.zeros(0)], 0
    while start < len(moves):
        total = np.cumsum(sizes[start:])
        stop = start + max(1, int(np.searchsorted(total, TOGETHER, side="right")))
        found.append(_together(moves[start:stop]))
        start = stop
    return np.concatenate(found)


def _together(moves: Sequence[Move]) -> np.ndarray:
    rows, columns, right = [], [], []
    row = column = 0
    for supply, demand, cost in moves:
        count, other = cost.shape
        here = column + np.arange(count * other)
        # The last equation of each move follows from the others.
        leave = row + np.repeat(np.arange(count), other)
        arrive = row + count + np.tile(np.arange(other), count)
        keep = arrive < row + count + other - 1
        rows += [leave, arrive[keep]]
        columns += [here, here[keep]]
        right += [supply, demand[:-1] * (supply.sum() / demand.sum())]
        row, column = row + count + other - 1, column + count * other
    at = (np.concatenate(rows), np.concatenate(columns))
    costs = np.concatenate([move.cost.ravel() for move in moves])
    A = csr_array((np.ones(len(at[0])), at), shape=(row, column))
    done = linprog(costs, A_eq=A, b_eq=np.concatenate(right), method="highs")
    if done.status != 0:
        raise ArithmeticError(f"optimal transport failed: {done.message}")
    begins = np.cumsum([0] + [move.cost.size for move in moves[:-1]])
    each: np.ndarray = np.add.reduceat(done.x * costs, begins)
    return each
