"""Operators on nodes and channels: dense Kronecker products, spectra, exact and implicit solves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import catalogue, solve
from neuralpde.fields import Diffusion, Reaction
from neuralpde.graph import Graph
from neuralpde.operators import Kronecker, Operator, Quadratic, SparseOperator, identity
from solvers.exact import propagate
from solvers.imex import Shifted
from solvers.jacobian import Split
from tests.strategies import graphs

F64 = torch.float64


def symmetric(channels: int, seed: int = 0) -> Tensor:
    M = torch.randn(channels, channels, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return (M + M.T) / 2


def walk(graph: Graph, norm: str = "sym") -> SparseOperator:
    return graph.to(dtype=F64).adjacency(norm)


def kron(A: Tensor, W: Tensor) -> Tensor:
    """The matrix of x -> A x W on x.flatten()."""
    return torch.kron(A, (torch.diag(W) if W.dim() == 1 else W).T.contiguous())


def values(dense: Tensor) -> Tensor:
    return torch.linalg.eigvals(dense).real


GRAPH = catalogue.barbell(3, 1)


@pytest.mark.parametrize("W", [torch.randn(3, 3, dtype=F64), torch.randn(3, dtype=F64)])
def test_it_is_the_kronecker_product_of_dense_matrices(W: Tensor) -> None:
    A, x = walk(GRAPH, "row"), torch.randn(7, 3, dtype=F64)
    K, dense = Kronecker(A, W), kron(A.to_dense(), W)
    one, mix = identity(A), kron(torch.eye(7, dtype=F64), W)
    plain = kron(A.to_dense(), torch.eye(3, dtype=F64))
    eye = torch.eye(21, dtype=F64)
    for ours, expected in [
        (K, dense),
        (K.T, dense.T),
        (Kronecker.identity(A, W), mix),
        (Kronecker(one, W), mix),
        (2.0 * K - Kronecker.identity(A, W) / 4, 2.0 * dense - mix / 4),
        (K + A, dense + plain),
        (A + K, dense + plain),
        (K.shifted(3.0, -0.5), 3.0 * dense - 0.5 * eye),
        ((K + A).T, (dense + plain).T),
    ]:
        torch.testing.assert_close(ours.to_dense(), expected)
        torch.testing.assert_close((ours @ x).flatten(), expected @ x.flatten())
        norms = expected.abs().sum(1).max(), expected.abs().sum(0).max()
        assert all(bound >= true - 1e-12 for bound, true in zip(ours.norms(), norms, strict=True))
        assert ours.bound() >= torch.linalg.eigvals(expected).abs().max() - 1e-12
        means = expected.diagonal().view(7, 3).mean(1)
        torch.testing.assert_close(ours.diagonal(), means)
        assert not ours.separate


def test_a_quadratic_is_that_of_dense_matrices() -> None:
    A, x = walk(GRAPH, "row"), torch.randn(7, 3, dtype=F64)
    a, eye, c = A.to_dense(), torch.eye(7, dtype=F64), torch.tensor([0.5, -1.0, 2.0], dtype=F64)
    Q, per_channel = Quadratic(A, 0.5, -1.5, 2.0), Quadratic(A, 0.0, c, -1.0)
    dense = 0.5 * eye - 1.5 * a + 2.0 * a @ a
    for ours, expected in [(Q, dense), (Q.T, dense.T), (2.0 * Q + A, 2.0 * dense + a)]:
        torch.testing.assert_close(ours.to_dense(), expected)
        torch.testing.assert_close(ours.diagonal(), expected.diagonal())
        norms = expected.abs().sum(1).max(), expected.abs().sum(0).max()
        assert all(bound >= true - 1e-12 for bound, true in zip(ours.norms(), norms, strict=True))
        assert ours.separate
    apart = torch.stack([c[k] * (a @ x[:, k]) - a @ a @ x[:, k] for k in range(3)], dim=1)
    torch.testing.assert_close(per_channel @ x, apart)
    whole = per_channel.to_dense()
    torch.testing.assert_close((whole @ x.flatten()).view(7, 3), apart)
    torch.testing.assert_close(per_channel.diagonal(), whole.diagonal().view(7, 3).mean(1))
    assert not per_channel.separate


def test_states_may_have_more_axes_and_be_complex() -> None:
    A, W = walk(GRAPH), symmetric(3)
    x = torch.randn(7, 4, 3, dtype=torch.complex128)
    expected = torch.einsum("ij,jsk,kl->isl", A.to_dense().to(x), x, W.to(x))
    torch.testing.assert_close(Kronecker(A, W) @ x, expected)


def test_it_is_self_adjoint_where_both_factors_are() -> None:
    W, crooked = symmetric(3), torch.randn(3, 3, dtype=F64)
    A, P = walk(GRAPH), walk(GRAPH, "row")
    assert Kronecker(A, W).symmetric
    assert not Kronecker(A, crooked).self_adjoint
    assert torch.equal(Kronecker(P, W).metric, P.metric)
    both = Kronecker(P, W) + Kronecker.identity(P, W)
    assert torch.equal(both.metric, P.metric)
    L = GRAPH.to(dtype=F64).laplacian()
    assert Kronecker(L, crooked @ crooked.T / 2 + (crooked @ crooked.T).T / 2).psd
    assert not Kronecker(L, symmetric(3)).psd


@settings(max_examples=40)
@given(graphs(min_nodes=2), st.integers(0, 99), st.floats(-2, 2), st.floats(-2, 2))
def test_enclosures_hold_the_spectrum(graph: Graph, seed: int, scale: float, shift: float) -> None:
    for norm in ("sym", "row", "none"):
        A, W = walk(graph, norm), symmetric(2, seed)
        mixed = Kronecker(A, W)
        for K in (
            mixed,
            mixed.shifted(scale, shift),
            mixed + Kronecker.identity(A, torch.tensor([scale, shift], dtype=F64)),
            Quadratic(A, shift, scale, 1.0),
            Quadratic(A, shift, torch.tensor([scale, shift], dtype=F64), -1.0),
        ):
            (lo,), (hi,) = K.spectrum()
            found = values(K.to_dense())
            size = 1e-9 * max(1.0, float(K.bound()))
            assert lo <= found.min() + size
            assert found.max() - size <= hi


def test_enclosures_are_products_and_ranges_not_sums() -> None:
    A = walk(catalogue.ring(6))  # spectrum [-1, 1], with both ends
    (lo,), (hi,) = Kronecker(A, torch.tensor([2.0, -0.5], dtype=F64)).spectrum()
    torch.testing.assert_close(torch.stack([lo, hi]), torch.tensor([-2.0, 2.0], dtype=F64))
    (lo,), (hi,) = Quadratic(A, 0.0, 1.0, -1.0).spectrum()
    torch.testing.assert_close(torch.stack([lo, hi]), torch.tensor([-2.0, 0.25], dtype=F64))


def test_each_graph_of_a_batch_has_its_own_enclosure() -> None:
    union = Graph.union([catalogue.path(2), catalogue.star(5)])
    A = walk(union, "none")
    K = Kronecker(A, torch.tensor([3.0], dtype=F64))
    _, hi = K.spectrum()
    assert hi[0] < hi[1]
    torch.testing.assert_close(hi[0], torch.tensor(3.0, dtype=F64))
    assert Quadratic(A, 0.0, 0.0, 1.0).spectrum()[1].shape == (2,)


@pytest.mark.parametrize("kind", ["matrix", "vector", "quadratic", "channels"])
def test_products_are_differentiable_twice_in_everything(kind: str) -> None:
    base, x = walk(GRAPH, "row"), torch.randn(7, 2, dtype=F64, requires_grad=True)

    def act(entries: Tensor, W: Tensor, x: Tensor) -> Tensor:
        A = SparseOperator(base.pattern, entries)
        K: Operator
        if kind in ("matrix", "vector"):
            K = Kronecker(A, W) * 0.5 + Kronecker.identity(A, W)
        elif kind == "quadratic":
            K = Quadratic(A, W[0], W[1], W[2])
        else:
            K = Quadratic(A, W[0], W[1:3], W[3:])
        return K @ x + K.T @ x

    shapes = {"matrix": (2, 2), "vector": (2,), "quadratic": (3,), "channels": (5,)}
    W = torch.randn(*shapes[kind], dtype=F64, requires_grad=True)
    inputs = (base.values.clone().requires_grad_(), W, x)
    assert gradcheck(act, inputs)
    assert gradgradcheck(act, inputs)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_gradients_are_those_of_autograd(dtype: torch.dtype) -> None:
    base = walk(GRAPH, "row")
    leaf = base.values.clone().requires_grad_()
    A = SparseOperator(base.pattern, leaf)
    W, w = (torch.randn(*s, dtype=F64, requires_grad=True) for s in ((3, 3), (3,)))
    c = torch.tensor(0.3, dtype=F64, requires_grad=True)
    x, g = torch.randn(2, 7, 3, dtype=dtype)
    for K in (
        Kronecker(A, W),
        Kronecker(A, w) + Kronecker.identity(A, W),
        Kronecker.identity(A, w),
        Quadratic(A, c, w, -2.0),
    ):
        fresh = K.fresh()
        assert all(a is not b for a, b in zip(K.tensors, fresh.tensors, strict=True))
        expected = torch.autograd.grad((g.conj() * (fresh @ x)).sum().real, fresh.tensors)
        for ours, theirs in zip(fresh.gradients(g, x), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
            assert not ours.requires_grad


def test_a_fused_step_is_the_sum_it_stands_for() -> None:
    A, x = walk(GRAPH), torch.randn(7, 3, dtype=F64)
    for K in (
        Kronecker(A, symmetric(3)),
        Kronecker(A, symmetric(3)[0]),
        Quadratic(A, 1.0, 2.0, 3.0),
    ):
        y = torch.randn(7, 3, dtype=F64)
        expected = 0.5 * y + 2.0 * (K @ x)
        assert K.addmm_(y, x, 2.0, 0.5) is y
        torch.testing.assert_close(y, expected)
        y.fill_(torch.nan)
        torch.testing.assert_close(K.addmm_(y, x, 3.0), 3.0 * (K @ x))


def test_a_cast_keeps_what_is_known() -> None:
    A = walk(GRAPH)
    for K in (
        Kronecker(A, symmetric(3)),
        Kronecker.identity(A, symmetric(3)),
        Quadratic(A, 1, 2, 3),
    ):
        single = K.to(torch.float32)
        assert single.dtype == torch.float32
        assert single.symmetric
        assert K.to(F64) is K
        torch.testing.assert_close(single.to_dense().double(), K.to_dense(), rtol=1e-6, atol=1e-6)
        found = values(single.to_dense().double())
        assert single.spectrum()[0] <= found.min()
        assert found.max() <= single.spectrum()[1]


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("norm", ["sym", "row"])
def test_exact_solves_mix_channels_whatever_their_number(channels: int, norm: str) -> None:
    # More than 32 columns are propagated in pieces, unless they see each other.
    A, W = walk(GRAPH, norm), symmetric(channels) / channels**0.5
    K = Kronecker(A, W) - Kronecker.identity(A, W[0] ** 2)
    x = torch.randn(7, channels, dtype=F64)
    found = propagate(K, x, torch.tensor([0.0, 0.8, 2.0], dtype=F64), rtol=1e-10, source=x.flip(0))
    for t, ours in zip((0.8, 2.0), found.x[1:], strict=True):
        augmented = torch.zeros(7 * channels + 1, 7 * channels + 1, dtype=F64)
        augmented[:-1, :-1], augmented[:-1, -1] = K.to_dense() * t, x.flip(0).flatten() * t
        whole = torch.linalg.matrix_exp(augmented)
        expected = whole[:-1, :-1] @ x.flatten() + whole[:-1, -1]
        torch.testing.assert_close(ours.flatten(), expected, rtol=1e-8, atol=1e-8)


def test_exact_solves_are_differentiable_in_the_channel_weights() -> None:
    A, x = walk(GRAPH), torch.randn(7, 2, dtype=F64)
    half = torch.randn(2, 2, dtype=F64, requires_grad=True)

    def final(half: Tensor, grad: str) -> Tensor:
        K = Kronecker(A, half + half.T)
        return propagate(K, x, torch.tensor([0.0, 1.5]), rtol=1e-11, grad=grad).x[-1]

    dense = torch.linalg.matrix_exp(1.5 * torch.kron(A.to_dense(), half + half.T))
    expected = torch.autograd.grad((dense @ x.flatten()).pow(3).sum(), half)
    for grad in ("reversible", "tape"):
        found = torch.autograd.grad(final(half, grad).pow(3).sum(), half)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("solver", ["trbdf2", "etdrk2", "ars222", "rkl2", "tsit5"])
@pytest.mark.parametrize("kind", ["kronecker", "quadratic"])
def test_every_kind_of_solver_takes_them(solver: str, kind: str) -> None:
    A = GRAPH.to(dtype=F64).laplacian()
    W, c = symmetric(3) + 3.0 * torch.eye(3, dtype=F64), torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    K = -Kronecker(A, W) if kind == "kronecker" else Quadratic(A, -0.1, -c, -0.5)
    x = torch.randn(7, 3, dtype=F64)
    expected = torch.linalg.matrix_exp(0.3 * (K.to_dense() - torch.eye(21))) @ x.flatten()
    # Decay counts as a rest, so that there is something to split.
    field = Diffusion(lambda graph, x0: K) + Reaction([0.0, -1.0])
    final = solve(field, x, 0.3, GRAPH, solver=solver, rtol=1e-4, atol=1e-5).final
    torch.testing.assert_close(final.flatten(), expected, rtol=1e-2, atol=2e-3)


def test_implicit_systems_are_not_cut_into_columns_that_see_each_other() -> None:
    L, W = GRAPH.to(dtype=F64).laplacian(), torch.ones(3, 3, dtype=F64)
    K, b = -Kronecker(L, W), torch.randn(7, 3, dtype=F64)
    y, lost = Shifted(K).solve(np.array([2.0]), b, np.array([1e-11]))
    expected = torch.linalg.solve(torch.eye(21, dtype=F64) - 2.0 * K.to_dense(), b.flatten())
    assert not lost.any()
    torch.testing.assert_close(y.flatten(), expected)
    assert not Split(K, None, None, b, lambda: None).separate
    assert Split(-L, None, None, b, lambda: None).separate
    field, x = Diffusion(lambda graph, x0: K), torch.randn(7, 3, dtype=F64)
    final = solve(field, x, 1.0, GRAPH, solver="implicit_euler", steps=1).final
    expected = torch.linalg.solve(torch.eye(21, dtype=F64) - K.to_dense(), x.flatten())
    torch.testing.assert_close(final.flatten(), expected, rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_refused_in_words() -> None:
    A, W = walk(GRAPH), symmetric(3)
    K, x = Kronecker(A, W), torch.ones(7, 3, dtype=F64)
    with pytest.raises(ValueError, match="mixes the 3 channels"):
        K @ x[:, :2]
    with pytest.raises(ValueError, match="channels are mixed by a matrix"):
        Kronecker(A, W[:2])
    with pytest.raises(TypeError, match=r"use A\.to"):
        Kronecker(A, W.float())
    with pytest.raises(ValueError, match="mixes channels already"):
        Kronecker(K, W)
    with pytest.raises(ValueError, match="polynomial for each of 3 channels"):
        Quadratic(A, W[0], 1.0, 1.0) @ x[:, :2]
    with pytest.raises(ValueError, match="for all that differ"):
        Quadratic(A, W[0], W[0, :2], 1.0)
    with pytest.raises(ValueError, match="this operator mixes them"):
        propagate(K, x, torch.tensor([0.0, 1.0]), rtol=1e-6, method="lanczos")
