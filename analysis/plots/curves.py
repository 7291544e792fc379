"""Series along time: one curve with its floor, the energy with its fitted rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis.plots.style import BLUE, GREY, ORANGE, axes, on_paper, title
from solvers.series import Series
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEADY = 1.05
"""Ratio of the largest to the least value below which a curve is called constant."""


@on_paper
def curve(
    series: Series, ax: Axes | None = None, *, color: str = BLUE, label: str = "", log: bool = True
) -> Axes:
    """One series along time with its floor and a rug of its points.

    Args:
        series: What to draw; a batch draws one line per graph.
        ax: Where; new axes by default.
        color: Line colour.
        label: Name of the vertical axis; its convention by default.
        log: Whether the vertical axis is logarithmic.

    >>> ax = curve(Series(torch.tensor([0.0, 1.0]), torch.tensor([4.0, 2.0])), label="$E$")
    >>> ax.get_ylabel(), [float(y) for y in ax.lines[0].get_ydata()]
    ('$E$', [4.0, 2.0])
    """
    from matplotlib.ticker import NullFormatter

    ax = axes(ax)
    t = series.t if series.t.dim() > 1 else series.t[:, None]
    y = series.y if series.y.dim() > 1 else series.y[:, None]
    floor = series.floor if series.floor.dim() > 1 else series.floor[:, None]
    for g in range(y.shape[1]):
        ax.plot(t[:, g], y[:, g], color=color, alpha=1.0 if y.shape[1] == 1 else 0.5)
    if y.shape[1] == 1:
        lost = y[:, 0].isnan() & (floor[:, 0] > 0)
        if bool(lost.any()):
            ax.plot(t[lost, 0], floor[lost, 0], color=GREY, ls=":", label="floor")
        # The steps, or the times at which an exact solve was read.
        ax.plot(
            t[:, 0],
            np.zeros(len(t)),
            "|",
            color=GREY,
            ms=4,
            mew=0.4,
            clip_on=False,
            transform=ax.get_xaxis_transform(),
        )
    positive = y[~y.isnan()]
    spread = float(positive.max() / positive.min()) if bool((positive > 0).any()) else 0.0
    if 0 < spread < STEADY:
        # What is constant shall look so.
        ax.set_ylim(0.8 * float(positive.min()), 1.2 * float(positive.max()))
    elif log and len(positive) and bool((positive > 0).all()):
        ax.set_yscale("log")
        if spread > 10:
            ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("time $t$")
    ax.set_ylabel(label or series.convention)
    return ax


@on_paper
def energy(trajectory: Trajectory, ax: Axes | None = None, *, fit: bool = True) -> Axes:
    """The field's own Dirichlet energy with its fitted decay rate; the convention is the title.

    Args:
        trajectory: A trajectory on a graph.
        ax: Where; new axes by default.
        fit: Whether the fitted exponential is drawn.

    Raises:
        ValueError: For a trajectory without a graph.

    >>> from neuralpde import Graph, solve
    >>> from neuralpde.fields import Heat
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))
    >>> heat = solve(Heat(), torch.tensor([[2.0], [0.0]]), (0.0, 1.0), pair)
    >>> energy(heat).get_title(loc="left").split(":")[0]
    'comb'
    """
    series = trajectory.energy
    if series is None:
        raise ValueError("this trajectory has no energy: it was solved without a graph")
    ax = curve(series, ax, label="Dirichlet energy $E$")
    ax.set_title(title(series.convention), loc="left", color="0.3")
    rate = series.rate()
    if fit and isinstance(rate, float) and np.isfinite(rate) and rate < 0:
        good = ~series.y.isnan()
        t, y = series.t[good], series.y[good]
        half = t >= (t[0] + t[-1]) / 2
        level = (y[half].log() - rate * t[half]).mean()
        ax.plot(
            t[half],
            torch.exp(level + rate * t[half]),
            color=ORANGE,
            ls="--",
            label=f"rate {rate:.3g}",
        )
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)
    return ax
