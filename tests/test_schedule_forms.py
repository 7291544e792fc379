"""Formulas of schedules: printed values, sources, mirrors, densities found by root-finding."""

import math

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.schedules import (
    AlignYourSteps,
    Beta,
    BridgeEntropy,
    BridgeSpread,
    Cosine,
    Density,
    Karras,
    LogitUniform,
    Points,
    Power,
    Quantiles,
    Reversed,
    Shift,
    Sigmoid,
    Uniform,
    get,
)


def quantile(rate, q: float, low: float, high: float, *, kinks: tuple[float, ...] = ()) -> float:
    """Where a fraction q of a rate's integral lies, in 20 digits: quadrature, and regula falsi."""
    with mpmath.workdps(20):
        marks = [low, *kinks, high]
        parts = [mpmath.quad(rate, marks[i : i + 2]) for i in range(len(marks) - 1)]
        rest = mpmath.mpf(q) * mpmath.fsum(parts)
        cell = 0
        while cell < len(parts) - 1 and rest > parts[cell]:
            rest -= parts[cell]
            cell += 1
        start = mpmath.mpf(marks[cell])

        def gap(t):
            return mpmath.quad(rate, [start, t]) - rest

        ends = (start, mpmath.mpf(marks[cell + 1]))
        return float(mpmath.findroot(gap, ends, solver="anderson", tol=1e-17, verify=False))


def test_the_cosine_is_the_arcsine_law() -> None:
    np.testing.assert_allclose(Beta(0.5, 0.5).grid(37), Cosine().grid(37), rtol=1e-12)
    np.testing.assert_allclose(
        Cosine().grid(10)[1:-1], scipy.stats.arcsine.ppf(np.arange(1, 10) / 10), rtol=1e-13
    )


def test_flat_members_of_families_are_uniform() -> None:
    for schedule in (Beta(1.0, 1.0), Power(1.0), Shift(1.0), Sigmoid(1e-9)):
        np.testing.assert_allclose(schedule.grid(9), Uniform().grid(9), rtol=1e-9)
    assert get("linear") == Uniform()


@given(a=st.floats(0.4, 3.0), b=st.floats(0.4, 3.0), n=st.integers(1, 30))
@settings(max_examples=20)
def test_beta_has_the_quantiles_of_scipy(a: float, b: float, n: int) -> None:
    wanted = scipy.stats.beta(a, b).ppf(np.arange(n + 1) / n)
    np.testing.assert_allclose(Beta(a, b).grid(n), wanted, rtol=1e-10)


@pytest.mark.parametrize("k", [1e-3, 1.0, 6.0, 12.0, 40.0])
def test_the_sigmoid_is_a_stretched_logistic_curve(k: float) -> None:
    with mpmath.workdps(40):
        curve = [1 / (1 + mpmath.exp(-k * (mpmath.mpf(i) / 10 - 0.5))) for i in range(11)]
        wanted = [float((one - curve[0]) / (curve[-1] - curve[0])) for one in curve]
    np.testing.assert_allclose(Sigmoid(k).grid(10), wanted, rtol=1e-12)


def test_logits_are_equally_spaced_between_the_ends() -> None:
    grid = LogitUniform(1e-4).grid(12)
    logits = np.log(grid[1:-1] / (1 - grid[1:-1]))
    step = math.log((1 - 1e-4) / 1e-4) / 6
    np.testing.assert_allclose(np.diff(logits), step, rtol=1e-10)
    np.testing.assert_allclose(logits[5], 0, atol=1e-12)


def test_aligned_steps_are_the_tangent_grid() -> None:
    grid = AlignYourSteps(0.3).grid(8)[1:-1]
    angles = np.arctan((1 - grid) / grid / 0.3)
    np.testing.assert_allclose(angles, np.pi / 2 * (1 - np.arange(1, 8) / 8), rtol=1e-13)
    q = np.pi / 2 * np.arange(1, 8) / 8
    trig = np.sin(q) / (np.sin(q) + np.cos(q))
    np.testing.assert_allclose(get("trig").grid(8)[1:-1], trig, rtol=1e-14)


@pytest.mark.parametrize("s", [0.3, 1.15, 3.0])
def test_the_shift_moves_noise_levels(s: float) -> None:
    y = 1 - np.arange(11) / 10
    np.testing.assert_allclose(1 - Shift(s).grid(10), s * y / (1 + (s - 1) * y), atol=1e-15)


def test_karras_levels_run_from_80_to_two_thousandths() -> None:
    levels = Karras().levels(18)
    assert (levels[0], levels[-1], len(levels)) == (80.0, 0.002, 18)
    np.testing.assert_allclose(np.diff(levels ** (1 / 7), n=2), 0, atol=1e-14)
    grid = Karras().grid(18)
    np.testing.assert_allclose((1 - grid[1:-1]) / grid[1:-1], levels[1:], rtol=1e-12)
    assert grid[0] < 1 / (1 + 80)
    assert grid[1] > 1 / (1 + 80)
    assert Karras().grid(1).tolist() == [0.0, 1.0]


# The printed grids are those of the reference, to four digits.
PRINTED = {
    BridgeEntropy(eps=0.01): (0.0202, 0.0407, 0.0826, 0.1712, 0.5, 0.8288, 0.9174, 0.9593, 0.9798),
    BridgeEntropy(sigma=math.sqrt(2), eps=0.01): (0.0193, 0.0374, 0.0742, 0.1551, 0.5),
    BridgeSpread(): (0.0101, 0.0417, 0.1, 0.2, 0.5, 0.8, 0.9, 0.9583, 0.9899),
    AlignYourSteps(): (0.1367, 0.2452, 0.3375, 0.4208, 0.5),
    Beta(): (0.0396, 0.1229, 0.234, 0.3627, 0.5),
}


@pytest.mark.parametrize("schedule", PRINTED, ids=lambda one: one.name)
def test_grids_have_the_printed_values(schedule) -> None:
    wanted = PRINTED[schedule]
    assert schedule.grid(10)[1 : len(wanted) + 1].round(4).tolist() == list(wanted)


@pytest.mark.parametrize(
    ("s0", "s1", "sigma", "c", "eps"),
    [
        (1.0, 1.0, 1.0, 0.0, 0.01),
        (1.0, 1.0, 0.5, 0.6, 0.02),
        (0.3, 2.0, 1.0, 0.0, 1e-3),
        (2.0, 0.7, 0.3, -0.9, 0.05),
    ],
)
def test_bridge_entropy_grids_are_quantiles_of_the_rate(s0, s1, sigma, c, eps) -> None:
    def rate(t):
        variance = ((1 - t) * s0) ** 2 + (t * s1) ** 2 + (2 * c + sigma**2) * t * (1 - t)
        return abs(((1 - t) * s0) ** 2 - (t * s1) ** 2) / (2 * t * (1 - t) * variance)

    turn = s0 / (s0 + s1)
    grid = BridgeEntropy(s0, s1, sigma, c, eps).grid(10)
    chosen = [1, 2, 4, 8, 9]
    wanted = [quantile(rate, i / 10, eps, 1 - eps, kinks=(turn,)) for i in chosen]
    assert (abs(np.array(wanted) - turn) > 0.01).all()  # there the inverse is a square root
    np.testing.assert_allclose(grid[chosen], wanted, rtol=1e-12)
    assert abs(grid - turn).min() < 0.25


def test_conditional_grids_halve_the_logarithm_of_t_times_1_minus_t() -> None:
    eps, n = 0.01, 10
    grid = BridgeEntropy(sigma=math.sqrt(2), eps=eps).grid(n)
    q = np.arange(1, 5) / 5
    wanted = np.exp(math.log(eps * (1 - eps)) * (1 - q) + math.log(0.25) * q)
    found = [
        scipy.optimize.brentq(lambda t, w=w: t * (1 - t) - w, 0, 0.5, xtol=1e-16) for w in wanted
    ]
    np.testing.assert_allclose(grid[1:5], found, rtol=1e-12)
    np.testing.assert_allclose(grid[6:-1], 1 - np.array(found)[::-1], rtol=1e-12)


def test_spread_grids_change_the_deviation_equally() -> None:
    grid = BridgeSpread().grid(20)
    deviation = np.sqrt(grid * (1 - grid))
    np.testing.assert_allclose(deviation[:11], np.arange(11) / 20, rtol=1e-12)
    np.testing.assert_allclose(deviation[10:], 0.5 - np.arange(11) / 20, atol=1e-8)


def test_aligned_steps_are_quantiles_of_the_loss() -> None:
    c = 0.4
    wanted = [
        quantile(lambda t: c / (c**2 * t**2 + (1 - t) ** 2), i / 7, 0, 1) for i in range(1, 7)
    ]
    np.testing.assert_allclose(AlignYourSteps(c).grid(7)[1:-1], wanted, rtol=1e-12)


MIRRORED = [
    Uniform(),
    Cosine(),
    Beta(0.4, 1.7),
    Power(3.0),
    Sigmoid(9.0),
    LogitUniform(0.01),
    AlignYourSteps(0.3),
    Shift(2.5),
    Karras(),
    BridgeEntropy(0.5, 1.5, 0.8, 0.1),
    BridgeSpread(),
    Density((0.1, 0.2, 0.7), (3.0, 1.0, 2.0), 0.5, 0.2),
    Density((0.1, 0.2, 0.7), (3.0, 1.0, 2.0), 0.5, 0.2, cut=True),
    Quantiles((0.0, 0.1, 0.15, 1.0)),
]


@pytest.mark.parametrize("schedule", MIRRORED, ids=lambda one: one.name)
def test_reversed_grids_are_mirrored(schedule) -> None:
    for n in (1, 2, 7, 30):
        mirrored = 1 - schedule.grid(n)[::-1]
        np.testing.assert_allclose(schedule.reverse().grid(n), mirrored, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(schedule.reverse().reverse().grid(n), schedule.grid(n), 1e-9)


def test_the_mirror_of_a_power_is_dense_at_the_data() -> None:
    q = np.arange(9) / 8
    np.testing.assert_allclose(Power(2.5).reverse().grid(8), 1 - (1 - q) ** 2.5, atol=1e-15)
    assert Reversed(Power(2.5)).reverse() == Power(2.5)
    assert Points((0.0, 0.25, 1.0)).reverse() == Points((0.0, 0.75, 1.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Beta(0.0, 1.0), "both must be positive"),
        (lambda: Beta(1.0, math.inf), "both must be positive"),
        (lambda: Sigmoid(0.0), "k must be positive"),
        (lambda: LogitUniform(0.5), "eps must lie"),
        (lambda: AlignYourSteps(-1.0), "c must be positive"),
        (lambda: Shift(math.nan), "s must be positive"),
        (lambda: Karras(low=2.0, high=1.0), "0 < low < high"),
        (lambda: BridgeEntropy(sigma=0.0), "must be positive"),
        (lambda: BridgeEntropy(c=1.1), "at most s0 s1 = 1"),
        (lambda: BridgeEntropy(s0=1.0, s1=9.0, eps=0.1), "between 0 and 0.1"),
        (lambda: Karras().grid(0), "0 steps"),
        (lambda: Sigmoid(200.0).grid(500), "increase strictly"),
    ],
)
def test_parameters_without_a_grid_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_only_what_can_be_written_is_reversed() -> None:
    with pytest.raises(TypeError, match=r"solvers\.schedules"):
        Reversed("power")
