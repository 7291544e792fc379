"""Sums, multiples, transposes: numbers against dense matrices, tags against the truth."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from neuralpde.operators import Operator, Pattern, SparseOperator, identity
from neuralpde.operators.linear import Combination

F64 = torch.float64
BATCH = torch.tensor([0, 0, 0, 1, 1])


def random_operator(seed: int = 0, nodes: int = 5, **known: object) -> SparseOperator:
    generator = torch.Generator().manual_seed(seed)
    row, col = torch.randint(0, nodes, (2, 2 * nodes), generator=generator)
    pattern, _ = Pattern.from_edges(row, col, nodes)
    return SparseOperator(
        pattern, torch.randn(pattern.nnz, generator=generator, dtype=F64), **known
    )


def batch_operator(seed: int = 0) -> SparseOperator:
    row, col = torch.tensor([0, 1, 2, 2, 3, 4]), torch.tensor([1, 0, 2, 0, 4, 3])
    pattern, _ = Pattern.from_edges(row, col, 5)
    values = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return SparseOperator(pattern, values, batch=BATCH, num_graphs=2)


def from_dense(matrix: np.ndarray, **known: object) -> SparseOperator:
    row, col = (torch.as_tensor(index) for index in matrix.nonzero())
    pattern, _ = Pattern.from_edges(row, col, len(matrix))
    return SparseOperator(pattern, torch.as_tensor(matrix[matrix.nonzero()]), **known)


def lazily(A: Operator) -> Combination:
    return Combination([(1.0, A)])


def test_algebra_is_that_of_dense_matrices():
    A, B = random_operator(0), random_operator(1)
    a, b, x = A.to_dense(), B.to_dense(), torch.randn(5, 2, dtype=F64)
    for left, right in [(A, B), (lazily(A), B), (A, lazily(B)), (lazily(A), lazily(B))]:
        for ours, dense in [
            (left + right, a + b),
            (left - right, a - b),
            (2 * left - right / 4 + identity(A), 2 * a - b / 4 + torch.eye(5, dtype=F64)),
            ((left + right).T, (a + b).T),
            (-(left.T), -a.T),
            ((left - right).shifted(3.0, -0.5), 3 * (a - b) - 0.5 * torch.eye(5, dtype=F64)),
            (left.minus_identity(), a - torch.eye(5, dtype=F64)),
        ]:
            assert torch.allclose(ours.to_dense(), dense, rtol=0, atol=1e-14)
            assert torch.allclose(ours @ x, dense @ x, rtol=0, atol=1e-14)
            assert torch.allclose(ours.diagonal(), dense.diagonal(), rtol=0, atol=1e-14)
            assert torch.allclose(ours.rate, (-dense.diagonal()).max().clamp(min=0), atol=1e-14)
            assert (ours.norms()[0] - dense.abs().sum(1).max()).min() > -1e-14
            assert (ours.norms()[1] - dense.abs().sum(0).max()).min() > -1e-14
            assert ours.bound() >= np.abs(np.linalg.eigvals(dense.numpy())).max()


def test_operators_on_one_pattern_and_on_its_completion_share_it():
    A = random_operator(0)
    shifted = A.shifted(1.0, 1.0)
    assert (A + A).pattern is A.pattern
    assert (A + shifted).pattern is (shifted - A).pattern is shifted.pattern
    assert (A - identity(A)).pattern is shifted.pattern
    assert (shifted + identity(A)).pattern is shifted.pattern


@pytest.mark.parametrize("wrap", [lambda A: A, lazily])
def test_each_graph_may_have_its_own_factor(wrap):
    A, scale, shift = wrap(batch_operator()), torch.tensor([2.0, -3.0]), torch.tensor([0.5, 1.0])
    rows = scale[BATCH].double()[:, None]
    eye = torch.diag(shift[BATCH].double())
    x = torch.randn(5, 2, 2, dtype=torch.complex128)
    for ours, dense in [
        (scale * A, rows * A.to_dense()),
        (A / scale, A.to_dense() / rows),
        (A.shifted(scale, shift), rows * A.to_dense() + eye),
    ]:
        assert torch.allclose(ours.to_dense(), dense, rtol=0, atol=1e-14)
        expected = torch.einsum("ij,jab->iab", dense.to(x.dtype), x)
        assert torch.allclose(ours @ x, expected, rtol=0, atol=1e-14)
    sizes = dict(zip([0, 1], (scale * A).bound().tolist(), strict=True))
    for graph, bound in sizes.items():
        block = (rows * A.to_dense())[graph == BATCH][:, graph == BATCH]
        assert bound >= np.abs(np.linalg.eigvals(block.numpy())).max() - 1e-14


@pytest.mark.parametrize("wrap", [lambda A: A, lazily])
def test_factors_and_values_are_differentiable_through_the_algebra(wrap):
    base, x = batch_operator(), torch.randn(5, 2, dtype=F64)

    def act(values: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        A = SparseOperator(base.pattern, values, batch=BATCH, num_graphs=2)
        B = wrap(A) * scale + A.T / 2 - identity(A) * 0.3
        return B.shifted(shift, scale) @ x

    scale, shift = torch.tensor([0.7, -1.2], dtype=F64), torch.tensor(0.4, dtype=F64)
    inputs = tuple(t.clone().requires_grad_() for t in (base.values, scale, shift))
    assert gradcheck(act, inputs)
    values = base.values.clone().requires_grad_()
    B = SparseOperator(base.pattern, values, batch=BATCH, num_graphs=2) + batch_operator(3)
    weights = torch.randn(5, 5, dtype=F64)
    (gradient,) = torch.autograd.grad((B.to_dense() * weights).sum(), values)
    assert torch.equal(gradient, weights[base.pattern.row, base.pattern.col.long()])


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_gradients_are_those_of_autograd(dtype):
    x, g = torch.randn(2, 5, 3, dtype=dtype)
    leaf = batch_operator().values.requires_grad_()
    A = SparseOperator(batch_operator().pattern, leaf, batch=BATCH, num_graphs=2)
    scale = torch.tensor([0.5, 2.0], dtype=F64, requires_grad=True)
    shift = torch.tensor(0.3, dtype=F64, requires_grad=True)
    for B in (A, Combination([(scale, A), (2.0, A.T)], shift)):
        fresh = B.fresh()
        assert all(a is not b for a, b in zip(B.tensors, fresh.tensors, strict=True))
        pairing = (g.conj() * (fresh @ x)).sum().real
        expected = torch.autograd.grad(pairing, fresh.tensors)
        ours = fresh.gradients(g, x)
        assert len(ours) == len(expected)
        for a, b in zip(ours, expected, strict=True):
            assert not a.requires_grad
            assert torch.allclose(a, b, rtol=0, atol=1e-13)


def test_symmetry_does_not_change_what_gradients_mean():
    pattern, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    values, x = torch.ones(2, dtype=F64, requires_grad=True), torch.tensor([2.0, 3.0], dtype=F64)
    A = SparseOperator(pattern, values, symmetric=True)
    for B, expected in ((A, [3.0, 0.0]), (A.T, [0.0, 3.0])):
        (gradient,) = torch.autograd.grad((B @ x)[0], values)
        assert gradient.tolist() == expected
    assert gradcheck(lambda y: A @ y, (x.clone().requires_grad_(),))
    constant = SparseOperator(pattern, torch.ones(2, dtype=F64), symmetric=True)
    assert constant.T is constant
    assert gradcheck(lambda y: constant @ y, (x.clone().requires_grad_(),))


def test_a_fused_step_is_the_sum_it_stands_for_and_does_not_read_what_it_overwrites():
    A, x = random_operator(0), torch.randn(5, 3, dtype=F64)
    for B in (A, lazily(A)):
        y = torch.randn(5, 3, dtype=F64)
        expected = 0.5 * y + 2.0 * A.to_dense() @ x
        assert B.addmm_(y, x, 2.0, 0.5) is y
        assert torch.allclose(y, expected, rtol=0, atol=1e-14)
        y.fill_(torch.nan)
        assert torch.allclose(B.addmm_(y, x, 3.0), 3.0 * A.to_dense() @ x, rtol=0, atol=1e-14)
    half = A.to(torch.bfloat16)
    y = torch.ones(5, 3, dtype=torch.bfloat16)
    expected = (1 + (half @ x.bfloat16())).to(torch.bfloat16)
    assert torch.equal(half.addmm_(y, x.bfloat16(), 1.0, 1.0), expected)


@st.composite
def symmetric(draw: st.DrawFn) -> np.ndarray:
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    nodes = draw(st.integers(1, 6))
    matrix = np.triu(generator.normal(size=(nodes, nodes)) * generator.integers(0, 2, (nodes,) * 2))
    return matrix + np.triu(matrix, 1).T


@given(symmetric(), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=60)
def test_enclosures_stay_guarantees_through_the_algebra(matrix, scale, shift):
    values = np.linalg.eigvalsh(matrix)
    size = max(1.0, np.abs(matrix).sum(1).max()) * 10
    for dtype in (F64, torch.float32):
        plain = from_dense(matrix, symmetric=True)
        given_ends = from_dense(matrix, symmetric=True, enclosure=(values[0], values[-1]))
        for A in (plain.to(dtype), given_ends.to(dtype)):
            for B in (
                A * scale,
                A.shifted(scale, shift),
                A + A * scale,
                (A * scale) - A,
                Combination([(scale, A), (1.0, A)], shift),
            ):
                (lo,), (hi,) = B.spectrum()
                actual = np.linalg.eigvalsh(B.to_dense().double().numpy())
                assert lo <= actual[0] + 1e-15 * size
                assert actual[-1] <= hi + 1e-15 * size
                assert B.bound().item() == max(abs(lo.item()), abs(hi.item()))
    exact = (given_ends * scale).spectrum()
    ends = sorted([scale * values[0], scale * values[-1]])
    assert np.allclose([end.item() for end in exact], ends, rtol=0, atol=1e-13 * size)


def test_an_enclosure_counts_the_rounding_of_the_entries():
    third = from_dense(np.full((2, 2), 1 / 3), symmetric=True, enclosure=(0.0, 2 / 3))
    single = third.to(torch.float32)
    top = np.linalg.eigvalsh(single.to_dense().double().numpy())[-1]
    assert top > 2 / 3 + 1e-9
    assert single.spectrum()[1].item() >= top
    assert third.spectrum()[1].item() < 2 / 3 + 1e-14


def test_gershgorin_is_exact_on_a_diagonal_and_looks_at_each_graph_alone():
    pattern = Pattern.identity(5)
    values = torch.tensor([1.0, -2.0, 3.0, 7.0, 5.0], dtype=F64)
    A = SparseOperator(pattern, values, symmetric=True, batch=BATCH, num_graphs=2)
    lo, hi = A.spectrum()
    assert torch.allclose(lo, torch.tensor([-2.0, 5.0], dtype=F64), rtol=1e-14)
    assert torch.allclose(hi, torch.tensor([3.0, 7.0], dtype=F64), rtol=1e-14)
    assert A.rate.tolist() == [2.0, 0.0]


SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
WALK = np.array([[0.5, 0.5], [0.2, 0.8]])


def test_stochastic_minus_identity_is_a_generator_of_its_kind():
    P = from_dense(WALK, stochastic="row")
    assert (P.stochastic, P.T.stochastic, (2 * P).stochastic, (-P).stochastic) == (
        "row",
        "col",
        None,
        None,
    )
    for Q in (P - identity(P), P.minus_identity(), P.shifted(1.0, -1.0), -(identity(P) - P)):
        assert (Q.generator, Q.T.generator, Q.rate.item()) == ("row", "col", 0.5)
        assert (Q * 3.0).generator == "row"
        assert (Q / torch.tensor(4.0)).generator == "row"
        assert (-Q).generator is None
        assert (-1.0 * (-Q)).generator == "row"
        assert (Q + Q * 0.25).generator == "row"
        assert (Q + Q.T).generator is None
    assert P.shifted(1.0, -0.999).generator is None
    assert (2 * P).shifted(1.0, -1.0).stochastic is None
    assert (lazily(P) - identity(P)).generator == "row"
    a = torch.sigmoid(torch.tensor(0.3))
    assert (a * P - a * identity(P)).generator == "row"
    assert (a * P + (1 - a) * identity(P)).stochastic == "row"
    assert (P + P.T).stochastic is None
    assert identity(P).stochastic == "row"


def test_a_symmetric_generator_is_one_both_ways():
    Q = from_dense(SWAP - np.eye(2), symmetric=True, generator="col")
    R = from_dense(WALK, stochastic="row").minus_identity()
    assert (Q.generator, (Q + R).generator, (Q + R.T).generator) == ("row", "row", "col")


def test_positive_operators_stay_so_under_what_keeps_them_so():
    L = from_dense(np.eye(2) - SWAP, symmetric=True, psd=True)
    assert all(A.psd for A in (L, 2 * L, L + L, L.shifted(1.0, 0.5), L / 3, L.T, L + identity(L)))
    assert not any(A.psd for A in (-L, L - L, L.shifted(1.0, -0.5), L.shifted(-1.0, 5.0)))
    weighted = from_dense(WALK, metric=torch.tensor([2.0, 5.0]), psd=True)
    assert not (L + weighted).psd
    assert not (L + weighted).self_adjoint


def test_a_metric_lives_as_long_as_it_is_the_same():
    m = torch.tensor([2.0, 5.0])
    A, B = from_dense(WALK, metric=m), from_dense(WALK, metric=m.clone())
    dense = A.to_dense().numpy()
    assert np.allclose(m.numpy()[:, None] * dense, (m.numpy()[:, None] * dense).T)
    assert torch.equal((A - 2 * B).metric, m.double())
    assert torch.equal(A.minus_identity().metric, m.double())
    assert torch.equal(A.T.metric, 1 / m.double())
    assert A.T.T is A
    assert (A + A.T).metric is None
    assert (A + from_dense(WALK, metric=2 * m)).metric is None
    assert (A + from_dense(SWAP, symmetric=True)).metric is None
    assert A.self_adjoint
    assert not A.symmetric


def test_casting_and_copying_keep_the_operator():
    A = random_operator(0)
    A @ torch.ones(5, 1, dtype=F64)
    assert A.to(F64) is A
    single = A.to(torch.float32)
    assert (single.dtype, (single @ torch.ones(5, 2)).dtype) == (torch.float32, torch.float32)
    for copied in (copy.deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert torch.equal(copied.to_dense(), A.to_dense())
        assert torch.equal(copied.T @ torch.ones(5, dtype=F64), A.T @ torch.ones(5, dtype=F64))
    assert lazily(A).to(torch.float32).dtype == torch.float32


def test_scipy_and_dense_forms_agree():
    A = random_operator(0)
    assert np.array_equal(A.to_scipy().toarray(), A.to_dense().numpy())
    half = A.to(torch.bfloat16)
    assert np.array_equal(half.to_scipy().toarray(), half.to_dense().float().numpy())
    assert torch.equal(lazily(A).to_dense(), A.to_dense())


def test_numpy_and_torch_numbers_multiply_from_either_side():
    A = random_operator(0)
    for two in (2, 2.0, np.float64(2.0), np.int64(2), torch.tensor(2), torch.tensor([2.0])):
        assert torch.equal((two * A).values, (A * two).values)
        assert torch.equal((two * A).values, 2 * A.values)
        assert torch.equal((A / two).values, A.values / 2)


def test_what_does_not_combine_is_refused_with_the_reason():
    A = random_operator(0)
    with pytest.raises(TypeError, match=r"1j \* \(A @ x\)"):
        A * 1j
    with pytest.raises(TypeError, match="not with SparseOperator"):
        A * A
    with pytest.raises(ValueError, match=r"one for each graph \(\[1\]\)"):
        A * torch.ones(2)
    with pytest.raises(TypeError, match=r"\.to\(torch.float64\)"):
        A + A.to(torch.float32)
    with pytest.raises(TypeError, match=r"\.to\(torch.float64\)"):
        lazily(A) + A.to(torch.float32)
    with pytest.raises(ValueError, match="different nodes or graphs"):
        A + random_operator(0, nodes=4)
    with pytest.raises(ValueError, match="different nodes or graphs"):
        A + batch_operator()
    moved = SparseOperator(A.pattern, A.values, batch=BATCH.flip(0).sub(1).abs(), num_graphs=2)
    with pytest.raises(ValueError, match="different nodes or graphs"):
        moved + batch_operator()
    with pytest.raises(ValueError, match=r"\.bound\(\)"):
        A.spectrum()
    with pytest.raises(ValueError, match="another number"):
        SparseOperator(A.pattern, torch.ones(1))
    with pytest.raises(TypeError, match="real floating"):
        SparseOperator(A.pattern, torch.ones(A.pattern.nnz, dtype=torch.int64))
    with pytest.raises(ValueError, match='allowed: "row", "col", None'):
        SparseOperator(A.pattern, A.values, stochastic="rows")
    with pytest.raises(ValueError, match="metric is"):
        SparseOperator(A.pattern, A.values, metric=torch.ones(2))
    with pytest.raises(ValueError, match="2 graphs need batch="):
        SparseOperator(A.pattern, A.values, num_graphs=2)


def test_an_operator_says_what_it_is():
    P = from_dense(WALK, stochastic="row")
    assert repr(P) == "SparseOperator(2 nodes, float64, stochastic)"
    assert repr(batch_operator()) == "SparseOperator(5 nodes, 2 graphs, float64)"
