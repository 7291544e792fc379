"""Curvature against closed forms worked out by hand, and against the definition in words."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from analysis import balanced_forman, forman
from neuralpde import Graph, catalogue
from tests.strategies import graphs


def petersen() -> Graph:
    edges = torch.tensor(list(nx.petersen_graph().edges)).T
    return Graph(torch.cat([edges, edges.flip(0)], 1))


def at(values: Tensor, graph: Graph, i: int, j: int) -> float:
    hit = (graph.edge_index == torch.tensor([[i], [j]])).all(0)
    return float(values[hit])


# graph, an edge of it, balanced Forman, Forman, Forman with triangles; worked out by hand.
KNOWN = {
    "path, inner": (catalogue.path(6), (2, 3), 0, 0, 0),
    "path, end": (catalogue.path(6), (0, 1), 0, 1, 1),
    "one edge": (catalogue.path(2), (0, 1), 0, 2, 2),
    "triangle": (catalogue.ring(3), (0, 1), 3 / 2, 0, 3),
    "square": (catalogue.ring(4), (0, 1), 1, 0, 0),
    "pentagon": (catalogue.ring(5), (0, 1), 0, 0, 0),
    "hexagon": (catalogue.ring(6), (0, 1), 0, 0, 0),
    "complete": (catalogue.complete(6), (1, 4), 6 / 5, -6, 6),
    "star": (catalogue.star(7), (0, 3), 0, -3, -3),
    "bipartite 4, 4": (catalogue.bipartite(4, 4), (0, 5), 6 / 4 - 2, -4, -4),
    "bipartite 2, 3": (catalogue.bipartite(2, 3), (0, 2), 1 / 6, -1, -1),
    "cube": (catalogue.hypercube(4), (0, 1), 2 / 4, -4, -4),
    "torus": (catalogue.torus(6, 7), (0, 1), 0, -4, -4),
    "grid, inner": (catalogue.grid(6, 6), (14, 15), 0, -4, -4),
    "grid, corner": (catalogue.grid(6, 6), (0, 1), 1 / 3, -1, -1),
    "barbell, bridge": (catalogue.barbell(5), (4, 5), 4 / 5 - 2, -6, -6),
    "barbell, beside the bridge": (catalogue.barbell(5), (3, 4), 0.85, -5, 4),
    "Petersen": (petersen(), (0, 1), -2 / 3, -2, -2),
}


@pytest.mark.parametrize("name", KNOWN)
def test_curvatures_known_in_closed_form(name: str) -> None:
    graph, (i, j), balanced, plain, filled = KNOWN[name]
    found = balanced_forman(graph), forman(graph), forman(graph, triangles=True)
    for values, expected in zip(found, (balanced, plain, filled), strict=True):
        assert at(values, graph, i, j) == pytest.approx(expected, abs=1e-12)


def by_the_definition(graph: Graph, i: int, j: int) -> float:
    near = {k: set() for k in range(graph.num_nodes)}
    for a, b in graph.edge_index.T.tolist():
        if a != b:
            near[a].add(b)
    small, large = sorted((len(near[i]), len(near[j])))
    if small == 1:
        return 0.0

    def squares(a: int, b: int) -> list[int]:
        ways = [len((near[k] & near[b]) - near[a] - {a}) for k in near[a] - near[b] - {b}]
        return [count for count in ways if count]

    found = squares(i, j) + squares(j, i)
    triangles = len(near[i] & near[j])
    value = 2 / len(near[i]) + 2 / len(near[j]) - 2 + 2 * triangles / large + triangles / small
    return value + (len(found) / (max(found) * large) if found else 0.0)


@settings(max_examples=40)
@given(graphs(min_nodes=2, max_nodes=9, connected=True))
def test_it_is_the_definition_on_random_graphs(graph: Graph) -> None:
    values = balanced_forman(graph)
    for (i, j), value in zip(graph.edge_index.T.tolist(), values.tolist(), strict=True):
        if i == j:
            assert value != value
        else:
            assert value == pytest.approx(by_the_definition(graph, i, j), abs=1e-12)
            assert value > -2


def test_chunks_and_samples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = catalogue.sbm(
        [30, 30], [[0.3, 0.05], [0.05, 0.3]], generator=torch.Generator().manual_seed(0)
    )
    whole = balanced_forman(graph)
    filled = forman(graph, triangles=True)
    monkeypatch.setattr("analysis.curvature.CHUNK", 500)
    assert torch.equal(balanced_forman(graph), whole)
    assert torch.equal(forman(graph, triangles=True), filled)
    some = torch.arange(0, graph.edge_index.shape[1], 7)
    assert torch.equal(balanced_forman(graph, graph.edge_index[:, some]), whole[some])


def test_relabelled_nodes_have_the_same_curvature() -> None:
    graph = catalogue.barbell(4, 2)
    order = torch.randperm(graph.num_nodes)
    other = Graph(order[graph.edge_index])
    moved = balanced_forman(other, order[graph.edge_index])
    assert torch.equal(moved, balanced_forman(graph))


def test_directed_graphs_and_strangers_are_refused_in_words() -> None:
    with pytest.warns(UserWarning, match="one way|reciprocal|undirected"):
        arrow = Graph(torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match=r"undirected\("):
        balanced_forman(arrow)
    with pytest.raises(ValueError, match="nodes 0 and 2"):
        forman(catalogue.path(3), torch.tensor([[0, 0], [1, 2]]))
