"""Chebyshev interpolants: coefficients, the promised error, and what cannot be approximated."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy.special import ive
from torch.autograd import gradcheck

from solvers.interpolant import interpolant

FUNCTIONS = {
    "exp": torch.exp,
    "runge": lambda x: 1 / (1 + x**2),
    "root": lambda x: (x + 5).sqrt(),
    "wave": lambda x: torch.sin(3 * x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-12])
def test_the_error_is_within_its_bound_and_the_bound_within_the_tolerance(
    name: str, tol: float
) -> None:
    f = FUNCTIONS[name]
    found = interpolant(f, -2.0, 3.0, tol=tol)
    x = torch.linspace(-2, 3, 4001, dtype=torch.float64)
    error = float((found(x) - f(x)).abs().max())
    assert error <= max(found.error, 1e-13)
    assert found.error <= tol * 1.01
    assert float((found(x[:1]) - f(x[:1])).abs()) < 1e-14 * 20


def test_coefficients_of_an_exponential_are_bessel_functions() -> None:
    c = interpolant(lambda x: torch.exp(4 * (x - 1)), -1.0, 1.0, tol=1e-13).coefficients.numpy()
    expected = 2 * ive(np.arange(len(c)), 4.0)
    expected[0] /= 2
    assert np.allclose(c, expected, rtol=0, atol=1e-13)


@settings(max_examples=20)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9), st.floats(-2, 2), st.floats(0.1, 4))
def test_polynomials_are_found_exactly(c: list[float], lo: float, width: float) -> None:
    def p(x: torch.Tensor) -> torch.Tensor:
        y = (x - lo) / width * 2 - 1
        return torch.from_numpy(chebyshev.chebval(y.numpy(), c))

    found = interpolant(p, lo, lo + width, tol=1e-10)
    padded = np.zeros(max(len(c), found.degree + 1))
    padded[: len(c)] = c
    mine = np.zeros_like(padded)
    mine[: found.degree + 1] = found.coefficients
    assert np.allclose(mine, padded, rtol=0, atol=1e-10)


def test_several_functions_share_a_degree_and_are_differentiable() -> None:
    rate = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)

    def coefficients(rate: torch.Tensor) -> torch.Tensor:
        return interpolant(lambda x: torch.exp(-rate.unsqueeze(1) * x), 0.0, 2.0).coefficients

    assert coefficients(rate).shape[0] == 2
    assert gradcheck(coefficients, rate)


def test_an_interval_of_one_point_needs_a_constant() -> None:
    found = interpolant(torch.exp, 1.0, 1.0)
    assert (found.degree, found.error) == (0, 0.0)
    assert found(torch.tensor([1.0])).item() == pytest.approx(math.e)


@pytest.mark.parametrize("f", [torch.abs, torch.sign, lambda x: 1 / (x - 0.3) ** 2])
def test_kinks_jumps_and_poles_are_refused_with_what_was_reached(f: object) -> None:
    with pytest.raises(ValueError, match=r"leave out .* kink, a jump or a pole"):
        interpolant(f, -1.0, 1.0, tol=1e-8, limit=512)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        interpolant(torch.log, 0.0, 1.0)
