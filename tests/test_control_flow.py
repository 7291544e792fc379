"""The loop with stub steppers: what it asks of a method, in which order, and what it does with it.

The field is x' = 1 unless said otherwise, so that a state tells the time it stands for.
"""

from itertools import pairwise
from typing import Any, Self

import numpy as np
import pytest
import torch
from stubs import TOL, Scripted, Stumbling, clock, column, run
from torch import Tensor

from neuralpde import Graph, SolveFailed, Trajectory, catalogue, solve
from neuralpde.fields import Field
from solvers.control import PI
from solvers.failure import LINEAR_SOLVE_FAILED, NEWTON_FAILED
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.pace import Fixed
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper, Trouble

# ---- which steps are tried


def test_sizes_follow_the_script() -> None:
    # 0.9 / ratio, never over 10 or under 0.2; a method of error order 1.
    stub = Scripted(0.5, 4.0, 100.0, 0.5, 0.01, 0.3)
    result = run(stub, [0.0, 100.0])
    sizes = column(stub.log.sizes)
    growth = [b / a for a, b in pairwise(sizes[:7])]
    assert growth == pytest.approx([1.8, 0.225, 0.2, 1.8, 10.0, 3.0], rel=1e-12)
    assert [row[0] for row in stub.log.judged[:6]] == [True, False, False, True, True, True]
    assert result.rejected.tolist() == [2]
    assert result.accepted.tolist() == [len(sizes) - 2]


def test_a_rejected_step_moves_nothing() -> None:
    stub = Scripted(0.9, 3.0, 3.0, 0.5)
    told: list[tuple[float, float]] = []
    run(stub, [0.0, 5.0], monitors=(lambda t, x, *_: told.append((t[0], float(x[0][0]))),))
    times, sizes = column(stub.log.times), column(stub.log.sizes)
    assert times[1] == times[2] == times[3] == sizes[0]
    assert times[4] == times[3] + sizes[3]
    # Observers: once at the start, once for each accepted step, with the new state.
    assert len(told) == len(sizes) - 2 + 1
    assert [t for t, _ in told] == pytest.approx([x for _, x in told], rel=1e-14)
    assert [t for t, _ in told][:3] == [0.0, times[1], times[4]]


def test_the_order_of_questions() -> None:
    stub = Scripted(0.5, 4.0, 0.5)
    run(stub, [0.0, 1.0])
    tries = len(stub.log.sizes)
    assert stub.log.asked == ["begin", *["plan", "step", "judged"] * tries]
    assert stub.log.accuracy == Accuracy(0.0, TOL)
    fixed = Scripted()
    run(fixed, [0.0, 1.0], 3)
    assert fixed.log.asked == ["begin", *["plan", "step", "judged"] * 3]
    assert fixed.log.accuracy == Accuracy(None, None)
    assert fixed.log.judged == [[True]] * 3


@pytest.mark.parametrize(("end", "ceiling"), [(1.0, 0.25), (1.0, 0.3), (-2.0, 0.5), (7.0, 1.1)])
def test_a_method_that_limits_its_steps_takes_no_longer_ones(end: float, ceiling: float) -> None:
    stub = Scripted(0.0, ceiling=ceiling)
    result = run(stub, [0.0, end])
    sizes = np.abs(column(stub.log.sizes))
    assert sizes.max() <= ceiling
    assert float(result.tape.saved[1][0][0]) == pytest.approx(end, abs=1e-14)
    assert result.ended.tolist() == [end]
    # Steps grow tenfold until they are as long as allowed; the way that is left may be halved.
    first = int((sizes < ceiling * (1 - 1e-12)).argmin())
    assert sizes[1 : first + 1] == pytest.approx(np.minimum(10 * sizes[:first], ceiling), rel=1e-9)
    assert sizes[first:-2] == pytest.approx([ceiling] * (len(sizes) - 2 - first), rel=1e-12)


# ---- where it lands


@pytest.mark.parametrize(
    "times", [[0.0, 1.0], [1.0, 0.0], [0.1, 0.2, 0.7, 0.9], [3.0, 0.3, -0.1], [1e9, 1e9 + 1]]
)
@pytest.mark.parametrize("steps", [None, 1, 7])
def test_it_lands_on_every_saved_time(times: list[float], steps: int | None) -> None:
    stub = Scripted(0.7)
    if steps is None:
        result = run(stub, times)
    else:
        # As `solve` does: saved times are points of the grid.
        points = sorted({*np.linspace(times[0], times[-1], steps + 1), *times})
        points = points if times[-1] > times[0] else points[::-1]
        first = torch.full((2,), times[0], dtype=torch.float64)
        pace = Fixed(np.array(points)[:, None])
        flow = Flow(clock, Rows(), first)
        result = Loop(flow, stub, pace, Rows(), np.array(times)[:, None]).run((first,))
        assert len(stub.log.sizes) == len(points) - 1
    arrivals = [*column(stub.log.times), float(result.ended[0])]
    assert set(times) <= set(arrivals)
    saved = [float(state[0][0]) for state in result.tape.saved if state is not None]
    assert saved == pytest.approx([*times, times[-1]], rel=1e-14, abs=1e-14)
    assert result.status == ["done"]


@pytest.mark.parametrize("steps", [None, 4])
def test_an_interval_without_length_asks_for_no_step(steps: int | None) -> None:
    stub = Scripted()
    options: dict[str, Any] = {} if steps is None else {"steps": steps}
    traj = solve(lambda t, x: torch.ones_like(x), torch.ones(2), (2.0, 2.0), solver=stub, **options)
    assert stub.log.asked == ["begin"]
    assert traj.stats.nfe == 1
    assert traj.x.tolist() == [[1.0, 1.0]] * 2
    assert traj.status == "done"


# ---- what ends it


def test_max_steps_counts_tries() -> None:
    stub = Scripted(0.9, 5.0, 0.9, 5.0, 0.9)
    result = run(stub, [0.0, 1e6], max_steps=5)
    assert result.status == ["max_steps"]
    assert (result.accepted[0], result.rejected[0]) == (3, 2)
    assert len(stub.log.sizes) == 5
    fixed = Scripted()
    assert run(fixed, [0.0, 1.0], 10, max_steps=4).status == ["max_steps"]
    assert len(fixed.log.sizes) == 4
    assert run(Scripted(), [0.0, 1.0], 4, max_steps=4).status == ["done"]


def test_steps_that_never_pass_end_where_time_has_no_finer_digits() -> None:
    stub = Scripted(0.9, 0.9, np.inf)
    result = run(stub, [1.0, 2.0])
    stopped = result.ended[0]
    assert result.status == ["step_too_small"]
    assert result.accepted.tolist() == [2]
    assert float(result.tape.saved[-1][0][0]) == pytest.approx(stopped, rel=1e-15)
    sizes = column(stub.log.sizes)[2:]
    assert np.diff(np.log(sizes)) == pytest.approx([np.log(0.2)] * (len(sizes) - 1), rel=1e-9)
    assert 2 * np.spacing(stopped) < sizes[-1] <= 10 * np.spacing(stopped)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_error_that_is_no_number_is_a_rejection(bad: float) -> None:
    stub = Scripted(0.5, bad, 0.5)
    result = run(stub, [0.0, 1.0])
    assert result.status == ["done"]
    assert result.rejected.tolist() == [1]
    assert stub.log.sizes[2][0] == pytest.approx(0.2 * stub.log.sizes[1][0], rel=1e-15)


@pytest.mark.parametrize("steps", [None, 5])
def test_a_field_that_starts_with_nan_is_asked_once(steps: int | None) -> None:
    first = torch.zeros(2, dtype=torch.float64)
    flow = Flow(lambda t, x: (x[0] * torch.nan,), Rows(), first)
    stub = Scripted()
    result = run(stub, [0.0, 1.0], steps, flow=flow)
    assert result.status == ["not_finite"]
    assert stub.log.asked == ["begin"]
    assert flow.nfe <= 2  # the second one finds out where


def test_what_begin_refuses_costs_nothing() -> None:
    class Picky(Scripted):
        def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
            raise ValueError("picky needs a moon; take 'tsit5'")

    def untouched(t: Tensor, x: Tensor) -> Tensor:
        raise AssertionError("called")

    with pytest.raises(ValueError, match="needs a moon"):
        solve(untouched, torch.ones(2), 1.0, solver=Picky())


def test_a_method_that_needs_no_slope_gets_none() -> None:
    class Blind(Scripted):
        needs_slope = False

        def step(self, f: Any, h: Any, x: State, fx: State, **options: Any) -> Step:
            assert len(self.log.sizes) == 0 or fx is x
            return super().step(f, h, x, (torch.ones_like(x[0]),), **options)

    flow = Flow(clock, Rows(), torch.zeros(2, dtype=torch.float64))
    result = run(Blind(), [0.0, 1.0], 6, flow=flow)
    assert flow.nfe == 1
    assert float(result.tape.saved[1][0][0]) == pytest.approx(1.0, rel=1e-14)


# ---- trouble inside a step


def test_a_step_in_trouble_is_tried_again_with_less() -> None:
    stub = Stumbling(0.07)
    result = run(stub, [0.0, 1.0])
    sizes, passed = column(stub.log.sizes), [row[0] for row in stub.log.judged]
    assert result.status == ["done"]
    assert passed == [size <= 0.07 for size in sizes]
    assert result.rejected[0] == passed.count(False)
    for k in np.flatnonzero(~np.array(passed)):
        assert sizes[k + 1] == pytest.approx(0.2 * sizes[k], rel=1e-12)
    assert float(result.tape.saved[1][0][0]) == pytest.approx(1.0, rel=1e-14)


def test_trouble_without_end_is_the_status() -> None:
    result = run(Stumbling(0.0), [0.0, 1.0])
    assert result.status == [NEWTON_FAILED]
    assert "Newton's method went astray. Pray." in result.messages[0]
    assert result.ended.tolist() == [0.0]


def test_trouble_on_a_grid_fails_at_once() -> None:
    stub = Stumbling(0.24)
    times = [0.0, 0.5, 1.0]
    first = torch.zeros(2, dtype=torch.float64)
    pace = Fixed(np.array([0.0, 0.2, 0.4, 0.5, 0.75, 1.0])[:, None])
    result = Loop(Flow(clock, Rows(), first), stub, pace, Rows(), np.array(times)[:, None]).run(
        (first,)
    )
    assert result.status == [NEWTON_FAILED]
    assert "went astray" in result.messages[0]
    assert result.ended.tolist() == [0.5]
    assert len(stub.log.sizes) == 4


class Clock(Field):
    """x' = 1 on every node."""

    batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def three(stub: Stepper, times: Any = (0.0, 1.0), **options: Any) -> Trajectory:
    """Three graphs, each with its own clock."""
    batch = Graph.union([catalogue.path(n) for n in (2, 4, 3)])
    x0 = torch.zeros(9, 1, dtype=torch.float64)
    if "steps" not in options:
        options |= {"rtol": 1e-9, "atol": TOL}
    return solve(Clock(), x0, times, batch, solver=stub, raise_on_failure=False, **options)


def test_one_graph_that_fails_does_not_hold_up_the_others() -> None:
    alone, together = Scripted(0.5), Scripted((0.5, 0.5, 0.5), (0.5, np.inf, 0.5))
    run(alone, [0.0, 1.0])
    traj = three(together)
    assert traj.status == ("done", "step_too_small", "done")
    assert traj.stats.accepted == (len(alone.log.sizes), 1, len(alone.log.sizes))
    assert traj.stats.rejected[0] == traj.stats.rejected[2] == 0
    assert traj.final[:2].flatten().tolist() == pytest.approx([1.0] * 2, rel=1e-14)
    assert traj.final[2:6, 0].tolist() == pytest.approx([float(traj.ended[1])] * 4, rel=1e-14)
    done = [row for row in together.log.sizes if row[0] == row[2] == 0.0]
    assert done, "the failing graph goes on alone, and the others take steps of no length"


def test_a_graph_that_lands_changes_no_step_of_the_others() -> None:
    # The first graph's last steps are cut short while the others' have to shrink.
    together, alone = (Scripted(0.0, 0.0, 0.0, 0.95, 0.99, 0.5) for _ in range(2))
    together.control = alone.control = PI()
    three(together, torch.tensor([[0.0] * 3, [0.013, 0.1, 0.1]], dtype=torch.float64))
    x0 = torch.zeros(4, 1, dtype=torch.float64)
    solve(Clock(), x0, 0.1, catalogue.path(4), solver=alone, rtol=1e-9, atol=TOL)
    sizes = column(alone.log.sizes)
    assert min(sizes[4:6]) < sizes[3]
    assert [row[1] for row in together.log.sizes] == pytest.approx(sizes, rel=1e-12)


def test_trouble_belongs_to_its_clock() -> None:
    traj = three(Stumbling(np.inf, 0.0, 0.3))
    assert traj.status == ("done", NEWTON_FAILED, "done")
    assert list(traj.messages) == [1]
    assert traj.stats.rejected[0] == 0
    fixed = three(Stumbling(np.inf, np.inf, 0.0), steps=4)
    assert fixed.status == ("done", "done", NEWTON_FAILED)
    assert fixed.stats.accepted == (4, 4, 0)
    assert fixed.ended.tolist() == [1.0, 1.0, 0.0]


def test_a_failure_carries_what_there_is() -> None:
    with pytest.raises(SolveFailed, match="went astray") as caught:
        solve(
            lambda t, x: torch.ones_like(x),
            torch.zeros(2).double(),
            [0.0, 0.5, 2.0],
            solver=Late(0.75),
            steps=8,
        )
    traj = caught.value.trajectory
    assert traj.x[1].tolist() == [0.5, 0.5]
    assert traj.x[2].isnan().all()
    assert float(traj.ended) == 0.75
    assert traj.status == LINEAR_SOLVE_FAILED


class Late(Scripted):
    """In trouble from a time on."""

    def __init__(self, since: float) -> None:
        super().__init__()
        self.since = since

    def step(self, f: Any, *arguments: Any, **options: Any) -> Step:
        step = super().step(f, *arguments, **options)
        if f.t[0] >= self.since:
            step.trouble = Trouble(LINEAR_SOLVE_FAILED, np.array([True]), "It went astray.")
        return step
