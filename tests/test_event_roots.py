"""Events: a graph ends where a function of its solution is zero, to rounding."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Heat, Reaction
from neuralpde.stopping import Event
from solvers.roots import zeros

TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def one(value: float = 1.0) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


class Rates(Field):
    """x' = -k x, with a rate k for every graph."""

    def __init__(self, *rates: float, own_clocks: bool = True) -> None:
        super().__init__()
        self.k = torch.tensor(rates, dtype=torch.float64)
        self.batched_time = own_clocks

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.node = torch.zeros(len(x0), dtype=torch.int64) if graph.batch is None else graph.batch

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -self.k[self.node, None] * x


def middle(t: Tensor, x: Tensor) -> Tensor:
    """Every other node of three graphs of two: the first ones."""
    return x[::2, 0] - 0.3


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("tsit5", TIGHT),
        ("dopri8", TIGHT),
        ("bosh3", TIGHT),
        ("heun", {"rtol": 1e-5}),
        ("rk4", {"steps": 9}),
        ("midpoint", {"steps": 40}),
    ],
)
@pytest.mark.parametrize("end", [4.0, -4.0])
def test_a_graph_ends_at_the_root_to_rounding(
    solver: str, options: dict[str, Any], end: float
) -> None:
    # x = e^(-s t), s the direction of time, comes down to 0.3 at |t| = log(10/3).
    sign = math.copysign(1.0, end)
    event = Event(lambda t, x: x[0] - 0.3)
    times = [0.0, 0.5 * sign, 1.1 * sign, 1.3 * sign, end]
    traj = solve(lambda t, x: -sign * x, one(), times, solver=solver, stop=event, **options)
    assert traj.status == "stopped (event)"
    assert abs(float(traj.final) - 0.3) < 4e-16
    rough = 1e-7 if options is TIGHT else 3e-3
    assert float(traj.ended) == pytest.approx(sign * math.log(10 / 3), rel=rough)
    assert traj.x[:3, 0].tolist() == pytest.approx([1.0, math.exp(-0.5), math.exp(-1.1)], rel=rough)
    assert traj.x[3:].isnan().all()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("options", [TIGHT, {"steps": 37, "solver": "rk4"}])
def test_graphs_of_a_batch_end_where_they_end_alone(own: bool, options: dict[str, Any]) -> None:
    batch = Graph.union([catalogue.path(2)] * 3)
    rates, x0 = (3.0, 0.1, 0.7), torch.ones(6, 1, dtype=torch.float64)
    # So many that the steps with events hold saved times too, before the root and after it.
    times = torch.linspace(0, 2.5, 48, dtype=torch.float64)
    options = {"solver": "dopri5", **options}
    event = Event(middle)
    traj = solve(Rates(*rates, own_clocks=own), x0, times, batch, stop=event, **options)
    assert traj.status == ("stopped (event)", "done", "stopped (event)")
    for g, rate in enumerate(rates):
        alone = solve(Rates(rate), x0[:2], times, catalogue.path(2), stop=event, **options)
        loose = 1e-12 if own else 1e-7
        assert float(traj.ended[g]) == pytest.approx(float(alone.ended), rel=loose)
        part = slice(2 * g, 2 * g + 2)
        torch.testing.assert_close(traj.final[part], alone.final, rtol=loose, atol=0)
        torch.testing.assert_close(traj.x[:, part], alone.x, rtol=loose, atol=0, equal_nan=True)
        if own:
            assert traj.stats.accepted[g] == alone.stats.accepted
    series, alone_g = traj.energy, traj.ended[2]
    assert (series.t.nan_to_num() <= traj.ended).all()
    assert float(series.t[:, 2].nan_to_num().max()) == float(alone_g)


def test_an_event_in_the_last_digit_before_a_saved_time_and_after_it() -> None:
    # x = t: the root is wherever we like.
    for shift in (-1, 0, 1, 2):
        saved = 0.7
        root = saved + shift * np.spacing(saved)
        traj = solve(
            lambda t, x: torch.ones_like(x),
            one(0.0),
            [0.0, saved, 2.0],
            solver="tsit5",
            stop=Event(lambda t, x, root=root: t - root),
        )
        assert traj.status == "stopped (event)"
        assert abs(float(traj.ended) - root) <= 4 * np.spacing(saved)
        seen = not traj.x[1].isnan().any()
        assert seen == (float(traj.ended) >= saved)
        if seen:
            assert float(traj.x[1]) == pytest.approx(saved, rel=1e-15)


def test_a_zero_at_the_start_is_not_yet_an_event() -> None:
    def swing(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([x[1], -x[0]])

    start = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for direction, when in ((0, math.pi), (-1, math.pi), (1, 2 * math.pi)):
        event = Event(lambda t, x: x[0], direction)
        traj = solve(swing, start, 20.0, solver="dopri8", stop=event, **TIGHT)
        assert float(traj.ended) == pytest.approx(when, abs=1e-7)


@pytest.mark.parametrize(("direction", "when"), [(0, 1.0), (-1, 1.0), (1, 2.0)])
def test_only_crossings_in_the_direction_count(direction: int, when: float) -> None:
    # (t - 1)(t - 2)(t - 3) of t itself, rising at 1 and 3 backwards in sign: falls at 2.
    event = Event(lambda t, x: -(x[0] - 1) * (x[0] - 2) * (x[0] - 3), direction)
    for sign in (1.0, -1.0):
        traj = solve(
            lambda t, x, sign=sign: sign * torch.ones_like(x),
            one(0.0),
            [0.0, 10.0 * sign],
            solver="rk4",
            steps=61,
            stop=event,
        )
        assert float(traj.ended) == pytest.approx(sign * when, abs=1e-14)


def test_the_first_of_several_events_names_the_end() -> None:
    late = Event(lambda t, x: x[0] - 2.0, name="late")
    early = Event(lambda t, x: torch.stack([x[0] - 9.0, 1.5 - t]), name="early")
    for several in ((late, early), [early, late]):
        traj = solve(lambda t, x: torch.ones_like(x), one(0.0), 8.0, solver="tsit5", stop=several)
        assert traj.status == "stopped (early)"
        assert float(traj.ended) == pytest.approx(1.5, abs=1e-15)
        assert float(traj.final) == pytest.approx(1.5, abs=1e-15)


def test_the_last_state_is_where_the_steps_and_the_measures_end() -> None:
    graph, seen = catalogue.ring(5), []
    x0 = normal(5, 2)
    level = float((x0**2).sum() / 4)
    event = Event(lambda t, x: (x**2).sum() - level)
    field = Heat() + Reaction([0.0, -0.1])
    watch = [lambda shot: seen.append(float(shot.t[0])) or (shot.x**2).sum()]
    traj = solve(field, x0, 50.0, graph, solver="tsit5", stop=event, save="steps", watch=watch)
    assert float(traj.t[-1]) == float(traj.ended) == seen[-1]
    torch.testing.assert_close(traj.x[-1], traj.final, rtol=0, atol=0)
    assert float((traj.final**2).sum()) == pytest.approx(level, rel=1e-14)
    late = float(traj.ended) * (1 - 1e-9)
    torch.testing.assert_close(traj.at(late), traj.final, rtol=1e-7, atol=1e-9)
    assert float(traj.energy.t[-1]) == float(traj.ended)


def test_a_single_precision_event_is_found_to_its_own_rounding() -> None:
    traj = solve(
        lambda t, x: 0.1 * x,
        torch.tensor([1000.0]),
        9.0,
        solver="tsit5",
        rtol=1e-5,
        stop=Event(lambda t, x: x[0] - 1500.0),
    )
    assert abs(float(traj.final) - 1500.0) <= 4 * 1500 * torch.finfo(torch.float32).eps
    assert float(traj.ended) == pytest.approx(10 * math.log(1.5), rel=1e-5)


def test_roots_cost_few_evaluations() -> None:
    asked = [0, 0]

    def slope(t: Tensor, x: Tensor) -> Tensor:
        asked[0] += 1
        return -x * x

    def level(t: Tensor, x: Tensor) -> Tensor:
        asked[1] += 1
        return x[0] - 0.2

    traj = solve(slope, one(), 30.0, solver="dopri5", stop=Event(level), **TIGHT)
    assert float(traj.ended) == pytest.approx(4.0, abs=1e-6)
    assert traj.stats.nfe == asked[0]
    # Six a step and two to begin with; the step with the root is taken at most five times more.
    assert asked[0] <= 6 * (traj.stats.accepted + traj.stats.rejected) + 2 + 5 * 6
    assert asked[1] <= traj.stats.accepted + 20


@pytest.mark.parametrize("rounding", [2.3e-16, 1e-7])
def test_zeros_are_bracketed_whatever_the_function(rounding: float) -> None:
    roots = np.array([0.3, 1e-9, 0.999, 0.5, 0.25])

    def f(x: np.ndarray) -> np.ndarray:
        d = roots - x
        jump = np.where(d[4] > 0, 1.0, -1.0)
        return np.array([d[0], np.expm1(40 * d[1]), d[2] ** 3, np.sinh(50 * d[3]), jump])

    first, last = f(np.zeros(5)), f(np.ones(5))
    found, slope = zeros(f, first, last, tolerance=4e-16, rounding=rounding)
    assert found[[0, 1, 3]] == pytest.approx(roots[[0, 1, 3]], abs=1e-13)
    assert found[2] == pytest.approx(roots[2], abs=2e-3)
    assert 0 <= found[4] - roots[4] < 1e-8
    assert slope[0] == pytest.approx(-1.0)
