"""Adjacency matrices and Laplacians against networkx and dense algebra."""

from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.operators import Pattern, SparseOperator, adjacency, laplacian

F64 = torch.float64
NORMS = ["comb", "sym", "rw", "augmented"]


def graph_of(
    matrix: np.ndarray, sizes: list[int] | None = None, measure: np.ndarray | None = None
) -> SimpleNamespace:
    """What a Graph shows to operators, from a dense matrix of weights `[receiver, sender]`."""
    row, col = (torch.as_tensor(index) for index in matrix.nonzero())
    pattern, _ = Pattern.from_edges(row, col, len(matrix))
    counts = torch.tensor(sizes or [len(matrix)])
    return SimpleNamespace(
        num_nodes=len(matrix),
        num_graphs=len(counts),
        pattern=pattern,
        weight=torch.as_tensor(matrix[matrix.nonzero()]),
        directed=not np.array_equal(matrix, matrix.T),
        batch=torch.arange(len(counts)).repeat_interleave(counts) if sizes else None,
        node_weight=None if measure is None else torch.as_tensor(measure),
    )


@st.composite
def weighted(draw: st.DrawFn, directed: bool = False, loops: bool = True) -> np.ndarray:
    nodes = draw(st.integers(1, 8))
    seed, share = draw(st.integers(0, 10**6)), draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    spread = draw(st.sampled_from([0.0, 1.0, 6.0]))
    generator = np.random.default_rng(seed)
    matrix = 10 ** (spread * generator.uniform(-1, 1, (nodes, nodes)))
    matrix *= generator.uniform(size=(nodes, nodes)) < share
    if not directed:
        matrix = np.triu(matrix) + np.triu(matrix, 1).T
    if not loops:
        np.fill_diagonal(matrix, 0.0)
    return matrix


def dense_laplacian(matrix: np.ndarray, norm: str) -> np.ndarray:
    bare = matrix - np.diag(np.diag(matrix))
    degree = bare.sum(1)
    comb = np.diag(degree) - bare
    with np.errstate(divide="ignore"):
        inverse = np.where(degree > 0, 1 / degree, 0.0)
    if norm == "rw":
        return np.diag(inverse) @ comb
    if norm == "sym":
        return np.diag(inverse**0.5) @ comb @ np.diag(inverse**0.5)
    if norm == "augmented":
        root = np.diag((degree + 1) ** -0.5)
        return np.eye(len(bare)) - root @ (bare + np.eye(len(bare))) @ root
    return comb


def eigenvalues(A: SparseOperator) -> np.ndarray:
    matrix = A.to_dense().double().numpy()
    if A.metric is not None:
        root = A.metric.sqrt().numpy()
        matrix = root[:, None] * matrix / root
        matrix = (matrix + matrix.T) / 2
    return np.linalg.eigvalsh(matrix)


def self_adjoint_error(A: SparseOperator) -> float:
    matrix = A.to_dense().double().numpy()
    if A.metric is not None:
        matrix = A.metric.numpy()[:, None] * matrix
    return np.abs(matrix - matrix.T).max() / max(np.abs(matrix).max(), 1e-300)


@given(weighted())
@settings(max_examples=60)
def test_laplacians_are_the_dense_ones(matrix):
    for norm in NORMS:
        ours = laplacian(graph_of(matrix), norm).to_dense().numpy()
        expected = dense_laplacian(matrix, norm)
        assert np.allclose(ours, expected, rtol=1e-13, atol=1e-13 * np.abs(expected).max())


def test_laplacians_are_networkx_ones():
    karate = nx.karate_club_graph()
    karate.add_node(34)
    matrix = nx.to_numpy_array(karate)
    graph = graph_of(matrix)
    assert np.array_equal(laplacian(graph).to_dense(), nx.laplacian_matrix(karate).toarray())
    expected = nx.normalized_laplacian_matrix(karate).toarray()
    assert np.allclose(laplacian(graph, "sym").to_dense(), expected, rtol=0, atol=1e-15)
    assert np.all(laplacian(graph, "sym").diagonal().numpy() == np.r_[np.ones(34), 0.0])


@given(weighted())
@settings(max_examples=60)
def test_enclosures_hold_the_spectrum_in_every_precision(matrix):
    graph = graph_of(matrix)
    made = [laplacian(graph, norm) for norm in NORMS]
    made += [adjacency(graph, norm, 0.5) for norm in ("none", "row", "col", "sym")]
    made += [laplacian(graph_of(matrix, measure=np.linspace(0.1, 3, len(matrix))))]
    for A in made:
        for dtype in (F64, torch.float32, torch.bfloat16):
            B = A.to(dtype)
            (lo,), (hi,), values = *B.spectrum(), eigenvalues(B)
            assert lo <= values[0] + 1e-14 * abs(values).max()
            assert values[-1] <= hi + 1e-14 * abs(values).max()
            assert B.bound() >= abs(values).max() * (1 - 1e-14)


@given(weighted())
@settings(max_examples=60)
def test_tags_of_undirected_graphs_are_true(matrix):
    graph = graph_of(matrix)
    for norm in NORMS:
        L = laplacian(graph, norm)
        assert L.psd
        assert L.self_adjoint
        assert self_adjoint_error(L) < 1e-15
        assert eigenvalues(L)[0] >= -1e-13 * max(L.bound().item(), 1)
        assert (L.symmetric, L.metric is None) == (norm != "rw", norm != "rw")
        assert L.generator is None or not matrix.any()
        assert (-L).generator == ("row" if norm in ("comb", "rw") else None)
        assert not (-L).psd
        assert torch.equal((-L).rate, L.diagonal().max().reshape(1))
    for norm in ("none", "row", "col", "sym"):
        A = adjacency(graph, norm)
        assert self_adjoint_error(A) < 1e-15
        isolated = bool((matrix.sum(1) == 0).any())
        side = norm if norm in ("row", "col") and not isolated else None
        assert A.stochastic == side
        assert A.minus_identity().generator == side


def test_bounds_are_attained_where_they_can_be():
    for graph, top in [
        (nx.star_graph(6), 7.0),
        (nx.complete_graph(5), 5.0),
        (nx.path_graph(2), 2.0),
    ]:
        matrix = nx.to_numpy_array(graph)
        assert laplacian(graph_of(matrix)).spectrum()[1].item() == pytest.approx(top, rel=1e-12)
        assert eigenvalues(laplacian(graph_of(matrix)))[-1] == pytest.approx(top, rel=1e-12)
    ring = graph_of(nx.to_numpy_array(nx.cycle_graph(6)))
    for norm in ("sym", "rw"):
        assert laplacian(ring, norm).spectrum()[1].item() == pytest.approx(2.0, rel=1e-12)
        assert laplacian(ring, norm).spectrum()[0].item() == pytest.approx(0.0, abs=1e-14)
    assert adjacency(ring, "row").spectrum()[0].item() == pytest.approx(-1.0, rel=1e-12)
    assert adjacency(ring, "sym", 2.0).spectrum()[0].item() == pytest.approx(0.0, abs=1e-14)


def test_a_measure_divides_rows_and_is_the_metric():
    matrix, measure = nx.to_numpy_array(nx.star_graph(4)), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    L = laplacian(graph_of(matrix, measure=measure))
    assert np.allclose(L.to_dense(), dense_laplacian(matrix, "comb") / measure[:, None], atol=1e-15)
    assert np.array_equal(L.metric, measure)
    assert not L.symmetric
    assert (-L).generator == "row"
    assert L.spectrum()[1] >= eigenvalues(L)[-1]
    for norm in ("sym", "rw", "augmented"):
        with pytest.raises(ValueError, match=r"norm=.comb."):
            laplacian(graph_of(matrix, measure=measure), norm)


@given(weighted(directed=True))
@settings(max_examples=40)
def test_directed_laplacians_act_on_the_receiver_and_keep_constants(matrix):
    graph = graph_of(matrix)
    for norm in ("comb", "rw"):
        L = laplacian(graph, norm)
        expected = dense_laplacian(matrix, norm)
        assert np.allclose(L.to_dense(), expected, rtol=1e-13, atol=1e-13 * np.abs(expected).max())
        assert (-L).generator == "row"
        assert (-L).T.generator in ("row", "col")
        assert L.bound() >= np.abs(np.linalg.eigvals(L.to_dense().numpy())).max() * (1 - 1e-12)


def test_directed_graphs_have_no_symmetric_operators():
    arc = graph_of(np.array([[0.0, 1.0], [0.0, 0.0]]))
    for make in (lambda: laplacian(arc, "sym"), lambda: laplacian(arc, "augmented")):
        with pytest.raises(ValueError, match=r'graph.undirected\(reduce="max"\)'):
            make()
    with pytest.raises(ValueError, match=r'graph.undirected\(reduce="max"\)'):
        adjacency(arc, "sym")
    for A in (laplacian(arc), adjacency(arc, "row"), adjacency(arc)):
        with pytest.raises(ValueError, match=r"\.bound\(\)"):
            A.spectrum()


@given(weighted(), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40)
def test_adjacencies_are_the_dense_ones(matrix, loops):
    full = matrix + loops * np.eye(len(matrix))
    with np.errstate(divide="ignore"):
        inverse = np.where(full.sum(1) > 0, 1 / full.sum(1), 0.0)
    expected = {
        "none": full,
        "row": inverse[:, None] * full,
        "col": full * inverse,
        "sym": inverse[:, None] ** 0.5 * full * inverse**0.5,
    }
    for norm, dense in expected.items():
        ours = adjacency(graph_of(matrix), norm, loops).to_dense().numpy()
        assert np.allclose(ours, dense, rtol=1e-13, atol=1e-300)


def test_rows_are_receivers_and_columns_senders():
    arc = graph_of(np.array([[0.0, 3.0], [0.0, 0.0]]))
    assert (adjacency(arc) @ torch.tensor([5.0, 7.0], dtype=F64)).tolist() == [21.0, 0.0]
    assert adjacency(arc, "row").stochastic is None
    assert adjacency(arc, "row", 1.0).stochastic == "row"
    assert adjacency(arc, "col", 1.0).stochastic == "col"
    assert adjacency(arc, "row", 1.0).to_dense().tolist() == [[0.25, 0.75], [0.0, 1.0]]


def test_self_loops_matter_to_adjacencies_and_not_to_laplacians():
    bare = nx.to_numpy_array(nx.path_graph(3))
    looped = bare + np.diag([4.0, 0.0, 0.0])
    for norm in NORMS:
        dense = laplacian(graph_of(looped), norm).to_dense()
        assert torch.equal(dense, laplacian(graph_of(bare), norm).to_dense())
    assert adjacency(graph_of(looped), "row").to_dense()[0].tolist() == [0.8, 0.2, 0.0]


@pytest.mark.parametrize("norm", NORMS)
def test_each_graph_of_a_batch_has_its_own_bounds_and_a_lonely_node_none(norm):
    parts = [nx.star_graph(5), nx.empty_graph(1), nx.cycle_graph(4), nx.complete_graph(3)]
    blocks = [nx.to_numpy_array(part) * (i + 1) for i, part in enumerate(parts)]
    sizes = [len(block) for block in blocks]
    whole = np.zeros((sum(sizes), sum(sizes)))
    start = 0
    for block in blocks:
        whole[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    batch = laplacian(graph_of(whole, sizes), norm)
    alone = [laplacian(graph_of(block), norm) for block in blocks]
    for ours, theirs in zip(
        batch.spectrum(), zip(*(A.spectrum() for A in alone), strict=True), strict=True
    ):
        assert torch.allclose(ours, torch.cat(theirs), rtol=1e-14, atol=1e-13)
    assert torch.equal((-batch).rate, torch.cat([(-A).rate for A in alone]))
    assert torch.equal(batch.values, torch.cat([A.values for A in alone]))
    assert batch.to_dense()[6].tolist() == [0.0] * sum(sizes)


@given(weighted(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_relabelling_nodes_relabels_the_operator(matrix, random):
    order = list(range(len(matrix)))
    random.shuffle(order)
    moved = matrix[np.ix_(order, order)]
    for norm in NORMS:
        ours = laplacian(graph_of(moved), norm).to_dense().numpy()
        dense = laplacian(graph_of(matrix), norm).to_dense().numpy()
        assert np.allclose(ours, dense[np.ix_(order, order)], rtol=1e-13, atol=1e-300)


def test_unknown_names_and_negative_loops_are_refused():
    graph = graph_of(np.ones((2, 2)))
    with pytest.raises(ValueError, match="allowed: comb, sym, rw, augmented"):
        laplacian(graph, "normalised")
    with pytest.raises(ValueError, match="allowed: none, row, col, sym"):
        adjacency(graph, "rw")
    with pytest.raises(ValueError, match="not negative"):
        adjacency(graph, self_loops=-1.0)
