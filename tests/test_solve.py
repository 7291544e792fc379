"""solve from end to end: orders, peers, grids, states of every shape, watching and stopping."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torchdiffeq
from scipy.integrate import solve_ivp
from torch import Tensor

from neuralpde import Graph, SolveInterrupted, Trajectory, catalogue, solve
from neuralpde.fields import Field, Heat, allen_cahn
from neuralpde.watching import Snapshot
from solvers.explicit import ExplicitRungeKutta
from solvers.schedules import Points, Power
from solvers.tableaus import TABLEAUS

ORDERS = {
    "euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "bosh3": 3, "dopri5": 5, "tsit5": 5,
    "dopri8": 8,
}  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def swing(t: Tensor, y: Tensor) -> Tensor:
    return y * torch.cos(t)


class Mixing(Field):
    """A nonlinear field: tanh(A x W) - x."""

    batched_time = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(normal(channels, channels, seed=9))

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("row")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.A @ (x @ self.weight)) - x


@pytest.mark.parametrize(("solver", "order"), ORDERS.items())
def test_fixed_steps_show_their_order_when_time_matters(solver: str, order: int) -> None:
    y0, errors = torch.ones(1, dtype=torch.float64), []
    counts = (8, 32) if order == 8 else (64, 256)
    for count in counts:
        traj = solve(swing, y0, (1.0, 6.0), solver=solver, steps=count, save="steps")
        assert len(traj.t) == count + 1
        errors.append(float((traj.x[:, 0] - (traj.t.sin() - math.sin(1.0)).exp()).abs().max()))
    assert math.log2(errors[0] / errors[1]) / 2 == pytest.approx(
        order, abs=0.6 if order == 8 else 0.2
    )


def exact(start: float, end: float) -> float:
    return math.exp(math.sin(end) - math.sin(start))


@pytest.mark.parametrize("solver", ["heun", "bosh3", "dopri5", "tsit5", "dopri8"])
def test_tolerances_steer_the_error(solver: str) -> None:
    y0 = torch.ones(1, dtype=torch.float64)
    errors = []
    for rtol in (1e-3, 1e-5, 1e-7):
        traj = solve(swing, y0, (3.5, 0.5), solver=solver, rtol=rtol, atol=rtol * 1e-2)
        errors.append(abs(float(traj.final) / exact(3.5, 0.5) - 1))
        assert errors[-1] < 30 * rtol
    assert errors[2] < errors[0] / 30


def test_a_nonlinear_graph_field_agrees_with_scipy() -> None:
    graph, x0 = catalogue.barbell(4, 2), normal(10, 2)
    L = graph.laplacian(dtype=torch.float64).to_dense().numpy()

    def reaction(t: float, y: np.ndarray) -> np.ndarray:
        x = y.reshape(10, 2)
        return (-0.3 * L @ x + x - x**3).ravel()

    times = np.linspace(0, 3, 7)
    oracle = solve_ivp(
        reaction, (0, 3), x0.numpy().ravel(), "DOP853", times, rtol=1e-12, atol=1e-13
    ).y.T.reshape(7, 10, 2)
    for solver in ("auto", "bosh3", "dopri5", "dopri8"):
        traj = solve(
            allen_cahn(0.3), x0, times.tolist(), graph, solver=solver, rtol=1e-8, atol=1e-10
        )
        np.testing.assert_allclose(traj.x.numpy(), oracle, rtol=1e-5, atol=1e-6)
    assert solve(allen_cahn(0.3), x0, 3.0, graph).stats.solver == "tsit5"


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7])
def test_dopri5_costs_what_torchdiffeqs_costs(rtol: float) -> None:
    graph, x0 = catalogue.grid(6, 7), normal(42, 4)
    field = Mixing(4).bind(graph, x0)
    t = torch.tensor([0.0, 4.0], dtype=torch.float64)
    count = 0

    def counted(t: Tensor, x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return field(t, x)

    with torch.no_grad():
        theirs = torchdiffeq.odeint(counted, x0, t, rtol=rtol, atol=rtol * 0.1)
        true = torchdiffeq.odeint(field, x0, t, rtol=1e-11, atol=1e-12)[-1]
        ours = solve(field, x0, t, graph, solver="dopri5", rtol=rtol, atol=rtol * 0.1)
    assert ours.stats.nfe == pytest.approx(count, rel=0.15, abs=6)
    assert (ours.final - true).norm() <= 2 * (theirs[-1] - true).norm()


def test_stats_count_evaluations_products_and_steps() -> None:
    graph, x0 = catalogue.ring(9), normal(9, 2)
    seen = 0

    class Counting(Mixing):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            nonlocal seen
            seen += 1
            return super().rest(t, x)

    traj = solve(Counting(2), x0, 3.0, graph, solver="dopri5", grad="none")
    assert traj.stats.nfe == traj.stats.operator_products == seen
    assert traj.stats.nfe == 2 + 6 * (traj.stats.accepted + traj.stats.rejected)
    assert len(traj.energy.t) == traj.stats.accepted + 1
    assert traj.stats.seconds > 0
    assert "asked for by name" in traj.stats.reason


def moments(traj: Trajectory) -> list[float]:
    return traj["moment"].t.tolist()


@dataclass
class Moment:
    """Keeps what it is shown."""

    name: str = "moment"

    def __post_init__(self) -> None:
        self.shots: list[Snapshot] = []

    def __call__(self, shot: Snapshot) -> Tensor:
        self.shots.append(shot)
        return torch.tensor(float(len(self.shots)))


def test_schedules_place_the_steps_and_saved_times_join_them() -> None:
    y0 = torch.ones(1, dtype=torch.float64)
    points = moments(solve(swing, y0, (1.0, 3.0), steps=4, watch=Moment()))
    assert points == [1.0, 1.5, 2.0, 2.5, 3.0]
    power = moments(solve(swing, y0, (3.0, 1.0), steps=5, schedule=Power(2.0), watch=Moment()))
    np.testing.assert_allclose(power, 3.0 - 2.0 * Power(2.0).grid(5), rtol=1e-15)
    own = solve(swing, y0, 2.0, schedule=Points((0.0, 0.1, 0.7, 1.0)), watch=Moment())
    assert moments(own) == pytest.approx([0.0, 0.2, 1.4, 2.0])
    traj = solve(swing, y0, [0.0, 0.3, 0.5, 1.0], steps=4, solver="rk4", watch=Moment())
    assert moments(traj) == pytest.approx([0.0, 0.25, 0.3, 0.5, 0.75, 1.0])
    assert (traj.stats.solver, traj.stats.accepted) == ("rk4", 5)
    assert solve(swing, y0, 1.0, steps=3).stats.solver == "heun"
    # 3 * 0.1 is not 0.3: points that differ by rounding are one.
    tenths = [0.1 * k for k in range(10)] + [1.0]
    assert solve(swing, y0, tenths, steps=10).stats.accepted == 10


def test_watching_sees_new_states_and_changes_nothing() -> None:
    graph, x0 = catalogue.ring(8), normal(8, 2)
    plain = solve(Mixing(2), x0, [0.0, 1.0, 2.0], graph, grad="none")
    moment = Moment()
    watched = solve(Mixing(2), x0, [0.0, 1.0, 2.0], graph, grad="none", watch=moment)
    assert torch.equal(plain.x, watched.x)
    assert plain.stats.nfe == watched.stats.nfe
    assert plain.stats.accepted == watched.stats.accepted == len(moment.shots) - 1
    assert watched["moment"].y.tolist() == list(range(1, len(moment.shots) + 1))
    assert torch.equal(moment.shots[0].x, x0)
    assert torch.equal(moment.shots[-1].x, watched.final)
    torch.testing.assert_close(watched["moment"].t, plain.energy.t, rtol=0, atol=0)
    assert moment.shots[0].graph.num_nodes == 8


def as_complex(t: Tensor, z: Tensor) -> Tensor:
    return 1j * t * z


STATES: dict[str, tuple[Callable[..., object], object, Callable[[float], object]]] = {
    "scalar": (swing, torch.tensor(2.0).double(), lambda t: 2 * exact(0, t)),
    "vector": (
        swing, torch.tensor([1.0, -2.0]).double(), lambda t: torch.tensor([1, -2]) * exact(0, t)
    ),
    "cube": (swing, torch.ones(3, 2, 4).double(), lambda t: torch.ones(3, 2, 4) * exact(0, t)),
    "complex": (
        as_complex, torch.tensor([1 + 1j], dtype=torch.complex128),
        lambda t: torch.tensor([(1 + 1j) * np.exp(0.5j * t * t)]),
    ),
    "tuple": (
        lambda t, s: (s[1], -s[0]),
        (torch.zeros(2).double(), torch.ones(2).double()),
        lambda t: (torch.full((2,), math.sin(t)), torch.full((2,), math.cos(t))),
    ),
    "ragged": (
        lambda t, s: (s[0] * torch.cos(t), -s[1]),
        (torch.ones(2, 3).double(), torch.tensor(5.0).double()),
        lambda t: (torch.full((2, 3), exact(0, t)), torch.tensor(5 * math.exp(-t))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("how", [{"rtol": 1e-9, "atol": 1e-10}, {"steps": 300, "solver": "rk4"}])
def test_states_have_any_shape(kind: str, how: dict[str, object]) -> None:
    field, x0, expected = STATES[kind]
    traj = solve(field, x0, [0.0, 1.0, 2.0], **how)
    found = traj.x if isinstance(traj.x, tuple) else (traj.x,)
    first = x0 if isinstance(x0, tuple) else (x0,)
    for s, t in enumerate((0.0, 1.0, 2.0)):
        wanted = expected(t)
        for part, start, want in zip(
            found, first, wanted if isinstance(wanted, tuple) else (wanted,), strict=True
        ):
            assert part.shape == (3, *start.shape)
            assert part.dtype == start.dtype
            want = torch.as_tensor(want, dtype=part.dtype)
            torch.testing.assert_close(part[s], want, rtol=1e-7, atol=1e-8)
    assert traj.energy is None


def test_single_precision_stays_single() -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 2)
    double = solve(allen_cahn(0.5), x0, 2.0, graph, rtol=1e-4)
    single = solve(allen_cahn(0.5), x0.float(), 2.0, graph, rtol=1e-4)
    assert single.final.dtype == torch.float32
    assert single.t.dtype == torch.float64
    assert single.stats.nfe == double.stats.nfe
    torch.testing.assert_close(single.final.double(), double.final, rtol=1e-4, atol=1e-5)


def test_dense_output_reads_between_the_steps() -> None:
    y0, inside = torch.ones(1, dtype=torch.float64), np.linspace(0, 4, 57)
    for solver in ("tsit5", "dopri5", "bosh3", "heun"):
        traj = solve(swing, y0, 4.0, solver=solver, rtol=1e-6, atol=1e-8, save="steps")
        assert len(traj.t) == traj.stats.accepted + 1
        at = [float(traj.at(t)) for t in inside]
        np.testing.assert_allclose(at, np.exp(np.sin(inside)), rtol=2e-5)
        assert torch.equal(traj.at(float(traj.t[2])), traj.x[2])
        assert torch.equal(traj.x[-1], traj.final)


def test_what_is_saved_is_asked_for() -> None:
    y0 = torch.ones(2, dtype=torch.float64)
    assert solve(swing, y0, 2.0).t.tolist() == [0.0, 2.0]
    assert solve(swing, y0, (1.0, 2.0)).t.tolist() == [1.0, 2.0]
    assert solve(swing, y0, [0.0, 0.5, 2.0]).t.tolist() == [0.0, 0.5, 2.0]
    end = solve(swing, y0, [0.0, 0.5, 2.0], save="end")
    assert end.t.tolist() == [2.0]
    assert end.x.shape == (1, 2)
    torch.testing.assert_close(end.final, solve(swing, y0, 2.0).final)


def test_an_edge_index_is_a_graph_and_a_bound_field_knows_its_own() -> None:
    graph, x0 = catalogue.ring(6), normal(6, 1)
    by_graph = solve(Heat(), x0, 1.0, graph)
    assert torch.equal(by_graph.x, solve(Heat(), x0, 1.0, graph.edge_index).x)
    assert torch.equal(by_graph.x, solve(Heat().bind(graph, x0), x0, 1.0).x)


@dataclass
class Below:
    """Stops once the first part is small."""

    level: float
    name: str = "below"

    def __call__(self, t: np.ndarray, x: tuple[Tensor, ...], fx: object) -> np.ndarray:
        return np.array([float(x[0].norm()) < self.level])


def test_a_stop_condition_ends_the_solve_at_that_state() -> None:
    graph, x0 = catalogue.ring(6), normal(6, 1)
    stop = Below(0.5 * float(x0.norm()))
    traj = solve(Heat(), x0, [0.0, 50.0], graph, solver="tsit5", stop=stop)
    assert traj.status == "stopped (below)"
    assert traj.succeeded
    assert float(traj.final.norm()) < stop.level <= float(traj["norm"].y[-2])
    assert traj.x[-1].isnan().all()
    assert float(traj.ended) == float(traj.energy.t[-1]) < 50


@pytest.mark.parametrize("calls", [1, 2, 5, 30])
def test_an_interrupt_hands_over_what_was_done(calls: int) -> None:
    left = calls

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return swing(t, y)

    y0 = torch.ones(2, dtype=torch.float64)
    with pytest.raises(SolveInterrupted) as caught:
        solve(field, y0, torch.linspace(0, 20, 201, dtype=torch.float64), solver="dopri5")
    traj = caught.value.trajectory
    assert traj.status == "interrupted"
    reached = ~traj.x.isnan().any(1)
    assert reached[0]
    assert bool(reached[1]) == (calls > 5)
    torch.testing.assert_close(
        traj.x[reached][:, 0], traj.t[reached].sin().exp(), rtol=1e-2, atol=1e-3
    )
    assert float(traj.ended) < 20
    assert not reached[traj.t > traj.ended].any()
    left = calls
    with pytest.raises(SolveInterrupted) as caught:
        solve(field, y0, 20.0, solver="dopri5", save="steps")
    assert caught.value.trajectory.x.shape == (len(caught.value.trajectory.t), 2)


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    solve(swing, torch.ones(2, dtype=torch.float64), 20.0, progress=True)
    assert "100%" in capsys.readouterr().err


def test_a_stepper_may_be_given_as_an_object() -> None:
    y0 = torch.ones(2, dtype=torch.float64)
    given = solve(swing, y0, 2.0, solver=ExplicitRungeKutta(TABLEAUS["dopri5"]))
    assert torch.equal(given.x, solve(swing, y0, 2.0, solver="dopri5").x)
