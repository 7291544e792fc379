"""Days of speeds on a graph of sensors, and their units."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuralpde.data import Standard, Traffic, load_traffic
from neuralpde.data.traffic import fill_gaps
from neuralpde.graph import Graph


def week(days: int = 4) -> Traffic:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    looks = torch.arange(days * 48 * 2, dtype=torch.float64).view(days, 48, 2)
    return Traffic(graph, looks, tuple(map(str, range(days))))


def written(root: Path, speed: np.ndarray) -> Path:
    (root / "sensors").mkdir()
    np.savez(
        root / "sensors" / "metr_la_week.npz",
        pos=np.array([[34.0, -118.0], [34.5, -118.5], [35.0, -119.0]]),
        edge_index=np.array([[0, 1, 1], [1, 0, 2]]),
        edge_weight=np.array([0.25, 0.5, 0.75], dtype=np.float32),
        speed=speed.astype(np.float32),
        start=np.datetime64("2012-03-01T00:00", "m").astype(np.int64),
        minutes_per_step=720,
    )
    return root


def test_a_window_has_the_looks_of_its_clock() -> None:
    roads = week()
    assert torch.equal(roads.window(8.0, 90), roads.speed[:, [16, 17, 18]])
    assert torch.equal(roads.window(23.5), roads.speed[:, 47:])
    assert torch.equal(roads.window(0, 24 * 60), roads.speed)


@pytest.mark.parametrize("hour", [-1.0, 23.75, 25.0])
def test_a_window_outside_the_day_is_refused(hour: float) -> None:
    with pytest.raises(ValueError, match="within the day"):
        week().window(hour, 60)


def test_a_window_between_two_looks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 30 minutes"):
        week().window(8.0, 5)


@pytest.mark.parametrize("day", range(4))
def test_a_day_left_out_leaves_nothing_behind(day: int) -> None:
    roads = week()
    others, own = roads.leave_out(day, 8, 120)
    assert others.shape == (3 * 4, 2)
    # All numbers of the week differ: those of the day are in one part, all the rest in the other.
    first = day * 48 * 2 + 16 * 2
    assert own.flatten().tolist() == list(range(first, first + 8))
    parts = set(others.flatten().tolist()), set(own.flatten().tolist())
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(roads.window(8, 120).flatten().tolist())


@pytest.mark.parametrize("day", [-1, 4])
def test_a_day_that_is_none_is_refused(day: int) -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        week().leave_out(day, 8)


def test_the_file_is_read_as_undirected_days_on_a_map(tmp_path: Path) -> None:
    speed = np.array([[1, 2, 3], [4, 0, 6], [7, 8, 9], [10, 11, 12]])
    roads = load_traffic(written(tmp_path, speed))
    dense = np.zeros((3, 3))
    dense[tuple(roads.graph.edge_index.numpy())] = roads.graph.edge_weight.numpy()
    np.testing.assert_allclose(dense, [[0, 0.5, 0], [0.5, 0, 0.75], [0, 0.75, 0]])
    assert roads.graph.pos is not None
    assert roads.graph.pos[1].tolist() == [-118.5, 34.5]
    assert roads.days == ("2012-03-01", "2012-03-02")
    speed[1, 1] = 5
    assert roads.speed.tolist() == speed.reshape(2, 2, 3).tolist()


def test_a_file_that_is_no_week_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="metr_la_week"):
        load_traffic(tmp_path)
    with pytest.raises(ValueError, match="no whole days"):
        load_traffic(written(tmp_path, np.ones((3, 3))))


def test_gaps_are_filled_by_lines() -> None:
    whole = torch.stack([torch.linspace(3, 9, 13), torch.linspace(8, 2, 13)], 1).double()
    holes = whole.clone()
    holes[[1, 2, 3, 7], 0], holes[[5, 6], 1] = 0, 0
    torch.testing.assert_close(fill_gaps(holes), whole, rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match=r"\[1\] never"):
        fill_gaps(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))


def test_standard_units_have_no_mean_and_unit_spread() -> None:
    g = torch.Generator().manual_seed(0)
    states = 5 + 3 * torch.randn(50, 4, generator=g, dtype=torch.float64)
    units = Standard.of(states, least=1e-3)
    numbers = units.to(states).numpy()
    np.testing.assert_allclose(numbers.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(numbers.std(0), 1, rtol=1e-14)
    torch.testing.assert_close(units.back(units.to(states)), states, rtol=1e-14, atol=0)


def test_a_node_that_never_moves_keeps_its_unit() -> None:
    units = Standard.of(torch.tensor([[60.0], [60.0]]), least=2.0)
    assert units.to(torch.tensor([[64.0]])).item() == 2.0
    for states, least in ((torch.ones(0, 1), 1.0), (torch.ones(1, 1), 0.0)):
        with pytest.raises(ValueError, match="positive least"):
            Standard.of(states, least)
