"""Block operators against dense matrices, and solvers that go by their core."""

import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import catalogue
from neuralpde.graph import Graph
from neuralpde.operators import (
    BlockOperator,
    BundleOperator,
    Operator,
    Pattern,
    SparseOperator,
    identity,
    products,
    sheaf_laplacian,
)
from neuralpde.operators.stalks import Grown
from solvers.exact import propagate
from solvers.imex import Shifted
from solvers.phi import Functions
from tests.sheaves import F64, drawn

STALK = 3


def sample(seed: int = 0, nodes: int = 6) -> tuple[Pattern, BlockOperator]:
    """A matrix of full blocks that is not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    row, col = torch.randint(0, nodes, (2, 14), generator=generator)
    pattern, _ = Pattern.from_edges(row, col, nodes)
    rows = Grown(pattern, STALK, True)
    values = torch.randn(rows.nnz, generator=generator, dtype=F64)
    return pattern, BlockOperator(SparseOperator(rows, values), STALK)


def rowwise(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0] * STALK, -1)


def test_blocks_stand_where_the_entries_of_the_graph_are() -> None:
    pattern, A = sample()
    dense, values = A.to_dense(), A.core.values
    places = Grown(pattern, STALK, True).places()
    expected = torch.zeros(6, STALK, 6, STALK, dtype=F64)
    for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)):
        expected[i, :, j] = values[places[e]]
    assert torch.equal(dense, expected.reshape(18, 18))


@pytest.mark.parametrize("whole", [True, False])
def test_the_transposed_order_is_that_of_sorting(whole: bool) -> None:
    pattern, _ = sample()
    grown = Grown(pattern, STALK, whole)
    plain = Pattern(grown.crow, grown.col, grown.num_nodes)
    for found, expected in zip(grown.transposed, plain.transposed, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 2), (6, 3, 2, 2), (6, 6), (6, 3, 0)])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_products_are_those_of_the_matrix_on_rows(shape: tuple[int, ...], dtype) -> None:
    _, A = sample()
    x, dense = torch.randn(shape, dtype=dtype), A.to_dense().to(dtype)
    if x.numel():
        torch.testing.assert_close(rowwise(A @ x), dense @ rowwise(x))
        torch.testing.assert_close(rowwise(A.T @ x), dense.T @ rowwise(x))
    assert (A @ x).shape == shape
    assert A.num_nodes == 6


def test_the_algebra_stays_among_block_operators() -> None:
    _, A = sample()
    _, B = sample(seed=1)
    C = SparseOperator(Pattern.identity(6), torch.arange(6.0, dtype=F64))
    dense, eye = A.to_dense(), torch.eye(18, dtype=F64)
    lifted = torch.kron(C.to_dense(), torch.eye(STALK, dtype=F64))
    cases: list[tuple[Operator, torch.Tensor]] = [
        (A + B, dense + B.to_dense()),
        (2.0 * A - B / 4.0, 2 * dense - B.to_dense() / 4),
        (A.shifted(2.0, -1.0), 2 * dense - eye),
        (A.minus_identity(), dense - eye),
        (A + C, dense + lifted),
        (C - A, lifted - dense),
        (A - identity(A), dense - eye),
        (-A.T, -dense.T),
        (pickle.loads(pickle.dumps(A)), dense),
    ]
    for found, expected in cases:
        assert found.stalk == STALK
        torch.testing.assert_close(found.to_dense(), expected)
    y, x = torch.randn(6, STALK * 2, dtype=F64), torch.randn(6, STALK * 2, dtype=F64)
    expected = 0.5 * y + 3.0 * (A @ x)
    before = products.total
    assert A.addmm_(y, x, 3.0, 0.5) is y
    assert products.total == before + 1
    torch.testing.assert_close(y, expected)


def test_a_plain_operator_acts_on_every_component_alike() -> None:
    L = catalogue.barbell(3, 1).laplacian("rw", dtype=F64)
    A = BlockOperator.alike(L, STALK)
    expected = torch.kron(L.to_dense(), torch.eye(STALK, dtype=F64))
    assert torch.equal(A.to_dense(), expected)
    assert A.metric is not None
    assert L.metric is not None
    assert torch.equal(A.metric, L.metric)
    assert (-A).generator == "row"
    torch.testing.assert_close(A.spectrum()[1], L.spectrum()[1])
    torch.testing.assert_close((-A).rate, (-L).rate)


def test_diagonals_norms_and_bounds_are_those_of_the_rows() -> None:
    _, A = sample()
    dense = A.to_dense()
    assert torch.equal(A.diagonal().flatten(), dense.diagonal())
    assert A.diagonal().shape == (6, STALK)
    rows, columns = A.norms()
    assert float(rows) == pytest.approx(float(dense.abs().sum(1).max()))
    assert float(columns) == pytest.approx(float(dense.abs().sum(0).max()))
    assert float(A.rate) == pytest.approx(max(0.0, float(-dense.diagonal().min())))
    np.testing.assert_array_equal(A.to_scipy().toarray(), dense.numpy())
    assert A.to(torch.float32).wide().dtype is F64
    assert torch.equal(A.to(torch.float32).to(F64).to_dense(), dense)


def test_products_are_differentiable_twice() -> None:
    pattern, _ = sample(nodes=4)
    rows = Grown(pattern, STALK, True)
    values = torch.randn(rows.nnz, dtype=F64, requires_grad=True)
    x = torch.randn(4, STALK, 1, dtype=F64, requires_grad=True)

    def product(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return BlockOperator(SparseOperator(rows, values), STALK) @ x

    assert gradcheck(product, (values, x))
    assert gradgradcheck(product, (values, x))
    A, g = BlockOperator(SparseOperator(rows, values), STALK), torch.randn_like(x)
    expected = torch.autograd.grad((g * (A @ x)).sum(), values)[0]
    torch.testing.assert_close(A.gradients(g, x)[0], expected)
    fresh = A.fresh()
    assert fresh.tensors[0] is not values
    assert fresh.tensors[0].requires_grad
    assert not A.detached().tensors[0].requires_grad


@pytest.mark.parametrize("width", [2, 40])
@pytest.mark.parametrize("kind", ["block", "bundle"])
def test_exponentials_of_many_columns_mix_stalks_rightly(kind: str, width: int) -> None:
    """More columns than one piece of a state has: pieces must not cut through stalks."""
    graph = catalogue.barbell(3, 1)
    maps = drawn(graph, STALK, "general")
    A: Operator = -sheaf_laplacian(graph, maps)
    if kind == "bundle":
        frames = torch.linalg.qr(torch.randn(7, STALK, STALK, dtype=F64))[0]
        A = -BundleOperator(frames, graph.laplacian(dtype=F64))
    x0 = torch.randn(7, STALK, width, dtype=F64)
    found = propagate(A, x0, torch.tensor([0.0, 0.0, 0.7], dtype=F64), rtol=1e-10)
    dense = A.to_dense().numpy()
    expected = torch.from_numpy(expm(0.7 * dense)) @ rowwise(x0)
    assert torch.equal(found.x[0], x0)
    error = torch.linalg.vector_norm(rowwise(found.x[2]) - expected)
    assert error <= 1e-10 * torch.linalg.vector_norm(x0)
    z = torch.complex(x0, x0.flip(0))
    found = propagate(A, z, torch.tensor([0.0, 0.7], dtype=F64), rtol=1e-10)
    torch.testing.assert_close(rowwise(found.x[1].real), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["block", "bundle"])
def test_phi_functions_and_shifted_solves_work_on_stalks(kind: str) -> None:
    graph = Graph.union([catalogue.ring(4), catalogue.star(4)])
    nodes = graph.num_nodes
    A: Operator = -sheaf_laplacian(graph, drawn(graph, STALK, "general"), "augmented")
    if kind == "bundle":
        frames = torch.linalg.qr(torch.randn(nodes, STALK, STALK, dtype=F64))[0]
        A = -BundleOperator(frames, graph.laplacian(dtype=F64))
    assert graph.batch is not None
    x, h = torch.randn(nodes, STALK, 40, dtype=F64), np.array([0.3, 0.8])
    steps = torch.from_numpy(h)[graph.batch].repeat_interleave(STALK)
    scaled = steps[:, None] * A.to_dense()
    functions = Functions(A)
    degrees = functions.degrees(1, h, np.full(2, 1e-12))
    (found,) = functions(x, h, [(1, degrees)])
    eye = torch.eye(len(scaled), dtype=F64)
    corner = torch.block_diag(scaled, 0 * eye)
    corner[: len(eye), len(eye) :] = eye
    phi = torch.from_numpy(expm(corner.numpy()))[: len(eye), len(eye) :]
    torch.testing.assert_close(rowwise(found), phi @ rowwise(x), rtol=0, atol=1e-10)
    y, lost = Shifted(A).solve(h, x, np.full(2, 1e-12))
    assert not lost.any()
    expected = torch.linalg.solve(eye - scaled, rowwise(x))
    torch.testing.assert_close(rowwise(y), expected, rtol=0, atol=1e-10)


def test_refusals_say_what_does_not_fit() -> None:
    _, A = sample()
    with pytest.raises(ValueError, match="no blocks of 4"):
        BlockOperator(A.core, 4)
    with pytest.raises(ValueError, match=r"\[6 nodes, stalk of 3, channels\]"):
        A @ torch.zeros(6, 4, dtype=F64)
    with pytest.raises(ValueError, match="acts on"):
        A @ torch.zeros(6, dtype=F64)
    with pytest.raises(ValueError, match="do not add"):
        A + BlockOperator(A.core, 2)
    batch = torch.tensor([0] * 4 + [1] * 2)
    rows = SparseOperator(Pattern.identity(6), torch.ones(6), batch=batch, num_graphs=2)
    with pytest.raises(ValueError, match="graph of rows differs"):
        BlockOperator(rows, 3)
    uneven = SparseOperator(Pattern.identity(2), torch.ones(2), metric=torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="metric of rows differs"):
        BlockOperator(uneven, 2)
