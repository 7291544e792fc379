"""Operators with a strength per channel, against their Kronecker products."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Diffusion, Reaction, Sum
from neuralpde.operators import ChannelScaled
from solvers.exact import propagate
from tests.strategies import graphs

F64 = torch.float64
SCALES = torch.tensor([0.0, 0.5, 3.0], dtype=F64)


def of(graph: Graph, norm: str = "rw", scales: Tensor = SCALES) -> ChannelScaled:
    return ChannelScaled(-graph.laplacian(norm, dtype=F64), scales)


@settings(max_examples=15)
@given(graphs(min_nodes=2))
def test_products_and_transposes_are_those_of_the_kronecker_product(graph: Graph) -> None:
    A, x = of(graph), torch.randn(graph.num_nodes, 3, dtype=F64)
    L = graph.laplacian("rw", dtype=F64).to_dense()
    K = torch.kron(-L, torch.diag(SCALES))
    torch.testing.assert_close((A @ x).flatten(), K @ x.flatten())
    torch.testing.assert_close((A.T @ x).flatten(), K.T @ x.flatten())
    torch.testing.assert_close(A.to_dense(), K)
    y = torch.randn_like(x)
    expected = 0.5 * y.flatten() - 2.0 * K @ x.flatten()
    torch.testing.assert_close(A.addmm_(y, x, -2.0, 0.5).flatten(), expected)
    nothing = torch.full_like(x, torch.nan)
    torch.testing.assert_close(A.addmm_(nothing, x).flatten(), K @ x.flatten())
    assert all(
        (bound >= K.abs().sum(dim).max() - 1e-12)
        for bound, dim in zip(A.norms(), (1, 0), strict=True)
    )


@settings(max_examples=15)
@given(graphs(min_nodes=2))
def test_the_enclosure_holds_every_channel_and_is_tight_in_the_fastest(graph: Graph) -> None:
    for norm in ("comb", "sym", "rw"):
        A = of(graph, norm)
        lo, hi = A.spectrum()
        values = torch.linalg.eigvals(A.to_dense()).real
        assert lo <= values.min() + 1e-12
        assert values.max() - 1e-12 <= hi
        plain = graph.laplacian(norm, dtype=F64).spectrum()[1]
        torch.testing.assert_close(lo, -3.0 * plain, rtol=1e-12, atol=1e-12)
        assert A.generator == ("row" if norm != "sym" else A.generator)
        assert A.self_adjoint
        assert A.rate >= -A.to_dense().diagonal().min() - 1e-12


def test_gradients_reach_entries_and_scales_twice() -> None:
    graph = catalogue.path(3)
    L = graph.laplacian("comb", dtype=F64)
    x = torch.randn(3, 2, dtype=F64, requires_grad=True)
    values, scales = L.values.clone().requires_grad_(), SCALES[1:].clone().requires_grad_()

    def product(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
        return ChannelScaled(L._like(L.pattern, values, L.tags), scales) @ x

    assert gradcheck(product, (x, values, scales))
    assert gradgradcheck(product, (x, values, scales))
    A = ChannelScaled(L._like(L.pattern, values, L.tags), scales)
    g = torch.randn(3, 2, dtype=F64)
    taped = torch.autograd.grad((g * (A @ x)).sum(), A.tensors)
    for got, expected in zip(A.gradients(g, x), taped, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("channels", [3, 70])
@pytest.mark.parametrize("norm", ["comb", "rw", "sym"])
def test_exact_solves_are_right_in_every_channel(norm: str, channels: int) -> None:
    # With 70 channels a plain operator would be propagated in pieces of 32 columns.
    graph = catalogue.barbell(4, 1)
    scales = torch.linspace(0, 3, channels, dtype=F64)
    x = torch.randn(9, channels, dtype=F64)
    L = graph.laplacian(norm, dtype=F64).to_dense()
    expected = [torch.linalg.matrix_exp(-s * L) @ x[:, k] for k, s in enumerate(scales)]
    methods = ("chebyshev", "uniformisation") if norm != "sym" else ("chebyshev",)
    for method in methods:
        found = propagate(
            of(graph, norm, scales), x, torch.tensor([0.0, 1.0]), rtol=1e-11, method=method
        )
        torch.testing.assert_close(found.x[1], torch.stack(expected, 1), rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="use method='chebyshev'"):
        propagate(of(graph, norm, scales), x, torch.tensor([0.0, 1.0]), rtol=1e-6, method="lanczos")


@pytest.mark.parametrize(
    ("solver", "off"),
    [("implicit_euler", 3e-2), ("trbdf2", 1e-3), ("etdrk2", 1e-4), ("ars222", 1e-3)],
)
def test_other_solvers_of_linear_parts_agree(solver: str, off: float) -> None:
    graph, x = catalogue.grid(3, 3), torch.randn(9, 3, dtype=F64)
    field = Sum(Diffusion(lambda graph, x0: of(graph)), Reaction([0.0, -0.2]))
    L = graph.laplacian("rw", dtype=F64).to_dense()
    expected = [
        torch.linalg.matrix_exp(-s * L - 0.2 * torch.eye(9)) @ x[:, k] for k, s in enumerate(SCALES)
    ]
    found = solve(field, x, 1.0, graph, solver=solver, steps=40).final
    assert (found - torch.stack(expected, 1)).abs().max() < off


def test_wrong_scales_are_refused_in_words() -> None:
    L = catalogue.path(3).laplacian(dtype=F64)
    with pytest.raises(ValueError, match="none negative"):
        ChannelScaled(L, torch.tensor([1.0, -1.0], dtype=F64))
    with pytest.raises(TypeError, match="float64"):
        ChannelScaled(L, torch.ones(2))
    A = ChannelScaled(L, torch.ones(2, dtype=F64))
    with pytest.raises(ValueError, match="treats channels differently already"):
        ChannelScaled(A, torch.ones(2, dtype=F64))
    with pytest.raises(ValueError, match=r"takes \[nodes, 2\]"):
        A @ torch.ones(3, 4, dtype=F64)
