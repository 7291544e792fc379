"""Accuracy, Rayleigh quotient, norm and rank of trained models against time or depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.depths import LARGEST, Depth
from analysis.plots.studies import MARKS
from analysis.plots.style import COLUMN, CYCLE, GREY, on_paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {
    "accuracy": "accuracy, per cent",
    "rayleigh": "Rayleigh quotient",
    "norm": "$\\log_{10} |x|$",
    "rank": "effective rank",
}
"""Panels of `depths`, and the names on their axes."""


@on_paper
def depths(
    told: Mapping[str, Sequence[Depth]],
    figure: Figure | None = None,
    *,
    published: Mapping[str, Sequence[Depth]] | None = None,
    axis: str = "time $t$",
    width: float = COLUMN,
    end: float | None = None,
) -> Figure:
    """Four panels, one line per model; open marks are published values.

    Args:
        told: Rows by name.
        figure: Where; a new one by default.
        published: Rows by the name of the line they belong to, drawn in its colour.
        axis: Name of the horizontal axis, which is logarithmic in base 2 from 1 on.
        width: Of a new figure, inches: two panels beside each other up to a column, else four.
        end: Where training ended, a dashed line.

    >>> row = Depth(1.0, 0.5, 0.1, 0.0, 2.0)
    >>> [ax.get_ylabel() for ax in depths({"gcn": [row]}).axes][:2]
    ['accuracy, per cent', 'Rayleigh quotient']
    """
    import matplotlib.pyplot as plt

    rows, columns = (2, 2) if width <= COLUMN else (1, 4)
    if figure is None:
        height = 0.8 * COLUMN * rows / 2 + 0.35
        figure = plt.figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True).ravel()
    for (quantity, label), ax in zip(SHOWN.items(), panels, strict=True):
        scale = 100.0 if quantity == "accuracy" else 1.0
        for k, (name, line) in enumerate(told.items()):
            color, mark = CYCLE[k % len(CYCLE)], MARKS[k % len(MARKS)]
            t = [one.depth for one in line]
            y = [scale * getattr(one, quantity) for one in line]
            ax.plot(t, y, color=color, marker=mark, ms=2.5, label=name)
            known = (published or {}).get(name, ())
            t = [one.depth for one in known]
            y = [scale * getattr(one, quantity) for one in known]
            ax.plot(t, y, color=color, ls="", marker="o", ms=4, mfc="none", mew=0.7)
        if quantity == "norm" and ax.get_ylim()[1] > LARGEST:
            ax.axhline(LARGEST, color=GREY, lw=0.7, ls=":")
        if end is not None:
            ax.axvline(end, color=GREY, lw=0.7, ls="--")
        seen = sorted({one.depth for line in told.values() for one in line})
        how: dict[str, float] = {} if seen[:1] > [0.0] else {"linthresh": 1.0}
        ax.set_xscale("symlog" if how else "log", base=2, **how)
        # Powers of two: others would run into them.
        ticks = [t for t in seen if t == 0 or math.log2(t).is_integer()]
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
        ax.set_ylabel(label)
    for ax in panels[-columns:]:
        ax.set_xlabel(axis)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3 if columns == 2 else 6)
    return figure
