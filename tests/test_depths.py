"""Trained models along time and depth: readings against eigenvectors and hand-made decoders."""

import math

import numpy as np
import pytest
import torch
from strategies import dense
from torch import Tensor, nn

from analysis.depths import along, depth_of, last_of
from analysis.plots import PAGE, depths
from neuralpde import catalogue, data
from neuralpde.fields import Heat
from neuralpde.models import Convolutions, NodeModel, Recipe

TIMES = (0.0, 1.0, 8.0, 40.0)


def scaled(A: Tensor) -> Tensor:
    """D^(-1/2) A D^(-1/2)."""
    root = A.sum(1).rsqrt()
    return root[:, None] * A * root


def test_heat_is_read_as_its_eigenvectors_say() -> None:
    """Accuracy, quotient, norm and rank of e^(-tL) x, from a dense eigendecomposition."""
    graph = catalogue.path(9)
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(9) % 3
    model = NodeModel(nn.Identity(), Heat("sym"), nn.Identity(), channels=3, rtol=1e-9)
    rows = along(model, x, y, graph, y >= 0, TIMES)
    L = np.eye(9) - scaled(dense(graph)).numpy()
    values, vectors = np.linalg.eigh(L)
    for t, row in zip(TIMES, rows, strict=True):
        state = vectors @ (np.exp(-t * values)[:, None] * (vectors.T @ x.numpy()))
        s = np.linalg.svd(state, compute_uv=False)
        p = s[s > 1e-7 * s[0]] / s.sum()
        assert row.depth == t
        assert row.accuracy == (state.argmax(1) == y.numpy()).mean()
        assert row.norm == pytest.approx(math.log10(np.linalg.norm(state)), abs=1e-7)
        assert row.rayleigh == pytest.approx((state * (L @ state)).sum() / (state**2).sum())
        assert row.rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_times_are_those_that_were_asked_for_and_the_model_stays_as_it_was() -> None:
    model = NodeModel(nn.Identity(), Heat("sym"), nn.Linear(2, 2), channels=2).train()
    graph, y = catalogue.ring(4), torch.tensor([0, 1, 0, 1])
    rows = along(model, torch.eye(4, 2), y, graph, y >= 0, (2.0, 3.0))
    assert [row.depth for row in rows] == [2.0, 3.0]
    assert model.training
    assert next(model.parameters()).dtype == torch.float32


def test_growth_beyond_single_precision_is_followed_and_told() -> None:
    """x' = A x on a ring multiplies the constant by e^t: 100 / log 10 decades."""
    recipe = Recipe("graff", 2, 2, 2, {"weights": "diag", "external": False}, end=1.0)
    model = recipe.build()
    field: Tensor = model.field.weights.offset
    model.encoder = nn.Identity()
    with torch.no_grad():
        field.fill_(1.0)
    graph, y = catalogue.ring(5), torch.zeros(5, dtype=torch.int64)
    rows = along(model, torch.ones(5, 2), y, graph, y == 0, (10.0, 100.0))
    for row in rows:
        expected = row.depth / math.log(10) + math.log10(10) / 2
        assert row.norm == pytest.approx(expected, abs=2e-3)
        assert row.rayleigh == pytest.approx(0.0, abs=1e-6)
    assert [row.overflows for row in rows] == [False, True]


@pytest.mark.parametrize(("value", "norm"), [(0.0, -math.inf), (math.inf, math.inf),
                                             (math.nan, math.inf)])  # fmt: skip
def test_states_of_no_size_have_no_shape(value: float, norm: float) -> None:
    y = torch.tensor([0, 1, 0])
    row = depth_of(1.0, torch.full((3, 2), value), torch.eye(3, 2), y, catalogue.path(3), y < 1)
    assert row.norm == norm
    assert math.isnan(row.rayleigh)
    assert math.isnan(row.rank)
    assert row.overflows == (norm > 0)


def test_layers_are_read_before_the_last_one() -> None:
    """What the last convolution gets is the activated output of those before it."""
    found = data.load("karate")
    assert found.x is not None
    assert found.y is not None
    torch.manual_seed(0)
    deep = Convolutions("gcn", 34, 4, 4, layers=3).train()
    row = last_of(deep, 3, found.x, found.y, found.graph, found.y >= 0)
    A = scaled(dense(found.graph) + torch.eye(34)).float()
    state, out = found.x, found.x
    for k, layer in enumerate(deep.layers):
        state = out
        weight = dict(layer.lin.named_parameters(recurse=True)).popitem()[1]
        out = A @ (state @ weight.T) + layer.bias
        out = out.relu() if k < 2 else out
    assert row.norm == pytest.approx(math.log10(float(state.detach().norm())), abs=1e-5)
    assert row.accuracy == pytest.approx(float((out.argmax(1) == found.y).double().mean()))


def test_flows_are_read_at_their_end() -> None:
    graph, y = catalogue.ring(6), torch.arange(6) % 2
    model = NodeModel(nn.Identity(), Heat("sym"), nn.Identity(), channels=2, end=3.0)
    x = torch.eye(6, 2)
    (row,) = along(model, x, y, graph, y >= 0, (3.0,))
    last = last_of(model, 3.0, x, y, graph, y >= 0)
    assert (last.rayleigh, last.norm) == pytest.approx((row.rayleigh, row.norm), rel=1e-3)


def test_figures_have_a_panel_for_each_quantity() -> None:
    y = torch.tensor([0, 1, 0])
    rows = [
        depth_of(t, torch.eye(3, 2) * 10**t, torch.eye(3, 2), y, catalogue.path(3), y < 2)
        for t in (1.0, 40.0)
    ]
    figure = depths({"a": rows, "b": rows[:1]}, published={"a": rows}, width=PAGE, end=2.0)
    assert len(figure.axes) == 4
    line = figure.axes[0].lines[0]
    assert line.get_ydata().tolist() == [100 * row.accuracy for row in rows]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [row.norm for row in rows]
