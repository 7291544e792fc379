"""The one-figure report of a trajectory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.plots.curves import curve, energy
from analysis.plots.maps import film, layout
from analysis.plots.style import GREEN, ORANGE, PAGE, STYLE, title
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def summary(trajectory: Trajectory, *, view: str = "value") -> Figure:
    """The one-figure report: the state on the map, over its energy, norm and Rayleigh quotient.

    Args:
        trajectory: A trajectory on a graph with saved states.
        view: "value", "modulus" or "phase"; see `film`.

    >>> import torch
    >>> from neuralpde import Graph, solve
    >>> from neuralpde.fields import Heat
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]), pos=torch.eye(2))
    >>> heat = solve(Heat(), torch.tensor([[2.0], [0.0]]), (0.0, 1.0), pair)
    >>> [ax.get_ylabel() for ax in summary(heat).axes[-3:]]
    ['Dirichlet energy $E$', 'norm', 'Rayleigh quotient']
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
        axes[1].set_title(title(trajectory["norm"].convention), loc="left", color="0.3")
        axes[2].set_title("tr($x^TLx$) / $|x|^2$", loc="left", color="0.3")
        axes[1].set_ylim(bottom=0)
    return figure
