"""Curvature along time: a histogram at each time, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.decurve import DecurveFlow
from analysis.plots.style import ORANGE, axes, on_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXTREME = 0.1
"""Share of the lowest values that may lie outside the figure: their tail is long."""


@on_paper
def curvature_flow(
    flow: DecurveFlow,
    ax: Axes | None = None,
    *,
    bins: int = 40,
    span: tuple[float, float] | None = None,
) -> Axes:
    """Histograms of curvature along time, with the median and the quartiles.

    Args:
        flow: What `decurve_flow` returns.
        ax: Where; new axes by default.
        bins: Number of bins.
        span: Range of the curvature; by default all but the lowest tenth.

    >>> import torch
    >>> flow = DecurveFlow(torch.arange(3.0), torch.randn(3, 50), torch.zeros(2, 50).long())
    >>> curvature_flow(flow).get_xlabel()
    'time $t$'
    """
    ax = axes(ax)
    t, values = flow.t.numpy(), flow.curvature.numpy()
    lower, middle, upper = flow.quantiles(0.25, 0.5, 0.75).numpy().T
    if span is None:
        low = min(float(np.nanquantile(values, EXTREME)), float(np.nanmin(lower)))
        high = float(np.nanmax(values))
        # What is constant has a range too.
        span = (low, high) if high > low else (low - 0.5, high + 0.5)
    shares, edges = flow.histograms(bins, span)
    between = (t[1:] + t[:-1]) / 2
    bounds = np.concatenate([t[:1], between, t[-1:] if len(t) > 1 else t + 1.0])
    share = 100 * shares.numpy().T
    image = ax.pcolormesh(
        bounds, edges.numpy(), np.where(share > 0, share, np.nan), cmap="Blues", vmin=0.0
    )
    image.set_rasterized(True)
    ax.plot(t, middle, color=ORANGE, label="median")
    ax.plot(t, lower, color=ORANGE, ls=":", label="quartiles")
    ax.plot(t, upper, color=ORANGE, ls=":")
    ax.axhline(0.0, color="0.3", lw=0.5)
    ax.set_ylim(*span)
    ax.set_xlabel("time $t$")
    ax.set_ylabel(r"curvature $\kappa = 1 - W_1 / d$")
    outside = float(np.mean((values < span[0]) | (values > span[1]), where=np.isfinite(values)))
    if outside > 0:
        ax.set_title(f"{100 * outside:.2g} % of all values lie outside", loc="left", color="0.3")
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label("% of the pairs")
    bar.outline.set_linewidth(0.6)
    ax.legend(frameon=False, loc="lower right")
    return ax
