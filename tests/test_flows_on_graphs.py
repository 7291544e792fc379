"""Flows of whole states of a graph: the network, its training, many states at once."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from strategies import dense

from neuralpde import flows
from neuralpde.catalogue import path as path_graph
from neuralpde.catalogue import ring
from neuralpde.fields import Heat, Noise
from neuralpde.graph import Graph
from neuralpde.testing import check_field, contract


def modes(nodes: int, count: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(nodes, count, generator=g, dtype=torch.float64)).Q


def network(
    nodes: int = 6, count: int = 2, channels: int = 1, heads: int = 1
) -> flows.ModalNetwork:
    torch.manual_seed(1)
    return flows.ModalNetwork(modes(nodes, count), channels, heads, width=8, depth=1).double()


def test_the_modal_network_is_a_field_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is tied to one graph's nodes: there is no checking it with one more, an isolated one.
    rest = tuple(check for check in contract.CHECKS if check is not contract.bare_graphs)
    assert len(rest) == len(contract.CHECKS) - 1
    monkeypatch.setattr(contract, "CHECKS", rest)
    check_field(network(5, channels=3), ring(5))


def test_the_modal_network_reads_the_projection_of_each_copy() -> None:
    x = torch.randn(2 * 6, 3, dtype=torch.float64)
    U, read = modes(6, 2).numpy(), network(channels=3).read(x).numpy()
    assert read.shape == (12, 3 + 3 + 2 * 3 + 2)
    for copy in range(2):
        rows = slice(6 * copy, 6 * copy + 6)
        state = x[rows].numpy()
        coefficients = np.einsum("nk,nc->kc", U, state)
        along = U @ np.linalg.lstsq(U, state, rcond=None)[0]
        told = np.broadcast_to(coefficients.reshape(-1), (6, 6))
        expected = np.concatenate([state, along, told, math.sqrt(6) * U], 1)
        np.testing.assert_allclose(read[rows], expected, atol=1e-12)


def test_modes_carry_news_across_the_graph_and_not_to_its_copies() -> None:
    net, t = network(), torch.tensor(0.4).double()
    copies = Graph.union([path_graph(6)] * 2)
    x = torch.randn(12, 1, dtype=torch.float64)
    changed = x.clone()
    changed[0] += 1
    bound = net.requires_grad_(False).bind(copies, x)
    apart = (bound(t, changed) - bound(t, x)).abs().flatten()
    assert float(apart[5]) > 1e-6, "node 5 is five steps away, and the network one round deep"
    assert float(apart[6:].max()) == 0


def test_relabelled_nodes_with_their_modes_give_relabelled_answers() -> None:
    order, t = torch.tensor([3, 1, 5, 0, 4, 2]), torch.tensor(0.3).double()
    graph, x, net = path_graph(6), torch.randn(6, 1, dtype=torch.float64), network(heads=2)
    other = Graph(torch.argsort(order)[graph.edge_index], 6, graph.edge_weight)
    here = net.bind(graph, x)(t, x)
    there = net.relabelled(order).bind(other, x[order])(t, x[order])
    torch.testing.assert_close(there, here[order], rtol=1e-12, atol=1e-12)


def test_the_modal_network_refuses_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match="not orthonormal"):
        flows.ModalNetwork(torch.ones(4, 1))
    with pytest.raises(ValueError, match="no copies of the 6"):
        network().bind(ring(5), torch.zeros(5, 1, dtype=torch.float64))


def test_principal_modes_are_eigenvectors_of_the_covariance() -> None:
    g = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 5.0, 1.0, 3.0, 0.2], dtype=torch.float64)
    states = 7 + torch.randn(40, 5, generator=g, dtype=torch.float64) * spread
    found = flows.principal_modes(states, 2).numpy()
    vectors = np.linalg.eigh(np.cov(states.numpy().T))[1][:, [-1, -2]]
    np.testing.assert_allclose(np.abs(np.sum(found * vectors, 0)), 1, rtol=1e-12)
    for count in (0, 6):
        with pytest.raises(ValueError, match="1 to 5 modes"):
            flows.principal_modes(states, count)


def test_the_empirical_law_draws_every_state_alike() -> None:
    law = flows.Empirical(torch.arange(4.0)[:, None])
    drawn = law.sample(4000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn.flatten().long(), minlength=4)
    # 1,000 of each, with a standard deviation of 27.
    assert int((counts - 1000).abs().max()) < 110
    with pytest.raises(ValueError, match="at least one"):
        flows.Empirical(torch.ones(0, 3))


def test_a_blurred_law_adds_normal_noise_to_its_states() -> None:
    law = flows.Empirical(torch.tensor([[-3.0], [3.0]]), blur=0.5)
    drawn = law.sample(4000, torch.Generator().manual_seed(0)).flatten()
    off = drawn - 3 * drawn.sign()
    assert abs(float(off.mean())) < 4 * 0.5 / 4000**0.5
    assert float(off.std()) == pytest.approx(0.5, abs=4 * 0.5 / 8000**0.5)
    assert abs(float((drawn > 0).double().mean()) - 0.5) < 4 * 0.5 / 4000**0.5
    for blur in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="standard deviation"):
            flows.Empirical(torch.ones(1, 3), blur)


@pytest.mark.parametrize("chunk", [1, 2, 3, 64])
def test_states_are_carried_as_by_the_exponential(chunk: int) -> None:
    graph = path_graph(5)
    x = torch.randn(3, 5, 2, dtype=torch.float64)
    A = dense(graph).numpy()
    exact = np.einsum("ij,sjc->sic", scipy.linalg.expm(-0.5 * (np.diag(A.sum(1)) - A)), x.numpy())
    found = flows.carry(
        Heat(norm="comb"), graph, x, (0.0, 0.5), solver="rk4", steps=60, chunk=chunk
    )
    np.testing.assert_allclose(found.numpy(), exact, atol=1e-8)


def test_states_of_all_chunks_have_noise_of_their_own() -> None:
    still, graph = Heat(rate=0.0, norm="comb") + Noise(1.0), ring(50)
    g = torch.Generator().manual_seed(0)
    found = flows.carry(
        still,
        graph,
        torch.zeros(6, 50, dtype=torch.float64),
        (0.0, 1.0),
        solver="euler_maruyama",
        steps=4,
        generator=g,
        chunk=2,
    )
    alike = np.corrcoef(found.numpy()) - np.eye(6)
    assert abs(alike).max() < 0.6, "50 numbers each: five standard errors are 0.7"
    assert 0.8 < float(found.std()) < 1.2


def test_states_of_another_graph_are_not_carried() -> None:
    for graph, chunk in ((ring(5), 2), (Graph.union([ring(4)] * 2), 2), (ring(4), 0)):
        with pytest.raises(ValueError, match="positive chunk"):
            flows.carry(Heat(), graph, torch.zeros(3, 4), (0.0, 1.0), steps=2, chunk=chunk)


def test_training_on_a_graph_finds_the_velocity_to_a_state() -> None:
    """To a point mass at m the velocity is (m - x) / (1 - t), and the flow ends at m."""
    graph, m = path_graph(4), torch.tensor([2.0, -1.0, 0.5, 1.0])
    torch.manual_seed(0)
    net = flows.ModalNetwork(torch.linalg.qr(torch.eye(4)[:, :3]).Q, width=16, depth=1)
    g, losses = torch.Generator().manual_seed(1), []
    flows.train_on_graph(
        net,
        graph,
        flows.Linear(),
        flows.normal(4),
        flows.Empirical(m[None]),
        flows.Independent(),
        steps=300,
        batch=64,
        generator=g,
        progress=lambda step, loss: losses.append(loss),
    )
    x0 = torch.randn(20, 4, generator=g)
    ends = flows.carry(flows.ProbabilityFlow(net), graph, x0, (0.0, 1.0), steps=10)
    assert float((ends - m).square().mean().sqrt()) < 0.25, "at first they are 1.6 away"
    assert len(losses) == 100


def test_training_on_a_graph_finds_both_heads_of_a_bridge() -> None:
    """Nodes that know nothing of each other have the bridge of one number, which is known."""
    laws = flows.normal(1), flows.normal(1, std=0.5, mean=1.0)
    path = flows.BrownianBridge(0.5)
    exact = flows.MixtureFlow(*laws, path, 0.5)
    torch.manual_seed(0)
    graph, net = ring(4), flows.GraphNetwork(1, heads=2, width=16, depth=1)
    both = flows.normal(4), flows.normal(4, std=0.5, mean=1.0)
    g = torch.Generator().manual_seed(1)
    flows.train_on_graph(
        net, graph, path, *both, flows.Independent(), steps=400, batch=64, rate=1e-2, generator=g
    )
    x = torch.linspace(-0.7, 1.5, 40)[torch.randperm(40, generator=g), None]
    model = flows.Learned(net, path, 0.5).bind(Graph.union([graph] * 10), x)
    for time in (0.2, 0.5, 0.8):
        with torch.no_grad():
            found, known = (f.both(torch.tensor(time), x) for f in (model, exact))
        for head in ("velocity", "score"):
            a, b = getattr(found, head), getattr(known, head)
            assert float((a - b).norm() / b.norm()) < 0.3, (head, time)


def test_training_on_a_graph_says_what_it_cannot_do() -> None:
    law, net = flows.normal(4), flows.GraphNetwork(1, width=4)
    rest = flows.Linear(), law, law, flows.Independent()
    with pytest.raises(ValueError, match="the one graph"):
        flows.train_on_graph(net, Graph.union([ring(4)] * 2), *rest)
    with pytest.raises(ValueError, match="steps=0"):
        flows.train_on_graph(net, ring(4), *rest, steps=0)


def test_training_on_a_graph_evens_out_the_ends_of_a_bridge() -> None:
    """Of a network that says zero, between zeros with sigma 1, the losses are those of the noise.

    |u|^2 is s'(t)^2 z^2, and weighted (1 - 2t)^2 z^2, whose mean is 1/3; that of the score is 1.
    """
    net, losses = flows.GraphNetwork(1, heads=2, width=4), []
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    law = flows.Empirical(torch.zeros(1, 6))
    flows.train_on_graph(
        net,
        ring(6),
        flows.BrownianBridge(1.0, cut=1e-4),
        *(law, law, flows.Independent()),
        steps=100,
        rate=0.0,
        generator=torch.Generator().manual_seed(0),
        progress=lambda step, loss: losses.append(loss),
    )
    # The standard error over 100 batches is 0.01; unweighted the mean is 3.
    assert sum(losses) / len(losses) == pytest.approx(4 / 3, abs=0.05)
