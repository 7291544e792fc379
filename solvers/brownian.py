"""Brownian paths as pure functions of a seed and the time: the same noise on every grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from solvers.normals import Normals

HORIZON = 24
"""Paths live on |t| <= 2^24."""

DEPTH = 24
"""Leaves of the tree are 2^-24 of the power of two below |t|."""

QUANTUM = 2.0**-38
"""Values of a path are multiples of this, so that their differences and sums are exact."""

KEPT_CELLS, KEPT_VALUES = 6, 2
"""What is remembered of the tree."""

NOTHING = 2.0**-90
"""Before this time a path rounds to 0 up to 64 standard deviations."""

_MIDDLE, _LEAF = 4096, 1 << 32
"""Tell apart, in the counter of the random numbers, middles by level, leaves, and the root (0)."""


@dataclass(frozen=True)
class _Cell:
    """The interval [index, index + 1) 2^level of |t|, with the path at both ends."""

    level: int
    index: int
    left: np.ndarray
    right: np.ndarray

    @property
    def size(self) -> float:
        return math.ldexp(1.0, self.level)

    @property
    def start(self) -> float:
        return math.ldexp(self.index, self.level)

    def holds(self, t: float) -> bool:
        return self.start <= t < math.ldexp(self.index + 1, self.level)


class Brownian:
    """Standard Brownian paths W(t), one per entry, from Levy's midpoint construction.

    `W(t)` is a pure function of the seed, of `t` and of the shape: it does not depend on which
    other times were asked for, nor in which order, nor on the interval of a solve. Two grids
    therefore see the same path, a solve that is resumed goes on along its path, and a gradient
    that replays steps meets the same noise.

    *The law.* W(0) = 0 and W(2^24) are drawn first; the value in the middle of a cell `[a, b]` is
    `(W(a) + W(b)) / 2 + sqrt(b - a) / 2 xi`. Cells are halved down to leaves of length
    `2^-24 2^floor(log2 t)`, and inside a leaf at `a + theta (b - a)` the path is
    `(1 - theta) W(a) + theta W(b) + sqrt(theta (1 - theta) (b - a)) xi(t)`. So the values at any
    times that do not share the inside of a leaf have exactly the law of Brownian motion; a step
    whose two ends do share one, hence shorter than 6e-8 t, is refused. Negative times have a
    path of their own. Backward increments W(t - h) - W(t) serve solves in falling time.

    *Each xi* is a standard normal that belongs to the seed, the entry, and the node of the tree:
    see `Normals`. No two nodes ever share a number.

    *Increments add up bit for bit.* Values are rounded to multiples of q = 2^-38. Multiples of q
    below 2^53 q = 2^15 are float64 numbers, hence so are their differences and all partial sums of
    increments, and float64 arithmetic returns a result that is representable without rounding:
    `W(b) - W(a)` equals the sum of the increments over any grid from a to b, in any order. The
    bound of 2^15 is 8 standard deviations at the horizon, 16 at t = 4e6. The rounding changes an
    increment over h by less than q = 4e-12, relative 1e-11 / sqrt(h).

    *Cost.* A query draws one array of normals per level below the last cell it shares with one of
    the queries before: two on average on a grid of powers of two, and 26 - log2 t/h on others, the
    price of a value that depends on nothing else. Kept are 6 cells, 2 values and 4 buffers, at most
    14 arrays of the shape in float64; a query far from the last ones starts at the root.

    Args:
        seed: A number from 0 to 2^64 - 1, or one for each graph: given a seed of its own, a graph
            in a batch meets the noise it would meet alone.
        shape: Of the values.
        nodes: Rows of each graph, which follow one another along the first axis; None for one.
        part: Tells apart the parts of a state.
        first: Where these rows begin, if they are some of a larger state of the same seed.

    Attributes:
        draws: Arrays of normals drawn so far.

    Raises:
        ValueError: For seeds out of range or of another number than graphs; for times beyond the
            horizon, and steps below the resolution.

    References:
        Levy, Processus stochastiques et mouvement brownien, 1948, section 1.2; Li et al., Scalable
        gradients for stochastic differential equations, AISTATS 2020, arXiv:2001.01328, section
        4 (virtual Brownian tree).

    >>> W = Brownian(seed=1, shape=(3,))
    >>> torch.equal(W.increment(0.0, 0.3) + W.increment(0.3, 0.7), W(0.7))
    True
    """

    def __init__(
        self,
        seed: int | Sequence[int],
        shape: Sequence[int],
        *,
        nodes: Sequence[int] | None = None,
        part: int = 0,
        first: int = 0,
    ) -> None:
        self.shape, self.part = tuple(shape), part
        # At least one axis: numpy turns 0-d arrays into numbers.
        self._inner = self.shape or (1,)
        counts, begin = runs(self.shape, nodes, first)
        self._normals = Normals(seed, counts, begin)
        self._work = [np.empty(self._inner) for _ in range(3)]
        self._cells: list[_Cell] = []
        self._values: dict[float, Tensor] = {}
        self._last, self._side = 0.0, 0
        self.draws = 0

    def __call__(self, t: float) -> Float64[Tensor, "*shape"]:
        """The path at time `t`, float64 on the CPU."""
        t = float(t)
        value = self._values.pop(t, None)
        if value is None:
            value = torch.from_numpy(_rounded(self._at(t))).reshape(self.shape)
            if len(self._values) == KEPT_VALUES:
                del self._values[next(iter(self._values))]
        self._values[t] = value
        self._last = t
        return value

    def increment(self, start: float, end: float) -> Float64[Tensor, "*shape"]:
        """W(end) - W(start), exactly.

        >>> W = Brownian(seed=1, shape=())
        >>> bool(W.increment(2.0, 0.5) == W(0.5) - W(2.0))
        True
        """
        if start != end and _share_a_leaf(start, end):
            raise ValueError(
                f"the step from t={start!r} to {end!r} is below the resolution 2^-{DEPTH} |t| of "
                "Brownian paths: take larger steps, or let the time begin near 0"
            )
        first = self(start)
        return self(end) - first

    def _at(self, t: float) -> np.ndarray:
        """The value before rounding, and what is worth keeping of the way to it."""
        side, u = int(t < 0), abs(t)
        if not u <= 2.0**HORIZON:
            raise ValueError(f"t={t!r}; Brownian paths end at |t| = 2^{HORIZON}: rescale the time")
        if u < NOTHING:
            return np.zeros(self._inner)
        if side != self._side:
            self._cells, self._side = [], side
        while self._cells and not self._cells[-1].holds(u):
            self._cells.pop()
        cell = self._cells[-1] if self._cells else self._root(side)
        finest = math.frexp(u)[1] - 1 - DEPTH
        gap = abs(u - abs(self._last))
        while cell.start != u:
            if u >= math.ldexp(cell.index + 1, cell.level):
                return cell.right
            if cell.level <= finest:
                return self._inside(cell, u, side)
            kept = cell.size >= 2 * gap
            cell = self._half(cell, u, side, np.empty(self._inner) if kept else self._spare(cell))
            if kept:
                self._cells = [*self._cells[1 - KEPT_CELLS :], cell]
        return cell.left

    def _spare(self, cell: _Cell) -> np.ndarray:
        """A buffer that is none of the cell's ends: fresh memory would cost more than numbers."""
        return next(one for one in self._work if one is not cell.left and one is not cell.right)

    def _root(self, side: int) -> _Cell:
        far = self._draw(0, 0, side)
        return _Cell(HORIZON, 0, np.zeros(self._inner), far * 2.0 ** (HORIZON / 2))

    def _half(self, cell: _Cell, u: float, side: int, middle: np.ndarray) -> _Cell:
        """The half of a cell that holds u; the value in its middle is written to `middle`."""
        noise = self._draw(cell.index, _MIDDLE + cell.level, side)
        noise *= 0.5 * math.sqrt(cell.size)
        np.add(cell.left, cell.right, out=middle)
        middle *= 0.5
        middle += noise
        index = 2 * cell.index
        if u < math.ldexp(index + 1, cell.level - 1):
            return _Cell(cell.level - 1, index, cell.left, middle)
        return _Cell(cell.level - 1, index + 1, middle, cell.right)

    def _inside(self, leaf: _Cell, u: float, side: int) -> np.ndarray:
        theta = (u - leaf.start) / leaf.size
        noise = self._draw(int(np.float64(u).view(np.uint64)), _LEAF, side)
        noise *= math.sqrt(theta * (1 - theta) * leaf.size)
        value = self._spare(leaf)
        np.subtract(leaf.right, leaf.left, out=value)
        value *= theta
        value += leaf.left
        value += noise
        return value

    def _draw(self, place: int, kind: int, side: int) -> np.ndarray:
        """Standard normals that belong to one node of the tree, in a buffer that is used again."""
        self.draws += 1
        return self._normals.draw((place, kind, 2 * self.part + side)).reshape(self._inner)


def runs(shape: tuple[int, ...], nodes: Sequence[int] | None, first: int) -> tuple[list[int], int]:
    """How many numbers each graph has, and where the first row's begin.

    Args:
        shape: Of a state.
        nodes: Rows of each graph; None for one graph.
        first: Row of a larger state that is the first of these.

    Raises:
        ValueError: For graphs that do not add up to the state.

    >>> runs((5, 2), [2, 3], 4)
    ([4, 6], 8)
    """
    rows, numbers = (*shape, 1)[0], math.prod(shape[1:])
    counts = [rows] if nodes is None else list(nodes)
    if sum(counts) != rows:
        raise ValueError(f"nodes adds up to {sum(counts)} rows and the shape has {rows}")
    return [count * numbers for count in counts], first * numbers


def _rounded(value: np.ndarray) -> np.ndarray:
    multiples: np.ndarray = value * (1 / QUANTUM)
    np.rint(multiples, out=multiples)
    multiples *= QUANTUM
    return multiples


def _share_a_leaf(s: float, t: float) -> bool:
    """Whether both times lie inside the same leaf, where the path knows only one of them."""
    if (s < 0) != (t < 0) or s == 0 or t == 0:
        return False
    (m, e), (n, k) = math.frexp(abs(s)), math.frexp(abs(t))
    m, n = math.ldexp(m, DEPTH + 1), math.ldexp(n, DEPTH + 1)
    return e == k and math.floor(m) == math.floor(n) and not (m.is_integer() or n.is_integer())
