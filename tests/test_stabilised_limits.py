"""Stabilised steps where they do not fit: growth, rotation, limits on steps, wrong arguments."""

import pytest
import torch

from neuralpde import catalogue, solve
from neuralpde.fields import Heat, allen_cahn
from solvers.stabilised import RKL2

F64 = torch.float64


def test_backward_in_time_diffusion_grows_and_is_said_to() -> None:
    graph, x0 = catalogue.path(5), torch.randn(5, 1, dtype=F64)
    there = solve(Heat(), x0, 0.5, graph, rtol=1e-11).final
    back = solve(Heat(), there, (0.5, 0.0), graph, solver="rkl2", rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(back.final, x0, rtol=1e-3, atol=1e-3)
    assert "modes grow" in back.stats.reason
    # What is damped backwards is what stabilised steps are good for.
    damped = solve(lambda t, x: 500 * x, torch.ones(2, dtype=F64), (1.0, 0.0), solver="rkl2")
    assert damped.final.abs().max() < 1e-5
    assert damped.stats.nfe < 700
    assert "grow" not in damped.stats.reason


def test_eigenvalues_off_the_axis_shorten_the_steps_and_the_reason_says_so() -> None:
    """A damped rotation, -1 +- 8i, far beyond the region once steps could be long."""
    turn = torch.tensor([[-1.0, 8.0], [-8.0, -1.0]], dtype=F64)
    x0 = torch.tensor([1.0, 0.0], dtype=F64)
    traj = solve(lambda t, x: turn @ x, x0, 40.0, solver="rkl2", rtol=1e-3, atol=1e-3)
    assert traj.status == "done"
    assert traj.final.abs().max() < 5e-3
    assert "|Im| = 8" in traj.stats.reason
    assert "outside the region of rkl2" in traj.stats.reason
    assert traj.stats.rejected < 0.2 * traj.stats.accepted


def test_the_limit_on_steps_is_not_called_stiffness() -> None:
    graph, x0 = catalogue.star(50), torch.randn(50, 1, dtype=F64)
    traj = solve(allen_cahn(), x0, 50.0, graph, solver="rkl2", max_steps=9, raise_on_failure=False)
    assert traj.status == "max_steps"
    assert "stiff" not in traj.messages[0]
    assert traj.stats.accepted + traj.stats.rejected == 9


def test_a_radius_that_is_no_radius_is_refused() -> None:
    for radius in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="give a positive number, or None"):
            RKL2(radius=radius)
    with pytest.raises(ValueError, match="needs its number of stages"):
        RKL2().step(lambda c, x: x, 0.1, (torch.ones(1),), (torch.ones(1),))
