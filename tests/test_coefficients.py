"""Coefficients of exponential series against mpmath and the functions themselves."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.chebyshev import chebval

from solvers.coefficients import (
    degree_bound,
    exponential,
    integral,
    phi_1,
    poisson,
    poisson_integral,
    power_integral,
)
from solvers.energy_coefficients import energy
from solvers.weights import Table

arguments = st.floats(1e-8, 3e3)
tails = st.floats(1e-14, 1e-2)
GRID = np.cos(np.linspace(0, np.pi, 401))


def left_out(z: float, degree: int) -> float:
    """Mass of the coefficients beyond a degree, in multiple precision."""
    with mpmath.workdps(40):
        kept = mpmath.besseli(0, z)
        kept += 2 * mpmath.fsum(mpmath.besseli(k, z) for k in range(1, degree + 1))
        return float(1 - kept * mpmath.exp(-z))


@given(arguments, tails)
def test_exponential_series_keeps_its_tolerance_and_the_kernel(z: float, tail: float) -> None:
    weights = exponential(z, tail)
    error = np.abs(chebval(GRID, weights) - np.exp(-z * (1 - GRID)))
    assert error.max() <= tail + (z + 20) * 2e-16
    assert (weights > 0).all()
    assert math.fsum(weights) == pytest.approx(1, abs=3e-15)


@pytest.mark.parametrize(("z", "tail"), [(0.3, 1e-6), (18.3, 1e-4), (200.0, 1e-12)])
def test_exponential_degree_is_the_smallest_that_leaves_out_half_the_tolerance(
    z: float, tail: float
) -> None:
    degree = len(exponential(z, tail)) - 1
    assert 2 * left_out(z, degree) <= tail < 2 * left_out(z, degree - 1)


@pytest.mark.parametrize("z", [1e-8, 0.7, 18.3, 300.0])
@pytest.mark.parametrize("tail", [1e-3, 1e-9, 1e-15])
def test_degree_bound_bounds_the_mass_left_out(z: float, tail: float) -> None:
    degree = int(degree_bound(z, tail))
    assert left_out(z, degree) <= tail
    assert degree <= 1.5 * (len(exponential(z, tail)) - 1) + 3


@given(arguments, st.floats(-5.0, 5.0), tails)
def test_integral_series_keeps_its_tolerance(z: float, growth: float, tail: float) -> None:
    weights = integral(z, growth, tail)
    error = np.abs(chebval(GRID, weights) - phi_1(growth - z * (1 - GRID)))
    assert error.max() <= (tail + (z + 20) * 4e-16) * phi_1(np.float64(growth))


@given(st.floats(0.0, 50.0), st.floats(-3.0, 1.0), st.floats(1e-6, 100.0), tails)
def test_energy_series_knows_what_it_leaves_out(
    t: float, lo: float, width: float, tail: float
) -> None:
    lo = lo if t < 1 else max(lo, 0.0)
    hi = lo + width
    weights, beyond = energy(np.array([0.0, t]), lo, hi, tail)
    eigenvalue = lo + width * (1 - GRID) / 2
    for time, row, rest in zip((0.0, t), weights, beyond, strict=True):
        error = np.abs(chebval(GRID, row) - eigenvalue * np.exp(-2 * time * eigenvalue))
        assert error.max() <= rest + 1e-13 * max(abs(lo), abs(hi)) * math.exp(-2 * time * lo)


@pytest.mark.parametrize("q", [1e-9, 0.4, 18.3, 500.0, 3e4])
@pytest.mark.parametrize("tail", [1e-4, 1e-12])
def test_poisson_weights_leave_out_half_the_tolerance(q: float, tail: float) -> None:
    weights = poisson(q, tail)
    kept = np.flatnonzero(weights)
    with mpmath.workdps(30):
        # scipy's own weights are only good to 1e-11 at q = 3e4.
        exact = [mpmath.exp(k * mpmath.log(q) - q - mpmath.loggamma(k + 1)) for k in map(int, kept)]
        beyond = float(1 - mpmath.fsum(exact))
        off = float(mpmath.fsum(abs(w - e) for w, e in zip(weights[kept], exact, strict=True)))
    assert off + beyond <= tail
    assert off <= beyond + 1e-13
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert beyond + exact[-1] > 0.49 * tail


@pytest.mark.parametrize("q", [1e-9, 0.4, 18.3, 500.0])
def test_integrals_of_poisson_weights_are_those_of_the_exponential(q: float) -> None:
    # P = c: both sides are numbers.
    for c in (0.0, 0.3, 1.0):
        walk, power = poisson_integral(q, 1e-12), power_integral(q, 1e-12)
        total = float(phi_1(np.float64(q)))
        assert walk @ c ** np.arange(len(walk)) == pytest.approx(
            float(phi_1(np.float64(q * (c - 1)))), abs=2e-12
        )
        assert power @ c ** np.arange(len(power)) == pytest.approx(
            float(phi_1(np.float64(q * c))), abs=2e-12 * total
        )
        assert (walk >= 0).all()
        assert (power >= 0).all()


def test_zero_arguments_leave_the_identity() -> None:
    for weights in (exponential(0.0, 1e-9), integral(0.0, 0.0, 1e-9), poisson(0.0, 1e-9)):
        assert weights.tolist() == [1.0]


@pytest.mark.parametrize("series", [exponential, poisson])
def test_arguments_beyond_reach_are_refused(series) -> None:
    with pytest.raises(ValueError, match="shorten the interval"):
        series(1e12, 1e-4)


def test_tables_of_shared_and_of_own_weights_add_the_same_bits() -> None:
    batch = torch.tensor([0, 0, 0, 1, 1])
    v, y = torch.randn(5, 7), torch.randn(5, 7)
    weights = exponential(2.0, 1e-6)
    own = [weights, np.append(weights, 0.0)]
    shared, separate = Table([weights] * 2, batch, v), Table(own, batch, v)
    for k in range(len(weights)):
        left, right = y.clone(), y.clone()
        shared.add(k, v, left)
        separate.add(k, v, right)
        assert torch.equal(left, right)
    assert torch.equal(shared.begin(v), separate.begin(v))


def test_beyond_its_degree_a_graph_adds_nothing() -> None:
    batch = torch.tensor([0, 1])
    table = Table([np.ones(1), np.ones(3)], batch, torch.zeros(2, 1))
    y = torch.tensor([[0.1], [0.1]])
    table.add(2, torch.full((2, 1), 1e30), y)
    assert y[0].item() == torch.tensor(0.1).item()
    assert y[1].item() == torch.tensor(1e30).item()
    assert table.degree == 2
