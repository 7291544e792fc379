"""A batch of graphs gives what its graphs give alone: states, steps, energies and failures."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, SolveFailed, Trajectory, catalogue, solve
from neuralpde.fields import Field, Heat, allen_cahn

GRAPHS = (catalogue.path(5), catalogue.star(40), catalogue.ring(7), catalogue.complete(4))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Square(Field):
    """x' = x^2, x(t) = x0 / (1 - x0 t): it blows up at 1 / x0."""

    batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x**2


class SharedSquare(Square):
    """The same field, as if it could not take times per node."""

    batched_time = False


class Swing(Field):
    """x' = x cos t, which reads its time."""

    batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x * torch.cos(t)


def split(graph: Graph, x: Tensor) -> list[Tensor]:
    """The rows of each graph."""
    return [x[graph.batch == g] for g in range(graph.num_graphs)]


def alone(field: Field, graph: Graph, x0: Tensor, t: object, **how: object) -> list[Trajectory]:
    return [
        solve(field, part, t, one, **how)
        for one, part in zip(GRAPHS, split(graph, x0), strict=True)
    ]


@pytest.mark.parametrize("solver", ["tsit5", "dopri5", "bosh3", "dopri8", "heun"])
def test_graphs_take_the_steps_they_take_alone(solver: str) -> None:
    batch = Graph.union(GRAPHS)
    x0, times = normal(batch.num_nodes, 2), [0.0, 0.4, 0.5, 2.0]
    how = {"solver": solver, "rtol": 1e-5}
    traj = solve(allen_cahn(), x0, times, batch, **how)
    for g, own in enumerate(alone(allen_cahn(), batch, x0, times, **how)):
        rows = batch.batch == g
        # An estimate is a difference of nearly equal numbers: steps agree to 1e-8. Stability limits
        # bosh3 on the star, and rounding grows by up to 1e7 through its step sizes.
        wide = 100.0 if solver == "bosh3" else 1.0
        torch.testing.assert_close(traj.x[:, rows], own.x, rtol=wide * 1e-9, atol=wide * 1e-10)
        assert traj.stats.accepted[g] == own.stats.accepted
        assert traj.stats.rejected[g] == own.stats.rejected
        points, close = own.stats.accepted + 1, {"rtol": wide * 1e-8, "atol": wide * 1e-10}
        torch.testing.assert_close(traj.energy.t[:points, g], own.energy.t, **close)
        # Energies at times that agree to 1e-8.
        close = {"rtol": wide * 1e-7, "atol": wide * 1e-9}
        torch.testing.assert_close(traj.energy.y[:points, g], own.energy.y, equal_nan=True, **close)
        assert traj.energy.y[points:, g].isnan().all()
        assert traj.energy.t[points:, g].isnan().all()
    assert "a step of its own for every graph" in traj.stats.reason


def test_a_stiff_graph_among_a_thousand_easy_ones() -> None:
    hard, easy = catalogue.star(200), catalogue.path(5)
    batch = Graph.union([easy] * 500 + [hard] + [easy] * 500)
    x0 = normal(batch.num_nodes, 1)
    rows = batch.batch == 500
    own = solve(Heat(), x0[rows], 1.0, hard, solver="tsit5")
    traj = solve(Heat(), x0, 1.0, batch, solver="tsit5")
    torch.testing.assert_close(traj.final[rows], own.final, rtol=1e-11, atol=1e-13)
    assert traj.stats.accepted[500] == own.stats.accepted > 10 * traj.stats.accepted[0]
    assert traj.stats.rejected[500] == own.stats.rejected
    assert traj.status == ("done",) * 1001


def test_fixed_steps_agree_bit_for_bit() -> None:
    batch = Graph.union(GRAPHS)
    x0 = normal(batch.num_nodes, 2)
    traj = solve(allen_cahn(0.1), x0, 1.0, batch, solver="rk4", steps=20)
    for own, part in zip(
        alone(allen_cahn(0.1), batch, x0, 1.0, solver="rk4", steps=20),
        split(batch, traj.final),
        strict=True,
    ):
        torch.testing.assert_close(part, own.final, rtol=1e-14, atol=1e-15)


def test_graphs_may_have_their_own_times() -> None:
    batch = Graph.union(GRAPHS[:3])
    ends = torch.tensor([0.5, 3.0, -1.0], dtype=torch.float64)
    starts = torch.tensor([0.1, 0.0, 1.0], dtype=torch.float64)
    starts[2], ends[2] = 1.0, 1.0
    times = torch.stack([starts, 0.3 * starts + 0.7 * ends, ends])
    for how in ({"rtol": 1e-9, "atol": 1e-10}, {"steps": 200, "solver": "rk4"}):
        traj = solve(Swing(), torch.ones(batch.num_nodes, 1).double(), times, batch, **how)
        want = torch.exp(times.sin() - times[:1].sin())[:, batch.batch].unsqueeze(-1)
        torch.testing.assert_close(traj.x, want, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(traj.t, times)
    exact = solve(Heat(), normal(batch.num_nodes, 1), times, batch, rtol=1e-9)
    for g, graph in enumerate(GRAPHS[:3]):
        rows = batch.batch == g
        own = solve(Heat(), normal(batch.num_nodes, 1)[rows], times[:, g], graph, rtol=1e-9)
        torch.testing.assert_close(exact.x[:, rows], own.x, rtol=1e-8, atol=1e-9)


def test_every_graph_lands_exactly_on_its_end() -> None:
    batch = Graph.union(GRAPHS)
    times = torch.rand(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    times[1] += 1.0
    traj = solve(allen_cahn(), normal(batch.num_nodes, 1), times, batch)
    assert torch.equal(traj.ended, times[1])
    last = [float(traj.energy.t[n, g]) for g, n in enumerate(traj.stats.accepted)]
    assert last == times[1].tolist()


@pytest.mark.parametrize("field", [Square(), SharedSquare()], ids=["own steps", "one step"])
@pytest.mark.parametrize("solver", ["tsit5", "dopri8"])
def test_a_graph_that_blows_up_stops_alone(field: Field, solver: str) -> None:
    batch = Graph.union([catalogue.path(2)] * 4)
    first = torch.tensor([0.2, 1.0, -1.0, 0.45], dtype=torch.float64)
    x0, times = first[batch.batch].unsqueeze(1), [0.0, 0.5, 2.0]
    traj = solve(
        field, x0, times, batch, solver=solver, rtol=1e-6, atol=1e-9, raise_on_failure=False
    )
    assert traj.status == ("done", "step_too_small", "done", "done")
    assert list(traj.messages) == [1]
    assert float(traj.ended[1]) == pytest.approx(1.0, abs=1e-4)
    assert traj.final.isfinite().all()
    bad = batch.batch == 1
    assert traj.x[-1, bad].isnan().all()
    torch.testing.assert_close(traj.x[1, bad], torch.full((2, 1), 2.0).double(), rtol=1e-3, atol=0)
    t = torch.tensor(times, dtype=torch.float64)[:, None, None]
    good = x0[~bad] / (1 - x0[~bad] * t)
    torch.testing.assert_close(traj.x[:, ~bad], good, rtol=1e-3, atol=1e-6)
    with pytest.raises(SolveFailed, match=r"graph 1 stopped at t=1(\.000\d+)? of 2") as caught:
        solve(field, x0, times, batch, solver=solver)
    assert caught.value.trajectory.status[1] == "step_too_small"


def test_the_others_do_not_notice_a_failing_graph() -> None:
    # Each with its own steps: the same numbers as if the failing one were not there.
    batch = Graph.union([catalogue.path(2)] * 3)
    x0 = torch.tensor([0.2, 1.0, 0.45], dtype=torch.float64)[batch.batch].unsqueeze(1)
    traj = solve(Square(), x0, 2.0, batch, raise_on_failure=False)
    for g in (0, 2):
        rows = batch.batch == g
        own = solve(Square(), x0[rows], 2.0, catalogue.path(2))
        torch.testing.assert_close(traj.final[rows], own.final, rtol=1e-12, atol=0)
        assert traj.stats.accepted[g] == own.stats.accepted


class Sick(Field):
    """x' = -x, but NaN wherever x0 was marked and t is past `since`."""

    def __init__(self, since: float, batched: bool) -> None:
        super().__init__()
        self.since, self.batched_time = since, batched

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.marked = x0 > 10

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.where(self.marked & (t >= self.since), torch.nan, -x)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("since", [0.0, 0.3])
@pytest.mark.parametrize("how", [{"solver": "dopri5"}, {"solver": "rk4", "steps": 10}])
def test_a_field_that_is_nan_for_one_graph(
    batched: bool, since: float, how: dict[str, object]
) -> None:
    batch = Graph.union([catalogue.path(3)] * 3)
    x0 = torch.ones(9, 1, dtype=torch.float64)
    x0[4] = 11.0
    traj = solve(Sick(since, batched), x0, 1.0, batch, raise_on_failure=False, **how)
    assert traj.status == ("done", "not_finite", "done")
    assert "field returned nan" in traj.messages[1]
    assert "first: node 4" in traj.messages[1]
    assert float(traj.ended[1]) <= since + 1e-9 if since else float(traj.ended[1]) == 0.0
    good = batch.batch != 1
    want = torch.full((6, 1), float(np.exp(-1.0)), dtype=torch.float64)
    torch.testing.assert_close(traj.final[good], want, rtol=1e-3, atol=1e-4)


def test_each_failing_graph_is_told_of_its_own_nodes() -> None:
    batch = Graph.union([catalogue.path(3)] * 3)
    x0 = torch.ones(9, 1, dtype=torch.float64)
    x0[[1, 2, 7]] = 11.0
    traj = solve(Sick(0.2, True), x0, 1.0, batch, raise_on_failure=False)
    assert traj.status == ("not_finite", "done", "not_finite")
    assert "in 2 of 9 nodes (first: node 1)" in traj.messages[0]
    assert "in 1 of 9 nodes (first: node 7)" in traj.messages[2]


@dataclass
class Small:
    """Stops each graph once its largest entry is below the level."""

    batch: Tensor
    level: float
    name: str = "small"

    def __call__(self, t: np.ndarray, x: tuple[Tensor, ...], fx: object) -> np.ndarray:
        top = torch.zeros(3, dtype=x[0].dtype)
        return (top.scatter_reduce(0, self.batch, x[0].abs().amax(1), "amax") < self.level).numpy()


class Decay(Field):
    """x' = -k x with a rate for each node, read from x0."""

    batched_time = True

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.k = torch.tensor([5.0, 1.0, 0.01], dtype=x0.dtype)[graph.batch].unsqueeze(1)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -self.k * x


@pytest.mark.parametrize("shared", [False, True])
def test_graphs_stop_one_by_one(shared: bool) -> None:
    batch = Graph.union([catalogue.path(2)] * 3)
    field = Decay()
    field.batched_time = not shared
    traj = solve(
        field, torch.ones(6, 1).double(), 4.0, batch, solver="tsit5", stop=Small(batch.batch, 0.1)
    )
    assert traj.status == ("stopped (small)", "stopped (small)", "done")
    assert traj.ended[0] < traj.ended[1] < traj.ended[2] == 4.0
    want = torch.exp(
        -field.bind(batch, torch.ones(6, 1).double()).k[:, 0] * traj.ended[batch.batch]
    )
    torch.testing.assert_close(traj.final[:, 0], want, rtol=1e-3, atol=1e-6)
    assert (traj.final[:4] < 0.1).all()


def test_max_steps_names_the_graph() -> None:
    batch = Graph.union([catalogue.path(5), catalogue.star(200)])
    traj = solve(
        Heat(), normal(205, 1), 10.0, batch, solver="tsit5", max_steps=100, raise_on_failure=False
    )
    assert traj.status == ("done", "max_steps")
    assert "graph 1" in traj.messages[1]
    assert "h*rho" in traj.messages[1]


def test_a_shared_step_is_as_small_as_the_hardest_graph_needs() -> None:
    field = allen_cahn()
    hard, easy = catalogue.star(40), catalogue.path(3)
    batch = Graph.union([easy] * 60 + [hard])
    x0 = normal(batch.num_nodes, 2).tanh()
    rows = batch.batch == 60
    shared = torch.nn.Module()
    bound = field.bind(batch, x0)
    shared.forward = bound.forward
    traj = solve(shared, x0, 0.3, batch, solver="dopri5", rtol=1e-6, atol=1e-8)
    assert "one step shared by all graphs" in traj.stats.reason
    assert len(set(traj.stats.accepted)) == 1
    true = solve(field, x0[rows], 0.3, hard, solver="dopri8", rtol=1e-11, atol=1e-12).final
    own = solve(field, x0[rows], 0.3, hard, solver="dopri5", rtol=1e-6, atol=1e-8)
    assert traj.stats.accepted[60] == pytest.approx(own.stats.accepted, abs=3)
    assert (traj.final[rows] - true).norm() <= 4 * (own.final - true).norm()


def test_a_failed_graph_leaves_no_tiny_steps_to_the_others() -> None:
    batch = Graph.union([catalogue.path(2)] * 2)
    x0 = torch.tensor([0.2, 1.0], dtype=torch.float64)[batch.batch].unsqueeze(1)
    traj = solve(SharedSquare(), x0, 2.0, batch, raise_on_failure=False)
    times, end = traj.energy.t[:, 0], traj.ended[1]
    assert float(times[times > end][0] - end) > 1e-4
