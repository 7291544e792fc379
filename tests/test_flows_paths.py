"""Straight and diffusion paths, and scores from velocities."""

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
    VariancePreserving,
    score_from_velocity,
    velocity_from_score,
)

PATHS = (
    Linear(),
    Linear(width=0.3),
    CosinePath(),
    VariancePreserving(),
    BrownianBridge(0.7),
)


def named(path: Isotropic) -> str:
    return repr(path)


def times(path: Isotropic, n: int = 9) -> Tensor:
    low, high = path.ends
    return torch.linspace(low, high, n + 2, dtype=torch.float64)[1:-1]


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_slopes_are_those_of_the_coefficients(path: Isotropic) -> None:
    t, h = times(path), 1e-6
    after, before = path.coefficients(t + h), path.coefficients(t - h)
    now = path.coefficients(t)
    for k in range(3):
        slope = (after[k] - before[k]) / (2 * h)
        torch.testing.assert_close(now[k + 3], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_the_velocity_is_how_a_point_of_given_noise_moves(path: Isotropic) -> None:
    x0, x1, z = (torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    t, h = 0.37, 1e-6

    def point(at: float) -> Tensor:
        return path.mean(at, x0, x1) + path.spread(at, z)

    u = path.velocity(t, point(t), x0, x1)
    torch.testing.assert_close(u, (point(t + h) - point(t - h)) / (2 * h), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", PATHS[1:], ids=named)
def test_the_score_is_the_gradient_of_the_normal_log_density(path: Isotropic) -> None:
    x0, x1 = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    c = path.coefficients(torch.tensor(0.3, dtype=torch.float64))
    law = torch.distributions.Normal(c.a * x0 + c.b * x1, c.s)
    (slope,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(path.score(0.3, x.detach(), x0, x1), slope)


@pytest.mark.parametrize("path", PATHS[2:4], ids=named)
def test_diffusion_paths_preserve_variance(path: Isotropic) -> None:
    c = path.coefficients(times(path))
    torch.testing.assert_close(c.b**2 + c.s**2, torch.ones(9, dtype=torch.float64))


def test_the_variance_preserving_path_solves_its_diffusion() -> None:
    # d log alpha / dr = -beta(r) / 2 with beta linear from beta_min at the data.
    path, t = VariancePreserving(beta_min=0.5, beta_max=8.0), torch.tensor(0.25).double()
    c = path.coefficients(t)
    beta = 0.5 + 0.75 * 7.5
    assert math.isclose(-float(c.db / c.b), -beta / 2, rel_tol=1e-12)
    # d(s^2)/dr = beta (1 - s^2)
    assert math.isclose(-float(2 * c.s * c.ds), beta * float(1 - c.s**2), rel_tol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=named)
@given(std=st.floats(0.2, 3.0), mean=st.floats(-2.0, 2.0))
def test_scores_come_from_velocities_and_back(path: Isotropic, std: float, mean: float) -> None:
    flow = GaussianFlow(0.0, 1.0, mean, std, path)
    x = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64)
    if isinstance(path, CosinePath | VariancePreserving):
        flow = GaussianFlow(0.0, 1e-9, mean, std, path)  # the source is the noise of the path
    for t in times(path, 4):
        v, s = flow.both(t, x)
        torch.testing.assert_close(score_from_velocity(path, t, x, v), s, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(velocity_from_score(path, t, x, s), v, rtol=1e-8, atol=1e-8)


def test_on_straight_lines_the_score_is_the_known_formula() -> None:
    x, v = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    t = torch.tensor([0.0, 0.2, 0.5, 0.9], dtype=torch.float64)
    expected = (t[:, None] * v - x) / (1 - t[:, None])
    torch.testing.assert_close(score_from_velocity(Linear(), t, x, v), expected)


def test_the_ends_raise_and_clamp_nothing() -> None:
    x = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="no noise is left"):
        score_from_velocity(Linear(), 1.0, x, x)
    with pytest.raises(ValueError, match="pure noise"):
        velocity_from_score(Linear(), 0.0, x, x)
    for path in (CosinePath(), VariancePreserving(), BrownianBridge(1.0)):
        with pytest.raises(ValueError, match="finite velocities in"):
            path.sample(x, x, 1.0)
        with pytest.raises(ValueError, match="finite velocities in"):
            score_from_velocity(path, 1.0, x, x)
    with pytest.raises(ValueError, match="finite velocities in"):
        BrownianBridge(1.0, cut=1e-9).sample(x, x, 1.0)
    Linear().sample(x, x, 1.0)  # a straight line has velocities up to its ends


def test_single_precision_reaches_the_ends() -> None:
    x = torch.ones(2, 1)
    for path in (CosinePath(), VariancePreserving(), BrownianBridge(1.0)):
        for t in path.ends:
            assert bool(path.sample(x, x, torch.tensor(t)).u.isfinite().all())


def test_a_line_without_width_has_no_conditional_score() -> None:
    x = torch.ones(2, 1)
    at = Linear().sample(x, x, 0.5)
    assert at.score is None
    assert at.noise is None
    with pytest.raises(ValueError, match="no noise"):
        Linear().score(0.5, x, x, x)
    with pytest.raises(ValueError, match="no noise"):
        Linear().entropy_rate(torch.tensor([0.5]), 1)
    assert Linear(0.5).entropy_rate(torch.tensor([0.5]), 3).item() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(-1.0),
        lambda: CosinePath(cut=0.0),
        lambda: VariancePreserving(beta_min=0.0),
        lambda: BrownianBridge(0.0),
    ],
)
def test_numbers_that_are_none_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"positive|negative|cut"):
        make()
