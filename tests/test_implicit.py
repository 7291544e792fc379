"""Implicit steps: their cost, what they conserve, how they fail, batches, kinds of state."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND, Diffusion, Field, Heat, Source, allen_cahn
from solvers import methods
from solvers.flow import Flow
from solvers.rows import Rows
from solvers.stepper import Accuracy

F64 = torch.float64
NAMES = ("trbdf2", "implicit_euler", "crank_nicolson")
every = pytest.mark.parametrize("solver", NAMES)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def scale_free(nodes: int, seed: int = 0) -> Graph:
    """A tree in which every node joins one of the earlier ends: few hubs, many leaves."""
    generator = torch.Generator().manual_seed(seed)
    ends, edges = [0], []
    for node in range(1, nodes):
        parent = ends[int(torch.randint(len(ends), (), generator=generator))]
        edges.append((parent, node))
        ends += [parent, node]
    edge = torch.tensor(edges).T
    return Graph(torch.cat([edge, edge.flip(0)], dim=1), nodes)


def heat_at(graph: Graph, x0: Tensor, t: float, norm: str = "comb") -> Tensor:
    return torch.linalg.matrix_exp(-t * graph.laplacian(norm).to(F64).to_dense()) @ x0


def observed(solver: str, graph: Graph, x0: Tensor, norm: str) -> float:
    """The order on heat flow, by two numbers of steps."""
    exact = heat_at(graph, x0, 1.0, norm)
    errors = [
        (solve(Heat(norm), x0, 1.0, graph, solver=solver, steps=n).final - exact).norm()
        for n in (40, 80)
    ]
    return math.log2(errors[0] / errors[1])


@every
@pytest.mark.parametrize("norm", ["comb", "sym", "rw", "augmented"])
def test_heat_flows_at_the_order_of_the_method(solver: str, norm: str) -> None:
    graph = catalogue.barbell(4, 2)
    wanted = methods.stepper(solver).order
    assert observed(solver, graph, normal(10, 2), norm) == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize(
    ("solver", "rtol"), [("trbdf2", 1e-3), ("trbdf2", 1e-6), ("implicit_euler", 1e-3)]
)
def test_a_tolerance_is_kept_within_a_factor(solver: str, rtol: float) -> None:
    graph, x0 = catalogue.grid(5, 5), normal(25, 3)
    traj = solve(Heat(), x0, 3.0, graph, solver=solver, rtol=rtol, atol=rtol)
    error = (traj.final - heat_at(graph, x0, 3.0)).abs().max()
    assert rtol / 100 < error < 100 * rtol


def test_the_estimate_is_the_local_error() -> None:
    x = (torch.tensor([2.0], dtype=F64),)
    flow = Flow(lambda t, x: (x[0] * torch.cos(t),), Rows(), x[0])
    for name, slack in (("trbdf2", 0.1), ("implicit_euler", 0.1)):
        stepper = methods.stepper(name).begin(flow, Rows(), Accuracy(1e-12, 1e-12))
        t, h = np.array([0.3]), np.array([0.02])
        f = flow.stages(t, h)
        step = stepper.step(f, 0.02, x, flow(t, x), plan=stepper.plan(f, x, None))
        true = step.x[0].item() - 2 * math.exp(math.sin(0.32) - math.sin(0.3))
        assert step.error is not None
        assert step.error[0].item() == pytest.approx(true, rel=slack)


def test_hubs_do_not_cost_steps() -> None:
    # dopri5 has to take h < 3.3 / lambda, here 500 / 3.3 steps for every unit of time.
    star, x0 = catalogue.star(500), normal(500, 2)
    traj = solve(Heat(), x0, 100.0, star, solver="trbdf2", rtol=1e-3, atol=1e-3)
    assert traj.stats.accepted + traj.stats.rejected < 40
    assert traj.stats.operator_products < 400
    torch.testing.assert_close(traj.final, heat_at(star, x0, 100.0), rtol=1e-2, atol=1e-3)


def test_allen_cahn_on_hubs_takes_a_fifth_of_the_products_of_dopri5() -> None:
    graph, x0 = scale_free(300), normal(300, 2)
    how = {"rtol": 1e-3, "atol": 1e-3}
    ours = solve(allen_cahn(), x0, 100.0, graph, solver="trbdf2", **how)
    other = solve(allen_cahn(), x0, 100.0, graph, solver="dopri5", **how)
    assert 5 * ours.stats.operator_products < other.stats.operator_products
    assert "linear systems by conjugate gradients" in ours.stats.reason
    torch.testing.assert_close(ours.final, other.final, rtol=1e-3, atol=1e-3)


@every
def test_mass_is_conserved(solver: str) -> None:
    graph, x0 = scale_free(60), normal(60, 3) + 5
    traj = solve(Heat(), x0, 20.0, graph, solver=solver, steps=20)
    torch.testing.assert_close(traj.final.sum(0), x0.sum(0), rtol=1e-9, atol=0)
    walk = solve(Heat("rw"), x0, 20.0, graph, solver=solver, steps=20)
    degree = graph.adjacency().to(F64) @ torch.ones(60, 1, dtype=F64)
    torch.testing.assert_close(
        (degree * walk.final).sum(0), (degree * x0).sum(0), rtol=1e-9, atol=0
    )


def test_a_source_and_a_direction_of_time_are_followed() -> None:
    graph, x0 = catalogue.path(4), torch.zeros(4, 1, dtype=F64)
    strength = torch.tensor([[1.0], [0.0], [0.0], [-1.0]], dtype=F64)
    L = graph.laplacian("comb").to(F64).to_dense()
    rest = torch.linalg.pinv(L) @ strength
    there = solve(Heat() + Source(strength), x0, 60.0, graph, solver="trbdf2", rtol=1e-6)
    torch.testing.assert_close(there.final, rest, rtol=1e-6, atol=1e-6)
    # Backward heat grows: I - h d J is indefinite for large h, and GMRES takes over.
    end = heat_at(graph, normal(4, 1), 1.0)
    back = solve(Heat(), end, [1.0, 0.0], graph, solver="trbdf2", rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(back.final, normal(4, 1), rtol=1e-3, atol=1e-3)


def test_steps_over_which_growth_makes_the_system_indefinite_are_still_solved() -> None:
    # L has the eigenvalues 0, 75 and 150, and I - h d J = I - 0.02 L has 1, -0.5 and -2.
    graph, x0 = catalogue.bipartite(75, 75), normal(150, 1)
    field = Diffusion(lambda graph, x0: graph.laplacian("comb"))
    traj = solve(field, x0, 0.06, graph, solver="implicit_euler", steps=3)
    A = torch.eye(150, dtype=F64) - 0.02 * graph.laplacian("comb").to(F64).to_dense()
    wanted = torch.linalg.solve(A, torch.linalg.solve(A, torch.linalg.solve(A, x0)))
    assert "GMRES" in traj.stats.reason
    torch.testing.assert_close(traj.final, wanted, rtol=1e-7, atol=1e-8)


class Gradient(nn.Module):
    """A large field without structure whose Jacobian is symmetric, or nearly so."""

    def __init__(self, L: Any, twist: float = 0.0) -> None:
        super().__init__()
        self.L, self.twist = L, twist

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return x - x**3 - self.L @ x + self.twist * (x.roll(1, 0) - x.roll(-1, 0))


@pytest.mark.parametrize(
    ("twist", "by"), [(0.0, "conjugate gradients"), (0.5, "GMRES")], ids=["even", "twisted"]
)
def test_a_test_for_symmetry_chooses_the_linear_solver(twist: float, by: str) -> None:
    graph, x0 = catalogue.grid(9, 9), normal(81, 2)
    field = Gradient(graph.laplacian("comb").to(F64), twist)
    with torch.no_grad():
        traj = solve(field, x0, 1.0, solver="trbdf2", rtol=1e-4)
        other = solve(field, x0, 1.0, solver="dopri5", rtol=1e-7)
    assert traj.stats.reason.endswith(f"linear systems by {by}")
    torch.testing.assert_close(traj.final, other.final, rtol=1e-3, atol=1e-3)


def test_structure_does_not_change_the_answer() -> None:
    graph, x0 = catalogue.grid(9, 9), normal(81, 2)
    plain = Gradient(graph.laplacian("comb").to(F64))
    how = {"solver": "trbdf2", "rtol": 1e-5}
    with torch.no_grad():
        split = solve(allen_cahn(), x0, 2.0, graph, **how)
        whole = solve(plain, x0, 2.0, **how)
    assert split.stats.accepted == whole.stats.accepted
    # Stages are exact to 1e-2 of the tolerance.
    torch.testing.assert_close(split.final, whole.final, rtol=1e-5, atol=1e-5)


def test_attention_that_is_not_symmetric_is_solved() -> None:
    graph = catalogue.grid(6, 6)
    torch.manual_seed(1)
    field = GRAND(4, variant="nonlinear").double()
    x0 = normal(36, 4)
    with torch.no_grad():
        traj = solve(field, x0, 3.0, graph, solver="trbdf2", rtol=1e-4)
        other = solve(field, x0, 3.0, graph, solver="dopri5", rtol=1e-8)
    assert "GMRES" in traj.stats.reason
    torch.testing.assert_close(traj.final, other.final, rtol=1e-3, atol=1e-3)


def test_evaluations_and_jacobian_products_are_counted_alike() -> None:
    graph, x0 = catalogue.path(6), normal(6, 1)
    traj = solve(Heat(), x0, 2.0, graph, solver="implicit_euler", steps=4)
    # The first slope, then one evaluation a step; the others are products of conjugate gradients.
    assert traj.stats.nfe == traj.stats.operator_products > 4
    small = torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    with torch.no_grad():
        three = solve(lambda t, x: -(x.cumsum(0)), small, 1.0, solver="implicit_euler", steps=1)
    # First slope; the Jacobian with its value and three rows; the check that it contracts.
    assert three.stats.nfe == 1 + 1 + 3 + 1


GRAPHS = (catalogue.path(5), catalogue.star(40), catalogue.ring(7), catalogue.complete(4))


@pytest.mark.parametrize("field", [Heat(), allen_cahn(), allen_cahn(norm="rw")])
@pytest.mark.parametrize("solver", ["trbdf2", "implicit_euler"])
def test_graphs_of_a_batch_take_the_steps_they_take_alone(solver: str, field: Field) -> None:
    batch = Graph.union(GRAPHS)
    x0, times = normal(batch.num_nodes, 2), [0.0, 0.4, 0.5, 2.0]
    how = {"solver": solver, "rtol": 1e-3}
    traj = solve(field, x0, times, batch, **how)
    for g, one in enumerate(GRAPHS):
        rows = batch.batch == g
        own = solve(field, x0[rows], times, one, **how)
        assert traj.stats.accepted[g] == own.stats.accepted
        assert traj.stats.rejected[g] == own.stats.rejected
        torch.testing.assert_close(traj.x[:, rows], own.x, rtol=1e-9, atol=1e-11)


class Mixed(Field):
    """x' = tanh(A x) - x^3 (1 + t), without structure; small graphs go by LU, large by GMRES."""

    batched_time = True

    def prepare(self, graph: Graph, x0: Any) -> None:
        self.A = graph.adjacency("row")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.A @ x) - 3 * x**3 * (1 + t)


def test_a_batch_of_small_and_large_graphs_without_structure() -> None:
    graphs = (catalogue.path(5), catalogue.star(130), catalogue.ring(30))
    batch = Graph.union(graphs)
    x0 = normal(batch.num_nodes, 1)
    how = {"solver": "trbdf2", "rtol": 1e-4}
    traj = solve(Mixed(), x0, 0.5, batch, **how)
    assert traj.stats.reason.endswith("linear systems by GMRES and LU")
    for g, one in enumerate(graphs):
        rows = batch.batch == g
        own = solve(Mixed(), x0[rows], 0.5, one, **how)
        assert traj.stats.accepted[g] == own.stats.accepted
        torch.testing.assert_close(traj.final[rows], own.final, rtol=1e-8, atol=1e-10)


class Blowing(Field):
    """x' = rate x^2: it blows up at 1 / (rate x0)."""

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x**2


@pytest.mark.parametrize("own_clocks", [False, True])
@pytest.mark.parametrize("how", [{"rtol": 1e-4}, {"steps": 20}], ids=["adaptive", "fixed"])
def test_a_graph_that_blows_up_leaves_the_others_alone(own_clocks: bool, how: dict) -> None:
    field = Blowing()
    field.batched_time = own_clocks
    batch = Graph.union([catalogue.path(3), catalogue.path(3)])
    x0 = torch.tensor([[0.1]] * 3 + [[1.0]] * 3, dtype=F64)
    traj = solve(field, x0, 2.0, batch, solver="trbdf2", raise_on_failure=False, **how)
    assert traj.status[0] == "done"
    assert traj.status[1] in ("newton_failed", "step_too_small", "not_finite")
    torch.testing.assert_close(traj.final[:3], x0[:3] / (1 - 2 * x0[:3]), rtol=1e-3, atol=1e-4)
    assert 0.8 < float(traj.ended[1]) <= 1.01


def test_half_precision_is_refused_before_any_work() -> None:
    x0 = torch.ones(3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"x0\.float\(\) or x0\.double\(\)"):
        solve(lambda t, x: 1 / 0, x0, 1.0, solver="trbdf2", steps=2)


def test_crank_nicolson_takes_fixed_steps() -> None:
    with pytest.raises(ValueError, match=r"takes fixed steps: give steps=n"):
        solve(lambda t, x: -x, torch.ones(2), 1.0, solver="crank_nicolson")


@every
def test_single_precision_does_what_double_does(solver: str) -> None:
    graph, x0 = scale_free(80), normal(80, 2)
    adaptive = [{"rtol": 1e-4}] if solver == "trbdf2" else []
    for how in ({"steps": 20}, *adaptive):
        wide = solve(allen_cahn(), x0, 2.0, graph, solver=solver, **how)
        narrow = solve(allen_cahn(), x0.float(), 2.0, graph, solver=solver, **how)
        assert narrow.final.dtype == torch.float32
        assert abs(narrow.stats.accepted - wide.stats.accepted) <= 1
        torch.testing.assert_close(narrow.final.double(), wide.final, rtol=1e-3, atol=1e-3)


def test_parts_of_any_shapes_are_solved_together() -> None:
    def lorenz_like(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, y = state
        return -50.0 * (x - y.sum()), torch.stack([-y[0] + x.mean(), -y[1] * x[0, 1]])

    x0 = (normal(2, 3), normal(2, seed=1))
    with torch.no_grad():
        traj = solve(lorenz_like, x0, 2.0, solver="trbdf2", rtol=1e-6)
        other = solve(lorenz_like, x0, 2.0, solver="dopri5", rtol=1e-9)
    for a, b in zip(traj.final, other.final, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conjugated", [False, True])
def test_complex_states_are_solved_holomorphic_or_not(conjugated: bool) -> None:
    def rotating(t: Tensor, x: Tensor) -> Tensor:
        return (-3 + 2j) * (x.conj() if conjugated else x) - x * x.abs() ** 2 + 1j * torch.cos(t)

    x0 = torch.complex(normal(4), normal(4, seed=1))
    with torch.no_grad():
        traj = solve(rotating, x0, 2.0, solver="trbdf2", rtol=1e-6)
        other = solve(rotating, x0, 2.0, solver="dopri5", rtol=1e-9)
    torch.testing.assert_close(traj.final, other.final, rtol=1e-4, atol=1e-5)


def test_complex_heat_is_the_heat_of_both_parts() -> None:
    graph, re, im = catalogue.ring(8), normal(8, 1), normal(8, 1, seed=1)
    how = {"solver": "trbdf2", "steps": 10}
    both = solve(Heat(), torch.complex(re, im), 1.0, graph, **how).final
    torch.testing.assert_close(both.real, solve(Heat(), re, 1.0, graph, **how).final)
    torch.testing.assert_close(both.imag, solve(Heat(), im, 1.0, graph, **how).final)


def test_near_consensus_the_deviation_is_right() -> None:
    graph = catalogue.grid(6, 6)
    wave = torch.linalg.eigh(graph.laplacian("comb").to(F64).to_dense())
    value, mode = float(wave.eigenvalues[1]), wave.eigenvectors[:, 1:2]
    x0 = 1.0 + 1e-6 * mode
    how = {"rtol": 1e-3, "atol": 1e-9, "error_scale": "deviation"}
    traj = solve(Heat(), x0, 5.0, graph, solver="trbdf2", **how)
    left = float((traj.final - 1.0).norm())
    assert left == pytest.approx(1e-6 * math.exp(-5 * value), rel=2e-2)
