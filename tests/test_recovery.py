"""Learned conductances, and weights recovered from snapshots."""

import pytest
import torch
from torch import Tensor

from analysis.recovery import recover_weights
from neuralpde import Graph, catalogue, data, solve
from neuralpde.fields import Conductances, Diffusion


def weighted(edges: Tensor, pairs: Tensor, weights: Tensor, count: int) -> Graph:
    """The graph built anew, its weights looked up pair by pair."""
    known = {
        tuple(sorted(pair)): float(w) for pair, w in zip(pairs.T.tolist(), weights, strict=True)
    }
    found = [known[tuple(sorted(pair))] for pair in edges.T.tolist()]
    return Graph(edges, count, torch.tensor(found, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
def test_the_generator_is_that_of_the_weighted_graph(norm: str) -> None:
    graph = data.karate()
    flow = Conductances(graph, norm)
    flow.log_weights.data = torch.randn(78, dtype=torch.float64)
    same = weighted(graph.edge_index, flow.ends, flow.weights.detach(), 34)
    A = flow(graph, torch.zeros(34, 1, dtype=torch.float64))
    torch.testing.assert_close(A.to_dense(), -same.laplacian(norm).to_dense().double())


def test_weights_start_as_those_of_the_graph_and_loops_have_none() -> None:
    edges = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]])
    graph = Graph(edges, 3, torch.tensor([2.0, 2.0, 3.0, 3.0, 9.0]))
    flow = Conductances(graph)
    assert flow.weights.tolist() == pytest.approx([2.0, 3.0])
    assert flow.ends.tolist() == [[0, 1], [1, 2]]
    A = flow(graph, torch.zeros(3, 1)).to_dense().double()
    torch.testing.assert_close(A, -graph.laplacian().to_dense().double())


def test_gradients_through_the_exact_solver_are_those_of_expm() -> None:
    graph = catalogue.path(5)
    x0 = torch.randn(5, 2, dtype=torch.float64)
    flow = Conductances(graph)
    flow.log_weights.data = torch.randn(4, dtype=torch.float64)
    times = torch.tensor([0.0, 0.4, 1.3], dtype=torch.float64)
    traj = solve(Diffusion(flow), x0, times, graph, rtol=1e-12)
    traj.x.square().sum().backward()
    theta = flow.log_weights.detach().clone().requires_grad_()
    L = torch.zeros(5, 5, dtype=torch.float64)
    for k, w in enumerate(theta.exp()):
        step = torch.zeros(5, dtype=torch.float64)
        step[k], step[k + 1] = 1.0, -1.0
        L = L + w * torch.outer(step, step)
    states = [torch.linalg.matrix_exp(-t * L) @ x0 for t in (0.4, 1.3)]
    sum(one.square().sum() for one in states).backward()
    torch.testing.assert_close(flow.log_weights.grad, theta.grad, rtol=1e-8, atol=1e-10)


def test_what_is_no_undirected_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="undirected"):
        Conductances(Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]), 3))
    with pytest.raises(ValueError, match="made for"):
        Conductances(catalogue.ring(4))(catalogue.ring(5), torch.zeros(5, 1))


def snapshots(graph: Graph, truth: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """The first state, times and noisy snapshots, by dense matrix exponentials."""
    flow = Conductances(graph)
    same = weighted(graph.edge_index, flow.ends, truth, graph.num_nodes)
    L = same.laplacian().to_dense().double()
    x0 = torch.randn(graph.num_nodes, 2, dtype=torch.float64)
    times = torch.linspace(0.1, 2.0, 20, dtype=torch.float64)
    clean = torch.stack([torch.linalg.matrix_exp(-t * L) @ x0 for t in times])
    return x0, times, clean + noise * torch.randn_like(clean)


def test_weights_come_back_from_clean_snapshots() -> None:
    graph = catalogue.grid(4, 4)
    truth = (0.5 * torch.randn(24, dtype=torch.float64)).exp()
    found = recover_weights(graph, *snapshots(graph, truth, 0.0), 1e-3, iterations=200)
    assert found.error(truth) < 1e-4
    assert found.misfit < 0.02
    assert found.history[-1] < 1e-4 * found.history[0]


@pytest.mark.slow
def test_the_error_follows_the_noise_and_the_misfit_its_degrees_of_freedom() -> None:
    graph = catalogue.grid(5, 5)
    truth = (0.5 * torch.randn(40, dtype=torch.float64)).exp()
    errors = []
    for noise in (0.02, 0.002):
        x0, times, observed = snapshots(graph, truth, noise)
        found = recover_weights(graph, x0, times, observed, noise)
        errors.append(found.error(truth))
        assert found.misfit == pytest.approx((1 - 40 / observed.numel()) ** 0.5, abs=0.08)
    assert errors[0] < 0.1
    assert 4 < errors[0] / errors[1] < 25


def test_what_the_data_do_not_say_comes_from_the_spread() -> None:
    # Nothing flows along the third road: without a spread its weight stays where it started.
    graph = catalogue.path(4)
    x0 = torch.tensor([[1.0], [-1.0], [0.0], [0.0]], dtype=torch.float64)
    times = torch.tensor([0.01], dtype=torch.float64)
    truth = torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64)
    L = weighted(graph.edge_index, Conductances(graph).ends, truth, 4).laplacian()
    observed = torch.linalg.matrix_exp(-0.01 * L.to_dense().double())[None] @ x0
    loose = recover_weights(graph, x0, times, observed, 1e-3)
    drawn = recover_weights(graph, x0, times, observed, 1e-3, spread=0.2)
    assert abs(float(loose.weights[2]) - 1.0) < 0.5
    assert abs(float(drawn.weights[2]) - 4.0) < 1.0


def test_senseless_requests_are_refused() -> None:
    graph, x0 = catalogue.ring(4), torch.zeros(4, 1, dtype=torch.float64)
    times = torch.tensor([1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="positive"):
        recover_weights(graph, x0, times, x0[None], 0.0)
    with pytest.raises(ValueError, match="observed is"):
        recover_weights(graph, x0, times, x0, 0.1)
