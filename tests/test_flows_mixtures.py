"""Exact marginal fields between mixtures, against independent numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.flows import (
    BrownianBridge,
    CosinePath,
    GaussianFlow,
    Isotropic,
    Linear,
    Mixture,
    MixtureFlow,
    checkerboard,
    checkerboard_points,
    circle_points,
    eight_gaussians,
    moon_points,
    moons,
    normal,
    swiss_roll_points,
)

PATHS = (Linear(), BrownianBridge(0.8), CosinePath())
X = torch.tensor([[0.3, -1.2], [2.0, 0.5], [-4.0, 1.0]], dtype=torch.float64)


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uneven() -> Mixture:
    means = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [0.0, -3.0]], dtype=torch.float64)
    return Mixture(means, torch.tensor([0.5, 1.0, 0.2]), torch.tensor([3.0, 1.0, 2.0]))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_the_score_is_the_gradient_of_the_log_density(path: Isotropic) -> None:
    flow = MixtureFlow(uneven(), eight_gaussians(), path)
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_density(at(0.3), x).sum(), x)
    torch.testing.assert_close(flow.score(at(0.3), X), slope)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_the_divergence_is_the_trace_of_the_jacobian(path: Isotropic) -> None:
    flow = MixtureFlow(uneven(), eight_gaussians(), path)
    found = flow.divergence(at(0.3), X)
    for i, x in enumerate(X):
        J = torch.autograd.functional.jacobian(lambda y: flow.velocity(at(0.3), y[None])[0], x)
        assert math.isclose(float(torch.trace(J)), float(found[i]), rel_tol=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_density_and_velocity_satisfy_the_continuity_equation(path: Isotropic) -> None:
    # d log p / dt = -div v - <v, s>
    flow, h = MixtureFlow(uneven(), moons(4), path), 1e-5
    for t in (0.1, 0.5, 0.8):
        rise = (flow.log_density(at(t + h), X) - flow.log_density(at(t - h), X)) / (2 * h)
        v, s = flow.both(at(t), X)
        expected = -flow.divergence(at(t), X) - (v * s).sum(1)
        torch.testing.assert_close(rise, expected, rtol=1e-6, atol=1e-7)


def test_the_velocity_is_the_conditional_mean_by_monte_carlo() -> None:
    """E[u | x] by importance: pairs weighted by p(x | x0, x1), from the path alone."""
    path, n, t = BrownianBridge(1.0), 200_000, 0.4
    source, target = uneven(), eight_gaussians()
    x0, x1 = source.sample(n, seeded(0)), target.sample(n, seeded(1))
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    off = x - path.mean(t, x0, x1)
    weight = torch.exp(-off.square().sum(1) / (2 * t * (1 - t)))
    flow = MixtureFlow(source, target, path)
    found = flow.both(at(t), x)
    for values, exact in (
        (path.velocity(t, x.expand(n, 2), x0, x1), found.velocity),
        (path.score(t, x.expand(n, 2), x0, x1), found.score),
    ):
        mean = weight @ values / weight.sum()
        spread = (weight[:, None] * (values - mean)).square().sum(0).sqrt() / weight.sum()
        assert float(((mean - exact[0]) / spread).abs().max()) < 4


@given(std0=st.floats(0.2, 2.0), std1=st.floats(0.2, 2.0), t=st.floats(0.01, 0.99))
def test_one_component_is_the_gaussian_flow(std0: float, std1: float, t: float) -> None:
    path = BrownianBridge(0.6)
    mixed = MixtureFlow(normal(2, std0, -1.0), normal(2, std1, 2.0), path)
    plain = GaussianFlow(-1.0, std0, 2.0, std1, path)
    torch.testing.assert_close(mixed.both(at(t), X), plain.both(at(t), X))
    torch.testing.assert_close(mixed.divergence(at(t), X), plain.divergence(at(t), X))
    torch.testing.assert_close(mixed.log_density(at(t), X), plain.log_density(at(t), X))
    rate = mixed.entropy_rate(at(t)[None])
    torch.testing.assert_close(rate, plain.entropy_rate(at(t)[None], 2), rtol=1e-9, atol=1e-9)


def test_the_rate_of_entropy_is_that_of_the_differential_entropy() -> None:
    """-int p log p on a fine grid, differenced in time."""
    flow = MixtureFlow(uneven(), moons(3), Linear())
    line = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    cell = float(line[1] - line[0]) ** 2

    def entropy(t: float) -> float:
        logs = flow.log_density(at(t), grid)
        return -float((logs.exp() * logs).sum()) * cell

    rate = (entropy(0.5001) - entropy(0.4999)) / 0.0002
    exact = flow.entropy_rate(at(0.5)[None], order=48).item()
    assert math.isclose(rate, exact, rel_tol=1e-3)
    by_grid = flow.log_density(at(0.5), grid).exp() @ flow.divergence(at(0.5), grid) * cell
    assert math.isclose(rate, float(by_grid), rel_tol=1e-5)
    samples = 20_000
    x = flow.law(0.5).sample(samples, seeded(2))
    error = float(flow.divergence(at(0.5), x).std()) / math.sqrt(samples)
    drawn = flow.entropy_rate(at(0.5)[None], samples=samples, generator=seeded(3)).item()
    assert abs(drawn - float(by_grid)) < 4 * error


def test_on_a_bridge_conditional_minus_marginal_rate_is_the_closed_form() -> None:
    # R = d/2 (s0^2 (1-t)^2 - s1^2 t^2) / (t (1-t) V), independent of the coupling's numerator.
    t, s0, s1, sigma, c, d = at(0.2), 1.3, 0.7, 0.9, 0.4, 3
    path = BrownianBridge(sigma)
    flow = GaussianFlow(0.0, s0, 0.0, s1, path, cov=c)
    V = (1 - t) ** 2 * s0**2 + t**2 * s1**2 + (2 * c + sigma**2) * t * (1 - t)
    R = d / 2 * (s0**2 * (1 - t) ** 2 - s1**2 * t**2) / (t * (1 - t) * V)
    found = path.entropy_rate(t[None], d) - flow.entropy_rate(t[None], d)
    torch.testing.assert_close(found, R[None], rtol=1e-12, atol=1e-12)


def test_times_may_differ_between_points() -> None:
    flow = MixtureFlow(uneven(), eight_gaussians(), BrownianBridge(1.0))
    plain = GaussianFlow(0.0, 1.0, 1.0, 2.0, BrownianBridge(1.0))
    t = torch.tensor([[0.1], [0.5], [0.7]], dtype=torch.float64)
    for law in (flow, plain):
        together = law.both(t, X)
        alone = [law.both(one[0], x[None]) for one, x in zip(t, X, strict=True)]
        torch.testing.assert_close(together.velocity, torch.cat([one.velocity for one in alone]))
        torch.testing.assert_close(together.score, torch.cat([one.score for one in alone]))


def test_the_law_at_a_time_has_the_moments_of_sampled_points() -> None:
    path, n = BrownianBridge(0.8), 50_000
    source, target = uneven(), checkerboard()
    flow = MixtureFlow(source, target, path)
    x = path.sample(source.sample(n, seeded(0)), target.sample(n, seeded(1)), 0.3, seeded(2)).x
    law = flow.law(0.3)
    S = law.covariance
    error = (x.mean(0) - law.mean) / (S.diagonal() / n).sqrt()
    assert float(error.abs().max()) < 4
    # Light tails: the error of a covariance is below that of a normal law of the same kurtosis, 3.
    errors = ((S.square() + torch.outer(S.diagonal(), S.diagonal())) * 2 / n).sqrt()
    assert float(((x.T.cov() - S) / errors).abs().max()) < 4


def test_mixtures_and_their_points_agree() -> None:
    n = 40_000
    pairs = ((moons(64), moon_points(n, seeded(0))), (checkerboard(12), None))
    for law, given_points in pairs:
        x = checkerboard_points(n, seeded(1)) if given_points is None else given_points
        S = law.covariance
        assert float(((x.mean(0) - law.mean) / (S.diagonal() / n).sqrt()).abs().max()) < 4
        torch.testing.assert_close(x.T.cov(), S, rtol=0.03, atol=0.03)


def test_the_dark_squares_are_those_of_the_main_diagonal() -> None:
    for points in (checkerboard().means, checkerboard_points(99, seeded(0))):
        assert bool(((points / 2).floor().sum(1) % 2 == 0).all())


def test_tight_scales_the_spread_alone() -> None:
    for make in (eight_gaussians, moons, checkerboard):
        wide, tight = make(), make(tight=0.3)
        torch.testing.assert_close(tight.means, wide.means)
        torch.testing.assert_close(tight.stds, 0.3 * wide.stds)
    assert math.isclose(float(eight_gaussians().stds[0]), 0.5623, abs_tol=1e-4)
    assert math.isclose(float(eight_gaussians().means.norm(dim=1).max()), 5.0)


def test_points_belong_to_their_generator() -> None:
    for make in (moon_points, checkerboard_points, swiss_roll_points, circle_points):
        assert torch.equal(make(50, seeded(3)), make(50, seeded(3)))
        assert not torch.equal(make(50, seeded(3)), make(50, seeded(4)))
    law = eight_gaussians()
    assert torch.equal(law.sample(9, seeded(3)), law.sample(9, seeded(3)))


def test_sampled_points_have_the_law_of_the_mixture() -> None:
    n, law = 40_000, uneven()
    x = law.sample(n, seeded(5))
    # E log p under p is minus the entropy, here on a grid.
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    logs = law.log_density(torch.cartesian_prod(line, line))
    p = logs.exp() * float(line[1] - line[0]) ** 2
    assert math.isclose(float(p.sum()), 1.0, rel_tol=1e-6)
    drawn = law.log_density(x)
    assert abs(float(drawn.mean() - p @ logs)) < 4 * float(drawn.std()) / math.sqrt(n)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one each"):
        Mixture(torch.zeros(2, 2), torch.ones(3))
    with pytest.raises(ValueError, match="negative"):
        Mixture(torch.zeros(2, 2), -1.0)
    with pytest.raises(ValueError, match="dimensions"):
        MixtureFlow(normal(2), normal(3), Linear())
    with pytest.raises(ValueError, match="at most their product"):
        GaussianFlow(0.0, 1.0, 0.0, 1.0, Linear(), cov=1.5)
    with pytest.raises(ValueError, match="finite velocities"):
        MixtureFlow(normal(2), normal(2), BrownianBridge(1.0)).velocity(at(0.0), X)
    with pytest.raises(ValueError, match="samples="):
        MixtureFlow(normal(4), normal(4), Linear()).entropy_rate(at(0.5)[None])
