"""What a column knows of its solution from a basis: how far off it is, and how far it is good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from solvers.guarantee import EPS
from solvers.phi import phi

# A part of the way that is left is looked for among these fractions of it.
FRACTIONS = 2.0 ** (-np.arange(1, 121) / 3)


@dataclass
class Ritz:
    """What a basis of one column knows of the solution that starts from there.

    The solution is ``e^(t A) v``, or, with an ``origin``, ``origin + t phi_1(t A) v``, v the slope
    of an affine equation there.

    Attributes:
        values: eigenvalues of the tridiagonal matrix T.
        vectors: its eigenvectors.
        size: norm of v.
        beyond: the entry beside the diagonal that leads out of T.
        top: what no eigenvalue of the operator exceeds.
        origin: norm of the state that the slope belongs to, or None.
        along: products of the basis vectors with that state.

    Example:
        >>> still = Ritz.of(np.zeros(1), np.zeros(1), 3.0, 0.0)
        >>> still.coefficients(np.ones(1)).tolist(), still.bound(np.ones(1)).tolist()
        ([[3.0]], [0.0])
    """

    values: Float[np.ndarray, " basis"]
    vectors: Float[np.ndarray, "basis basis"]
    size: float
    beyond: float
    top: float
    origin: float | None = None
    along: Float[np.ndarray, " basis"] | None = None

    @classmethod
    def of(
        cls,
        diagonal: Float[np.ndarray, " basis"],
        beside: Float[np.ndarray, " basis"],
        size: float,
        top: float,
    ) -> Ritz:
        """Decompose the tridiagonal matrix of one column; see :meth:`Basis.tridiagonal`."""
        # Behind a zero beside the diagonal the vectors are zero and take no part.
        ended = np.concatenate([[False], np.cumsum(beside[:-1] == 0) > 0])
        T = np.diag(np.where(ended, top, diagonal))
        T += np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        values, vectors = np.linalg.eigh(T)
        # What lies beyond the top does so by rounding.
        return cls(np.minimum(values, top), vectors, size, float(beside[-1]), top)

    def coefficients(self, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, "times basis"]:
        """Return how much of every basis vector there is at each time."""
        k = int(self.origin is not None)
        weights = t[:, None] ** k * phi(k, t[:, None] * self.values) * self.vectors[0]
        found: Float[np.ndarray, "times basis"] = self.size * weights @ self.vectors.T
        return found

    def norms(self, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Return the norm of the solution at each time."""
        coefficients = self.coefficients(t)
        squares = np.square(coefficients).sum(1)
        if self.origin is not None and self.along is not None:
            squares += self.origin**2 + 2 * coefficients @ self.along
        norms: Float[np.ndarray, " times"] = np.sqrt(np.maximum(squares, 0.0))
        return norms

    def bound(self, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Bound the error at each time: ``size beyond t [phi_1(t (T - top))]_(m 1) e^(t top)``.

        The error obeys ``e' = A e + r`` with a residual of norm ``size beyond [e^(t T)]_(m 1)``,
        which has one sign because the entries beside the diagonal of T are positive: the error is
        at most its integral, growth counted in. With an origin the integral is taken once more.
        The decomposition knows small entries by their size only, so rounding is added.

        Source:
            Saad, SIAM J. Numer. Anal. 29 (1992), section 4; as an upper bound: Jawecki, Auzinger
            and Koch, BIT 60 (2020), 157.
        """
        k = 1 + int(self.origin is not None)
        inner = phi(k, t[:, None] * (self.values - self.top)) * self.vectors[0] @ self.vectors[-1]
        grown = np.exp(np.maximum(t * self.top, 0.0))
        found: Float[np.ndarray, " times"] = (
            self.size * self.beyond * t**k * (np.abs(inner) + EPS) * grown
        )
        return found


class Column:
    """One column of one graph on its way.

    Args:
        graph: number of the graph.
        index: number of the column.
        times: saved times from the start, none negative.
        start: norm of the initial state.
        rtol: relative tolerance of what the bases leave out.
        top: what no eigenvalue exceeds, in the direction of time.

    Attributes:
        place: number of the column in the basis at hand.
        at: time that it has reached.
        off: bound of the error there.
        ritz: what the basis at hand knows, once that is enough.
        step: how far it goes with it.

    Example:
        >>> column = Column(0, 0, np.array([0.0, 2.0]), 1.0, 1e-6, 0.0)
        >>> column.look(Ritz.of(np.array([-1.0]), np.zeros(1), 1.0, 0.0), last=False)
        >>> column.step, column.saved().tolist()
        (2.0, [1])
    """

    def __init__(
        self,
        graph: int,
        index: int,
        times: Float[np.ndarray, " times"],
        start: float,
        rtol: float,
        top: float,
    ) -> None:
        self.graph, self.index, self.place, self.times = graph, index, index, times
        self.start, self.rtol, self.top = start, rtol, top
        self.at = self.off = self.step = 0.0
        self.end = float(times.max(initial=0.0))
        self.ritz: Ritz | None = None

    @property
    def left(self) -> float:
        """Time that is left."""
        return self.end - self.at

    def look(self, ritz: Ritz, *, last: bool) -> None:
        """Keep a decomposition if it is good to the end; the last one as far as it is good.

        Errors add up: a part of the way may spend that part of what is left of the tolerance.
        """
        later = self.times[self.times > self.at] - self.at
        short = self._spent(ritz, later) > self._allowed(ritz, later)
        if not short.any():
            self.ritz, self.step = ritz, self.left
        elif last:
            steps = self.left * FRACTIONS
            room = self._allowed(ritz, steps) - self.off * self._grown(steps)
            good = ritz.bound(steps) <= room * FRACTIONS
            good &= steps < later[short].min()
            if good.any():
                self.ritz, self.step = ritz, float(steps[good.argmax()])

    def saved(self) -> Int[np.ndarray, " reached"]:
        """Return the numbers of the saved times that the step gets to."""
        ahead = self.times > self.at
        if self.step < self.left:
            ahead &= self.times <= self.at + self.step
        return np.flatnonzero(ahead)

    def advance(self) -> None:
        """Take the step."""
        assert self.ritz is not None
        self.off = float(self._spent(self.ritz, np.array([self.step]))[0])
        self.at = self.end if self.step == self.left else self.at + self.step
        self.ritz = None

    def _allowed(self, ritz: Ritz, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        allowed: Float[np.ndarray, " times"] = self.rtol * np.maximum(self.start, ritz.norms(t))
        return allowed

    def _spent(self, ritz: Ritz, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        found: Float[np.ndarray, " times"] = self.off * self._grown(t) + ritz.bound(t)
        return found

    def _grown(self, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        grown: Float[np.ndarray, " times"] = np.exp(np.maximum(t * self.top, 0.0))
        return grown
