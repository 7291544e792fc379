"""Curvature of propagation matrices: its definition on dense matrices, its properties."""

from concurrent.futures import ThreadPoolExecutor

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import linprog
from scipy.sparse import csr_array
from torch import Tensor

from analysis import decurve_flow, ollivier, plots, propagation_curvature
from analysis.perron import perron_measure, walk
from analysis.ricci import transport
from analysis.transports import Move, transports
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND
from tests.strategies import dense, graphs, quietly


def drawn(nodes: int, seed: int = 0, share: float = 0.4) -> np.ndarray:
    """A strongly connected weighted directed graph: a cycle and some arcs."""
    dice = np.random.default_rng(seed)
    W = dice.uniform(0.2, 2.0, (nodes, nodes)) * (dice.random((nodes, nodes)) < share)
    W[np.arange(nodes), (np.arange(nodes) + 1) % nodes] += 1.0
    return W


def by_definition(W: np.ndarray, i: int, j: int) -> float:
    nodes = len(W)
    P = W / W.sum(1, keepdims=True)
    values, vectors = np.linalg.eig(P.T)
    m = np.abs(vectors[:, np.argmax(values.real)].real)
    K = (P + P.T * m[None, :] / m[:, None]) / 2
    with np.errstate(divide="ignore"):
        d = 1 / W
    np.fill_diagonal(d, 0.0)
    for k in range(nodes):
        d = np.minimum(d, d[:, [k]] + d[[k], :])
    equations = np.concatenate(
        [np.kron(np.eye(nodes), np.ones(nodes)), np.kron(np.ones(nodes), np.eye(nodes))]
    )
    found = linprog(d.ravel(), A_eq=equations, b_eq=np.concatenate([K[i], K[j]]), method="highs")
    return 1 - found.fun / d[i, j]


@settings(max_examples=25)
@given(graphs(min_nodes=2, max_nodes=9, connected=True, loops=False, weighted=False))
def test_it_is_olliviers_on_undirected_unweighted_graphs(graph: Graph) -> None:
    torch.testing.assert_close(
        propagation_curvature(graph), ollivier(graph, idleness=0.0), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("seed", range(4))
def test_it_is_its_definition_on_directed_weighted_graphs(seed: int) -> None:
    W = drawn(7, seed)
    i, j = np.nonzero(W)
    found = propagation_curvature(csr_array(W)).numpy()
    for value, a, b in zip(found, i, j, strict=True):
        if a == b:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(by_definition(W, a, b), abs=1e-6)


def test_two_nodes_have_a_curvature_that_is_known() -> None:
    # A chain of two states is its own reversal: the mass b - c goes back over an edge of weight c.
    a, b, c, e = 0.2, 0.8, 0.6, 0.4
    W = csr_array(np.array([[a, b], [c, e]]))
    found = propagation_curvature(W)
    assert found[1].item() == pytest.approx(1 - (c - a) * b / c, abs=1e-12)
    assert found[2].item() == pytest.approx(1 - (c - a) * c / b, abs=1e-12)
    assert found[0].isnan()
    assert found[3].isnan()


def test_a_directed_ring_is_flat() -> None:
    # Half of the mass goes one step, half of it from i + 1 all the way round to i - 1 + 2.
    ring = quietly(torch.tensor([[1, 2, 3, 4, 0], [0, 1, 2, 3, 4]]))
    torch.testing.assert_close(propagation_curvature(ring), torch.zeros(5).double())


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e5])
def test_all_weights_times_a_number_change_nothing(scale: float) -> None:
    W = drawn(9)
    one, two = propagation_curvature(csr_array(W)), propagation_curvature(csr_array(scale * W))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_an_arc_appears_without_a_jump() -> None:
    W = drawn(8, 1)
    i, j = np.argwhere((W == 0) & ~np.eye(8, dtype=bool))[0]
    pairs = torch.from_numpy(np.stack(np.nonzero(W))[::-1].copy())
    before = propagation_curvature(csr_array(W), pairs)
    gaps = []
    for weight in (1e-3, 1e-4, 1e-5):
        W[i, j] = weight
        after = propagation_curvature(csr_array(W), pairs)
        gaps.append(float((after - before).abs().nan_to_num().max()))
    assert 0 < gaps[0] < 1e-2
    # Linear in the weight.
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.05)
    assert gaps[2] == pytest.approx(gaps[0] / 100, rel=0.1)


def test_directions_differ() -> None:
    W = csr_array(drawn(6, 3, 1.0))
    both = torch.tensor([[0, 1], [1, 0]])
    one, other = propagation_curvature(W, both).tolist()
    assert abs(one - other) > 0.05
    # The first row of pairs sends: what node 1 hears from node 0.
    assert one == pytest.approx(by_definition(W.toarray(), 1, 0), abs=1e-6)


def test_relabelled_nodes_and_executors_change_nothing() -> None:
    W = drawn(70, 5, 0.05)
    np.fill_diagonal(W, 0.0)
    order = np.random.default_rng(1).permutation(70)
    here = np.stack(np.nonzero(W))[::-1].copy()
    one = propagation_curvature(csr_array(W), torch.from_numpy(here))
    moved = np.zeros_like(W)
    moved[np.ix_(order, order)] = W
    with ThreadPoolExecutor(2) as executor:
        two = propagation_curvature(
            csr_array(moved), torch.from_numpy(order[here]), executor=executor
        )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


def test_components_know_nothing_of_each_other() -> None:
    one, two = drawn(5, 1), drawn(4, 2)
    both = np.block([[one, np.zeros((5, 4))], [np.zeros((4, 5)), 3 * two]])
    found = propagation_curvature(csr_array(both))
    alone = [propagation_curvature(csr_array(part)) for part in (one, two)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-9, equal_nan=True)


def test_what_cannot_be_reached_has_no_curvature() -> None:
    arrow = quietly(torch.tensor([[1, 2], [0, 1]]), 3)
    # The rows of K live on {1}, {0, 2} and {1}, and nobody comes back to node 0.
    assert propagation_curvature(arrow).isnan().all()
    ends = propagation_curvature(arrow, torch.tensor([[2, 0], [0, 2]]))
    assert ends[0] == 1.0
    assert ends[1].isnan()


@pytest.mark.parametrize("seed", range(3))
def test_the_measure_is_the_left_eigenvector(seed: int) -> None:
    P = walk(csr_array(drawn(12, seed)))
    m, jumps = perron_measure(P, np.zeros(12, dtype=int))
    np.testing.assert_allclose(m @ P, m, atol=1e-15)
    assert m.sum() == pytest.approx(1.0)
    assert (m > 0).all()
    assert not jumps.any()


@settings(max_examples=30)
@given(graphs(min_nodes=2, max_nodes=8, directed=True))
def test_walks_that_do_not_return_jump_as_networkx_does(graph: Graph) -> None:
    A = dense(graph)
    club = nx.from_numpy_array(A.numpy(), create_using=nx.DiGraph)
    m, jumps = perron_measure(walk(csr_array(A.numpy())), np.zeros(len(A), dtype=int))
    if nx.is_strongly_connected(club):
        assert not jumps.any()
        P = A.numpy() / A.numpy().sum(1, keepdims=True)
        np.testing.assert_allclose(m @ P, m, atol=1e-13)
    else:
        rank = nx.pagerank(club, alpha=0.95, tol=1e-13, max_iter=5000)
        np.testing.assert_allclose(m, [rank[k] for k in range(len(A))], atol=1e-9)


def test_transports_together_are_those_alone() -> None:
    dice = np.random.default_rng(0)
    moves = []
    for _ in range(30):
        supply, demand = dice.random(dice.integers(1, 6)), dice.random(dice.integers(1, 6))
        demand *= supply.sum() / demand.sum()
        moves.append(Move(supply, demand, dice.random((len(supply), len(demand)))))
    alone = [transport(*move) for move in moves]
    np.testing.assert_allclose(transports(moves), alone, atol=1e-9)
    assert transports([]).shape == (0,)


def test_programs_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    W = csr_array(drawn(10))
    whole = propagation_curvature(W)
    monkeypatch.setattr("analysis.transports.TOGETHER", 50)
    torch.testing.assert_close(propagation_curvature(W), whole, rtol=0, atol=1e-9, equal_nan=True)


def attention_flow() -> tuple[object, GRAND, Tensor]:
    graph = catalogue.grid(4, 4)
    x0 = torch.randn(16, 3, dtype=torch.float64)
    field = GRAND(3, variant="nonlinear").double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(3)
    return solve(field, x0, [0.0, 1.0, 3.0], graph), field.bind(graph, x0), x0


def test_attention_has_a_histogram_at_each_time() -> None:
    traj, bound, x0 = attention_flow()

    def matrix(x: Tensor) -> object:
        return bound.attention(bound.pattern, x, weights=bound.prior)

    flow = decurve_flow(traj, matrix)
    assert flow.curvature.shape == (3, 64)
    with torch.no_grad():
        first = matrix(x0).to_dense().numpy()
    sender, receiver = flow.pairs[:, 1].tolist()
    assert flow.curvature[0, 1].item() == pytest.approx(
        by_definition(first, receiver, sender), abs=1e-6
    )
    assert float((flow.curvature[0] - flow.curvature[2]).abs().nan_to_num().max()) > 0.1
    shares, edges = flow.histograms(10)
    torch.testing.assert_close(shares.sum(1), torch.ones(3).double())
    counts = np.histogram(flow.curvature[1][~flow.curvature[1].isnan()], edges)[0]
    np.testing.assert_allclose(shares[1], counts / 48)
    middle = flow.quantiles(0.5)[:, 0]
    expected = [row[~row.isnan()].quantile(0.5) for row in flow.curvature]
    torch.testing.assert_close(middle, torch.stack(expected))
    ax = plots.curvature_flow(flow, span=(-1.0, 1.0))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), middle)
    assert "outside" in ax.get_title(loc="left")


def test_negative_weights_are_refused_in_words() -> None:
    for bad in (-1.0, np.inf):
        with pytest.raises(ValueError, match="finite weights"):
            propagation_curvature(csr_array(np.array([[0.0, bad], [1.0, 0.0]])))
