"""Where a solve stops: roots of events, steady states, energies, time, and what users ask."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Heat, Layers
from neuralpde.stopping import EnergyBelow, Event, SteadyState, WallTime

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
    # One clock for all pieces: it is asked once to begin with, then at the start of each piece.
    late = solve(
        Layers(pieces), x0, 3.0, graph, solver="rk4", steps=9, stop=WallTime(10.0, Ticking())
    )
    assert float(late.ended) == pytest.approx(7 / 3)
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
