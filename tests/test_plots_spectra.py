"""Spectrograms, profiles and dispersion plots: what is drawn is what was measured."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor

from analysis import BandEnergy, joint_spectrum, plots, spectrum
from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Heat, Wave

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def heat(norm: str = "comb") -> Trajectory:
    t = torch.linspace(0, 2, 9, dtype=F64)
    return solve(Heat(norm), normal(30, 2), t, catalogue.grid(5, 6), rtol=1e-10)


@pytest.mark.parametrize("norm", ["comb", "sym", "augmented", "rw"])
def test_spectrograms_show_the_bands_of_the_fields_own_laplacian(norm: str) -> None:
    traj = heat(norm)
    ax = plots.spectrogram(traj, decades=40.0)
    shown = "comb" if norm == "rw" else norm
    assert ax.get_ylabel() == f"eigenvalue $\\lambda$ ({shown})"
    assert ax.get_xlabel() == "time $t$"
    (cells,) = [one for one in ax.collections if hasattr(one, "get_coordinates")]
    bands = traj.measure(BandEnergy(24, shown)).y.numpy().T
    drawn = cells.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(drawn), np.isnan(bands))
    np.testing.assert_array_equal(drawn.compressed(), bands[~np.isnan(bands)])
    borders = cells.get_coordinates()
    np.testing.assert_allclose(borders[0, :, 0], [0, *(0.25 * np.arange(8) + 0.125), 2])
    edges = BandEnergy(24, shown).edges(traj.graph)[0].numpy()
    np.testing.assert_allclose(borders[:, 0, 1], edges)


def test_logarithmic_times_and_strips_of_modes() -> None:
    graph, t = catalogue.grid(5, 6), torch.tensor([0.0, 0.01, 0.1, 1.0, 10.0]).double()
    traj = solve(Heat(), normal(30, 1), t, graph)
    measure = BandEnergy(6, spacing="modes", relative=True)
    ax = plots.spectrogram(traj, bands=measure, log=True)
    assert ax.get_xscale() == "log"
    (cells,) = [one for one in ax.collections if hasattr(one, "get_coordinates")]
    borders = cells.get_coordinates()
    np.testing.assert_allclose(borders[0, :, 0], 10.0 ** np.array([-3, -2.5, -1.5, -0.5, 0.5, 1]))
    np.testing.assert_allclose(borders[:, 0, 1], np.arange(7))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{edge:.3g}" for edge in measure.edges(graph)[0].tolist()]
    assert "share" in ax.figure.axes[-1].get_ylabel()


def test_colours_end_where_they_were_told_to() -> None:
    ax = plots.spectrogram(heat(), decades=3.0)
    (cells,) = [one for one in ax.collections if hasattr(one, "get_coordinates")]
    low, high = cells.get_clim()
    assert np.log10(high / low) == pytest.approx(3.0)
    assert cells.get_array().min() == pytest.approx(low)


def test_profiles_rise_from_zero_to_one_at_the_eigenvalues() -> None:
    graph, states = catalogue.hypercube(3), [normal(8, 1), normal(8, 1, seed=1)]
    ax = plots.profile(graph, states, labels=("first", "second"))
    white, first, second = ax.lines
    np.testing.assert_allclose(
        white.get_ydata(), np.array([0, 1, 4, 4, 4, 7, 7, 7, 8]) / 8, atol=1e-12
    )
    for line, x in ((first, states[0]), (second, states[1])):
        np.testing.assert_allclose(line.get_ydata()[1:], spectrum(graph).profile(x).numpy())
        np.testing.assert_allclose(line.get_xdata()[1:], [0, 2, 2, 2, 4, 4, 4, 6], atol=1e-12)
    assert [text.get_text() for text in ax.get_legend().get_texts()][1:] == ["first", "second"]


def test_dispersion_shows_all_power_under_its_relation() -> None:
    graph, x0 = catalogue.path(12), normal(12, 1)
    t = torch.linspace(0, 50, 201, dtype=F64)
    joint = joint_spectrum(solve(Wave(2.0), (x0, 0 * x0), t, graph))
    ax = plots.dispersion(joint, speed=2.0, decades=30.0)
    (cells,) = [one for one in ax.collections if hasattr(one, "get_coordinates")]
    assert float(cells.get_array().sum()) == pytest.approx(float(joint.power.sum()))
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), 2 * np.sqrt(line.get_xdata()))
    assert "2" in line.get_label()
    assert ax.get_ylim()[1] > 4.0
    # Of every column the brightest cell lies on the line, to a cell's height and its own width.
    power, borders = cells.get_array().filled(0), cells.get_coordinates()
    middle = (borders[1:, 0, 1] + borders[:-1, 0, 1]) / 2
    for k in np.flatnonzero(power.max(0) > 0)[1:]:
        low, high = 2 * np.sqrt(borders[0, k : k + 2, 0])
        found = middle[power[:, k].argmax()]
        assert low - joint.resolution < found < high + joint.resolution


@pytest.mark.parametrize("width", [plots.COLUMN, plots.PAGE])
def test_figures_are_legible_in_a_column_and_on_a_page(width: float, tmp_path: Path) -> None:
    traj = heat()
    waves = solve(Wave(), (normal(30, 1), normal(30, 1)), torch.arange(20.0), traj.graph)
    with mpl.rc_context(plots.STYLE):
        for draw in (
            lambda ax: plots.spectrogram(traj, ax),
            lambda ax: plots.spectrogram(waves, ax, bands=BandEnergy((0.0, 1.0, 5.0))),
            lambda ax: plots.profile(traj.graph, traj.final, ax),
            lambda ax: plots.dispersion(joint_spectrum(waves), ax),
        ):
            figure, ax = plt.subplots(figsize=(width, 0.62 * width), layout="constrained")
            assert draw(ax) is ax
            figure.savefig(tmp_path / "figure.png", dpi=60)
            for one in figure.axes:
                for text in (one.xaxis.label, one.yaxis.label, *one.get_yticklabels()):
                    assert text.get_fontsize() >= 6


def test_states_of_zero_and_one_still_have_pictures(tmp_path: Path) -> None:
    graph = catalogue.path(4)
    for x in (torch.zeros(4, 1), torch.ones(4, 1)):
        traj = Trajectory(torch.arange(9).double(), x.expand(9, 4, 1).clone(), graph=graph)
        plots.spectrogram(traj).figure.savefig(tmp_path / "still.png")
        plots.dispersion(joint_spectrum(traj)).figure.savefig(tmp_path / "still.png")


def test_what_has_no_spectrogram_is_said() -> None:
    batch = Graph.union([catalogue.path(3), catalogue.path(4)])
    with pytest.raises(ValueError, match="that of one graph with one clock"):
        plots.spectrogram(solve(Heat(), normal(7, 1), [0.0, 1.0], batch))
    with pytest.raises(ValueError, match="needs several saved states"):
        plots.spectrogram(solve(Heat(), normal(3, 1), 1.0, catalogue.path(3), save="end"))
