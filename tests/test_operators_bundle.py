"""Orthogonal matrices, and flat bundles as graph operators in frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import catalogue
from neuralpde.graph import Graph
from neuralpde.operators import BundleOperator, orthogonal, sheaf_laplacian
from tests.sheaves import F64
from tests.strategies import graphs

WAYS = ("householder", "cayley", "exponential")


def frames_of(nodes: int, stalk: int, by: str = "householder", seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = stalk * (stalk - 1) // 2
    return orthogonal(torch.randn(nodes, count, generator=generator, dtype=F64), stalk, by)


@settings(max_examples=20)
@given(st.sampled_from(WAYS), st.integers(1, 6), st.integers(0, 2**16))
def test_matrices_are_orthogonal_with_a_constant_determinant(by: str, dims: int, seed: int) -> None:
    Q = frames_of(5, dims, by, seed)
    eye = torch.eye(dims, dtype=F64).expand(5, dims, dims)
    torch.testing.assert_close(Q.mT @ Q, eye, rtol=0, atol=1e-13)
    sign = (-1.0) ** dims if by == "householder" else 1.0
    torch.testing.assert_close(torch.linalg.det(Q), torch.full((5,), sign, dtype=F64))
    # Two of a kind differ by a rotation.
    assert (torch.linalg.det(Q.mT @ Q.flip(0)) > 0).all()


def test_each_way_is_its_formula() -> None:
    a, b, c = 0.3, -0.7, 1.1
    S = torch.tensor([[0.0, -a, -b], [a, 0.0, -c], [b, c, 0.0]], dtype=F64)
    eye, numbers = torch.eye(3, dtype=F64), torch.tensor([[a, b, c]], dtype=F64)
    cayley = torch.linalg.inv(eye - S) @ (eye + S)
    torch.testing.assert_close(orthogonal(numbers, 3, "cayley")[0], cayley)
    angle = torch.tensor([[0.4]], dtype=F64)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]], dtype=F64)
    torch.testing.assert_close(orthogonal(angle, 2, "exponential")[0], turn)
    v = torch.tensor([1.0, 0.4], dtype=F64)
    H = torch.eye(2, dtype=F64) - 2 * torch.outer(v, v) / (v @ v)
    last = torch.diag(torch.tensor([1.0, -1.0], dtype=F64))
    torch.testing.assert_close(orthogonal(angle, 2)[0], H @ last)


@pytest.mark.parametrize("by", WAYS)
def test_they_are_differentiable_twice(by: str) -> None:
    numbers = torch.randn(2, 3, dtype=F64, requires_grad=True)
    assert gradcheck(lambda n: orthogonal(n, 3, by), numbers)
    assert gradgradcheck(lambda n: orthogonal(n, 3, by), numbers)


@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
def test_the_spectrum_is_that_of_the_graph_with_multiplicity(norm: str) -> None:
    graph, stalk = catalogue.barbell(3, 1), 3
    L = graph.laplacian(norm, dtype=F64)
    A = BundleOperator(frames_of(7, stalk), L)
    of_graph = torch.linalg.eigvals(L.to_dense()).real.sort().values
    found = torch.linalg.eigvals(A.to_dense()).real.sort().values
    torch.testing.assert_close(found, of_graph.repeat_interleave(stalk), rtol=0, atol=1e-6)
    assert torch.equal(A.spectrum()[1], L.spectrum()[1])
    assert (A.symmetric, A.psd, A.self_adjoint) == (L.symmetric, L.psd, True)
    assert A.generator is None
    assert torch.equal(A.diagonal().flatten(), L.diagonal().repeat_interleave(stalk))
    dense = A.to_dense()
    for bound, axis in zip(A.norms(), (1, 0), strict=True):
        assert dense.abs().sum(axis).max() <= bound


@settings(max_examples=10)
@given(graphs(), st.integers(1, 3))
def test_it_is_the_sheaf_whose_maps_are_the_frames(graph: Graph, stalk: int) -> None:
    frames = frames_of(graph.num_nodes, stalk)
    L = sheaf_laplacian(graph, frames[graph.edge_index[1]], orthogonal=True)
    A = BundleOperator(frames, graph.laplacian(dtype=F64))
    torch.testing.assert_close(A.to_dense(), L.to_dense(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_several_bundles_share_the_channels(dtype: torch.dtype) -> None:
    graph = catalogue.barbell(3, 1)
    L, frames = graph.laplacian("rw", dtype=F64), frames_of(14, 2).view(7, 2, 2, 2)
    x = torch.randn(7, 2, 6, dtype=dtype)
    found = BundleOperator(frames, L) @ x
    for k, part in enumerate(x.split(3, 2)):
        alone = BundleOperator(frames[:, k].contiguous(), L) @ part
        torch.testing.assert_close(found[:, :, 3 * k : 3 * k + 3], alone)


def test_products_are_differentiable_twice_and_gradients_agree() -> None:
    graph = catalogue.path(3)
    L = graph.laplacian("rw", dtype=F64)
    frames = frames_of(6, 2).view(3, 2, 2, 2).requires_grad_()
    x = torch.randn(3, 2, 2, dtype=F64, requires_grad=True)

    def product(frames: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return BundleOperator(frames, L) @ x

    assert gradcheck(product, (frames, x))
    assert gradgradcheck(product, (frames, x))
    A, g = BundleOperator(frames, L), torch.randn_like(x)
    (expected,) = torch.autograd.grad((g * (A @ x)).sum(), frames)
    torch.testing.assert_close(A.gradients(g, x)[0], expected)
    torch.testing.assert_close(A.T @ g, torch.autograd.grad((g * (A @ x)).sum(), x)[0])


def test_the_algebra_is_that_of_the_graph() -> None:
    graph = catalogue.ring(5)
    L = graph.laplacian(dtype=F64)
    frames = frames_of(5, 2)
    A = BundleOperator(frames, L)
    dense, eye = A.to_dense(), torch.eye(10, dtype=F64)
    torch.testing.assert_close((2.0 * A).shifted(1.0, 3.0).to_dense(), 2 * dense + 3 * eye)
    torch.testing.assert_close((A + BundleOperator(frames, L)).to_dense(), 2 * dense)
    assert A.to(torch.float32).dtype is torch.float32
    fresh = BundleOperator(frames.requires_grad_(), L).fresh()
    assert fresh.tensors[0] is not frames
    with pytest.raises(ValueError, match="same frames"):
        A + BundleOperator(frames.detach().clone(), L)
    with pytest.raises(ValueError, match="same frames"):
        L + A
    with pytest.raises(TypeError, match=r"use operator.to"):
        BundleOperator(frames.float(), L)
    with pytest.raises(ValueError, match=r"frames \[5, stalk, stalk\]"):
        BundleOperator(frames[:4], L)
    with pytest.raises(ValueError, match="did you mean"):
        orthogonal(torch.zeros(1, 1), 2, "caley")
    with pytest.raises(ValueError, match=r"\[many, 3\]"):
        orthogonal(torch.zeros(1, 2), 3)
