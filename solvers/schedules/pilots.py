"""Schedules learned from a pilot run: its accepted steps, or its local error, shared equally."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from solvers.schedules.density import Density
from solvers.schedules.schedule import Grid, Named, checked, fractions
from solvers.trajectory import Trajectory


@dataclass(frozen=True)
class Quantiles(Named):
    """Given times thinned or refined: quantiles, joined by straight lines.

    Args:
        nodes: strictly increasing, from exactly 0 to exactly 1.
        evaluations: how many evaluations of a model it took to find them.

    Raises:
        ValueError: for other times.

    Example:
        >>> pilot = Quantiles((0.0, 0.1, 0.3, 0.6, 1.0))
        >>> pilot.grid(2).tolist(), pilot.grid(8).round(3).tolist()
        ([0.0, 0.3, 1.0], [0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0])
    """

    nodes: Sequence[float]
    evaluations: int = 0
    name: ClassVar[str] = "quantiles"

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        object.__setattr__(self, "nodes", tuple(float(node) for node in self.nodes))
        checked(np.array(self.nodes))

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        known = fractions(len(self.nodes) - 1)
        return checked(np.interp(fractions(n), known, np.array(self.nodes)))

    def reverse(self) -> Quantiles:
        """The mirrored times."""
        return Quantiles(tuple(1 - node for node in reversed(self.nodes)), self.evaluations)


def from_trajectory(trajectory: Trajectory) -> Quantiles:
    """The steps that an adaptive run accepted, for fixed steps to follow.

    Args:
        trajectory: solved adaptively with `save="steps"`, of one graph.

    Returns:
        Quantiles of its accepted times, mapped to [0, 1]; falling times are mirrored with it.

    Raises:
        ValueError: for a trajectory that did not keep its steps.

    References:
        Hairer, Norsett and Wanner, Solving ordinary differential equations I, II.4, for the
        control that such steps come from.

    Example:
        >>> pilot = Trajectory(torch.tensor([2.0, 3.0, 6.0]), torch.zeros(3, 1))
        >>> pilot.stats.accepted = 2
        >>> from_trajectory(pilot).nodes
        (0.0, 0.25, 1.0)
    """
    times = clock(trajectory)
    accepted = int(np.max(trajectory.stats.accepted))
    if len(times) - 1 != accepted:
        raise ValueError(
            f"this trajectory holds {len(times)} times of {accepted} steps; solve the pilot "
            'adaptively with save="steps"'
        )
    return Quantiles(tuple(times), trajectory.stats.nfe)


def equidistributed(trajectory: Trajectory, order: int, mix: float = 0.25) -> Density:
    """Steps that share the local error of a method of that order equally along a pilot.

    A step h commits an error proportional to ``|x^(order + 1)| h^(order + 1)``, so the density is
    ``|x^(order + 1)|^(1 / (order + 1))``. The derivative is a divided difference of the states,
    its norm the root mean square over their entries.

    Args:
        trajectory: a pilot that is finer than the steps to be placed, with `save="steps"` or many
            saved times, and accurate: differences of so high an order amplify its errors.
        order: of the method that is to take the steps.
        mix: fraction of equal steps, where derivatives vanish.

    Raises:
        ValueError: for too few times.

    References:
        Hairer, Norsett and Wanner, Solving ordinary differential equations I, II.4.

    Example:
        >>> t = torch.linspace(0, 1, 201, dtype=torch.float64)
        >>> cubic = Trajectory(t, (t**3)[:, None])  # |x''|^(1/2) = (6 t)^(1/2), mass t^(3/2)
        >>> equidistributed(cubic, order=1, mix=0.0).grid(2).round(3).tolist()
        [0.0, 0.63, 1.0]
    """
    times = clock(trajectory)
    if order < 1 or len(times) < order + 3:
        raise ValueError(
            f"{len(times)} times, order {order}: needed are an order of at least 1 and order + 3 "
            "times"
        )
    parts = trajectory.x if isinstance(trajectory.x, tuple) else (trajectory.x,)
    flat = [torch.view_as_real(x) if x.is_complex() else x for x in parts]
    x = torch.cat([part.detach().double().cpu().flatten(1) for part in flat], dim=1).numpy()
    for k in range(1, order + 2):
        x = np.diff(x, axis=0) / (times[k:] - times[:-k])[:, None]
    size = math.factorial(order + 1) * np.sqrt((x**2).mean(axis=1))
    # A divided difference of order k is the derivative at the mean of its times, to second order.
    where = np.lib.stride_tricks.sliding_window_view(times, order + 2).mean(axis=1)
    provenance = {"rate": f"error of order {order}", "evaluations": trajectory.stats.nfe}
    return Density(tuple(where), tuple(size), 1 / (order + 1), mix, provenance=provenance)


def clock(trajectory: Trajectory) -> Float[np.ndarray, " times"]:
    """The times of a pilot of one graph, mapped to [0, 1].

    Args:
        trajectory: the pilot.

    Raises:
        ValueError: for graphs that keep their own times, or a pilot that did not reach its end.

    Example:
        >>> clock(Trajectory(torch.tensor([2.0, 3.0, 6.0]), torch.zeros(3, 1))).tolist()
        [0.0, 0.25, 1.0]
    """
    times = trajectory.t.detach().double().cpu().numpy()
    if times.ndim == 2 and times.shape[1] == 1:
        times = times[:, 0]
    if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all():
        raise ValueError(
            f"times are {tuple(trajectory.t.shape)}; a pilot is one graph, solved to its end"
        )
    unit = (times - times[0]) / (times[-1] - times[0])
    return np.asarray(unit)
