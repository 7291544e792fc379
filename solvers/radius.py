"""The spectral radius along a solve: from the structure where that tells, else estimated seldom."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.explicit import combine
from solvers.flow import Flow
from solvers.legendre import reach, room, stages
from solvers.rows import Rows, State
from solvers.spectrum import MOST, Jacobian, norm, ritz, scattered

REFRESH = 25
"""Accepted steps for which an estimate is trusted, as in RKC and ROCK."""

SAFETY = 1.05
"""Estimates come from below; their residual is added, and this factor."""

WORTH = 9
"""A bound is taken as it is until it asks for this many stages: then a product pays."""

FEW, GENEROUS, FIRST = 4, 1.4, 5
"""The first estimate takes this many products and this factor: enough for steps of 3 stages. It is
made anew before the first step that asks for 5."""


def enclosure(
    flow: Flow, t: Float[np.ndarray, " clocks"], x: State
) -> tuple[Float[np.ndarray, " clocks"], Float[np.ndarray, " clocks"]] | None:
    """Enclose the Jacobian's spectrum where the field's structure tells: then it is real.

    For a self-adjoint operator A and a rest that acts entry by entry with derivatives d, every
    eigenvalue lies between ``lo(A) + min d`` and ``hi(A) + max d``. The derivatives cost two
    evaluations of the rest.

    Args:
        flow: the field on its clocks.
        t: times of the clocks.
        x: the state.

    Returns:
        Lower and upper ends per clock, or None where nothing is known.

    Example:
        >>> from solvers.structure import Structure
        >>> enclosure(Flow(lambda t, x: x, Rows(), torch.ones(2)), np.zeros(1), ()) is None
        True
    """
    known = flow.structure
    A = known.operator
    if A is None or not A.self_adjoint or not (known.rest is None or known.pointwise):
        return None
    if len(x) > 1 or x[0].is_complex():
        return None
    lo, hi = (end.detach().cpu().numpy() for end in A.spectrum())
    if len(t) == 1:
        lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)
    if known.rest is not None:
        down, up = _derivatives(flow, t, x[0])
        lo, hi = lo + down, hi + up
    return lo, hi


def _derivatives(
    flow: Flow, t: Float[np.ndarray, " clocks"], x: Tensor
) -> tuple[Float[np.ndarray, " clocks"], Float[np.ndarray, " clocks"]]:
    """Smallest and largest derivative of a pointwise rest per clock, by central differences."""
    rows, rest = flow.clocks, flow.structure.rest
    assert rest is not None
    size = np.maximum(norm(rows, (x,)), 1e-3)
    e = torch.finfo(x.dtype).eps ** (1 / 3) * (x.abs() + rows.spread(size, x))
    time = flow.time(t)
    flow.nfe += 2
    d = (rest(time, (x + e,))[0] - rest(time, (x - e,))[0]) / (2 * e)
    flat = d.reshape(len(x) if x.dim() else 1, -1).double()
    ends = []
    for extreme, how in ((flat.amin(1), "amin"), (flat.amax(1), "amax")):
        if rows.batch is None:
            end = extreme.amin(0, keepdim=True) if how == "amin" else extreme.amax(0, keepdim=True)
        else:
            none = extreme.new_zeros(rows.num_graphs)
            end = none.scatter_reduce(0, rows.batch, extreme, how, include_self=False)
        ends.append(end.cpu().numpy())
    return ends[0], ends[1]


class Radius:
    """The spectral radius per clock along one solve, looked at seldom.

    Where the structure encloses a real spectrum, that bound is taken until it asks for 9 stages;
    otherwise, and from then on, Arnoldi's method estimates it and the bound caps it: roughly, with
    4 evaluations, while 3 stages do; with at most 12 when more are needed, and with 2 to 4 when
    the last vector is the start. Estimates are refreshed after 25 accepted steps and after
    rejections; then the rejected error, which holds what exploded, is part of the start. All
    evaluations count in ``flow.nfe``.

    Args:
        flow: the field on its clocks.
        known: a radius that the user vouches for; then nothing is estimated.

    Attributes:
        radius: with safety; NaN before the first estimate.
        longest: longest step that eigenvalues off the real axis allow.
        outliers: their largest imaginary part.
        spent: evaluations so far.

    Example:
        >>> Radius(Flow(lambda t, x: x, Rows(), torch.ones(1)), 7.0).radius.tolist()
        [7.0]
    """

    def __init__(self, flow: Flow, known: float | None = None) -> None:
        self.flow = flow
        clocks = flow.clocks.num_graphs
        self.radius = np.full(clocks, np.nan if known is None else known)
        self.longest, self.outliers = np.full(clocks, np.inf), np.zeros(clocks)
        self.growth = np.zeros(clocks)
        self.spent = 0
        self._given = known is not None
        self._constant = flow.structure.operator is not None and flow.structure.rest is None
        self._age = np.zeros(clocks, dtype=int)
        self._until = np.full(clocks, WORTH)
        self._rough, self._doubtful = np.zeros(clocks, bool), np.zeros(clocks, bool)
        self._vector: State | None = None
        self._error: State | None = None

    def judged(
        self,
        accepted: Bool[np.ndarray, " clocks"],
        tried: Bool[np.ndarray, " clocks"],
        error: State | None,
    ) -> None:
        """Hear which clocks accepted the step they tried, and the error estimate."""
        self._age += accepted
        self._doubtful = tried & ~accepted
        self._error = error if self._doubtful.any() else None

    def forget(self, clocks: Bool[np.ndarray, " clocks"]) -> None:
        """Look again at these clocks before their next step."""
        if not self._given:
            self.radius = np.where(clocks, np.nan, self.radius)

    def update(
        self,
        t: Float[np.ndarray, " clocks"],
        h: Float[np.ndarray, " clocks"],
        x: State,
        fx: State,
        *,
        thorough: bool = False,
    ) -> None:
        """Look again where that is due, before steps of signed sizes ``h``."""
        if self._given:
            return
        old = (self._age >= REFRESH) & (not self._constant)
        with np.errstate(invalid="ignore"):
            needed = stages(np.abs(h) * np.nan_to_num(self.radius))
        outgrown = self._rough & (needed >= self._until)
        due = (h != 0) & (np.isnan(self.radius) | old | outgrown | self._doubtful)
        if due.any():
            counted = self.flow.nfe
            with torch.no_grad():
                self._look(t, h, x, fx, due, thorough)
            self.spent += self.flow.nfe - counted

    def _look(
        self,
        t: Float[np.ndarray, " clocks"],
        h: Float[np.ndarray, " clocks"],
        x: State,
        fx: State,
        due: Bool[np.ndarray, " clocks"],
        thorough: bool,
    ) -> None:
        ends = enclosure(self.flow, t, x)
        cap = np.full(len(h), np.inf)
        if ends is not None:
            cap = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
            rise = np.maximum(np.sign(h) * ends[0], np.sign(h) * ends[1])
            self.growth = np.where(due, np.maximum(rise, 0.0), self.growth)
        with np.errstate(invalid="ignore"):
            enough = due & np.isfinite(cap) & (np.abs(h) * cap <= reach(WORTH - 2))
        self._rough = np.where(due, enough, self._rough)
        self._until = np.where(due, np.where(enough, WORTH, FIRST), self._until)
        self.radius = np.where(enough, cap, self.radius)
        self._age = np.where(due, 0, self._age)
        jacobian = Jacobian(self.flow, t, x, fx)
        open_ = due & ~enough
        first = open_ & np.isnan(self.radius) & (not thorough)
        if first.any():
            self._estimate(jacobian, h, first, cap, FEW, GENEROUS)
            self._rough |= first & (stages(np.abs(h) * self.radius) < FIRST)
            open_ &= ~self._rough
        if open_.any():
            self._estimate(jacobian, h, open_, cap, MOST, SAFETY)

    def _estimate(
        self,
        jacobian: Jacobian,
        h: Float[np.ndarray, " clocks"],
        clocks: Bool[np.ndarray, " clocks"],
        cap: Float[np.ndarray, " clocks"],
        products: int,
        safety: float,
    ) -> None:
        found = ritz(jacobian, self._start(jacobian.x), products, clocks)
        estimate = np.minimum(safety * (found.radius + found.residual), cap)
        self.radius = np.where(clocks, estimate, self.radius)
        old = found.vector if self._vector is None else self._vector
        self._vector = self.flow.clocks.select(clocks, found.vector, old)
        for c in np.flatnonzero(clocks & np.isinf(cap)):
            values = found.values[c][~np.isnan(found.values[c])]
            values = np.sign(h[c]) * values.real + 1j * values.imag
            self.growth[c] = values.real.max(initial=0.0)
            self.outliers[c] = values.imag.max(initial=0.0)
            self.longest[c], spare = room(values, self.radius[c])
            self.radius[c] *= spare

    def _start(self, x: State) -> State:
        """Where the last estimate ended, a little of everything, and what just exploded."""
        rows = self.flow.clocks
        start = scattered(rows, x)
        if self._vector is not None:
            start = _mixed(rows, self._vector, start, 0.1)
        if self._error is not None:
            mixed = _mixed(rows, self._error, start, 1.0)
            start = rows.select(self._doubtful & np.isfinite(norm(rows, mixed)), mixed, start)
        return start


def _mixed(rows: Rows, v: State, w: State, share: float) -> State:
    """``v/|v| + share w/|w|``, clock by clock."""
    one, other = (norm(rows, state) for state in (v, w))
    # Where there is no v yet, w stands alone.
    one = np.where(one > 0, one, 1.0)
    by = np.divide(one, other, out=np.ones_like(one), where=other > 0) * share
    return combine(v, rows.spread(by, v[0]), (1.0,), (w,))
