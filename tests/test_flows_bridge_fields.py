"""A Laplacian bridge run by solve, against its closed-form law."""

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.flows import BridgeFlow, BridgeProcess, LaplacianBridge
from solvers.stochastic import EulerMaruyama, StochasticHeun

F64 = torch.float64
GRAPH = catalogue.grid(3, 3)
TIMES = torch.tensor([0.0, 0.2, 0.5, 0.8], dtype=F64)


def ends(graph: Graph = GRAPH) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, graph.num_nodes, 1, dtype=F64))


@pytest.mark.parametrize(
    ("stepper", "steps"), [(StochasticHeun(seed=3), 60), (EulerMaruyama(seed=3), 200)]
)
def test_the_process_has_the_law_of_the_bridge(stepper: object, steps: int) -> None:
    x0, x1 = ends()
    path, many = LaplacianBridge(GRAPH, 1.0, 0.6), 1000
    start = x0.expand(9, many).contiguous()
    run = solve(BridgeProcess(path, x1), start, TIMES, GRAPH, solver=stepper, steps=steps)
    L = GRAPH.laplacian(dtype=F64)
    for t, x in zip(TIMES[1:].tolist(), run.x[1:], strict=True):
        mean, variance = path.mean(t, x0, x1).squeeze(1), path.variance(t)
        assert ((x.mean(1) - mean) / (variance / many).sqrt()).abs().max() < 3.5
        scores = (x.var(1) / variance - 1) * (many / 2) ** 0.5
        assert scores.abs().max() < 3.5
        energies = (x * (L @ x)).sum(0)
        expected = path.energy(torch.tensor([t]), x0, x1).value.item()
        assert abs(energies.mean().item() - expected) < 3 * energies.std().item() / many**0.5


@pytest.mark.parametrize("norm", ["comb", "sym"])
@pytest.mark.parametrize("route", ["modes", "polynomials"])
def test_the_flow_carries_the_law_along(norm: str, route: str) -> None:
    x0, x1 = ends()
    path = LaplacianBridge(GRAPH, 2.0, 0.7, norm=norm, cut=0.05, route=route)
    z = torch.randn(9, 4, dtype=F64)
    start, end = (path.mean(t, x0, x1) + path.spread(t, z) for t in path.ends)
    run = solve(BridgeFlow(path, x0, x1), start, path.ends, GRAPH, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.final, end, rtol=1e-4, atol=1e-4)
    assert run.energy.convention.startswith(norm)


def test_the_process_is_diffusion_and_a_control() -> None:
    x0, x1 = ends()
    path = LaplacianBridge(GRAPH, 2.0, 0.7)
    field = BridgeProcess(path, x1).bind(GRAPH, x0)
    t = torch.tensor(0.4, dtype=F64)
    torch.testing.assert_close(field(t, x0), path.forward(t, x0, x1))
    torch.testing.assert_close(field.operator @ x0, -2.0 * (GRAPH.laplacian(dtype=F64) @ x0))
    assert field.noise.amplitude == 0.7


def test_graphs_of_a_batch_are_solved_together() -> None:
    alone = [catalogue.ring(5), catalogue.path(3)]
    batch = Graph.union(alone)
    x0, x1 = ends(batch)
    path = LaplacianBridge(batch, 2.0, cut=0.1)
    start = path.mean(0.1, x0, x1)
    field = BridgeFlow(path, x0, x1)
    run = solve(field, start, path.ends, batch, solver="dopri5", rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.final, path.mean(0.9, x0, x1), rtol=1e-4, atol=1e-4)
    assert "one step" not in run.stats.reason


def test_another_graph_or_state_is_refused() -> None:
    x0, x1 = ends()
    path = LaplacianBridge(GRAPH)
    with pytest.raises(ValueError, match="pass the same one"):
        BridgeProcess(path, x1).bind(catalogue.ring(9), x0)
    with pytest.raises(TypeError, match="one tensor"):
        BridgeFlow(path, x0, x1).bind(GRAPH, (x0, x0))
