"""The energy of an exact solve: a curve from Chebyshev moments, read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralpde.forms import Form, start_of
from neuralpde.graph import Graph
from neuralpde.looks import Look, Parts, in_range, unit
from neuralpde.precision import own_precision
from neuralpde.tracking import SAFETY, Told, series_of
from solvers.lasting import lasting
from solvers.moments import Curves, curves
from solvers.series import Series
from solvers.trajectory import Trajectory

Numbers = Float[np.ndarray, "three times graphs"]
PerTime = Float[np.ndarray, "times graphs"]
Order = Int64[np.ndarray, "times graphs"]

POINTS = 64
"""Times across the interval at which an exact solve reports its energy."""

TRUNCATION = 0.1
"""Truncation of the energy's Chebyshev series, in units of rtol |x|^2 lambda_max."""

PRECISE = 1e-13
"""The same for small states, where more products buy more decades."""

SMALL = 2**14
"""States of up to so many entries are read precisely, in float64: nobody notices the time."""


def unchanged(states: Tensor) -> Callable[[], Tensor]:
    """What returns these states later, as long as nobody has changed them in place.

    It raises a RuntimeError if somebody has.

    >>> later = unchanged(torch.ones(2, 1))
    >>> later().sum().item()
    2.0
    """
    states = states.detach()
    version = states._version

    def found() -> Tensor:
        if states._version != version:
            raise RuntimeError(
                "the saved states were changed in place after the solve, and what is asked for is "
                "computed from them: ask before, or change a copy (traj.final.clone())"
            )
        return states

    return found


@dataclass
class ExactEnergy:
    """The energy of an exact solve, computed when it is first read.

    Args:
        form: The field's own form.
        graph: The graph, in the state's dtype.
        times: Saved times `[saved]` or `[saved, graphs]`, from the start.
        rates: The field is -rates L (per graph) of this form; None: only saved states are measured.
        rtol: The solve's tolerance, the error its states may carry.
        count: Told how many products were spent.
    """

    form: Form
    graph: Graph
    times: Tensor
    rates: Tensor | None
    rtol: float
    count: Callable[[int], None]

    def attach(self, trajectory: Trajectory) -> None:
        """Let the trajectory compute its three series on first access, all of them at once."""
        # What is kept of the trajectory later (save="end") is not what was solved.
        assert isinstance(trajectory.x, Tensor)
        states = unchanged(trajectory.x)

        def compute(name: str) -> Callable[[], Series]:
            def found() -> Series:
                with lasting(), own_precision(states()):
                    trajectory._series.update(self._series(states()))
                return trajectory[name]

            return found

        for name in ("energy", "norm", "rayleigh"):
            trajectory._series[name] = compute(name)

    def _series(self, states: Tensor) -> dict[str, Told]:
        t, graphs = self.times.numpy(), self.form.rows.num_graphs
        times = np.repeat(t[:, None], graphs, axis=1) if t.ndim == 1 else t
        size, found, order = 1.0, None, None
        if self.rates is not None and not bool((self.rates < 0).any()):
            times, order = _merged(times)
            # Squares that leave single precision are found out.
            with np.errstate(over="ignore", invalid="ignore"):
                found = self._moments(states[0], times)
            if not in_range(torch.from_numpy(found.square[0] + found.removed)):
                size = unit(states[0]).item()
                states = states / size
                found = self._moments(states[0], times)
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
                (times - times[:1]) * self.rates.detach().double().cpu().numpy(),
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
