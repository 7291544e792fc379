"""Layers of ordinary networks as trajectories."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GAT, GCN, GCNConv, GraphSAGE, SAGEConv

from analysis import MAD, Dirichlet, EffectiveRank, trace
from neuralpde import Graph, catalogue


def grid(channels: int = 4) -> Data:
    graph = catalogue.grid(5, 5)
    return Data(torch.rand(25, channels), graph.edge_index, edge_weight=graph.edge_weight.float())


def test_states_are_what_the_layers_see() -> None:
    data, seen = grid(), []
    model = GCN(4, 8, num_layers=3, dropout=0.5)
    traj = trace(model, data)
    model.eval()
    with torch.no_grad():
        x = data.x
        for layer in model.convs:
            seen.append(x)
            out = layer(x, data.edge_index, data.edge_weight)
            x = out.relu()
    assert traj.x.shape == (4, 25, 8)
    for found, expected in zip(traj.x, [*seen, out], strict=True):
        torch.testing.assert_close(found[:, : expected.shape[1]], expected)
        assert not found[:, expected.shape[1] :].any()


def test_energies_norms_and_measures_are_those_of_the_layers() -> None:
    data = grid()
    traj = trace(GraphSAGE(4, 6, num_layers=4), data, norm="sym")
    L = Graph.from_pyg(data).laplacian("sym", dtype=torch.float64).to_dense()
    for k, x in enumerate(traj.x.double()):
        energy = float((x * (L @ x)).sum())
        assert float(traj.energy.y[k]) == pytest.approx(energy, rel=1e-4)
        assert float(traj["norm"].y[k]) == pytest.approx(float(x.norm()), rel=1e-5)
    for measure in (Dirichlet("sym"), MAD(), EffectiveRank()):
        assert len(traj.measure(measure).y) == 5
    assert traj.energy.convention.startswith("sym")


def test_modes_and_gradients_are_left_as_they_were() -> None:
    model = GAT(4, 8, num_layers=2, dropout=0.5)
    model.train()
    model.convs[0].eval()
    one, two = trace(model, grid_fixed := grid()), trace(model, grid_fixed)
    assert torch.equal(one.x, two.x)
    assert model.training
    assert not model.convs[0].training
    assert model.convs[1].training
    assert not one.x.requires_grad


class Nested(nn.Module):
    """A block around a layer, and a head that works on graphs, not on nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = SAGEConv(3, 5), GCNConv(5, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor):
        x = self.second(self.first(x, edge_index).tanh(), edge_index)
        return self.head(x.new_zeros(int(batch.max()) + 1, 5).index_add(0, batch, x))


def test_a_batch_has_a_curve_for_each_graph() -> None:
    several = [Data(torch.rand(n, 3), catalogue.ring(n).edge_index) for n in (4, 6)]
    model, both = Nested(), Batch.from_data_list(several)
    traj = trace(model, both)
    assert traj.energy.y.shape == (3, 2)
    alone = trace(model, Batch.from_data_list(several[:1]))
    torch.testing.assert_close(traj.energy.y[:, 0], alone.energy.y, rtol=1e-5, atol=1e-7)


def test_what_cannot_be_traced_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="no message-passing layer"):
        trace(nn.Linear(4, 4), grid())
    with pytest.raises(ValueError, match="asks for batch"):
        trace(Nested(), grid(3))
