"""Curvatures beside GraphRicciCurvature's, and what public code of balanced Forman computes.

The values of references/graph_ricci_curvature.json come from the script beside it.
"""

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from analysis import balanced_forman, forman, ollivier, propagation_curvature
from neuralpde import Graph

REFERENCE = json.loads(
    (Path(__file__).parent / "references" / "graph_ricci_curvature.json").read_text()
)


def graph_of(edges: torch.Tensor) -> Graph:
    return Graph(torch.cat([edges, edges.flip(0)], 1))


@pytest.mark.parametrize("name", REFERENCE["graphs"])
def test_curvatures_are_those_of_graph_ricci_curvature(name: str) -> None:
    known = REFERENCE["graphs"][name]
    edges = torch.tensor(known["edges"]).T
    graph = graph_of(edges)
    found = {
        "ollivier 0": ollivier(graph, edges, idleness=0.0),
        "ollivier 0.5": ollivier(graph, edges),
        "forman": forman(graph, edges),
        "augmented": forman(graph, edges, triangles=True),
    }
    for kind, values in found.items():
        torch.testing.assert_close(values, torch.tensor(known[kind]).to(values), rtol=0, atol=1e-6)


def test_their_older_releases_divide_by_the_length_of_the_edge() -> None:
    # Lengths 10, 1, 1: the ends of the long edge are 2 apart. Half of the mass stays, the other
    # half is at the third node for both: W_1 = 1, and 1 - W_1 / d = 1 / 2, not 1 - 1 / 10.
    assert REFERENCE["weighted triangle"]["(0, 1)"] == pytest.approx(0.5)
    assert REFERENCE["weighted triangle, 0.5.3.2"]["(0, 1)"] == pytest.approx(0.9)
    # Ours divides by the distance as well: a weak edge beside a detour of two strong ones.
    W = np.array([[0.0, 0.1, 1.0], [0.1, 0.0, 1.0], [1.0, 1.0, 0.0]])
    graph = Graph.of(torch.tensor(np.argwhere(W)).T)
    weighted = Graph(graph.edge_index, 3, torch.from_numpy(W[tuple(graph.edge_index)]))
    pair = torch.tensor([[0], [1]])
    # 1/11 of the mass is exchanged over the distance 2; nothing else moves.
    assert propagation_curvature(weighted, pair).item() == pytest.approx(1 - 1 / 11)


def rows_until_the_first_stranger(A: np.ndarray) -> int:
    """Entries that are reached by a double loop which breaks where it ought to continue."""
    reached = 0
    for i in range(len(A)):
        for j in range(len(A)):
            if A[i, j] == 0:
                break
            reached += 1
    return reached


@pytest.mark.parametrize(
    ("club", "reached", "entries"),
    [
        (nx.karate_club_graph(), 28, 156),
        (nx.gnp_random_graph(200, 0.05, seed=0), 12, 2136),
    ],
    ids=["karate", "G(200, 0.05)"],
)
def test_the_public_loop_leaves_nearly_all_entries_at_zero(
    club: nx.Graph, reached: int, entries: int
) -> None:
    A = nx.to_numpy_array(club, weight=None)
    assert rows_until_the_first_stranger(A) == reached
    assert int(A.sum()) == entries
    # Row 0 starts with itself, no neighbour: nothing of it is ever computed.
    assert rows_until_the_first_stranger(A[:1]) == 0
    ours = balanced_forman(graph_of(torch.tensor(list(club.edges)).T))
    assert len(ours) == entries
    assert int((ours != 0).sum()) > 0.8 * entries
