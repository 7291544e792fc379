"""Bessel coefficients of unitary series against mpmath and the functions themselves."""

import cmath

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.bessel import bessel, bessel_degree, rotation


def exact(z: float, degree: int) -> list[float]:
    """J_0(z), J_1(z), ... in multiple precision."""
    with mpmath.workdps(40):
        return [float(mpmath.besselj(k, z)) for k in range(degree + 1)]


@pytest.mark.parametrize("z", [1e-300, 1e-9, 0.3, 1.0, 18.3, 300.0])
def test_bessel_functions_are_those_of_mpmath_to_rounding(z: float) -> None:
    degree = int(bessel_degree(z, 1e-22))
    np.testing.assert_allclose(bessel(z, degree), exact(z, degree), rtol=0, atol=4e-16)


@given(st.floats(1e-8, 1e3), st.floats(1e-13, 1e-2))
def test_the_series_turns_by_the_right_phase(z: float, tail: float) -> None:
    weights, angles = rotation(z, tail), np.linspace(0, np.pi, 23)
    k = np.arange(len(weights))
    series = np.cos(np.outer(angles, k)) @ (weights * (-1j) ** (k % 4))
    off = np.abs(series - np.exp(-1j * z * np.cos(angles)))
    assert off.max() <= tail + (z + 20) * 2e-15


@pytest.mark.parametrize(("z", "tail"), [(0.3, 1e-6), (18.3, 1e-4), (200.0, 1e-12)])
def test_the_degree_is_the_smallest_that_suffices_and_its_bound_is_one(
    z: float, tail: float
) -> None:
    degree, bound = len(rotation(z, tail)) - 1, int(bessel_degree(z, tail))
    sizes = 2 * np.abs(exact(z, int(bessel_degree(z, 1e-22))))
    assert sizes[degree + 1 :].sum() <= tail < sizes[degree:].sum()
    assert sizes[bound + 1 :].sum() <= tail
    assert degree <= bound <= 1.1 * degree + 6


def test_a_phase_of_zero_leaves_the_identity() -> None:
    assert rotation(0.0, 1e-9).tolist() == [1.0]
    assert bessel_degree(0.0, 1e-9) == 0.0


def test_phases_beyond_reach_are_refused() -> None:
    with pytest.raises(ValueError, match="shorten the interval"):
        rotation(1e12, 1e-4)


def test_the_coefficients_make_the_closed_form_of_two_nodes() -> None:
    # cos z = J_0 - 2 J_2 + 2 J_4 - ..., sin z = 2 J_1 - 2 J_3 + ...
    for z in (0.5, 7.0, 90.0):
        weights = rotation(z, 1e-15)
        k = np.arange(len(weights))
        assert abs((weights * (-1j) ** (k % 4)).sum() - cmath.exp(-1j * z)) < 1e-13
