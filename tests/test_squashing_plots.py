"""Figures of over-squashing: what is drawn is what was computed, and axes name it."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor

from analysis import effective_resistance, influence_profile, plots, sensitivity
from neuralpde import Graph, catalogue
from neuralpde.fields import Heat, Wave


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def zeros(nodes: int) -> Tensor:
    return torch.zeros(nodes, 1, dtype=torch.float64)


def test_influence_is_drawn_against_distance_at_the_times_asked_for() -> None:
    graph = catalogue.grid(4, 4)
    found = sensitivity(Heat(), zeros(16), [0.0, 0.1, 1.0, 5.0], graph, sources=[0, 5])
    profile = influence_profile(found, graph)
    ax = plots.influence(profile, times=[0.12, 5.0])
    assert [line.get_label() for line in ax.lines] == ["$t$ = 0.1", "$t$ = 5"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), profile.value[3].numpy())
    assert ax.get_yscale() == "log"
    assert "hops" in ax.get_xlabel()
    assert "partial" in ax.get_ylabel()
    assert len(plots.influence(profile).lines) == 3


def test_the_light_cone_of_a_wave_has_its_speed() -> None:
    graph, t = catalogue.path(30), torch.linspace(0, 20, 101, dtype=torch.float64)
    state = zeros(30), zeros(30)
    found = sensitivity(Wave(speed=1.5), state, t, graph, sources=[0], rtol=1e-6)
    ax = plots.light_cone(found, graph, tolerance=0.05)
    label = ax.get_legend().get_texts()[0].get_text()
    assert float(label.split()[1]) == pytest.approx(1.5, rel=0.07)
    assert "0.05" in ax.get_xlabel()


def test_a_bottleneck_is_two_blocks_of_the_ordered_jacobian() -> None:
    graph = catalogue.barbell(5)
    shuffled = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    mixed = Graph(shuffled[graph.edge_index], 10)
    found = sensitivity(Heat(), zeros(10), [0.0, 0.5], mixed)
    ax = plots.jacobian(found, mixed)
    J = np.asarray(ax.images[0].get_array())
    assert J[:5, :5].min() > J[:5, 5:].max()
    assert J[5:, 5:].min() > J[5:, :5].max()
    assert ax.get_title(loc="left") == "$t$ = 0.5"


def test_panels_of_resistances_share_colours_places_and_mark_what_is_new() -> None:
    base = catalogue.path(6)
    figure = plots.rewired({"path": base, "ring": catalogue.ring(6)}, 2)
    before, after = figure.axes[:2]
    pairs = torch.stack([torch.full((6,), 2), torch.arange(6)])
    expected = effective_resistance(base, pairs).value.numpy()
    np.testing.assert_allclose(before.collections[1].get_array(), expected)
    assert before.collections[1].get_clim() == after.collections[1].get_clim()
    np.testing.assert_array_equal(
        before.collections[1].get_offsets(), after.collections[1].get_offsets()
    )
    assert len(after.collections) == len(before.collections) + 1
    assert before.get_title() == "path, mean 1.8"


def test_what_cannot_be_drawn_is_said() -> None:
    graph = catalogue.path(4)
    with pytest.raises(ValueError, match="0 to 3"):
        plots.resistance(graph, 4)
    with pytest.raises(ValueError, match="commute"):
        plots.resistance(graph, 0, quantity="comute")
    with pytest.raises(ValueError, match="keeps the nodes"):
        plots.rewired({"a": graph, "b": catalogue.path(5)}, 0)
