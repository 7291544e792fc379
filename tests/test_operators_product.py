"""The trilinear product: values, derivatives, dtypes, refusals, the counter."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from neuralpde.operators import (
    Pattern,
    SparseOperator,
    gather_dot,
    multiply,
    multiply_transposed,
    products,
)
from neuralpde.operators.trilinear import chunked_dot

F64 = torch.float64


def sample(nodes: int = 6, edges: int = 17, seed: int = 0) -> tuple[Pattern, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    row, col = torch.randint(0, nodes, (2, edges), generator=generator)
    pattern, _ = Pattern.from_edges(row, col, nodes)
    return pattern, torch.randn(pattern.nnz, generator=generator, dtype=F64)


def dense(pattern: Pattern, values: torch.Tensor) -> np.ndarray:
    matrix = np.zeros((pattern.num_nodes, pattern.num_nodes))
    matrix[pattern.row.numpy(), pattern.col.numpy()] = values.double().numpy()
    return matrix


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 2, 2), (6, 0), (6, 2, 0, 3)])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_products_are_those_of_the_dense_matrix(shape, dtype):
    pattern, values = sample()
    x, g = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    matrix = dense(pattern, values)
    expected = np.einsum("ij,j...->i...", matrix, x.numpy())
    assert np.allclose(multiply(pattern, values, x), expected, rtol=0, atol=1e-13)
    expected = np.einsum("ij,i...->j...", matrix, g.numpy())
    assert np.allclose(multiply_transposed(pattern, values, g), expected, rtol=0, atol=1e-13)
    flat_g, flat_x = g.numpy().reshape(6, -1), x.numpy().reshape(6, -1)
    pairs = (flat_g.conj() @ flat_x.T).real[pattern.row.numpy(), pattern.col.numpy()]
    assert np.allclose(gather_dot(pattern, g, x), pairs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("strided", [lambda x: x.T.contiguous().T, lambda x: x[:, :1].expand(6, 3)])
def test_strides_do_not_matter(strided):
    pattern, values = sample()
    x = strided(torch.randn(6, 3, dtype=F64))
    assert np.allclose(multiply(pattern, values, x), dense(pattern, values) @ x.numpy(), atol=1e-13)
    same = x.clone(memory_format=torch.contiguous_format)
    assert torch.allclose(gather_dot(pattern, x, x), gather_dot(pattern, same, same), atol=1e-13)


@pytest.mark.parametrize("form", [multiply, multiply_transposed])
@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 2, 2)])
def test_products_are_differentiable_twice_in_both_directions(form, shape):
    pattern, values = sample()
    inputs = (values.requires_grad_(), torch.randn(shape, dtype=F64, requires_grad=True))
    assert gradcheck(lambda v, x: form(pattern, v, x), inputs, check_forward_ad=True)
    assert gradgradcheck(lambda v, x: form(pattern, v, x), inputs, check_fwd_over_rev=True)


def test_the_product_at_the_entries_is_differentiable_twice_in_both_directions():
    pattern, _ = sample()
    inputs = tuple(torch.randn(6, 2, dtype=F64, requires_grad=True) for _ in range(2))
    assert gradcheck(lambda g, x: gather_dot(pattern, g, x), inputs, check_forward_ad=True)
    assert gradgradcheck(lambda g, x: gather_dot(pattern, g, x), inputs, check_fwd_over_rev=True)


def test_complex_states_have_right_gradients():
    pattern, values = sample()
    inputs = (values.requires_grad_(), torch.randn(6, 2, dtype=torch.cdouble, requires_grad=True))
    assert gradcheck(lambda v, x: multiply(pattern, v, x), inputs)
    assert gradgradcheck(lambda v, x: multiply(pattern, v, x), inputs)


def test_conjugate_views_are_seen_as_what_they_stand_for():
    pattern, values = sample()
    x = torch.randn(6, 2, dtype=torch.cdouble)
    assert torch.equal(multiply(pattern, values, x.conj()), multiply(pattern, values, x).conj())


def test_each_input_alone_may_require_gradients():
    pattern, values = sample()
    x = torch.randn(6, 2, dtype=F64)
    assert gradcheck(lambda v: multiply(pattern, v, x), (values.clone().requires_grad_(),))
    assert gradcheck(lambda y: multiply(pattern, values, y), (x.clone().requires_grad_(),))


def test_functional_transforms_see_through_the_product():
    pattern, values = sample()
    x, h = torch.randn(2, 6, 3, dtype=F64)
    A = SparseOperator(pattern, values)
    assert torch.allclose(torch.func.jvp(lambda y: A @ y, (x,), (h,))[1], A @ h, atol=1e-14)
    gradient = torch.func.grad(lambda v: (multiply(pattern, v, x) * h).sum())(values)
    assert torch.allclose(gradient, gather_dot(pattern, h, x), atol=1e-14)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_single(half):
    hub = torch.arange(1, 4001)
    pattern, _ = Pattern.from_edges(torch.zeros_like(hub), hub, 4001)
    values, x = torch.ones(4000, dtype=half), torch.full((4001, 2), 0.25, dtype=half)
    # Accumulated in half precision the sum sticks: at 64 in bfloat16, 512 in float16.
    y = SparseOperator(pattern, values) @ x
    assert y.dtype == half
    assert y[0].tolist() == [1000.0, 1000.0]
    assert torch.equal(SparseOperator(pattern, values.float()) @ x, y)
    assert gather_dot(pattern, x, x).dtype == half
    values.requires_grad_()
    (SparseOperator(pattern, values) @ x).sum().backward()
    assert values.grad.dtype == half
    assert torch.equal(values.grad, torch.full((4000,), 0.5, dtype=half))


def test_the_chunked_product_at_the_entries_is_the_fused_one(monkeypatch):
    monkeypatch.setattr("neuralpde.operators.trilinear.CHUNK", 10)
    pattern, _ = sample()
    g, x = torch.randn(2, 6, 3, dtype=F64)
    assert torch.allclose(chunked_dot(pattern, g, x), gather_dot(pattern, g, x), atol=1e-14)
    none, _ = Pattern.from_edges(torch.zeros(0).long(), torch.zeros(0).long(), 6)
    assert chunked_dot(none, g, x).shape == gather_dot(none, g, x).shape == (0,)


def test_infinite_entries_do_not_spoil_the_gradients_of_others():
    pattern = Pattern.identity(2)
    values = torch.tensor([torch.inf, 1.0], requires_grad=True)
    x = torch.tensor([[2.0], [3.0]])
    multiply(pattern, values, x).backward(torch.ones(2, 1))
    assert values.grad.tolist() == [2.0, 3.0]


def test_without_edges_everything_is_zero():
    none, _ = Pattern.from_edges(torch.zeros(0).long(), torch.zeros(0).long(), 4)
    values = torch.zeros(0, requires_grad=True)
    x = torch.ones(4, 2, requires_grad=True)
    y = multiply(none, values, x)
    y.sum().backward()
    assert not y.any()
    assert not x.grad.any()
    assert values.grad.shape == (0,)


def test_a_batch_multiplies_bit_for_bit_as_its_graphs_alone():
    for dtype in (torch.float32, F64):
        alone, rows, cols, values, states, nodes = [], [], [], [], [], 0
        for seed in range(12):
            size = 3 + 5 * seed
            pattern, v = sample(size, 4 * size, seed)
            x = torch.randn(size, 1 + 9, dtype=dtype)
            alone.append(multiply(pattern, v.to(dtype), x))
            rows.append(pattern.row + nodes)
            cols.append(pattern.col + nodes)
            values.append(v.to(dtype))
            states.append(x)
            nodes += size
        union, slot = Pattern.from_edges(torch.cat(rows), torch.cat(cols), nodes)
        assert torch.equal(slot, torch.arange(union.nnz))
        assert torch.equal(multiply(union, torch.cat(values), torch.cat(states)), torch.cat(alone))


def test_relabelling_nodes_relabels_the_product():
    pattern, values = sample()
    order = torch.randperm(6)
    place = torch.argsort(order)
    moved, slot = Pattern.from_edges(place[pattern.row], place[pattern.col.long()], 6)
    x = torch.randn(6, 3, dtype=F64)
    turned = multiply(moved, torch.zeros_like(values).index_add(0, slot, values), x[order])
    assert torch.allclose(turned, multiply(pattern, values, x)[order], atol=1e-14)


def test_products_are_counted_in_both_directions_of_autograd():
    pattern, values = sample()
    A = SparseOperator(pattern, values)
    x = torch.randn(6, 2, dtype=F64, requires_grad=True)
    start = products.total
    A @ x.detach()
    A.addmm_(torch.empty(6, 2, dtype=F64), x.detach())
    assert products.total - start == 2
    y = A @ x
    assert products.total - start == 3
    y.sum().backward()
    assert products.total - start == 4
    gather_dot(pattern, y, y)
    assert products.total - start == 4


def test_wrong_states_are_refused_with_the_mend():
    pattern, values = sample(4, 9)
    A = SparseOperator(pattern, values)
    with pytest.raises(ValueError, match="state has 5 rows, the operator acts on 4 nodes"):
        A @ torch.ones(5, 2, dtype=F64)
    with pytest.raises(ValueError, match="no rows"):
        A @ torch.ones((), dtype=F64)
    with pytest.raises(TypeError, match=r"operator.to\(torch.float32\)"):
        A @ torch.ones(4, 2)
    with pytest.raises(TypeError, match=r"operator.to\(torch.float32\)"):
        A @ torch.ones(4, 2, dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"state.to\(torch.float32\)"):
        A.to(torch.float32) @ torch.ones(4, 2, dtype=F64)
    with pytest.raises(TypeError, match="floating"):
        A @ torch.ones(4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="another number"):
        multiply(pattern, values[1:], torch.ones(4, 2, dtype=F64))
    with pytest.raises(ValueError, match="no dot product"):
        gather_dot(pattern, torch.ones(4, 2), torch.ones(4, 3))
    with pytest.raises(TypeError, match="dtype of the other"):
        gather_dot(pattern, torch.ones(4, 2), torch.ones(4, 2, dtype=F64))


def test_the_last_multiple_of_fixed_entries_is_made_once_and_of_learned_ones_anew() -> None:
    pattern = Pattern.identity(2)
    fixed = SparseOperator(pattern, torch.tensor([1.0, 2.0]))
    assert fixed * -1.0 is fixed * -1.0
    assert (fixed * 3.0).values.tolist() == [3.0, 6.0]
    assert (fixed * -1.0).values.tolist() == [-1.0, -2.0]
    scale = torch.tensor(2.0, requires_grad=True)
    assert (fixed * scale).values.requires_grad
    learned = SparseOperator(pattern, torch.tensor([1.0, 2.0], requires_grad=True))
    assert learned * 2.0 is not learned * 2.0
    assert (learned * 2.0).values.requires_grad
