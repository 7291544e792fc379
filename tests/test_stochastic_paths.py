"""Solves of stochastic fields: one path for all grids, batches, and gradients along the path."""

import pytest
import torch
from noisy import GRAPH, GROWTH, NODES, SPREAD, STEPPERS, Growth, ones, seeded, stratonovich_growth
from torch import Tensor, nn

from neuralpde import Graph, solve
from neuralpde.catalogue import path, ring
from neuralpde.fields import Field, Heat, Noise
from solvers.brownian import Brownian
from solvers.failure import SolveFailed
from solvers.schedules import Points
from solvers.stochastic import EulerMaruyama, StochasticHeun


@pytest.mark.parametrize("name", STEPPERS)
def test_grids_and_schedules_follow_the_same_path(name: str) -> None:
    # Pure Brownian motion: the end is W(T) itself, on whichever grid.
    x0 = torch.zeros(5, 2, dtype=torch.float64)
    W = Brownian(9, (5, 2))
    grids = [{"steps": n, "schedule": s} for n in (1, 10, 30) for s in ("uniform", "cosine")]
    for grid in grids:
        traj = solve(Noise(1.0), x0, (0.3, 4.6), solver=STEPPERS[name](9), **grid)
        torch.testing.assert_close(traj.final, W.increment(0.3, 4.6), rtol=0, atol=1e-14)
    saved = solve(Noise(1.0), x0, torch.tensor([0.0, 0.1, 0.77, 2.0]), solver=name, steps=6)
    again = Brownian(int(saved.stats.reason.split("seed=")[1].rstrip(")")), (5, 2))
    for t, x in zip(saved.t, saved.x, strict=True):
        torch.testing.assert_close(x, again(float(t)), rtol=0, atol=1e-14)


def test_points_of_a_grid_are_met_exactly_where_rounding_misses_them() -> None:
    points = Points((0.0, 0.3, 0.999, 0.99993, 1.0))
    traj = solve(
        Noise(1.0), ones(3), (1000.7, 0.01), solver=EulerMaruyama(2), schedule=points, save="steps"
    )
    W = Brownian(2, (3,))
    missed = 0
    for k in range(4):
        start, end = float(traj.t[k]), float(traj.t[k + 1])
        missed += start + (end - start) != end
        step = traj.x[k + 1] - traj.x[k]
        torch.testing.assert_close(step, W.increment(start, end), rtol=0, atol=1e-12)
    # t + h is another number than the next time, and would have another value.
    assert missed


def test_a_solve_that_is_resumed_goes_on_along_its_path() -> None:
    x0, field = ones(NODES, 2), Heat() + Noise(0.5)
    whole = solve(field, x0, 2.0, GRAPH, solver=EulerMaruyama(4), steps=40)
    half = solve(field, x0, 1.0, GRAPH, solver=EulerMaruyama(4), steps=20)
    rest = solve(field, half.final, (1.0, 2.0), GRAPH, solver=EulerMaruyama(4), steps=20)
    torch.testing.assert_close(rest.final, whole.final, rtol=1e-12, atol=1e-12)


def test_falling_time_retraces_the_path_of_stratonovich_equations() -> None:
    field, x0 = stratonovich_growth(), ones(1, 4)
    gaps = []
    for n in (50, 200):
        there = solve(field, x0, 1.0, solver=StochasticHeun(6), steps=n).final
        back = solve(field, there, (1.0, 0.0), solver=StochasticHeun(6), steps=n).final
        gaps.append(float((back - x0).abs().max()))
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 2


def test_seeds_are_drawn_once_from_the_generator() -> None:
    def end(rng: torch.Generator | None, name: str = "euler_maruyama") -> Tensor:
        return solve(Noise(1.0), ones(3), 1.0, solver=name, steps=2, generator=rng).final

    rng = seeded(5)
    first, second = end(rng), end(rng)
    assert not torch.equal(first, second)
    assert torch.equal(first, end(seeded(5)))
    torch.testing.assert_close(first, end(seeded(5), "stochastic_heun"), rtol=0, atol=1e-15)
    after = seeded(5)
    torch.randint(2**63 - 1, (), generator=after)
    torch.randint(2**63 - 1, (), generator=after)
    assert torch.equal(rng.get_state(), after.get_state())
    torch.manual_seed(3)
    default = end(None)
    torch.manual_seed(3)
    assert torch.equal(default, end(None))


def batch() -> tuple[Graph, list[Graph]]:
    alone = [ring(3), path(4), ring(5)]
    edges, first = [], 0
    for graph in alone:
        edges.append(graph.edge_index + first)
        first += graph.num_nodes
    sizes = torch.tensor([g.num_nodes for g in alone])
    return Graph(torch.cat(edges, 1), batch=torch.arange(3).repeat_interleave(sizes)), alone


@pytest.mark.parametrize("times", ["shared", "own"])
def test_with_seeds_of_their_own_graphs_give_what_they_give_alone(times: str) -> None:
    together, alone = batch()
    x0, field = torch.randn(12, 2, dtype=torch.float64), Heat() + Noise(0.4)
    t = torch.tensor([[0.0] * 3, [1.0] * 3 if times == "shared" else [1.0, 0.3, 2.0]])
    traj = solve(field, x0, t.double(), together, solver=EulerMaruyama([8, 2, 5]), steps=10)
    for g, (graph, seed) in enumerate(zip(alone, (8, 2, 5), strict=True)):
        rows = together.batch == g
        one = solve(field, x0[rows], t[:, g].double(), graph, solver=EulerMaruyama(seed), steps=10)
        torch.testing.assert_close(traj.final[rows], one.final, rtol=1e-13, atol=1e-13)


def test_with_one_seed_graphs_have_different_noise() -> None:
    graph = Graph(torch.empty(2, 0, dtype=torch.int64), 4, batch=torch.tensor([0, 0, 1, 1]))
    x = solve(Noise(1.0), torch.zeros(4), 1.0, graph, solver="euler_maruyama", steps=1).final
    assert not torch.equal(x[:2], x[2:])
    t = torch.tensor([[0.0, 0.0], [1.0, 0.7]], dtype=torch.float64)
    x = solve(Noise(1.0), torch.zeros(4), t, graph, solver=EulerMaruyama(6), steps=1).final
    assert torch.equal(x[:2], Brownian(6, (2,))(1.0).float())
    assert torch.equal(x[2:], Brownian(6, (2,), first=2)(0.7).float())


def test_a_graph_that_fails_leaves_the_others_on_their_path() -> None:
    together, _ = batch()

    class Burst(Field):
        batched_time = True

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.where(torch.arange(len(x))[:, None] < 3, 1e200 * x**3, 0.0 * x)

    x0 = ones(12, 1)
    solver = EulerMaruyama([1, 2, 3])
    with pytest.raises(SolveFailed, match="graph 0 stopped") as caught:
        solve(Burst() + Noise(0.5), x0, 1.0, together, solver=solver, steps=4)
    final = caught.value.trajectory.final
    own = 1 + 0.5 * Brownian([2, 3], (9, 1), nodes=[4, 5])(1.0)
    torch.testing.assert_close(final[3:], own, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_pathwise_gradients_are_those_of_the_scheme_and_of_the_closed_form(grad: str) -> None:
    field, x0 = Growth(), ones(1, 3).requires_grad_()
    n, T = 64, 1.0
    x = solve(field, x0, T, solver=EulerMaruyama(5), steps=n, grad=grad, max_steps=200).final
    rate, spread, start = torch.autograd.grad(x.sum(), (field.rate, field.spread, x0))
    # The scheme is a product of factors 1 + m h + s dW; differentiate it by hand.
    W = Brownian(5, (1, 3))
    h = T / n
    dW = torch.stack([W.increment(k * h, (k + 1) * h) for k in range(n)])
    factors = 1 + GROWTH * h + SPREAD * dW
    end = factors.prod(0)
    torch.testing.assert_close(start, end, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rate, (end * (h / factors).sum(0)).sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(spread, (end * (dW / factors).sum(0)).sum(), rtol=1e-12, atol=0)


def test_gradients_converge_to_those_of_the_exact_path() -> None:
    field = stratonovich_growth()
    x0 = ones(1, 50).requires_grad_()
    x = solve(field, x0, 1.0, solver=StochasticHeun(5), steps=512, grad="replay").final
    (found,) = torch.autograd.grad(x.sum(), x0)
    exact = torch.exp(GROWTH + SPREAD * Brownian(5, (1, 50))(1.0))
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0)


@pytest.mark.parametrize("name", STEPPERS)
def test_replayed_gradients_equal_taped_ones_also_of_the_noise(name: str) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.3, 0.7], dtype=torch.float64))

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.weight * (0.5 + torch.tanh(x) + t)

    rate = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
    convention = "ito" if name == "euler_maruyama" else "stratonovich"
    field = Heat(rate=rate) + Noise(Wide(), convention=convention) + Noise(nn.Parameter(ones(2)))
    found = []
    for grad in ("tape", "replay"):
        x0 = ones(NODES, 2).requires_grad_()
        solver = STEPPERS[name](seed=1)
        times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
        traj = solve(field, x0, times, GRAPH, solver=solver, steps=40, grad=grad)
        assert traj.stats.gradient == grad
        found.append(torch.autograd.grad(traj.x.square().sum(), (x0, *field.parameters())))
    assert len(found[0]) == 4
    for taped, replayed in zip(*found, strict=True):
        torch.testing.assert_close(replayed, taped, rtol=1e-11, atol=1e-11)
        assert taped.abs().max() > 0


def test_noise_that_is_no_noise_has_a_finite_gradient() -> None:
    still = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    x = solve(Noise(still) + Noise(0.0), ones(3), 1.0, solver="euler_maruyama", steps=2).final
    (found,) = torch.autograd.grad(x.sum(), still)
    assert found.isfinite()
