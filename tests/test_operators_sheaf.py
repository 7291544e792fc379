"""Sheaf Laplacians against matrices made entry by entry, and the theorems about them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import catalogue
from neuralpde.graph import Graph
from neuralpde.operators import sheaf_laplacian
from tests.sheaves import F64, blocks, coboundary, drawn, edges, full, root_inverse
from tests.strategies import graphs

KINDS = ("diagonal", "orthogonal", "general")
NORMS = ("comb", "augmented", "sym")


def built(graph: Graph, maps: Tensor, norm: str, kind: str) -> Tensor:
    return sheaf_laplacian(graph, maps, norm, orthogonal=kind == "orthogonal").to_dense()


@settings(max_examples=25)
@given(graphs(), st.integers(1, 4), st.sampled_from(KINDS))
def test_the_laplacian_is_that_of_the_coboundary(graph: Graph, stalk: int, kind: str) -> None:
    maps = drawn(graph, stalk, kind)
    P = coboundary(graph, maps)
    torch.testing.assert_close(built(graph, maps, "comb", kind), P.T @ P, rtol=0, atol=1e-11)


@settings(max_examples=25)
@given(graphs(), st.integers(1, 4), st.sampled_from(KINDS))
def test_cholesky_gives_the_spectrum_of_the_symmetric_root(
    graph: Graph, stalk: int, kind: str
) -> None:
    maps = drawn(graph, stalk, kind)
    P = coboundary(graph, maps)
    L, n = P.T @ P, graph.num_nodes
    for norm, shift in (("augmented", 1.0), ("sym", 0.0)):
        roots = root_inverse(blocks(L, stalk) + shift * torch.eye(stalk, dtype=F64))
        R = torch.block_diag(*roots) if n else L
        expected = torch.linalg.eigvalsh(R @ L @ R)
        found = torch.linalg.eigvalsh(built(graph, maps, norm, kind))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@settings(max_examples=25)
@given(graphs(), st.integers(1, 3), st.sampled_from(KINDS), st.sampled_from(NORMS))
def test_it_is_symmetric_to_the_bit_positive_and_enclosed(
    graph: Graph, stalk: int, kind: str, norm: str
) -> None:
    maps = drawn(graph, stalk, kind)
    L = sheaf_laplacian(graph, maps, norm, orthogonal=kind == "orthogonal")
    dense = L.to_dense()
    assert L.symmetric
    assert L.psd
    assert torch.equal(dense, dense.T)
    values, (lo, hi) = torch.linalg.eigvalsh(dense), L.spectrum()
    assert values[0] >= -1e-12 * max(1.0, float(values[-1]))
    assert lo <= values[0]
    assert values[-1] <= hi
    if norm == "augmented":
        assert values[-1] < 2.0
        assert hi <= 2.0 + 1e-12
    # What rounding is judged by holds for the matrix of moduli.
    assert L.tags.enclosure is not None
    assert torch.linalg.eigvalsh(dense.abs())[-1] <= L.tags.enclosure.norm * (1 + 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_bounds_are_attained_on_bipartite_graphs(kind: str, norm: str) -> None:
    """With one frame for all nodes the spectrum is the graph's, whose largest value is known."""
    for graph, expected in (
        (catalogue.ring(6), {"comb": 4.0, "augmented": 4 / 3, "sym": 2.0}),
        (catalogue.star(5), {"comb": 5.0, "sym": 2.0}),
    ):
        if norm not in expected:
            continue
        eye = torch.ones(2, dtype=F64) if kind == "diagonal" else torch.eye(2, dtype=F64)
        maps = eye.expand(graph.pattern.nnz, *eye.shape)
        L = sheaf_laplacian(graph, maps, norm, orthogonal=kind == "orthogonal")
        assert float(L.spectrum()[1]) == pytest.approx(expected[norm], rel=1e-12)
        moduli = float(torch.linalg.eigvalsh(L.to_dense().abs())[-1])
        assert moduli == pytest.approx(expected[norm], rel=1e-12)
        assert L.tags.enclosure is not None
        assert float(L.tags.enclosure.norm) >= moduli * (1 - 1e-12)


@settings(max_examples=15)
@given(graphs(), st.sampled_from(KINDS))
def test_the_form_is_the_sum_over_the_edges(graph: Graph, kind: str) -> None:
    maps, x = drawn(graph, 3, kind), torch.randn(graph.num_nodes, 3, 2, dtype=F64)
    F, total = full(maps), 0.0
    for v, u, at_v, at_u, weight in edges(graph):
        total += weight * float((F[at_v] @ x[v] - F[at_u] @ x[u]).square().sum())
    L = sheaf_laplacian(graph, maps, orthogonal=kind == "orthogonal")
    assert float((x * (L @ x)).sum()) == pytest.approx(total, rel=1e-10, abs=1e-12)


def test_unit_maps_give_the_graph_and_signs_the_signed_laplacian() -> None:
    graph = catalogue.barbell(3, 1)
    ones, A = torch.ones(graph.pattern.nnz, 1, dtype=F64), graph.adjacency(dtype=F64).to_dense()
    for norm in NORMS:
        expected = graph.laplacian(norm, dtype=F64).to_dense()
        torch.testing.assert_close(built(graph, ones, norm, "diagonal"), expected)
    source, target = graph.edge_index
    signs = torch.where(source < target, -1.0, 1.0).to(F64).unsqueeze(1)
    expected = torch.diag(A.sum(1)) + A
    torch.testing.assert_close(built(graph, signs, "comb", "general"), expected, rtol=0, atol=0)


def test_on_weighted_graphs_with_loops_weights_multiply_squares() -> None:
    edge_index = torch.tensor([[0, 1, 1, 2, 1], [1, 0, 2, 1, 1]])
    weight = torch.tensor([2.0, 2.0, 0.5, 0.5, 7.0], dtype=F64)
    graph = Graph(edge_index, 4, weight)
    ones = torch.ones(5, 1, dtype=F64)
    for norm in NORMS:
        expected = graph.laplacian(norm, dtype=F64).to_dense()
        torch.testing.assert_close(built(graph, ones, norm, "diagonal"), expected)


def test_diagonal_maps_are_independent_signed_graphs() -> None:
    graph = catalogue.barbell(3, 1)
    maps = drawn(graph, 3, "diagonal")
    for norm in NORMS:
        L = built(graph, maps, norm, "diagonal").view(7, 3, 7, 3)
        for a in range(3):
            alone = built(graph, maps[:, a : a + 1], norm, "diagonal")
            torch.testing.assert_close(L[:, a, :, a], alone)
            assert (L[:, a, :, (a + 1) % 3] == 0).all()


@pytest.mark.parametrize("norm", ["comb", "augmented"])
def test_turned_stalks_turn_the_laplacian(norm: str) -> None:
    graph, stalk = catalogue.barbell(3, 1), 3
    maps = drawn(graph, stalk, "general")
    R = torch.linalg.qr(torch.randn(7, stalk, stalk, dtype=F64))[0]
    turned = maps @ R[graph.edge_index[1]].mT
    before, after = (built(graph, m, norm, "general") for m in (maps, turned))
    if norm == "augmented":
        # Cholesky's factors are others in other frames: only the spectrum is kept.
        pair = (torch.linalg.eigvalsh(L) for L in (before, after))
        torch.testing.assert_close(*pair, rtol=0, atol=1e-12)
        return
    whole = torch.block_diag(*R)
    torch.testing.assert_close(after, whole @ before @ whole.T, rtol=0, atol=1e-12)


def test_orientation_plays_no_part() -> None:
    """Numbered backwards, the first end of every edge is the other one."""
    graph, stalk = catalogue.barbell(3, 1), 2
    maps = drawn(graph, stalk, "general")
    back = Graph(6 - graph.edge_index)
    entry = {tuple(pair): k for k, pair in enumerate((6 - graph.edge_index).T.tolist())}
    again = maps[[entry[tuple(pair)] for pair in back.edge_index.T.tolist()]]
    for norm in NORMS:
        one, other = built(graph, maps, norm, "general"), built(back, again, norm, "general")
        flipped = other.view(7, stalk, 7, stalk).flip(0, 2).reshape(14, 14)
        torch.testing.assert_close(flipped, one, rtol=0, atol=1e-12)
    negated = torch.where(graph.edge_index.sum(0)[:, None, None] % 2 == 0, -maps, maps)
    torch.testing.assert_close(
        built(graph, negated, "comb", "general"), built(graph, maps, "comb", "general")
    )


@pytest.mark.parametrize("norm", NORMS)
def test_kernels_are_the_global_sections(norm: str) -> None:
    def kernel(graph: Graph, maps: Tensor) -> int:
        values = torch.linalg.eigvalsh(built(graph, maps, norm, "orthogonal"))
        return int((values < 1e-10).sum())

    stalk = 3
    tree, cycle = catalogue.tree(2, 3), catalogue.ring(6)
    assert kernel(tree, drawn(tree, stalk, "orthogonal")) == stalk
    assert kernel(cycle, drawn(cycle, stalk, "orthogonal")) == 1  # the axis of a rotation
    two = drawn(cycle, 2, "orthogonal")
    assert kernel(cycle, two) == 0
    both = Graph.union([cycle, tree])
    frames = torch.linalg.qr(torch.randn(both.num_nodes, stalk, stalk, dtype=F64))[0]
    assert kernel(both, frames[both.edge_index[1]]) == 2 * stalk


@pytest.mark.parametrize("kind", ["diagonal", "general"])
@pytest.mark.parametrize("norm", NORMS)
def test_entries_are_differentiable_twice_in_the_maps(kind: str, norm: str) -> None:
    graph = Graph(torch.tensor([[0, 1, 1, 2, 0, 2], [1, 0, 2, 1, 2, 0]]), 4)
    maps = drawn(graph, 2, kind).requires_grad_()
    x = torch.randn(4, 2, 1, dtype=F64)

    def product(maps: Tensor) -> Tensor:
        return sheaf_laplacian(graph, maps, norm) @ x

    assert gradcheck(product, maps)
    assert gradgradcheck(product, maps)


def test_gradients_along_rotations_know_that_degrees_stay() -> None:
    graph = catalogue.barbell(3, 1)
    angle = torch.randn(graph.pattern.nnz, dtype=F64, requires_grad=True)
    x = torch.randn(7, 2, 1, dtype=F64)
    found = []
    for promised in (True, False):
        c, s = angle.cos(), angle.sin()
        maps = torch.stack([c, -s, s, c], 1).view(-1, 2, 2)
        y = sheaf_laplacian(graph, maps, "augmented", orthogonal=promised) @ x
        found.append(torch.autograd.grad(y.square().sum(), angle)[0])
    torch.testing.assert_close(*found)


def test_a_batch_gives_what_its_graphs_give() -> None:
    parts = [catalogue.ring(5), catalogue.star(4), catalogue.barbell(3, 1)]
    union = Graph.union(parts)
    for kind in KINDS:
        maps = [drawn(graph, 3, kind, seed=k) for k, graph in enumerate(parts)]
        for norm in NORMS:
            whole = sheaf_laplacian(union, torch.cat(maps), norm)
            alone = [sheaf_laplacian(g, m, norm) for g, m in zip(parts, maps, strict=True)]
            assert torch.equal(whole.to_dense(), torch.block_diag(*(L.to_dense() for L in alone)))
            tops = torch.cat([L.spectrum()[1] for L in alone])
            torch.testing.assert_close(whole.spectrum()[1], tops, rtol=1e-13, atol=0)


def test_float32_is_near_float64_and_index_sets_are_found_once() -> None:
    graph = catalogue.barbell(4, 2)
    maps = drawn(graph, 3, "general")
    for norm in NORMS:
        wide, single = (sheaf_laplacian(graph, m, norm) for m in (maps, maps.float()))
        torch.testing.assert_close(single.to_dense().double(), wide.to_dense(), rtol=0, atol=2e-5)
        assert single.core.pattern is wide.core.pattern
        assert float(single.spectrum()[0]) <= 0.0


def test_refusals_name_the_mend() -> None:
    graph, one_way = catalogue.ring(3), Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    ones = torch.ones(6, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"undirected"):
        sheaf_laplacian(one_way, torch.ones(3, 2))
    with pytest.raises(ValueError, match="did you mean"):
        sheaf_laplacian(graph, ones, "symm")
    with pytest.raises(ValueError, match="one for each of the 6 columns"):
        sheaf_laplacian(graph, ones[:4])
    with pytest.raises(TypeError, match="real vector spaces"):
        sheaf_laplacian(graph, ones.long())
    weighed = Graph(graph.edge_index, node_weight=torch.ones(3))
    with pytest.raises(ValueError, match="node_weight"):
        sheaf_laplacian(weighed, ones)
    singular = torch.ones(6, 2, 2, dtype=F64)
    with pytest.raises(ValueError, match="augmented"):
        sheaf_laplacian(graph, singular, "sym")
    assert sheaf_laplacian(graph, singular, "augmented").num_nodes == 3
