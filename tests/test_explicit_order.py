"""The order of every explicit method, observed on problems that depend on time."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from solvers.explicit import ExplicitRungeKutta, Step
from solvers.rows import State
from solvers.tableaus import TABLEAUS

F64 = torch.float64
METHODS = {name: ExplicitRungeKutta(tableau) for name, tableau in TABLEAUS.items()}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
adaptive = pytest.mark.parametrize(
    "method",
    [m for m in METHODS.values() if m.adaptive],
    ids=[m.name for m in METHODS.values() if m.adaptive],
)

Flow = Callable[[float, State], State]


def march(method: ExplicitRungeKutta, flow: Flow, x: State, end: float, steps: int) -> State:
    h = end / steps
    fx = flow(0.0, x)
    for i in range(steps):
        step = method.step(lambda c, y, t=i * h: flow(t + c * h, y), h, x, fx, error=False)
        x = step.x
        fx = step.f if step.f is not None else flow((i + 1) * h, x)
    return x


def growth(t: float, x: State) -> State:
    return (x[0] * math.cos(t),)


def duffing(t: float, x: State) -> State:
    place, speed = x
    return (speed, place - place**3 - 0.2 * speed + 0.5 * math.cos(t))


def slope(errors: list[float], steps: list[int]) -> float:
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


# End time and numbers of steps where the leading term rules and rounding does not show.
LINEAR = {
    "euler": (3.0, [320, 640, 1280]),
    "midpoint": (3.0, [160, 320, 640]),
    "heun": (3.0, [160, 320, 640]),
    "rk4": (3.0, [80, 160, 320]),
    "bosh3": (3.0, [160, 320, 640]),
    "dopri5": (3.0, [60, 90, 135]),
    "tsit5": (3.0, [60, 90, 135]),
    "dopri8": (5.0, [20, 28, 40]),
}
NONLINEAR = {
    "euler": [320, 640, 1280],
    "midpoint": [160, 320, 640],
    "heun": [160, 320, 640],
    "rk4": [80, 160, 320],
    "bosh3": [80, 160, 320],
    "dopri5": [40, 80, 160],
    "tsit5": [40, 80, 160],
    "dopri8": [12, 17, 24],
}


@every_method
def test_order_is_seen_on_a_linear_problem_that_depends_on_time(
    method: ExplicitRungeKutta,
) -> None:
    end, steps = LINEAR[method.name]
    x = (torch.ones(1, dtype=F64),)
    exact = math.exp(math.sin(end))
    errors = [abs(march(method, growth, x, end, n)[0].item() - exact) for n in steps]
    assert slope(errors, steps) == pytest.approx(method.order, abs=0.1)


@pytest.fixture(scope="module")
def duffing_at_two() -> np.ndarray:
    def field(t: float, x: np.ndarray) -> np.ndarray:
        return np.array([x[1], x[0] - x[0] ** 3 - 0.2 * x[1] + 0.5 * np.cos(t)])

    solution = solve_ivp(field, (0, 2), [1.0, 0.5], method="DOP853", rtol=3e-14, atol=1e-15)
    return solution.y[:, -1]


@every_method
def test_order_is_seen_on_a_nonlinear_tuple_that_depends_on_time(
    method: ExplicitRungeKutta, duffing_at_two: np.ndarray
) -> None:
    steps = NONLINEAR[method.name]
    x = (torch.tensor(1.0, dtype=F64), torch.tensor(0.5, dtype=F64))
    errors = []
    for n in steps:
        got = np.array([part.item() for part in march(method, duffing, x, 2.0, n)])
        errors.append(float(np.linalg.norm(got - duffing_at_two)))
    assert slope(errors, steps) == pytest.approx(method.order, abs=0.1)


def one_step(method: ExplicitRungeKutta, h: float, x: float, *, mid: bool = False) -> Step:
    state = (torch.tensor(x, dtype=F64),)
    fx = growth(0.3, state)
    return method.step(lambda c, y: growth(0.3 + c * h, y), h, state, fx, mid=mid)


@adaptive
def test_the_error_estimate_shrinks_with_its_own_order(method: ExplicitRungeKutta) -> None:
    sizes = [0.4, 0.3, 0.2] if method.order == 8 else [0.08, 0.04, 0.02]
    estimates = []
    for h in sizes:
        error = one_step(method, h, 2.0).error
        assert error is not None
        estimates.append(abs(error[0].item()))
    order = -slope(estimates, sizes)
    assert order == pytest.approx(method.error_order, abs=0.35)


@pytest.mark.parametrize("name", ["dopri5", "tsit5"])
def test_mid_is_the_state_half_way_to_order_four(name: str) -> None:
    sizes, errors = [0.1, 0.05, 0.025], []
    for h in sizes:
        mid = one_step(METHODS[name], h, 2.0, mid=True).mid
        assert mid is not None
        errors.append(abs(mid[0].item() - 2 * math.exp(math.sin(0.3 + h / 2) - math.sin(0.3))))
    assert -slope(errors, sizes) == pytest.approx(5, abs=0.25)
