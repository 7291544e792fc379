"""Step control against torchdiffeq's own functions, formulas and a real solve."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torchdiffeq._impl.misc import (
    _compute_error_ratio,
    _optimal_step_size,
    _rms_norm,
    _select_initial_step,
)

from solvers.control import (
    PI,
    PID,
    Control,
    error_ratio,
    initial_step,
    tolerance_scale,
)
from solvers.explicit import ExplicitRungeKutta
from solvers.rows import Rows, State
from solvers.tableaus import TABLEAUS

F64 = torch.float64


def one(value: float) -> np.ndarray:
    return np.array([value])


# ---- factors


@given(
    ratio=st.one_of(
        st.sampled_from([0.0, 0.5, 1.0, math.nextafter(1, 2), 1e300, math.inf]),
        st.floats(1e-12, 1e12),
    ),
    order=st.sampled_from([2, 3, 5, 8]),
)
@settings(max_examples=100)
def test_the_integral_controller_is_torchdiffeqs(ratio: float, order: int) -> None:
    safety, grow, shrink = (torch.tensor(v, dtype=F64) for v in (0.9, 10.0, 0.2))
    h, r = torch.tensor(0.3, dtype=F64), torch.tensor(ratio, dtype=F64)
    theirs = _optimal_step_size(h, r, safety, grow, shrink, order).item()
    ours = 0.3 * Control().factor(one(ratio), order, Control().start(1)).item()
    assert ours == pytest.approx(theirs, rel=4e-16)


@pytest.mark.parametrize("control", [Control(), PI(), PID(0.2, 0.3, 0.1)])
@pytest.mark.parametrize("ratio", [math.nan, math.inf])
def test_a_ratio_that_is_not_finite_shrinks_the_step_most(control: Control, ratio: float) -> None:
    history = control.start(1)
    assert control.factor(one(ratio), 5, history).item() == 0.2
    assert history.rejected.item()
    assert history.last.item() == 1.0


def test_the_factor_follows_the_formula_of_soderlind() -> None:
    kP, kI, kD, order = 0.2, 0.3, 0.1, 5
    control, ratios = PID(kP, kI, kD), (0.5, 0.8, 0.3)
    history = control.start(1)
    for ratio in ratios:
        got = control.factor(one(ratio), order, history).item()
    before, last, now = ratios
    wanted = 0.9 * now ** (-(kI + kP + kD) / order) * last ** ((kP + 2 * kD) / order)
    assert got == pytest.approx(wanted * before ** (-kD / order), rel=1e-15)


def test_pi_is_hairers_controller() -> None:
    # fac = safety err^-(0.7/5) errold^(0.4/5) with beta = 0.08, Hairer and Wanner, IV.2.
    control = PI(kP=0.4, kI=0.3)
    history = control.start(1)
    control.factor(one(0.2), 5, history)
    got = control.factor(one(0.6), 5, history).item()
    assert got == pytest.approx(0.9 * 0.6 ** (-0.7 / 5) * 0.2**0.08, rel=1e-15)


def test_history_moves_only_where_the_step_was_accepted() -> None:
    control = PID(0.2, 0.3, 0.1)
    history = control.start(3)
    control.factor(np.array([0.5, 2.0, math.nan]), 5, history)
    assert history.last.tolist() == [0.5, 1.0, 1.0]
    assert history.rejected.tolist() == [False, True, True]
    control.factor(np.array([0.25, 0.7, 0.9]), 5, history)
    assert history.last.tolist() == [0.25, 0.7, 0.9]
    assert history.before.tolist() == [0.5, 1.0, 1.0]
    control.factor(np.array([2.0, 2.0, 0.8]), 5, history)
    assert history.last.tolist() == [0.25, 0.7, 0.8]
    assert history.before.tolist() == [0.5, 1.0, 0.9]


@pytest.mark.parametrize("control", [PI(), PID(0.2, 0.3, 0.1)])
def test_no_growth_right_after_a_rejection(control: Control) -> None:
    history = control.start(1)
    assert control.factor(one(3.0), 5, history).item() < 0.9
    assert control.factor(one(1e-3), 5, history).item() == 1.0
    assert control.factor(one(1e-3), 5, history).item() > 1.0


@pytest.mark.parametrize("control", [Control(), PI(), PID(0.2, 0.3, 0.1)])
@given(ratios=st.lists(st.floats(0, 1e6), min_size=1, max_size=6))
def test_factors_stay_in_bounds_and_rejections_always_shrink(
    control: Control, ratios: list[float]
) -> None:
    history = control.start(1)
    for ratio in ratios:
        factor = control.factor(one(ratio), 5, history).item()
        assert 0.2 <= factor <= 10
        if ratio > 1:
            assert factor <= 0.9


def test_a_rejected_step_shrinks_whatever_came_before_it() -> None:
    control = PID(0.2, 0.3, 0.3)
    history = control.start(1)
    for ratio in (1e-4, 1.0):
        control.factor(one(ratio), 5, history)
    assert control.factor(one(1.001), 5, history).item() == 0.9


def test_an_exact_step_does_not_cripple_the_next() -> None:
    control = PI()
    history = control.start(1)
    assert control.factor(one(0.0), 5, history).item() == 10.0
    assert control.factor(one(0.5), 5, history).item() > 0.5


def test_graphs_are_controlled_separately() -> None:
    control, ratios = PID(0.2, 0.3, 0.1), np.array([[0.5, 2.0], [0.1, 0.4], [3.0, 0.9]])
    together = control.start(2)
    got = np.stack([control.factor(row, 5, together) for row in ratios])
    for graph in range(2):
        alone = control.start(1)
        wanted = [control.factor(row[[graph]], 5, alone).item() for row in ratios]
        assert got[:, graph].tolist() == wanted


@pytest.mark.parametrize("bad", [{"safety": 0.0}, {"shrink": 1.0}, {"grow": 1.0}])
def test_limits_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needed are"):
        Control(**bad)


# ---- error ratios


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.complex64, torch.complex128])
def test_the_error_ratio_is_torchdiffeqs(dtype: torch.dtype) -> None:
    generator = torch.manual_seed(3)
    error, x, new = (torch.randn(50, 7, dtype=dtype, generator=generator) for _ in range(3))
    ours = error_ratio((error,), tolerance_scale((x,), (new,), 1e-3, 1e-5), Rows()).item()
    double = torch.complex128 if dtype.is_complex else F64
    error, x, new = (v.to(double) for v in (error, x, new))
    theirs = _compute_error_ratio(error, 1e-3, 1e-5, x, new, _rms_norm).item()
    single = dtype in (torch.float32, torch.complex64)
    assert ours == pytest.approx(theirs, rel=1e-6 if single else 1e-14)


def test_all_parts_of_a_tuple_share_one_mean() -> None:
    x = (torch.zeros(3, 2, dtype=F64), torch.zeros(3, dtype=F64))
    error = (torch.full((3, 2), 2.0, dtype=F64), torch.full((3,), 5.0, dtype=F64))
    ratio = error_ratio(error, tolerance_scale(x, x, 0.1, 1.0), Rows()).item()
    assert ratio == pytest.approx(math.sqrt((6 * 4 + 3 * 25) / 9), rel=1e-14)


def test_an_easy_graph_does_not_dilute_a_hard_one() -> None:
    batch = torch.tensor([0] + [1] * 999)
    error = torch.zeros(1000, 1, dtype=F64)
    error[0] = 3.0
    one_each = (torch.ones(1000, 1, dtype=F64),)
    assert error_ratio((error,), one_each, Rows(batch, 2)).tolist() == [3.0, 0.0]


@pytest.mark.parametrize("where", ["error", "x", "new"])
def test_a_nan_anywhere_makes_the_ratio_of_its_graph_nan(where: str) -> None:
    given = {name: torch.ones(2, 1) for name in ("error", "x", "new")}
    given[where][1] = math.nan
    scale = tolerance_scale((given["x"],), (given["new"],), 1e-3, 1e-3)
    ratio = error_ratio((given["error"],), scale, Rows(torch.tensor([0, 1]), 2))
    assert ratio.isnan().tolist() == [False, True]


def test_zeros_that_stay_zero_are_exact_without_an_absolute_tolerance() -> None:
    x = (torch.tensor([0.0, 1.0]),)
    scale = tolerance_scale(x, x, 1e-3, 0.0)
    assert error_ratio((torch.tensor([0.0, 1e-3]),), scale, Rows()).item() == pytest.approx(
        math.sqrt(0.5), rel=1e-6
    )
    assert error_ratio((torch.tensor([1e-3, 0.0]),), scale, Rows()).item() > 1e6


def test_neither_scale_nor_ratio_changes_or_tapes_its_arguments() -> None:
    x = (torch.tensor([-2.0, 1.0], requires_grad=True),)
    new = (torch.tensor([1.0, -3.0]),)
    scale = tolerance_scale(x, new, 0.5, 1.0)
    ratio = error_ratio(x, scale, Rows())
    assert scale[0].tolist() == [2.0, 2.5]
    assert (x[0].tolist(), new[0].tolist()) == ([-2.0, 1.0], [1.0, -3.0])
    assert not ratio.requires_grad


# ---- the first step


def oscillator(t: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[1], -x[0] * (1 + t)])


@pytest.mark.parametrize("order", [2, 5, 8])
@pytest.mark.parametrize("start", [(1.0, 0.3), (0.0, 0.0), (1e-9, 0.0), (1e4, -1e5)])
def test_the_first_step_is_torchdiffeqs(order: int, start: tuple[float, float]) -> None:
    x = torch.tensor(start, dtype=F64)
    rtol, atol = 1e-4, 1e-6
    t = torch.tensor(0.5, dtype=F64)
    fx = oscillator(0.5, x)
    theirs = _select_initial_step(oscillator, t, x, order - 1, rtol, atol, _rms_norm, f0=fx)
    ours = initial_step(
        lambda h, y: (oscillator(0.5 + h.item(), y[0]),),
        (x,),
        (fx,),
        order,
        rtol,
        atol,
        Rows(),
        one(1e9),
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-13)


def test_the_first_step_of_a_graph_does_not_depend_on_its_companions() -> None:
    rates = torch.tensor([[1.0], [1.0], [1e3]], dtype=F64)
    x = (torch.tensor([[1.0], [0.5], [2.0]], dtype=F64),)

    def first(index: list[int], rows: Rows) -> list[float]:
        rate, state = rates[index], (x[0][index],)
        span = np.full(rows.num_graphs, 10.0)
        fx = (-rate * state[0],)
        return initial_step(
            lambda h, y: (-rate * y[0] * (1 + rows.spread(h, y[0])),),
            state,
            fx,
            5,
            1e-4,
            1e-6,
            rows,
            span,
        ).tolist()

    together = first([0, 1, 2], Rows(torch.tensor([0, 0, 1]), 2))
    assert together == pytest.approx(first([0, 1], Rows()) + first([2], Rows()), rel=1e-14)
    assert together[0] > 50 * together[1]


def test_backward_steps_mirror_forward_ones() -> None:
    x = (torch.tensor([1.0, -0.4], dtype=F64),)
    tried = []

    def forward(h: np.ndarray, y: State) -> State:
        tried.append(h.item())
        return (oscillator(h.item(), y[0]),)

    def mirrored(h: np.ndarray, y: State) -> State:
        tried.append(h.item())
        return (-oscillator(-h.item(), y[0]),)

    fx = (oscillator(0.0, x[0]),)
    ahead = initial_step(mirrored, x, (-fx[0],), 5, 1e-4, 1e-6, Rows(), one(5.0))
    back = initial_step(forward, x, fx, 5, 1e-4, 1e-6, Rows(), one(-5.0))
    assert back.item() == -ahead.item() < 0
    assert tried[1] == -tried[0] < 0


def test_neither_trial_nor_first_step_leaves_the_span() -> None:
    tried = []

    def still(h: np.ndarray, y: State) -> State:
        tried.append(h.item())
        return (1e-3 * torch.ones_like(y[0]),)

    x = (torch.ones(2, dtype=F64),)
    h = initial_step(still, x, still(one(0.0), x), 5, 1e-3, 1e-3, Rows(), one(1e-4))
    assert h.item() == 1e-4
    assert 0 < tried[-1] <= 1e-4


def test_a_trial_that_overflows_still_gives_a_step() -> None:
    x = (torch.ones(1, dtype=F64),)
    h = initial_step(
        lambda h, y: (torch.full_like(y[0], math.inf),), x, x, 5, 1e-3, 1e-3, Rows(), one(1.0)
    )
    assert 0 < h.item() <= 0.01


def test_the_first_step_costs_one_evaluation_and_no_tape() -> None:
    calls = []
    x = (torch.ones(2, dtype=F64, requires_grad=True),)

    def field(h: np.ndarray, y: State) -> State:
        calls.append(y[0].requires_grad)
        return (-y[0],)

    initial_step(field, x, (-x[0],), 5, 1e-3, 1e-3, Rows(), one(1.0))
    assert calls == [False]


# ---- all together


@pytest.mark.parametrize("control", [Control(), PI(), PID(0.2, 0.3, 0.1)])
def test_a_controlled_solve_meets_its_tolerance(control: Control) -> None:
    method = ExplicitRungeKutta(TABLEAUS["dopri5"])
    x, t, rows, rtol = (torch.ones(1, dtype=F64),), 0.0, Rows(), 1e-6
    history, accepted, rejected = control.start(1), 0, 0
    fx = (x[0] * math.cos(0.0),)
    h = initial_step(
        lambda h, y: (y[0] * math.cos(h.item()),), x, fx, 5, rtol, rtol, rows, one(10.0)
    ).item()
    while t < 10.0:
        h = min(h, 10.0 - t)
        step = method.step(lambda c, y, t=t, h=h: (y[0] * math.cos(t + c * h),), h, x, fx)
        assert step.error is not None
        assert step.f is not None
        scale = tolerance_scale(x, step.x, rtol, rtol)
        ratio = error_ratio(step.error, scale, rows).numpy()
        factor = control.factor(ratio, method.error_order, history).item()
        if ratio.item() <= 1:
            t, x, fx, accepted = t + h, step.x, step.f, accepted + 1
        else:
            rejected += 1
        h *= factor
    assert x[0].item() == pytest.approx(math.exp(math.sin(10.0)), rel=20 * rtol)
    assert 20 < accepted < 60
    assert rejected < accepted / 2
