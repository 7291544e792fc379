"""Samples side by side: points of the plane at several times, states on a map by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from analysis.plots.maps import layout, state
from analysis.plots.style import BLUE, GREY, PAGE, STYLE
from neuralpde.graph import Graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def clouds(
    rows: Mapping[str, Sequence[tuple[float, Tensor]]],
    target: Tensor | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Points of the plane at several times, a row for each sampler.

    Args:
        rows: By name, the times and the points then.
        target: Points of the law that the last ones should have; they stand at the end.
        figure: Where; a new one by default, as wide as a page.

    >>> import matplotlib.pyplot as plt, torch
    >>> found = clouds({"heun": [(0.0, torch.zeros(2, 2)), (1.0, torch.ones(2, 2))]})
    >>> [ax.get_title() for ax in found.axes]
    ['$t$ = 0', '$t$ = 1']
    >>> plt.close(found)
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        many = max(map(len, rows.values())) + (target is not None)
        size = (PAGE, 1.08 * PAGE * len(rows) / many)
        figure = figure or plt.figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(rows), many, squeeze=False, sharex=True, sharey=True)
        for k, (line, (name, moments)) in enumerate(zip(panels, rows.items(), strict=True)):
            shown = [(f"$t$ = {t:.2g}", x, BLUE) for t, x in moments]
            if target is not None:
                shown.append(("target", target, GREY))
            for ax, (title, x, colour) in zip(line, shown, strict=False):
                ax.scatter(*x.double().T.numpy(), s=1.2, c=colour, linewidths=0, alpha=0.5)
                ax.set_aspect("equal")
                ax.set(xticks=[], yticks=[])
                ax.spines[["left", "bottom"]].set_visible(False)
                if k == 0:
                    ax.set_title(title)
            line[0].set_ylabel(name)
    return figure


def gallery(
    graph: Graph,
    rows: Mapping[str, Tensor],
    label: str = "state $x$",
    figure: Figure | None = None,
    *,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """States on the map of one graph, a row for each kind, one scale of colours for all.

    Args:
        graph: The graph.
        rows: By name, states `[states, nodes]`.
        label: Of the colours, with the unit.
        figure: Where; a new one by default, as wide as a page.
        limits: Values of the darkest and the brightest colour; those of the first row by default.

    >>> import matplotlib.pyplot as plt, torch
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))
    >>> found = gallery(pair, {"measured": torch.eye(2), "sampled": torch.ones(2, 2)}, "mph")
    >>> len(found.axes), found.axes[-1].get_ylabel()
    (5, 'mph')
    >>> plt.close(found)
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        many = max(map(len, rows.values()))
        wide, high = np.ptp(layout(graph), axis=0)
        # The bar takes a tenth of the width, and every row has a name above.
        each = 0.9 * PAGE / many * min(max(high / max(wide, 1e-9), 0.3), 2.0) + 0.3
        figure = figure or plt.figure(figsize=(PAGE, each * len(rows)), layout="constrained")
        panels = figure.subplots(len(rows), many, squeeze=False)
        first = next(iter(rows.values()))
        span = limits or (float(first.min()), float(first.max()))
        for line, (name, states) in zip(panels, rows.items(), strict=True):
            for ax, x in zip(line, states, strict=False):
                state(graph, x[:, None], ax, limits=span)
            for ax in line[len(states) :]:
                ax.set_axis_off()
            line[0].set_title(name, loc="left")
        bar = figure.colorbar(
            panels[0][0].collections[-1], ax=panels, shrink=0.6, pad=0.01, aspect=25
        )
        bar.set_label(label)
        bar.outline.set_visible(False)
    return figure
