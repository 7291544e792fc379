"""Flows as problems of a comparison, and the training of bridges."""

import math

import pytest
import torch

from analysis.comparison import Run, compare
from analysis.distances import mmd2
from analysis.flow_problems import Counted, FlowProblem
from neuralpde import flows, solve
from solvers.schedules import Cosine, Uniform

BRIDGE = flows.BrownianBridge(1.0, cut=1e-3)


def problem(samples: int = 256, **more: object) -> FlowProblem:
    laws = flows.normal(2), flows.eight_gaussians(radius=3.0, std=0.3)
    model = flows.MixtureFlow(*laws, BRIDGE, 1.0)
    return FlowProblem(model, *laws, BRIDGE.ends, samples=samples, **more)


@pytest.mark.parametrize(
    ("solver", "each"), [("euler", 1), ("heun", 2), ("rk4", 4), ("euler_maruyama", 1)]
)
def test_evaluations_are_those_of_the_method(solver: str, each: int) -> None:
    found = problem().run(Run(solver, Uniform(), 6, None, 0))
    assert found["evaluations"] == 6 * each
    assert ("rmse" in found) == (solver != "euler_maruyama")


def test_a_fine_solve_ends_in_the_target() -> None:
    flow = problem(1024)
    fine = flow.run(Run("rk4", Cosine(), 40, None, 0))
    target = torch.Generator().manual_seed(77), torch.Generator().manual_seed(78)
    fresh = [flow.target.sample(1024, generator) for generator in target]
    noise = abs(mmd2(*fresh, flow.bandwidths()))
    assert abs(fine["mmd2"]) < 10 * max(noise, 1e-4)
    assert fine["rmse"] < 5e-3
    coarse = flow.run(Run("euler", Uniform(), 3, None, 0))
    assert coarse["mmd2"] > 10 * abs(fine["mmd2"])
    assert coarse["rmse"] > 50 * fine["rmse"]


def test_runs_of_a_seed_share_points_noise_and_target() -> None:
    one, other = problem(), problem()
    for solver in ("heun", "stochastic_heun"):
        run = Run(solver, Cosine(), 5, None, 3)
        assert one.run(run) == other.run(run)
        assert one.run(run)["mmd2"] != one.run(Run(solver, Cosine(), 5, None, 4))["mmd2"]


def test_noise_is_the_same_on_every_grid() -> None:
    # Without drift the end points are those of the Brownian path, whatever the grid.
    still = flows.Pair(lambda t, x: 0 * x, lambda t, x: 0 * x, sigma=1.0)
    laws = flows.normal(2), flows.normal(2)
    same = FlowProblem(still, *laws, (0.0, 1.0), samples=64)
    found = [
        same.run(Run("euler_maruyama", grid, n, None, 0))["w2"]
        for grid, n in ((Uniform(), 3), (Cosine(), 7))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_the_order_of_schedules_shows_against_the_noise_row() -> None:
    study = compare(problem(256), schedules=["uniform", "cosine"], steps=[4], seeds=3)
    rows = {row["schedule"]: row for row in study.paired("rmse").rows}
    assert abs(rows["cosine"]["gain"]) > 2 * abs(rows["uniform again"]["gain"])
    assert rows["cosine"]["t"] < 0.05


def test_step_control_is_counted_too() -> None:
    loose = problem().run(Run("dopri5", None, None, 1e-2, 0))
    tight = problem().run(Run("dopri5", None, None, 1e-5, 0))
    assert tight["rmse"] < 0.1 * loose["rmse"]
    assert tight["evaluations"] > loose["evaluations"]


def test_counting_changes_nothing() -> None:
    model = problem().model
    x, t = torch.randn(5, 2, dtype=torch.float64), torch.tensor(0.3)
    counted = Counted(model)
    assert torch.equal(counted.velocity(t, x), model.velocity(t, x))
    assert all(torch.equal(a, b) for a, b in zip(counted.both(t, x), model.both(t, x), strict=True))
    solve(flows.ProbabilityFlow(counted), x, BRIDGE.ends, solver="heun", steps=3)
    assert counted.evaluations == 2 + 6


def test_training_learns_the_velocity_and_score_of_a_gaussian_bridge() -> None:
    torch.manual_seed(0)
    laws, path = (flows.normal(1), flows.normal(1, std=0.5, mean=1.0)), flows.BrownianBridge(0.5)
    model = flows.Learned(flows.MLP(1, heads=2, width=32, depth=2), path, 0.5)
    exact = flows.MixtureFlow(*laws, path, 0.5)

    def error(head: str) -> float:
        with torch.no_grad():
            errors = []
            for time in (0.2, 0.5, 0.8):
                t, x = torch.tensor(time), torch.linspace(-0.7, 1.2, 20)[:, None]
                a, b = getattr(model, head)(t, x), getattr(exact, head)(t, x)
                errors.append(float((a - b).norm() / b.norm()))
        return math.sqrt(sum(e * e for e in errors) / 3)

    before = error("velocity"), error("score")
    losses: list[float] = []
    flows.train_bridge(
        model,
        *laws,
        flows.Independent(),
        steps=600,
        batch=256,
        rate=5e-3,
        generator=torch.Generator().manual_seed(1),
        progress=lambda step, loss: losses.append(loss),
    )
    assert error("velocity") < min(0.15, before[0] / 3)
    assert error("score") < min(0.25, before[1] / 3)
    assert len(losses) == 100


def test_training_says_what_it_cannot_do() -> None:
    model = flows.Learned(flows.MLP(1, heads=2, width=4), BRIDGE, 1.0)
    laws = flows.normal(1), flows.normal(1)
    with pytest.raises(ValueError, match="steps=0"):
        flows.train_bridge(model, *laws, flows.Independent(), steps=0)
    with torch.no_grad():
        model.network.layers[0].weight.fill_(math.nan)
    with pytest.raises(ValueError, match="at step 1"):
        flows.train_bridge(model, *laws, flows.Independent(), steps=3)


def test_points_come_in_the_dtype_of_the_weights() -> None:
    laws = flows.normal(2), flows.normal(2)
    model = flows.Learned(flows.MLP(2, heads=2, width=4), BRIDGE, 1.0)
    small = FlowProblem(model, *laws, BRIDGE.ends, samples=16)
    for solver in ("heun", "stochastic_heun"):
        assert small.run(Run(solver, Uniform(), 3, None, 0))["evaluations"] == 6
