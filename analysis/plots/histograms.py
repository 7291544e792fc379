"""Curvatures of edges: how they are spread, before and after rewiring, or along time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from analysis.plots.style import CYCLE, axes, on_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@on_paper
def curvatures(
    values: Mapping[str, Float[Tensor, " edges"]],
    ax: Axes | None = None,
    *,
    bins: int = 30,
    label: str = "curvature",
) -> Axes:
    """Histograms over the same bins, on top of each other, with their means as ticks on top.

    Heights are shares of edges per unit of curvature, so that graphs with different numbers of
    edges compare. NaN (self-loops) is left out.

    Args:
        values: Curvatures of edges by name, as {"before": ..., "after": ...}.
        ax: Where; new axes by default.
        bins: Number of bins over the whole range.
        label: Name of the horizontal axis: which curvature.

    Raises:
        ValueError: For no values at all.

    >>> import torch
    >>> ax = curvatures({"before": torch.zeros(4), "after": torch.tensor([0.0, 1.0])}, bins=2)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['before: mean 0, least 0', 'after: mean 0.5, least 0']
    """
    known = {name: one.double().numpy()[one.isfinite().numpy()] for name, one in values.items()}
    known = {name: one for name, one in known.items() if len(one)}
    if not known:
        raise ValueError("there are no curvatures to draw: every set is empty or NaN")
    ax = axes(ax)
    edges = np.histogram_bin_edges(np.concatenate(list(known.values())), bins).tolist()
    for (name, one), color in zip(known.items(), cycle(CYCLE), strict=False):
        told = f"{name}: mean {one.mean():.3g}, least {round(float(one.min()), 9) + 0.0:.3g}"
        ax.hist(one, edges, density=True, histtype="stepfilled", alpha=0.18, color=color)
        ax.hist(one, edges, density=True, histtype="step", lw=1.1, color=color, label=told)
        top = ax.get_xaxis_transform()
        ax.plot([one.mean()], [1.0], "v", color=color, ms=4, clip_on=False, transform=top)
    ax.axvline(0.0, color="0.7", lw=0.6, zorder=0)
    ax.set_xlabel(label)
    ax.set_ylabel("density of edges")
    ax.set_ylim(top=(1.0 + 0.09 * len(known)) * ax.get_ylim()[1])
    ax.legend(frameon=False, loc="upper left")
    return ax
