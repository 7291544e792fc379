"""Functions of operators against eigendecompositions, on symmetric and on weighted ones."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Diffusion
from neuralpde.operators import Polynomial, Series, function
from tests.strategies import graphs, quietly

F64 = torch.float64


def by_eigenvectors(graph: Graph, norm: str, f: object) -> Tensor:
    L = graph.laplacian(norm, dtype=F64)
    root = torch.ones(graph.num_nodes, dtype=F64) if L.metric is None else L.metric.sqrt()
    sym = root[:, None] * L.to_dense() / root
    values, vectors = torch.linalg.eigh((sym + sym.T) / 2)
    return (vectors * f(values)) @ vectors.T * root / root[:, None]


@settings(max_examples=15)
@given(graphs(min_nodes=2))
def test_functions_of_laplacians_agree_with_eigendecompositions(graph: Graph) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.exp(-0.3 * x) / (1 + x)

    x = torch.randn(graph.num_nodes, 2, dtype=F64)
    for norm in ("comb", "rw", "sym"):
        A = function(graph.laplacian(norm, dtype=F64), f, tol=1e-11)
        expected = by_eigenvectors(graph, norm, f)
        torch.testing.assert_close(A @ x, expected @ x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(A.T @ x, expected.T @ x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(A.diagonal(), expected.diagonal(), rtol=1e-9, atol=1e-9)
        lo, hi = A.spectrum()
        values = torch.linalg.eigvals(expected).real
        assert (lo <= values.min() + 1e-11).all()
        assert (hi >= values.max() - 1e-11).all()
        assert A.self_adjoint
        rows, columns = A.norms()
        assert rows.max() >= expected.abs().sum(1).max() - 1e-9
        assert columns.max() >= expected.abs().sum(0).max() - 1e-9


def test_the_resolvent_is_found_without_a_linear_system() -> None:
    graph, x = catalogue.grid(4, 4), torch.randn(16, 2, dtype=F64)
    L = graph.laplacian(dtype=F64)
    A = function(L, lambda s: 1 / (1 + 2 * s), tol=1e-12)
    torch.testing.assert_close(A @ (x + 2 * (L @ x)), x, rtol=1e-10, atol=1e-10)
    assert A.psd


def test_products_are_differentiable_twice_in_all_that_they_are_made_of() -> None:
    L = catalogue.path(3).laplacian(dtype=F64)
    c = torch.randn(4, dtype=F64, requires_grad=True)
    x = torch.randn(3, 2, dtype=F64, requires_grad=True)
    values = L.values.clone().requires_grad_()

    def product(c: Tensor, x: Tensor, values: Tensor) -> Tensor:
        return Polynomial(L._like(L.pattern, values, L.tags), c, (0.0, 4.0)) @ x

    assert gradcheck(product, (c, x, values))
    assert gradgradcheck(product, (c, x, values))
    A = Polynomial(L._like(L.pattern, values, L.tags), c, (0.0, 4.0))
    g = torch.randn(3, 2, dtype=F64)
    taped = torch.autograd.grad((g * (A @ x)).sum(), A.tensors)
    with torch.no_grad():
        found = A.gradients(g, x)
    for got, expected in zip(found, taped, strict=True):
        torch.testing.assert_close(got, expected)


def test_synthesis_is_the_adjoint_of_analysis() -> None:
    graph = catalogue.barbell(4, 1)
    series = Series(graph.laplacian("sym", dtype=F64), (0.0, 2.0))
    c = torch.randn(3, 6, dtype=F64)
    x, z = torch.randn(9, 2, dtype=F64), torch.randn(3, 9, 2, dtype=F64)
    left = (series.analysis(c, x) * z).sum()
    torch.testing.assert_close(left, (x * series.synthesis(c, z)).sum())
    constant = torch.randn(3, 1, dtype=F64)
    torch.testing.assert_close(
        series.synthesis(constant, z), torch.einsum("b,bnc->nc", constant[:, 0], z)
    )


def test_complex_and_batched_states_go_through() -> None:
    union = Graph.union([catalogue.path(3), catalogue.star(5)])
    x = torch.complex(torch.randn(8, 2, dtype=F64), torch.randn(8, 2, dtype=F64))
    A = function(union.laplacian("sym", dtype=F64), torch.cos)
    y = A @ x
    torch.testing.assert_close(y.real, A @ x.real)
    alone = function(catalogue.path(3).laplacian("sym", dtype=F64), torch.cos) @ x[:3]
    torch.testing.assert_close(y[:3], alone)
    assert A.spectrum()[0].shape == (2,)


def test_fractional_diffusion_is_solved_exactly() -> None:
    # x' = -(L + 1)^(1/2) x: a linear field like any other.
    graph, x = catalogue.grid(4, 4), torch.randn(16, 2, dtype=F64)
    field = Diffusion(lambda graph, x0: -function(graph.laplacian(), lambda s: (s + 1).sqrt()))
    traj = solve(field, x, 1.5, graph, rtol=1e-9)
    assert traj.stats.solver == "chebyshev"
    expected = by_eigenvectors(graph, "comb", lambda s: torch.exp(-1.5 * (s + 1).sqrt()))
    torch.testing.assert_close(traj.final, expected @ x, rtol=1e-8, atol=1e-8)


def test_single_precision_keeps_coefficients_in_double() -> None:
    L = catalogue.path(4).laplacian("sym")
    A = function(L, torch.exp, tol=1e-6)
    assert (A @ torch.ones(4, 1)).dtype == torch.float32
    assert A.coefficients.dtype == F64
    assert A.to(torch.float32) is A
    assert A.to(F64).dtype == F64


def test_what_has_no_interval_is_refused() -> None:
    oneway = quietly(torch.tensor([[0, 1], [1, 2]]), 3).laplacian("rw", dtype=F64)
    with pytest.raises(ValueError, match="not known to be self-adjoint"):
        Polynomial(oneway, torch.ones(2))
    L = catalogue.path(4).laplacian(dtype=F64)
    with pytest.raises(ValueError, match="beyond the interval"):
        Polynomial(L, torch.ones(2), (0.0, 2.0))
    with pytest.raises(ValueError, match=r"give \[degree \+ 1\]"):
        Polynomial(L, torch.ones(2, 2))
