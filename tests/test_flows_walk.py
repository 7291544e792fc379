"""Walks: paused, cloned and resumed on one grid."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuralpde import solve
from neuralpde.catalogue import ring
from neuralpde.fields import Field
from neuralpde.flows import (
    BrownianBridge,
    GraphNetwork,
    MixtureFlow,
    StochasticSampler,
    Walk,
    eight_gaussians,
    moons,
)
from solvers.stochastic import EulerMaruyama

PATH = BrownianBridge(0.7)
MODEL = MixtureFlow(eight_gaussians(), moons(3), PATH, sigma=0.7)
SOLVERS = ("euler", "heun", "midpoint", "rk4", "tsit5", "euler_maruyama", "stochastic_heun")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(n: int = 5) -> Tensor:
    return eight_gaussians().sample(n, seeded(0))


def field(solver: str) -> Field:
    return StochasticSampler(MODEL) if solver.endswith(("maruyama", "stochastic_heun")) else MODEL


def walk(solver: str, steps: int = 9, schedule: str = "cosine", seed: int = 1) -> Walk:
    return Walk.begin(
        field(solver), start(), PATH.ends, steps=steps, solver=solver, schedule=schedule,
        generator=seeded(seed),
    )  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
def test_pauses_change_nothing_bit_for_bit(solver: str) -> None:
    whole = solve(
        field(solver), start(), PATH.ends, solver=solver, steps=9, schedule="cosine",
        generator=seeded(1),
    )  # fmt: skip
    at_once = walk(solver).finish()
    one_by_one = walk(solver)
    while one_by_one.left:
        one_by_one = one_by_one.advance()
    paused = walk(solver).advance(4)
    clone = replace(paused)
    assert torch.equal(at_once.x, whole.final)
    assert torch.equal(one_by_one.x, whole.final)
    assert torch.equal(paused.advance(2).finish().x, whole.final)
    assert torch.equal(clone.finish().x, whole.final)
    assert at_once.t == PATH.ends[1]


def test_evaluations_are_those_of_the_solve() -> None:
    assert walk("euler").finish().nfe == 9
    assert walk("heun").finish().nfe == 18
    assert walk("heun").advance(4).nfe == 8
    assert walk("heun").advance(4).advance(2).nfe == 12
    assert walk("stochastic_heun").finish().nfe == 18


def test_nodes_are_the_schedule_between_the_ends() -> None:
    nodes = walk("heun", steps=3).nodes
    low, high = PATH.ends
    assert nodes.tolist() == pytest.approx([low, low + 0.25 * (high - low), 1 - low - 0.2495, high])
    assert nodes[-1] == high


def test_cloned_rows_go_different_ways_and_cloned_walks_the_same() -> None:
    half = walk("euler_maruyama").advance(5)
    twins = half.replaced(half.x[[0, 0, 0, 1, 1]])
    apart = twins.finish().x
    assert not torch.equal(apart[0], apart[1])
    assert torch.equal(apart, twins.finish().x)
    # The noise of a row is that of the row, whoever stands there.
    assert torch.equal(twins.finish().x[0], half.finish().x[0])


def test_a_new_seed_gives_new_noise_from_there_on() -> None:
    half = walk("stochastic_heun").advance(5)
    first, second = half.reseeded(seeded(7)), half.reseeded(seeded(8))
    assert torch.equal(first.x, half.x)
    assert not torch.equal(first.finish().x, half.finish().x)
    assert not torch.equal(first.finish().x, second.finish().x)
    assert torch.equal(first.finish().x, half.reseeded(seeded(7)).finish().x)


def test_a_walk_goes_backwards_too() -> None:
    back = Walk.begin(
        StochasticSampler(MODEL, backward=True), start(), PATH.ends[::-1], steps=6,
        solver=EulerMaruyama(3),
    )  # fmt: skip
    whole = solve(
        StochasticSampler(MODEL, backward=True), start(), PATH.ends[::-1], steps=6,
        solver=EulerMaruyama(3),
    )  # fmt: skip
    assert torch.equal(back.advance(2).finish().x, whole.final)


def test_a_walk_on_a_graph_is_the_solve_on_it() -> None:
    graph, x = ring(6), torch.randn(6, 2)
    net = GraphNetwork(2, width=8, depth=1)
    with torch.no_grad():
        whole = solve(net, x, 1.0, graph, solver="heun", steps=5).final
        found = Walk.begin(net, x, (0.0, 1.0), graph, steps=5).advance(3).finish()
    assert torch.equal(found.x, whole)


def test_steps_beyond_the_grid_are_refused() -> None:
    done = walk("euler").finish()
    assert done.finish() is done
    with pytest.raises(ValueError, match="0 are left"):
        done.advance()
    with pytest.raises(ValueError, match="9 are left"):
        walk("euler").advance(10)
    with pytest.raises(ValueError, match="no noise"):
        walk("euler").reseeded()
    with pytest.raises(ValueError, match="cosine"):
        walk("euler", schedule="cosin")
