"""Carre-du-champ paths: their two limits, tangents of known surfaces, equivariance."""

import math

import pytest
import torch
from torch import Tensor

from neuralpde.flows import CarreDuChamp, LocalCovariance, local_covariance

F64 = torch.float64
POINTS = torch.randn(40, 3, dtype=F64, generator=torch.Generator().manual_seed(0))


def dense(found: LocalCovariance) -> Tensor:
    """The covariances as matrices."""
    U, s = found.vectors, found.deviations
    return torch.einsum("pdr,pr,per->pde", U, s.square(), U)


def by_loops(x: Tensor, k: int, bandwidth: int, gamma: float, c_max: float) -> Tensor:
    """Every covariance by its definition, from all distances, of full rank."""
    distance = torch.cdist(x, x)
    found = []
    order = distance.argsort(1)[:, 1:]
    eps = torch.stack([distance[i, order[i, bandwidth - 1]] for i in range(len(x))])
    for i in range(len(x)):
        near = order[i, :k]
        w = torch.exp(-(distance[i, near] ** 2) / (eps[i] * eps[near]))
        w = w / w.sum()
        m = (w[:, None] * x[near]).sum(0)
        C = sum(w[j] * torch.outer(x[n] - m, x[n] - m) for j, n in enumerate(near.tolist()))
        nearest = distance[i, order[i, 0]]
        c = min(float(nearest) ** 2 / 9, c_max**2) / torch.linalg.eigvalsh(C).max()
        found.append(gamma * c * C)
    return torch.stack(found)


@pytest.mark.parametrize("c_max", [math.inf, 0.1])
def test_covariances_are_those_of_the_definition(c_max: float) -> None:
    options = {"neighbours": 12, "bandwidth": 4, "gamma": 0.3, "c_max": c_max}
    found = local_covariance(POINTS, rank=3, **options)
    torch.testing.assert_close(dense(found), by_loops(POINTS, 12, 4, 0.3, c_max))


def test_a_lower_rank_keeps_the_largest_part() -> None:
    full = local_covariance(POINTS, neighbours=12, rank=3)
    low = local_covariance(POINTS, neighbours=12, rank=2)
    assert low.deviations.shape == (40, 2)
    torch.testing.assert_close(low.deviations, full.deviations[:, :2])
    assert (full.deviations[:, :-1] >= full.deviations[:, 1:]).all()
    rest = torch.linalg.eigvalsh(dense(full) - dense(low))
    torch.testing.assert_close(rest[:, -1], full.deviations[:, 2].square())


def test_nothing_of_dims_squared_is_made() -> None:
    # A matrix of dims x dims would take 80 GB.
    found = local_covariance(torch.randn(6, 100_000), neighbours=4, bandwidth=2, rank=3)
    assert found.vectors.shape == (6, 100_000, 3)
    eye = found.vectors.transpose(1, 2) @ found.vectors
    torch.testing.assert_close(eye, torch.eye(3).expand(6, 3, 3), atol=1e-4, rtol=0.0)


def test_without_covariance_it_is_flow_matching() -> None:
    none = LocalCovariance(POINTS, torch.eye(3, dtype=F64).expand(40, 3, 3), 0 * POINTS)
    x0, x1 = torch.randn(5, 3, dtype=F64), POINTS[:5]
    t = torch.linspace(0.0, 1.0, 5, dtype=F64)
    at = CarreDuChamp(none).sample(x0, x1, t)
    torch.testing.assert_close(at.x, (1 - t[:, None]) * x0 + t[:, None] * x1)
    torch.testing.assert_close(at.u, x1 - x0)
    assert at.score is None
    assert at.noise is None


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_isotropic_covariance_is_the_path_of_lipman(sigma: float) -> None:
    eye = torch.eye(3, dtype=F64).expand(40, 3, 3)
    path = CarreDuChamp(LocalCovariance(POINTS, eye, sigma + 0 * POINTS))
    x0, x1, t = torch.randn(5, 3, dtype=F64), POINTS[5:10], 0.7
    at = path.sample(x0, x1, t)
    scale = 1 - (1 - sigma) * t
    torch.testing.assert_close(at.x, t * x1 + scale * x0)
    torch.testing.assert_close(at.u, (x1 - (1 - sigma) * at.x) / scale)
    torch.testing.assert_close(path.score(t, at.x, x0, x1), -(at.x - t * x1) / scale**2)
    rate = path.entropy_rate(torch.tensor([t], dtype=F64), 3)
    torch.testing.assert_close(rate, torch.tensor([-3 * (1 - sigma) / scale], dtype=F64))


def test_velocity_score_and_entropy_belong_to_the_law() -> None:
    covariance = local_covariance(POINTS, neighbours=12, bandwidth=4, rank=2, gamma=4.0)
    path, x0, x1 = CarreDuChamp(covariance), torch.randn(6, 3, dtype=F64), POINTS[10:16]
    h, t = 1e-5, 0.6
    slope = (path.mean(t + h, x0, x1) - path.mean(t - h, x0, x1)) / (2 * h)
    torch.testing.assert_close(path.velocity(t, x0, x0, x1), slope)
    roots = torch.stack([_root(C) for C in dense(covariance)])

    def law(time: float) -> Tensor:
        root = (1 - time) * torch.eye(3, dtype=F64) + time * roots
        return root @ root

    x = path.mean(t, x0, x1).requires_grad_()
    density = torch.distributions.MultivariateNormal(t * x1, law(t)[10:16])
    (expected,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    torch.testing.assert_close(path.score(t, x.detach(), x0, x1), expected)
    entropies = [torch.logdet(law(time)).mean() / 2 for time in (t - h, t + h)]
    rate = path.entropy_rate(torch.tensor([t], dtype=F64), 3)
    expected = (entropies[1] - entropies[0]) / (2 * h)
    torch.testing.assert_close(rate, expected.unsqueeze(0), rtol=1e-6, atol=1e-6)


def _root(C: Tensor) -> Tensor:
    a, U = torch.linalg.eigh(C)
    return U @ torch.diag(a.clamp(min=0).sqrt()) @ U.T


def test_on_a_circle_noise_lies_along_the_tangent() -> None:
    angle = 2 * math.pi * torch.arange(400, dtype=F64) / 400
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    found = local_covariance(circle, neighbours=32, bandwidth=8, rank=2)
    tangent = torch.stack([-angle.sin(), angle.cos()], 1)
    cosines = (found.vectors[:, :, 0] * tangent).sum(1).abs()
    assert cosines.min() > 0.999
    ratio = (found.deviations[:, 1] / found.deviations[:, 0]).square()
    assert ratio.max() < 0.01
    # Three deviations reach the nearest neighbour.
    chord = 2 * math.sin(math.pi / 400)
    torch.testing.assert_close(found.deviations[:, 0], torch.full((400,), chord / 3).double())


def test_on_a_plane_no_noise_leaves_it() -> None:
    basis = torch.linalg.qr(torch.randn(5, 5, dtype=F64))[0]
    plane = torch.rand(100, 2, dtype=F64) @ basis[:2] + 3 * basis[2]
    found = local_covariance(plane, neighbours=20, rank=5)
    assert found.deviations[:, 2:].abs().max() < 1e-12
    assert (found.vectors[:, :, :2].transpose(1, 2) @ basis[2:].T).abs().max() < 1e-9
    assert found.deviations[:, 1].min() > 0


def test_covariances_turn_with_the_data() -> None:
    Q, shift = torch.linalg.qr(torch.randn(3, 3, dtype=F64))[0], torch.randn(3, dtype=F64)
    options = {"neighbours": 12, "bandwidth": 4, "rank": 2}
    plain, moved = (local_covariance(x, **options) for x in (POINTS, POINTS @ Q.T + shift))
    torch.testing.assert_close(dense(moved), Q @ dense(plain) @ Q.T)
    order = torch.randperm(40)
    shuffled = local_covariance(POINTS[order], **options)
    torch.testing.assert_close(dense(shuffled), dense(plain)[order])
    scaled = local_covariance(2 * POINTS, **options)
    torch.testing.assert_close(dense(scaled), 4 * dense(plain))


def test_few_points_say_how_many_neighbours_they_have() -> None:
    with pytest.warns(UserWarning, match="neighbours=9 instead of 256"):
        few = local_covariance(POINTS[:10], rank=3)
    torch.testing.assert_close(
        few.deviations, local_covariance(POINTS[:10], neighbours=9).deviations
    )
    with pytest.warns(UserWarning, match="bandwidth=4 instead of 8"):
        local_covariance(POINTS, neighbours=4)


def test_far_points_do_not_lose_their_weights() -> None:
    # All exp(-|x_i - x_j|^2 / (eps_i eps_j)) of the last point underflow.
    cluster = 1e-4 * POINTS
    far = torch.cat([cluster, torch.tensor([[1e3, 0.0, 0.0]], dtype=F64)])
    found = local_covariance(far, neighbours=12, bandwidth=4, rank=3)
    assert found.deviations.isfinite().all()


def test_targets_are_found_in_any_order_dtype_and_shape() -> None:
    covariance = local_covariance(POINTS.float(), neighbours=12, bandwidth=4)
    order = torch.randperm(40)[:7]
    assert covariance.index(POINTS.float()[order]).equal(order)
    assert covariance.vectors.dtype == torch.float32
    path = CarreDuChamp(covariance)
    x1 = POINTS.float()[order].view(7, 3, 1)
    at = path.sample(torch.randn(7, 3, 1), x1, torch.rand(7))
    assert at.x.shape == at.u.shape == (7, 3, 1)
    assert at.x.dtype == torch.float32
    with pytest.raises(ValueError, match="nearest data point"):
        path.sample(torch.randn(7, 3, 1), x1 + 0.1, 0.5)


def test_what_does_not_fit_is_refused() -> None:
    twice = torch.cat([POINTS, POINTS[:1]])
    with pytest.raises(ValueError, match="2 points coincide"):
        local_covariance(twice, neighbours=12)
    with pytest.raises(ValueError, match="40 points coincide"):
        local_covariance(POINTS[:4].repeat(10, 1), neighbours=2, bandwidth=1)
    with pytest.raises(ValueError, match="three points"):
        local_covariance(POINTS[:2])
    with pytest.raises(ValueError, match="gamma=-1"):
        local_covariance(POINTS, gamma=-1.0)
    with pytest.raises(ValueError, match="NaN"):
        local_covariance(POINTS * math.nan)
    with pytest.raises(ValueError, match=r"give \[40, 3, rank\]"):
        LocalCovariance(POINTS, torch.ones(40, 2, 1), torch.ones(40, 1))
    path = CarreDuChamp(local_covariance(POINTS, neighbours=12))
    with pytest.raises(ValueError, match="the data have 3"):
        path.entropy_rate(torch.tensor([0.5]), 4)
