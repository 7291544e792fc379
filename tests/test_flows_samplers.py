"""Samplers against laws in closed form."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import solve
from neuralpde.flows import (
    BrownianBridge,
    Drifts,
    FromScore,
    FromVelocity,
    GaussianFlow,
    Linear,
    MixtureFlow,
    Model,
    Pair,
    ProbabilityFlow,
    StochasticSampler,
    eight_gaussians,
    moons,
    normal,
    schroedinger_covariance,
)
from solvers.noise import declared

GOLDEN = (math.sqrt(5) - 1) / 2
BRIDGE = BrownianBridge(1.0, cut=1e-6)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(n: int, dim: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=seeded(seed), dtype=torch.float64)


def ends(model: Model, steps: int, n: int, **options: object) -> tuple[Tensor, Tensor]:
    x0 = draw(n)
    run = {"solver": "stochastic_heun", "generator": seeded(1), **options}
    return x0, solve(StochasticSampler(model), x0, BRIDGE.ends, steps=steps, **run).final


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_reach_the_gaussian_flow_map_at_their_order(solver: str, order: int) -> None:
    flow, x = GaussianFlow(0.0, 1.0, 3.0, 0.4, Linear()), draw(50)
    exact = 3.0 + 0.4 * x
    torch.testing.assert_close(flow.carry(0.0, 1.0, x), exact)
    errors = [
        float((solve(flow, x, (0.0, 1.0), solver=solver, steps=n).final - exact).abs().max())
        for n in (64, 128)
    ]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.15


def test_an_adaptive_solve_reaches_the_gaussian_flow_map() -> None:
    flow, x = GaussianFlow(0.0, 1.0, 3.0, 0.4, Linear()), draw(50)
    for field in (flow, ProbabilityFlow(flow), ProbabilityFlow(flow.velocity)):
        found = solve(field, x, (0.0, 1.0), solver="tsit5", rtol=1e-9, atol=1e-9).final
        torch.testing.assert_close(found, 3.0 + 0.4 * x, rtol=1e-7, atol=1e-7)


def test_the_forward_drift_of_a_schroedinger_bridge_is_the_known_one() -> None:
    c, s1, x, t = 0.3, 1.5, draw(5), 0.35
    flow = GaussianFlow(0.0, 1.0, 0.0, s1, BRIDGE, cov=c, sigma=1.0)
    V = (1 - t) ** 2 + t**2 * s1**2 + (2 * c + 1) * t * (1 - t)
    # (E[x1 | x] - x) / (1 - t)
    expected = x * ((t * s1**2 + (1 - t) * c) / V - 1) / (1 - t)
    at = torch.tensor(t, dtype=torch.float64)
    torch.testing.assert_close(StochasticSampler(flow).bind(None, x)(at, x), expected)
    # (x - E[x0 | x]) / t backwards
    behind = x * (1 - ((1 - t) + t * c) / V) / t
    torch.testing.assert_close(StochasticSampler(flow, backward=True).bind(None, x)(at, x), behind)


def test_both_drifts_give_velocity_and_score() -> None:
    sigma, x, at = 0.7, draw(6, 2), torch.tensor(0.3, dtype=torch.float64)
    flow = MixtureFlow(eight_gaussians(), moons(4), BrownianBridge(sigma), sigma=sigma)
    onward = StochasticSampler(flow).bind(None, x)
    back = StochasticSampler(flow, backward=True).bind(None, x)
    found, exact = Drifts(onward, back, sigma).both(at, x), flow.both(at, x)
    torch.testing.assert_close(found.velocity, exact.velocity)
    torch.testing.assert_close(found.score, exact.score)
    torch.testing.assert_close(found.velocity, (onward(at, x) + back(at, x)) / 2)
    torch.testing.assert_close(found.score, (onward(at, x) - back(at, x)) / sigma**2)


def test_the_covariance_of_the_schroedinger_bridge_solves_its_equation() -> None:
    for s0, s1, sigma in ((1.0, 1.0, 1.0), (0.5, 2.0, 0.3), (1.0, 3.0, 5.0)):
        c = schroedinger_covariance(s0, s1, sigma)
        # The plan's density exp(-(x - y)^2 / 2 sigma^2 + f(x) + g(y)): precision 1 / sigma^2 off
        # the diagonal, so that c = sigma^2-independent entry of the inverse.
        off = -c / (s0**2 * s1**2 - c**2)
        assert math.isclose(off, -1 / sigma**2, rel_tol=1e-12)
    assert math.isclose(schroedinger_covariance(1.0, 1.0, 1.0), GOLDEN)


def test_the_simulated_bridge_couples_its_ends_as_schroedinger_asks() -> None:
    n = 20_000
    model = GaussianFlow(0.0, 1.0, 0.0, 1.0, BRIDGE, schroedinger_covariance(1, 1, 1), sigma=1.0)
    x0, x1 = ends(model, 32, n)
    S = torch.cat([x0, x1], 1).T.cov()
    assert abs(float(S[1, 1]) - 1) < 3 * math.sqrt(2 / n)
    assert abs(float(S[0, 1]) - GOLDEN) < 3 * math.sqrt((1 + GOLDEN**2) / n)


def test_independent_ends_give_a_bridge_that_is_not_schroedingers() -> None:
    # Cov(x0, x1) = exp(int (t - 1) / (1 - t + t^2) dt) = exp(-pi / 3 sqrt 3) = .546
    n, c = 20_000, math.exp(-math.pi / (3 * math.sqrt(3)))
    x0, x1 = ends(GaussianFlow(0.0, 1.0, 0.0, 1.0, BRIDGE, sigma=1.0), 32, n)
    S = torch.cat([x0, x1], 1).T.cov()
    assert abs(float(S[1, 1]) - 1) < 3 * math.sqrt(2 / n)
    assert abs(float(S[0, 1]) - c) < 3 * math.sqrt((1 + c**2) / n)
    assert abs(float(S[0, 1]) - GOLDEN) > 6 * math.sqrt((1 + c**2) / n)


@pytest.mark.parametrize(
    "noise",
    [0.0, 0.5, 2.0, lambda t: 1 + t, lambda t: 3 * torch.sqrt(t * (1 - t))],
    ids=["0", "0.5", "2", "1+t", "bridge"],
)
@pytest.mark.parametrize("backward", [False, True], ids=["onward", "back"])
def test_any_noise_keeps_the_marginals(
    noise: float | Callable[[Tensor], Tensor], backward: bool
) -> None:
    n = 10_000
    model = GaussianFlow(-1.0, 1.0, 2.0, 0.5, BRIDGE)
    start, end = BRIDGE.ends[::-1] if backward else BRIDGE.ends
    (m0, v0), (m1, v1) = (
        [one.item() for one in model.moments(torch.tensor(t))] for t in (start, end)
    )
    x0 = m0 + math.sqrt(v0) * draw(n)
    field = StochasticSampler(model, noise, backward=backward)
    x = solve(
        field, x0, (start, end), solver="stochastic_heun", steps=50, generator=seeded(2)
    ).final
    assert abs(float(x.mean()) - m1) < 4 * math.sqrt(v1 / n)
    assert abs(float(x.var()) / v1 - 1) < 4 * math.sqrt(2 / n)


def test_wrong_drift_would_be_seen() -> None:
    """The control of the test above: noise without its drift changes the law."""
    model = GaussianFlow(0.0, 1.0, 0.0, 1.0, BRIDGE)
    silent = Pair(model.velocity, lambda t, x: 0 * x)
    x = solve(
        StochasticSampler(silent, 0.5), draw(10_000), BRIDGE.ends,
        solver="stochastic_heun", steps=20, generator=seeded(2),
    ).final  # fmt: skip
    assert float(x.var()) - 1 > 10 * math.sqrt(2 / 10_000)


@pytest.mark.parametrize("solver", ["heun", "stochastic_heun"])
def test_samples_between_mixtures_have_the_moments_of_the_target(solver: str) -> None:
    n, target = 4000, moons(8)
    path = BrownianBridge(0.5, cut=1e-4)
    flow = MixtureFlow(eight_gaussians(), target, path, sigma=0.5)
    field = {"heun": flow, "stochastic_heun": StochasticSampler(flow)}[solver]
    x0 = eight_gaussians().sample(n, seeded(0))
    x = solve(field, x0, path.ends, solver=solver, steps=40, generator=seeded(1)).final
    S = target.covariance
    assert float(((x.mean(0) - target.mean) / (S.diagonal() / n).sqrt()).abs().max()) < 4
    spread = ((S.square() + torch.outer(S.diagonal(), S.diagonal())) / n).sqrt()
    assert float(((x.T.cov() - S) / spread).abs().max()) < 4
    # Points of another law would score lower than the target's own.
    own = target.log_density(target.sample(n, seeded(3)))
    logs = target.log_density(x)
    error = math.hypot(float(own.std()), float(logs.std())) / math.sqrt(n)
    assert abs(float(logs.mean() - own.mean())) < 4 * error


def test_the_score_from_the_velocity_drives_the_same_diffusion() -> None:
    flow, x = GaussianFlow(0.0, 1.0, 3.0, 0.4, Linear()), draw(4)
    at = torch.tensor(0.6, dtype=torch.float64)
    twins = FromVelocity(flow.velocity, Linear()), FromScore(flow.score, Linear())
    for twin in twins:
        torch.testing.assert_close(twin.both(at, x), flow.both(at, x))
        torch.testing.assert_close(twin.velocity(at, x), flow.velocity(at, x))


@pytest.mark.parametrize("solver", ["euler_maruyama", "stochastic_heun"])
def test_one_seed_is_one_brownian_path_on_every_grid(solver: str) -> None:
    model = GaussianFlow(-1.0, 1.0, 2.0, 0.5, BrownianBridge(1.0, cut=1e-2), sigma=1.0)
    x0 = draw(100)

    def final(steps: int, seed: int = 5, schedule: str = "uniform") -> Tensor:
        return solve(
            StochasticSampler(model),
            x0,
            (0.01, 0.99),
            solver=solver,
            steps=steps,
            schedule=schedule,
            generator=seeded(seed),
        ).final

    fine = final(256)
    errors = [float((final(n) - fine).square().mean().sqrt()) for n in (8, 16, 32)]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (orders > 0.8).all()
    # The grid may be any: what differs is the error of the steps, not the noise.
    other = float((final(128, schedule="cosine") - fine).square().mean().sqrt())
    assert other < errors[1] / 3
    fresh = float((final(256, seed=6) - fine).square().mean().sqrt())
    assert fresh > 20 * errors[2]
    assert torch.equal(final(8), final(8))


def test_the_noise_is_the_models_own_unless_another_is_given() -> None:
    model = GaussianFlow(0.0, 1.0, 0.0, 1.0, BRIDGE, sigma=0.3)
    assert declared(StochasticSampler(model).noise).values() == (0.3,)
    assert declared(StochasticSampler(model, 2.0).noise).values() == (2.0,)
    with pytest.raises(ValueError, match="give noise="):
        StochasticSampler(GaussianFlow(0.0, 1.0, 0.0, 1.0, BRIDGE))
    with pytest.raises(ValueError, match="not negative"):
        StochasticSampler(model, -1.0)
    with pytest.raises(ValueError, match="noise"):
        Drifts(lambda t, x: x, lambda t, x: x, 0.0)


def test_deterministic_solvers_refuse_a_diffusion() -> None:
    model = GaussianFlow(0.0, 1.0, 0.0, 1.0, BRIDGE, sigma=0.3)
    with pytest.raises(ValueError, match="stochastic"):
        solve(StochasticSampler(model), draw(3), BRIDGE.ends, solver="heun", steps=4)


def test_solves_beyond_the_ends_of_the_path_raise() -> None:
    model = MixtureFlow(normal(2), normal(2), BrownianBridge(1.0), sigma=1.0)
    x0 = draw(3, 2)
    for t in ((0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="finite velocities"):
            solve(model, x0, t, solver="heun", steps=4)


def test_single_precision_samples_between_the_ends() -> None:
    path = BrownianBridge(0.5)
    flow = MixtureFlow(eight_gaussians(), moons(4), path, sigma=0.5)
    x0 = eight_gaussians().sample(200, seeded(0))
    fine = solve(flow, x0, path.ends, solver="heun", steps=20).final
    coarse = solve(flow, x0.float(), path.ends, solver="heun", steps=20).final
    assert coarse.dtype == torch.float32
    assert float((coarse - fine).abs().median()) < 1e-4
    for backward in (False, True):
        ends = path.ends[::-1] if backward else path.ends
        x = solve(StochasticSampler(flow, backward=backward), x0.float(), ends, steps=20).final
        assert bool(x.isfinite().all())
