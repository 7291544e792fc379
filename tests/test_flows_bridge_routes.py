"""The Laplacian bridge by eigenmodes and by polynomials: they agree, traces know their error."""

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, data
from neuralpde.flows import LaplacianBridge

F64 = torch.float64
ROUTES = ("modes", "polynomials")
NORMS = ("comb", "sym")


@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("norm", NORMS)
def test_both_routes_agree(rate: float, norm: str) -> None:
    graph = catalogue.grid(12, 12)
    _agree(graph, rate, norm, probes=graph.num_nodes)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
def test_both_routes_agree_on_minnesota(rate: float) -> None:
    _agree(data.minnesota(), rate, "comb", probes=16)


def _agree(graph: Graph, rate: float, norm: str, probes: int) -> None:
    modes, series = (
        LaplacianBridge(graph, rate, norm=norm, route=route, probes=probes) for route in ROUTES
    )
    x0, x1, x = torch.randn(3, graph.num_nodes, 2, dtype=F64)

    def close(found: Tensor, expected: Tensor) -> None:
        assert (found - expected).norm() <= 1e-10 * expected.norm()
        assert (found - expected).abs().max() <= 1e-8

    for t in (1e-3, 0.2, 0.5, 0.999):
        close(series.mean(t, x0, x1), modes.mean(t, x0, x1))
        close(series.spread(t, x), modes.spread(t, x))
        close(series.velocity(t, x, x0, x1), modes.velocity(t, x, x0, x1))
        close(series.score(t, x, x0, x1), modes.score(t, x, x0, x1))
        close(series.forward(t, x, x1), modes.forward(t, x, x1))
    times = torch.tensor([1e-3, 0.2, 0.7], dtype=F64)
    for sampled, exact in (
        (series.rates(times), modes.rates(times)),
        (series.entropy(times), modes.entropy(times)),
        (series.energy(times, x0, x1), modes.energy(times, x0, x1)),
    ):
        allowed = 4 * sampled.error + 1e-9 * exact.value.abs() + 1e-9
        assert ((sampled.value - exact.value).abs() <= allowed).all()


def test_standard_errors_of_traces_are_what_they_say() -> None:
    graph, times = catalogue.grid(10, 10), torch.tensor([0.1], dtype=F64)
    exact = LaplacianBridge(graph, 10.0, route="modes").rates(times).value
    scores = []
    for seed in range(100):
        path = LaplacianBridge(graph, 10.0, route="polynomials", probes=32, seed=seed)
        value, error = path.rates(times)
        assert error > 0
        scores.append((value - exact) / error)
    found = torch.cat(scores)
    assert 0.8 < found.square().mean().sqrt() < 1.3
    assert found.mean().abs() < 0.4


def test_a_sampled_trace_of_a_batch_is_that_of_its_graphs() -> None:
    alone = [catalogue.grid(6, 6), catalogue.ring(50)]
    path = LaplacianBridge(Graph.union(alone), 3.0, route="polynomials", probes=32)
    times = torch.tensor([0.2, 0.4], dtype=F64)
    found = path.rates(times)
    exact = [LaplacianBridge(graph, 3.0).rates(times).value for graph in alone]
    assert (found.error > 0).all()
    assert ((found.value - torch.cat(exact, 1)).abs() < 4 * found.error).all()
