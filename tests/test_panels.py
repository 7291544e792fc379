"""Stacked panels, steps and curvatures: what is drawn is what was measured."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from analysis import EffectiveRank, balanced_forman, fit_decay, plots, track
from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Heat, allen_cahn
from solvers.series import Series

GRID = catalogue.grid(5, 5)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("shown")

    monkeypatch.setattr(plt, "show", refuse)
    yield
    plt.close("all")


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def heat(end: float = 40.0) -> Trajectory:
    watch = EffectiveRank()
    return solve(Heat(), normal(25, 3), end, GRID, solver="dopri5", watch=watch)


def restless() -> Trajectory:
    """Steps of dopri5 at its limit of stability: some are refused."""
    return solve(Heat(), normal(25, 3), 20.0, GRID, solver="dopri5")


def dashed(ax: Axes) -> list:
    return [line for line in ax.lines if line.get_color() == "black"]


def told(ax: Axes) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def test_panels_show_the_series_of_a_trajectory_over_one_time() -> None:
    traj = heat()
    rows = plots.panels(traj).axes
    series = (traj.energy, traj["norm"], traj["rayleigh"], traj["effective rank"])
    for ax, one in zip(rows, series, strict=True):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), one.y.numpy())
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), one.t.numpy())
        assert ax.get_title(loc="left")
        assert ax.get_xlim() == rows[0].get_xlim()
    assert rows[-1].get_xlabel() == "time $t$"
    (rug,) = [line for line in rows[0].lines if line.get_marker() == "|"]
    assert len(rug.get_xdata()) == traj.stats.accepted + 1


def test_the_fit_and_its_error_are_those_of_fit_decay() -> None:
    traj = heat()
    ax = plots.panels(traj).axes[0]
    found = fit_decay(traj.energy)
    law = found.exponential
    (fit,) = dashed(ax)
    t = torch.as_tensor(fit.get_xdata())
    np.testing.assert_allclose(fit.get_ydata(), law.level * torch.exp(-law.rate * (t - t[0])))
    assert float(t[0]) == law.start
    assert f"= {law.rate:.3g} ± {found.error:.1g}" in told(ax)[0]
    assert not dashed(plots.panels(traj, fit=False).axes[0])


def test_a_window_bounds_the_fit() -> None:
    fit = dashed(plots.panels(heat(), window=(2.0, 9.0)).axes[0])[0].get_xdata()
    assert fit[0] >= 2.0
    assert fit[-1] <= 9.0


def test_grey_covers_what_lies_below_the_floor_and_nothing_else() -> None:
    traj = heat(120.0)
    assert bool(traj.energy.y.isnan().any())
    ax = plots.panels(traj).axes[0]
    assert "below the floor" in told(ax)
    (band,) = ax.collections
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(float(traj.energy.floor.max()))
    assert not plots.panels(heat(5.0)).axes[0].collections


def test_growth_gets_no_rate() -> None:
    traj = solve(lambda t, x: x, normal(25, 2), 3.0, GRID)
    assert not dashed(plots.panels(traj).axes[0])


def test_tracks_share_panels_and_carry_names_and_rates() -> None:
    tracks = track(["heat", "wave"], GRID, 24, channels=3)
    figure = plots.panels({one.name: one.series for one in tracks}, show=("energy", "MAD"))
    energy, mad = figure.axes
    assert len(mad.lines) == 2
    assert mad.get_ylabel() == "MAD"
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[0].startswith("heat: ")
    assert names[1].startswith("wave")
    np.testing.assert_array_equal(energy.lines[0].get_ydata(), tracks[0].series["energy"].y.numpy())


@pytest.mark.parametrize("width", [plots.COLUMN, plots.PAGE])
def test_figures_have_the_sizes_of_a_paper_and_legible_letters(width: float) -> None:
    for figure in (plots.panels(heat(), width=width), plots.pace(restless(), width=width)):
        figure.canvas.draw()
        assert figure.get_size_inches()[0] == pytest.approx(width)
        for ax in figure.axes:
            for text in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.yaxis.label):
                assert text.get_fontsize() >= 6


def test_figures_given_are_drawn_into() -> None:
    figure = plt.figure()
    assert plots.panels(heat(), figure) is figure
    other = plt.figure()
    assert plots.pace(restless(), other) is other
    assert len(plt.get_fignums()) == 2


def test_steps_and_refusals_are_drawn_where_they_happened() -> None:
    traj = restless()
    steps = traj.steps
    assert traj.stats.rejected > 0
    ax = plots.step_sizes(traj)
    taken, refused = ax.lines
    np.testing.assert_array_equal(taken.get_ydata(), steps.h[steps.accepted].numpy())
    np.testing.assert_array_equal(refused.get_xdata(), steps.t[~steps.accepted].numpy())
    errors = plots.step_errors(traj)
    limit, taken, refused = errors.lines
    assert set(limit.get_ydata()) == {1.0}
    assert max(taken.get_ydata()) <= 1.0 < min(refused.get_ydata())


def test_stiffness_is_the_size_times_the_radius() -> None:
    traj = restless()
    rows = plots.pace(traj, radius=8.0).axes
    assert [ax.get_ylabel() for ax in rows][-1] == r"stiffness $h \rho$"
    np.testing.assert_allclose(rows[3].lines[0].get_ydata(), 8 * rows[1].lines[0].get_ydata())
    # dopri5's interval on the real axis is 3.3 long, and heat's spectrum reaches 7.2 here.
    assert len(plots.pace(traj).axes) == 3


def test_fixed_grids_show_sizes_alone() -> None:
    traj = solve(Heat(), normal(25, 3), 1.0, GRID, solver="rk4", steps=20)
    assert [ax.get_ylabel() for ax in plots.pace(traj).axes] == ["energy $E$", "step size $h$"]
    with pytest.raises(ValueError, match="fixed grid"):
        plots.step_errors(traj)


def test_curvatures_share_bins_and_have_area_one() -> None:
    one, two = catalogue.barbell(5), catalogue.grid(4, 4)
    values = {"before": balanced_forman(one), "after": balanced_forman(two)}
    ax = plots.curvatures(values, bins=12, label="balanced Forman curvature")
    assert ax.get_xlabel() == "balanced Forman curvature"
    outlines = [
        patch for patch in ax.patches if str(patch.get_label()).startswith(("before", "after"))
    ]
    pieces = [patch.get_xy() for patch in outlines]
    assert {tuple(np.unique(xy[:, 0])) for xy in pieces} == {tuple(np.unique(pieces[0][:, 0]))}
    assert len(np.unique(pieces[0][:, 0])) == 13
    for xy, found in zip(pieces, values.values(), strict=True):
        x, y = xy[:, 0], xy[:, 1]
        area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
        assert area == pytest.approx(1.0)
        assert f"mean {float(found.mean()):.3g}" in " ".join(told(ax))


def test_what_cannot_be_drawn_is_said() -> None:
    bare = solve(lambda t, x: -x, torch.ones(3, 1), 1.0)
    with pytest.raises(ValueError, match="one graph"):
        plots.panels(bare)
    both = Graph.union([GRID, GRID])
    with pytest.raises(ValueError, match="one graph"):
        plots.panels(solve(Heat(), normal(50, 1), 1.0, both))
    with pytest.raises(ValueError, match="rank"):
        plots.panels(heat(), show=("ranks",))
    with pytest.raises(ValueError, match="no steps"):
        plots.pace(solve(Heat(), normal(25, 1), 1.0, GRID))
    clocks = solve(allen_cahn(), normal(50, 1), 1.0, both, solver="tsit5")
    with pytest.raises(ValueError, match="2 graphs"):
        plots.step_sizes(clocks)
    with pytest.raises(ValueError, match="no curvatures"):
        plots.curvatures({"before": torch.full((2,), torch.nan)})


def test_zeros_keep_a_linear_axis() -> None:
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert plots.course(Series(t, t)).get_yscale() == "linear"
    assert plots.course(Series(t, torch.exp(-9 * t))).get_yscale() == "log"
