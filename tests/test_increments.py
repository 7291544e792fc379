"""Increments that belong to their steps: their law, and what they are functions of."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from neuralpde import Graph, solve
from neuralpde.fields import Field, Heat, Noise
from solvers import Brownian, EulerMaruyama, StochasticHeun
from solvers.increments import Increments
from solvers.normals import BLOCK, Normals

MANY = 20_000


def test_increments_are_independent_and_normal_with_the_variance_of_their_step() -> None:
    dW = Increments(3, (MANY,))
    steps = [(0.0, 0.1), (0.1, 0.3), (0.1, 0.3000001), (0.3, 0.1), (-0.1, 0.0), (7.0, 9.0)]
    found = [dW.increment(*step) / math.sqrt(abs(step[1] - step[0])) for step in steps]
    found += [Increments(3, (MANY,), part=1).increment(0.0, 0.1) / math.sqrt(0.1)]
    found += [Increments(4, (MANY,)).increment(0.0, 0.1) / math.sqrt(0.1)]
    # A path of the same seed must not hold the same numbers.
    found += [Brownian(3, (MANY,)).increment(0.0, 0.1) / math.sqrt(0.1)]
    for one in found:
        assert stats.kstest(one.numpy(), "norm").pvalue > 1e-3
    off = torch.corrcoef(torch.stack(found)).fill_diagonal_(0.0)
    assert off.abs().max() < 4.5 / math.sqrt(MANY)


def test_zero_is_one_time_whatever_its_sign() -> None:
    dW = Increments(3, (4,))
    assert torch.equal(dW.increment(0.0, 0.5), dW.increment(-0.0, 0.5))


def test_blocks_of_entries_can_be_drawn_alone() -> None:
    whole = Normals(9, [3 * BLOCK + 5]).draw((1, 2, 3)).copy()
    for first, count in ((0, 7), (5, BLOCK), (BLOCK, BLOCK), (BLOCK - 1, 2), (2 * BLOCK + 9, 1000)):
        part = Normals(9, [count], first=first).draw((1, 2, 3))
        assert np.array_equal(part, whole[first : first + count])
    assert stats.kstest(whole, "norm").pvalue > 1e-3
    assert len(np.unique(whole)) == len(whole)


def test_graphs_with_seeds_of_their_own_do_not_see_each_other() -> None:
    together = Increments([4, 9], (BLOCK + 7, 2), nodes=[BLOCK, 7]).increment(0.2, 0.3)
    assert torch.equal(together[:BLOCK], Increments(4, (BLOCK, 2)).increment(0.2, 0.3))
    assert torch.equal(together[BLOCK:], Increments(9, (7, 2)).increment(0.2, 0.3))
    one = Increments(4, (BLOCK + 7, 2), nodes=[BLOCK, 7]).increment(0.2, 0.3)
    assert torch.equal(one[BLOCK:], Increments(4, (7, 2), first=BLOCK).increment(0.2, 0.3))


@pytest.mark.parametrize("method", [EulerMaruyama, StochasticHeun])
def test_solves_repeat_on_a_grid_and_not_on_another(method: type) -> None:
    x0, solver = torch.zeros(5, 2).double(), method(6, shared=False)
    assert repr(solver) == f"{method.__name__}(seed=6, shared=False)"
    run = solve(Noise(1.0), x0, 1.0, solver=solver, steps=8).final
    assert torch.equal(run, solve(Noise(1.0), x0, 1.0, solver=solver, steps=8).final)
    assert not torch.allclose(run, solve(Noise(1.0), x0, 1.0, solver=solver, steps=16).final)
    t = torch.linspace(0, 1, 9, dtype=torch.float64).tolist()
    dW = Increments(6, (5, 2))
    wanted: Tensor = sum(dW.increment(*step) for step in itertools.pairwise(t))
    torch.testing.assert_close(run, wanted, rtol=0, atol=1e-14)


def test_gradients_that_replay_steps_meet_the_same_noise() -> None:
    class Growth(Field):
        needs_graph = False

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return x.sin()

    grads = []
    for grad in ("tape", "replay"):
        x0 = torch.ones(3, 2).double().requires_grad_()
        solver = StochasticHeun(5, shared=False)
        end = solve(Growth() + Noise(0.5), x0, 1.0, solver=solver, steps=30, grad=grad).final
        grads.append(torch.autograd.grad(end.square().sum(), x0)[0])
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_clocks_of_their_own_meet_the_increments_of_their_own_steps() -> None:
    graph = Graph(torch.empty(2, 0, dtype=torch.int64), 4, batch=torch.tensor([0, 0, 1, 1]))
    t = torch.tensor([[0.0, 0.0], [1.0, 0.7]], dtype=torch.float64)
    solver = EulerMaruyama(6, shared=False)
    x = solve(Noise(1.0), torch.zeros(4).double(), t, graph, solver=solver, steps=1).final
    assert torch.equal(x[:2], Increments(6, (2,)).increment(0.0, 1.0))
    assert torch.equal(x[2:], Increments(6, (2,), first=2).increment(0.0, 0.7))


def test_the_stationary_law_of_heat_with_noise_is_reached() -> None:
    # A path of two nodes, L = [[1, -1], [-1, 1]]: the difference d obeys d' = -2 d + sqrt(2) dW.
    pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    solver = StochasticHeun(2, shared=False)
    x = solve(
        Heat() + Noise(1.0), torch.zeros(2, MANY).double(), 3.0, pair, solver=solver, steps=60
    )
    apart = x.final[0] - x.final[1]
    assert apart.var() == pytest.approx(0.5, rel=0.05)
