"""States on the map of a graph: one moment, or a strip of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from analysis.plots.style import PAGE, STYLE, axes, on_paper
from neuralpde.graph import Graph
from solvers.failure import unknown_name
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class View:
    """What of a state is drawn, and how.

    Attributes:
        of: Maps a channel to real numbers.
        label: Name of the colours.
        cmap: Colours.
        limits: Values of the first and the last colour; None for those of the data.

    >>> View(torch.abs, "$|x|$").of(torch.tensor([-2.0])).item()
    2.0
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


@on_paper
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

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))
    >>> state(pair, torch.tensor([[2.0], [0.0]]), title="at first").get_title()
    'at first'
    """
    from matplotlib.collections import LineCollection

    ax, seen = axes(ax), _view(view)
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
    """Where nodes stand on the page: their positions, else two smooth eigenvectors.

    >>> layout(Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
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


@on_paper
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

    >>> from neuralpde import Graph, solve
    >>> from neuralpde.fields import Heat
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))
    >>> heat = solve(Heat(), torch.tensor([[2.0], [0.0]]), (0.0, 1.0), pair)
    >>> [ax.get_title() for ax in film(heat).axes[:2]]
    ['$t$ = 0', '$t$ = 1']
    """
    import matplotlib.pyplot as plt

    figure = figure or plt.figure(figsize=(PAGE, PAGE / 4), layout="constrained")
    frames, seen = _frames(trajectory, times), _view(view)
    panels = figure.subplots(1, len(frames), squeeze=False)[0]
    values = seen.of(torch.cat([_channel(x, 0) for _, x in frames]))
    limits = seen.limits or (float(values.min()), float(values.max()))
    for ax, (t, x) in zip(panels, frames, strict=True):
        state(trajectory.graph, x, ax, limits=limits, title=f"$t$ = {t:.3g}", view=view)
    dots = panels[-1].collections[-1]
    bar = figure.colorbar(dots, ax=list(panels), shrink=0.7, pad=0.01, aspect=15)
    bar.set_label(seen.label, fontsize=STYLE["font.size"])
    bar.ax.tick_params(labelsize=STYLE["xtick.labelsize"])
    bar.outline.set_visible(False)
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
