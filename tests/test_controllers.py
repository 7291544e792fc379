"""Controllers by choice, through solve."""

import math

import numpy as np
import pytest
import torch
from stubs import TOL, Scripted, clock, column

from neuralpde import solve
from solvers import PI, PID, Control, explicit
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.pace import Adaptive
from solvers.rows import Rows


@pytest.mark.parametrize("control", [Control(), PI(), PID(0.2, 0.3, 0.1)])
def test_every_controller_keeps_the_tolerance(control: Control) -> None:
    x0 = torch.ones(1, dtype=torch.float64)
    solver = explicit("dopri5").controlled(control)
    traj = solve(lambda t, x: x * torch.cos(t), x0, 10.0, solver=solver, rtol=1e-7, atol=1e-9)
    assert float(traj.final) == pytest.approx(math.exp(math.sin(10.0)), rel=2e-6)
    assert traj.stats.solver == "dopri5"


def test_pi_rejects_fewer_steps_where_stability_limits_them() -> None:
    x0, field = torch.ones(4, dtype=torch.float64), lambda t, x: -200.0 * (x - torch.cos(t))
    plain = solve(field, x0, 5.0, solver="dopri5").stats
    smooth = solve(field, x0, 5.0, solver=explicit("dopri5").controlled(PI())).stats
    assert smooth.rejected < plain.rejected / 2


def test_a_controller_belongs_to_its_copy_alone() -> None:
    assert explicit("dopri5").controlled(PI()).control == PI()
    assert explicit("dopri5").control is None


@pytest.mark.parametrize("ratio", [1.0, 0.95])
def test_steps_that_pass_but_do_not_move_time_end_as_too_small(ratio: float) -> None:
    # Next to a ratio of 1 a PI controller cuts every step to 0.9 of the last one.
    first = torch.full((2,), 1.0, dtype=torch.float64)
    flow = Flow(clock, Rows(), first)
    stub = Scripted(ratio)
    pace = Adaptive(0.0, TOL, control=PI())
    result = Loop(flow, stub, pace, Rows(), np.array([[1.0], [2.0]])).run((first,))
    assert result.status == ["step_too_small"]
    assert "is below the spacing of numbers at t" in result.messages[0]
    assert len(stub.log.sizes) < 500
    assert column(stub.log.sizes)[-1] > 1e-17
    assert result.rejected[0] == 1
