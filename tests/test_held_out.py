"""Samples against a day that was left out, and samples side by side."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
import torch
from strategies import dense

from analysis import held_out, plots
from analysis.held_out import energy_distance, state_energies
from neuralpde.catalogue import grid, ring


@pytest.mark.parametrize("sizes", [(36, 6), (10, 7), (1, 5), (4, 4)])
def test_energy_distances_are_those_of_scipy(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=sizes[0]), rng.normal(1, 2, size=sizes[1])
    found = energy_distance(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(scipy.stats.wasserstein_distance(x, y), rel=1e-12)


def test_energies_are_sums_over_edges() -> None:
    graph, states = grid(3, 4), torch.randn(5, 12)
    A, x = dense(graph).numpy(), states.double().numpy()
    sums = 0.5 * np.einsum("ij,sij->s", A, (x[:, :, None] - x[:, None, :]) ** 2)
    np.testing.assert_allclose(state_energies(graph, states).numpy(), sums, rtol=1e-12)


def test_energies_do_not_see_the_mean() -> None:
    states = torch.randn(3, 6, dtype=torch.float64)
    shifted = state_energies(ring(6), states + 1e6)
    np.testing.assert_allclose(shifted, state_energies(ring(6), states), rtol=1e-8)


def test_samples_that_are_the_training_states_have_ratio_one() -> None:
    seen, unseen = torch.randn(12, 6), 2 * torch.randn(4, 6)
    same = held_out(ring(6), seen.repeat(3, 1), seen, unseen)
    assert (same.ratio, same.between) == (pytest.approx(1), pytest.approx(0, abs=1e-12))
    best = held_out(ring(6), unseen, seen, unseen)
    assert best.samples == pytest.approx(0, abs=1e-12)
    assert best.between == pytest.approx(best.training)


def test_empty_samples_have_no_distance() -> None:
    with pytest.raises(ValueError, match="at least one"):
        energy_distance(torch.ones(0), torch.ones(2))


def test_maps_of_a_gallery_share_their_colours() -> None:
    rows = {"measured": torch.rand(2, 6), "sampled": 9 * torch.rand(3, 6)}
    figure = plots.gallery(grid(2, 3), rows)
    drawn = [ax.collections[-1] for ax in figure.axes[:6] if ax.collections]
    first = float(rows["measured"].min()), float(rows["measured"].max())
    assert len(drawn) == 5
    assert {dots.get_clim() for dots in drawn} == {first}
    np.testing.assert_allclose(drawn[2].get_array(), rows["sampled"][0], rtol=1e-6)
    plt.close(figure)


def test_clouds_show_the_points_of_their_times() -> None:
    points = [torch.rand(7, 2) for _ in range(3)]
    figure = plots.clouds({"a": [(0.0, points[0]), (1.0, points[1])]}, target=points[2])
    for ax, x in zip(figure.axes, points, strict=True):
        np.testing.assert_allclose(ax.collections[0].get_offsets(), x, rtol=1e-6)
    assert [ax.get_title() for ax in figure.axes] == ["$t$ = 0", "$t$ = 1", "target"]
    plt.close(figure)
