"""Resistances against closed forms, networkx, heat kernels and Foster's theorem."""

import math
from math import comb

import networkx as nx
import pytest
import torch
from hypothesis import given, settings

from analysis import Resistances, commute_time, effective_resistance, kirchhoff_index
from neuralpde import Graph, catalogue, data
from tests.strategies import graphs

METHODS = ["dense", "systems", "projection"]


def between(graph: Graph, i: int, j: int) -> float:
    return effective_resistance(graph, torch.tensor([[i], [j]])).value.item()


KNOWN = {
    "path": (catalogue.path(7), (1, 5), 4),
    "ring": (catalogue.ring(9), (0, 4), 4 * 5 / 9),
    "complete": (catalogue.complete(8), (2, 5), 2 / 8),
    "star, hub": (catalogue.star(6), (0, 3), 1),
    "star, leaves": (catalogue.star(6), (2, 3), 2),
    "bipartite, edge": (catalogue.bipartite(3, 4), (0, 5), 6 / 12),
    "bipartite, one side": (catalogue.bipartite(3, 4), (0, 1), 2 / 4),
    "cube, edge": (catalogue.hypercube(4), (0, 1), 15 / (4 * 8)),
    "cube, across": (
        catalogue.hypercube(3),
        (0, 7),
        sum(1 / ((3 - k) * comb(3, k)) for k in range(3)),
    ),
    "barbell": (catalogue.barbell(4, 2), (0, 9), 2 / 4 + 3 + 2 / 4),
}


@pytest.mark.parametrize("name", KNOWN)
def test_resistances_known_in_closed_form(name: str) -> None:
    graph, (i, j), expected = KNOWN[name]
    assert between(graph, i, j) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (catalogue.path(6), (6**3 - 6) / 6),
        (catalogue.ring(7), (7**3 - 7) / 12),
        (catalogue.complete(6), 5),
        (catalogue.star(6), 25),
        (catalogue.hypercube(3), 8 * sum(comb(3, k) / (2 * k) for k in range(1, 4))),
        (catalogue.bipartite(3, 3), 9),
    ],
)
def test_kirchhoff_indices_known_in_closed_form(graph: Graph, expected: float) -> None:
    assert kirchhoff_index(graph) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25)
@given(graphs(min_nodes=2, max_nodes=9, connected=True, loops=False))
def test_weights_are_conductances_as_networkx_inverts_them(graph: Graph) -> None:
    club = nx.Graph()
    club.add_nodes_from(range(graph.num_nodes))
    for (i, j), w in zip(graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True):
        club.add_edge(i, j, weight=w)
    every = torch.combinations(torch.arange(graph.num_nodes)).T
    found = effective_resistance(graph, every).value
    theirs = nx.resistance_distance(club, weight="weight", invert_weight=False)
    for (i, j), value in zip(every.T.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(theirs[i][j], rel=1e-7, abs=1e-12)


@settings(max_examples=25)
@given(graphs(min_nodes=1, max_nodes=9))
def test_fosters_theorem(graph: Graph) -> None:
    i, j = graph.edge_index
    value = effective_resistance(graph).value
    total = float((graph.edge_weight * value)[i < j].sum())
    assert total == pytest.approx(graph.num_nodes - graph.components[1], abs=1e-9)


def test_resistance_is_the_integral_of_heat_that_has_not_arrived() -> None:
    graph, (i, j) = catalogue.grid(3, 3), (0, 5)
    L = graph.laplacian(dtype=torch.float64).to_dense()
    t = torch.linspace(0, 40, 4001, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(L)
    apart = (vectors[i] - vectors[j]).square()
    kernel = (torch.exp(-t[:, None] * values) * apart).sum(1)
    assert float(torch.trapezoid(kernel, t)) == pytest.approx(between(graph, i, j), rel=1e-3)


def test_every_method_gives_the_same() -> None:
    graph = data.karate()
    exact = effective_resistance(graph, method="dense")
    systems = effective_resistance(graph, method="systems")
    torch.testing.assert_close(systems.value, exact.value, rtol=1e-8, atol=0)
    assert (exact.error, systems.error) == (0.0, 0.0)


@pytest.mark.parametrize("error", [0.3, 0.1])
def test_projections_keep_their_error(error: float) -> None:
    graph = catalogue.grid(12, 12)
    exact = effective_resistance(graph).value
    found = effective_resistance(
        graph, method="projection", error=error, generator=torch.Generator().manual_seed(0)
    )
    off = float((found.value / exact - 1).square().mean().sqrt())
    assert found.error <= error
    assert 0.5 * error < off < 1.5 * error


def test_large_graphs_are_projected_and_few_pairs_solved() -> None:
    graph = catalogue.grid(60, 60)
    pairs = torch.tensor([[0, 0], [1, 3599]])
    few = effective_resistance(graph, pairs)
    assert few.method.startswith("systems")
    many = effective_resistance(graph, error=0.5, generator=torch.Generator().manual_seed(1))
    assert str(many).endswith("(projection on 8 directions)")
    i, j = graph.edge_index
    # Foster's sum has a relative error of about sqrt(2 / (8 edges)).
    assert float(many.value[i < j].sum()) == pytest.approx(3599, rel=0.02)


def test_components_are_infinitely_far_apart() -> None:
    two = Graph(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), 5)
    pairs = torch.tensor([[0, 0, 4, 4], [1, 2, 4, 0]])
    for method in METHODS:
        found = effective_resistance(
            two, pairs, method=method, generator=torch.Generator().manual_seed(0)
        )
        assert found.value.isinf().tolist() == [False, True, False, True]
        assert found.value[2] == 0
    assert math.isinf(kirchhoff_index(two))


def test_commute_times_are_those_of_the_walk() -> None:
    assert commute_time(catalogue.barbell(4, 2), torch.tensor([[0], [9]])).item() == pytest.approx(
        120.0
    )
    # Hitting times by the fundamental matrix.
    graph = data.karate()
    A = torch.zeros(34, 34, dtype=torch.float64)
    A[graph.edge_index[1], graph.edge_index[0]] = graph.edge_weight
    P = A / A.sum(1, keepdim=True)
    keep = torch.arange(34) != 33
    steps = torch.linalg.solve(torch.eye(33).double() - P[keep][:, keep], torch.ones(33).double())
    there = float(steps[0])
    keep = torch.arange(34) != 0
    steps = torch.linalg.solve(torch.eye(33).double() - P[keep][:, keep], torch.ones(33).double())
    back = float(steps[-1])
    assert commute_time(graph, torch.tensor([[0], [33]])).item() == pytest.approx(
        there + back, rel=1e-9
    )


def test_what_is_not_defined_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"error is 0"):
        effective_resistance(catalogue.ring(4), error=0.0)
    with pytest.raises(ValueError, match="dense"):
        effective_resistance(catalogue.ring(4), method="dens")
    with pytest.raises(ValueError, match="more than 3000"):
        kirchhoff_index(catalogue.grid(60, 60))
    assert "exact" in str(Resistances(torch.ones(1), 0.0, "dense"))
