"""The polynomials of rkl2: order, length and shape of the stability region."""

import numpy as np
import pytest
from numpy.polynomial import Legendre

from solvers.legendre import amplification, reach, room, stages

SIZES = [3, 5, 9, 31, 141]


def closed_form(z: complex, s: int) -> complex:
    """1 - b + b P_s(1 + 4 z / (s^2+s-2)), the Legendre polynomial by numpy."""
    b = (s * s + s - 2) / (2 * s * (s + 1))
    return complex(1 - b + b * Legendre.basis(s)(1 + 4 * z / (s * s + s - 2)))


@pytest.mark.parametrize("s", SIZES)
def test_the_polynomial_is_legendres(s: int) -> None:
    points = np.array([0, -1, -3.0 + 2j, -float(reach(s)), 0.5j, 0.2])
    wanted = [closed_form(complex(z), s) for z in points]
    np.testing.assert_allclose(amplification(points, np.array(s)), wanted, atol=1e-11)
    several = amplification(points[:, None], np.array([3, s]))
    np.testing.assert_allclose(several[:, 1], wanted, atol=1e-11)


@pytest.mark.parametrize("s", SIZES)
def test_the_polynomial_agrees_with_the_exponential_to_order_two(s: int) -> None:
    circle = 0.5 * np.exp(2j * np.pi * np.arange(16) / 16)
    taylor = np.fft.fft([closed_form(z, s) for z in circle]).real / 16 / 0.5 ** np.arange(16)
    third = (s * s + s - 6) / (9 * (s * s + s - 2))
    np.testing.assert_allclose(taylor[:4], [1, 1, 0.5, third], atol=1e-9)


def test_numbers_of_stages_are_the_smallest_odd_ones_that_reach() -> None:
    lengths = np.array([0.0, 4.99, 5.0, 5.01, 13.9, 14.1, 1e3, 1e4])
    s = stages(lengths)
    assert (s % 2 == 1).all()
    assert (reach(s) >= lengths * (1 - 1e-9)).all()
    assert (reach(s - 2)[s > 3] < lengths[s > 3]).all()


def heights(s: int, real: list[float]) -> list[float]:
    """How far the region reaches above these points of the real axis, by the closed form."""
    y = np.arange(0, 12, 0.01)
    z = np.array(real)[:, None] + 1j * y
    b = (s * s + s - 2) / (2 * s * (s + 1))
    stable = np.abs(1 - b + b * Legendre.basis(s)(1 + 4 * z / (s * s + s - 2))) <= 1 + 1e-9
    return [float(y[row.argmin() - 1]) if not row.all() else np.inf for row in stable]


def test_the_region_is_as_high_as_documented() -> None:
    assert heights(31, [-1, -5, -10]) == pytest.approx([2.71, 3.07, 7.1], abs=0.1)
    assert heights(5, [-1, -5]) == pytest.approx([2.48, 2.17], abs=0.1)
    for s in (3, 5, 31):
        assert heights(s, [-float(reach(s))])[0] == pytest.approx(0.95, abs=0.1)
    # With imaginary parts up to 1, five stages are good until shortly before their end.
    assert min(heights(5, list(np.linspace(-13.4, -0.3, 60)))) >= 1
    assert min(heights(31, list(np.linspace(-480, -8, 60)))) >= 4.5


@pytest.mark.parametrize(
    "values",
    [[-1 + 1j], [-2 + 0.3j, -1 + 0.5j], [-1 + 0.05j, -1.2], [-0.2 + 1j, -1.5], [-3 + 0.5j, 2j]],
)
def test_steps_within_the_room_damp_all_eigenvalues(values: list[complex]) -> None:
    known = np.array(values)
    radius = float(np.abs(known).max())
    longest, spare = room(known, radius)
    damped = np.outer([1.0, 0.6, 0.3], known[known.real < 0]).ravel()
    for h in np.geomspace(1.2, min(longest * radius, 1500.0), 40) / radius:
        s = int(stages(np.array([h * spare * radius]))[0])
        # The grid on which the room was searched is coarse: 2 % of growth is its resolution.
        assert all(abs(closed_form(h * one, s)) <= 1.02 for one in damped), (h * radius, s)
