"""Stiff problems of the literature: implicit methods get there, explicit ones say why not.

The end values are those of the IVP test set, checked against scipy in tests/test_problems.py.
"""

import pytest
import torch
from kinds import registered

from neuralpde import SolveFailed, Trajectory, solve
from solvers import methods
from solvers.problems import HIRES, ODE, OREGO, ROBER, VDP

PROBLEMS = {problem.name: problem for problem in (ROBER, VDP, HIRES, OREGO)}
# Errors of a method of order 2 fall as rtol^(2/3) only, and these two multiply them.
SENSITIVE = {"HIRES": 300, "OREGO": 300}
STIFF = [name for name in ("trbdf2",) if name in registered("any")]
every_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=list(PROBLEMS))


def attempt(
    problem: ODE, method: str, rtol: float, max_steps: int, small: float | None = None
) -> Trajectory:
    return solve(
        problem.f,
        problem.start(),
        problem.t,
        solver=method,
        rtol=rtol,
        atol=rtol * (problem.small if small is None else small),
        grad="none",
        max_steps=max_steps,
    )


def reached(problem: ODE, method: str, rtol: float) -> float:
    """The error at the end in units of rtol; of Robertson's species, from 1e-13 to 1, the worst."""
    x = attempt(problem, method, rtol, 50_000).final
    right = problem.answer()
    whole = float((x - right).norm() / right.norm())
    return (problem.error(x) if problem is ROBER else whole) / rtol


@every_problem
@pytest.mark.parametrize("method", STIFF)
def test_an_implicit_method_gets_there(method: str, problem: ODE) -> None:
    assert reached(problem, method, 1e-3) < 100


@pytest.mark.slow
@every_problem
@pytest.mark.parametrize("rtol", [1e-4, 1e-5])
@pytest.mark.parametrize("method", STIFF)
def test_an_implicit_method_gets_there_more_precisely(
    method: str, problem: ODE, rtol: float
) -> None:
    assert reached(problem, method, rtol) < SENSITIVE.get(problem.name, 100)


@pytest.mark.slow
@every_problem
@pytest.mark.parametrize("small", [1e-3, 1.0])
@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4, 1e-5])
def test_no_loose_tolerance_gives_a_wrong_answer_silently(
    problem: ODE, rtol: float, small: float
) -> None:
    # scipy's BDF gets to 66 for van der Pol, 1742 for HIRES, 6 for the Oregonator, and, like
    # Radau, beyond 1e9 for Robertson's problem at atol = 1e-3.
    right = problem.answer()
    off = attempt(problem, "trbdf2", rtol, 50_000, small).final - right
    if small == 1.0 and problem is HIRES:
        # Its state, 1e-3, is below atol: in tolerances then.
        assert float((off / (rtol * (1 + right.abs()))).square().mean().sqrt()) < 40
    else:
        assert float(off.norm() / right.norm()) < SENSITIVE.get(problem.name, 100) * rtol


@every_problem
@pytest.mark.parametrize("method", ["tsit5", "bosh3"])
def test_an_explicit_method_says_that_the_problem_is_stiff(method: str, problem: ODE) -> None:
    with pytest.raises(SolveFailed, match=r"limited by stability.*the problem is stiff") as caught:
        attempt(problem, method, 1e-3, 1000)
    traj = caught.value.trajectory
    assert traj.status == "max_steps"
    assert traj.stats.nfe < 1000 * methods.stepper(method).stages + 200
    assert torch.isfinite(traj.final).all()
    assert 0 < float(traj.ended) < problem.t[1]
