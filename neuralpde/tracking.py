"""The energy of a trajectory, measured at accepted steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.forms import Form
from neuralpde.graph import Graph
from neuralpde.looks import Look, Parts
from neuralpde.watching import own_points
from solvers.masks import some
from solvers.series import Series
from solvers.trajectory import Stats, Trajectory

Told = Series | Callable[[], Series]
"""A series, or what computes it when it is first read."""

SAFETY = 8.0
"""An error e moves E by at most 2 sqrt(E lambda) |e| + lambda |e|^2, E itself at 6 lambda |e|^2."""

TOGETHER, MOST = 2**16, 64
"""Entries, and states, that may wait until they are looked at together."""


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
    counts = torch.ones(1, device="cpu") if graph.batch is None else torch.bincount(graph.batch)
    series = track.series(Tolerance(), torch.finfo(x.dtype).eps, counts.double())
    several = graph.num_graphs > 1
    return Trajectory(
        torch.arange(len(x), dtype=torch.float64, device="cpu"),
        x,
        Stats("trace", f"the {len(x) - 1} layers of {name}, evaluated in eval mode", nfe=1),
        ("done",) * graph.num_graphs if several else "done",
        settings={"field": name, "solver": "trace"},
        graph=graph,
        _series=dict(series),
    )
