"""The energy of a trajectory: measured at accepted steps, or read from Chebyshev moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.forms import Form, start_of
from neuralpde.graph import Graph
from neuralpde.looks import Look, Parts, in_range, unit
from neuralpde.watching import own_points
from solvers.lasting import lasting
from solvers.masks import some
from solvers.moments import Curves, curves
from solvers.series import Series
from solvers.trajectory import Stats, Trajectory

Numbers = Float[np.ndarray, "three times graphs"]
PerTime = Float[np.ndarray, "times graphs"]
Order = Int64[np.ndarray, "times graphs"]
Told = Series | Callable[[], Series]
"""A series, or what computes it when it is first read."""

POINTS = 64
"""Times across the interval at which an exact solve reports its energy."""

SAFETY = 8.0
"""An error e moves E by at most 2 sqrt(E lambda) |e| + lambda |e|^2, E itself at 6 lambda |e|^2."""

TRUNCATION = 0.1
"""Truncation of the energy's Chebyshev series, in units of rtol |x|^2 lambda_max."""

PRECISE = 1e-13
"""The same for small states, where more products buy more decades."""

TOGETHER, MOST = 2**16, 64
"""Entries, and states, that may wait until they are looked at together."""

SMALL = 2**14
"""States of up to so many entries are read precisely, in float64: nobody notices the time."""


@dataclass
class Tolerance:
    """The error a solve may have left in its states, for the floor of the energy.

    Attributes:
        rtol: Relative tolerance; 0 when unknown.
        atol: Absolute tolerance.
        of_deviation: Whether errors were compared with x - P x instead of x.
    """

    rtol: float = 0.0
    atol: float = 0.0
    of_deviation: bool = False

    def square(self, parts: Parts | Look, entries: Tensor) -> Tensor:
        """Bound of |error|^2: the sum over entries of (atol + rtol |x|)^2."""
        if self.of_deviation:
            first = parts.deviation[:1].clamp(min=torch.finfo(torch.float64).tiny)
            left = (parts.deviation / first).clamp(max=1.0)
            return 2 * (entries * self.atol**2 * left + self.rtol**2 * parts.deviation)
        return 2 * (entries * self.atol**2 + self.rtol**2 * parts.square)


@dataclass
class EnergyTrack:
    """Measures the energy of each new state; the numbers stay on the device until the end.

    Args:
        form: The field's own form.
        dissipation: Rates per graph when the field is -rate L of this form; then the slope of a
            double-precision state gives the energy without a product. In single precision the
            slope's rounding, eps |L| |x|, would drown the energy near consensus.
    """

    form: Form
    dissipation: Tensor | None = None
    products: int = 0
    times: list[np.ndarray] = field(default_factory=list)
    moved: list[np.ndarray] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    _states: list[Tensor] = field(default_factory=list)
    _slopes: list[Tensor] = field(default_factory=list)

    def __call__(self, t: np.ndarray, x: Any, slope: Any, moved: np.ndarray) -> None:
        """Measure the state x (its first part) at the graphs' times, now or when others wait."""
        if not some(moved):
            return
        state, waiting = x[0].detach(), len(self._states)
        known = slope is not None and self.dissipation is not None
        known = known and state.dtype is torch.float64
        if waiting and known != bool(self._slopes):
            self.settle()
        self.products += not known
        self.times.append(t)
        self.moved.append(moved)
        if known:
            self._slopes.append(slope[0].detach())
        self._states.append(state)
        if waiting + 1 >= min(MOST, TOGETHER // max(state.numel(), 1)):
            self.settle()

    def settle(self) -> None:
        """Look at the states that wait."""
        states = self._states
        # Ctrl-C may have come between the notes of one step: the state is the last of them.
        slopes = self._slopes[: len(states)]
        if not states:
            return
        scale = self._scale(states[0]) if slopes else 1.0
        if len(states) > 1:
            found = self.form.looks(states, slopes, scale)
        else:
            known = slopes[0].reshape(len(slopes[0]), -1) * scale if slopes else None
            found = self.form.look(states[0], known)
        looks = [*self.looks, found]
        # One statement without a call in it: Ctrl-C finds all of it done, or nothing.
        self.looks, self._states, self._slopes = looks, [], []

    def _scale(self, state: Tensor) -> Tensor:
        """What makes -L x, weighted by L's metric, of a slope: a column."""
        assert self.dissipation is not None
        rates = self.dissipation.to(state.device, torch.float64)
        mass, batch = self.form.mass, self.form.rows.batch
        rates = rates.expand(self.form.rows.num_graphs)
        per_row = rates if batch is None else rates[batch]
        return ((1.0 if mass is None else mass) / per_row).unsqueeze(1)

    @property
    def newest(self) -> Look:
        """The look at the newest state."""
        self.settle()
        return self.looks[-1].last

    def series(self, tolerance: Tolerance, eps: float, entries: Tensor) -> dict[str, Told]:
        """The energy, the norm and the Rayleigh quotient along time."""
        self.settle()
        if not self.looks:
            return {}
        look = Look.joined(self.looks)
        parts = Parts(look.energy.cpu(), look.square.cpu(), look.deviation.cpu())
        floor = self.floor(parts, tolerance, eps, entries)
        count = len(parts.energy)
        moved = np.concatenate(self.moved[:count]).reshape(count, -1)
        own = [own_points(v.numpy(), moved) for v in (parts.energy, parts.square, parts.deviation)]
        times = own_points(np.concatenate(self.times[:count]).reshape(count, -1), moved)
        return series_of(times, Parts(*own), own_points(floor.numpy(), moved), self.form)

    def floor(
        self, parts: Parts | Look, tolerance: Tolerance, eps: float, entries: Tensor
    ) -> Tensor:
        """The absolute error of each energy: rounding of the form and of the states, tolerance."""
        rounding = eps * parts.deviation + 4 * eps**2 * parts.square
        return SAFETY * self.form.largest * (rounding + tolerance.square(parts, entries))


def series_of(t: Tensor, parts: Parts, floor: Tensor, form: Form) -> dict[str, Told]:
    """Energy, norm and Rayleigh quotient from the same evaluations; two of them when asked for."""
    convention = form.convention
    # What has overflowed is not known: a quotient by infinity would pass for zero.
    known = parts.square.isfinite() & parts.energy.isfinite()
    square, energy = (torch.where(known, y, torch.nan) for y in (parts.square, parts.energy))

    def norm() -> Series:
        name = "Frobenius norm of x" if form.mass is None else "norm of x in the metric of L"
        return Series(t, square.clamp(min=0).sqrt(), name)

    def rayleigh() -> Series:
        safe = torch.where(square > 0, square, torch.nan)
        name = f"tr(x'Lx) / |x|^2, {convention.split(':')[0]}"
        return Series(t, energy / safe, name, floor / safe)

    return {"energy": Series(t, energy, convention, floor), "norm": norm, "rayleigh": rayleigh}


def layered(x: Tensor, graph: Graph, norm: str, name: str) -> Trajectory:
    """States of a network, layer by layer, as a trajectory with its energy; t counts the layers.

    Args:
        x: `[layers + 1, nodes, ...]`, the first before all layers.
        graph: The graph.
        norm: Which Dirichlet form.
        name: Of the network.
    """
    graph = graph.like(x[0])
    track = EnergyTrack(DirichletForm.of(graph, norm))
    everyone = np.ones(graph.num_graphs, dtype=bool)
    for k, state in enumerate(x):
        track(np.full(graph.num_graphs, float(k)), (state,), None, everyone)
    counts = torch.ones(1) if graph.batch is None else torch.bincount(graph.batch)
    series = track.series(Tolerance(), torch.finfo(x.dtype).eps, counts.double())
    several = graph.num_graphs > 1
    return Trajectory(
        torch.arange(len(x), dtype=torch.float64),
        x,
        Stats("trace", f"the {len(x) - 1} layers of {name}, evaluated in eval mode", nfe=1),
        ("done",) * graph.num_graphs if several else "done",
        settings={"field": name, "solver": "trace"},
        graph=graph,
        _series=dict(series),
    )


@dataclass
class ExactEnergy:
    """The energy of an exact solve, computed when it is first read.

    Args:
        form: The field's own form.
        graph: The graph, in the state's dtype.
        x0: The first state.
        times: Saved times `[saved]` or `[saved, graphs]`, from the start.
        rates: The field is -rates L (per graph) of this form; None: only saved states are measured.
        rtol: The solve's tolerance, the error its states may carry.
        count: Told how many products were spent.
    """

    form: Form
    graph: Graph
    x0: Tensor
    times: Tensor
    rates: Tensor | None
    rtol: float
    count: Callable[[int], None]

    def attach(self, trajectory: Trajectory) -> None:
        """Let the trajectory compute its three series on first access, all of them at once."""
        # What is kept of the trajectory later (save="end") is not what was solved.
        states = trajectory.x
        assert isinstance(states, Tensor)

        def compute(name: str) -> Callable[[], Series]:
            def found() -> Series:
                with lasting():
                    trajectory._series.update(self._series(states.detach()))
                return trajectory[name]

            return found

        for name in ("energy", "norm", "rayleigh"):
            trajectory._series[name] = compute(name)

    def _series(self, states: Tensor) -> dict[str, Told]:
        t, graphs = self.times.numpy(), self.form.rows.num_graphs
        times = np.repeat(t[:, None], graphs, axis=1) if t.ndim == 1 else t
        x0, size, found, order = self.x0.detach(), 1.0, None, None
        if self.rates is not None and not bool((self.rates < 0).any()):
            times, order = _merged(times)
            # Squares that leave single precision are found out.
            with np.errstate(over="ignore", invalid="ignore"):
                found = self._moments(x0, times)
            if not in_range(torch.from_numpy(found.square[0] + found.removed)):
                size = unit(x0).item()
                states, found = states / size, self._moments(x0 / size, times)
        if found is None:
            first = self._told(states[0])
        else:
            # Moments know the first state better than a look at it does.
            first = np.stack([found.energy[0], found.square[0] + found.removed, found.square[0]])
        told = np.stack([first, *(self._told(x) for x in states[1:])], axis=1)
        floor = self._floor(told, torch.finfo(states.dtype).eps)
        if found is not None and order is not None:
            told, floor = _better(found, order, told, floor)
        told, floor = size**2 * told, size**2 * floor
        if graphs == 1:
            once = np.append(True, np.diff(times[:, 0]) != 0)
            times, floor, told = times[once, 0], floor[once, 0], told[:, once, 0]
        parts = Parts(*torch.from_numpy(told))
        return series_of(torch.from_numpy(times), parts, torch.from_numpy(floor), self.form)

    def _told(self, x: Tensor) -> Float[np.ndarray, "three graphs"]:
        """Energy and squares of a saved state, which is scaled only where its squares need that."""
        look = self.form.look(x, near=True)
        parts: Look | Parts = look if in_range(look.square) else self.form.parts(x)
        return torch.stack((parts.energy, parts.square, parts.deviation)).cpu().numpy()

    def _floor(self, told: Numbers, eps: float) -> PerTime:
        """The error of energies measured on saved states."""
        _, square, deviation = told
        error = 2 * self.rtol**2 * np.maximum(square[:1], square)
        rounding = eps * deviation + 4 * eps**2 * square
        error[0] = 0.0
        floor: PerTime = SAFETY * self.form.largest.numpy() * (error + rounding)
        return floor

    def _moments(self, x0: Tensor, times: PerTime) -> Curves:
        """The energy at many times from the first state alone."""
        assert self.rates is not None
        small = x0.numel() <= SMALL
        x0 = x0.to(torch.promote_types(x0.dtype, torch.float64 if small else torch.float32))
        start = start_of(self.form, self.graph, x0)
        with start.lock:
            found = curves(
                start.L,
                start.x,
                (times - times[:1]) * self.rates.cpu().numpy(),
                metric=start.metric,
                tol=PRECISE if small else max(self.rtol * TRUNCATION, PRECISE),
                prepare=start.prepare,
                space=start.space,
            )
        self.count(found.products)
        return found


def _merged(saved: PerTime) -> tuple[PerTime, Order]:
    """Saved times, which rise, and many between them; and where each of them was before."""
    between = saved[:1] + np.linspace(0, 1, POINTS)[:, None] * (saved[-1:] - saved[:1])
    every = np.concatenate([saved, between])
    order = np.argsort(every, axis=0, kind="stable")
    return np.take_along_axis(every, order, 0), order


def _better(found: Curves, order: Order, told: Numbers, own: PerTime) -> tuple[Numbers, PerTime]:
    """What the moments say at many times; at saved ones what their states say, if that is better.

    Args:
        found: From the moments.
        order: Where the times were before they were merged, the saved ones first.
        told: Of the saved states.
        own: The floors of their energies.
    """
    saved = np.full((3, *order.shape), np.inf)
    saved[:2, 1 : len(own)], saved[2, 1 : len(own)] = told[::2, 1:], own[1:]
    energy, deviation, floor = np.take_along_axis(saved, order[None], 1)
    better = floor < found.energy_error
    energy = np.where(better, energy, found.energy)
    deviation = np.where(better, deviation, found.square)
    told = np.stack([energy, deviation + found.removed, deviation])
    return told, np.where(better, floor, found.energy_error)
