"""Figures of a trajectory: every function takes `ax=None`, returns the axes, and never shows.

Sizes are those of a paper: `COLUMN` (85 mm) and `PAGE` (170 mm). matplotlib is imported when a
figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.graph import Graph
from solvers.failure import unknown_name
from solvers.series import Series
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 85 / 25.4
PAGE = 170 / 25.4

# Okabe and Ito's colours, told apart by colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

LINE = 38
"""Letters of a title that fit above a third of a page."""

STEADY = 1.05
"""Ratio of the largest to the least value below which a curve is called constant."""


@dataclass(frozen=True)
class View:
    """What of a state is drawn, and how.

    Attributes:
        of: Maps a channel to real numbers.
        label: Name of the colours.
        cmap: Colours.
        limits: Values of the first and the last colour; None for those of the data.
    """

    of: Callable[[Tensor], Tensor]
    label: str
    cmap: str = "viridis"
    limits: tuple[float, float] | None = None


VIEWS = {
    "value": View(lambda x: x.abs() if x.is_complex() else x, "state $x$"),
    "modulus": View(torch.abs, "$|x|$"),
    "phase": View(
        lambda x: (x.angle() if x.is_complex() else x) % (2 * torch.pi),
        "phase",
        "twilight",
        (0.0, 2 * float(torch.pi)),
    ),
}
"""Views of a state: its values (moduli of complex ones), moduli, phases."""

STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


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
    """
    from matplotlib.ticker import NullFormatter

    ax = _axes(ax)
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


def energy(trajectory: Trajectory, ax: Axes | None = None, *, fit: bool = True) -> Axes:
    """The field's own Dirichlet energy with its fitted decay rate; the convention is the title.

    Args:
        trajectory: A trajectory on a graph.
        ax: Where; new axes by default.
        fit: Whether the fitted exponential is drawn.

    Raises:
        ValueError: For a trajectory without a graph.
    """
    series = trajectory.energy
    if series is None:
        raise ValueError("this trajectory has no energy: it was solved without a graph")
    ax = curve(series, ax, label="Dirichlet energy $E$")
    ax.set_title(_title(series.convention), loc="left", color="0.3")
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


def state(
    graph: Graph,
    x: Tensor,
    ax: Axes | None = None,
    *,
    channel: int = 0,
    limits: tuple[float, float] | None = None,
    title: str = "",
    view: str = "value",
) -> Axes:
    """One channel of a state on the graph's map, colours from dark to bright.

    Args:
        graph: The graph; without positions a spectral layout stands in.
        x: State `[nodes, ...]`.
        ax: Where; new axes by default.
        channel: Which channel.
        limits: Values of the darkest and the brightest colour.
        title: Text above.
        view: "value", "modulus" or "phase".

    Raises:
        ValueError: For an unknown view.
    """
    from matplotlib.collections import LineCollection

    ax, seen = _axes(ax), _view(view)
    pos = layout(graph)
    values = seen.of(_channel(x, channel)).double().numpy()
    source, target = graph.edge_index.cpu().numpy()
    once = source < target if not graph.directed else source != target
    lines = np.stack([pos[source[once]], pos[target[once]]], axis=1)
    ax.add_collection(LineCollection(list(lines), colors="0.8", linewidths=0.3, zorder=1))
    low, high = limits or seen.limits or (float(values.min()), float(values.max()))
    size = float(np.clip(1500 / max(graph.num_nodes, 1), 0.6, 30))
    ax.scatter(
        pos[:, 0],
        pos[:, 1],
        c=values,
        s=size,
        cmap=seen.cmap,
        vmin=low,
        vmax=high,
        linewidths=0,
        zorder=2,
        rasterized=graph.num_nodes > 5000,
    )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def layout(graph: Graph) -> np.ndarray:
    """Where nodes stand on the page: their positions, else two smooth eigenvectors."""
    if graph.pos is not None and graph.pos.shape[1] >= 2:
        return graph.pos[:, :2].double().cpu().numpy()
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import eigsh

    if graph.num_nodes < 5 or graph.num_edges == 0:
        angle = 2 * np.pi * np.arange(graph.num_nodes) / graph.num_nodes
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    undirected = graph.undirected() if graph.directed else graph
    L = undirected.laplacian("sym", dtype=torch.float64).to_scipy()
    start = np.random.default_rng(0).standard_normal(graph.num_nodes)
    # The largest eigenvectors of 2 - L are the smooth ones; Lanczos finds them without solves.
    shifted = 2.0 * eye_array(graph.num_nodes) - L
    values, vectors = eigsh(shifted, k=3, which="LA", v0=start)
    smooth: np.ndarray = vectors[:, np.argsort(-values)[1:3]]
    return smooth


def film(
    trajectory: Trajectory,
    times: Sequence[float] | None = None,
    figure: Figure | None = None,
    *,
    view: str = "value",
) -> Figure:
    """The state on the map at several times, one colour scale for all.

    Args:
        trajectory: A trajectory on a graph with saved states.
        times: Which times, the nearest saved ones; by default five of the saved times.
        figure: Where; a new one by default.
        view: "value", "modulus" or "phase".
    """
    import matplotlib.pyplot as plt

    figure = figure or plt.figure(figsize=(PAGE, PAGE / 4), layout="constrained")
    frames, seen = _frames(trajectory, times), _view(view)
    axes = figure.subplots(1, len(frames), squeeze=False)[0]
    values = seen.of(torch.cat([_channel(x, 0) for _, x in frames]))
    limits = seen.limits or (float(values.min()), float(values.max()))
    for ax, (t, x) in zip(axes, frames, strict=True):
        state(trajectory.graph, x, ax, limits=limits, title=f"$t$ = {t:.3g}", view=view)
    dots = axes[-1].collections[-1]
    bar = figure.colorbar(dots, ax=list(axes), shrink=0.7, pad=0.01, aspect=15)
    bar.set_label(seen.label, fontsize=STYLE["font.size"])
    bar.ax.tick_params(labelsize=STYLE["xtick.labelsize"])
    bar.outline.set_visible(False)
    return figure


def summary(trajectory: Trajectory, *, view: str = "value") -> Figure:
    """The one-figure report: the state on the map, over its energy, norm and Rayleigh quotient.

    Args:
        trajectory: A trajectory on a graph with saved states.
        view: "value", "modulus" or "phase"; see `film`.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    # Five frames and their colours share the width; curves get a third of it each.
    width, height = np.ptp(layout(trajectory.graph), axis=0)
    maps = PAGE * (0.05 + 0.18 * float(np.clip(height / max(width, 1e-12), 0.4, 1.6)))
    curves = PAGE * 0.26
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(PAGE, maps + curves), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=[maps, curves], squeeze=False)[:, 0]
        film(trajectory, figure=top, view=view)
        axes = bottom.subplots(1, 3)
        energy(trajectory, axes[0])
        curve(trajectory["norm"], axes[1], color=GREEN, label="norm", log=False)
        curve(trajectory["rayleigh"], axes[2], color=ORANGE, label="Rayleigh quotient")
        axes[1].set_title(_title(trajectory["norm"].convention), loc="left", color="0.3")
        axes[2].set_title("tr($x^TLx$) / $|x|^2$", loc="left", color="0.3")
        axes[1].set_ylim(bottom=0)
    return figure


def _frames(trajectory: Trajectory, times: Sequence[float] | None) -> list[tuple[float, Tensor]]:
    if trajectory.graph is None or trajectory.t.dim() > 1:
        raise ValueError("a film needs a graph and one clock")
    states = trajectory.x[0] if isinstance(trajectory.x, tuple) else trajectory.x
    saved = trajectory.t.detach()
    if times is None:
        picks = [round(k) for k in np.linspace(0, len(saved) - 1, min(5, len(saved)))]
    else:
        picks = [int((saved - float(t)).abs().argmin()) for t in times]
    return [(float(saved[k]), states[k].detach().cpu()) for k in dict.fromkeys(picks)]


def _channel(x: Tensor, channel: int) -> Tensor:
    return x.detach().cpu().reshape(len(x), -1)[:, channel]


def _view(name: str) -> View:
    if name not in VIEWS:
        raise unknown_name("view", name, VIEWS)
    return VIEWS[name]


def _title(convention: str) -> str:
    """A convention in lines that leave the neighbour its place."""
    return fill(convention, LINE).replace("x'Lx", "$x^TLx$")


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(COLUMN, COLUMN * 0.75), layout="constrained")[1]
