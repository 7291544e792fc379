"""Log densities along flows against closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralpde.catalogue import path as path_graph
from neuralpde.catalogue import ring
from neuralpde.fields import Heat
from neuralpde.flows import (
    BrownianBridge,
    GaussianFlow,
    Hutchinson,
    Linear,
    MixtureFlow,
    ProbabilityFlow,
    Trace,
    eight_gaussians,
    log_prob,
    normal,
)
from neuralpde.flows.mixtures import Mixture
from neuralpde.graph import Graph

A = torch.tensor([[0.3, 1.0], [-0.7, -0.5]], dtype=torch.float64)


def points(n: int, dim: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=g, dtype=torch.float64)


def turning(t: Tensor, x: Tensor) -> Tensor:
    return x @ A.T


def turned(x: Tensor) -> Tensor:
    """The log density that the linear flow makes of N(0, 1) at t = 1, exactly."""
    M = torch.linalg.matrix_exp(A)
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), M @ M.T)
    return law.log_prob(x)


def test_gaussian_flows_have_the_density_of_the_target() -> None:
    flow, x = GaussianFlow(0.0, 1.0, 3.0, 0.4, Linear()), 3 + 0.4 * points(6, 3)
    found = log_prob(flow, x, normal(3).log_density, solver="tsit5", rtol=1e-10, atol=1e-10)
    exact = -(((x - 3) / 0.4) ** 2).sum(1) / 2 - 3 * math.log(0.4 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)
    fixed = log_prob(flow, x, normal(3).log_density, solver="rk4", steps=100)
    torch.testing.assert_close(fixed, exact, rtol=1e-6, atol=1e-6)


def test_flows_between_mixtures_have_the_density_of_the_path() -> None:
    path = BrownianBridge(0.5)
    flow = MixtureFlow(normal(2), eight_gaussians(), path)
    low, high = path.ends
    x = flow.law(high).sample(5, torch.Generator().manual_seed(1))
    found = log_prob(
        flow, x, lambda y: flow.log_density(torch.tensor(low).double(), y), path.ends,
        solver="tsit5", rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    exact = flow.log_density(torch.tensor(high).double(), x)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


def test_a_linear_flow_has_the_density_of_the_matrix_exponential() -> None:
    x = points(5)
    found = log_prob(turning, x, normal(2).log_density, solver="tsit5", rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, turned(x), rtol=1e-8, atol=1e-8)


def test_random_probes_are_right_on_average_and_differ_between_seeds() -> None:
    x, n = points(1), 100
    way = {"solver": "rk4", "steps": 5}
    found = torch.stack([
        log_prob(turning, x, normal(2).log_density, divergence=Hutchinson(seed), **way)
        for seed in range(n)
    ])[:, 0]  # fmt: skip
    error = float(found.std()) / math.sqrt(n)
    assert 1e-3 < error < 0.1
    assert abs(float(found.mean() - turned(x)[0])) < 4 * error
    torch.testing.assert_close(
        log_prob(turning, x, normal(2).log_density, divergence=Hutchinson(3), **way)[0], found[3]
    )


def test_probes_are_fresh_at_every_time_and_a_function_of_it() -> None:
    x, probe = points(1), Hutchinson(1)
    values = [probe(turning, torch.tensor(t), x)[1].item() for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    assert len(set(values)) == 2  # the trace with the off-diagonal sum, or without it
    assert sorted(set(values)) == pytest.approx([-0.2 - 0.3, -0.2 + 0.3])
    again = [probe(turning, torch.tensor(t), x)[1].item() for t in (0.6, 0.1)]
    assert again == [values[5], values[0]]


def test_random_probes_are_exact_where_the_jacobian_is_diagonal() -> None:
    x = points(7, 4)
    exact = Trace()(lambda t, y: y.sin(), torch.tensor(0.0), x)
    found = Hutchinson(5)(lambda t, y: y.sin(), torch.tensor(0.0), x)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(exact[1], x.cos().sum(1))


def test_several_probes_are_averaged() -> None:
    x = points(1)
    many = Hutchinson(2, probes=4000)(turning, torch.tensor(0.0), x)[1].item()
    assert abs(many + 0.2) < 4 * 0.3 / math.sqrt(4000)


def test_on_graphs_there_is_one_density_for_each() -> None:
    graph = Graph.union([ring(5), path_graph(3)])
    channels, x = 2, points(8, 2)
    L = 0.3 * graph.laplacian().to_dense().double()
    # dx/dt = -L x: x0 = e^L x, and the integral of the divergence is -trace L for every channel.
    x0 = torch.linalg.matrix_exp(L) @ x
    exact = torch.stack([
        normal(channels).log_density(x0[rows]).sum() + channels * torch.trace(L[rows][:, rows])
        for rows in (slice(0, 5), slice(5, 8))
    ])  # fmt: skip
    found = torch.stack([
        log_prob(
            ProbabilityFlow(Heat(rate=0.3)), x, normal(channels).log_density, graph=graph,
            divergence=Hutchinson(seed, probes=8), solver="rk4", steps=12,
        )
        for seed in range(8)
    ])  # fmt: skip
    assert found.shape == (8, 2)
    error = found.std(0) / math.sqrt(8)
    assert bool(((found.mean(0) - exact).abs() < 4 * error + 1e-3).all())


def test_log_densities_can_be_trained() -> None:
    class Growth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.rate * x

    net, x = Growth(), points(3)
    log_prob(net, x, normal(2).log_density, solver="rk4", steps=50).sum().backward()
    # log N(x e^-r) - 2 r for each point: the slope in r is |x|^2 e^-2r - 2.
    exact = float((x.square().sum(1) * math.exp(-1.0) - 2).sum())
    assert net.rate.grad is not None
    assert math.isclose(float(net.rate.grad), exact, rel_tol=1e-6)


def test_a_velocity_that_ignores_the_state_has_no_divergence() -> None:
    x = points(3)
    for way in (Trace(), Hutchinson(0)):
        v, div = way(lambda t, y: torch.ones_like(x), torch.tensor(0.0), x)
        assert div.tolist() == [0.0] * 3
        assert torch.equal(v, torch.ones_like(x))


def test_requests_without_sense_are_refused() -> None:
    x, law = points(3), Mixture(torch.zeros(1, 2).double(), 1.0)
    with pytest.raises(ValueError, match="fixed steps"):
        log_prob(turning, x, law.log_density, divergence=Hutchinson(0))
    with pytest.raises(ValueError, match="Hutchinson"):
        log_prob(Heat(), x, law.log_density, graph=ring(3))
    with pytest.raises(ValueError, match="at least one"):
        Hutchinson(0, probes=0)
