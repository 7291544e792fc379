"""What symplectic steps conserve: areas, volumes, energies within a bound, the way back."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Wave
from neuralpde.fields.structure import structure
from solvers.explicit import explicit
from solvers.flow import Flow
from solvers.methods import stepper
from solvers.rows import Rows, State
from tests.swinging import SYMMETRIC, Pendulums, every_scheme, march, normal


def energy(state: State) -> float:
    """Of unit masses on a ring of six: |v|^2 / 2 + |differences along the edges|^2 / 2."""
    x, v = state
    return float((v.square().sum() + (x - x.roll(1, 0)).square().sum()) / 2)


def drift(name: str, h: float, steps: int, x: State) -> tuple[float, float]:
    """Smallest and largest energy along a solve, over the first."""
    method = explicit(name) if name in ("heun", "rk4") else stepper(name)
    seen = [energy(x)]
    for n, state in enumerate(march(method, Wave(), catalogue.ring(6), x, h, steps)):
        if n % 50 == 0 or n > steps - 50:
            seen.append(energy(state))
    return min(seen) / seen[0], max(seen) / seen[0]


def energy_stays_within_its_bound(name: str, steps: int) -> None:
    # On each mode of frequency w leapfrog conserves v^2 + w^2 (1 - (h w)^2 / 4) x^2, symplectic
    # Euler v^2 + w^2 x^2 - h w^2 x v: forms that lie within these factors of the energy itself.
    h, frequency = 0.3, 2.0
    low, high = drift(name, h, steps, (normal(6, 1), normal(6, 1, seed=1)))
    if stepper(name).order == 2:
        bound = 1 / (1 - (h * frequency) ** 2 / 4)
    else:
        bound = (1 + h * frequency / 2) / (1 - h * frequency / 2)
    rounding = 1e-15 * steps
    assert 1 / bound - rounding <= low < 1 < high <= bound + rounding
    assert high / low > 1.01


@every_scheme
def test_the_energy_of_symplectic_methods_stays_within_a_bound(name: str) -> None:
    energy_stays_within_its_bound(name, 5_000)


@pytest.mark.slow
@every_scheme
def test_so_it_does_over_a_hundred_thousand_steps(name: str) -> None:
    energy_stays_within_its_bound(name, 100_000)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("heun", lambda z: 1 + z**4 / 4), ("rk4", lambda z: 1 - z**6 / 72 + z**8 / 576)],
)
def test_the_energy_of_runge_kutta_methods_drifts(
    name: str, factor: Callable[[float], float]
) -> None:
    h, steps = 0.3, 3_000
    mode = torch.tensor([[1.0], [-1.0]] * 3).double()  # lambda = 4
    low, high = drift(name, h, steps, (mode, torch.zeros_like(mode)))
    expected = factor(2 * h) ** steps
    found = high if expected > 1 else low
    assert found == pytest.approx(expected, rel=1e-6)
    assert not 0.2 < found < 5


def jacobian(name: str, field: Field, graph: Graph, state: State, h: float) -> Tensor:
    """Of one step, rows and columns in the order (x, v)."""
    n = graph.num_nodes

    def step(y: Tensor) -> Tensor:
        pair = (y[:n, None], y[n:, None])
        return torch.cat(next(march(stepper(name), field, graph, pair, h, 1)))[:, 0]

    return torch.autograd.functional.jacobian(step, torch.cat(state)[:, 0])


@every_scheme
@pytest.mark.parametrize("damping", [0.0, 0.9])
def test_a_step_is_conformally_symplectic(name: str, damping: float) -> None:
    n, h = 3, 0.4
    graph, state, z = catalogue.path(n), (normal(n, 1), normal(n, 1, seed=1)), damping * h
    area = {
        "leapfrog": (1 - z / 2) / (1 + z / 2),
        "kick_drift_damp": math.exp(-z),
        "symplectic_euler": math.exp(-z),
        "graphcon": 1 - z,
    }[name]
    J = jacobian(name, Pendulums(damping), graph, state, h)
    zero, one = torch.zeros(n, n).double(), torch.eye(n).double()
    plane = torch.cat([torch.cat([zero, one], 1), torch.cat([-one, zero], 1)])
    torch.testing.assert_close(J.T @ plane @ J, area * plane, rtol=0, atol=1e-14)
    assert float(torch.det(J)) == pytest.approx(area**n, rel=1e-13)


@every_scheme
def test_volumes_shrink_so_under_any_force(name: str) -> None:
    class Wind(Pendulums):
        def force(self, t: Tensor, x: Tensor) -> Tensor:
            return super().force(t, x) + x.flip(0).square()

    graph, state = catalogue.path(3), (normal(3, 1), normal(3, 1, seed=1))
    volumes = [
        float(torch.det(jacobian(name, field, graph, state, 0.4)))
        for field in (Wind(0.9), Pendulums(0.9))
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-12)


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_symmetric_methods_find_back_with_steps_backwards(name: str, damping: float) -> None:
    graph, state = catalogue.barbell(3), (normal(6, 2), normal(6, 2, seed=1))
    field, how = Pendulums(damping), {"solver": name, "steps": 100}
    there = solve(field, state, (0.2, 3.2), graph, **how).final
    back = solve(field, there, (3.2, 0.2), graph, **how).final
    for start, end in zip(state, back, strict=True):
        torch.testing.assert_close(start, end, rtol=0, atol=1e-11)


@every_scheme
def test_the_inverse_of_a_step_undoes_it(name: str) -> None:
    graph, state = catalogue.barbell(3), (normal(6, 2), normal(6, 2, seed=1))
    field = Pendulums(0.9).bind(graph, state)
    flow = Flow(field, Rows(), state[0], structure(field, "field", packed=True))
    f, h = flow.stages(np.array([0.3]), np.array([0.7])), 0.7
    method = stepper(name)
    there = method.step(f, h, state, flow(f.t, state)).x
    back = method.inverse(f, h, there)
    for start, there_too, end in zip(state, there, back, strict=True):
        assert (start - there_too).abs().max() > 0.1
        torch.testing.assert_close(start, end, rtol=0, atol=1e-14)


@pytest.mark.parametrize("norm", ["comb", "rw", "sym"])
def test_the_energy_of_a_wave_swings_by_the_step_squared(norm: str) -> None:
    graph, state = catalogue.barbell(3, 2), (normal(8, 2), normal(8, 2, seed=1))
    swings = []
    for steps in (200, 400):
        field = Wave(1.1, norm)
        times = torch.linspace(0, 20, steps + 1, dtype=torch.float64)
        traj = solve(field, state, times, graph, solver="leapfrog", steps=steps)
        bound = field.bind(graph, state)
        energies = torch.stack([bound.lyapunov(shot) for shot in zip(*traj.x, strict=True)])
        swings.append(float((energies / energies[0] - 1).abs().max()))
    assert 3.5 < swings[0] / swings[1] < 4.5
    assert swings[1] < 0.01
