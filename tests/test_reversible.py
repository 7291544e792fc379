"""Gradients by undoing steps, as on the tape and by replay."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Pinned, Wave
from solvers.events import Event
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.methods import stepper
from solvers.pace import Fixed
from solvers.replay import advance
from solvers.rows import Rows, State
from solvers.schedules import Power
from solvers.structure import Structure
from tests.swinging import Coupled, agree, every_scheme, everything, gradients, normal


@every_scheme
@pytest.mark.parametrize(
    "times", [(0.0, 3.0), [0.0, 0.0, 0.31, 0.32, 1.7, 1.7, 3.0], [3.0, 1.0, 0.2]]
)
def test_reversible_is_replay_is_the_tape(name: str, times: list[float]) -> None:
    graph, how = catalogue.barbell(3, 2), {"solver": name, "steps": 40}
    tape, replay, undone = (
        gradients(grad, graph, times, everything, **how)
        for grad in ("tape", "replay", "reversible")
    )
    for x, y in zip(tape[1].x, undone[1].x, strict=True):
        assert torch.equal(x, y)
    agree(replay, tape)
    agree(undone, tape)


@every_scheme
def test_so_it_is_on_grids_that_are_not_uniform(name: str) -> None:
    how = {"solver": name, "steps": 40, "schedule": Power(2.0)}
    tape, undone = (
        gradients(grad, catalogue.path(4), [0.5, 2.0, 4.5], everything, **how)
        for grad in ("tape", "reversible")
    )
    agree(undone, tape)


@every_scheme
@pytest.mark.parametrize("held", [False, True])
def test_speed_and_damping_of_a_wave_are_learned(name: str, held: bool) -> None:
    graph, found = catalogue.ring(6), []
    for grad in ("tape", "reversible"):
        wave = Wave(
            nn.Parameter(torch.tensor(1.2)), "sym", damping=nn.Parameter(torch.tensor(0.4))
        ).double()
        start = [normal(6, 2, seed=s) for s in (1, 2)]
        if held:
            start[1][:2] = 0.0
        x0 = tuple(part.requires_grad_() for part in start)
        field = Pinned(wave, [0, 1]) if held else wave
        final = solve(field, x0, 4.0, graph, solver=name, steps=50, grad=grad).final
        total = (final[0] ** 3).sum() + final[1].sin().sum()
        found.append(torch.autograd.grad(total, (*x0, wave.speed, wave.damping)))
    agree((found[1], None), (found[0], None))


def test_gradients_are_those_of_finite_differences() -> None:
    graph = catalogue.path(3)

    def final(x: Tensor, v: Tensor, weight: Tensor, raw: Tensor) -> tuple[Tensor, ...]:
        field = Coupled()
        del field.weight, field.raw
        field.weight, field.raw = weight, raw
        how = {"solver": "kick_drift_damp", "steps": 7, "grad": "reversible"}
        return solve(field, (x, v), [0.0, 0.4, 1.0], graph, **how).x

    inputs = (normal(3, 2), normal(3, 2, seed=1), normal(2, 2, seed=2), torch.tensor(0.6).double())
    assert torch.autograd.gradcheck(final, tuple(one.requires_grad_() for one in inputs))


@every_scheme
@pytest.mark.parametrize("own_clocks", [True, False])
def test_batches_are_undone_graph_by_graph(name: str, own_clocks: bool) -> None:
    batch = Graph.union([catalogue.path(3), catalogue.ring(5), catalogue.star(4)])
    times: object = [0.0, 0.7, 2.0]
    if own_clocks:
        times = torch.tensor([[0.0, 1.0, 0.5], [0.4, 1.1, 0.5], [1.0, 3.0, 0.9]]).double()
    found = []
    for grad in ("tape", "reversible"):
        field = Coupled()
        field.batched_time = own_clocks
        found.append(gradients(grad, batch, times, everything, field, solver=name, steps=21))
    agree(found[1], found[0])


@every_scheme
def test_states_saved_inside_a_step_pass_on_their_gradients(name: str) -> None:
    stiffness, found = torch.tensor(1.3).double().requires_grad_(), []
    known = Structure(force=lambda t, x: torch.cos(t) - stiffness * x.sin(), damping=0.2)
    for grad in ("tape", "reversible"):
        flow = Flow(
            lambda t, s: (s[1], torch.cos(t) - stiffness * s[0].sin() - 0.2 * s[1]),
            Rows(),
            torch.ones((), dtype=torch.float64),
            known,
        )
        grid, times = np.linspace(0, 2, 9)[:, None], np.array([[0.0], [0.6], [0.9], [1.0], [2.0]])
        x0 = tuple(normal(4, seed=s).requires_grad_() for s in (1, 2))
        loop = Loop(flow, stepper(name), Fixed(grid), Rows(), times)
        solution = advance(loop, x0, (stiffness,), grad)
        total = sum((part.sin() * torch.arange(1, 6)[:, None]).sum() for part in solution.x)
        found.append(torch.autograd.grad(total, (*x0, stiffness)))
    agree((found[1], None), (found[0], None))


@every_scheme
@pytest.mark.parametrize("own_clocks", [True, False])
def test_graphs_that_end_at_an_event_are_undone_from_there(name: str, own_clocks: bool) -> None:
    batch = Graph.union([catalogue.path(3), catalogue.ring(5), catalogue.star(4)])
    found = []
    for grad in ("tape", "reversible"):
        field = Coupled()
        field.batched_time = own_clocks

        def mean(t: Tensor, x: State) -> Tensor:
            assert batch.batch is not None
            return x[0].new_zeros(3).index_add(0, batch.batch, x[0].sum(1)) - 2.5

        how = {"solver": name, "steps": 25, "stop": Event(mean)}
        found.append(gradients(grad, batch, [0.0, 0.3, 3.0], everything, field, **how))
    assert "stopped (event)" in found[0][1].status
    agree(found[1], found[0])


class Past:
    """Ends the second graph when its time is half."""

    name = "past"

    def __call__(self, t: np.ndarray, x: State, fx: object) -> np.ndarray:
        return np.array([False, float(t[1]) > 0.5, False])


class Spring(Field):
    """x'' = k x^3: bounded for small x, to infinity in finite time for large ones."""

    order = 2

    def __init__(self, own_clocks: bool) -> None:
        super().__init__()
        self.k, self.damping = nn.Parameter(torch.tensor(1.0).double()), 0.2
        self.batched_time = own_clocks

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return self.k * x**3


@pytest.mark.parametrize("own_clocks", [True, False])
@pytest.mark.parametrize("name", ["leapfrog", "graphcon"])
def test_stopped_and_failed_graphs_keep_their_gradients(name: str, own_clocks: bool) -> None:
    batch, found = Graph.union([catalogue.path(1)] * 3), []
    for grad, third in (("tape", 0.1), ("reversible", 60.0)):
        first, field = torch.tensor([[0.3], [0.2], [third]]), Spring(own_clocks)
        x0 = (first.double().requires_grad_(), torch.zeros(3, 1).double().requires_grad_())
        traj = solve(
            field,
            x0,
            [0.0, 0.3, 1.0],
            batch,
            solver=name,
            steps=20,
            stop=Past(),
            grad=grad,
            raise_on_failure=False,
        )
        assert traj.status[:2] == ("done", "stopped (past)")
        if grad == "reversible":
            assert traj.status[2] == "not_finite"
        total = traj.x[0][1].nan_to_num()[:2].sum() + traj.final[1][:2].square().sum()
        found.append(torch.autograd.grad(total, (*x0, field.k)))
    agree((found[1], None), (found[0], None))
    assert found[1][0][2] == 0


def test_a_failed_solve_has_the_gradient_of_what_it_did() -> None:
    graph, found = catalogue.path(3), []
    for grad in ("tape", "reversible"):
        how = {"solver": "leapfrog", "steps": 40, "max_steps": 25, "raise_on_failure": False}
        found.append(gradients(grad, graph, [0.0, 0.5, 2.0], everything, **how))
        assert found[-1][1].status == "max_steps"
    agree(found[1], found[0])


def test_a_way_back_that_gets_lost_is_refused() -> None:
    class Repulsion(Coupled):
        def force(self, t: Tensor, x: Tensor) -> Tensor:
            return 4 * x + super().force(t, x)

    with pytest.raises(RuntimeError, match=r"came back to the state at t=0 .*grad='replay'"):
        gradients(
            "reversible",
            catalogue.path(3),
            5.0,
            everything,
            Repulsion(0.01),
            torch.float32,
            solver="leapfrog",
            steps=300,
        )
