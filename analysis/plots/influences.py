"""Figures of over-squashing: influence against distance, the light cone, the Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from analysis.gap import fiedler_vector
from analysis.influences import Profile, arrival_times, hop_distances
from analysis.plots.style import BLUE, GREY, ORANGE, STYLE, axes, on_paper
from analysis.sensitivities import Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 12
"""Orders of magnitude that a logarithmic axis shows at most; below is mostly rounding."""

SYMBOLS = {"fro": "F", "spectral": "2", "l1": "1"}


@on_paper
def influence(
    profile: Profile, ax: Axes | None = None, *, times: Sequence[float] | None = None
) -> Axes:
    """Mean influence against the distance from its source, at several times.

    Args:
        profile: Influence by distance.
        ax: Where; new axes by default.
        times: Which times, the nearest known ones; by default up to five of those after the first,
            evenly spaced.

    Raises:
        ValueError: For graphs with times of their own.

    >>> one = torch.tensor([[1.0, 0.1], [0.5, 0.25]], dtype=torch.float64)
    >>> two = torch.arange(2)
    >>> ax = influence(Profile(two.double(), two, one, one, one[:, 0], one[0]))
    >>> ax.get_xlabel(), ax.get_legend().get_texts()[0].get_text()
    ('distance from the source / hops', '$t$ = 1')
    """
    import matplotlib as mpl
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax)
    t = _clock(profile.t)
    if times is None:
        picks = np.linspace(min(1, len(t) - 1), len(t) - 1, min(5, max(len(t) - 1, 1)))
        chosen = [round(float(k)) for k in picks]
    else:
        chosen = [int((t - float(one)).abs().argmin()) for one in times]
    chosen = list(dict.fromkeys(chosen))
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(chosen)))
    top = 0.0
    for k, colour, marker in zip(chosen, colours, "osv^D" * len(chosen), strict=False):
        value = profile.value[k].numpy()
        top = max(top, float(value.max()))
        ax.plot(
            profile.hops[value > 0],
            value[value > 0],
            color=colour,
            marker=marker,
            ms=2.5,
            lw=0.9,
            label=f"$t$ = {float(t[k]):.3g}",
        )
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, top * 10.0**-DECADES), high)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("distance from the source / hops")
    ax.set_ylabel(r"mean $|\partial x_i(t) / \partial x_j(0)|$")
    ax.legend(frameon=False)
    return ax


@on_paper
def light_cone(
    found: Sensitivity, graph: Any, ax: Axes | None = None, *, tolerance: float = 1e-3
) -> Axes:
    """Distance against the time of arrival, and the speed: the slope of a line through the rings.

    Rings are drawn at the mean of the arrivals of their nodes, with the range from the first to
    the last; those that influence has not reached everywhere are left out of the line. The error of
    the speed is the standard error of the fit: where influence diffuses, there is no one speed.

    Args:
        found: Sensitivities at times that resolve the arrival.
        graph: The graph of the distances.
        ax: Where; new axes by default.
        tolerance: The threshold of |J| that is an arrival.

    Raises:
        ValueError: For a tolerance that is not positive.

    >>> from neuralpde import catalogue
    >>> J = torch.eye(5, dtype=torch.float64)[:, None]
    >>> t = 2 * torch.arange(5, dtype=torch.float64)
    >>> found = Sensitivity(t, torch.tensor([0]), J, 0 * J, "fro", "by hand")
    >>> light_cone(found, catalogue.path(5)).get_legend().get_texts()[0].get_text()[:9]
    'speed 0.5'
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax)
    away, arrived = hop_distances(graph, found.sources), arrival_times(found, tolerance)
    rings = []
    for h in range(int(away.max()) + 1):
        there = arrived[away == h]
        here = there[there.isfinite()]
        if len(here):
            whole = len(here) == len(there)
            rings.append((h, float(here.mean()), float(here.min()), float(here.max()), whole))
    for h, mean, first, last, whole in rings:
        ax.plot([first, last], [h, h], color=GREY, lw=0.8, zorder=1)
        face = BLUE if whole else "white"
        ax.plot(mean, h, "o", ms=3, color=BLUE, mfc=face, mew=0.7, zorder=2)
    full = [(h, mean) for h, mean, _, _, whole in rings if whole and h > 0]
    if len(full) > 2:
        h, mean = np.array(full).T
        (speed, start), spread = np.polyfit(mean, h, 1, cov="unscaled")
        misfit = h - start - speed * mean
        error = float(np.sqrt(spread[0, 0] * np.square(misfit).sum() / (len(h) - 2)))
        span = np.array([mean.min(), mean.max()])
        label = rf"speed {speed:.3g} $\pm$ {error:.1g} hops per unit time"
        ax.plot(span, start + speed * span, color=ORANGE, ls="--", label=label, zorder=3)
        ax.legend(frameon=False, loc="upper left")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"first time with $|J_{{ij}}(t)|_{SYMBOLS[found.norm]}$ > {tolerance:.2g}")
    ax.set_ylabel("distance from the source / hops")
    return ax


@on_paper
def jacobian(
    found: Sensitivity, graph: Any, ax: Axes | None = None, *, time: float | None = None
) -> Axes:
    """The matrix |J_ij(t)| at one time, nodes in the order of the Fiedler vector.

    The order puts nodes next to each other that are close for a flow; a bottleneck shows as two
    blocks. Colours are logarithmic.

    Args:
        found: Sensitivities to some sources, or to all.
        graph: The undirected graph of the Fiedler vector.
        ax: Where; new axes by default.
        time: Which time, the nearest known one; the last by default.

    Raises:
        ValueError: For a directed graph.

    >>> from neuralpde import catalogue
    >>> J = torch.full((1, 3, 3), 0.5, dtype=torch.float64)
    >>> every = torch.arange(3)
    >>> found = Sensitivity(torch.ones(1), every, J, 0 * J, "fro", "by hand")
    >>> jacobian(found, catalogue.path(3)).get_title(loc="left")
    '$t$ = 1'
    """
    from matplotlib.colors import LogNorm

    ax = axes(ax, height=None if ax else 2.9)
    t = _clock(found.t)
    k = len(t) - 1 if time is None else int((t - time).abs().argmin())
    place = torch.argsort(fiedler_vector(graph), stable=True)
    rank = torch.empty_like(place)
    rank[place] = torch.arange(len(place))
    columns = torch.argsort(rank[found.sources])
    J = found.value[k, columns][:, place].T.numpy()
    high = float(J.max()) or 1.0
    low = max(float(J[J > 0].min()) if (J > 0).any() else high / 10, high * 10.0**-DECADES)
    image = ax.imshow(
        np.maximum(J, low),
        cmap="viridis",
        norm=LogNorm(min(low, high / 2), high),
        aspect="equal" if len(columns) == len(place) else "auto",
        interpolation="nearest",
    )
    ax.set_title(f"$t$ = {float(t[k]):.3g}", loc="left", color="0.3")
    ax.set_xlabel("source $j$, by the Fiedler vector")
    ax.set_ylabel("node $i$, by the Fiedler vector")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85, pad=0.02)
    bar.set_label(
        rf"$|\partial x_i(t) / \partial x_j(0)|_{SYMBOLS[found.norm]}$",
        fontsize=STYLE["font.size"],
    )
    bar.ax.tick_params(labelsize=STYLE["xtick.labelsize"])
    bar.outline.set_visible(False)
    return ax


def _clock(t: torch.Tensor) -> torch.Tensor:
    if t.dim() > 1:
        raise ValueError("graphs have times of their own here; a figure shows one clock")
    return t
