"""Where a solve stops: roots of events, steady states, energies, time, and what users ask."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Heat, Layers, Reaction
from neuralpde.stopping import EnergyBelow, Event, SteadyState, WallTime
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


# ---- events


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
    times = [0.0, 0.3, 1.0, 1.9, 2.5]
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
    # Six a step and two to begin with; the step with the root is taken at most four times more.
    assert asked[0] <= 6 * (traj.stats.accepted + traj.stats.rejected) + 2 + 4 * 6
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


# ---- steady states


def steady_run(rate: float, hold: int, **options: Any) -> tuple[Any, np.ndarray]:
    """|F| relative to the start at every accepted step of x' = -x, from a fixed grid."""
    traj = solve(
        lambda t, x: -x,
        one(),
        20.0,
        solver="rk4",
        steps=200,
        save="steps",
        stop=SteadyState(rate, hold),
        **options,
    )
    return traj, traj.x[:, 0].detach().numpy()


@pytest.mark.parametrize("hold", [1, 2, 5])
def test_a_steady_state_is_held_for_some_steps(hold: int) -> None:
    traj, size = steady_run(1e-3, hold)
    assert traj.status == "stopped (steady state)"
    # The first step at which |F| = x is below the rate, and hold - 1 more.
    below = int(np.argmax(size <= 1e-3))
    assert len(size) - 1 == below + hold - 1
    # The slope that it looks at serves the next step: nothing is evaluated twice.
    assert traj.stats.nfe == 4 * traj.stats.accepted + 1


def test_rising_again_starts_the_count_anew() -> None:
    # F = cos t is small at pi/2 for one step only.
    traj = solve(
        lambda t, x: torch.cos(t) + 0 * x,
        one(0.0),
        7.5,
        solver="rk4",
        steps=75,
        stop=SteadyState(0.06, 2),
    )
    assert traj.status == "done"
    first = solve(
        lambda t, x: torch.cos(t) + 0 * x,
        one(0.0),
        7.5,
        solver="rk4",
        steps=75,
        stop=SteadyState(0.06, 1),
    )
    assert float(first.ended) == pytest.approx(1.6)


@pytest.mark.parametrize("own", [True, False])
def test_graphs_become_steady_one_by_one(own: bool) -> None:
    batch = Graph.union([catalogue.path(2)] * 3)
    field = Rates(4.0, 1.0, 0.01, own_clocks=own)
    traj = solve(
        field,
        torch.ones(6, 1).double(),
        30.0,
        batch,
        solver="tsit5",
        stop=SteadyState(1e-2),
        **TIGHT,
    )
    assert traj.status == ("stopped (steady state)", "stopped (steady state)", "done")
    assert traj.final[0] <= 1e-2
    assert 1e-4 < traj.final[2] <= 1e-2
    assert math.log(100) / 4 <= traj.ended[0] < traj.ended[1] < 30.0


def test_a_large_constant_component_does_not_stop_it() -> None:
    # diffrax issue 448: |F| < rtol |x| from the start.
    x0 = torch.tensor([1.0, 1e6], dtype=torch.float64)
    rate = torch.tensor([1.0, 0.0], dtype=torch.float64)
    traj = solve(lambda t, x: -rate * x, x0, 40.0, solver="tsit5", stop=SteadyState(1e-3), **TIGHT)
    assert traj.status == "stopped (steady state)"
    assert float(traj.ended) > math.log(1000) - 0.1
    assert float(traj.final[1]) == 1e6


def test_a_rate_below_the_noise_of_the_method_warns() -> None:
    graph = catalogue.star(31)
    x0 = normal(31, 1)
    field = Heat()
    with pytest.warns(UserWarning, match=r"noise floor of 'dopri5'.*rho = 3[01].*Lower rtol"):
        solve(field, x0, 1.0, graph, solver="dopri5", stop=SteadyState(1e-6))
    # Nothing to warn of: a looser rate, a tighter tolerance, a grid without tolerances.
    solve(field, x0, 1.0, graph, solver="dopri5", stop=SteadyState(1e-3), **TIGHT)
    solve(field, x0, 1.0, graph, solver="rk4", steps=20, stop=SteadyState(1e-6))


@pytest.mark.parametrize("solver", ["tsit5", "dopri5"])
def test_the_noise_floor_is_where_the_slope_floats(solver: str) -> None:
    graph, sizes = catalogue.star(31), []

    def slope(shot: Any) -> float:
        sizes.append(float(shot.slope.square().mean().sqrt()))
        return 0.0

    x0 = normal(31, 1) + 1.0
    solve(Heat(), x0, 12.0, graph, solver=solver, rtol=1e-3, atol=1e-5, watch=slope)
    # At consensus |x| is the mean, and the largest eigenvalue of a star with 31 nodes is 31.
    floor = 31 * (1e-5 + 1e-3 * abs(float(x0.mean())))
    assert floor / 2 < np.median(sizes[len(sizes) // 2 :]) < floor


# ---- energies


@pytest.mark.parametrize("own", [True, False])
def test_energies_fall_below_the_fraction_of_their_start(own: bool) -> None:
    class Own(Heat):
        batched_time = own

    batch = Graph.union([catalogue.path(6), catalogue.complete(6), catalogue.ring(9)])
    x0 = normal(21, 2)
    traj = solve(Own(), x0, 40.0, batch, solver="tsit5", stop=EnergyBelow(0.05), **TIGHT)
    assert set(traj.status) == {"stopped (energy)"}
    for g in range(3):
        y = traj.energy.y[:, g]
        y = y[~y.isnan()]
        assert y[-1] <= 0.05 * y[0]
        assert y[-2] > 0.05 * y[0]
    assert traj.ended[1] < traj.ended[0]


def test_energies_that_tolerances_hide_warn_and_need_a_graph() -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 1) + 50.0
    with pytest.warns(UserWarning, match=r"energy may be off by .* error_scale='deviation'"):
        solve(Heat(), x0, 1.0, graph, solver="tsit5", stop=EnergyBelow(1e-6))
    stop = EnergyBelow(1e-6)
    traj = solve(Heat(), x0, 99.0, graph, solver="tsit5", stop=stop, error_scale="deviation")
    assert traj.status == "stopped (energy)"
    with pytest.raises(ValueError, match="solve has none"):
        solve(lambda t, x: -x, x0, 1.0, stop=EnergyBelow(0.5))


# ---- time, and several at once


@dataclass
class Ticking:
    """A clock that goes on by one second whenever somebody looks."""

    now: float = 0.0
    looks: int = field(default=0)

    def __call__(self) -> float:
        self.looks += 1
        self.now += 1.0
        return self.now


def test_wall_time_ends_all_graphs_where_they_are() -> None:
    batch = Graph.union([catalogue.path(2)] * 3)
    stop = WallTime(7.0, Ticking())
    x0 = torch.ones(6, 1).double()
    traj = solve(Rates(3.0, 2.0, 1.0), x0, 99.0, batch, solver="tsit5", stop=stop, **TIGHT)
    assert set(traj.status) == {"stopped (wall time)"}
    # One look to begin with, one at the start, then one for each round of steps.
    assert max(traj.stats.accepted) == 6
    exact = torch.exp(-torch.tensor([3.0, 2.0, 1.0]).double() * traj.ended)
    torch.testing.assert_close(traj.final[::2, 0], exact, rtol=1e-7, atol=0)


def test_whatever_comes_first_ends_a_graph() -> None:
    batch = Graph.union([catalogue.path(2)] * 3)
    field = Rates(5.0, 1.0, 1e-4)
    stop = (SteadyState(1e-2, 1), Event(middle), WallTime(1e9))
    x0 = torch.ones(6, 1, dtype=torch.float64)
    x0[:2] = 0.2
    traj = solve(field, x0, 9.0, batch, solver="tsit5", stop=stop, **TIGHT)
    assert traj.status == ("stopped (steady state)", "stopped (event)", "done")
    assert float(traj.ended[1]) == pytest.approx(math.log(10 / 3), rel=1e-7)


def test_a_condition_serves_many_solves() -> None:
    stop = (SteadyState(0.1, 3), Event(lambda t, x: x[0] - 0.01), WallTime(1e9))
    runs = [
        solve(lambda t, x: -x, one(), 9.0, solver="tsit5", stop=stop, rtol=1e-7) for _ in range(2)
    ]
    assert float(runs[0].ended) == float(runs[1].ended)
    assert runs[0].stats.nfe == runs[1].stats.nfe
    assert runs[0].settings["stop"][0] == "SteadyState(rate=0.1, hold=3)"


def test_pieces_are_stopped_as_a_whole() -> None:
    graph, x0 = catalogue.ring(6), normal(6, 1)
    pieces = [Heat(rate=0.1), Heat(rate=0.3), Heat(rate=0.2)]
    first = solve(Layers(pieces), x0, 3.0, graph, solver="tsit5", **TIGHT)
    start = float(first.energy.y[0])
    traj = solve(Layers(pieces), x0, 3.0, graph, solver="tsit5", stop=EnergyBelow(0.5), **TIGHT)
    assert traj.status == "stopped (energy)"
    assert 1.0 < float(traj.ended) < 2.0
    assert float(traj.energy.y[-1]) <= 0.5 * start < float(traj.energy.y[-2])
    event = Event(lambda t, x: 1.3 - t)
    cut = solve(Layers(pieces), x0, [0.0, 1.2, 3.0], graph, solver="tsit5", stop=event, **TIGHT)
    assert float(cut.ended) == pytest.approx(1.3, abs=1e-15)
    alone = solve(Layers(pieces), x0, [0.0, 1.3, 3.0], graph, **TIGHT)
    torch.testing.assert_close(cut.final, alone.x[1], rtol=1e-7, atol=1e-9)


# ---- a user's own, and what is refused


def test_a_callable_says_which_graphs_end() -> None:
    class Often:
        name = "often"
        needs_slope = True
        slopes = 0

        def __call__(self, t: np.ndarray, x: tuple[Tensor, ...], slope: Any) -> bool:
            self.slopes += slope is not None
            return bool(t[0] > 1.0)

    often = Often()
    traj = solve(lambda t, x: -x, one(), 9.0, solver="midpoint", steps=90, stop=often)
    assert traj.status == "stopped (often)"
    assert float(traj.ended) == pytest.approx(1.1)
    assert often.slopes == traj.stats.accepted + 1
    with pytest.raises(ValueError, match="one truth value per graph"):
        solve(lambda t, x: -x, one(), 9.0, stop=lambda t, x, slope: 3)


@pytest.mark.parametrize(
    ("stop", "error", "text"),
    [
        ("steady_state", TypeError, "did you mean 'SteadyState'"),
        (SteadyState, TypeError, r"give one of its kind, SteadyState\(\)"),
        (3.0, TypeError, "stop holds 3.0; give SteadyState"),
    ],
)
def test_other_things_are_no_conditions(stop: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        solve(lambda t, x: -x, one(), 9.0, stop=stop)


def test_conditions_check_what_they_are_given() -> None:
    for make, text in (
        (lambda: SteadyState(0.0), "between 0 and 1"),
        (lambda: SteadyState(hold=0), "at least 1"),
        (lambda: EnergyBelow(1.5), "between 0 and 1"),
        (lambda: WallTime(0.0), "above zero"),
        (lambda: Event(lambda t, x: x, 2), "direction is 2"),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    with pytest.raises(TypeError, match="give a function"):
        Event(3)
    with pytest.raises(TypeError, match="give a real tensor"):
        solve(lambda t, x: -x, one(), 9.0, stop=Event(lambda t, x: 3))
    batch, x0 = Graph.union([catalogue.path(2)] * 3), torch.ones(6, 1)
    with pytest.raises(ValueError, match=r"shape \(6, 1\); give one number per graph \[3\]"):
        solve(Heat(), x0, 1.0, batch, stop=Event(lambda t, x: x))
    with pytest.raises(ValueError, match="takes no steps to stop at"):
        solve(Heat(), x0, 1.0, batch, stop=SteadyState(), solver="exact")
