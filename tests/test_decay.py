"""Laws of decay, recovered from data that obey them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analysis import fit_decay
from neuralpde import catalogue, solve
from neuralpde.fields import Heat
from solvers.series import Series


def times(end: float = 10.0, points: int = 101) -> Tensor:
    return torch.linspace(0, end, points, dtype=torch.float64)


@settings(max_examples=20)
@given(st.floats(0.01, 5.0), st.floats(1e-8, 1e8))
def test_an_exponential_is_found_exactly(rate: float, level: float) -> None:
    t = times()
    found = fit_decay(Series(t, level * torch.exp(-rate * t)))
    assert found.law.name == "exponential"
    assert found.exponential.rate == pytest.approx(rate, rel=1e-8)
    torch.testing.assert_close(found.law(t), level * torch.exp(-rate * t), rtol=1e-6, atol=0)
    assert found.steadiness > 0.95


@settings(max_examples=20)
@given(st.floats(0.3, 6.0), st.floats(0.5, 20.0))
def test_a_power_law_and_its_origin_are_found(exponent: float, shift: float) -> None:
    t = times()
    found = fit_decay(Series(t, 3.0 * (t + shift) ** -exponent))
    assert found.law.name == "power"
    assert found.power.rate == pytest.approx(exponent, rel=1e-2)
    assert found.power.origin == pytest.approx(-shift, rel=2e-2)
    assert found.steadiness == pytest.approx((5 + shift) / (10 + shift), rel=1e-2)


def test_the_standard_error_covers_the_truth_under_noise() -> None:
    t, inside = times(), 0
    for seed in range(200):
        noise = torch.randn(len(t), generator=torch.Generator().manual_seed(seed)).double()
        found = fit_decay(Series(t, torch.exp(-0.7 * t + 0.1 * noise)), start=0.0)
        inside += abs(found.exponential.rate - 0.7) < 2 * found.exponential.error
    # 95 % of 200 is 190, with a standard deviation of 3.
    assert 180 <= inside <= 199


def test_a_crowd_of_small_steps_weighs_no_more_than_the_time_it_takes() -> None:
    sparse = times(10.0, 51)
    crowded = torch.cat([torch.linspace(5.0, 5.2, 400, dtype=torch.float64)[1:-1], sparse]).sort()[
        0
    ]

    def bent(t: Tensor) -> Tensor:
        return torch.exp(-t - 0.02 * t.square())

    even, uneven = (fit_decay(Series(t, bent(t))).exponential.rate for t in (sparse, crowded))
    assert uneven == pytest.approx(even, rel=5e-3)


@pytest.mark.parametrize("norm", ["comb", "sym"])
def test_heat_decays_at_twice_the_spectral_gap(norm: str) -> None:
    graph = catalogue.grid(10, 10)
    gap = torch.linalg.eigvalsh(graph.laplacian(norm, dtype=torch.float64).to_dense())[1]
    x0 = torch.rand(100, 4, generator=torch.Generator().manual_seed(0)).double()
    traj = solve(Heat(norm), x0, 8 / float(gap), graph)
    found = fit_decay(traj.energy)
    assert found.law.name == "exponential" or found.steadiness > 0.95
    assert found.exponential.rate == pytest.approx(2 * float(gap), rel=1e-2)


def test_values_below_the_floor_play_no_part() -> None:
    t = times()
    y = torch.exp(-4 * t) + 1e-6
    found = fit_decay(Series(t, y, floor=torch.full_like(t, 1e-4)), start=0.5)
    assert found.end < 2.5
    assert found.exponential.rate == pytest.approx(4.0, rel=1e-2)


def test_too_little_is_refused_with_the_remedy() -> None:
    t = times(1.0, 5)
    with pytest.raises(ValueError, match="holds 5 positive values"):
        fit_decay(Series(t, torch.exp(-t)))
    with pytest.raises(ValueError, match="2 graphs"):
        fit_decay(Series(t, torch.ones(5, 2)))
    assert math.isfinite(fit_decay(Series(times(), torch.ones(101))).exponential.rate)
