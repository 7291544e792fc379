"""Strang splitting and the implicit-explicit method; what all split methods have in common."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from strategies import quietly
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Diffusion, Field, Heat, Reaction, Source
from neuralpde.operators import products
from solvers.explicit import explicit
from solvers.failure import SolveFailed
from solvers.flow import Flow
from solvers.imex import DELTA, GAMMA, Shifted
from solvers.methods import stepper
from solvers.rows import Rows
from solvers.stepper import Accuracy, Step
from solvers.structure import Structure

DOUBLE = torch.float64
SPLIT = ["etdrk2", "strang", "ars222"]
every = pytest.mark.parametrize("solver", SPLIT)


class Forced(Field):
    """x - x^3 + 0.3 sin 3t."""

    pointwise = batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x - x**3 + 0.3 * torch.sin(3 * t)


class Season(Field):
    """c x cos t with c from node to node, so that it does not commute with diffusion."""

    pointwise = True

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.c = torch.linspace(0.5, 1.5, len(x0), dtype=x0.dtype).unsqueeze(1)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.c * x * torch.cos(t)


class Exchange(Field):
    """Keeps the sum over the nodes: the row of a graph's cubic differences."""

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("none", dtype=x0.dtype).to_dense()

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        gap = x.unsqueeze(0) - x.unsqueeze(1)
        return (self.A.unsqueeze(2) * gap**3).sum(1)


BARBELL = catalogue.barbell(4, 4)
PROBLEMS: dict[str, tuple[Field, Callable[[float, np.ndarray], np.ndarray]]] = {
    "autonomous": (Reaction.allen_cahn(), lambda t, x: x - x**3),
    "forced Allen-Cahn": (Forced(), lambda t, x: x - x**3 + 0.3 * np.sin(3 * t)),
    "season": (Season(), lambda t, x: np.linspace(0.5, 1.5, 12)[:, None] * x * np.cos(t)),
}


def slope(steps: list[int], error: Callable[[int], float]) -> float:
    errors = [error(n) for n in steps]
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


@every
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_order_two_is_seen_over_four_halvings(solver: str, problem: str) -> None:
    field, rest = PROBLEMS[problem]
    x0 = torch.randn(12, 1, dtype=DOUBLE)
    L = BARBELL.laplacian("comb", dtype=DOUBLE).to_dense().numpy()

    def right(t: float, x: np.ndarray) -> np.ndarray:
        x = x.reshape(12, 1)
        return (rest(t, x) - L @ x).ravel()

    found = solve_ivp(right, (0, 2), x0.numpy().ravel(), method="DOP853", rtol=3e-14, atol=1e-15)
    exact = torch.from_numpy(found.y[:, -1]).unsqueeze(1)

    def error(n: int) -> float:
        traj = solve(Heat() + field, x0, 2.0, BARBELL, solver=solver, steps=n)
        return float((traj.final - exact).norm())

    assert slope([16, 32, 64, 128, 256], error) == pytest.approx(2, abs=0.15)


@every
def test_huge_steps_are_stable(solver: str) -> None:
    # h Lambda = 1e4: 40 nodes, complete, eigenvalues 0 and 40.
    graph = catalogue.complete(40)
    x0 = 0.3 + 0.05 * torch.randn(40, 1, dtype=DOUBLE)
    field = Heat(rate=2500.0) + Reaction.allen_cahn()
    traj = solve(field, x0, 20 * 0.1, graph, solver=solver, steps=20)
    # Diffusion wins at once; the mean follows its own equation, u' = u - u^3.
    m = x0.mean().item()
    mean = m * math.exp(2.0) / math.sqrt(1 + m * m * (math.exp(4.0) - 1))
    assert torch.allclose(traj.final, torch.full_like(x0, mean), rtol=0, atol=5e-3)


@every
def test_constants_stay_constant_and_mass_is_kept(solver: str) -> None:
    graph = catalogue.lollipop(8, 12)
    flat = torch.full((20, 2), 0.3, dtype=DOUBLE)
    still = solve(Heat(rate=30.0) + Exchange(), flat, 2.0, graph, solver=solver, steps=10)
    assert torch.allclose(still.final, flat, rtol=0, atol=1e-13)
    x0 = torch.randn(20, 2, dtype=DOUBLE)
    moving = solve(Heat(rate=30.0) + Exchange(), x0, 2.0, graph, solver=solver, steps=200)
    assert (moving.final - x0).abs().max() > 0.1
    assert torch.allclose(moving.final.sum(0), x0.sum(0), rtol=0, atol=1e-10)


def test_strang_is_exact_where_there_is_no_rest_and_rk4_where_there_is_no_diffusion() -> None:
    class Nothing(Field):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    graph = catalogue.lollipop(5, 6)
    x0, b = torch.randn(2, 11, 2, dtype=DOUBLE).unbind()
    A = -graph.laplacian("comb", dtype=DOUBLE).to_dense()
    for sourced in (False, True):
        field = Heat() + Nothing() + Source(b) if sourced else Heat() + Nothing()
        traj = solve(field, x0, 7.0, graph, solver="strang", steps=2)
        extended = torch.zeros(13, 13, dtype=DOUBLE)
        extended[:11, :11], extended[:11, 11:] = A, b * sourced
        flow = torch.linalg.matrix_exp(7 * extended)
        exact = flow[:11, :11] @ x0 + flow[:11, 11:]
        assert torch.allclose(traj.final, exact, rtol=0, atol=2e-12)
    still = Diffusion(lambda graph, x0: graph.laplacian("comb", dtype=DOUBLE) * 0.0)
    split = solve(still + Forced(), x0, 2.0, graph, solver="strang", steps=9)
    alone = solve(Forced(), x0, 2.0, graph, solver="rk4", steps=9)
    assert torch.allclose(split.final, alone.final, rtol=0, atol=1e-14)


@every
def test_decay_beyond_what_exponentials_hold_ends_in_the_rest(solver: str) -> None:
    decay = Diffusion(lambda graph, x0: graph.laplacian("comb", dtype=DOUBLE).shifted(-1.0, -1e6))
    x0 = torch.randn(12, 1, dtype=DOUBLE)
    traj = solve(decay + Forced(), x0, 1.0, BARBELL, solver=solver, steps=8)
    assert traj.final.abs().max() < 1e-5


def test_strang_keeps_allen_cahn_between_its_wells() -> None:
    graph = catalogue.star(30)
    x0 = 2 * torch.rand(30, 3, dtype=DOUBLE) - 1
    traj = solve(Heat(rate=40.0) + Reaction.allen_cahn(), x0, 5.0, graph, solver="strang", steps=25)
    assert traj.final.abs().max() <= 1 + 1e-12


def one_step(solver: str, field: Field, graph: Graph, x: Tensor, h: float) -> Step:
    bound = field.bind(graph, x)
    structure = Structure(bound.operator, bound.source, lambda t, y: (bound.rest(t, y[0]),))
    flow = Flow(lambda t, y: (bound(t, y[0]),), Rows(), x, structure)
    method = stepper(solver).begin(flow, Rows(), Accuracy())
    return method.step(flow.stages(np.array([0.0]), np.array([h])), h, (x,), (x,))


@pytest.mark.parametrize("sourced", [False, True])
def test_ars222_is_its_tableau(sourced: bool) -> None:
    graph, h = catalogue.lollipop(5, 4), 0.4
    x, b = torch.randn(2, 9, 2, dtype=DOUBLE).unbind()
    field = Heat("rw", rate=3.0) + Forced()
    step = one_step("ars222", field + Source(b) if sourced else field, graph, x, h)
    A = -3 * graph.laplacian("rw", dtype=DOUBLE).to_dense()
    b = b * sourced

    def g(c: float, y: Tensor) -> Tensor:
        return y - y**3 + 0.3 * math.sin(3 * c * h)

    matrix = torch.eye(9, dtype=DOUBLE) - GAMMA * h * A
    first = g(0, x)
    y = torch.linalg.solve(matrix, x + GAMMA * h * (first + b))
    slope = A @ y + b
    right = x + h * (DELTA * first + (1 - DELTA) * g(GAMMA, y) + (1 - GAMMA) * slope)
    exact = torch.linalg.solve(matrix, right + h * GAMMA * b)
    assert torch.allclose(step.x[0], exact, rtol=0, atol=1e-12)
    assert step.error is not None
    assert torch.allclose(step.error[0], exact - x - (y - x) / GAMMA, rtol=0, atol=1e-12)


def test_the_tableau_of_ars222_satisfies_the_conditions_of_order_two() -> None:
    implicit, b_implicit = np.array([[0, 0, 0], [0, GAMMA, 0], [0, 1 - GAMMA, GAMMA]]), None
    explicit_, b_explicit = np.array([[0, 0, 0], [GAMMA, 0, 0], [DELTA, 1 - DELTA, 0]]), None
    # Both are stiffly accurate: the last row is the weights.
    b_implicit, b_explicit = implicit[2], explicit_[2]
    c = np.array([0, GAMMA, 1])
    assert np.allclose(implicit.sum(1), c)
    assert np.allclose(explicit_.sum(1), c)
    for b in (b_implicit, b_explicit):
        assert b.sum() == pytest.approx(1, abs=1e-15)
        assert b @ c == pytest.approx(0.5, abs=1e-15)
    # L-stable: 1 + z b (I - z A)^-1 1 vanishes far away.
    z = -1e9
    far = 1 + z * b_implicit @ np.linalg.solve(np.eye(3) - z * implicit, np.ones(3))
    assert abs(far) < 1e-8


@pytest.mark.parametrize("solver", ["etdrk2", "ars222"])
@pytest.mark.parametrize("rate", [1.0, 100.0, 1e4])
def test_the_estimate_is_sound_from_smooth_states(solver: str, rate: float) -> None:
    graph = catalogue.lollipop(10, 5)
    L = rate * graph.laplacian("comb", dtype=DOUBLE).to_dense().numpy()

    def right(t: float, x: np.ndarray) -> np.ndarray:
        return x - x**3 + 0.3 * np.sin(3 * t) - L @ x

    def follow(x: np.ndarray, t: float) -> np.ndarray:
        how = {"method": "Radau", "rtol": 1e-11, "atol": 1e-13}
        return solve_ivp(right, (0, t), x, **how).y[:, -1]

    smooth = follow(np.linspace(-1, 2, 15), 0.1)
    x, estimates, sizes = torch.from_numpy(smooth).unsqueeze(1), [], [0.1, 0.025, 0.00625]
    for h in sizes:
        step = one_step(solver, Heat(rate=rate) + Forced(), graph, x, h)
        assert step.error is not None
        estimates.append(step.error[0].norm().item())
        assert estimates[-1] >= np.linalg.norm(step.x[0][:, 0].numpy() - follow(smooth, h))
    order = np.polyfit(np.log(sizes), np.log(estimates), 1)[0]
    assert order == pytest.approx(2, abs=0.35)


@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
def test_ars222_meets_its_tolerance_with_few_products(rtol: float) -> None:
    graph, x0 = catalogue.star(200), torch.randn(200, 2, dtype=DOUBLE)
    field = Heat() + Reaction.allen_cahn()
    exact = solve(field, x0, 3.0, graph, solver="dopri8", rtol=1e-11, atol=1e-12).final
    traj = solve(field, x0, 3.0, graph, solver="ars222", rtol=rtol, atol=rtol)
    assert (traj.final - exact).norm() <= 10 * rtol * exact.norm()
    peer = solve(field, x0, 3.0, graph, solver="dopri5", rtol=1e-3, atol=1e-3)
    if rtol == 1e-3:
        assert 3 * traj.stats.operator_products < peer.stats.operator_products


def test_conjugate_gradients_take_fewer_products_than_the_series_of_the_resolvent() -> None:
    hub = [(0, i) for i in range(1, 150)] + [(i, i + 1) for i in range(1, 149)]
    edges = torch.tensor(hub).T
    graph = Graph(torch.cat([edges, edges.flip(0)], 1), 150)
    A = -graph.laplacian("comb", dtype=DOUBLE)
    shifted, b = Shifted(A), torch.randn(150, 3, dtype=DOUBLE)
    before = products.total
    shifted.solve(np.array([1.0]), b, 1e-6 * shifted.norms(b))
    taken = products.total - before
    # The coefficients of 1 / (1 - s w) on the enclosure fall like rho^-k.
    root = math.sqrt(1 - A.spectrum()[0].item())
    rho = (root + 1) / (root - 1)
    degree = math.log(2 / root / (rho - 1) / 1e-6) / math.log(rho)
    assert 3 * taken < degree


# ------------------------------------------------------------------------ batches and gradients


@every
@pytest.mark.parametrize("how", [{"steps": 6}, {"rtol": 1e-3}])
def test_a_batch_gives_what_its_graphs_give_alone(solver: str, how: dict[str, float]) -> None:
    if solver == "strang" and "rtol" in how:
        with pytest.raises(ValueError, match="takes fixed steps"):
            solve(Heat() + Forced(), torch.zeros(12, 1), 1.0, BARBELL, solver=solver, **how)
        return
    graphs = [catalogue.star(30), catalogue.path(4), catalogue.complete(9), catalogue.path(1)]
    batch = Graph.union(graphs)
    x0 = torch.randn(batch.num_nodes, 2, dtype=DOUBLE)
    for norm in ("comb", "rw"):
        field = Heat(norm, rate=3.0) + Forced()
        together = solve(field, x0, [0.0, 0.3, 1.0], batch, solver=solver, **how)
        start = 0
        for i, graph in enumerate(graphs):
            rows = slice(start, start + graph.num_nodes)
            alone = solve(field, x0[rows], [0.0, 0.3, 1.0], graph, solver=solver, **how)
            assert torch.allclose(together.x[:, rows], alone.x, rtol=0, atol=1e-11)
            if "rtol" in how:
                assert together.stats.accepted[i] == alone.stats.accepted
            start = rows.stop


@every
@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_gradients_of_everything_are_right(solver: str, norm: str) -> None:
    graph = catalogue.lollipop(3, 2)

    class Learned(Field):
        pointwise = True

        def __init__(self, rate: Tensor) -> None:
            super().__init__()
            self.rate = rate

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.sin(self.rate * x + t)

    def final(x0: Tensor, diffusivity: Tensor, rate: Tensor, b: Tensor) -> Tensor:
        field = Heat(norm, rate=diffusivity) + Learned(rate) + Source(b)
        return solve(field, x0, 1.5, graph, solver=solver, steps=3, grad="tape").final

    x0, b = torch.randn(2, 5, 2, dtype=DOUBLE).unbind()
    numbers = (torch.tensor(2.0, dtype=DOUBLE), torch.tensor(0.7, dtype=DOUBLE))
    inputs = [v.clone().requires_grad_() for v in (x0, *numbers, b)]
    assert torch.autograd.gradcheck(final, inputs, atol=1e-6)


@every
@pytest.mark.parametrize("how", [{"steps": 15}, {"rtol": 3e-3}])
def test_replay_is_the_tape(solver: str, how: dict[str, float]) -> None:
    if solver == "strang" and "rtol" in how:
        return
    graph = Graph.union([catalogue.star(20), catalogue.path(5)])

    class Learned(Forced):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.8, dtype=DOUBLE))

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.gain * super().rest(t, x)

    x0, found = torch.randn(25, 2, dtype=DOUBLE), []
    for grad in ("tape", "replay"):
        start = x0.clone().requires_grad_()
        heat = Heat(rate=nn.Parameter(torch.tensor(2.0, dtype=DOUBLE)))
        field = heat + Learned()
        traj = solve(field, start, [0.0, 0.4, 1.0], graph, solver=solver, grad=grad, **how)
        loss = (traj.x**2).sum() + traj.final.sin().sum()
        found.append(torch.autograd.grad(loss, (start, *field.parameters())))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 1e-3
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------- refusals


@every
def test_fields_without_two_parts_are_refused_before_any_work(solver: str) -> None:
    x0, calls = torch.randn(12, 1, dtype=DOUBLE), []

    def plain(t: Tensor, x: Tensor) -> Tensor:
        calls.append(t)
        return -x

    with pytest.raises(ValueError, match=r"no linear part.*'tsit5', or 'rkl2'"):
        solve(plain, x0, 1.0, solver=solver, steps=5)
    with pytest.raises(ValueError, match=r"no linear part"):
        solve(Reaction.allen_cahn(), x0, 1.0, BARBELL, solver=solver, steps=5)
    with pytest.raises(ValueError, match=r"has no rest.*solver='exact'"):
        solve(Heat(), x0, 1.0, BARBELL, solver=solver, steps=5)
    assert not calls


def test_ars222_refuses_directed_diffusion_and_names_who_can() -> None:
    ring = quietly(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
    x0 = torch.rand(3, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"self-adjoint.*'etdrk2'.*'trbdf2'.*undirected"):
        solve(Heat("rw") + Reaction.fisher(), x0, 1.0, ring, solver="ars222", steps=5)
    for solver in ("etdrk2", "strang"):
        traj = solve(Heat("rw") + Reaction.fisher(), x0, 1.0, ring, solver=solver, steps=200)
        exact = solve(Heat("rw") + Reaction.fisher(), x0, 1.0, ring, solver="dopri8", rtol=1e-10)
        assert torch.allclose(traj.final, exact.final, rtol=0, atol=1e-5)


def test_growth_that_makes_the_system_indefinite_is_reported_or_stepped_around() -> None:
    # The adjacency of a star with 9 leaves has the eigenvalue 3: gamma h 3 < 1 is needed.
    field = Diffusion(lambda graph, x0: graph.adjacency("none", dtype=DOUBLE)) + Forced()
    graph, x0 = catalogue.star(10), 0.1 * torch.rand(10, 1, dtype=DOUBLE)
    with pytest.raises(SolveFailed, match=r"not safely positive definite.*etdrk2"):
        solve(field, x0, 4.0, graph, solver="ars222", steps=2)
    exact = solve(field, x0, 4.0, graph, solver="dopri8", rtol=1e-10, atol=1e-10).final
    traj = solve(field, x0, 4.0, graph, solver="ars222", rtol=1e-5, atol=1e-5)
    assert torch.allclose(traj.final, exact, rtol=0, atol=1e-3)


@every
def test_evaluations_and_products_are_counted(solver: str) -> None:
    calls = []

    class Counted(Forced):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            calls.append(float(t))
            return super().rest(t, x)

    x0, before = torch.randn(12, 1, dtype=DOUBLE), products.total
    traj = solve(Heat() + Counted(), x0, 1.0, BARBELL, solver=solver, steps=4)
    assert traj.stats.nfe == len(calls)
    # One at the start, and two or (Runge-Kutta's classical method) four in each step.
    assert traj.stats.nfe == 1 + 4 * (4 if solver == "strang" else 2)
    assert traj.stats.operator_products <= products.total - before
    assert max(calls) <= 1.0


def test_the_method_between_the_halves_of_strang_is_rk4() -> None:
    x0 = torch.randn(12, 2, dtype=DOUBLE)
    step = one_step("strang", Heat(rate=1e-14) + Forced(), BARBELL, x0, 0.5)

    def f(c: float, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (x[0] - x[0] ** 3 + 0.3 * math.sin(1.5 * c),)

    alone = explicit("rk4").step(f, 0.5, (x0,), f(0.0, (x0,)), error=False)
    assert torch.allclose(step.x[0], alone.x[0], rtol=0, atol=1e-12)
