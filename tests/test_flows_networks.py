"""Networks of points and of graphs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs

from neuralpde import solve
from neuralpde.catalogue import path as path_graph
from neuralpde.catalogue import ring
from neuralpde.flows import (
    MLP,
    BrownianBridge,
    GraphNetwork,
    Learned,
    ProbabilityFlow,
    StochasticSampler,
    bridge_loss,
    draw_times,
)
from neuralpde.flows.networks import Layer, time_features
from neuralpde.graph import Graph
from neuralpde.testing import check_field


def network(channels: int = 2, heads: int = 1, **options: int) -> GraphNetwork:
    return GraphNetwork(channels, heads, width=8, depth=2, **options).double()


@given(graph=graphs(min_nodes=2), data=st.data())
def test_relabelled_nodes_give_relabelled_answers(graph: Graph, data: st.DataObject) -> None:
    order = torch.tensor(data.draw(st.permutations(range(graph.num_nodes))))
    place = torch.argsort(order)
    other = Graph(place[graph.edge_index], graph.num_nodes, graph.edge_weight)
    x, t = torch.randn(graph.num_nodes, 2, dtype=torch.float64), torch.tensor(0.3).double()
    net = network(heads=2)
    here = net.bind(graph, x)(t, x)
    there = net.bind(other, x[order])(t, x[order])
    torch.testing.assert_close(there, here[order], rtol=1e-12, atol=1e-12)


def test_graphs_of_a_batch_keep_their_own_times() -> None:
    parts, times = [ring(5), path_graph(3)], torch.tensor([0.2, 0.9], dtype=torch.float64)
    whole = Graph.union(parts)
    assert whole.batch is not None
    x, net = torch.randn(8, 2, dtype=torch.float64), network()
    together = net.bind(whole, x)(times[whole.batch, None], x)
    alone = [
        net.bind(part, y)(t, y) for part, t, y in zip(parts, times, x.split([5, 3]), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_the_graph_network_is_a_field_of_the_contract() -> None:
    check_field(network(3), ring(5))


def test_a_round_is_its_formula() -> None:
    torch.manual_seed(0)
    layer, A = Layer(4, 3).double(), ring(5).adjacency("row").to(torch.float64)
    h, tau = torch.randn(5, 4).double(), torch.randn(5, 3).double()
    inner = h @ layer.own.weight.T + layer.own.bias + A.to_dense() @ h @ layer.near.weight.T
    for times in (tau, tau[:1]):
        mixed = torch.nn.functional.silu(inner + times @ layer.time.weight.T)
        wanted = h + mixed @ layer.out.weight.T + layer.out.bias
        torch.testing.assert_close(layer(A, h, times), wanted, rtol=1e-12, atol=1e-12)


def test_rounds_without_messages_leave_the_hidden_state() -> None:
    net, x = network().requires_grad_(False), torch.randn(4, 2, dtype=torch.float64)
    for layer in net.layers:
        layer.out.weight.zero_()
        layer.out.bias.zero_()
    alone = net.last(torch.nn.functional.silu(net.first(x)))
    torch.testing.assert_close(net.bind(ring(4), x)(torch.tensor(0.3), x), alone)


def test_the_graph_and_the_time_both_matter() -> None:
    x, t, net = torch.randn(4, 2, dtype=torch.float64), torch.tensor(0.3).double(), network()
    net.requires_grad_(False)
    first = net.bind(ring(4), x)(t, x)
    assert float((first - net.bind(path_graph(4), x)(t, x)).abs().max()) > 1e-3
    assert float((first - net.bind(ring(4), x)(t + 0.5, x)).abs().max()) > 1e-3


def test_a_perceptron_takes_each_point_by_itself_at_its_own_time() -> None:
    net = MLP(3, width=8).double()
    net.requires_grad_(False)
    x, t = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 1, dtype=torch.float64)
    alone = [net(t[i, 0], x[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(net(t, x), torch.cat(alone), rtol=1e-12, atol=1e-12)
    assert float((net(t, x) - net(t + 0.5, x)).abs().max()) > 1e-3


def test_features_of_time_are_those_that_the_page_says() -> None:
    found = time_features(torch.tensor([[0.25], [1.0]]), 2, torch.zeros(2, 1).double())
    root = 0.5**0.5
    expected = torch.tensor(
        [[0.25, root, 0.0, root, 1.0], [1.0, -1.0, 1.0, 0.0, 0.0]], dtype=torch.float64
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_flows_live_on_the_nodes_of_graphs_of_unequal_size() -> None:
    """Training by mean over graphs and sampling, with one model."""
    torch.manual_seed(0)
    graph = Graph.union([ring(5), path_graph(3)])
    assert graph.batch is not None
    path, g = BrownianBridge(0.5, cut=0.05), torch.Generator().manual_seed(0)
    model = Learned(GraphNetwork(1, heads=2, width=16, depth=1), path, sigma=0.5)
    x0 = torch.zeros(8, 1)
    bound = model.bind(graph, x0)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        x1 = 3 + 0.1 * torch.randn(8, 1, generator=g)
        t = draw_times(path, 2, g)[graph.batch]
        at = path.sample(x0, x1, t, g)
        loss = bridge_loss(bound.heads(at.t, at.x), at, batch=graph.batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        for field, solver in ((model, "heun"), (StochasticSampler(model), "stochastic_heun")):
            x = solve(field, x0, path.ends, graph, solver=solver, steps=10, generator=g).final
            assert abs(float(x.mean()) - 3) < 0.6


@pytest.mark.parametrize("wrapped", [True, False])
def test_gradients_reach_the_parameters_through_a_sampler(wrapped: bool) -> None:
    net = network()
    field = ProbabilityFlow(net) if wrapped else net
    x0 = torch.randn(4, 2, dtype=torch.float64)
    solve(field, x0, 1.0, ring(4), solver="heun", steps=3).final.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert ProbabilityFlow(net).batched_time
