"""The Laplacian bridge against diffusion conditioned on both ends, by dense matrix exponentials."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jvp
from torch.distributions import MultivariateNormal

from neuralpde import Graph, catalogue
from neuralpde.flows import BrownianBridge, LaplacianBridge
from tests.strategies import graphs, quietly

F64 = torch.float64
ROUTES = ("modes", "polynomials")
NORMS = ("comb", "sym")
WEIGHTED = Graph(
    torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 0, 2], [1, 0, 2, 1, 3, 2, 4, 3, 2, 0]]),
    6,
    torch.tensor([1.0, 1.0, 0.5, 0.5, 2.0, 2.0, 3.0, 3.0, 0.25, 0.25]),
)
"""Five nodes and one alone."""


def conditioned(
    graph: Graph, norm: str, c: float, sigma: float, t: Tensor, x0: Tensor, x1: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x_t given x0 and x1, from the joint law of (x_t, x_1) given x0.

    The covariances sigma^2 int_0^t e^(-2 r A) dr are blocks of matrix exponentials.
    """
    A = c * graph.laplacian(norm, dtype=F64).to_dense()
    n, eye = len(A), torch.eye(len(A), dtype=F64)

    def grown(time: Tensor) -> Tensor:
        top = torch.cat([-2 * A, eye], 1)
        block = torch.matrix_exp(torch.cat([top, torch.zeros_like(top)]) * time)
        return sigma**2 * block[:n, n:]

    now, whole, left = grown(t), grown(torch.ones((), dtype=F64)), torch.matrix_exp(-A * (1 - t))
    gain = torch.linalg.solve(whole, left @ now).T
    mean = torch.matrix_exp(-A * t) @ x0
    return mean + gain @ (x1 - torch.matrix_exp(-A) @ x0), now - gain @ left @ now


def ends(graph: Graph, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.randn(3, graph.num_nodes, channels, dtype=F64))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_law_is_that_of_diffusion_conditioned_on_both_ends(
    route: str, norm: str, t: float
) -> None:
    c, sigma, time = 1.3, 0.7, torch.tensor(t, dtype=F64)
    x0, x1, z = ends(WEIGHTED)
    path = LaplacianBridge(WEIGHTED, c, sigma, norm=norm, route=route)
    mean, covariance = conditioned(WEIGHTED, norm, c, sigma, time, x0, x1)
    torch.testing.assert_close(path.mean(t, x0, x1), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        path.spread(t, path.spread(t, z)), covariance @ z, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(path.variance(t), covariance.diagonal(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("norm", NORMS)
def test_score_and_velocity_are_those_of_the_density(route: str, norm: str) -> None:
    c, sigma, t = 1.3, 0.7, torch.tensor(0.3, dtype=F64)
    x0, x1, x = ends(WEIGHTED, 1)
    path = LaplacianBridge(WEIGHTED, c, sigma, norm=norm, route=route)

    def law(time: Tensor) -> tuple[Tensor, Tensor]:
        return conditioned(WEIGHTED, norm, c, sigma, time, x0, x1)

    (mean, covariance), (drift, growth) = jvp(law, t, torch.ones_like(t))
    at = x.clone().requires_grad_()
    density = MultivariateNormal(mean.squeeze(1), (covariance + covariance.T) / 2)
    (expected,) = torch.autograd.grad(density.log_prob(at.squeeze(1)), at)
    torch.testing.assert_close(path.score(t, x, x0, x1), expected, rtol=1e-8, atol=1e-8)
    # The flow of a normal law whose covariance commutes with its slope.
    expected = drift + growth @ torch.linalg.solve(covariance, x - mean) / 2
    torch.testing.assert_close(path.velocity(t, x, x0, x1), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("route", ROUTES)
def test_drifts_are_velocity_and_score_put_together(route: str) -> None:
    x0, x1, x = ends(WEIGHTED)
    path = LaplacianBridge(WEIGHTED, 2.0, 0.5, route=route)
    forward, backward = path.forward(0.3, x, x1), path.backward(0.3, x, x0)
    torch.testing.assert_close((forward + backward) / 2, path.velocity(0.3, x, x0, x1))
    torch.testing.assert_close((forward - backward) / 0.25, path.score(0.3, x, x0, x1))
    L = WEIGHTED.laplacian(dtype=F64)
    torch.testing.assert_close(forward, path.control(0.3, x, x1) - 2.0 * (L @ x))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("rate", "tolerance"), [(0.0, 1e-13), (1e-9, 1e-8)])
def test_without_diffusion_it_is_the_brownian_bridge(
    route: str, rate: float, tolerance: float
) -> None:
    x0, x1, x = ends(WEIGHTED)
    path, plain = LaplacianBridge(WEIGHTED, rate, 0.7, route=route), BrownianBridge(0.7)
    close = {"rtol": tolerance, "atol": tolerance}
    for t in (0.01, 0.5, 0.8):
        torch.testing.assert_close(path.mean(t, x0, x1), plain.mean(t, x0, x1), **close)
        torch.testing.assert_close(path.spread(t, x), plain.spread(t, x), **close)
        for name in ("velocity", "score"):
            found, expected = (getattr(p, name)(t, x, x0, x1) for p in (path, plain))
            torch.testing.assert_close(found, expected, **close)
    times = torch.tensor([0.01, 0.3, 0.9], dtype=F64)
    torch.testing.assert_close(
        path.entropy_rate(times, 12), plain.entropy_rate(times, 12), rtol=1e-8, atol=1e-8
    )


@settings(max_examples=20, deadline=None)
@given(
    graphs(min_nodes=2),
    st.floats(0.0, 30.0),
    st.floats(0.01, 0.99),
    st.sampled_from(ROUTES),
    st.sampled_from(NORMS),
)
def test_time_may_run_backward(graph: Graph, c: float, t: float, route: str, norm: str) -> None:
    x0, x1, x = ends(graph)
    path = LaplacianBridge(graph, c, norm=norm, route=route)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(path.mean(t, x0, x1), path.mean(1 - t, x1, x0), **close)
    torch.testing.assert_close(path.spread(t, x), path.spread(1 - t, x), **close)
    torch.testing.assert_close(
        path.velocity(t, x, x0, x1), -path.velocity(1 - t, x, x1, x0), **close
    )
    torch.testing.assert_close(path.score(t, x, x0, x1), path.score(1 - t, x, x1, x0), **close)
    torch.testing.assert_close(path.forward(t, x, x1), -path.backward(1 - t, x, x1), **close)
    times = torch.tensor([t, 1 - t], dtype=F64)
    torch.testing.assert_close(
        path.rates(times).value[0], -path.rates(times).value[1], rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("norm", NORMS)
def test_entropy_and_its_rate_are_those_of_the_log_determinant(route: str, norm: str) -> None:
    path = LaplacianBridge(WEIGHTED, 1.3, 0.7, norm=norm, route=route)
    x0, x1, _ = ends(WEIGHTED)
    for t in torch.tensor([0.02, 0.4, 0.9], dtype=F64):

        def entropy(time: Tensor) -> Tensor:
            _, covariance = conditioned(WEIGHTED, norm, 1.3, 0.7, time, x0, x1)
            return torch.logdet(2 * math.pi * math.e * covariance) / 2

        expected, slope = jvp(entropy, t, torch.ones_like(t))
        found = path.entropy(t.unsqueeze(0))
        torch.testing.assert_close(found.value.squeeze(), expected, rtol=1e-8, atol=1e-8)
        rates = path.rates(t.unsqueeze(0)).value.squeeze()
        torch.testing.assert_close(rates, slope, rtol=1e-6, atol=1e-6)
        # No more nodes than probes: nothing is sampled.
        assert found.error.item() == 0.0
        total = path.entropy_rate(t.unsqueeze(0), 3 * 6)
        torch.testing.assert_close(total, 3 * slope.unsqueeze(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("norm", NORMS)
def test_energies_are_those_of_the_law_and_of_samples(route: str, norm: str) -> None:
    path = LaplacianBridge(WEIGHTED, 1.3, 0.7, norm=norm, route=route)
    x0, x1, _ = ends(WEIGHTED)
    L, times = WEIGHTED.laplacian(norm, dtype=F64).to_dense(), torch.tensor([0.1, 0.6], dtype=F64)
    found = path.energy(times, x0, x1)
    for t, energy in zip(times, found.value, strict=True):
        mean, covariance = conditioned(WEIGHTED, norm, 1.3, 0.7, t, x0, x1)
        expected = (mean * (L @ mean)).sum() + 2 * (L @ covariance).trace()
        torch.testing.assert_close(energy.squeeze(), expected, rtol=1e-9, atol=1e-9)
        many = 4000
        sample = path.sample(
            x0.unsqueeze(2).expand(6, 2, many).contiguous(),
            x1.unsqueeze(2).expand(6, 2, many).contiguous(),
            float(t),
            torch.Generator().manual_seed(1),
        ).x
        own = (sample * (L @ sample.flatten(1)).view_as(sample)).sum((0, 1))
        assert (own.mean() - expected).abs() < 3 * own.std() / many**0.5
        deviation = path.energy_deviation(t.unsqueeze(0), x0, x1).squeeze()
        # The fourth moments of normal numbers: an error of a deviation of about 1 / sqrt(n).
        assert (own.std() / deviation - 1).abs() < 0.05
        total = path.total_variance(t.unsqueeze(0)).value.squeeze()
        torch.testing.assert_close(total, covariance.trace(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("route", ROUTES)
def test_graphs_of_a_batch_keep_their_own_times(route: str) -> None:
    alone = [catalogue.ring(5), catalogue.path(3), catalogue.complete(4)]
    batch, own = Graph.union(alone), torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    path = LaplacianBridge(batch, 2.0, route=route)
    x0, x1, x = ends(batch)
    t, names = own[batch.batch], ("velocity", "score")
    together = [path.mean(t, x0, x1), path.spread(t, x)]
    together += [getattr(path, name)(t, x, x0, x1) for name in names]
    sizes = [graph.num_nodes for graph in alone]
    times = torch.tensor([0.1, 0.7], dtype=F64)
    rates, energies = path.rates(times).value, path.energy(times, x0, x1).value
    parts = zip(alone, own, *(state.split(sizes) for state in (x0, x1, x)), strict=True)
    for g, (graph, time, y0, y1, y) in enumerate(parts):
        single = LaplacianBridge(graph, 2.0, route="modes")
        expected = [single.mean(time, y0, y1), single.spread(time, y)]
        expected += [getattr(single, name)(time, y, y0, y1) for name in names]
        for whole, part in zip(together, expected, strict=True):
            torch.testing.assert_close(whole.split(sizes)[g], part, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(rates[:, g], single.rates(times).value[:, 0])
        torch.testing.assert_close(energies[:, g], single.energy(times, y0, y1).value[:, 0])
    with pytest.raises(ValueError, match="differ within a graph"):
        path.mean(torch.linspace(0.1, 0.9, 12, dtype=F64), x0, x1)
    with pytest.raises(ValueError, match=r"times\[graph.batch\]"):
        path.mean(own, x0, x1)


def test_samples_share_the_ends_of_one_column() -> None:
    x0, x1, _ = (state[:, :1] for state in ends(WEIGHTED))
    many = torch.randn(6, 5, dtype=F64)
    for route in ROUTES:
        path = LaplacianBridge(WEIGHTED, route=route)
        wide = path.velocity(0.3, many, x0.expand(6, 5).contiguous(), x1.expand(6, 5).contiguous())
        torch.testing.assert_close(path.velocity(0.3, many, x0, x1), wide)


def test_halfway_nothing_grows() -> None:
    # Rounding of the time: what is left of a difference there must stay a smooth function.
    x0, x1, x = ends(WEIGHTED)
    for t in (0.5, 0.5 + 1e-16, 0.5 - 2e-16):
        found = LaplacianBridge(WEIGHTED, 50.0, route="polynomials").velocity(t, x, x0, x1)
        exact = LaplacianBridge(WEIGHTED, 50.0, route="modes").velocity(0.5, x, x0, x1)
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)
    rates = LaplacianBridge(WEIGHTED, 5.0).rates(torch.tensor([0.5, 0.5 + 1e-12]).double())
    assert rates.value.abs().max() < 1e-9


def test_fast_diffusion_neither_overflows_nor_leaves_its_stationary_law() -> None:
    graph = catalogue.complete(4)
    path = LaplacianBridge(graph, 1e4, 2.0)
    x0, x1, x = (state - state.mean(0) for state in ends(graph))
    assert path.mean(0.5, x0, x1).abs().max() < 1e-15
    # sigma^2 / 2a, a = 4e4, in every direction but the constant one.
    torch.testing.assert_close(path.spread(0.5, x), (4.0 / 8e4) ** 0.5 * x)
    for t in (1e-3, 0.5, 0.999):
        for found in (path.velocity(t, x, x0, x1), path.score(t, x, x0, x1)):
            assert found.isfinite().all()
    assert path.entropy(torch.tensor([0.001, 0.5])).value.isfinite().all()


@pytest.mark.parametrize("route", ROUTES)
def test_the_ends_are_where_it_starts_and_stops(route: str) -> None:
    x0, x1, z = ends(WEIGHTED)
    path = LaplacianBridge(WEIGHTED, 3.0, route=route)
    torch.testing.assert_close(path.mean(0.0, x0, x1), x0)
    torch.testing.assert_close(path.mean(1.0, x0, x1), x1)
    for t in (0.0, 1.0):
        assert path.spread(t, z).abs().max() == 0.0
    with pytest.raises(ValueError, match="finite velocities"):
        path.sample(x0, x1, 0.0)


@pytest.mark.parametrize("route", ROUTES)
def test_states_keep_their_dtype_and_shape(route: str) -> None:
    path = LaplacianBridge(WEIGHTED, 2.0, route=route)
    x0, x1, _ = (state.float().view(6, 2, 1) for state in ends(WEIGHTED))
    found = path.sample(x0, x1, 0.3, torch.Generator().manual_seed(0))
    assert found.x.dtype == found.u.dtype == torch.float32
    assert found.x.shape == found.u.shape == (6, 2, 1)
    assert found.score is not None
    exact = path.velocity(0.3, found.x.double(), x0.double(), x1.double())
    torch.testing.assert_close(found.u.double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(path.spread(0.3, found.score), -found.noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("route", ROUTES)
def test_velocities_are_differentiable_in_the_states(route: str) -> None:
    path = LaplacianBridge(WEIGHTED, 2.0, route=route)
    inputs = tuple(state.requires_grad_() for state in ends(WEIGHTED, 1))
    assert torch.autograd.gradcheck(lambda x, x0, x1: path.velocity(0.3, x, x0, x1), inputs)


def test_what_does_not_fit_is_refused() -> None:
    arc = quietly(torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match="not symmetric"):
        LaplacianBridge(arc)
    with pytest.raises(ValueError, match="not symmetric"):
        LaplacianBridge(WEIGHTED, norm="rw")
    heavy = Graph(WEIGHTED.edge_index, 6, node_weight=torch.arange(1.0, 7.0))
    with pytest.raises(ValueError, match="no node_weight"):
        LaplacianBridge(heavy)
    with pytest.raises(ValueError, match=r"unknown route 'mode'.*modes"):
        LaplacianBridge(WEIGHTED, route="mode")
    for options in ({"rate": -1.0}, {"sigma": 0.0}, {"cut": 0.5}, {"rate": math.inf}):
        with pytest.raises(ValueError, match="must not be negative"):
            LaplacianBridge(WEIGHTED, **options)
    with pytest.raises(ValueError, match="no multiple of 6"):
        LaplacianBridge(WEIGHTED).entropy_rate(torch.tensor([0.5]), 7)
