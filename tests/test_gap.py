"""Spectral gaps and cuts against closed forms and complete searches."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings

from analysis import cheeger_sweep, fiedler_vector, spectral_gap
from neuralpde import Graph, catalogue, data
from tests.strategies import graphs


@pytest.mark.parametrize(
    ("graph", "comb", "sym"),
    [
        (catalogue.path(6), 2 - 2 * math.cos(math.pi / 6), 1 - math.cos(math.pi / 5)),
        (catalogue.ring(7), 2 - 2 * math.cos(2 * math.pi / 7), 1 - math.cos(2 * math.pi / 7)),
        (catalogue.complete(5), 5, 5 / 4),
        (catalogue.star(6), 1, 1),
        (catalogue.bipartite(2, 5), 2, 1),
        (catalogue.hypercube(4), 2, 2 / 4),
    ],
)
def test_gaps_known_in_closed_form(graph: Graph, comb: float, sym: float) -> None:
    assert spectral_gap(graph, "comb") == pytest.approx(comb, abs=1e-9)
    assert spectral_gap(graph) == pytest.approx(sym, abs=1e-9)
    assert spectral_gap(graph, "rw") == pytest.approx(sym, abs=1e-9)


@pytest.mark.parametrize("cliques", [4, 5, 6])
def test_the_gap_of_a_barbell(cliques: int) -> None:
    expected = ((cliques + 2) - math.sqrt((cliques + 2) ** 2 - 8)) / 2
    assert spectral_gap(catalogue.barbell(cliques), "comb") == pytest.approx(expected, abs=1e-9)


def test_large_graphs_have_the_gap_that_is_known() -> None:
    graph = catalogue.grid(30, 40)
    assert spectral_gap(graph, "comb") == pytest.approx(2 - 2 * math.cos(math.pi / 40), rel=1e-7)
    vector = fiedler_vector(graph, "comb").view(30, 40)
    across = torch.cos(math.pi * (torch.arange(40) + 0.5) / 40).double()
    expected = across / (math.sqrt(30) * across.norm())
    torch.testing.assert_close(vector.abs(), expected.abs().expand(30, 40), rtol=1e-5, atol=1e-8)


def test_minnesota_has_the_gap_that_is_published() -> None:
    # PyGSP's connected version of the network.
    assert spectral_gap(data.minnesota(), "comb") == pytest.approx(8.43734e-4, rel=1e-5)


def test_a_disconnected_graph_has_no_gap() -> None:
    two = Graph(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), 4)
    assert spectral_gap(two) == pytest.approx(0.0, abs=1e-12)
    assert cheeger_sweep(two).conductance == 0.0


def conductance(graph: Graph, inside: torch.Tensor) -> float:
    source, target = graph.edge_index
    cut = float(graph.edge_weight[inside[source] & ~inside[target]].sum())
    volume = float(graph.degree[inside].sum()), float(graph.degree[~inside].sum())
    return cut / min(volume) if min(volume) > 0 else math.inf


@settings(max_examples=25)
@given(graphs(min_nodes=2, max_nodes=8, connected=True, loops=False))
def test_the_sweep_lies_between_the_best_cut_and_cheegers_bound(graph: Graph) -> None:
    gap, found = spectral_gap(graph), cheeger_sweep(graph)
    every = itertools.product([False, True], repeat=graph.num_nodes)
    best = min(conductance(graph, torch.tensor(inside)) for inside in every)
    assert found.conductance == pytest.approx(conductance(graph, found.inside), rel=1e-9)
    assert gap / 2 <= best + 1e-9
    assert best <= found.conductance + 1e-9
    assert found.conductance <= math.sqrt(2 * gap) + 1e-9


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (catalogue.path(8), 1 / 7),
        (catalogue.ring(10), 2 / 10),
        (catalogue.barbell(5), 1 / (5 * 4 + 1)),
        (catalogue.grid(3, 4), 3 / 17),
    ],
)
def test_conductances_known_in_closed_form(graph: Graph, expected: float) -> None:
    assert cheeger_sweep(graph).conductance == pytest.approx(expected, rel=1e-9)


def test_what_has_no_gap_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="second eigenvalue"):
        spectral_gap(Graph(torch.zeros(2, 0).long(), 1))
    with pytest.raises(ValueError, match="without edges"):
        cheeger_sweep(Graph(torch.zeros(2, 0).long(), 3))
