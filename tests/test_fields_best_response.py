"""Network games: equilibria by numpy, gradients by the implicit function, networks found again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve, steady_state
from neuralpde.fields import BestResponse, EdgeWeights
from neuralpde.testing import check_field
from tests.strategies import graphs

F64 = torch.float64
GRAPH = catalogue.barbell(4, 1)
A = GRAPH.adjacency(dtype=F64).to_dense()


def benefits(games: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + torch.rand(GRAPH.num_nodes, games, dtype=F64, generator=generator)


def zeros(games: int = 2) -> Tensor:
    return torch.zeros(GRAPH.num_nodes, games, dtype=F64)


@settings(max_examples=25)
@given(graphs(min_nodes=2, directed=True, loops=False), st.floats(-2.0, 2.0), st.booleans())
def test_every_player_moves_towards_what_pays_most(graph: Graph, beta: float, plus: bool) -> None:
    x, b = torch.randn(2, graph.num_nodes, 1, dtype=F64).abs()
    G = graph.adjacency(dtype=F64).to_dense()
    field = BestResponse(b, beta, nonnegative=plus).bind(graph, x)
    best = x + field(torch.tensor(0.0), x)

    def payoffs(own: Tensor) -> Tensor:
        return own * (b - own / 2 + beta * (G @ x))

    for other in (best + 0.1, (best - 0.1).clamp(min=0.0) if plus else best - 0.1):
        assert (payoffs(best) >= payoffs(other) - 1e-12).all()
    assert not plus or (best >= 0).all()


@pytest.mark.parametrize(("beta", "end"), [(0.2, 80.0), (-0.3, 40.0)])
def test_the_exact_flow_reaches_the_equilibrium(beta: float, end: float) -> None:
    b = benefits()
    nash = np.linalg.solve(np.eye(9) - beta * A.numpy(), b.numpy())
    field = BestResponse(b, beta)
    traj = solve(field, zeros(), end, GRAPH, rtol=1e-8)
    assert traj.stats.solver == "chebyshev"
    torch.testing.assert_close(traj.final, torch.from_numpy(nash), rtol=5e-8, atol=5e-8)
    traj = steady_state(field, zeros(), GRAPH)
    torch.testing.assert_close(traj.final, torch.from_numpy(nash), rtol=1e-12, atol=1e-12)


def test_before_the_equilibrium_it_is_the_exponential_of_an_affine_flow() -> None:
    b, beta, t = benefits(), 0.2, 1.5
    M = beta * A - torch.eye(9, dtype=F64)
    block = torch.zeros(11, 11, dtype=F64)
    block[:9, :9], block[:9, 9:] = M, b
    expected = torch.linalg.matrix_exp(t * block)[:9, 9:]
    found = solve(BestResponse(b, beta), zeros(), t, GRAPH, rtol=1e-10).final
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("plus", [False, True])
def test_gradients_through_the_equilibrium_are_those_of_the_closed_form(plus: bool) -> None:
    beta = nn.Parameter(torch.tensor(0.2 if not plus else -0.9, dtype=F64))
    b = nn.Parameter(benefits(1))
    network = EdgeWeights(GRAPH).double()
    field = BestResponse(b, beta, network, nonnegative=plus)
    x = steady_state(field, zeros(1), GRAPH).final
    weight = torch.cos(torch.arange(9, dtype=F64)).view(9, 1)
    wanted = (beta, b, network.weights)
    found = torch.autograd.grad((x * weight).sum(), wanted)
    # Those who play solve a linear system among themselves; the others stay at zero.
    plays = (x.detach() > 0).flatten()
    assert plays.all() != plus
    G = network(GRAPH, x).to_dense()[plays][:, plays]
    known = torch.linalg.solve(torch.eye(len(G), dtype=F64) - beta * G, b[plays])
    torch.testing.assert_close(x[plays], known, rtol=1e-11, atol=1e-11)
    expected = torch.autograd.grad((known * weight[plays]).sum(), wanted)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_actions_stay_nonnegative_and_nobody_gains_by_playing() -> None:
    b, beta = benefits(1, seed=3), -0.8
    field = BestResponse(b, beta, nonnegative=True)
    traj = solve(field, zeros(1), torch.linspace(0, 20, 21, dtype=F64), GRAPH, rtol=1e-6)
    assert (traj.x >= -1e-6).all()
    x = steady_state(field, zeros(1), GRAPH).final
    answer = b + beta * A @ x
    # Complementarity: who does not play has no reason to.
    assert ((x > 1e-9) | (answer <= 1e-9)).all()
    assert (x[answer > 0] - answer[answer > 0]).abs().max() < 1e-10
    assert 0 < int((x < 1e-9).sum()) < 9


@pytest.mark.parametrize("plus", [False, True])
def test_the_flow_climbs_the_potential(plus: bool) -> None:
    b = benefits(1, seed=5)
    for beta in (0.2, -0.8):
        field = BestResponse(b, beta, nonnegative=plus)
        x0 = benefits(1, seed=6)
        times = torch.linspace(0, 5, 21, dtype=F64)
        traj = solve(field, x0, times, GRAPH, solver="tsit5", rtol=1e-8)
        bound = field.bind(GRAPH, x0)
        falls = torch.cat([bound.lyapunov(x) for x in traj.x]).diff()
        assert (falls < 1e-9).all()
    x = x0.clone().requires_grad_()
    (rise,) = torch.autograd.grad(bound.lyapunov(x).sum(), x)
    expected = x0 - b + 0.8 * A @ x0
    torch.testing.assert_close(rise, expected, rtol=1e-12, atol=1e-12)


def test_the_network_is_found_again_from_equilibria() -> None:
    """Leng et al., arXiv:1811.08790, with benefits that are known: then beta G is identified."""
    graph, games, beta = catalogue.barbell(3), 8, 0.25
    generator = torch.Generator().manual_seed(1)
    truth = EdgeWeights(graph).double()
    b = torch.rand(6, games, dtype=F64, generator=generator)
    with torch.no_grad():
        truth.weights.mul_(0.3 + torch.rand(len(truth.weights), dtype=F64, generator=generator))
        seen = steady_state(BestResponse(b, beta, truth), 0 * b, graph).final
    # Candidates are all pairs; most of them are no edges.
    pairs = catalogue.complete(6)
    network = EdgeWeights(pairs).double()
    with torch.no_grad():
        network.weights.mul_(0.1)
    descent = torch.optim.LBFGS(
        network.parameters(), max_iter=60, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        descent.zero_grad()
        off = steady_state(BestResponse(b, beta, network), seen, pairs).final - seen
        value = off.square().sum()
        value.backward()
        return value

    descent.step(loss)
    found = network(pairs, seen).to_dense()
    expected = truth(graph, seen).to_dense()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_games_that_do_not_settle_say_so_before_any_work() -> None:
    largest = float(torch.linalg.eigvalsh(A).max())
    for beta, plus in ((1.001 / largest, False), (1.5, True), (-0.9, False)):
        field = BestResponse(1.0, beta, nonnegative=plus)
        with pytest.raises(ValueError, match="no equilibrium that best responses reach"):
            steady_state(field, zeros(), GRAPH)
    assert steady_state(BestResponse(1.0, 0.97 / largest), zeros(), GRAPH).final.min() > 5


@pytest.mark.parametrize("graph", [catalogue.grid(12, 12), catalogue.ring(121)], ids=repr)
def test_the_amplification_is_the_rightmost_eigenvalue(graph: Graph) -> None:
    x0 = torch.zeros(graph.num_nodes, 1, dtype=F64)
    values = torch.linalg.eigvalsh(graph.adjacency(dtype=F64).to_dense())
    for beta in (0.3, -0.3):
        found = BestResponse(beta=beta).bind(graph, x0).amplification()
        assert found == pytest.approx(float((beta * values).max()), rel=1e-9)


def test_with_columns_that_sum_to_one_the_equilibrium_is_pagerank() -> None:
    import networkx as nx

    field = BestResponse(1.0, 0.85, lambda graph, x0: graph.adjacency("col"))
    x = steady_state(field, zeros(1), GRAPH).final.flatten()
    edges = GRAPH.edge_index.T.tolist()
    rank = nx.pagerank(nx.DiGraph(edges), alpha=0.85, tol=1e-14, max_iter=1000)
    for node, share in rank.items():
        assert float(x[node] / x.sum()) == pytest.approx(share, rel=1e-9)


def test_it_keeps_the_contract() -> None:
    b, beta = nn.Parameter(torch.tensor([[1.0, 0.5, 2.0]])), nn.Parameter(torch.tensor(0.2))
    check_field(BestResponse(b, beta), GRAPH)
    check_field(BestResponse(b, -0.6, nonnegative=True), GRAPH, smooth=False)


def test_players_keep_their_benefits_when_they_are_relabelled() -> None:
    order, b = torch.randperm(9), benefits()
    moved = Graph(torch.argsort(order)[GRAPH.edge_index], 9)
    x = torch.randn(9, 2, dtype=F64)
    field = BestResponse(b, 0.3)
    slope = field.bind(GRAPH, x)(torch.tensor(0.0), x)
    other = field.relabelled(order).bind(moved, x[order])(torch.tensor(0.0), x[order])
    torch.testing.assert_close(other, slope[order], rtol=1e-13, atol=1e-13)


def test_wrong_games_are_refused_in_words() -> None:
    arcs = Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    with pytest.raises(ValueError, match="both directions"):
        EdgeWeights(arcs)
    with pytest.raises(ValueError, match="made for"):
        EdgeWeights(catalogue.ring(5))(GRAPH, zeros())
    with pytest.raises(ValueError, match="not symmetric"):
        BestResponse().bind(arcs, torch.zeros(3, 1)).lyapunov(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="bind"):
        BestResponse().amplification()
    with pytest.raises(TypeError, match="one tensor"):
        BestResponse().bind(GRAPH, (zeros(), zeros()))
    with pytest.raises(ValueError, match="2 values of beta for 1 graphs"):
        BestResponse(beta=torch.tensor([0.1, 0.2])).bind(GRAPH, zeros())
