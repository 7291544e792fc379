"""Wavelets: filters by their formula, frames, and polynomials instead of eigendecompositions."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.polynomial import chebyshev
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import FilterBank, WaveletFilters
from neuralpde.operators import Series
from neuralpde.testing import check_field
from tests.strategies import graphs

F64 = torch.float64
LAMBDA = torch.linspace(0, 2, 401, dtype=F64)


def shuffled(**settings: object) -> FilterBank:
    bank = FilterBank(**settings).double()
    with torch.no_grad():
        for p in bank.parameters():
            p.add_(torch.randn_like(p))
    return bank


def published(bank: FilterBank, x: np.ndarray) -> np.ndarray:
    """The formulas of the paper, with terms by numpy; no tight frame."""

    def mixed(logits: Tensor, orders: range, y: np.ndarray) -> np.ndarray:
        weights = logits.detach().softmax(0).numpy()
        terms = [0.5 * (1 - chebyshev.chebval(y, [0] * k + [1])) for k in orders]
        return sum(w * term for w, term in zip(weights, terms, strict=True))

    rows = [mixed(bank.a, range(1, 2 * bank.order, 2), x - 1)]
    for s in (bank.reach * bank.s.detach().sigmoid()).tolist():
        moved = s * x
        # The published code moves what it cuts off to 0, where g is 0.
        cut, bent = np.where(moved > 2, 0.0, moved), 2 * np.tanh(moved / 2)
        moved = cut if bank.cut == "sharp" else bent
        rows.append(mixed(bank.b, range(2, 2 * bank.order + 1, 2), moved - 1))
    return np.stack(rows)


@pytest.mark.parametrize("cut", ["smooth", "sharp"])
@pytest.mark.parametrize("reach", [1.0, 5.0])
def test_filters_are_those_of_the_paper(cut: str, reach: float) -> None:
    bank = shuffled(scales=3, order=4, cut=cut, reach=reach)
    assert np.allclose(bank.response(LAMBDA).detach(), published(bank, LAMBDA.numpy()), atol=1e-12)


@pytest.mark.parametrize("cut", ["smooth", "sharp"])
@pytest.mark.parametrize("tight", [False, True])
def test_filters_are_admissible(cut: str, tight: bool) -> None:
    bank = shuffled(cut=cut, tight=tight, reach=1.5)
    values = bank.response(LAMBDA).detach()
    assert values[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert values.min() >= 0
    assert values.max() <= 1 + 1e-15
    exact = bank.response(torch.zeros(1)).flatten()
    through = copy.deepcopy(bank)
    through.tol = 1e-2
    assert torch.allclose(
        through.polynomials()(torch.zeros(1)).flatten(), exact, rtol=0, atol=1e-13
    )


def test_the_published_cut_has_a_kink_but_no_jump() -> None:
    bank = FilterBank(scales=1, order=3, reach=4.0, cut="sharp")  # s = 2, cut at 1
    left, at, right = bank.response(torch.tensor([1 - 1e-9, 1.0, 1 + 1e-9]).double())[1].tolist()
    assert abs(left - at) < 1e-6
    assert at == right == 0.0
    with pytest.raises(ValueError, match="a kink"):
        bank.polynomials()


def test_without_a_cut_filters_are_polynomials_of_their_order() -> None:
    bank = shuffled(order=3, reach=1.0, cut="sharp", tol=1e-12)
    assert bank.polynomials().degree <= 6


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("tight", [False, True])
def test_polynomials_keep_to_the_tolerance(tol: float, tight: bool) -> None:
    bank = shuffled(tol=tol, tight=tight)
    found = bank.polynomials()
    off = float((found(LAMBDA) - bank.response(LAMBDA)).detach().abs().max())
    assert off <= found.error <= 1.01 * tol


def bands(bank: FilterBank, graph: Graph, x: Tensor) -> Tensor:
    series = Series(graph.laplacian("sym", dtype=F64), (0.0, 2.0))
    return series.analysis(bank.polynomials().coefficients, x)


@settings(max_examples=10)
@given(graphs(min_nodes=2))
def test_bands_are_those_of_an_eigendecomposition(graph: Graph) -> None:
    bank, x = shuffled(tol=1e-9), torch.randn(graph.num_nodes, 2, dtype=F64)
    values, vectors = torch.linalg.eigh(graph.laplacian("sym", dtype=F64).to_dense())
    expected = torch.stack(
        [(vectors * g) @ vectors.T @ x for g in bank.response(values.clamp(0, 2))]
    )
    torch.testing.assert_close(bands(bank, graph, x), expected, rtol=1e-7, atol=1e-7)


@settings(max_examples=10)
@given(graphs(min_nodes=2))
def test_a_tight_frame_keeps_norms(graph: Graph) -> None:
    bank, x = shuffled(tol=1e-9, tight=True), torch.randn(graph.num_nodes, 2, dtype=F64)
    sums = bank.response(LAMBDA).square().sum(0)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    torch.testing.assert_close(
        bands(bank, graph, x).square().sum(), x.square().sum(), rtol=1e-7, atol=1e-7
    )


def test_filters_that_vanish_together_make_no_frame() -> None:
    bank = FilterBank(scales=2, reach=10.0, cut="sharp", tight=True, tol=1e-1)
    with pytest.raises(ValueError, match="no tight frame"):
        bank.polynomials()


def linear(tight: bool) -> WaveletFilters:
    field = WaveletFilters(2, FilterBank(tight=tight, tol=1e-10), act=lambda x: x).double()
    with torch.no_grad():
        field.theta.copy_(torch.eye(2).expand_as(field.theta))
    return field


def test_the_flow_of_a_tight_frame_without_activation_stands_still() -> None:
    graph, x = catalogue.barbell(4, 1), torch.randn(9, 2, dtype=F64)
    assert linear(True).bind(graph, x)(torch.tensor(0.0), x).abs().max() < 1e-8
    assert linear(False).bind(graph, x)(torch.tensor(0.0), x).abs().max() > 1e-2


def test_the_flow_without_activation_is_an_exponential_in_the_eigenbasis() -> None:
    graph, x, field = catalogue.barbell(4, 1), torch.randn(9, 2, dtype=F64), linear(False)
    values, vectors = torch.linalg.eigh(graph.laplacian("sym", dtype=F64).to_dense())
    with torch.no_grad():
        rates = field.bank.response(values.clamp(0, 2)).square().sum(0) - 1
        expected = (vectors * torch.exp(2.0 * rates)) @ vectors.T @ x
        found = solve(field, x, 2.0, graph, rtol=1e-8, atol=1e-9).final
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_gradients_reach_scales_and_weights_of_the_filters() -> None:
    graph, x = catalogue.barbell(3, 1), torch.randn(7, 2, dtype=F64)
    field = WaveletFilters(2, FilterBank(scales=2, order=2, tol=1e-11)).double()

    def loss() -> Tensor:
        return field.bind(graph, x)(torch.tensor(0.0), x).pow(2).sum()

    for parameter in (field.bank.s, field.bank.a, field.bank.b):
        (grad,) = torch.autograd.grad(loss(), parameter)
        for i in range(len(parameter)):
            with torch.no_grad():
                parameter[i] += 1e-5
                above = loss()
                parameter[i] -= 2e-5
                below = loss()
                parameter[i] += 1e-5
            assert float(grad[i]) == pytest.approx(float(above - below) / 2e-5, rel=1e-5, abs=1e-7)


def test_it_keeps_the_contract() -> None:
    field = WaveletFilters(2, FilterBank(scales=1, order=2, tol=1e-2))
    check_field(field, catalogue.barbell(3, 1))
    bound = field.double().bind(catalogue.path(3), torch.zeros(3, 2, dtype=F64))
    assert [name for name, _ in bound.named_parameters()] == []
    assert len(bound.leaves()) == 2


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="did you mean 'smooth'"):
        FilterBank(cut="smoth")
    with pytest.raises(ValueError, match="at least one wavelet"):
        FilterBank(scales=0)
    with pytest.raises(ValueError, match=r"takes \[nodes, 3\]"):
        WaveletFilters(3).bind(catalogue.path(4), torch.zeros(4, 2))
