"""Numbers on edges, on the map of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from analysis.plots.maps import layout
from analysis.plots.style import axes
from neuralpde.graph import Graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def edges(
    graph: Graph,
    ends: Int[Tensor, "2 edges"],
    values: Float[Tensor, " edges"],
    ax: Axes | None = None,
    *,
    limits: tuple[float, float] | None = None,
    log: bool = False,
    cmap: str = "viridis",
    label: str = "",
    title: str = "",
) -> Axes:
    """Edges in the colours of their numbers, with a bar; the largest are drawn on top.

    Args:
        graph: The graph; without positions a spectral layout stands in.
        ends: The two nodes of each edge.
        values: A number for each edge.
        ax: Where; new axes by default.
        limits: Numbers of the first and the last colour; those of the data by default.
        log: Whether colours follow the logarithm.
        cmap: Colours.
        label: What the numbers are, at the bar.
        title: Text above.

    >>> import torch
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))
    >>> edges(pair, torch.tensor([[0], [1]]), torch.ones(1), title="a road").get_title()
    'a road'
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogLocator, NullLocator

    ax, pos = axes(ax), layout(graph)
    numbers, pairs = values.double().cpu().numpy(), ends.cpu().numpy()
    order = np.argsort(numbers)
    lines = np.stack([pos[pairs[0]], pos[pairs[1]]], axis=1)[order]
    low, high = limits or (float(numbers.min()), float(numbers.max()))
    width = float(np.clip(2000 / max(len(numbers), 1), 0.7, 3.0))
    drawn = LineCollection(
        list(lines),
        cmap=cmap,
        norm=LogNorm(low, high) if log else Normalize(low, high),
        linewidths=width,
    )
    drawn.set_array(numbers[order])
    ax.add_collection(drawn)
    ax.autoscale_view()
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()
    ax.set_title(title)
    bar = ax.figure.colorbar(
        drawn,
        ax=ax,
        label=label,
        location="bottom",
        shrink=0.8,
        extend="both" if limits else "neither",
    )
    if log:
        bar.ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        bar.ax.xaxis.set_major_formatter("{x:g}")
        bar.ax.xaxis.set_minor_locator(NullLocator())
    return ax
