"""Brownian paths: pure functions of seed and time, exact sums, and the law of Brownian motion."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from solvers.brownian import DEPTH, HORIZON, QUANTUM, Brownian

PATHS = 20_000
GRIDS = {
    "binary": np.arange(9) / 8,
    "decimal": np.arange(11) / 10 * 1.3,
    "cosine": 5.0 * np.sin(np.pi / 2 * np.arange(8) / 7) ** 2,
    "across zero": np.linspace(-0.7, 1.1, 7),
    "far from zero": 1000.0 + np.linspace(0.0, 0.01, 6),
    "minute": 1e-6 * np.array([0.1, 0.3, 0.35, 0.351, 2.0]),
    "falling": np.array([3.0, 2.9, 1.7, 0.4, 0.0]),
}
times = st.floats(-50.0, 50.0).map(lambda t: t if abs(t) > 1e-9 else 0.0)
wide = st.lists(times, min_size=3, max_size=8, unique_by=lambda t: round(t, 4))


def increments(path: Brownian, grid: np.ndarray) -> Tensor:
    return torch.stack([path.increment(a, b) for a, b in pairwise(grid)])


@given(seed=st.integers(0, 2**64 - 1), grid=wide, data=st.data())
@settings(max_examples=40)
def test_increments_add_up_bit_for_bit_on_every_grid_in_every_order(
    seed: int, grid: list[float], data: st.DataObject
) -> None:
    path, grid = Brownian(seed, (4,)), sorted(grid)
    parts = list(increments(path, np.array(grid)))
    total = torch.zeros(4, dtype=torch.float64)
    for part in data.draw(st.permutations(parts)):
        total = total + part
    coarse = Brownian(seed, (4,)).increment(grid[0], grid[-1])
    assert torch.equal(total, coarse)
    assert coarse.abs().min() > 0


@given(seed=st.integers(0, 2**64 - 1), asked=wide, data=st.data())
@settings(max_examples=40)
def test_a_value_depends_on_seed_and_time_alone(
    seed: int, asked: list[float], data: st.DataObject
) -> None:
    alone = {t: Brownian(seed, (3, 2))(t) for t in asked}
    path = Brownian(seed, (3, 2))
    for t in data.draw(st.permutations(asked * 2)):
        assert torch.equal(path(t), alone[t])


def test_a_long_walk_and_a_way_back_meet_the_same_values() -> None:
    path, grid = Brownian(5, (2,)), np.arange(401) / 400 * 7.3
    there = torch.stack([path(t) for t in grid])
    back = torch.stack([path(t) for t in grid[::-1]]).flip(0)
    fresh = torch.stack([Brownian(5, (2,))(t) for t in grid[::40]])
    assert torch.equal(there, back)
    assert torch.equal(there[::40], fresh)


def test_values_are_multiples_of_the_quantum() -> None:
    multiples = Brownian(2, (1000,))(0.3) / QUANTUM
    assert torch.equal(multiples, multiples.round())
    assert multiples.abs().max() < 2**53


@pytest.mark.parametrize("name", GRIDS)
def test_increments_are_independent_normal_numbers(name: str) -> None:
    grid = GRIDS[name]
    h = torch.from_numpy(np.abs(np.diff(grid)))[:, None]
    scaled = increments(Brownian(11, (PATHS,)), grid) / h.sqrt()
    for row in scaled:
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-3
    # tr((S - I)^2) N / 2 is chi-square: all variances and all covariances at once.
    k = len(scaled)
    S = scaled @ scaled.T / PATHS
    statistic = 0.5 * PATHS * float((S - torch.eye(k, dtype=torch.float64)).square().sum())
    assert 1e-3 < stats.chi2(k * (k + 1) / 2).cdf(statistic) < 1 - 1e-3


def test_times_that_nearly_meet_have_the_increment_of_their_distance() -> None:
    # One of them a node of the tree, both inside different leaves, across a power of two.
    for a, b in ((0.5, 0.5 + 1e-9), (0.3, 0.3 + 1e-7), (1 - 1e-9, 1 + 1e-9)):
        scaled = Brownian(3, (PATHS,)).increment(a, b) / math.sqrt(b - a)
        assert stats.kstest(scaled.numpy(), "norm").pvalue > 1e-3


def test_the_middle_of_a_refined_step_is_that_of_a_bridge() -> None:
    path = Brownian(8, (PATHS,))
    first, last = path(0.2), path(0.8)
    theta = (0.5 - 0.2) / 0.6
    rest = path(0.5) - (1 - theta) * first - theta * last
    assert stats.kstest((rest / math.sqrt(0.6 * theta * (1 - theta))).numpy(), "norm").pvalue > 1e-3
    ends = torch.stack([rest, first, last - first])
    assert torch.corrcoef(ends)[0, 1:].abs().max() < 4 / math.sqrt(PATHS)


def test_neighbours_in_space_and_seed_are_not_correlated() -> None:
    values = [Brownian(seed, (PATHS,), part=part)(0.7) for seed in (1, 2) for part in (0, 1)]
    values += [
        values[0].roll(1),
        Brownian(1, (PATHS,))(-0.7),
        Brownian(1, (PATHS,), first=PATHS)(0.7),
    ]
    off = torch.corrcoef(torch.stack(values)).fill_diagonal_(0.0)
    assert off.abs().max() < 4.5 / math.sqrt(PATHS)


def test_a_graph_meets_the_noise_of_its_own_seed_whatever_its_companions() -> None:
    batch = Brownian([4, 9, 6], (10, 2), nodes=[3, 0, 7])(0.3)
    assert torch.equal(batch[:3], Brownian(4, (3, 2))(0.3))
    assert torch.equal(batch[3:], Brownian([6], (7, 2))(0.3))
    one = Brownian(4, (10, 2), nodes=[3, 7])(0.3)
    assert torch.equal(one[:3], batch[:3])
    assert torch.equal(one[3:], Brownian(4, (7, 2), first=3)(0.3))
    assert not torch.equal(one[3:], batch[3:])


def test_further_rows_leave_the_first_ones_as_they_are() -> None:
    assert torch.equal(Brownian(1, (9, 2))(0.3)[:5], Brownian(1, (5, 2))(0.3))


def test_any_shape_has_its_path() -> None:
    assert Brownian(1, ())(0.3).shape == ()
    assert Brownian(1, (2, 3, 4))(0.3).shape == (2, 3, 4)
    assert Brownian(1, (0, 4))(0.3).shape == (0, 4)
    assert torch.equal(Brownian(1, (3,))(0.0), torch.zeros(3, dtype=torch.float64))
    assert Brownian(1, (3,))(0.3).dtype == torch.float64


def test_memory_stays_and_draws_are_few() -> None:
    path, steps = Brownian(1, (5,)), 4096
    for k in range(steps):
        path.increment(k / steps, (k + 1) / steps)
    assert path.draws < 3 * steps
    arrays = {id(end) for cell in path._cells for end in (cell.left, cell.right)}
    assert len(arrays) + len(path._values) + len(path._work) + 1 <= 14
    path, steps = Brownian(1, (5,)), 1000
    for k in range(steps):
        path.increment(k / steps, (k + 1) / steps)
    # 26 - log2(t / h) on average over the steps, and the way down from the root at times.
    assert path.draws < steps * (28 - np.log2(np.arange(1, steps)).mean())


def test_steps_below_the_resolution_are_refused() -> None:
    path = Brownian(1, (2,))
    with pytest.raises(ValueError, match=f"below the resolution 2\\^-{DEPTH}"):
        path.increment(1000.3, 1000.3 + 1e-10)
    with pytest.raises(ValueError, match="rescale the time"):
        path(2.0**HORIZON * 1.1)
    with pytest.raises(ValueError, match="t=nan"):
        path(math.nan)
    assert torch.equal(path.increment(1000.3, 1000.3), torch.zeros(2, dtype=torch.float64))


def test_seeds_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="seed -1 is out of range"):
        Brownian(-1, (2,))
    with pytest.raises(ValueError, match="3 seeds for 2 graphs"):
        Brownian([1, 2, 3], (2,), nodes=[1, 1])
    with pytest.raises(ValueError, match="adds up to 3 rows"):
        Brownian(1, (2,), nodes=[1, 2])
