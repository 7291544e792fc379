"""The energy of a trajectory: measured at accepted steps, or read from Chebyshev moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.energies import DirichletForm, Parts
from neuralpde.graph import Graph
from neuralpde.watching import own_points
from solvers.moments import energy_curve
from solvers.series import Series
from solvers.trajectory import Trajectory

POINTS = 64
"""Times across the interval at which an exact solve reports its energy."""

SAFETY = 8.0
"""An error e changes E by up to 2 sqrt(E lambda) |e| + lambda |e|^2: it is E itself at 6 lambda |e|^2."""

CURVE_TOLERANCE = 1e-5
"""Truncation of the energy's Chebyshev series in single precision, relative to |x|^2 lambda_max."""


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

    def square(self, parts: Parts, entries: Tensor) -> Tensor:
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

    form: DirichletForm
    dissipation: Tensor | None = None
    products: int = 0
    times: list[np.ndarray] = field(default_factory=list)
    moved: list[np.ndarray] = field(default_factory=list)
    parts: list[Parts] = field(default_factory=list)

    def __call__(self, t: np.ndarray, x: Any, slope: Any, moved: np.ndarray) -> None:
        """Measure the state x (its first part) at the graphs' times."""
        if not moved.any():
            return
        state = x[0]
        known = None
        if slope is not None and self.dissipation is not None and state.dtype == torch.float64:
            rates = self.dissipation.to(state).expand(self.form.rows.num_graphs)
            per_row = self.form.rows.spread(rates.cpu().numpy(), state)
            known = slope[0] / per_row
            if self.form.mass is not None:
                known = known * self.form.mass.view(-1, *[1] * (state.dim() - 1))
        self.products += known is None
        self.times.append(t)
        self.moved.append(moved)
        self.parts.append(self.form.parts(state, known))

    def series(self, tolerance: Tolerance, eps: float, entries: Tensor) -> dict[str, Series]:
        """The energy, the norm and the Rayleigh quotient along time."""
        parts = Parts(
            *(
                torch.stack([getattr(one, name) for one in self.parts]).double().cpu()
                for name in ("energy", "square", "deviation")
            )
        )
        floor = self.floor(parts, tolerance, eps, entries)
        moved = np.stack(self.moved)
        own = [own_points(v.numpy(), moved) for v in (parts.energy, parts.square, parts.deviation)]
        times = own_points(np.stack(self.times), moved)
        return series_of(
            times, Parts(*own), own_points(floor.numpy(), moved), self.form.convention
        )

    def floor(self, parts: Parts, tolerance: Tolerance, eps: float, entries: Tensor) -> Tensor:
        """The absolute error of each energy: rounding of the form and of the states, tolerance."""
        rounding = eps * parts.deviation + 4 * eps**2 * parts.square
        return SAFETY * self.form.largest * (rounding + tolerance.square(parts, entries))


def series_of(t: Tensor, parts: Parts, floor: Tensor, convention: str) -> dict[str, Series]:
    """Energy, norm and Rayleigh quotient from the same evaluations."""
    safe = torch.where(parts.square > 0, parts.square, torch.nan)
    return {
        "energy": Series(t, parts.energy, convention, floor),
        "norm": Series(t, parts.square.clamp(min=0).sqrt(), "Frobenius norm of x"),
        "rayleigh": Series(
            t, parts.energy / safe, f"tr(x'Lx) / |x|^2, {convention.split(':')[0]}", floor / safe
        ),
    }


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

    form: DirichletForm
    graph: Graph
    x0: Tensor
    times: Tensor
    rates: Tensor | None
    rtol: float
    count: Callable[[int], None]

    def attach(self, trajectory: Trajectory) -> None:
        """Let the trajectory compute its three series on first access, all of them at once."""

        def compute(name: str) -> Callable[[], Series]:
            def found() -> Series:
                series = self._series(trajectory)
                trajectory._series.update(series)
                return series[name]

            return found

        for name in ("energy", "norm", "rayleigh"):
            trajectory._series[name] = compute(name)

    def _series(self, trajectory: Trajectory) -> dict[str, Series]:
        states = trajectory.x
        assert isinstance(states, Tensor)
        saved = [self.form.parts(x) for x in states]
        parts = Parts(
            *(
                torch.stack([getattr(p, name) for p in saved]).cpu()
                for name in ("energy", "square", "deviation")
            )
        )
        error = 2 * self.rtol**2 * parts.square[:1]
        eps = torch.finfo(states.dtype).eps
        rounding = eps * parts.deviation + 4 * eps**2 * parts.square
        floor = SAFETY * self.form.largest * (error + rounding)
        t = trajectory.t.detach()
        one = self.form.rows.num_graphs == 1
        if self.rates is None or not torch.is_floating_point(states):
            return self._at_saved(t, parts, floor, one)
        return self._from_moments(t, parts, one)

    def _at_saved(self, t: Tensor, parts: Parts, floor: Tensor, one: bool) -> dict[str, Series]:
        times = t if one or t.dim() > 1 else t[:, None].expand(len(t), floor.shape[1])
        if one:
            parts = Parts(parts.energy[:, 0], parts.square[:, 0], parts.deviation[:, 0])
            floor = floor[:, 0]
        return series_of(times, parts, floor, self.form.convention)

    def _from_moments(self, t: Tensor, saved: Parts, one: bool) -> dict[str, Series]:
        assert self.rates is not None
        graphs = self.form.rows.num_graphs
        times = t[:, None].expand(len(t), graphs) if t.dim() == 1 else t
        grid = torch.linspace(0, 1, POINTS, dtype=torch.float64)[:, None]
        merged = torch.cat([times, times[:1] + grid * (times[-1:] - times[:1])])
        merged = torch.sort(merged, dim=0, descending=bool((times[-1] < times[0]).any())).values
        if graphs == 1:
            merged = torch.unique_consecutive(merged, dim=0)
        elapsed = (merged - times[:1]) * self.rates.double().cpu()
        laplacian = self.graph.laplacian(self.form.norm)
        tol = max(CURVE_TOLERANCE if self.x0.dtype != torch.float64 else 1e-13, 0.0)
        centred = self.form.deviation(self.x0.detach())
        energy, square, floor, products = energy_curve(laplacian, centred, elapsed, tol=tol)
        self.count(products)
        lost = saved.square[:1] - saved.deviation[:1]
        parts = Parts(energy, square + lost, square)
        if one:
            merged, floor = merged[:, 0], floor[:, 0]
            parts = Parts(energy[:, 0], (square + lost)[:, 0], square[:, 0])
        return series_of(merged, parts, floor, self.form.convention)
