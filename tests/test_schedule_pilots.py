"""Schedules of pilot runs: the steps of an adaptive solve, and equal shares of the local error."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import solve
from solvers.schedules import Density, Quantiles, equidistributed, fewest_misses, from_trajectory


def burst(t: Tensor, x: Tensor) -> Tensor:
    """Quick at first, slow afterwards."""
    return -50 * torch.exp(-20 * t) * x


def exact(t: float) -> float:
    return math.exp(-2.5 * (1 - math.exp(-20 * t)))


START = torch.ones(1, dtype=torch.float64)


def test_as_many_steps_as_the_pilot_took_are_its_steps() -> None:
    pilot = solve(burst, START, (1.0, 3.0), solver="dopri5", save="steps", rtol=1e-6)
    made = from_trajectory(pilot)
    steps = len(pilot.t) - 1
    np.testing.assert_allclose(1 + 2 * made.grid(steps), pilot.t.numpy(), rtol=1e-13)
    assert made.evaluations == pilot.stats.nfe > 6 * steps
    thin = made.grid(2)
    assert thin[1] == pytest.approx(np.interp(steps / 2, np.arange(steps + 1), made.nodes))


def test_falling_times_keep_their_order_of_travel() -> None:
    pilot = solve(burst, START, (1.0, 0.0), solver="dopri5", save="steps", rtol=1e-6)
    made = from_trajectory(pilot)
    np.testing.assert_allclose(1 - made.grid(len(pilot.t) - 1), pilot.t.numpy(), atol=1e-15)


def test_a_pilot_makes_fixed_steps_more_accurate() -> None:
    pilot = solve(burst, START, 1.0, solver="dopri5", save="steps", rtol=1e-6, atol=1e-9)
    fine = solve(burst, START, 1.0, solver="rk4", save="steps", steps=400)
    errors = [
        abs(solve(burst, START, 1.0, solver="heun", steps=20, schedule=one).final.item() - exact(1))
        for one in ("uniform", from_trajectory(pilot), equidistributed(fine, 2))
    ]
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[0] / 5


@pytest.mark.parametrize("order", [1, 2, 3])
def test_decay_shares_its_error_by_the_closed_form(order: int) -> None:
    rate, n = 6.0, 12
    pilot = solve(lambda t, x: -rate * x, START, 1.0, solver="rk4", steps=600, save="steps")
    made = equidistributed(pilot, order, mix=0.0)
    slow = rate / (order + 1)  # |x^(order + 1)|^(1 / (order + 1)) ~ exp(-slow t)
    wanted = -np.log1p(-np.arange(n + 1) / n * -math.expm1(-slow)) / slow
    np.testing.assert_allclose(made.grid(n), wanted, atol=5e-4)
    derivative = rate ** (order + 1) * np.exp(-rate * np.array(made.nodes))
    np.testing.assert_allclose(made.rates, derivative, rtol=1e-3)
    assert made.p == 1 / (order + 1)
    assert made.evaluations == pilot.stats.nfe == 2400


def test_complex_and_tuple_states_share_their_error_too() -> None:
    pilot = solve(
        lambda t, x: (-6 * x[0], 0 * x[1]),
        (START, START),
        1.0,
        solver="rk4",
        steps=50,
        save="steps",
    )
    turned = solve(
        lambda t, x: -6 * x, START * (0.6 + 0.8j), 1.0, solver="rk4", steps=50, save="steps"
    )
    plain = solve(lambda t, x: -6 * x, START, 1.0, solver="rk4", steps=50, save="steps")
    wanted = equidistributed(plain, 1).grid(7)
    np.testing.assert_allclose(equidistributed(pilot, 1).grid(7), wanted, rtol=1e-9)
    np.testing.assert_allclose(equidistributed(turned, 1).grid(7), wanted, rtol=1e-6)


def test_pilots_without_their_steps_are_refused() -> None:
    ends = solve(burst, START, 1.0, solver="dopri5")
    with pytest.raises(ValueError, match='save="steps"'):
        from_trajectory(ends)
    with pytest.raises(ValueError, match=r"order \+ 3"):
        equidistributed(ends, 2)


def test_schedules_of_pilots_are_data() -> None:
    pilot = solve(burst, START, 1.0, solver="dopri5", save="steps")
    assert isinstance(from_trajectory(pilot), Quantiles)
    assert isinstance(equidistributed(pilot, 1), Density)
    with pytest.raises(ValueError, match="exactly 0 to exactly 1"):
        Quantiles((0.1, 1.0))


@pytest.mark.parametrize("discount", [1.0, 1.15, 3.0])
def test_no_other_choice_of_times_misses_less(discount: float) -> None:
    t = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.4, 0.55, 0.8, 2.0], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.3], [-0.5, 2.0]], dtype=torch.float64)
    pilot = solve(turn, start, t, solver="dopri5", rtol=1e-9, atol=1e-12)
    for n in range(1, 8):
        costs = {}
        for inner in itertools.combinations(range(1, 7), n - 1):
            way = (0, *inner, 7)
            misses = [
                (pilot.x[i] + (t[j] - t[i]) * turn(t[i], pilot.x[i]) - pilot.x[j])
                .norm(dim=1)
                .mean()
                for i, j in itertools.pairwise(way)
            ]
            costs[way] = sum(discount**k * float(miss) for k, miss in enumerate(misses))
        best = min(costs, key=costs.get)
        made = fewest_misses(pilot, turn, n, discount)
        np.testing.assert_allclose(made.grid(n), t[list(best)] / 2, rtol=1e-14)


def turn(t: Tensor, x: Tensor) -> Tensor:
    """A field that turns and slows down."""
    spin = torch.tensor([[0.0, 3.0], [-3.0, -1.0]], dtype=torch.float64)
    return torch.exp(-2 * t) * x @ spin


def test_more_jumps_than_times_are_refused() -> None:
    pilot = solve(turn, torch.ones(1, 2, dtype=torch.float64), torch.linspace(0, 1, 4))
    with pytest.raises(ValueError, match="4 steps over 4 times"):
        fewest_misses(pilot, turn, 4)
