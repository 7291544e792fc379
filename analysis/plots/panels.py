"""Energy, norm, Rayleigh quotient and rank on top of each other, over one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from analysis.decay import Decay, Law, fit_decay
from analysis.plots.style import (
    BLUE,
    COLUMN,
    CYCLE,
    GREY,
    STYLE,
    axes,
    logarithmic,
    on_paper,
    title,
)
from analysis.ranks import EffectiveRank
from analysis.similarity import MAD
from solvers.failure import unknown_name
from solvers.series import Series
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPREAD = 3.0
"""Ratio of the largest to the least value from which an axis is logarithmic."""

DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)))
"""Dashes of the first seven curves, the next seven, and so on."""


PANELS = {
    "energy": "energy $E$",
    "norm": "norm $|x|$",
    "rayleigh": "Rayleigh quotient",
    "rank": "effective rank",
    "MAD": "MAD",
}
"""What `panels` can show, and its name on the axis. The energy alone does not tell smoothing from a
norm that falls."""

USUAL = ("energy", "norm", "rayleigh", "rank")


@on_paper
def course(
    series: Series,
    ax: Axes | None = None,
    *,
    color: str = BLUE,
    label: str = "",
    law: Law | None = None,
    end: float | None = None,
    log: bool = True,
    dash: object = "-",
    floor: bool = True,
) -> Axes:
    """One curve, the law fitted to it in dashes, and grey where rounding hides it.

    Args:
        series: One curve.
        ax: Where; new axes by default.
        color: Of the curve and its law.
        label: In the legend; a law adds its rate.
        law: As `fit_decay` finds it; drawn from its start on.
        end: Where the law ends; the last time by default.
        log: Whether the vertical axis is logarithmic; where values are zero or negative it is not.
        dash: Line style of the curve.
        floor: Whether the grey band is drawn.

    >>> t = torch.linspace(0, 9, 19, dtype=torch.float64)
    >>> series = Series(t, 3 * torch.exp(-2 * t))
    >>> ax = course(series, law=fit_decay(series).exponential)
    >>> ax.get_legend_handles_labels()[1]
    ['$e^{-rt}$, $r$ = 2 ± 0']
    """
    ax = axes(ax)
    rate = "" if law is None else f"{_law(law)} = {law.rate:.3g} ± {_error(law)}"
    told = f"{label}: {rate}" if label and rate else label
    ax.plot(series.t, series.y, color=color, ls=dash, label=told or None)
    if law is not None:
        last = float(series.t[-1]) if end is None else end
        t = torch.linspace(law.start, last, 65, dtype=torch.float64)
        own = None if label else rate
        ax.plot(t, law(t), color="black", ls=(0, (3, 2)), lw=0.8, zorder=3, label=own)
    good = series.y[series.y.isfinite()]
    if log and len(good) and bool((good > 0).all()):
        _scaled(series, good, ax, floor)
    return ax


def panels(
    told: Trajectory | Mapping[str, Mapping[str, Series]],
    figure: Figure | None = None,
    *,
    show: Sequence[str] = USUAL,
    fit: bool = True,
    window: tuple[float, float] | None = None,
    axis: str = "time $t$",
    width: float = COLUMN,
) -> Figure:
    """Energy, norm, Rayleigh quotient and effective rank, stacked over one time.

    A trajectory shows its own energy with the steps below, and grey where rounding hides the
    values. Several curves share the panels, told apart by colour.

    Args:
        told: A trajectory on a graph; or curves by name, each with the series to show, as
            `Track.series` has them.
        figure: Where; a new one by default.
        show: Names out of `PANELS`, from top to bottom.
        fit: Whether C1 e^(-C2 t) is fitted to falling energies and drawn, its rate in the legend.
        window: First and last time of the fit; the later half by default.
        axis: Name of the horizontal axis.
        width: Of a new figure, inches.

    Raises:
        ValueError: For a trajectory without a graph, or of several, and for unknown panels.

    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Heat
    >>> heat = solve(Heat(), torch.eye(5, dtype=torch.float64), 9.0, catalogue.ring(5))
    >>> [ax.get_ylabel() for ax in panels(heat).axes]
    ['energy $E$', 'norm $|x|$', 'Rayleigh quotient', 'effective rank']
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    for name in show:
        if name not in PANELS:
            raise unknown_name("panel", name, PANELS)
    alone = isinstance(told, Trajectory)
    curves = {"": _series(told)} if isinstance(told, Trajectory) else told
    with mpl.rc_context(STYLE):
        figure = figure or plt.figure(
            figsize=(width, 0.32 * COLUMN * len(show) + 0.35), layout="constrained"
        )
        rows = list(figure.subplots(len(show), 1, sharex=True, squeeze=False)[:, 0])
        for panel, ax in zip(show, rows, strict=True):
            looks = zip(curves.items(), cycle(CYCLE), strict=False)
            for k, ((name, series), color) in enumerate(looks):
                one = series[panel]
                found = _fitted(one, window) if fit and panel == "energy" else None
                law = None if found is None else replace(found.exponential, error=found.error)
                course(
                    one,
                    ax,
                    color=color,
                    label=name,
                    law=None if law is None or law.rate <= 0 else law,
                    end=None if found is None else found.end,
                    log=panel != "rank",
                    dash=DASHES[k // len(CYCLE) % len(DASHES)],
                    floor=alone,
                )
            ax.set_ylabel(PANELS[panel])
            ax.set_title(title(one.convention), loc="left", color="0.3", pad=2)
            if panel == "rank":
                ax.set_ylim(bottom=0)
        rows[-1].set_xlabel(axis)
        _legend(rows[0], figure, alone)
        if alone:
            _rug(rows[0], curves[""][show[0]])
        figure.align_ylabels(rows)
    return figure


def _series(trajectory: Trajectory) -> dict[str, Series]:
    energy = trajectory.energy
    if energy is None or energy.y.dim() > 1:
        raise ValueError("panels show one graph: this trajectory has none, or several")
    known = "effective rank" in trajectory
    rank = trajectory["effective rank"] if known else trajectory.measure(EffectiveRank())
    norm, rayleigh = trajectory["norm"], trajectory["rayleigh"]
    mad = trajectory["MAD"] if "MAD" in trajectory else trajectory.measure(MAD())
    return {"energy": energy, "norm": norm, "rayleigh": rayleigh, "rank": rank, "MAD": mad}


def _fitted(series: Series, window: tuple[float, float] | None) -> Decay | None:
    try:
        return fit_decay(series, *(window or (None, None)))
    except ValueError:
        return None


def _law(law: Law) -> str:
    return "$e^{-rt}$, $r$" if law.name == "exponential" else "$(t - t_0)^{-p}$, $p$"


def _error(law: Law) -> str:
    return f"{law.error:.1g}" if law.error > 1e-9 * abs(law.rate) else "0"


def _scaled(series: Series, good: Tensor, ax: Axes, floor: bool) -> None:
    """A logarithmic axis where it pays, and grey up to the floor where that is in sight."""
    lost = series.y.isnan() & (series.floor > 0)
    low, high = float(good.min()), float(good.max())
    if high < SPREAD * low and not bool(lost.any()):
        if ax.get_yscale() == "linear":
            ax.set_ylim(0.0, max(1.2 * high, ax.get_ylim()[1]))
        return
    ax.autoscale(axis="y")
    if floor and bool(lost.any()):
        low = min(low, float(series.floor[lost].min()))
        ax.set_ylim(low / 2 / (high / low) ** 0.12, high * (high / low) ** 0.05)
        bottom = ax.get_ylim()[0]
        top = np.maximum(series.floor.numpy(), bottom)
        name = "below the floor"
        ax.fill_between(series.t.numpy(), bottom, top, color=GREY, alpha=0.35, lw=0, label=name)
    logarithmic(ax)


def _rug(ax: Axes, series: Series) -> None:
    zeros = np.zeros(len(series.t))
    across = ax.get_xaxis_transform()
    ax.plot(series.t, zeros, "|", color="0.5", ms=4, mew=0.3, clip_on=False, transform=across)


def _legend(ax: Axes, figure: Figure, alone: bool) -> None:
    if not ax.get_legend_handles_labels()[0]:
        return
    if alone:
        ax.legend(frameon=False)
        return
    columns = max(1, int(figure.get_size_inches()[0] / 1.6))
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside upper left", ncols=columns, frameon=False
    )
