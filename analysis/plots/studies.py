"""Figures of a study: error against evaluations, and the grids as tick marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.style import COLUMN, CYCLE, GREY, axes, on_paper
from analysis.runs import AGAIN, FAILED, Row
from solvers import schedules as known
from solvers.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = "osD^vP*Xh<>"


@on_paper
def against_evaluations(
    rows: Sequence[Row],
    metric: str,
    ax: Axes | None = None,
    *,
    work: str = "evaluations",
    **where: Any,
) -> Axes:
    """Error against evaluations, one line per schedule; bars are standard errors over runs.

    Both axes are logarithmic, the vertical one only where all means are positive.

    Args:
        rows: of a study.
        metric: which error.
        ax: where; new axes by default.
        work: "evaluations" or "products".
        where: `problem=` and `solver=`, where there are several.

    Raises:
        ValueError: when rows of several problems or solvers remain, or none.

    >>> row = {"problem": "p", "solver": "heun", "replica": 0, "seed": 0, "schedule": "uniform"}
    >>> rows = [row | {"control": n, "evaluations": 2 * n, "error": 1 / n} for n in (1, 2)]
    >>> against_evaluations(rows, "error").get_xlabel()
    'evaluations'
    """
    rows = [row for row in rows if all(row[key] == value for key, value in where.items())]
    for name in ("problem", "solver"):
        kinds = sorted({str(row[name]) for row in rows})
        if len(kinds) != 1:
            raise ValueError(f"rows of {len(kinds)} {name}s are left ({kinds}); choose {name}=...")
    ax = axes(ax)
    points: dict[str, dict[Any, list[tuple[float, float]]]] = {}
    for row in rows:
        if FAILED not in row and metric in row and not row["schedule"].endswith(AGAIN):
            of_schedule = points.setdefault(row["schedule"], {})
            of_schedule.setdefault(row["control"], []).append((row[work], row[metric]))
    lowest = np.inf
    for index, (schedule, controls) in enumerate(points.items()):
        spent = np.array([np.mean([p[0] for p in found]) for found in controls.values()])
        mean = np.array([np.mean([p[1] for p in found]) for found in controls.values()])
        error = np.array([_standard_error([p[1] for p in found]) for found in controls.values()])
        order, lowest = np.argsort(spent), min(lowest, float(mean.min()))
        # Bars of a logarithmic axis end above zero.
        below = np.minimum(error, 0.9 * mean) if (mean > 0).all() else error
        ax.errorbar(
            spent[order],
            mean[order],
            yerr=np.stack([below, error])[:, order],
            color=CYCLE[index % len(CYCLE)],
            ls="-" if index < len(CYCLE) else "--",
            marker=MARKS[index % len(MARKS)],
            ms=3,
            lw=1.0,
            elinewidth=0.6,
            label=schedule,
        )
    if len({row[work] for row in rows if work in row}) > 1:
        ax.set_xscale("log")
    if lowest > 0:
        ax.set_yscale("log")
    else:
        ax.axhline(0, color=GREY, lw=0.6)
    ax.set_xlabel(work)
    ax.set_ylabel(metric)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


@on_paper
def grids(
    schedules: Mapping[str, Schedule | str], n: int, ax: Axes | None = None, *, label: bool = True
) -> Axes:
    """The times of several schedules as tick marks, one row each.

    Args:
        schedules: by name.
        n: number of steps.
        ax: where; new axes by default.
        label: whether rows carry their names.

    >>> ax = grids({"uniform": "uniform", "cosine": "cosine"}, 4)
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['uniform', 'cosine']
    """
    ax = axes(ax, COLUMN, COLUMN * (0.15 + 0.06 * len(schedules)))
    for row, schedule in enumerate(schedules.values()):
        t = known.get(schedule).grid(n)
        color = CYCLE[row % len(CYCLE)]
        ax.hlines(row, 0, 1, color="0.85", lw=0.6)
        ax.plot(t, np.full(len(t), row), "|", color=color, ms=8, mew=1.0)
    ax.set_yticks(range(len(schedules)), list(schedules) if label else [])
    ax.set_ylim(len(schedules) - 0.5, -0.5)
    ax.set_xlim(-0.01, 1.01)
    ax.set_xlabel("time $t$")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax


@on_paper
def rates(schedules: Mapping[str, Schedule | str], ax: Axes | None = None) -> Axes:
    """The density of the steps of those schedules that have one, such as the entropic family.

    Args:
        schedules: by name; those without a `density` are left out.
        ax: where; new axes by default.

    Raises:
        ValueError: where none has a density.

    >>> ax = rates({"flat": known.Density((0.0, 1.0), (2.0, 2.0)), "cosine": "cosine"})
    >>> [line.get_label() for line in ax.lines], float(ax.lines[0].get_ydata()[7])
    (['flat'], 1.0)
    """
    found = {name: known.get(schedule) for name, schedule in schedules.items()}
    dense = {name: one for name, one in found.items() if hasattr(one, "density")}
    if not dense:
        raise ValueError(f"none of {list(schedules)} has a density: Density and Entropic do")
    ax = axes(ax)
    # Rates of bridges are steep at both ends.
    t = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0.005, 0.995, 397))
    for index, (name, one) in enumerate(dense.items()):
        style = "-" if index < len(CYCLE) else "--"
        ax.plot(t, one.density(t), color=CYCLE[index % len(CYCLE)], ls=style, label=name)
    ax.set_yscale("log")
    ax.set_xlabel("time $t$")
    ax.set_ylabel("density of steps")
    ax.legend(frameon=False)
    return ax


def _standard_error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
