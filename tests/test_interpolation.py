"""Dense output: polynomials, torchdiffeq's quartic, observed order."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchdiffeq._impl.interp import _interp_evaluate, _interp_fit

from solvers.explicit import ExplicitRungeKutta
from solvers.interpolation import hermite
from solvers.tableaus import TABLEAUS

F64 = torch.float64


def ends(degree: int, h: float) -> tuple[np.polynomial.Polynomial, list[tuple[Tensor]]]:
    """A polynomial on [0.2, 0.2 + h] with its values, slopes and middle."""
    p = np.polynomial.Polynomial(np.random.default_rng(degree).normal(size=degree + 1))
    places = (p(0.2), p.deriv()(0.2), p(0.2 + h), p.deriv()(0.2 + h), p(0.2 + h / 2))
    return p, [(torch.tensor([value], dtype=F64),) for value in places]


@pytest.mark.parametrize("h", [0.7, -0.4])
@pytest.mark.parametrize("theta", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_polynomials_up_to_the_degree_are_reproduced(theta: float, h: float) -> None:
    for degree, with_mid in ((3, False), (4, True)):
        p, (x0, f0, x1, f1, mid) = ends(degree, h)
        got = hermite(theta, h, x0, f0, x1, f1, mid if with_mid else None)[0].item()
        assert got == pytest.approx(p(0.2 + theta * h), rel=1e-14, abs=1e-15)


def test_one_degree_more_is_not_reproduced() -> None:
    for degree, with_mid in ((4, False), (5, True)):
        p, (x0, f0, x1, f1, mid) = ends(degree, 0.7)
        got = hermite(0.3, 0.7, x0, f0, x1, f1, mid if with_mid else None)[0].item()
        assert abs(got - p(0.2 + 0.3 * 0.7)) > 1e-5


def test_the_ends_are_met_to_the_last_bit() -> None:
    x0, f0, x1, f1, mid = ((torch.randn(9, generator=torch.manual_seed(i)),) for i in range(5))
    for middle in (None, mid):
        assert torch.equal(hermite(0.0, 0.3, x0, f0, x1, f1, middle)[0], x0[0])
        assert torch.equal(hermite(1.0, 0.3, x0, f0, x1, f1, middle)[0], x1[0])
    torch.testing.assert_close(hermite(0.5, 0.3, x0, f0, x1, f1, mid)[0], mid[0])


@pytest.mark.parametrize("theta", [0.0, 0.2, 0.77])
def test_the_quartic_is_torchdiffeqs(theta: float) -> None:
    generator = torch.manual_seed(7)
    x0, f0, x1, f1, mid = (torch.randn(6, dtype=F64, generator=generator) for _ in range(5))
    h = torch.tensor(0.4, dtype=F64)
    zero, at = torch.zeros((), dtype=F64), torch.tensor(theta * 0.4, dtype=F64)
    theirs = _interp_evaluate(_interp_fit(x0, x1, mid, f0, f1, h), zero, h, at)
    (ours,) = hermite(theta, 0.4, (x0,), (f0,), (x1,), (f1,), (mid,))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["euler", "heun", "bosh3", "rk4", "dopri5", "tsit5"])
def test_dense_output_has_its_order_where_the_field_depends_on_time(name: str) -> None:
    method = ExplicitRungeKutta(TABLEAUS[name])
    assert method.dense

    def worst(h: float) -> float:
        x0 = (torch.tensor(1.0, dtype=F64),)
        f0 = (x0[0] * math.cos(0.1),)
        step = method.step(
            lambda c, y: (y[0] * math.cos(0.1 + c * h),), h, x0, f0, mid=method.dense_order == 4
        )
        f1 = (step.x[0] * math.cos(0.1 + h),)
        gaps = []
        for theta in (0.2, 0.4, 0.6, 0.8):
            got = hermite(theta, h, x0, f0, step.x, f1, step.mid)[0].item()
            gaps.append(abs(got - math.exp(math.sin(0.1 + theta * h) - math.sin(0.1))))
        return max(gaps)

    sizes = [0.2, 0.1, 0.05]
    slope = np.polyfit(np.log(sizes), np.log([worst(h) for h in sizes]), 1)[0]
    assert slope == pytest.approx(min(method.order, method.dense_order) + 1, abs=0.25)


def test_rows_may_have_their_own_place_and_step() -> None:
    generator = torch.manual_seed(8)
    states = [
        (
            torch.randn(3, 2, dtype=F64, generator=generator),
            torch.randn(3, dtype=F64, generator=generator),
        )
        for _ in range(5)
    ]
    theta = torch.tensor([[0.0], [0.4], [1.0]], dtype=F64)
    h = torch.tensor([[0.1], [0.2], [-0.3]], dtype=F64)
    together = hermite(theta, h, *states)
    for row in range(3):
        mine = [tuple(part[row] for part in state) for state in states]
        alone = hermite(theta[row].item(), h[row].item(), *mine)
        for got, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(got[row], wanted, rtol=1e-14, atol=1e-15)


def test_interpolation_is_differentiable_in_everything() -> None:
    generator = torch.manual_seed(9)
    states = [
        torch.randn(2, 2, dtype=torch.complex128, generator=generator).requires_grad_()
        for _ in range(5)
    ]
    theta, h = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.3, 0.7))

    def value(theta: Tensor, h: Tensor, *states: Tensor) -> Tensor:
        return hermite(theta, h, *((state,) for state in states))[0]

    assert torch.autograd.gradcheck(value, (theta, h, *states))
    assert torch.autograd.gradcheck(value, (theta, h, *states[:4]))
