"""Series: what lies below the floor is no number, rates and integrals of exponentials are exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers.series import Series


def times(count: int = 40, end: float = 3.0) -> Tensor:
    """Uneven times from 0 to `end`."""
    return end * torch.linspace(0, 1, count, dtype=torch.float64) ** 1.5


@settings(max_examples=25)
@given(st.floats(-20, 5), st.floats(1e-6, 1e6), st.integers(4, 50))
def test_exponentials_have_their_rate_and_integral(rate: float, level: float, count: int) -> None:
    t = times(count)
    series = Series(t, level * torch.exp(rate * t))
    assert series.rate() == pytest.approx(rate, rel=1e-9, abs=1e-9)
    assert series.rate(0.0, 3.0) == pytest.approx(rate, rel=1e-9, abs=1e-9)
    exact = level * (math.expm1(3 * rate) / rate if rate else 3.0)
    assert series.integral() == pytest.approx(exact, rel=1e-7)


def test_the_rate_is_that_of_the_window() -> None:
    t = times()
    series = Series(t, torch.exp(-t) + torch.exp(-9 * t))
    assert series.rate() == pytest.approx(-1.0, abs=1e-3)
    early = series.rate(0.0, 0.1)
    assert -6.0 < early < -4.0
    # The default window is the later half of the times that have values.
    assert series.rate() == series.rate(1.5, 3.0)
    cut = Series(t, torch.exp(-2 * t), floor=torch.where(t > 1.0, 1.0, 0.0))
    inside = t[t <= 1.0].max()
    assert cut.rate() == cut.rate(float(inside) / 2, float(inside))
    assert cut.rate() == pytest.approx(-2.0)


def test_a_trapezoid_without_decay_is_exact_for_lines_through_zero() -> None:
    t = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    assert Series(t, torch.tensor([1.0, 1.0, 1.0])).integral() == pytest.approx(3.0)
    assert Series(t, torch.tensor([0.0, 2.0, 0.0])).integral() == pytest.approx(3.0)


def test_values_below_the_floor_are_blank_and_unused() -> None:
    t = times(50, 40.0)
    noise = 1e-8 * torch.rand(50, dtype=torch.float64)
    series = Series(t, torch.exp(-t) + noise, "demo", torch.full((), 1e-7, dtype=torch.float64))
    hidden = torch.exp(-t) + noise <= 1e-7
    assert torch.equal(series.y.isnan(), hidden)
    assert series.floor.shape == series.y.shape
    assert series.rate() == pytest.approx(-1.0, rel=1e-2)
    assert series.integral() == pytest.approx(1.0, rel=1e-5)


def test_a_value_equal_to_its_floor_is_blank_and_zero_floors_hide_nothing() -> None:
    t = torch.tensor([0.0, 1.0])
    level = Series(t, torch.tensor([2.0, 2.0]), floor=torch.tensor([2.0, 1.0]))
    assert level.y.isnan().tolist() == [True, False]
    assert Series(t, torch.tensor([0.0, -1.0])).y.tolist() == [0.0, -1.0]


def test_nothing_to_fit_gives_nan() -> None:
    t = times(5)
    for y in (torch.zeros(5), torch.full((5,), torch.nan), -torch.ones(5)):
        assert math.isnan(Series(t, y).rate())
    assert math.isnan(Series(t[:1], torch.ones(1)).rate())
    assert math.isnan(Series(t, torch.exp(-t)).rate(2.0, 2.1))
    assert math.isnan(Series(torch.zeros(3), torch.ones(3)).rate())


def test_batches_have_one_rate_and_integral_each() -> None:
    t = torch.stack([times(30, 2.0), times(30, 5.0)], dim=1)
    t[20:, 0] = torch.nan
    y = torch.exp(-torch.tensor([1.0, 0.3]) * t)
    series = Series(t, y)
    torch.testing.assert_close(series.rate(), torch.tensor([-1.0, -0.3], dtype=torch.float64))
    ends = torch.tensor([float(t[19, 0]), 5.0], dtype=torch.float64)
    rates = torch.tensor([1.0, 0.3], dtype=torch.float64)
    want = (1 - torch.exp(-rates * ends)) / rates
    torch.testing.assert_close(series.integral(), want, rtol=1e-6, atol=0)


def test_backward_times_are_as_good() -> None:
    t = times().flip(0)
    series = Series(t, torch.exp(-2 * t))
    assert series.rate() == pytest.approx(-2.0)
    assert series.integral() == pytest.approx(-(1 - math.exp(-6.0)) / 2, rel=1e-7)


def test_a_series_is_double_detached_and_frozen() -> None:
    y = torch.ones(3, requires_grad=True)
    series = Series(torch.arange(3.0), y * 2)
    assert series.y.dtype == series.t.dtype == torch.float64
    assert not series.y.requires_grad
    with pytest.raises(AttributeError):
        series.y = y


def test_it_prints_its_ends_its_convention_and_its_floor() -> None:
    t = torch.tensor([0.0, 1.0, 2.0])
    whole = str(Series(t, torch.tensor([8.0, 4.0, 2.0]), "comb: tr(x'Lx)"))
    assert whole == "8 -> 2 at t=2 (comb: tr(x'Lx), 3 points)"
    cut = str(Series(t, torch.tensor([8.0, 4.0, 1e-9]), "sym", torch.full((3,), 1e-6)))
    assert "8 -> 4 at t=1" in cut
    assert "below its floor 1e-06 after" in cut
    assert "every value lies below" in str(Series(t, torch.zeros(3), "sym", torch.ones(3)))
    assert "2 graphs" in str(Series(t[:, None].expand(3, 2), torch.ones(3, 2), "rw"))
    assert "2 curves" in str(Series(t, torch.ones(3, 2), "rw"))
