"""States wider than one piece: solved and measured as their columns are, and counted once."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import expm_multiply
from torch import Tensor

from neuralpde import Graph, catalogue
from neuralpde.energies import DirichletForm
from neuralpde.operators import products
from solvers.columns import WIDTH, pieces, piecewise
from solvers.exact import Method, propagate
from solvers.inner import inner
from solvers.moments import energy_curve
from solvers.rows import Rows

DOUBLE = torch.float64
TIMES = torch.tensor([0.0, 0.7, 4.0, 9.0], dtype=DOUBLE)
WIDE = 2 * WIDTH + 6


def two_graphs() -> Graph:
    """A ring of 40 nodes, and a path of 7 beside 3 isolated nodes."""
    ends = torch.arange(6)
    path = torch.stack([ends, ends + 1])
    return Graph.union([catalogue.ring(40), Graph(torch.cat([path, path.flip(0)], 1), 10)])


def state(graph: Graph, columns: int = WIDE, dtype: torch.dtype = DOUBLE) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(graph.num_nodes, columns, dtype=dtype, generator=generator)


@pytest.mark.parametrize("method", ["chebyshev", "uniformisation"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_wide_state_is_solved_to_the_bit_as_its_pieces_are(
    method: Method, dtype: torch.dtype
) -> None:
    graph = two_graphs()
    A, x = -graph.laplacian("rw", dtype=dtype), state(graph, dtype=dtype)
    before = x.clone()
    found = propagate(A, x, TIMES, rtol=1e-4, method=method)
    assert torch.equal(x, before)
    for columns in pieces(x):
        alone = propagate(A, x[:, columns], TIMES, rtol=1e-4, method=method)
        assert torch.equal(found.x[:, :, columns], alone.x)
    generator = 9.0 * csr_matrix(A.to(DOUBLE).to_dense().numpy())
    exact = expm_multiply(generator, x.double().numpy())
    assert np.abs(found.x[-1].numpy() - exact).max() < 1e-3


@pytest.mark.parametrize("method", ["chebyshev", "uniformisation"])
def test_all_pieces_count_as_one_product(method: Method) -> None:
    graph = two_graphs()
    A, x = -graph.laplacian("rw", dtype=DOUBLE), state(graph)
    before = products.total
    wide = propagate(A, x, TIMES, rtol=1e-6, method=method)
    spent = products.total - before
    narrow = propagate(A, x[:, :1], TIMES, rtol=1e-6, method=method)
    assert spent == wide.products == narrow.products > 10


def test_gradients_of_a_wide_state_belong_to_the_states_without_them() -> None:
    graph = two_graphs()
    A, x = -graph.laplacian("rw", dtype=DOUBLE), state(graph)
    g, free = state(graph).flip(0), propagate(A, x, TIMES, rtol=1e-8).x
    recorded = propagate(A, x.requires_grad_(), TIMES, rtol=1e-8).x
    torch.testing.assert_close(recorded.detach(), free, rtol=1e-13, atol=1e-13)
    # The transposed exponential: e^(tA) is self-adjoint with the weights of the metric.
    (back,) = torch.autograd.grad((recorded[-1] * g).sum(), x)
    assert A.metric is not None
    m = A.metric.unsqueeze(1)
    want = m * propagate(A, g / m, TIMES, rtol=1e-8).x[-1]
    torch.testing.assert_close(back, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("norm", ["comb", "rw", "sym", "augmented"])
def test_the_energy_of_a_wide_state_is_the_sum_over_its_columns(norm: str) -> None:
    graph = two_graphs().like(torch.ones(1, dtype=DOUBLE))
    form, x = DirichletForm(graph, norm), state(graph) + 5.0
    before = products.total
    found = form.parts(x)
    assert products.total - before == 1
    alone = [form.parts(column.unsqueeze(1)) for column in x.T]
    for name in ("energy", "square", "deviation"):
        want = torch.stack([getattr(one, name) for one in alone]).sum(0)
        torch.testing.assert_close(getattr(found, name), want, rtol=1e-12, atol=0)
    weights = torch.ones(graph.num_nodes, dtype=DOUBLE) if form.mass is None else form.mass
    squares = (weights.unsqueeze(1) * x**2).sum(1)
    want = torch.stack([squares[graph.batch == g].sum() for g in range(2)])
    torch.testing.assert_close(found.square, want, rtol=1e-12, atol=0)


def test_the_energy_curve_of_a_wide_state_is_the_sum_over_its_columns() -> None:
    graph = two_graphs()
    L, x, times = graph.laplacian("sym", dtype=DOUBLE), state(graph), np.linspace(0, 5, 9)
    before = products.total
    found, _ = energy_curve(L, x, times, tol=1e-10)
    spent = products.total - before
    alone = [energy_curve(L, column, times, tol=1e-10)[0] for column in x.T]
    assert np.allclose(found, np.sum(alone, 0), rtol=1e-11, atol=1e-13)
    assert products.total - before - spent == WIDE * spent


@pytest.mark.parametrize("nodes", [100, 128, 40_000])
def test_one_large_entry_does_not_swallow_the_others(nodes: int) -> None:
    x = torch.ones(nodes, 8)
    x[0, 0] = 4096.0
    y = x.clone()
    want = 4096.0**2 + x.numel() - 1
    metric = torch.full((nodes,), 0.5, dtype=DOUBLE)
    for a, b in ((x, x), (x, y)):
        assert inner(Rows(), a, b).item() == pytest.approx(want, rel=5e-6)
        assert inner(Rows(), a, b, metric).item() == pytest.approx(want / 2, rel=5e-6)


@pytest.mark.parametrize("columns", [3, WIDE])
def test_pieces_are_put_where_they_belong(columns: int) -> None:
    x, found = torch.randn(6, columns), torch.zeros(6, 2 * columns)
    before = x.clone()

    def propagate(terms: Tensor, sums: list[Tensor]) -> None:
        assert terms.is_contiguous()
        assert sums[0].is_contiguous()
        sums[0].copy_(terms[0])
        terms.fill_(torch.nan)

    piecewise(propagate, x, [found[:, ::2]])
    assert torch.equal(x, before)
    assert torch.equal(found[:, ::2], x)
    assert not found[:, 1::2].any()
