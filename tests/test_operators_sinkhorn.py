"""Doubly stochastic attention against dense sweeps, its gradients, and when it does not exist."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import Graph, catalogue
from neuralpde.operators import Attention, Pattern, attention
from neuralpde.operators.sinkhorn import doubly_stochastic
from tests.strategies import graphs, quietly

F64 = torch.float64


def pattern_of(graph: Graph) -> Pattern:
    return graph.pattern.with_diagonal()[0]


def dense(pattern: Pattern, values: Tensor) -> Tensor:
    return pattern.csr(values.detach()).to_dense()


def by_sweeps(matrix: np.ndarray, sweeps: int = 20_000) -> np.ndarray:
    """Sinkhorn's iteration on a dense matrix of positive numbers and zeros."""
    u = v = np.ones(len(matrix))
    for _ in range(sweeps):
        u = 1 / (matrix @ v)
        v = 1 / (matrix.T @ u)
    return u[:, None] * matrix * v


@pytest.mark.parametrize(
    "graph", [catalogue.barbell(4, 1), catalogue.star(7), catalogue.grid(3, 4)]
)
def test_it_is_the_limit_of_alternating_scalings(graph: Graph) -> None:
    pattern = pattern_of(graph)
    scores = torch.randn(pattern.nnz, dtype=F64)
    found = dense(pattern, doubly_stochastic(pattern, scores))
    kernel = dense(pattern, scores.exp()).numpy()
    assert np.allclose(found, by_sweeps(kernel), rtol=0, atol=1e-12)


@settings(max_examples=20)
@given(graphs(weighted=False), st.floats(0.1, 4.0))
def test_rows_and_columns_sum_to_one_to_rounding(graph: Graph, size: float) -> None:
    pattern = pattern_of(graph)
    scores = size * torch.randn(pattern.nnz, dtype=F64)
    P = dense(pattern, doubly_stochastic(pattern, scores))
    assert (P >= 0).all()
    assert (P.sum(1) - 1).abs().max() < 1e-14
    assert (P.sum(0) - 1).abs().max() < 1e-13


def test_long_graphs_take_few_steps() -> None:
    # Sweeps alone shrink the error on a path of 100 nodes by 0.5% each.
    pattern = pattern_of(catalogue.path(100))
    scores = torch.randn(pattern.nnz, dtype=F64)
    kernel = dense(pattern, scores.exp()).numpy()
    slow = by_sweeps(kernel, 200)
    assert np.abs(slow.sum(1) - 1).max() > 1e-4
    P = dense(pattern, doubly_stochastic(pattern, scores))
    assert (P.sum(0) - 1).abs().max() < 1e-13


def test_gradients_are_those_of_the_fixed_point_and_so_are_second_ones() -> None:
    pattern = pattern_of(catalogue.star(4))
    scores = torch.randn(pattern.nnz, dtype=F64, requires_grad=True)
    assert gradcheck(lambda s: doubly_stochastic(pattern, s), scores)
    assert gradgradcheck(lambda s: doubly_stochastic(pattern, s), scores)


def test_gradients_reach_queries_keys_and_weights() -> None:
    pattern = pattern_of(catalogue.star(4))
    q, k = torch.randn(2, 4, 4, dtype=F64, requires_grad=True).unbind()
    w = (torch.rand(pattern.nnz, dtype=F64) + 0.1).requires_grad_()

    def values(q: Tensor, k: Tensor, w: Tensor) -> Tensor:
        return attention(pattern, q, k, heads=2, weights=w, normalise="sinkhorn").values

    inputs = [t.detach().clone().requires_grad_() for t in (q, k, w)]
    assert gradcheck(values, inputs)


@pytest.mark.parametrize("over", ["receiver", "sender"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_attention_is_tagged_for_rows_and_columns(over: str, dtype: torch.dtype) -> None:
    pattern = pattern_of(catalogue.barbell(4, 1))
    q, k = torch.randn(2, 9, 6, dtype=dtype)
    A = attention(pattern, q, k, heads=2, over=over, normalise="sinkhorn")
    assert A.stochastic == A.T.stochastic == "row"
    assert A.minus_identity().generator == A.T.minus_identity().generator == "row"
    assert not A.symmetric
    assert (A.to_dense().double().sum(0) - 1).abs().max() < 20 * torch.finfo(dtype).eps
    assert (A.to_dense().double().sum(1) - 1).abs().max() < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kernel", ["scaled_dot", "cosine", "pearson", "distance"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_tied_scores_give_a_symmetric_matrix_to_the_bit(kernel: str, dtype: torch.dtype) -> None:
    graph = catalogue.barbell(4, 1)
    pattern, x = pattern_of(graph), torch.randn(9, 3, dtype=dtype)
    layer = Attention(3, 6, 2, kernel, "sinkhorn", tied=True).to(dtype)
    A = layer(pattern, x)
    assert A.symmetric
    assert torch.equal(A.to_dense(), A.to_dense().T)
    assert A.T.stochastic == "row"
    lo, hi = A.spectrum()
    values = torch.linalg.eigvalsh(A.to_dense().double())
    assert lo <= values.min()
    assert values.max() <= hi
    assert hi < 1 + 1e-5
    assert len(list(layer.parameters())) == (2 if kernel != "distance" else 4)
    # Softmax of the same scores is not symmetric, and nobody says so.
    assert not Attention(3, 6, 2, kernel, tied=True).to(dtype)(pattern, x).symmetric


def test_a_batch_is_scaled_as_its_graphs_alone() -> None:
    parts = [catalogue.path(5), catalogue.star(6)]
    q, k = torch.randn(2, 11, 4, dtype=F64)
    union = Graph.union(parts)
    A = attention(
        pattern_of(union), q, k, normalise="sinkhorn", batch=union.batch, num_graphs=2
    ).to_dense()
    for graph, nodes in zip(parts, (slice(0, 5), slice(5, 11)), strict=True):
        alone = attention(pattern_of(graph), q[nodes], k[nodes], normalise="sinkhorn").to_dense()
        assert torch.allclose(A[nodes, nodes], alone, rtol=0, atol=1e-13)


def test_strongly_connected_directed_graphs_can_be_scaled() -> None:
    cycle = quietly(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]), 4)
    pattern = pattern_of(cycle)
    scores = torch.randn(pattern.nnz, dtype=F64)
    P = dense(pattern, doubly_stochastic(pattern, scores))
    assert np.allclose(P, by_sweeps(dense(pattern, scores.exp()).numpy()), rtol=0, atol=1e-12)


def test_patterns_without_support_are_refused_with_the_entry() -> None:
    oneway = pattern_of(quietly(torch.tensor([[0, 1], [1, 2]]), 3))
    with pytest.raises(ValueError, match=r"\(1, 0\) lies on no permutation.*self-loops"):
        doubly_stochastic(oneway, torch.zeros(oneway.nnz, dtype=F64))
    star = catalogue.star(4).pattern
    with pytest.raises(ValueError, match="no doubly stochastic matrix"):
        doubly_stochastic(star, torch.zeros(star.nnz, dtype=F64))
    x = torch.ones(4, 2, dtype=F64)
    unlooped = (pattern_of(catalogue.star(4)).row != pattern_of(catalogue.star(4)).col).double()
    with pytest.raises(ValueError, match="softmax"):
        attention(pattern_of(catalogue.star(4)), x, x, weights=unlooped, normalise="sinkhorn")


def test_scores_beyond_reach_are_refused_with_the_residual() -> None:
    pattern = pattern_of(catalogue.path(12))
    with pytest.raises(ValueError, match=r"differ from 1 by .* sweeps.*scores smaller"):
        doubly_stochastic(pattern, 200.0 * torch.randn(pattern.nnz, dtype=F64))


def test_a_ring_of_equal_weights_without_loops_is_scaled_by_halves() -> None:
    ring = catalogue.ring(6).pattern
    x = torch.zeros(6, 1, dtype=F64)
    A = attention(ring, x, x, normalise="sinkhorn")
    assert torch.allclose(A.values, torch.full((12,), 0.5, dtype=F64), rtol=0, atol=1e-15)
