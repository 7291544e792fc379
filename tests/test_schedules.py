"""Grids: end points, order, closed forms, names, JSON."""

import dataclasses
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from solvers import schedules
from solvers.schedules import (
    SCHEDULES,
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
    Schedule,
    Shift,
    Sigmoid,
    Uniform,
)

FORMS = (
    *("Beta", "Sigmoid", "LogitUniform", "AlignYourSteps", "Shift", "Karras"),
    *("BridgeEntropy", "BridgeSpread"),
)
positive = st.floats(0.2, 5.0)
bridges = st.builds(
    lambda s0, s1, sigma, rho, cut: BridgeEntropy(
        s0, s1, sigma, rho * s0 * s1, cut * min(s0, s1) / (s0 + s1)
    ),
    positive,
    positive,
    positive,
    st.floats(-0.9, 0.9),
    st.floats(1e-4, 0.9),
)
formulas = st.one_of(
    st.just(Uniform()),
    st.just(Cosine()),
    st.just(BridgeSpread()),
    st.builds(Power, positive),
    st.builds(Beta, st.floats(0.3, 3.0), st.floats(0.3, 3.0)),
    st.builds(Sigmoid, st.floats(1e-6, 30.0)),
    st.builds(LogitUniform, st.floats(1e-6, 0.49)),
    st.builds(AlignYourSteps, st.floats(1e-3, 1e3)),
    st.builds(Shift, st.floats(1e-3, 1e3)),
    st.builds(Karras, st.floats(0.5, 10.0), st.floats(1e-4, 0.1), st.floats(1.0, 200.0)),
    bridges,
)
placed = st.one_of(formulas, formulas.map(Reversed), formulas.map(lambda one: one.reverse()))


@given(schedule=placed, n=st.integers(1, 500))
@settings(max_examples=150)
def test_grids_increase_from_exactly_zero_to_exactly_one(schedule: Schedule, n: int) -> None:
    grid = schedule.grid(n)
    assert grid.dtype == np.float64
    assert grid.shape == (n + 1,)
    assert grid[0] == 0.0
    assert grid[-1] == 1.0
    assert (np.diff(grid) > 0).all()


@pytest.mark.parametrize(
    ("schedule", "closed"),
    [
        (Uniform(), lambda s: s),
        (Cosine(), lambda s: (1 - math.cos(math.pi * s)) / 2),
        (Power(3.0), lambda s: s * s * s),
        (Power(0.5), math.sqrt),
    ],
)
def test_grids_follow_their_formula(schedule: Schedule, closed) -> None:
    wanted = [closed(i / 7) for i in range(8)]
    np.testing.assert_allclose(schedule.grid(7), wanted, rtol=1e-14, atol=1e-16)


def test_a_power_of_one_is_uniform() -> None:
    assert (Power(1.0).grid(9) == Uniform().grid(9)).all()


def test_points_are_returned_as_given() -> None:
    points = Points((0, 0.3, 1))
    assert points.grid(2).tolist() == [0.0, 0.3, 1.0]
    points.grid(2)[1] = 0.9
    assert points.grid(2)[1] == 0.3
    assert Points([0.0, 0.3, 1.0]) == points


def test_points_refuse_another_number_of_steps() -> None:
    with pytest.raises(ValueError, match="make 2 steps, not 3; ask for steps=2"):
        Points((0.0, 0.3, 1.0)).grid(3)


@pytest.mark.parametrize(
    "times", [(0.0,), (), (0.0, 0.5), (0.1, 1.0), (0.0, 0.5, 0.5, 1.0), (0.0, math.nan, 1.0)]
)
def test_points_that_are_no_grid_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="times must"):
        Points(times)


@pytest.mark.parametrize("schedule", [Uniform(), Cosine(), Power(2.0)])
def test_a_grid_has_at_least_one_step(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="0 steps"):
        schedule.grid(0)


@pytest.mark.parametrize("p", [0.0, -1.0, math.inf, math.nan])
def test_a_power_is_positive_and_finite(p: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Power(p)


def test_a_power_too_steep_for_float64_is_refused() -> None:
    with pytest.raises(ValueError, match="increase strictly"):
        Power(200.0).grid(1000)


@given(schedule=placed, n=st.integers(1, 20))
@settings(max_examples=60)
def test_json_gives_formulas_back(schedule, n: int) -> None:
    again = schedules.from_json(schedule.to_json())
    assert again == schedule
    assert type(again) is type(schedule)
    assert again.grid(n).tolist() == schedule.grid(n).tolist()


@pytest.mark.parametrize(
    "schedule",
    [
        Points((0.0, 0.1, 1 / 3, 1.0)),
        Quantiles((0.0, 0.1, 1 / 3, 1.0)),
        Density((0.1, 1 / 3), (1 / 7, 2e-300), 1 / 3, 0.1, True, True, {"rate": "x", "ends": [0]}),
        Reversed(Reversed(Points((0.0, 0.1, 1.0)))),
    ],
)
def test_json_gives_data_back(schedule) -> None:
    again = schedules.from_json(schedule.to_json())
    assert again == schedule
    assert type(again) is type(schedule)
    assert hash(again) == hash(schedule)


def test_every_name_builds_its_own_class() -> None:
    needy = {"points", "density", "quantiles", "reversed"}
    built = {name: schedules.get(name) for name in SCHEDULES if name not in needy}
    assert {name: one.name for name, one in built.items()} == {
        **{name: name for name in built},
        "linear": "uniform",
        "trig": "ays",
    }
    assert {type(one) for one in built.values()} == {
        Uniform,
        Cosine,
        Power,
        *(getattr(schedules, name) for name in FORMS),
    }
    custom = Power(3.0)
    assert schedules.get(custom) is custom


def test_a_name_without_its_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="times"):
        schedules.get("points")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'cosin'; the nearest is 'cosine'"):
        schedules.get("cosin")
    with pytest.raises(ValueError, match="nearest is 'power'"):
        schedules.from_json('{"name": "powr", "p": 2.0}')
    with pytest.raises(ValueError, match="'q'"):
        schedules.from_json('{"name": "power", "q": 2.0}')
    with pytest.raises(ValueError, match="needed is an object with a name"):
        schedules.from_json("[0, 1]")


def test_what_has_no_grid_is_no_schedule() -> None:
    with pytest.raises(TypeError, match=r"no schedule; give one of \['ays', 'beta'"):
        schedules.get(3)


def test_schedules_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Power(2.0).p = 3.0
