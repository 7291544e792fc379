"""Maps of effective resistance: how far nodes are from one of them, before and after rewiring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from analysis.plots.maps import layout, state
from analysis.plots.style import ORANGE, PAGE, STYLE, axes, on_paper
from analysis.resistance import commute_time, effective_resistance
from neuralpde.graph import Graph
from solvers.failure import unknown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES = {
    "resistance": "resistance to the star",
    "commute": "commute time / steps",
}
"""What is shown, and the name of the colours."""


@on_paper
def resistance(
    graph: Any,
    source: int,
    ax: Axes | None = None,
    *,
    quantity: str = "resistance",
    limits: tuple[float, float] | None = None,
    title: str = "",
    base: Any = None,
) -> Axes:
    """Nodes coloured by their effective resistance to one of them, which is starred.

    Nodes in other components are grey.

    Args:
        graph: An undirected graph.
        source: The node to which.
        ax: Where; new axes by default.
        quantity: "resistance", or "commute" for the commute time of the random walk.
        limits: Values of the first and the last colour; None also for a bar that tells them.
        title: Text above.
        base: The graph before rewiring: nodes stand where they do there, and edges that are new
            are drawn in orange.

    Raises:
        ValueError: For an unknown quantity, a node that does not exist, a directed graph.

    >>> from neuralpde import catalogue
    >>> ax = resistance(catalogue.path(3), 0, title="path")
    >>> ax.get_title(), ax.collections[1].get_array().tolist()
    ('path', [0.0, 1.0, 2.0])
    """
    from matplotlib.collections import LineCollection

    where = Graph.of(graph)
    old = where if base is None else Graph.of(base)
    ax, pos = axes(ax), layout(old)
    values = _values(where, source, quantity)
    known = values.isfinite()
    low, high = limits or (0.0, float(values[known].max()))
    placed = Graph(where.edge_index, where.num_nodes, pos=torch.from_numpy(pos.copy()))
    state(
        placed,
        torch.where(known, values, torch.nan)[:, None],
        ax,
        limits=(low, high),
        title=title,
    )
    added = _added(where, old)
    if len(added):
        ax.add_collection(
            LineCollection(list(pos[added]), colors=ORANGE, linewidths=0.9, zorder=1.5)
        )
    apart = ~known.numpy()
    ax.scatter(pos[apart, 0], pos[apart, 1], s=8, color="0.75", linewidths=0, zorder=2)
    if limits is None:
        _bar(ax, [ax], quantity)
    ax.plot(*pos[source], "*", ms=9, color="white", mec="black", mew=0.7, zorder=3)
    return ax


@on_paper
def rewired(
    graphs: Mapping[str, Any],
    source: int,
    figure: Figure | None = None,
    *,
    quantity: str = "resistance",
) -> Figure:
    """The same for a graph and what rewiring makes of it, on one scale of colours.

    Args:
        graphs: Graphs on the same nodes by their titles; the first is the one before rewiring.
        source: The node to which.
        figure: Where; a new one by default.
        quantity: "resistance" or "commute".

    Raises:
        ValueError: As `resistance` does; for graphs of different size.

    >>> from neuralpde import catalogue
    >>> figure = rewired({"path": catalogue.path(4), "ring": catalogue.ring(4)}, 0)
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['path, mean 2', 'ring, mean 0.833']
    """
    import matplotlib.pyplot as plt

    known = {title: Graph.of(graph) for title, graph in graphs.items()}
    base = next(iter(known.values()))
    if any(graph.num_nodes != base.num_nodes for graph in known.values()):
        counts = [graph.num_nodes for graph in known.values()]
        raise ValueError(f"the graphs have {counts} nodes; rewiring keeps the nodes")
    values = [_values(graph, source, quantity) for graph in known.values()]
    top = max(float(one[one.isfinite()].max()) for one in values)
    width, height = np.ptp(layout(base), axis=0)
    shape = float(np.clip(height / max(width, 1e-12), 0.4, 1.3))
    size = (PAGE, PAGE * (0.9 * shape / len(known) + 0.06))
    figure = figure or plt.figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(known), squeeze=False)[0]
    for ax, (title, graph), value in zip(panels, known.items(), values, strict=True):
        reached = value[value.isfinite() & (torch.arange(len(value)) != source)]
        mean = float(reached.mean()) if len(reached) else 0.0
        resistance(
            graph,
            source,
            ax,
            quantity=quantity,
            limits=(0.0, top),
            title=f"{title}, mean {mean:.3g}",
            base=base,
        )
    _bar(panels[-1], list(panels), quantity)
    return figure


def _bar(drawn: Axes, beside: list[Axes], quantity: str) -> None:
    bar = drawn.figure.colorbar(drawn.collections[1], ax=beside, shrink=0.8, pad=0.01, aspect=20)
    bar.set_label(QUANTITIES[quantity], fontsize=STYLE["font.size"])
    bar.ax.tick_params(labelsize=STYLE["xtick.labelsize"])
    bar.outline.set_visible(False)


def _values(graph: Graph, source: int, quantity: str) -> Tensor:
    if quantity not in QUANTITIES:
        raise unknown_name("quantity", quantity, QUANTITIES)
    if not 0 <= source < graph.num_nodes:
        raise ValueError(f"source is {source}; the graph has nodes 0 to {graph.num_nodes - 1}")
    nodes = torch.arange(graph.num_nodes)
    pairs = torch.stack([torch.full_like(nodes, source), nodes])
    if quantity == "commute":
        return commute_time(graph, pairs).cpu()
    return effective_resistance(graph, pairs).value.cpu()


def _added(graph: Graph, base: Graph) -> np.ndarray:
    """Edges that the base has not, each once, `[edges, 2]`."""
    before = base.edge_index[0] * base.num_nodes + base.edge_index[1]
    now = graph.edge_index[0] * graph.num_nodes + graph.edge_index[1]
    new = ~torch.isin(now, before) & (graph.edge_index[0] < graph.edge_index[1])
    return graph.edge_index[:, new].T.cpu().numpy()
