from random import Random

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dense, edge_lists, graphs, quietly
from torch import Tensor

from neuralpde.graph import Graph

quick = settings(deadline=None, max_examples=40)
PAIR = torch.tensor([[0, 1], [1, 0]])


def summed(nodes: int, edge_index: Tensor, weight: Tensor) -> np.ndarray:
    matrix = np.zeros((nodes, nodes))
    np.add.at(matrix, (edge_index[1].numpy(), edge_index[0].numpy()), weight.numpy())
    return matrix


@quick
@given(edge_lists())
def test_duplicates_are_summed_and_zero_weights_dropped(case: tuple[int, Tensor, Tensor]) -> None:
    graph = quietly(case[1], case[0], case[2])
    matrix = summed(*case)
    np.testing.assert_array_equal(dense(graph), matrix)
    assert graph.edge_index.shape[1] == np.count_nonzero(matrix)
    assert graph.num_self_loops == np.count_nonzero(np.diag(matrix))
    assert graph.directed == bool((matrix != matrix.T).any())
    np.testing.assert_array_equal(graph.pattern.csr(graph.weight).to_dense(), matrix)
    off = matrix - np.diag(np.diag(matrix))
    np.testing.assert_array_equal(graph.degree, off.sum(1))
    np.testing.assert_array_equal(graph.isolated, (off + off.T).sum(1) == 0)
    pairs = np.count_nonzero(off) if graph.directed else np.count_nonzero(np.triu(off))
    assert graph.num_edges == pairs


@quick
@given(edge_lists(), st.randoms(use_true_random=False))
def test_order_of_the_edges_does_not_matter(
    case: tuple[int, Tensor, Tensor], random: Random
) -> None:
    order = list(range(case[1].shape[1]))
    random.shuffle(order)
    first = quietly(case[1], case[0], case[2])
    second = quietly(case[1][:, order], case[0], case[2][order])
    assert torch.equal(first.edge_index, second.edge_index)
    assert torch.equal(first.edge_weight, second.edge_weight)


@quick
@given(graphs(directed=True))
def test_components_are_those_of_networkx(graph: Graph) -> None:
    labels, count = graph.components
    reference = list(
        nx.weakly_connected_components(
            nx.from_numpy_array(dense(graph).numpy(), create_using=nx.DiGraph)
        )
    )
    assert count == len(reference)
    assert {frozenset(c) for c in reference} == {
        frozenset((labels == label).nonzero().flatten().tolist()) for label in range(count)
    }


@quick
@given(graphs(directed=True))
def test_undirected_reductions_are_those_of_matrices(graph: Graph) -> None:
    matrix = dense(graph).numpy()
    loops = np.diag(np.diag(matrix))
    expected = {
        "max": np.maximum(matrix, matrix.T),
        "mean": (matrix + matrix.T) / 2,
        "sum": matrix + matrix.T - loops,
    }
    for reduce, reference in expected.items():
        mended = graph.undirected(reduce)
        np.testing.assert_array_equal(dense(mended), reference)
        assert not mended.directed


def test_edges_listed_one_way_warn() -> None:
    one_way = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 2]])
    with pytest.warns(UserWarning, match=r'none of the 3 edges.*undirected\(reduce="max"\)'):
        assert Graph(one_way).directed
    Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    Graph(torch.tensor([[0, 1], [0, 1]]))


def test_weights_that_differ_by_rounding_are_undirected_to_the_bit() -> None:
    weight = torch.tensor([0.1, 0.1 + 1e-8], dtype=torch.float32)
    assert not Graph(PAIR, edge_weight=weight).directed
    noisy = torch.tensor([0.1, 0.1 * (1 + 4e-16)], dtype=torch.float64)
    graph = Graph(PAIR, edge_weight=noisy)
    assert noisy[0] != noisy[1]
    assert not graph.directed
    assert graph.edge_weight[0] == graph.edge_weight[1]
    assert Graph(PAIR, edge_weight=torch.tensor([0.1, 0.1 + 1e-8], dtype=torch.float64)).directed
