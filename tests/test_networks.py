"""Deep networks against matrices written out by hand."""

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from analysis import trace
from analysis.networks import DeepNetwork, deep_gates, deep_oscillators, layer
from neuralpde import catalogue, solve

GRAPH = catalogue.lollipop(4, 3)
A = torch.zeros(7, 7, dtype=torch.float64).index_put(
    (GRAPH.edge_index[1], GRAPH.edge_index[0]), torch.tensor(1.0, dtype=torch.float64)
)
LOOPED = A + torch.eye(7, dtype=torch.float64)
P = LOOPED / LOOPED.sum(1).sqrt()[:, None] / LOOPED.sum(1).sqrt()
TIMES = torch.arange(6.0, dtype=torch.float64)


def start() -> Tensor:
    torch.manual_seed(3)
    return torch.rand(7, 4, dtype=torch.float64)


@pytest.mark.parametrize(("residual", "source"), [(False, 0.0), (True, 0.0), (False, 0.2)])
def test_gcn_is_its_formula(residual: bool, source: float) -> None:
    x = first = start()
    network = DeepNetwork("gcn", 4, 5, residual=residual, source=source)
    states = trace(network, Data(x, GRAPH.edge_index), output=True).x
    assert states.shape == (6, 7, 4)
    for conv, state in zip(network.layers, states[1:], strict=True):
        moved = (1 - source) * (P @ x @ conv.lin.weight.T).relu() + source * first
        x = moved + x if residual else moved
        torch.testing.assert_close(state, x, rtol=1e-12, atol=1e-14)


def test_sage_is_its_formula() -> None:
    x = start()
    network = DeepNetwork("sage", 4, 5)
    states = trace(network, Data(x, GRAPH.edge_index), output=True).x
    for conv, state in zip(network.layers, states[1:], strict=True):
        x = (A / A.sum(1)[:, None] @ x @ conv.lin_l.weight.T + x @ conv.lin_r.weight.T).relu()
        torch.testing.assert_close(state, x, rtol=1e-12, atol=1e-14)


def test_oscillators_with_unit_constants_are_the_plain_network() -> None:
    # v + (relu(F) - x - v) = relu(F) - x, and x + that = relu(F).
    x = start()
    field = deep_oscillators(4, 5, damping=1.0)
    traj = solve(field, (x, x), TIMES, GRAPH, solver="graphcon", steps=5)
    start()
    plain = trace(DeepNetwork("gcn", 4, 5), Data(x, GRAPH.edge_index), output=True)
    torch.testing.assert_close(traj.x[0], plain.x, rtol=1e-12, atol=1e-13)


def test_undamped_oscillators_are_their_formula() -> None:
    x = v = start()
    field = deep_oscillators(4, 5)
    weights = [piece.coupling.conv.lin.weight for piece in field.pieces]
    with torch.no_grad():
        traj = solve(field, (x, v), TIMES, GRAPH, solver="graphcon", steps=5)
        for W, state in zip(weights, traj.x[0][1:], strict=True):
            v = v + (P @ x @ W.T).relu() - x
            x = x + v
            torch.testing.assert_close(state, x, rtol=1e-12, atol=1e-13)


def test_gates_are_their_formula() -> None:
    x = start()
    field = deep_gates("gcn", 4, 5)
    pairs = [(one.field.conv.lin.weight, one.gate.conv.lin.weight) for one in field.pieces]
    with torch.no_grad():
        traj = solve(field, x, TIMES, GRAPH, solver="euler", steps=5)
        for (W, V), state in zip(pairs, traj.x[1:], strict=True):
            y = (P @ x @ V.T).relu()
            apart = (y[:, None] - y[None]).square()
            tau = torch.tanh((A[:, :, None] * apart).sum(1) / A.sum(1)[:, None])
            x = (1 - tau) * x + tau * (P @ x @ W.T).relu()
            torch.testing.assert_close(state, x, rtol=1e-12, atol=1e-13)


def test_weights_are_fresh_and_unknown_layers_are_refused() -> None:
    first, second = DeepNetwork("gat", 3, 2).layers
    assert not torch.equal(first.lin.weight, second.lin.weight)
    with pytest.raises(ValueError, match="gcn"):
        layer("gcm", 3)


def test_output_is_refused_where_the_model_returns_no_state() -> None:
    class Pooled(DeepNetwork):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return super().forward(x, edge_index).mean(0, keepdim=True)

    data = Data(start(), GRAPH.edge_index)
    assert trace(Pooled("gcn", 4, 2), data).x.shape[0] == 3
    with pytest.raises(ValueError, match="no state of the 7 nodes"):
        trace(Pooled("gcn", 4, 2), data, output=True)
