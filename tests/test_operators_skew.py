"""The operator -i H against dense matrices."""

import pytest
import torch
from hypothesis import given, settings

from neuralpde import Graph, catalogue
from neuralpde.operators import SkewAdjoint, SparseOperator
from tests.strategies import dense, graphs

COMPLEX = torch.complex128


def laplacian(graph: Graph) -> torch.Tensor:
    A = dense(graph)
    A.fill_diagonal_(0.0)
    return torch.diag(A.sum(1)) - A


@settings(max_examples=10)
@given(graphs(min_nodes=1, max_nodes=6))
def test_it_is_the_matrix_and_its_algebra_that_of_matrices(graph: Graph) -> None:
    L = graph.laplacian(dtype=torch.float64)
    A, M = SkewAdjoint(L), -1j * laplacian(graph).to(COMPLEX)
    x = torch.randn(graph.num_nodes, 2, dtype=COMPLEX)
    for found, matrix in (
        (A, M),
        (A.T, M.T),
        (2.5 * A - A / 4, 2.25 * M),
        (-A, -M),
        (A + A.hamiltonian, M + 1j * M),
        (A.shifted(2.0, -1.0), 2 * M - torch.eye(len(M))),
    ):
        torch.testing.assert_close(found @ x, matrix @ x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.to_dense(), M)
    torch.testing.assert_close(A.diagonal(), M.diagonal())
    assert float(A.bound()) >= float(torch.linalg.eigvals(M).abs().max()) - 1e-12
    assert (2.5 * A - A / 4).hamiltonian is not None
    assert (A + A.hamiltonian).hamiltonian is None


def test_derivatives_by_the_entries_are_those_of_autograd() -> None:
    L = catalogue.lollipop(3, 2).laplacian("rw", dtype=torch.float64)
    values = L.values.detach().requires_grad_()
    A = SkewAdjoint(SparseOperator.tagged(L.pattern, values, L.tags, L.graphs))
    g, x = torch.randn(2, 5, 3, dtype=COMPLEX).unbind()
    (recorded,) = torch.autograd.grad((g.conj() * (A @ x)).real.sum(), values)
    torch.testing.assert_close(A.gradients(g, x)[0], recorded)


def test_it_counts_the_numbers_that_a_product_adds_up() -> None:
    both = Graph.union([catalogue.star(7), catalogue.ring(5)])
    L = both.laplacian(dtype=torch.float64)
    assert SkewAdjoint(L).summands().tolist() == [7.0, 3.0]


def test_it_moves_between_precisions() -> None:
    A = SkewAdjoint(catalogue.ring(4).laplacian(dtype=torch.float64))
    single = A.to(torch.float32)
    assert (single @ torch.ones(4, 1, dtype=torch.complex64)).dtype is torch.complex64
    assert A.to(torch.float64) is A


def test_what_is_not_unitary_is_refused_with_the_mend() -> None:
    cycle = Graph(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]))
    with pytest.raises(ValueError, match=r"graph\.undirected"):
        SkewAdjoint(cycle.laplacian())
    A = SkewAdjoint(catalogue.ring(4).laplacian())
    with pytest.raises(TypeError, match=r"x\.to\(torch\.complex64\)"):
        A @ torch.ones(4, 1)
    with pytest.raises(ValueError, match="lies in no real interval"):
        A.spectrum()
