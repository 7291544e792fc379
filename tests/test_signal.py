"""Signals against scipy's interpolants, at one time and at a time for each row."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline, interp1d
from torch import Tensor, nn

from solvers.signal import Signal

F64 = torch.float64
TIMES = [0.0, 0.5, 0.75, 2.0, 3.5]
KINDS = ("linear", "cubic")


def values(*shape: int) -> Tensor:
    return torch.randn(len(TIMES), *shape, dtype=F64, generator=torch.Generator().manual_seed(0))


def known(kind: str, y: Tensor, t: np.ndarray) -> np.ndarray:
    """scipy's interpolant, with backward differences for slopes."""
    if kind == "linear":
        return interp1d(TIMES, y.numpy(), axis=0)(t)
    rises = np.diff(y.numpy(), axis=0) / np.diff(TIMES).reshape(-1, *[1] * (y.dim() - 1))
    return CubicHermiteSpline(TIMES, y.numpy(), np.concatenate([rises[:1], rises]))(t)


@pytest.mark.parametrize("kind", KINDS)
@given(t=st.floats(0.0, 3.5))
def test_it_is_the_interpolant_of_scipy(kind: str, t: float) -> None:
    y = values(3, 2)
    found = Signal(TIMES, y, kind)(torch.tensor(t, dtype=F64))
    np.testing.assert_allclose(found.numpy(), known(kind, y, t), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_through_its_values_and_keeps_the_last_ones(kind: str) -> None:
    y = values(4)
    u = Signal(TIMES, y, kind)
    for t, row in zip(TIMES, y, strict=True):
        assert torch.equal(u(torch.tensor(t, dtype=F64)), row)
    assert torch.equal(u(torch.tensor(-7.0)), y[0])
    assert torch.equal(u(torch.tensor(99.0)), y[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 6])
def test_every_row_may_have_a_time_of_its_own(kind: str, rows: int) -> None:
    u = Signal(TIMES, values(rows, 2), kind)
    times = torch.tensor([[-1.0], [0.0], [0.5], [0.6], [3.0], [9.0]], dtype=F64)
    found = u(times)
    alone = [u(t)[min(i, rows - 1)] for i, t in enumerate(times.flatten())]
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-15, atol=1e-15)


def test_backward_differences_know_no_later_values() -> None:
    y = values(2)
    other = y.clone()
    other[3:] += 1.0
    for kind in KINDS:
        one, two = Signal(TIMES, y, kind), Signal(TIMES, other, kind)
        assert torch.equal(one(torch.tensor(0.7)), two(torch.tensor(0.7)))
        assert not torch.equal(one(torch.tensor(0.9)), two(torch.tensor(0.9)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_values_and_time(kind: str) -> None:
    y, t = values(2, 2).requires_grad_(), torch.tensor(1.3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, t: Signal(TIMES, y, kind)(t), (y, t))
    rows = torch.tensor([[0.2], [1.3]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, t: Signal(TIMES, y, kind)(t), (y, rows))


def test_a_cubic_signal_has_no_kinks_at_its_knots() -> None:
    u = Signal(TIMES, values(1), "cubic")

    def speed(t: float) -> Tensor:
        at = torch.tensor(t, dtype=F64, requires_grad=True)
        return torch.autograd.grad(u(at).sum(), at)[0]

    for knot in TIMES[1:-1]:
        torch.testing.assert_close(speed(knot - 1e-9), speed(knot + 1e-9), rtol=1e-6, atol=1e-6)


def test_times_stay_in_double_precision_whatever_the_values_are() -> None:
    u = Signal(np.array([0.0, 1 / 3, 1.0]), values(2)[:3]).float()
    assert u.times.dtype == F64
    assert u(torch.tensor(0.2, dtype=F64)).dtype == torch.float32
    assert u.like(torch.zeros(1, dtype=F64))(torch.tensor(0.2)).dtype == F64


def test_what_is_learned_is_a_parameter_and_data_are_no_weights() -> None:
    learned = Signal(TIMES, nn.Parameter(values(2)))
    assert [name for name, _ in learned.named_parameters()] == ["values"]
    assert Signal(TIMES, values(2)).state_dict() == {}
    bound = learned.like(torch.zeros(1))
    (grad,) = torch.autograd.grad(bound(torch.tensor(1.0)).sum(), learned.values)
    assert grad.sum().item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("times", "y", "kind", "text"),
    [
        ([0.0, 1.0], torch.zeros(2), "cubik", "'cubic'"),
        ([0.0, 0.0], torch.zeros(2), "linear", "times that rise"),
        ([0.0], torch.zeros(1), "linear", "at least two"),
        ([0.0, float("inf")], torch.zeros(2), "linear", "finite"),
        ([0.0, 1.0], torch.zeros(3), "linear", "for 2 times"),
        ([0.0, 1.0], torch.tensor([0.0, float("nan")]), "linear", "fill in what is missing"),
    ],
)
def test_what_is_no_signal_is_refused(times: list[float], y: Tensor, kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Signal(times, y, kind)
