"""How an exact solve keeps its promise: precision, degrees and sums of every graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.chebyshev import Chebyshev, Recurrence
from solvers.coefficients import phi_1
from solvers.segments import Plan, restarts
from solvers.uniformisation import Uniformisation, Walk
from solvers.weights import Table, Weights

PerGraph = Float[np.ndarray, " graphs"]
PerTime = Float[np.ndarray, "times graphs"]

EPS = float(np.finfo(np.float64).eps)
# Rounding errors of a series, in units of (z + 20) eps times its roughness: those that a result may
# carry, and those that must fit into half of the tolerance for single precision to be trusted.
ROUNDING, TRUSTED = 2.0, 4.0
# The derivative of a series is less accurate than its value (Markov's inequality).
GRADIENT_TAIL = 1e-3
# Exponents beyond which results overflow long before they mean anything.
LARGEST_GROWTH = 600.0
ATTEMPTS = 6
NOTHING: Weights = np.zeros(1)


class Guarantee:
    """One solve of ``x' = A x + source`` with an error of at most ``rtol max(|x0|, |x(t)|)``.

    Errors are counted in advance: a series is wrong by ``tail e^g |x|``, rounding adds
    ``2 (z + 20) eps e^g |x|``, times the roughness of the series. With a source, or where growth
    makes the count in advance too strict, they are counted again with the norms found, and degrees
    raised where that fails.

    Args:
        series: of the exponentials.
        offsets: times from the start, for each graph.
        times: the same as given, perhaps with gradients.
        x: initial state.
        source: constant state, or None.
        rtol: relative tolerance.
        tape: record every product.

    Attributes:
        products: products with the operator so far.
        degree: largest degree so far.

    Raises:
        ValueError: the promise cannot be kept in float64, or the state is not finite.
    """

    def __init__(
        self,
        series: Chebyshev | Uniformisation,
        offsets: PerTime,
        times: Tensor,
        x: Float[Tensor, "nodes columns"],
        source: Float[Tensor, "nodes columns"] | None,
        rtol: float,
        tape: bool,
    ) -> None:
        self.series, self.rows, self.times, self.tape = series, series.rows, times, tape
        self.offsets, self.x, self.source, self.rtol = offsets, x, source, rtol
        self.reach, self.growth = series.reach(offsets), series.growth(offsets)
        self.farthest: PerGraph = self.reach.max(0, initial=0.0)
        self.grown: PerGraph = self.growth.max(0, initial=0.0)
        self.noise: PerGraph = series.roughness * (self.farthest + 20)
        self.products = self.degree = 0
        self._dtypes: list[torch.dtype] = []
        floor = 2 * ROUNDING * self.noise.max(initial=0.0) * EPS
        if rtol < floor:
            self._refuse(floor)
        if self.grown.max(initial=0.0) > LARGEST_GROWTH:
            raise ValueError(
                f"modes may grow by e^{self.grown.max():.3g}, beyond what float64 holds; solve "
                "over a shorter time"
            )
        self._start = series.norms(x.detach())
        self._drive = np.zeros_like(self._start)
        if source is not None:
            self._drive = series.norms(source.detach())
        if not np.isfinite(self._start + self._drive).all():
            raise ValueError("x0 or source has entries that are NaN or infinite")

    def run(self) -> Float[Tensor, "times nodes columns"]:
        """Return the states in the dtype of ``x``."""
        result = self.x.expand(len(self.offsets), *self.x.shape)
        if len(result) < 2 or not self.x.numel():
            return result.clone()
        pending = np.ones(self.rows.num_graphs, dtype=np.bool_)
        for dtype in (torch.float32, torch.float64):
            last = dtype is torch.float64
            wide_enough = torch.promote_types(dtype, self.x.dtype) is dtype
            active = pending & (last | self._trusted(dtype)) & wide_enough
            if not active.any():
                continue
            states, kept = self._solve(dtype, active, last)
            result = self._select(kept, states.to(self.x.dtype), result)
            pending &= ~kept
            self._dtypes.append(dtype)
        return result

    def reason(self) -> str:
        """Return method, degree, norm and precision in words."""
        words = (
            f"{self.series.name} series of degree {self.degree} (z = {self.farthest.max():.4g}, "
            f"{self.series.extent}), rtol {self.rtol:g} guaranteed in the {self.series.norm}"
        )
        if torch.float64 in self._dtypes and self.x.dtype is not torch.float64:
            some = "some graphs " if len(self._dtypes) > 1 else ""
            words += f"; {some}propagated in float64, as {self.x.dtype} cannot hold it, and cast"
        rounded = self.rtol < torch.finfo(self.x.dtype).eps
        return words + (f"; rounded to {self.x.dtype}" if rounded else "")

    def _trusted(self, dtype: torch.dtype) -> Bool[np.ndarray, " graphs"]:
        errors = TRUSTED * self.noise * torch.finfo(dtype).eps * np.exp(self.grown)
        trusted: Bool[np.ndarray, " graphs"] = errors <= self.rtol / 2
        return trusted

    def _refuse(self, floor: float) -> None:
        # Rounded up, so that what it says is possible.
        digit = 10.0 ** (np.floor(np.log10(floor)) - 1)
        possible = f"the smallest possible rtol is {np.ceil(1.01 * floor / digit) * digit:.2g}"
        raise ValueError(
            f"rtol={self.rtol:g} is below what float64 can guarantee here (z = "
            f"{self.series.measure} = {self.farthest.max():.4g}); "
            + (possible if floor < 0.9 else "solve over a shorter time")
        )

    def _solve(
        self, dtype: torch.dtype, active: Bool[np.ndarray, " graphs"], last: bool
    ) -> tuple[Tensor, Bool[np.ndarray, " graphs"]]:
        hard = 2 * ROUNDING * self.noise * EPS * np.exp(self.grown) > self.rtol
        judged = active & (hard | (self.source is not None))
        tails: PerGraph = np.full(self.rows.num_graphs, self.rtol / 2)
        terms = self.series.terms(dtype)
        entries = torch.is_grad_enabled() and any(v.requires_grad for v in terms.A.tensors)
        for attempt in range(ATTEMPTS):
            plan = self._plan(dtype, active, tails)
            share = tails / plan.series * np.exp(-self.grown)
            states = self._sums(terms, plan, share * (GRADIENT_TAIL if entries else 1.0))
            if not judged.any():
                break
            of_series, of_rounding, allowed = self._errors(states, dtype, plan, share)
            missed = (of_series + of_rounding > allowed) & judged & active
            hopeless = missed & ((of_rounding > 0.75 * allowed) | (attempt == ATTEMPTS - 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                if last and hopeless.any():
                    needed = 2 * float((of_rounding / allowed)[hopeless].max())
                    self._refuse(self.rtol * max(needed, 2.0))
                factor = np.where(missed, (allowed - of_rounding) / of_series, np.inf).min(0)
            active = active & ~hopeless.any(0)
            missed &= active
            if not missed.any():
                break
            tails *= np.where(missed.any(0), np.clip(factor / 2, 1e-9, 0.5), 1.0)
        return states, active

    def _plan(
        self, dtype: torch.dtype, active: Bool[np.ndarray, " graphs"], tails: PerGraph
    ) -> Plan:
        # Each series adds 20 to the z that rounding is counted with.
        unit = 2 * ROUNDING * self.series.roughness * torch.finfo(dtype).eps
        room = self.rtol / unit - self.farthest
        starts: list[list[int]] = [[]] * len(active)
        for graph in np.flatnonzero(active):
            most = int(room[graph] / 20) if self.series.restarts else 1
            starts[graph] = restarts(
                self.reach[:, graph], float(tails[graph]) / 4, most, self.series.degrees
            )
        return Plan(starts, len(self.offsets))

    def _sums(self, terms: Recurrence | Walk, plan: Plan, share: PerGraph) -> Tensor:
        dtype, graphs = terms.A.dtype, np.arange(self.rows.num_graphs)
        source = None if self.source is None else self.source.to(dtype)
        found, place = [self.x.to(dtype)], np.zeros(self.offsets.shape, dtype=int)
        # With nothing to record, and one plan for all graphs, sums are put where they belong.
        result: Tensor | None = None
        if plan.shared and not (torch.is_grad_enabled() and self._tracked(terms)):
            result = found[0].new_empty(len(place), *self.x.shape)
            found[0] = result[0].copy_(found[0])
        for first, last in zip(plan.first, plan.last, strict=True):
            v = self._pick(found, place[first, graphs])
            steps = [np.minimum(first + step, last) for step in range(1, (last - first).max() + 1)]
            if not steps:
                continue
            out = None if result is None else list(result[first[0] + 1 : last[0] + 1])
            tables = self._tables(self.series.weights, first, steps, share, v)
            sums = terms.sums(v, tables, self.tape, out)
            for y in sums:
                self.series.confine(v, y)
            if source is not None:
                tables = self._tables(self.series.source_weights, first, steps, share, v)
                more = terms.sums(source, tables, self.tape)
                if result is None:
                    sums = [y + part for y, part in zip(sums, more, strict=True)]
                else:
                    torch._foreach_add_(sums, more)
            for step, target in enumerate(steps):
                reached = first + step < last
                place[target[reached], graphs[reached]] = len(found) + step
            found += sums
        if result is not None:
            return result
        states = [self._pick(found, row) for row in place]
        if self.times.requires_grad and torch.is_grad_enabled():
            states[1:] = [self._timed(terms, x, time) for time, x in enumerate(states[1:], start=1)]
        return torch.stack(states)

    def _tracked(self, terms: Recurrence | Walk) -> bool:
        tensors = (self.x, self.times, self.source, *terms.A.tensors)
        return any(tensor is not None and tensor.requires_grad for tensor in tensors)

    def _tables(
        self,
        weights: Callable[[int, float, float], Weights],
        first: Int[np.ndarray, " graphs"],
        steps: list[Int[np.ndarray, " graphs"]],
        share: PerGraph,
        like: Tensor,
    ) -> list[Table]:
        tables = []
        for step, target in enumerate(steps):
            columns = [NOTHING] * len(target)
            for graph in np.flatnonzero(first + step < target):
                start, end = first[graph], target[graph]
                span = float(self.offsets[end, graph] - self.offsets[start, graph])
                tail = self._tail(share, int(start), int(end), int(graph))
                columns[graph] = weights(int(graph), span, tail)
            tables.append(self.series.table(columns, self.rows.batch, like))
        self.degree = max(self.degree, *(table.degree for table in tables))
        self.products += max(table.degree for table in tables)
        return tables

    def _tail(self, share: PerGraph, start: int, end: int, graph: int) -> float:
        # A series that also decays may be less accurate relative to its own norm.
        decay = min(0.0, float(self.growth[end, graph] - self.growth[start, graph]))
        return float(min(0.5, share[graph] * np.exp(min(-decay, LARGEST_GROWTH))))

    def _pick(self, found: list[Tensor], place: Int[np.ndarray, " graphs"]) -> Tensor:
        x: Tensor = found[place[0]]
        for i in np.unique(place):
            (x,) = self.rows.select(place == i, (found[i],), (x,))
        return x

    def _select(self, mask: Bool[np.ndarray, " graphs"], yes: Tensor, no: Tensor) -> Tensor:
        if mask.all():
            return yes
        parts = zip(yes, no, strict=True)
        return torch.stack([self.rows.select(mask, (new,), (old,))[0] for new, old in parts])

    def _timed(self, terms: Recurrence | Walk, x: Tensor, time: int) -> Tensor:
        """Return ``x``, with ``dx/dt = A x + source`` as its derivative by ``times[time]``."""
        moment = self.times[time]
        step = (moment - moment.detach()).to(x.device, x.dtype)
        if step.dim() and self.rows.batch is not None:
            step = step[self.rows.batch].unsqueeze(1)
        self.products += 1
        if self.tape:
            slope = terms.act(x) if self.source is None else terms.act(x) + self.source.to(x.dtype)
            return x + step * slope + step**2 / 2 * terms.act(slope)
        with torch.no_grad():
            slope = terms.act(x) if self.source is None else terms.act(x) + self.source.to(x.dtype)
        return x + step * slope

    def _errors(
        self, states: Tensor, dtype: torch.dtype, plan: Plan, share: PerGraph
    ) -> tuple[PerTime, PerTime, PerTime]:
        """Return the errors of the series, those of rounding, and those allowed."""
        size = np.stack([self._start, *(self.series.norms(x.detach()) for x in states[1:])])
        of_series, of_rounding = np.zeros_like(size), np.zeros_like(size)
        graphs, eps = np.arange(size.shape[1]), torch.finfo(dtype).eps
        for time, start in enumerate(plan.parent[1:], start=1):
            span = self.offsets[time] - self.offsets[start, graphs]
            growth = self.growth[time] - self.growth[start, graphs]
            tail = [self._tail(share, i, time, graph) for graph, i in enumerate(start.tolist())]
            grown, before = np.exp(growth), size[start, graphs]
            scale = grown * before + np.abs(span) * phi_1(growth) * self._drive
            reach = self.reach[time] - self.reach[start, graphs]
            noise = ROUNDING * self.series.roughness * (reach + 20) * eps
            of_series[time] = grown * of_series[start, graphs] + np.array(tail) * scale
            of_rounding[time] = grown * of_rounding[start, graphs] + noise * scale
        allowed = self.rtol * np.maximum(self._start, size / (1 + self.rtol))
        return of_series, of_rounding, allowed
