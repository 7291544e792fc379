import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.csgraph
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches, dense, graphs, quietly, states
from torch_geometric.data import Batch, Data

from neuralpde import catalogue
from neuralpde.graph import Graph

quick = settings(deadline=None, max_examples=40)
PAIR = torch.tensor([[0, 1], [1, 0]])


def test_row_zero_sends_and_row_one_receives() -> None:
    graph = quietly(torch.tensor([[0], [1]]), 2)
    x = torch.tensor([[3.0], [5.0]])
    assert (graph.adjacency() @ x).tolist() == [[0.0], [3.0]]
    assert (graph.laplacian() @ x).tolist() == [[0.0], [2.0]]
    assert graph.degree.tolist() == [0.0, 1.0]


@quick
@given(graphs())
def test_laplacians_are_those_of_scipy(graph: Graph) -> None:
    matrix = dense(graph).numpy()
    np.fill_diagonal(matrix, 0)
    graph = graph.to(dtype=torch.float64)
    for norm, normed in (("comb", False), ("sym", True)):
        expected = scipy.sparse.csgraph.laplacian(matrix, normed=normed)
        np.testing.assert_allclose(graph.laplacian(norm).to_dense(), expected, atol=1e-14)


def test_loops_tell_walks_from_laplacians() -> None:
    graph = Graph(torch.tensor([[0, 1, 0], [1, 0, 0]])).to(dtype=torch.float64)
    walk = graph.adjacency("row").to_dense()
    assert walk.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert graph.laplacian("rw").to_dense().tolist() == [[1.0, -1.0], [-1.0, 1.0]]


@quick
@given(graphs(min_nodes=2), st.data())
def test_renumbered_nodes_give_renumbered_laplacians(graph: Graph, data: st.DataObject) -> None:
    order = torch.tensor(data.draw(st.permutations(range(graph.num_nodes))))
    other = Graph(order[graph.edge_index], graph.num_nodes, graph.edge_weight)
    for norm in ("comb", "sym", "rw", "augmented"):
        first, second = (g.laplacian(norm, dtype=torch.float64).to_dense() for g in (graph, other))
        torch.testing.assert_close(second[order][:, order], first, rtol=1e-14, atol=1e-14)


def test_undirected_keeps_what_belongs_to_the_nodes() -> None:
    graph = quietly(
        torch.tensor([[0, 2], [1, 3]]),
        batch=torch.tensor([0, 0, 1, 1]),
        node_weight=torch.tensor([1.0, 2.0, 3.0, 4.0]),
        pos=torch.rand(4, 2),
    ).to(dtype=torch.float16)
    mended = graph.undirected()
    assert (mended.num_graphs, mended.dtype) == (2, torch.float16)
    assert torch.equal(mended.node_weight, graph.node_weight)
    assert torch.equal(mended.pos, graph.pos)
    with pytest.raises(ValueError, match=r"unknown reduction 'min'.*Known: max, mean, sum"):
        graph.undirected("min")


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_indices_are_taken(kind: torch.dtype) -> None:
    graph = Graph(PAIR.to(kind), edge_weight=torch.tensor([2, 2]))
    assert graph.edge_index.dtype == torch.int64
    assert graph.edge_weight.dtype == torch.float64


def test_graphs_without_edges_are_graphs() -> None:
    graph = Graph(torch.empty(2, 0), num_nodes=3)
    assert repr(graph) == "Graph(3 nodes, 0 undirected edges, 3 components)"
    assert graph.isolated.all()
    for norm in ("comb", "sym", "rw", "augmented"):
        assert not graph.laplacian(norm).to_dense().any()


def test_nodes_are_counted_by_whatever_shows_them() -> None:
    assert Graph(PAIR).num_nodes == 2
    assert Graph(PAIR, batch=torch.tensor([0, 0, 1])).num_nodes == 3
    assert Graph(PAIR, node_weight=torch.ones(4)).num_nodes == 4
    assert Graph(PAIR, pos=torch.zeros(5, 2)).num_nodes == 5


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (Graph(PAIR), "Graph(2 nodes, 1 undirected edge, 1 component)"),
        (
            Graph(torch.tensor([[0, 1, 1, 3], [1, 0, 2, 3]]), 5),
            "Graph(5 nodes, 3 directed edges, 1 self-loop, 3 components)",
        ),
        (
            Graph.union([Graph(PAIR), Graph(PAIR)]),
            "Graph(2 graphs, 4 nodes, 2 undirected edges, 2 components)",
        ),
    ],
)
def test_graphs_say_what_they_are_in_one_line(graph: Graph, text: str) -> None:
    assert repr(graph) == text


def same(first: Graph, second: Graph) -> None:
    assert first.num_nodes == second.num_nodes
    assert first.num_graphs == second.num_graphs
    for name in ("edge_index", "edge_weight", "batch", "node_weight", "pos"):
        mine, theirs = getattr(first, name), getattr(second, name)
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)


@quick
@given(graphs(), st.booleans())
def test_torch_geometric_and_back_is_the_same_graph(graph: Graph, placed: bool) -> None:
    if placed:
        pos = torch.arange(2.0 * graph.num_nodes).view(-1, 2)
        measure = torch.arange(graph.num_nodes) + 1.0
        graph = Graph(
            graph.edge_index, graph.num_nodes, graph.edge_weight, node_weight=measure, pos=pos
        )
    data = graph.to_pyg()
    assert data.validate()
    same(Graph.of(data), graph)


def test_batches_of_torch_geometric_are_read() -> None:
    items = [Data(edge_index=PAIR, num_nodes=3), Data(edge_index=PAIR, num_nodes=2)]
    graph = Graph.of(Batch.from_data_list(items))
    same(graph, Graph.union([Graph.of(item) for item in items]))
    assert graph.batch is not None
    assert graph.batch.tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(Graph.of(graph.to_pyg()).batch, graph.batch)


def test_data_that_only_have_edges_are_read_without_warnings() -> None:
    assert Graph.of(Data(edge_index=PAIR)).num_nodes == 2
    assert Graph.of(Data(edge_index=PAIR, edge_weight=torch.tensor([3.0, 3.0]))).degree[0] == 3


def test_anything_that_stands_for_a_graph_becomes_one() -> None:
    graph = Graph(PAIR)
    assert Graph.of(graph) is graph
    assert Graph.of(PAIR, num_nodes=4).num_nodes == 4
    for stranger in (Data(), 3, None):
        with pytest.raises(
            TypeError, match=f"from {type(stranger).__name__}: it has no edge_index"
        ):
            Graph.of(stranger)


@quick
@given(st.lists(graphs(max_nodes=5, directed=True), min_size=1, max_size=4))
def test_union_is_block_diagonal(parts: list[Graph]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        union = Graph.union(parts)
    expected = scipy.linalg.block_diag(*[dense(part).numpy() for part in parts])
    np.testing.assert_array_equal(dense(union), expected)
    assert union.num_graphs == len(parts)
    sizes = torch.tensor([part.num_nodes for part in parts])
    expected_batch = torch.arange(len(parts)).repeat_interleave(sizes)
    assert (union.batch is None) == (len(parts) == 1)
    assert union.batch is None or torch.equal(union.batch, expected_batch)
    assert union.components[1] == sum(part.components[1] for part in parts)


@quick
@given(batches(), batches())
def test_union_of_batches_counts_their_graphs(first: Graph, second: Graph) -> None:
    union = Graph.union([first, second])
    assert union.num_graphs == first.num_graphs + second.num_graphs
    assert torch.equal(
        union.batch.bincount()[: first.num_graphs], first._graph_of_node().bincount()
    )


def test_union_keeps_measures_and_positions() -> None:
    plain, sphere = catalogue.path(3), catalogue.sphere(0)
    union = Graph.union([plain, sphere])
    assert union.pos is None
    torch.testing.assert_close(union.node_weight[:3], torch.ones(3, dtype=torch.float64))
    assert torch.equal(union.node_weight[3:], sphere.node_weight)
    assert torch.equal(Graph.union([plain, plain]).pos, torch.cat([plain.pos, plain.pos]))
    with pytest.raises(ValueError, match="union of no graphs"):
        Graph.union([])


@pytest.mark.parametrize(
    ("state", "operator"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.complex64, torch.float32),
        (torch.complex128, torch.float64),
    ],
)
def test_operators_come_in_the_dtype_of_the_state(
    state: torch.dtype, operator: torch.dtype
) -> None:
    graph = catalogue.star(4)
    bound = graph.like(torch.zeros(4, 1, dtype=state))
    exact = graph.laplacian("sym", dtype=torch.float64).to_dense()
    for found in (bound.laplacian("sym"), graph.laplacian("sym", dtype=state)):
        assert found.dtype == operator
        assert torch.equal(found.to_dense(), exact.to(operator))
    assert graph.dtype == torch.get_default_dtype()


def test_integer_states_are_refused() -> None:
    graph = Graph(PAIR)
    for call in (lambda: graph.like(PAIR), lambda: graph.laplacian(dtype=torch.int64)):
        with pytest.raises(TypeError, match=r"no form in torch\.int64.*x\.to\(torch\.float64\)"):
            call()


def test_operators_are_made_once_and_shared() -> None:
    graph = catalogue.ring(5)
    bound = graph.like(torch.zeros(5, dtype=torch.float64))
    assert graph.laplacian() is graph.laplacian("comb")
    assert bound.laplacian() is bound.laplacian()
    assert bound.laplacian() is graph.laplacian(dtype=torch.float64)
    assert bound.adjacency("sym", 1.0) is graph.adjacency("sym", 1, dtype=torch.float64)
    assert graph.adjacency("sym", 1.0) is not graph.adjacency("sym", 2.0)
    assert graph.to("cpu").laplacian() is graph.laplacian()


def test_graphs_move_between_devices_and_find_home() -> None:
    graph = Graph.union([catalogue.path(3), catalogue.path(2)])
    moved = graph.to("meta")
    assert {moved.edge_index.device.type, moved.batch.device.type, moved.pos.device.type} == {
        "meta"
    }
    assert moved.pattern.col.device.type == "meta"
    assert graph.to("meta").edge_index is moved.edge_index
    assert moved.to("cpu").laplacian() is graph.laplacian()
    assert graph.device.type == "cpu"


def test_unknown_norms_name_the_nearest() -> None:
    graph = Graph(PAIR)
    with pytest.raises(ValueError, match=r"'symm'.*did you mean 'sym'"):
        graph.laplacian("symm")
    with pytest.raises(ValueError, match=r"'roww'.*did you mean 'row'"):
        graph.adjacency("roww")


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))]
)
def test_copies_are_the_same_graph(clone: object) -> None:
    graph = catalogue.sphere(0).to(dtype=torch.float64)
    before = graph.laplacian().to_dense()
    other = clone(graph)
    same(other, graph)
    assert other.dtype == torch.float64
    assert torch.equal(other.laplacian().to_dense(), before)


@quick
@given(st.data(), graphs(weighted=True))
def test_the_quadratic_form_sums_squares_over_edges(data: st.DataObject, graph: Graph) -> None:
    x = data.draw(states(graph))
    source, target = graph.edge_index
    expected = 0.5 * (graph.edge_weight[:, None] * (x[source] - x[target]) ** 2).sum()
    found = (x * (graph.like(x).laplacian() @ x)).sum()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
