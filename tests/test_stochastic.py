"""Stochastic methods: laws and orders against closed forms."""

import math

import numpy as np
import pytest
import torch
from noisy import (
    GRAPH,
    GROWTH,
    NODES,
    SPREAD,
    STEPPERS,
    Growth,
    Pull,
    ones,
    seeded,
    slope,
    stratonovich_growth,
)
from scipy import stats

from neuralpde import solve
from neuralpde.catalogue import path
from neuralpde.fields import Heat, Noise
from solvers.brownian import Brownian
from solvers.stochastic import EulerMaruyama, StochasticHeun


def test_heat_with_noise_is_the_graph_ornstein_uhlenbeck_process() -> None:
    paths, T, s = 20_000, 1.0, 0.5
    lam, U = torch.linalg.eigh(GRAPH.laplacian().to_dense().double())
    lam = torch.where(lam < 1e-12, 0.0, lam)
    safe = torch.where(lam > 0, lam, 1.0)
    var = s**2 * torch.where(lam > 0, -torch.expm1(-2 * lam * T) / (2 * safe), T)
    C = U @ torch.diag(var) @ U.T
    x0 = torch.linspace(-1.0, 1.0, NODES, dtype=torch.float64)
    mean = U @ (torch.exp(-lam * T) * (U.T @ x0))
    start = x0[:, None].repeat(1, paths)
    traj = solve(Heat() + Noise(s), start, T, GRAPH, steps=32, generator=seeded(0))
    assert traj.stats.solver == "stochastic_heun"
    off = traj.final - mean[:, None]
    S = off @ off.T / paths
    # All 45 entries at once: N/2 tr((C^-1 S - 1)^2) is chi-square, here within 3 sigma; and the
    # worst of them, with the bound for one of 45.
    ratio = torch.linalg.solve(C, S) - torch.eye(NODES, dtype=torch.float64)
    entries = NODES * (NODES + 1) // 2
    level = 2 * stats.norm.sf(3)
    covariance = stats.chi2(entries).cdf(0.5 * paths * float(torch.trace(ratio @ ratio)))
    assert level / 2 < covariance < 1 - level / 2
    errors = ((C.square() + torch.outer(C.diag(), C.diag())) / paths).sqrt()
    assert float(((S - C) / errors).abs().max()) < stats.norm.isf(level / 2 / entries)
    m = off.mean(1)
    assert stats.chi2(NODES).sf(paths * float(m @ torch.linalg.solve(C, m))) > level


def test_an_operator_spreads_noise_over_the_nodes() -> None:
    paths, s = 20_000, 0.5
    graph = path(4)
    field = Noise(s, lambda graph, x0: graph.adjacency())
    x0 = torch.zeros(4, paths, dtype=torch.float64)
    X = solve(field, x0, 2.0, graph, solver="euler_maruyama", steps=2, generator=seeded(1)).final
    A = graph.adjacency().to_dense().double()
    C = 2.0 * s**2 * A @ A.T
    # The adjacency of a path of even length is regular, and so is C.
    ratio = torch.linalg.solve(C, X @ X.T / paths) - torch.eye(4, dtype=torch.float64)
    assert 1e-3 < stats.chi2(10).cdf(0.5 * paths * float(torch.trace(ratio @ ratio))) < 1 - 1e-3


def test_stochastic_heun_averages_the_noise_of_both_ends_of_a_step() -> None:
    W, x0 = Brownian(1, (3,)), torch.zeros(3, dtype=torch.float64)
    for noise in (Noise(lambda t: 1 + t, additive=True), Noise(lambda t, x: (1 + t).expand_as(x))):
        noise.convention = "stratonovich"
        x = solve(noise, x0, (0.5, 0.75), solver=StochasticHeun(1), steps=1).final
        torch.testing.assert_close(x, 1.625 * W.increment(0.5, 0.75), rtol=1e-14, atol=1e-14)


def test_independent_noises_add_their_squares() -> None:
    x0 = ones(2, 3)
    column = torch.tensor([[0.3], [0.4]], dtype=torch.float64)
    both = solve(Noise(0.6) + Noise(column) + Noise(0.0), x0, 1.0, solver=EulerMaruyama(3), steps=2)
    one = solve(Noise((0.36 + column**2).sqrt()), x0, 1.0, solver=EulerMaruyama(3), steps=2)
    torch.testing.assert_close(both.final, one.final, rtol=1e-14, atol=1e-14)
    field = Growth() + Noise(0.8)
    mixed = solve(field, 2 * x0, 0.5, solver=EulerMaruyama(3), steps=1).final
    by_hand = 2 + 0.5 * GROWTH * 2 + math.hypot(2 * SPREAD, 0.8) * Brownian(3, (2, 3))(0.5)
    torch.testing.assert_close(mixed, by_hand, rtol=1e-14, atol=1e-14)


def test_euler_maruyama_has_strong_order_one_half_and_weak_order_one() -> None:
    paths, steps = 10_000, np.array([16, 32, 64, 128])
    W = Brownian(7, (1, paths))(1.0)
    exact = torch.exp((GROWTH - SPREAD**2 / 2) + SPREAD * W)
    strong, weak = [], []
    with torch.no_grad():
        for n in steps:
            x = solve(Growth(), ones(1, paths), 1.0, solver=EulerMaruyama(7), steps=int(n)).final
            strong.append(float((x - exact).square().mean().sqrt()))
            # The exact solution on the same path is the control variate.
            weak.append(abs(float((x - exact).mean())))
    assert abs(slope(steps, strong) - 0.5) < 0.1, strong
    assert abs(slope(steps, weak) - 1.0) < 0.15, weak
    # Its own mean is (1 + m h)^n.
    bias = math.exp(GROWTH) - (1 + GROWTH / steps[0]) ** steps[0]
    assert weak[0] == pytest.approx(bias, rel=0.1)


def test_stochastic_heun_has_strong_order_one_for_noise_entry_by_entry() -> None:
    paths, steps = 2_000, np.array([16, 32, 64, 128])
    exact = torch.exp(GROWTH + SPREAD * Brownian(7, (1, paths))(1.0))
    errors = []
    for n in steps:
        solver = StochasticHeun(7)
        x = solve(stratonovich_growth(), ones(1, paths), 1.0, solver=solver, steps=int(n)).final
        errors.append(float((x - exact).square().mean().sqrt()))
    assert abs(slope(steps, errors) - 1.0) < 0.1, errors


@pytest.mark.parametrize("name", STEPPERS)
def test_additive_noise_has_strong_order_one(name: str) -> None:
    paths, steps = 500, np.array([4, 8, 16, 32, 64])
    # g(t) depends on time, so that it matters where it is evaluated.
    field = Pull() + Noise(lambda t: 0.5 + t, additive=True)
    x0 = ones(1, paths)
    fine = solve(field, x0, 1.0, path(1), solver=StochasticHeun(3), steps=1024).final
    errors = []
    for n in steps:
        x = solve(field, x0, 1.0, path(1), solver=STEPPERS[name](3), steps=int(n)).final
        errors.append(float((x - fine).square().mean().sqrt()))
    assert abs(slope(steps, errors) - 1.0) < 0.15, errors


def test_without_noise_the_steps_are_euler_and_heun() -> None:
    x0 = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
    for name, plain in (("euler_maruyama", "euler"), ("stochastic_heun", "heun")):
        noisy = solve(Pull() + Noise(0.0), x0, 1.0, path(4), solver=name, steps=7)
        quiet = solve(Pull(), x0, 1.0, path(4), solver=plain, steps=7)
        torch.testing.assert_close(noisy.final, quiet.final, rtol=1e-14, atol=1e-14)
        assert noisy.stats.nfe == quiet.stats.nfe
