"""Figures: axes come back, labels carry the convention, sizes are legible, nothing is shown."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from analysis import plots
from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Heat, Wave, allen_cahn
from solvers.series import Series


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("shown")

    monkeypatch.setattr(plt, "show", refuse)
    yield
    plt.close("all")


def decaying(norm: str = "comb", dtype: torch.dtype = torch.float64) -> Trajectory:
    graph = catalogue.grid(5, 6)
    return solve(Heat(norm), normal(30, 2).to(dtype), np.linspace(0, 4, 9), graph, solver="dopri5")


def texts(ax: Axes) -> str:
    title = " ".join(ax.get_title(loc) for loc in ("left", "center", "right"))
    return f"{title} {ax.get_xlabel()} {ax.get_ylabel()}"


@pytest.mark.parametrize("norm", ["comb", "sym", "augmented", "rw"])
def test_the_energy_shows_its_convention_and_its_rate(norm: str) -> None:
    traj = decaying(norm)
    ax = plots.energy(traj)
    assert isinstance(ax, Axes)
    start = "comb" if norm == "rw" else norm
    assert start in texts(ax)
    assert "energy" in ax.get_ylabel()
    assert "t" in ax.get_xlabel()
    assert ax.get_yscale() == "log"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    (label,) = [text for text in labels if "rate" in text]
    assert float(label.split()[1]) == pytest.approx(traj.energy.rate(), rel=1e-2)
    drawn = ax.lines[0]
    np.testing.assert_array_equal(drawn.get_ydata(), traj.energy.y.numpy())
    np.testing.assert_array_equal(drawn.get_xdata(), traj.energy.t.numpy())
    rug = [line for line in ax.lines if line.get_marker() == "|"]
    assert len(rug) == 1
    assert len(rug[0].get_xdata()) == traj.stats.accepted + 1


def test_axes_given_are_axes_drawn_into() -> None:
    _, ax = plt.subplots()
    traj = decaying()
    assert plots.energy(traj, ax) is ax
    assert plots.curve(traj["norm"], ax) is ax
    assert plots.state(traj.graph, traj.final, ax) is ax
    assert len(plt.get_fignums()) == 1


def test_the_fit_lies_on_a_pure_exponential() -> None:
    t = torch.linspace(0, 2, 30, dtype=torch.float64)
    traj = Trajectory(t[:2], torch.zeros(2, 3, 1))
    traj.offer("energy", Series(t, 5 * torch.exp(-3 * t), "demo: x'Lx"))
    ax = plots.energy(traj)
    (fit,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(fit.get_ydata(), 5 * np.exp(-3 * np.asarray(fit.get_xdata())))
    assert not [one for one in plots.energy(traj, fit=False).lines if one.get_linestyle() == "--"]


def test_values_below_the_floor_are_drawn_as_the_floor() -> None:
    t = torch.linspace(0, 9, 10, dtype=torch.float64)
    series = Series(t, torch.exp(-3 * t), "demo", torch.full((10,), 1e-6))
    ax = plots.curve(series)
    (floor,) = [line for line in ax.lines if line.get_label() == "floor"]
    assert set(floor.get_ydata()) == {series.floor[0].item()}
    assert len(floor.get_xdata()) == int(series.y.isnan().sum()) > 0


def test_batches_draw_a_line_for_each_graph() -> None:
    batch = Graph.union([catalogue.path(4), catalogue.star(6), catalogue.ring(5)])
    traj = solve(allen_cahn(), normal(15, 1), 1.0, batch)
    assert len(plots.energy(traj).lines) == 3


@pytest.mark.parametrize(
    "graph",
    [
        catalogue.path(12), catalogue.path(1), catalogue.path(3), catalogue.star(9),
        Graph.union([catalogue.ring(5), catalogue.ring(6)]), catalogue.grid(4, 4),
        catalogue.complete(6), Graph(torch.zeros(2, 0).long(), 7),
    ],
    ids=["path", "point", "short", "star", "two", "grid", "complete", "no edges"],
)  # fmt: skip
def test_every_graph_has_a_place_on_the_page(graph: Graph) -> None:
    pos = plots.layout(graph)
    assert pos.shape == (graph.num_nodes, 2)
    assert np.isfinite(pos).all()
    np.testing.assert_array_equal(pos, plots.layout(graph))
    x = normal(graph.num_nodes, 3)
    ax = plots.state(graph, x, channel=2, title="demo")
    ax.figure.canvas.draw()
    np.testing.assert_array_equal(ax.collections[-1].get_array(), x[:, 2].numpy())
    assert ax.get_title() == "demo"


def test_positions_are_kept() -> None:
    graph = catalogue.grid(4, 4)
    pos = normal(16, 3)
    placed = Graph(graph.edge_index, pos=pos)
    np.testing.assert_array_equal(plots.layout(placed), pos[:, :2].numpy())


def test_a_film_has_one_scale_and_the_nearest_times() -> None:
    traj = decaying()
    figure = plots.film(traj, times=[0.0, 0.9, 4.0])
    frames = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in frames] == ["$t$ = 0", "$t$ = 1", "$t$ = 4"]
    scales = {ax.collections[-1].get_clim() for ax in frames}
    assert len(scales) == 1
    assert len([ax for ax in plots.film(traj).axes if ax.get_title()]) == 5


CASES = {
    "grid": decaying,
    "single": lambda: decaying("sym", torch.float32),
    "path": lambda: solve(Heat(), normal(10, 1), 3.0, catalogue.path(10)),
    "wave": lambda: solve(Wave(), (normal(6, 1), normal(6, 1)), [0.0, 1.0, 2.0], catalogue.ring(6)),
    "complex": lambda: solve(
        Heat(), torch.complex(normal(6, 1), normal(6, 1, seed=1)), 1.0, catalogue.ring(6)
    ),
    "constant": lambda: solve(Heat(), torch.ones(9, 1), 1.0, catalogue.grid(3, 3)),
    "learned": lambda: solve(Heat(), normal(6, 1).requires_grad_(), 1.0, catalogue.ring(6)),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_summary_is_one_legible_page(kind: str, tmp_path: Path) -> None:
    figure = plots.summary(CASES[kind]())
    figure.savefig(tmp_path / "summary.png", dpi=60)
    width, height = figure.get_size_inches()
    assert width == pytest.approx(170 / 25.4)
    assert 0.3 * width < height < width
    labelled = [ax for ax in figure.axes if ax.get_xlabel()]
    assert len(labelled) == 3
    for ax in figure.axes:
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels()):
            assert text.get_fontsize() >= 6
    assert {"Dirichlet energy $E$", "norm", "Rayleigh quotient"} == {
        ax.get_ylabel() for ax in labelled
    }
    assert (tmp_path / "summary.png").stat().st_size > 5_000


def test_what_cannot_be_drawn_is_said() -> None:
    bare = solve(lambda t, x: -x, torch.ones(3, 1), 1.0)
    with pytest.raises(ValueError, match="without a graph"):
        plots.energy(bare)
    with pytest.raises(ValueError, match="a graph and one clock"):
        plots.film(bare)
