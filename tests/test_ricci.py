"""Ollivier's curvature against closed forms, a full linear program, and bounds that must hold."""

from concurrent.futures import ThreadPoolExecutor

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from analysis import balanced_forman, lin_lu_yau, ollivier
from neuralpde import Graph, catalogue
from tests.strategies import graphs


def petersen() -> Graph:
    edges = torch.tensor(list(nx.petersen_graph().edges)).T
    return Graph(torch.cat([edges, edges.flip(0)], 1))


def at(values: Tensor, graph: Graph, i: int, j: int) -> float:
    return float(values[(graph.edge_index == torch.tensor([[i], [j]])).all(0)])


# graph, an edge of it, the curvature of Lin, Lu and Yau, Ollivier's with idleness 0.
KNOWN = {
    "path, inner": (catalogue.path(6), (2, 3), 0, 0),
    "path, end": (catalogue.path(6), (0, 1), 1, 0),
    "one edge": (catalogue.path(2), (0, 1), 2, 0),
    "triangle": (catalogue.ring(3), (0, 1), 3 / 2, 1 / 2),
    "square": (catalogue.ring(4), (0, 1), 1, 0),
    "pentagon": (catalogue.ring(5), (0, 1), 1 / 2, 0),
    "hexagon": (catalogue.ring(6), (0, 1), 0, 0),
    "complete": (catalogue.complete(6), (1, 4), 6 / 5, 4 / 5),
    "star": (catalogue.star(7), (0, 3), 2 / 6, 0),
    "bipartite 4, 4": (catalogue.bipartite(4, 4), (0, 5), 2 / 4, 0),
    "bipartite 2, 3": (catalogue.bipartite(2, 3), (0, 2), 2 / 3, 0),
    "cube": (catalogue.hypercube(4), (0, 1), 2 / 4, 0),
    "torus": (catalogue.torus(6, 7), (0, 1), 0, 0),
    "grid, corner": (catalogue.grid(6, 6), (0, 1), 1 / 3, 0),
    "barbell, bridge": (catalogue.barbell(5), (4, 5), 4 / 5 - 2, 4 / 5 - 2),
    "barbell, beside the bridge": (catalogue.barbell(5), (3, 4), 0.85, 0.6),
    "Petersen": (petersen(), (0, 1), 0, -1 / 3),
}


@pytest.mark.parametrize("name", KNOWN)
def test_curvatures_known_in_closed_form(name: str) -> None:
    graph, (i, j), limit, lazy = KNOWN[name]
    pair = torch.tensor([[i], [j]])
    assert lin_lu_yau(graph, pair).item() == pytest.approx(limit, abs=1e-9)
    assert ollivier(graph, pair, idleness=0.0).item() == pytest.approx(lazy, abs=1e-9)


def test_karate_as_published() -> None:
    # The value that the tests of GraphRicciCurvature hold for idleness 0.5.
    edges = torch.tensor(list(nx.karate_club_graph().edges)).T
    graph = Graph(torch.cat([edges, edges.flip(0)], 1))
    assert ollivier(graph, torch.tensor([[0], [1]])).item() == pytest.approx(0.111111, abs=1e-6)


def by_linear_program(graph: Graph, i: int, j: int, idleness: float) -> float:
    club = nx.Graph([pair for pair in graph.edge_index.T.tolist() if pair[0] != pair[1]])
    nodes = sorted(club)
    length = dict(nx.all_pairs_shortest_path_length(club))
    masses = []
    for one in (i, j):
        near = list(club[one])
        mass = {k: (1 - idleness) / len(near) for k in near}
        mass[one] = mass.get(one, 0.0) + idleness
        masses.append(np.array([mass.get(k, 0.0) for k in nodes]))
    count = len(nodes)
    cost = np.array([[length[a][b] for b in nodes] for a in nodes], dtype=float)
    equations = np.concatenate(
        [np.kron(np.eye(count), np.ones(count)), np.kron(np.ones(count), np.eye(count))]
    )
    found = linprog(cost.ravel(), A_eq=equations, b_eq=np.concatenate(masses), method="highs")
    return 1 - found.fun


@settings(max_examples=25)
@given(
    graphs(min_nodes=2, max_nodes=8, connected=True),
    st.sampled_from([0.0, 0.123, 1 / 3, 0.5, 0.9]),
)
def test_transport_is_optimal_over_the_whole_graph(graph: Graph, idleness: float) -> None:
    values = ollivier(graph, idleness=idleness)
    for (i, j), value in zip(graph.edge_index.T.tolist(), values.tolist(), strict=True):
        if i == j:
            assert np.isnan(value)
        elif i < j:
            assert value == pytest.approx(by_linear_program(graph, i, j, idleness), abs=1e-7)


@settings(max_examples=25)
@given(graphs(min_nodes=3, max_nodes=9, connected=True, loops=False))
def test_curvatures_keep_their_order(graph: Graph) -> None:
    limit, balanced = lin_lu_yau(graph), balanced_forman(graph)
    assert bool((balanced <= limit + 1e-9).all())
    # Jost and Liu's bounds for idleness 0.
    lazy = ollivier(graph, idleness=0.0)
    i, j = graph.edge_index
    A = torch.zeros(graph.num_nodes, graph.num_nodes).double()
    A[i, j] = 1.0
    d = A.sum(1)
    triangles, most, least = (A @ A)[i, j], torch.maximum(d[i], d[j]), torch.minimum(d[i], d[j])
    short = 1 - 1 / d[i] - 1 / d[j]
    low = -(short - triangles / least).clamp(min=0) - (short - triangles / most).clamp(min=0)
    assert bool((lazy >= low + triangles / most - 1e-9).all())
    assert bool((lazy <= triangles / most + 1e-9).all())


def test_curvature_is_linear_from_the_last_kink_on() -> None:
    graph = catalogue.lollipop(5, 3)
    limit = lin_lu_yau(graph)
    for idleness in (0.5, 0.8, 0.99):
        torch.testing.assert_close(ollivier(graph, idleness=idleness) / (1 - idleness), limit)


def test_an_executor_changes_nothing() -> None:
    graph = catalogue.sbm(
        [20, 20], [[0.4, 0.1], [0.1, 0.4]], generator=torch.Generator().manual_seed(1)
    )
    with ThreadPoolExecutor(2) as executor:
        assert torch.equal(ollivier(graph, executor=executor), ollivier(graph))


def test_an_idleness_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="idleness is 1"):
        ollivier(catalogue.ring(4), idleness=1.0)
