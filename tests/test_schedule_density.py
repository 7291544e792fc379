"""Quantiles of a density: exact inversion, bounds on steps, tempering, cuts, node placement."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde import solve
from solvers.schedules import Cosine, Density, Uniform, get


@st.composite
def densities(draw: st.DrawFn) -> Density:
    count = draw(st.integers(2, 12))
    gaps = draw(st.lists(st.floats(1e-3, 1.0), min_size=count + 1, max_size=count + 1))
    places = np.cumsum(gaps) / np.sum(gaps)
    rates = draw(st.lists(st.floats(0.0, 100.0), min_size=count, max_size=count))
    return Density(
        tuple(places[:-1]),
        (*rates[:-1], rates[-1] + 0.1),
        p=draw(st.sampled_from([1 / 3, 0.5, 1.0, 2.0])),
        mix=draw(st.floats(0.05, 1.0)),
        log1p=draw(st.booleans()),
        cut=draw(st.booleans()),
    )


@given(density=densities(), n=st.integers(1, 60))
@settings(max_examples=80)
def test_steps_keep_to_their_bounds(density: Density, n: int) -> None:
    grid = density.grid(n)
    assert grid.dtype == np.float64
    assert (grid[0], grid[-1], len(grid)) == (0.0, 1.0, n + 1)
    steps = np.diff(grid)
    assert (steps > 0).all()
    assert steps.max() <= 1 / (density.mix * n) * (1 + 1e-9)
    # A straight density is largest at an edge; just inside, for those of a cut.
    inside = np.clip(np.concatenate([np.array(density.nodes) + s for s in (-1e-9, 1e-9)]), 0, 1)
    highest = density.density(np.concatenate([[0.0, 1.0], inside])).max()
    assert steps.min() >= 1 / (n * highest) * (1 - 1e-5)


@given(density=densities(), n=st.integers(2, 30))
@settings(max_examples=50)
def test_times_are_quantiles(density: Density, n: int) -> None:
    np.testing.assert_allclose(density.cdf(density.grid(n)), np.arange(n + 1) / n, atol=1e-12)


def test_the_mass_is_the_integral_of_the_density() -> None:
    density = Density((0.1, 0.3, 0.8), (4.0, 0.0, 2.0), p=0.5, mix=0.3)
    for t in (0.05, 0.2, 0.5, 1.0):
        mass, _ = scipy.integrate.quad(
            lambda s: density.density(np.array([s]))[0], 0, t, points=[0.1, 0.3, 0.8]
        )
        np.testing.assert_allclose(density.cdf(np.array([t])), mass, rtol=1e-9)


def test_a_flat_density_is_uniform() -> None:
    np.testing.assert_allclose(Density.of(np.ones_like).grid(13), Uniform().grid(13), rtol=1e-12)
    steep = Density((0.2, 0.5), (1.0, 9.0), mix=1.0)
    np.testing.assert_allclose(steep.grid(13), Uniform().grid(13), rtol=1e-12)


def test_the_arcsine_density_is_the_cosine_schedule() -> None:
    made = Density.of(lambda t: 1 / np.sqrt(t * (1 - t)), eps=1e-12, nodes=4001)
    np.testing.assert_allclose(made.grid(20), Cosine().grid(20), atol=2e-6)
    squared = Density.of(lambda t: 1 / (t * (1 - t)), eps=1e-12, nodes=4001, p=0.5)
    np.testing.assert_allclose(squared.grid(20), made.grid(20), rtol=1e-10)


def test_the_density_of_t_squared_has_cube_roots() -> None:
    made = Density.of(lambda t: t**2, eps=1e-9, nodes=20001)
    np.testing.assert_allclose(made.grid(8), np.cbrt(np.arange(9) / 8), atol=2e-6)


def test_where_the_nodes_lie_does_not_matter() -> None:
    def rate(t):
        return abs(1 / t - 1 / (1 - t))

    q = np.linspace(0, 1, 3001)
    uniform, squared = (np.concatenate([0.01 + 0.98 * one]) for one in (q, q**2))
    grids = [Density(tuple(t), tuple(rate(t)), 0.5, 0.25).grid(10) for t in (uniform, squared)]
    grids.append(Density.of(rate, eps=0.01, nodes=3001, p=0.5, mix=0.25).grid(10))
    np.testing.assert_allclose(grids[1], grids[0], atol=2e-5)
    np.testing.assert_allclose(grids[2], grids[0], atol=2e-5)


def test_more_nodes_on_the_same_lines_change_nothing() -> None:
    few = Density((0.0, 0.4, 1.0), (3.0, 1.0, 2.0), mix=0.1)
    more = Density((0.0, 0.1, 0.4, 0.7, 1.0), (3.0, 2.5, 1.0, 1.5, 2.0), mix=0.1)
    np.testing.assert_allclose(more.grid(17), few.grid(17), rtol=1e-12)


def test_units_do_not_matter_unless_a_logarithm_is_taken() -> None:
    nodes, rates = (0.0, 0.3, 1.0), np.array([5.0, 1.0, 3.0])
    for p in (1 / 3, 1.0, 200.0):
        small, large = (Density(nodes, tuple(rates * s), p=p, mix=0.1) for s in (1e-3, 1e3))
        np.testing.assert_allclose(large.grid(9), small.grid(9), rtol=1e-10)
    logs = Density(nodes, tuple(rates), log1p=True)
    np.testing.assert_allclose(logs.grid(9), Density(nodes, tuple(np.log1p(rates))).grid(9), 1e-13)


def test_rates_are_held_beyond_the_nodes_or_cut() -> None:
    held = Density((0.2, 0.6), (1.0, 1.0))
    np.testing.assert_allclose(held.grid(5), Uniform().grid(5), rtol=1e-13)
    cut = Density((0.2, 0.6), (1.0, 1.0), cut=True)
    np.testing.assert_allclose(cut.grid(4), [0.0, 0.3, 0.4, 0.5, 1.0], rtol=1e-13)
    mixed = dataclasses.replace(cut, mix=0.5)
    t = np.array([0.1, 0.4, 0.9])
    np.testing.assert_allclose(mixed.density(t), [0.5, 1.75, 0.5], rtol=1e-13)
    np.testing.assert_allclose(mixed.cdf(t), [0.05, 0.45, 0.95], rtol=1e-13)


def test_a_rate_with_a_zero_makes_no_giant_step_when_mixed() -> None:
    nodes = tuple(np.linspace(0, 1, 101))
    rates = tuple(abs(2 * node - 1) ** 3 for node in nodes)
    assert np.diff(Density(nodes, rates).grid(20)).max() > 0.2
    assert np.diff(Density(nodes, rates, mix=0.5).grid(20)).max() <= 0.1


def test_the_grid_is_the_root_of_the_mass() -> None:
    density = Density((0.0, 0.25, 1.0), (0.0, 2.0, 1.0), p=2.0, mix=0.05)
    for i in range(1, 7):
        root = scipy.optimize.brentq(
            lambda t, i=i: density.cdf(np.array([t]))[0] - i / 7, 0, 1, xtol=1e-15
        )
        np.testing.assert_allclose(density.grid(7)[i], root, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Density((0.1,), (1.0,)), "two or more"),
        (lambda: Density((0.1, 0.2), (1.0,)), "2 nodes, 1 rates"),
        (lambda: Density((0.2, 0.1), (1.0, 1.0)), "increase strictly"),
        (lambda: Density((0.0, 1.1), (1.0, 1.0)), r"inside \[0, 1\]"),
        (lambda: Density((0.0, math.nan), (1.0, 1.0)), "increase strictly"),
        (lambda: Density((0.0, 1.0), (math.inf, 1.0)), r"not finite at \[0.\]"),
        (lambda: Density((0.0, 1.0), (-1.0, 1.0)), "modulus of a signed rate"),
        (lambda: Density((0.0, 1.0), (0.0, 0.0)), "not all 0"),
        (lambda: Density((0.0, 1.0), (1.0, 1.0), p=0.0), "p must be positive"),
        (lambda: Density((0.0, 1.0), (1.0, 1.0), mix=1.1), "mix from 0 to 1"),
        (lambda: Density((0.0, 1.0), (1.0, 1.0)).cdf(np.array([1.5])), r"lie in \[0, 1\]"),
        (lambda: Density((0.0, 1.0), (1.0, 1.0)).grid(0), "0 steps"),
    ],
)
def test_what_is_no_density_is_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_densities_are_frozen_and_keep_where_they_came_from() -> None:
    source = {"rate": "condmarg"}
    density = Density(np.array([0.0, 1.0]), [1, 2], provenance=source)
    source["rate"] = "changed"
    assert density.provenance == {"rate": "condmarg"}
    assert density.nodes == (0.0, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        density.p = 2.0


@pytest.mark.parametrize("schedule", ["linear", "ays", Density((0.1, 0.9), (1.0, 3.0), 0.5, 0.25)])
def test_solves_step_on_the_grid(schedule) -> None:
    x0 = torch.ones(1, dtype=torch.float64)
    run = solve(lambda t, x: -x, x0, (2.0, 4.0), steps=5, schedule=schedule, save="steps")
    np.testing.assert_allclose(run.t.numpy(), 2 + 2 * get(schedule).grid(5), rtol=1e-14)
    with pytest.raises(ValueError, match="give steps too"):
        solve(lambda t, x: -x, x0, 1.0, schedule=schedule)
