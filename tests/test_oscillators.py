"""Steps of oscillators against matrices, recurrences and a ten-line loop; where they are stable."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.integrate import solve_ivp
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Heat, Pinned, Wave
from solvers.methods import stepper
from solvers.oscillators import Oscillator
from solvers.rows import State
from tests.strategies import graphs
from tests.swinging import SYMMETRIC, Pendulums, every_scheme, normal


def slope_of(errors: list[float], steps: list[int]) -> float:
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


@every_scheme
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_order_is_seen_with_a_force_that_depends_on_time(name: str, damping: float) -> None:
    graph, (x, v) = catalogue.path(3), normal(2, 3, 1)
    A = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])

    def slopes(t: float, y: np.ndarray) -> np.ndarray:
        force = A @ y[:3] / 2 - np.sin(y[:3]) + np.cos(2 * t)
        return np.concatenate([y[3:], force - damping * y[3:]])

    y0 = np.concatenate([x[:, 0].numpy(), v[:, 0].numpy()])
    exact = solve_ivp(slopes, (0.3, 2.3), y0, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    steps, errors = [25, 50, 100, 200, 400], []
    for n in steps:
        final = solve(Pendulums(damping), (x, v), (0.3, 2.3), graph, solver=name, steps=n).final
        errors.append(float(np.abs(torch.cat(final)[:, 0].numpy() - exact).max()))
    assert slope_of(errors, steps) == pytest.approx(stepper(name).order, abs=0.15)


def amplification(name: str, h: float, stiffness: float, damping: float) -> np.ndarray:
    """The matrix of one step for x'' = -stiffness x - damping x', written out by hand."""
    z, s = damping * h, stiffness * h
    if name == "kick_drift_damp":
        kick, drift = np.array([[1, 0], [-s / 2, 1]]), np.array([[1, h / 2], [0, 1]])
        return kick @ drift @ np.diag([1, math.exp(-z)]) @ drift @ kick
    if name == "leapfrog":
        a, b = 1 - z / 2, 1 / (1 + z / 2)
        x = np.array([1 - h * s / 2, h * a])
        return np.array([x, b * (np.array([-s / 2, a]) - s / 2 * x)])
    left = math.exp(-z) if name == "symplectic_euler" else 1 - z
    return np.array([[1 - h * s, h * left], [-s, left]])


@every_scheme
@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_a_harmonic_oscillator_follows_the_amplification_matrix(name: str, damping: float) -> None:
    # On a ring of four, (1, -1, 1, -1) is an eigenvector of L with eigenvalue 4.
    mode, c, h, steps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double(), 1.3, 0.1, 40
    state = (0.8 * mode, -0.5 * mode)
    field = Wave(c, damping=damping)
    final = solve(field, state, steps * h, catalogue.ring(4), solver=name, steps=steps).final
    matrix = amplification(name, h, 4 * c**2, damping)
    expected = np.linalg.matrix_power(matrix, steps) @ [0.8, -0.5]
    for part, value in zip(final, expected, strict=True):
        torch.testing.assert_close(part, value * mode, rtol=0, atol=1e-13)


def test_leapfrog_with_damping_is_the_central_difference_scheme() -> None:
    h, damping, graph, state = 0.2, 0.6, catalogue.path(4), (normal(4, 1), normal(4, 1, seed=1))
    times = [h * n for n in range(6)]
    field = Pendulums(damping)
    traj = solve(field, state, times, graph, solver="leapfrog", steps=5)
    force = field.bind(graph, state).force
    for n in range(1, 5):
        before, here, after = traj.x[0][n - 1 : n + 2]
        pull = force(torch.tensor(times[n], dtype=torch.float64), here)
        acceleration, speed = (after - 2 * here + before) / h**2, (after - before) / (2 * h)
        torch.testing.assert_close(acceleration, pull - damping * speed, rtol=0, atol=1e-12)


def test_the_scheme_of_graphcon_is_the_published_one() -> None:
    class Coupled(Field):
        order = 2
        damping = 1.0

        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.weight = weight

        def prepare(self, graph: Graph, x0: State) -> None:
            self.A = graph.adjacency("sym", self_loops=1.0)

        def force(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.relu(self.A @ (x @ self.weight)) - 0.8 * x

    graph, W, start = catalogue.barbell(3), normal(4, 4), normal(6, 4, seed=1)
    final = solve(Coupled(W), (start, start), 10.0, graph, solver="graphcon", steps=10).final

    A = np.eye(6) + graph.adjacency().to_dense().numpy()
    A /= np.sqrt(A.sum(0)[:, None] * A.sum(1)[None, :])
    X = Y = start.numpy()
    for _ in range(10):
        Y = Y + 1.0 * (np.maximum(A @ X @ W.numpy(), 0) - 0.8 * X - 1.0 * Y)
        X = X + 1.0 * Y
    np.testing.assert_allclose(final[0].numpy(), X, rtol=1e-12, atol=1e-12 * np.abs(X).max())
    np.testing.assert_allclose(final[1].numpy(), Y, rtol=1e-12, atol=1e-12 * np.abs(X).max())


def test_waves_on_a_ring_have_the_dispersion_of_leapfrog() -> None:
    nodes, k, c, steps, T = 8, 3, 1.7, 50, 9.0
    angle = 2 * math.pi * k * torch.arange(nodes).double()[:, None] / nodes
    x0 = torch.cos(angle)
    times = torch.linspace(0, T, steps + 1, dtype=torch.float64)
    traj = solve(
        Wave(c), (x0, 0 * x0), times, catalogue.ring(nodes), solver="leapfrog", steps=steps
    )
    omega, h = 2 * c * math.sin(math.pi * k / nodes), T / steps
    seen = 2 / h * math.asin(h * omega / 2)  # sin(seen h / 2) = omega h / 2
    torch.testing.assert_close(
        traj.x[0], torch.cos(seen * times)[:, None, None] * x0, rtol=0, atol=1e-11
    )
    assert abs(seen - omega) * T > 0.3


@every_scheme
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_step_costs_one_force(name: str, damping: float) -> None:
    graph, state = catalogue.ring(5), (normal(5, 1), normal(5, 1, seed=1))
    traj = solve(Wave(damping=damping), state, 1.0, graph, solver=name, steps=20)
    fsal = stepper(name).fsal
    assert traj.stats.nfe == traj.stats.operator_products == 20 + fsal


@every_scheme
def test_graphs_of_a_batch_keep_their_own_times(name: str) -> None:
    parts = [catalogue.path(3), catalogue.ring(5), catalogue.star(3)]
    batch, x = Graph.union(parts), (normal(11, 2), normal(11, 2, seed=1))
    times = torch.tensor([[0.0, 1.0, 0.5], [0.4, 1.1, 0.5], [1.0, 3.0, 0.9]], dtype=torch.float64)
    how = {"solver": name, "steps": 12}
    together = solve(Pendulums(0.3), x, times, batch, **how)
    first = 0
    for g, graph in enumerate(parts):
        own = slice(first, first := first + graph.num_nodes)
        state = tuple(part[own] for part in x)
        alone = solve(Pendulums(0.3), state, times[:, g], graph, **how)
        for joint, single in zip(together.x, alone.x, strict=True):
            torch.testing.assert_close(joint[:, own], single, rtol=0, atol=1e-13)


def test_complex_states_are_two_real_ones() -> None:
    graph, (a, b, v) = Graph.union([catalogue.ring(5)] * 2), normal(3, 10, 2)
    times = torch.tensor([[0.0, 0.0], [1.0, 1.7]], dtype=torch.float64)
    how = {"solver": "kick_drift_damp", "steps": 9}
    field = Wave(1.2, damping=0.3)
    both = solve(field, (torch.complex(a, b), v + 0j), times, graph, **how).final
    real = solve(field, (a, v), times, graph, **how).final
    imaginary = solve(field, (b, 0 * v), times, graph, **how).final
    for z, x, y in zip(both, real, imaginary, strict=True):
        torch.testing.assert_close(z, torch.complex(x, y), rtol=0, atol=1e-14)


def test_a_string_with_fixed_ends_swings_in_its_modes() -> None:
    nodes, k, c, h, steps = 9, 3, 1.4, 0.2, 60
    place = torch.arange(nodes).double()[:, None]
    straight, mode = place / 4 - 1, torch.sin(math.pi * k * place / (nodes - 1))
    mode[-1] = 0.0
    omega = 2 * c * math.sin(math.pi * k / (2 * (nodes - 1)))
    field, graph = Pinned(Wave(c), [0, nodes - 1]), catalogue.path(nodes)
    for name in SYMMETRIC:
        final = solve(
            field, (straight + mode, 0 * mode), h * steps, graph, solver=name, steps=steps
        ).final
        phase = steps * math.acos(1 - (h * omega) ** 2 / 2)
        torch.testing.assert_close(final[0], straight + math.cos(phase) * mode, rtol=0, atol=1e-12)


def greatest(graph: Graph, norm: str = "comb") -> float:
    return float(torch.linalg.eigvals(graph.laplacian(norm).to_dense()).real.max())


@every_scheme
@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_steps_beyond_the_stability_limit_are_announced(name: str, norm: str) -> None:
    graph, damping = catalogue.barbell(5, 3), 0.4
    n, stiffest = graph.num_nodes, greatest(graph, norm)
    assert float(graph.laplacian(norm).spectrum()[1]) > 1.04 * stiffest
    state, z = (normal(n, 1), normal(n, 1, seed=1)), damping
    method = stepper(name)
    assert isinstance(method, Oscillator)
    # h = 1, so that the speed decides.
    edge = math.sqrt(method.limit_of(z) / stiffest)

    def growth(speed: float) -> float:
        how = {"solver": name, "steps": 50}
        final = solve(Wave(speed, norm, damping), state, 50.0, graph, **how).final
        return float(torch.cat(final).abs().max() / torch.cat(state).abs().max())

    assert growth(0.995 * edge) < 10
    with pytest.warns(UserWarning, match=rf"{name} with h=1 lies outside.*steps below") as seen:
        assert growth(1.02 * edge) > 100
    found = float(str(seen[0].message).split("take steps below ")[1].split(",")[0])
    assert found == pytest.approx(1 / 1.02, abs=0.02)


@settings(max_examples=40)
@given(graphs(min_nodes=4, max_nodes=12, connected=True, loops=False))
def test_nothing_is_announced_without_reason(graph: Graph) -> None:
    # Random walks have no symmetric matrix: a power iteration in the plain norm overshoots.
    edge = 2 / math.sqrt(greatest(graph, "rw"))
    n = graph.num_nodes
    solve(
        Wave(0.999 * edge, "rw"),
        (normal(n, 1), normal(n, 1)),
        1.0,
        graph,
        solver="leapfrog",
        steps=1,
    )


def test_the_announcement_names_the_graph() -> None:
    batch = Graph.union([catalogue.path(3), catalogue.star(40)])
    state = (normal(43, 1), normal(43, 1, seed=1))
    with pytest.warns(UserWarning, match=r"limit in graph 1: h sqrt\(lambda_max\) = 2\.1"):
        solve(Wave(), state, 1.0, batch, solver="leapfrog", steps=3)


def test_held_nodes_do_not_count_for_stability() -> None:
    # With its hub at rest the leaves of a star swing by themselves, lambda = 1 instead of 41.
    graph, state = catalogue.star(40), (normal(40, 1), 0 * normal(40, 1))
    field = Pinned(Wave(), [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traj = solve(field, state, 30.0, graph, solver="leapfrog", steps=20)
    swing = traj.final[0] - state[0][0]
    assert swing.abs().max() < 2 * (state[0] - state[0][0]).abs().max()


def test_what_cannot_be_advanced_is_refused_in_words() -> None:
    graph, x = catalogue.ring(4), normal(4, 1)
    with pytest.raises(ValueError, match=r"Heat has no force; give a Field.*'tsit5'"):
        solve(Heat(), x, 1.0, graph, solver="leapfrog", steps=4)
    with pytest.raises(ValueError, match=r"'graphcon' advances x''.*<lambda> has no force"):
        solve(lambda t, s: (s[1], -s[0]), (x, x), 1.0, solver="graphcon", steps=4)
    with pytest.raises(ValueError, match=r"takes fixed steps: give steps=n"):
        solve(Wave(), (x, x), 1.0, graph, solver="kick_drift_damp")
    with pytest.raises(TypeError, match=r"Pendulums is of second order: its state is a pair"):
        solve(Pendulums(), x[:2], 1.0, catalogue.path(2), solver="leapfrog", steps=4)
