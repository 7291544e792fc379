"""The loop with stub fields: exact counts, exact landings, and who is told what and when."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers.control import Control
from solvers.explicit import ExplicitRungeKutta
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.pace import Adaptive, Fixed
from solvers.rows import Rows, State
from solvers.tableaus import TABLEAUS
from solvers.tape import Run

ADAPTIVE = ["heun", "bosh3", "dopri5", "tsit5", "dopri8"]
FIXED = ["euler", "midpoint", "heun", "rk4", "bosh3", "dopri5", "tsit5", "dopri8"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def swing(t: Tensor, x: State) -> State:
    """y' = y cos t, solved by y0 exp(sin t - sin t0)."""
    return (x[0] * torch.cos(t),)


def loop(
    field: Callable[[Tensor, State], State],
    times: list[float],
    method: str = "dopri5",
    grid: np.ndarray | None = None,
    tol: float = 1e-6,
    **options: object,
) -> Loop:
    """One graph, one clock."""
    columns = np.array(times, dtype=np.float64)[:, None]
    pace = Adaptive(tol, tol, Control()) if grid is None else Fixed(grid[:, None])
    flow = Flow(field, Rows(), torch.zeros((), dtype=torch.float64))
    stepper = ExplicitRungeKutta(TABLEAUS[method])
    return Loop(flow, stepper, pace, Rows(), columns, **options)


def states(run: Run) -> Tensor:
    """The saved states of the first part."""
    return torch.stack([state[0] for state in run.tape.saved[:-1] if state is not None])


@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_adaptive_solve_costs_its_stages(method: str) -> None:
    one = loop(swing, [0.0, 6.0], method, tol=1e-5)
    run = one.run((normal(4),))
    tried = int(run.accepted[0] + run.rejected[0])
    # One evaluation at the start, one to find the first step. Without FSAL a new slope for each
    # accepted step but the last.
    again = 0 if one.stepper.fsal else int(run.accepted[0]) - 1
    assert one.flow.nfe == 2 + (one.stepper.stages - 1) * tried + again
    assert run.rejected[0] > 0 or method in ("dopri8", "heun")


@pytest.mark.parametrize("method", FIXED)
def test_a_fixed_grid_costs_its_stages(method: str) -> None:
    one = loop(swing, [0.0, 1.0], method, np.linspace(0, 1, 8))
    run = one.run((normal(4),))
    extra = 1 if one.stepper.fsal else 0
    assert one.flow.nfe == 7 * (one.stepper.stages - extra) + extra
    assert run.accepted.tolist() == [7]
    assert run.rejected.tolist() == [0]


@settings(max_examples=25)
@given(st.floats(-50, 50), st.floats(1e-3, 20), st.booleans(), st.sampled_from(ADAPTIVE))
def test_it_evaluates_at_the_start_and_lands_on_the_end(
    start: float, span: float, backward: bool, method: str
) -> None:
    end = start - span if backward else start + span
    seen: list[float] = []

    def field(t: Tensor, x: State) -> State:
        seen.append(float(t))
        return swing(t, x)

    moments: list[float] = []
    one = loop(field, [start, end], method, monitors=(lambda t, *_: moments.append(float(t[0])),))
    run = one.run((normal(3),))
    assert seen[0] == start
    assert moments[0] == start
    assert moments[-1] == run.ended[0] == end
    assert min(start, end) <= min(seen)
    assert max(seen) <= max(start, end) + 1e-12 * abs(end)
    exact = normal(3) * math.exp(math.sin(end) - math.sin(start))
    torch.testing.assert_close(states(run)[-1], exact, rtol=1e-2, atol=1e-4)


def test_a_zero_interval_returns_the_start() -> None:
    one = loop(swing, [1.5, 1.5, 1.5])
    run = one.run((normal(3),))
    assert run.accepted.tolist() == [0]
    assert run.status == ["done"]
    assert one.flow.nfe == 1
    assert torch.equal(states(run), normal(3).expand(3, 3))


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3"])
def test_save_times_may_repeat_and_may_lie_in_one_step(method: str) -> None:
    times = [0.0, 0.0, 0.1, 0.1, 0.10001, 0.10002, 1.0, 2.0, 2.0]
    found = states(loop(swing, times, method, tol=1e-9).run((torch.ones(2).double(),)))
    exact = torch.sin(torch.tensor(times, dtype=torch.float64)).exp()[:, None].expand(-1, 2)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert torch.equal(found[-2], found[-1])


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5"])
def test_save_times_do_not_change_the_steps(method: str) -> None:
    plain, saving = loop(swing, [0.0, 3.0], method), loop(swing, [0.0, 1.1, 1.2, 3.0], method)
    ends = [states(one.run((normal(3),)))[-1] for one in (plain, saving)]
    assert torch.equal(*ends)
    assert plain.flow.nfe == saving.flow.nfe


def test_a_method_without_dense_output_lands_on_the_save_times() -> None:
    moments: list[float] = []
    watch = (lambda t, *_: moments.append(float(t[0])),)
    loop(swing, [0.0, 0.3, 0.7, 3.0], "dopri8", monitors=watch).run((normal(3),))
    assert {0.3, 0.7} <= set(moments)
    moments.clear()
    loop(swing, [0.0, 0.3, 0.7, 3.0], "dopri5", monitors=watch).run((normal(3),))
    assert not {0.3, 0.7} & set(moments)


@pytest.mark.parametrize(
    ("method", "order"), [("heun", 2), ("bosh3", 3), ("tsit5", 4), ("dopri5", 4)]
)
def test_states_inside_steps_have_the_order_of_the_method(method: str, order: int) -> None:
    # Save times sit inside the steps of the grid, never on a point of it.
    inside = [k + theta for k in (0, 1) for theta in (0.13, 0.41, 0.77)]
    errors = []
    for count in (16, 32, 64):
        grid = np.linspace(0.0, 2.0, count + 1)
        times = sorted({(math.floor(s * count / 2) + 0.37) * 2 / count for s in inside})
        run = loop(swing, [0.0, *times, 2.0], method, grid).run((torch.ones(1).double(),))
        exact = torch.tensor([0.0, *times, 2.0], dtype=torch.float64).sin().exp()
        errors.append(float((states(run)[:, 0] - exact).abs().max()))
    slope = math.log2(errors[0] / errors[-1]) / 2
    assert slope > order - 0.15, errors


def test_euler_is_euler_bit_for_bit() -> None:
    grid = np.cumsum([0.0, 0.1, 0.25, 0.05, 0.3])
    A, x = normal(5, 5), normal(5, 2, seed=1)
    run = loop(lambda t, x: (A @ x[0] * t.cos(),), [0.0, grid[-1]], "euler", grid).run((x,))
    for t, h in zip(grid[:-1], np.diff(grid), strict=True):
        x = torch.add(x, A @ x * torch.tensor(t).cos(), alpha=h)
    assert torch.equal(states(run)[-1], x)


def test_rk4_is_the_classic_method() -> None:
    grid = np.cumsum([0.0, 0.1, 0.25, 0.05, 0.3])
    A, x = normal(5, 5), normal(5, 2, seed=1)

    def f(t: float, x: Tensor) -> Tensor:
        return A @ x * math.cos(t)

    run = loop(lambda t, x: (f(float(t), x[0]),), [0.0, grid[-1]], "rk4", grid).run((x,))
    for t, h in zip(grid[:-1].tolist(), np.diff(grid).tolist(), strict=True):
        k1 = f(t, x)
        k2 = f(t + h / 2, x + h / 2 * k1)
        k3 = f(t + h / 2, x + h / 2 * k2)
        k4 = f(t + h, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    torch.testing.assert_close(states(run)[-1], x, rtol=1e-14, atol=1e-15)


def test_monitors_see_every_accepted_state_once_and_no_rejected_one() -> None:
    told: list[tuple[float, Tensor, bool]] = []

    def monitor(t: np.ndarray, x: State, slope: State | None, moved: np.ndarray) -> None:
        assert slope is not None
        torch.testing.assert_close(slope[0], kick(torch.tensor(t[0]), x)[0], rtol=0, atol=0)
        told.append((float(t[0]), x[0].clone(), bool(moved[0])))

    def kick(t: Tensor, x: State) -> State:
        return (-50 * (x[0] - torch.where(t > 0.5, 1.0, 0.0)),)

    one = loop(kick, [0.0, 1.0], monitors=(monitor,), keep_steps=True)
    run = one.run((normal(3),))
    assert run.rejected[0] > 0
    assert len(told) == 1 + run.accepted[0] == len(run.kept)
    for (t, x, moved), kept in zip(told, run.kept, strict=True):
        assert moved
        assert t == kept.t
        assert torch.equal(x, kept.x[0])
    assert all(a[0] < b[0] for a, b in pairwise(told))


def test_monitors_change_nothing() -> None:
    plain = loop(swing, [0.0, 0.7, 4.0])
    watched = loop(swing, [0.0, 0.7, 4.0], monitors=(lambda *_: None,), report=lambda _: None)
    assert torch.equal(states(plain.run((normal(3),))), states(watched.run((normal(3),))))
    assert plain.flow.nfe == watched.flow.nfe


def test_progress_runs_from_nothing_to_everything() -> None:
    for times in ([0.0, 1.0, 4.0], [4.0, 1.0, -2.0]):
        covered: list[float] = []
        loop(swing, times, report=covered.append).run((normal(3),))
        assert covered == sorted(covered)
        assert covered[0] > 0
        assert covered[-1] == 1.0


@pytest.mark.parametrize("end", np.linspace(3.0, 9.0, 13))
def test_the_last_step_is_never_a_scrap(end: float) -> None:
    times: list[float] = []
    loop(swing, [0.0, end], monitors=(lambda t, *_: times.append(float(t[0])),)).run((normal(3),))
    sizes = np.diff(times)
    assert sizes[-1] > 0.45 * sizes[-2]


def test_a_step_cut_short_to_save_says_little_about_the_next() -> None:
    counts = [
        int(loop(swing, times, "dopri8").run((normal(3),)).accepted[0])
        for times in ([0.0, 1.0, 6.0], [0.0, 1.0, 1.0 + 1e-7, 6.0])
    ]
    assert counts[1] <= counts[0] + 2


def test_the_first_step_is_torchdiffeqs() -> None:
    from torchdiffeq._impl.misc import _rms_norm, _select_initial_step

    x = normal(30)
    one = loop(swing, [0.3, 5.0], tol=1e-5)
    times: list[float] = []
    one.monitors = (lambda t, *_: times.append(float(t[0])),)
    one.run((x,))
    t0 = torch.tensor(0.3, dtype=torch.float64)
    theirs = _select_initial_step(
        lambda t, y: y * torch.cos(t), t0, x, 4, 1e-5, 1e-5, _rms_norm, f0=x * torch.cos(t0)
    )
    assert times[1] - times[0] == pytest.approx(float(theirs), rel=1e-9)
