"""How solves over torchdiffeq and scipy break down, and what is refused before they start."""

import pytest
import torch
from torch import Tensor

from neuralpde import odeint
from neuralpde.catalogue import path
from neuralpde.fields import Field, Heat
from neuralpde.graph import Graph
from neuralpde.peers import peer_route
from neuralpde.solve import solve
from solvers.failure import SolveFailed
from solvers.torchdiffeq_adapter import Method, names

ONE = torch.ones(3, dtype=torch.float64)
PAST = torch.tensor([0.0, 0.25, 0.5, 2.0], dtype=torch.float64)
SCIPY = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")
VISIBLE = [name for name in names() if not Method(name).fixed and Method(name).visible]


def breaks(t: Tensor, x: Tensor) -> Tensor:
    return torch.where(t > 0.55, torch.nan, -x)


def square(t: Tensor, x: Tensor) -> Tensor:
    return x * x


@pytest.mark.parametrize("name", VISIBLE)
def test_blow_up_ends_an_adaptive_solve_with_what_was_reached(name: str) -> None:
    traj = solve(square, ONE, PAST, solver=f"torchdiffeq:{name}", raise_on_failure=False)
    assert traj.status == "step_too_small"
    exact = 1 / (1 - PAST[:3])
    torch.testing.assert_close(traj.x[:3, 0], exact, rtol=3e-2, atol=0)
    assert traj.x[3].isnan().all()
    assert traj.final.isfinite().all()
    assert float(traj.ended) == pytest.approx(1.0, abs=2e-2)
    assert "underflow in dt" in traj.messages[0]
    with pytest.raises(SolveFailed, match="blows up"):
        solve(square, ONE, 2.0, solver=f"torchdiffeq:{name}")


@pytest.mark.parametrize(
    "solver", ["torchdiffeq:dopri5", "torchdiffeq:bosh3", *(f"scipy:{n}" for n in SCIPY)]
)
def test_a_field_that_gives_nan_is_told_from_a_solution_that_blows_up(solver: str) -> None:
    traj = solve(breaks, ONE, (0.0, 2.0), solver=solver, raise_on_failure=False)
    assert traj.status == "not_finite"
    assert "although x was finite" in traj.messages[0]
    assert "in 3 rows" in traj.messages[0]


@pytest.mark.parametrize("name", ["euler", "rk4"])
def test_a_fixed_grid_does_not_return_nan_as_if_nothing_were(name: str) -> None:
    asked = {"solver": f"torchdiffeq:{name}", "steps": 80, "raise_on_failure": False}
    lost = solve(breaks, ONE, PAST, **asked)
    assert lost.status == "not_finite"
    assert "although x was finite" in lost.messages[0]
    assert float(lost.ended) == pytest.approx(0.55, abs=0.03)
    assert lost.x[:3].isfinite().all()
    assert lost.x[3].isnan().all()
    blown = solve(square, ONE, PAST, **asked)
    assert blown.status == "not_finite"
    assert "stability interval" in blown.messages[0]


def test_on_a_fixed_grid_one_lost_graph_does_not_stop_the_others() -> None:
    class Square(Field):
        def prepare(self, graph: Graph, x0: Tensor) -> None:
            """Nothing to freeze."""

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return x * x

    batch = Graph.union([path(2), path(2)])
    x0 = torch.tensor([[1.0], [1.0], [0.1], [0.1]], dtype=torch.float64)
    traj = solve(
        Square(),
        x0,
        torch.tensor([0.0, 0.5, 2.0]).double(),
        batch,
        solver="torchdiffeq:rk4",
        steps=40,
        raise_on_failure=False,
    )
    assert traj.status == ("not_finite", "done")
    assert traj.x[2, :2].isnan().all()
    torch.testing.assert_close(traj.x[2, 2:], torch.full((2, 1), 0.125).double(), rtol=1e-6, atol=0)
    assert traj.messages[0].startswith("graph 0 stopped")
    assert traj.final[2:].equal(traj.x[2, 2:])
    assert traj.final.isfinite().all()


def test_growth_on_a_fixed_grid_is_reported() -> None:
    with pytest.warns(UserWarning, match="outside the stability interval"):
        solve(lambda t, x: -300 * x, ONE, 1.0, solver="torchdiffeq:euler", steps=10)


@pytest.mark.parametrize("solver", ["torchdiffeq:bosh3", "scipy:RK23"])
def test_the_number_of_steps_is_bounded_over_the_whole_interval(solver: str) -> None:
    t = torch.linspace(0, 50, 251, dtype=torch.float64)
    traj = solve(
        lambda t, x: torch.cos(9 * t) + 0 * x,
        ONE,
        t,
        solver=solver,
        max_steps=60,
        raise_on_failure=False,
    )
    assert traj.status == "max_steps"
    reached = int((t <= traj.ended).sum())
    assert 1 < reached < 251
    exact = 1 + torch.sin(9 * t) / 9
    torch.testing.assert_close(traj.x[:reached, 0], exact[:reached], rtol=0, atol=1e-2)
    assert traj.x[reached:].isnan().all()
    assert "max_steps" in traj.messages[0]


def test_the_fields_own_assertions_are_not_swallowed() -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        raise AssertionError("mine")

    for solver in ("torchdiffeq:dopri5", "scipy:RK45"):
        with pytest.raises(AssertionError, match="mine"):
            solve(field, ONE, 1.0, solver=solver, grad="none")


def test_an_interrupt_returns_what_there_is() -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        if t > 0.5:
            raise KeyboardInterrupt
        return -x

    for solver in ("torchdiffeq:dopri5", "scipy:RK45"):
        with pytest.raises(KeyboardInterrupt) as caught:
            solve(field, ONE, 1.0, solver=solver, grad="none")
        assert torch.equal(caught.value.trajectory.x[0], ONE)


@pytest.mark.parametrize("name", ["RK45", "Radau", "BDF"])
def test_scipys_failures_are_noticed(name: str) -> None:
    traj = solve(square, ONE, PAST, solver=f"scipy:{name}", raise_on_failure=False)
    assert traj.status == "step_too_small"
    torch.testing.assert_close(traj.x[:3, 0], 1 / (1 - PAST[:3]), rtol=1e-2, atol=0)
    assert traj.x[3].isnan().all()
    assert "less than spacing between numbers" in traj.messages[0]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            {"solver": "torchdiffeq:dopri6"},
            r"unknown torchdiffeq method 'dopri6'; did you mean 'dopri",
        ),
        ({"solver": "scipy:BDE"}, r"did you mean 'BDF'"),
        ({"solver": "torchdiffeq:rk4"}, r"takes fixed steps: give steps=n"),
        ({"solver": "torchdiffeq:dopri5", "steps": 5}, r"chooses its own steps"),
        ({"solver": "scipy:BDF", "steps": 5}, r"chooses its own steps"),
        ({"solver": "torchdiffeq:dopri5", "save": "steps"}, r"list the times in t"),
        ({"solver": "scipy:BDF", "stop": lambda t, x, fx: None}, r"stop= is not seen"),
        ({"solver": "scipy:BDF", "rtol": 1e-14}, r"below scipy's smallest"),
        ({"solver": "scipy:BDF", "grad": "tape"}, r"scipy has no gradients"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_remedy(asked: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        solve(lambda t, x: -x, ONE, 1.0, **asked)


def test_large_jacobians_and_complex_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"6000 unknowns would take 0.288 GB"):
        solve(lambda t, x: -x, torch.ones(6000).double(), 1.0, solver="scipy:BDF")
    with pytest.raises(ValueError, match=r"LSODA factorises a dense Jacobian: 6000 unknowns"):
        odeint(lambda t, x: -x, torch.ones(6000), torch.tensor([0.0, 1.0]), method="scipy_solver")
    with pytest.raises(ValueError, match="real states only"):
        solve(lambda t, x: -x, torch.ones(2, dtype=torch.complex128), 1.0, solver="scipy:LSODA")


def test_times_per_graph_are_refused() -> None:
    batch = Graph.union([path(2), path(2)])
    t = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    for solver in ("torchdiffeq:dopri5", "scipy:RK45"):
        with pytest.raises(ValueError, match="keeps one clock"):
            solve(Heat(), torch.ones(4, 1), t, batch, solver=solver)


def test_unknown_peers_are_named() -> None:
    with pytest.raises(ValueError, match="unknown peer 'torchdiffq'; did you mean 'torchdiffeq'"):
        peer_route("torchdiffq", "rk4")
