"""Influence by distance, arrivals, and the influence of layers against torch_geometric's."""

import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GraphSAGE
from torch_geometric.utils import influence as published

from analysis import (
    Sensitivity,
    arrival_times,
    influence,
    influence_profile,
    network_sensitivity,
    receptive_field,
    sensitivity,
)
from analysis.influences import hop_distances
from neuralpde import Graph, catalogue
from neuralpde.fields import Heat, Wave
from tests.strategies import graphs, quietly


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(graph=graphs(directed=True))
def test_hops_are_the_shortest_ways_along_edges(graph: Graph) -> None:
    walk = nx.DiGraph(graph.edge_index.T.tolist())
    walk.add_nodes_from(range(graph.num_nodes))
    found = hop_distances(graph)
    for j in range(graph.num_nodes):
        ways = nx.single_source_shortest_path_length(walk, j)
        assert found[j].tolist() == [ways.get(i, -1) for i in range(graph.num_nodes)]


def test_influence_follows_the_edges() -> None:
    graph = quietly(torch.tensor([[0, 1], [1, 2]]), 3)
    found = sensitivity(Heat(), normal(3, 1), 1.0, graph).value[-1]
    reached = hop_distances(graph) >= 0
    assert torch.equal(found > 0, reached)


def test_influence_sums_to_one_over_sources() -> None:
    graph = catalogue.barbell(4)
    found = sensitivity(Heat("rw"), normal(8, 2), [0.0, 0.3, 2.0], graph)
    share = influence(found)
    torch.testing.assert_close(share.sum(1), torch.ones(3, 8).double())
    K = torch.linalg.matrix_exp(-2.0 * graph.laplacian("rw", dtype=torch.float64).to_dense())
    torch.testing.assert_close(share[-1], K.T, rtol=0, atol=1e-8)


def test_profiles_are_means_over_rings() -> None:
    graph, sources = catalogue.grid(3, 4), [0, 5]
    found = sensitivity(Heat(), normal(12, 1), [0.0, 0.5, 4.0], graph, sources=sources)
    profile, away = influence_profile(found, graph), hop_distances(graph, sources)
    for k in range(3):
        for h in range(int(away.max()) + 1):
            J, ring = found.value[k], away == h
            assert profile.value[k, h].item() == pytest.approx(J[ring].mean().item())
            parts = [float(J[s][ring[s]].sum() / J[s].sum()) for s in range(2)]
            assert profile.share[k, h].item() == pytest.approx(sum(parts) / 2)
            assert profile.nodes[h].item() == pytest.approx(int(ring.sum()) / 2)
    torch.testing.assert_close(profile.share.sum(1), torch.ones(3).double())
    assert profile.share[0].tolist() == [1.0] + [0.0] * (len(profile.hops) - 1)


def test_at_last_influence_is_spread_like_the_nodes() -> None:
    """Heat on a ring: in the end every node has 1 / n, and the mean distance is that of nodes."""
    graph = catalogue.ring(9)
    found = sensitivity(Heat(), normal(9, 1), [0.0, 200.0], graph)
    profile, mean = influence_profile(found, graph), 2 * (1 + 2 + 3 + 4) / 9
    assert profile.radius[0].item() == 0.0
    assert profile.radius[-1].item() == pytest.approx(mean, abs=1e-6)
    fields = receptive_field(found, graph)
    torch.testing.assert_close(fields[-1], torch.full((9,), mean).double(), rtol=0, atol=1e-6)


def test_other_components_count_for_nothing() -> None:
    graph = Graph.union([catalogue.path(3), catalogue.ring(4)])
    profile = influence_profile(
        sensitivity(Heat(), normal(7, 1), 1.0, graph, sources=[0, 4]), graph
    )
    torch.testing.assert_close(profile.share.sum(1), torch.ones(2).double())
    assert profile.nodes.tolist() == [1.0, 1.5, 1.0]


def test_waves_arrive_at_their_speed() -> None:
    graph, t = catalogue.path(40), torch.linspace(0, 16, 161, dtype=torch.float64)
    state = torch.zeros(40, 1).double(), torch.zeros(40, 1).double()
    found = sensitivity(Wave(speed=2.0), state, t, graph, sources=[0], rtol=1e-6)
    arrived = arrival_times(found, 0.05)[0]
    speed = 20 / (arrived[28] - arrived[8])
    assert speed.item() == pytest.approx(2.0, rel=0.05)


def test_arrivals_are_found_between_the_times() -> None:
    t = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    J = torch.exp(2 * t - 4)[:, None, None].expand(3, 1, 2).clone()
    J[:, 0, 1] = torch.tensor([0.0, 0.0, 0.2])
    found = Sensitivity(t, torch.tensor([0]), J, 0 * J, "fro", "by hand")
    tolerance = math.exp(-1.0)
    assert arrival_times(found, tolerance)[0].tolist() == pytest.approx([1.5, math.inf])
    assert arrival_times(found, 0.1)[0, 1].item() == 3.0
    assert arrival_times(found, 1e-3)[0, 0].item() == 0.0


def line() -> Data:
    graph = catalogue.path(11)
    return Data(torch.ones(11, 1).double(), graph.edge_index, num_nodes=11)


def gcn(layers: int) -> GCN:
    torch.manual_seed(0)
    model = GCN(1, 1, layers, act=None, bias=False).double()
    for conv in model.convs:
        conv.lin.weight.data.fill_(1.0)
    return model.eval()


def test_torch_geometric_is_inexact_at_the_outermost_hop() -> None:
    """Three layers of GCN on a path of 11: nodes at the rim of its subgraph have lost a neighbour.

    Inside, one way of three steps counts 1 / 27; a rim node of degree 2 instead of 3 makes it
    sqrt(3 / 2) times as much, 22 % too much.
    """
    data = line()
    A = Graph.from_pyg(data).adjacency("sym", 1.0, dtype=torch.float64).to_dense()
    exact = torch.linalg.matrix_power(A, 3)
    found = network_sensitivity(gcn(3), data)
    torch.testing.assert_close(found.value[-1], exact.T)
    theirs = published.jacobian_l1(gcn(3), data, 3, 5, "cpu")
    ours = found.value[-1, :, 5]
    torch.testing.assert_close(theirs[3:8], ours[3:8], rtol=0.25, atol=0)
    torch.testing.assert_close(theirs[4:7], ours[4:7])
    middle = 1 / 27
    assert ours[2].item() == pytest.approx(middle)
    assert theirs[2].item() == pytest.approx(middle * math.sqrt(3 / 2))


def test_with_the_whole_graph_torch_geometric_agrees() -> None:
    graph = catalogue.barbell(3)
    data = Data(normal(6, 3), graph.edge_index, num_nodes=6)
    torch.manual_seed(0)
    model = GCN(3, 4, 2).double().eval()
    found = network_sensitivity(model, data)
    for i in range(6):
        theirs = published.jacobian_l1(model, data, 5, i, "cpu")
        torch.testing.assert_close(found.value[-1, :, i], theirs)
    rings = [published.jacobian_l1_agg_per_hop(model, data, 5, i, "cpu") for i in range(6)]
    width = published.influence_weighted_receptive_field(torch.stack(rings).float())
    ours = receptive_field(found, graph)[-1].mean()
    assert ours.item() == pytest.approx(width, rel=1e-5)


@pytest.mark.parametrize("kind", [GCN, GAT, GraphSAGE])
def test_layers_are_seen_in_one_pass(kind: type) -> None:
    graph = catalogue.ring(5)
    torch.manual_seed(0)
    data, model = Data(normal(5, 2), graph.edge_index, num_nodes=5), kind(2, 3, 3).double()
    found = network_sensitivity(model, data, norm="fro")
    assert found.value.shape == (4, 5, 5)
    torch.testing.assert_close(found.value[0], math.sqrt(2) * torch.eye(5).double())
    model.eval()
    J = torch.autograd.functional.jacobian(lambda x: model(x, data.edge_index), data.x)
    expected = J.square().sum((1, 3)).sqrt().T
    torch.testing.assert_close(found.value[-1], expected)
    for k in range(4):
        assert not (found.value[k][hop_distances(graph) > k]).any()


def test_what_does_not_fit_is_said() -> None:
    graph = catalogue.path(4)
    some = sensitivity(Heat(), normal(4, 1), 1.0, graph, sources=[0, 1])
    with pytest.raises(ValueError, match="2 of 4 nodes"):
        influence(some)
    with pytest.raises(ValueError, match="4 nodes and the graph has 5"):
        influence_profile(some, catalogue.path(5))
    with pytest.raises(ValueError, match="positive"):
        arrival_times(some, 0.0)
