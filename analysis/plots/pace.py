"""The steps of a solve: sizes, refusals, errors, and how stiff they found the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from analysis.plots.panels import course
from analysis.plots.style import (
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    axes,
    logarithmic,
    on_paper,
    title,
)
from solvers.steps import Steps
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@on_paper
def step_sizes(trajectory: Trajectory, ax: Axes | None = None) -> Axes:
    """The sizes of the steps that were taken, and crosses for those that were refused.

    Args:
        trajectory: A trajectory of one clock, from a solver that takes steps.
        ax: Where; new axes by default.

    Raises:
        ValueError: Where there are no steps.

    >>> from neuralpde import solve
    >>> traj = solve(lambda t, x: -x, torch.ones(1, 1), 1.0, solver="rk4", steps=4)
    >>> [float(h) for h in step_sizes(traj).lines[0].get_ydata()]
    [0.25, 0.25, 0.25, 0.25]
    """
    ax, steps = axes(ax), _steps(trajectory)
    return _tries(ax, steps, steps.h.abs(), "step size $h$")


@on_paper
def step_errors(trajectory: Trajectory, ax: Axes | None = None) -> Axes:
    """The errors of all steps in units of the tolerance; those above 1 were refused.

    Args:
        trajectory: A trajectory of one clock, from a solver that takes steps.
        ax: Where; new axes by default.

    Raises:
        ValueError: Where there are no steps, or their errors are not known (a fixed grid).

    >>> from neuralpde import solve
    >>> traj = solve(lambda t, x: -x, torch.ones(1, 1), 1.0, solver="dopri5")
    >>> step_errors(traj).get_yscale()
    'log'
    """
    steps = _steps(trajectory)
    if bool(steps.ratio.isnan().all()):
        raise ValueError("the steps of a fixed grid have no error estimates: show step_sizes")
    ax = axes(ax)
    ax.axhline(1.0, color=GREY, lw=0.6, zorder=0)
    return _tries(ax, steps, steps.ratio, "error / tolerance")


def pace(
    trajectory: Trajectory,
    figure: Figure | None = None,
    *,
    radius: float | None = None,
    width: float = COLUMN,
) -> Figure:
    """The energy over the steps that computed it: sizes, refusals, errors and stiffness.

    Args:
        trajectory: A trajectory of one clock, from a solver that takes steps.
        figure: Where; a new one by default.
        radius: Spectral radius rho of the field's Jacobian; then a panel shows h rho, which
            explicit methods cannot take beyond a few.
        width: Of a new figure, inches.

    Raises:
        ValueError: Where there are no steps.

    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Heat
    >>> x0 = torch.eye(5, dtype=torch.float64)
    >>> heat = solve(Heat(), x0, 9.0, catalogue.ring(5), solver="dopri5")
    >>> [ax.get_ylabel() for ax in pace(heat).axes]
    ['energy $E$', 'step size $h$', 'error / tolerance']
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    steps = _steps(trajectory)
    known = not bool(steps.ratio.isnan().all())
    energy = trajectory.energy
    count = 1 + known + (energy is not None) + (radius is not None)
    with mpl.rc_context(STYLE):
        size = (width, 0.34 * COLUMN * count + 0.2)
        figure = figure or plt.figure(figsize=size, layout="constrained")
        rows = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
        panels = iter(rows)
        if energy is not None:
            ax = course(energy, next(panels))
            ax.set_ylabel("energy $E$")
            ax.set_title(title(energy.convention), loc="left", color="0.3", pad=2)
        first = step_sizes(trajectory, next(panels))
        if bool((~steps.accepted).any()):
            figure.legend(
                *first.get_legend_handles_labels(),
                loc="outside upper right",
                frameon=False,
                ncols=2,
            )
        if known:
            step_errors(trajectory, next(panels))
        if radius is not None:
            _tries(next(panels), steps, steps.h.abs() * radius, r"stiffness $h \rho$", GREEN)
        for ax in rows[:-1]:
            ax.set_xlabel("")
        rows[-1].set_xlabel("time $t$")
        figure.align_ylabels(rows)
    return figure


def _steps(trajectory: Trajectory) -> Steps:
    steps = trajectory.steps
    if steps is None or not len(steps.accepted):
        raise ValueError(
            f"{trajectory.stats.solver or 'this trajectory'} took no steps that could be shown: "
            "use one of our steppers, as solver='tsit5'"
        )
    if steps.h.dim() > 1:
        raise ValueError(
            f"{steps.h.shape[1]} graphs stepped by clocks of their own; solve the one to show alone"
        )
    return steps


def _tries(ax: Axes, steps: Steps, y: torch.Tensor, label: str, color: str = BLUE) -> Axes:
    taken = steps.accepted
    ax.plot(steps.t[taken], y[taken], ".-", color=color, ms=2, lw=0.5, label="taken")
    if bool((~taken).any()):
        t = steps.t[~taken]
        ax.plot(t, y[~taken], "x", color=ORANGE, ms=2.5, mew=0.6, zorder=3, label="refused")
    logarithmic(ax)
    ax.set_xlabel("time $t$")
    ax.set_ylabel(label)
    return ax
