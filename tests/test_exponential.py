"""The exponential Runge-Kutta method of Cox and Matthews."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from modes import DOUBLE, dense, directed
from scipy.integrate import solve_ivp
from split import Forced, slope
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Heat, Reaction
from neuralpde.operators import SparseOperator
from solvers.flow import Flow
from solvers.methods import stepper
from solvers.rows import Rows
from solvers.stepper import Accuracy, Step
from solvers.structure import Structure

SINGLE = torch.float32


def reference(graph: Graph, x0: Tensor, t: float, scale: float = 1.0) -> Tensor:
    """Forced Allen-Cahn by scipy's Radau or DOP853 with a dense matrix."""
    L = scale * graph.laplacian("comb", dtype=DOUBLE).to_dense().numpy()
    shape = tuple(x0.shape)

    def field(t: float, x: np.ndarray) -> np.ndarray:
        x = x.reshape(shape)
        return (-L @ x + x - x**3 + 0.3 * np.sin(3 * t)).ravel()

    stiff = scale > 1
    how = {"method": "Radau" if stiff else "DOP853", "rtol": 1e-11 if stiff else 1e-13}
    solution = solve_ivp(field, (0, t), x0.numpy().ravel(), atol=1e-14, **how)
    return torch.from_numpy(solution.y[:, -1].reshape(shape))


def one_step(solver: str, A: SparseOperator, x: Tensor, h: float, rest: Callable) -> Step:
    structure = Structure(A, None, lambda t, y: (rest(t, y[0]),))
    flow = Flow(lambda t, y: (A @ y[0] + rest(t, y[0]),), Rows(), x, structure)
    method = stepper(solver).begin(flow, Rows(), Accuracy())
    f = flow.stages(np.array([0.0]), np.array([h]))
    return method.step(f, h, (x,), (x,), plan=method.plan(f, (x,), (x,)))


class Lag(Field):
    """-rate (x - cos t) - sin t, solved by cos t: stiff, and depends on time."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.operator = (graph.adjacency("none", dtype=x0.dtype) * 0.0).shifted(1.0, -self.rate)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return (self.rate * torch.cos(t) - torch.sin(t)).expand_as(x)


def test_the_step_is_the_formula_of_cox_and_matthews() -> None:
    A = -catalogue.lollipop(4, 3).laplacian("comb", dtype=DOUBLE)
    x, h = torch.randn(7, 2, dtype=DOUBLE), 0.7

    def g(t: Tensor, y: Tensor) -> Tensor:
        return y - y**3 + torch.cos(t)

    step = one_step("etdrk2", A, x, h, g)
    zero, end = torch.tensor(0.0), torch.tensor(h, dtype=DOUBLE)
    a = dense(A, 0, h, x) + h * dense(A, 1, h, g(zero, x))
    exact = a + h * dense(A, 2, h, g(end, a) - g(zero, x))
    assert torch.allclose(step.x[0], exact, rtol=0, atol=1e-13)
    assert step.error is not None
    assert torch.allclose(step.error[0], a - exact, rtol=0, atol=1e-13)


def test_order_two_is_seen_on_forced_allen_cahn() -> None:
    graph, x0 = catalogue.barbell(4, 4), torch.randn(12, 1, dtype=DOUBLE)
    exact, steps = reference(graph, x0, 2.0), [20, 40, 80, 160, 320]

    def error(n: int) -> float:
        traj = solve(Heat() + Forced(), x0, 2.0, graph, solver="etdrk2", steps=n)
        return float((traj.final - exact).norm())

    assert slope(steps, error) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("rate", [1.0, 50.0, 5e3, 1e6])
def test_the_error_is_of_order_two_uniformly_in_the_stiffness(rate: float) -> None:
    # From h rate = 3e5, where exponentials underflow, to 0.02; a constant that does not grow.
    x0, graph = torch.ones(2, 1, dtype=DOUBLE), catalogue.path(2)
    for n in (10, 20, 40, 80, 160):
        traj = solve(Lag(rate), x0, 3.0, graph, solver="etdrk2", steps=n)
        off = float((traj.final - math.cos(3.0)).abs().max())
        assert off <= 0.1 * (3.0 / n) ** 2


def test_a_rest_that_is_constant_is_solved_exactly_in_one_step() -> None:
    class Constant(Field):
        pointwise = True

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.linspace(-1, 1, len(x), dtype=x.dtype).unsqueeze(1).expand_as(x)

    graph, x0 = catalogue.lollipop(5, 6), torch.randn(11, 2, dtype=DOUBLE)
    traj = solve(Heat() + Constant(), x0, 9.0, graph, solver="etdrk2", steps=1)
    A = -graph.laplacian("comb", dtype=DOUBLE)
    b = torch.linspace(-1, 1, 11, dtype=DOUBLE).unsqueeze(1).expand_as(x0)
    exact = dense(A, 0, 9.0, x0) + 9 * dense(A, 1, 9.0, b)
    assert torch.allclose(traj.final, exact, rtol=0, atol=1e-12)
    # In steps, too: with an estimate of zero.
    adaptive = solve(Heat() + Constant(), x0, 9.0, graph, solver="etdrk2", rtol=1e-8)
    assert adaptive.stats.rejected == 0
    assert torch.allclose(adaptive.final, exact, rtol=0, atol=1e-7)


def test_products_fade_where_the_solution_rests_and_gradients_ask_for_more() -> None:
    graph = catalogue.star(201)
    x0 = 1.0 + 1e-9 * torch.randn(201, 1, dtype=DOUBLE)
    how = {"solver": "etdrk2", "rtol": 1e-3, "atol": 1e-3}
    calm = solve(Heat() + Reaction.allen_cahn(), x0, 3.0, graph, **how)
    rough = solve(Heat() + Reaction.allen_cahn(), torch.randn_like(x0), 3.0, graph, **how)
    # One product for each slope, a few for the start, none for functions.
    assert calm.stats.operator_products <= calm.stats.accepted + 3
    assert rough.stats.operator_products > 5 * rough.stats.accepted
    watched = solve(Heat() + Reaction.allen_cahn(), x0.requires_grad_(), 3.0, graph, **how)
    assert watched.stats.operator_products > 20 * watched.stats.accepted


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_gradients_near_rest_are_those_of_the_flow(grad: str) -> None:
    # A step that is right only because nothing moves would have derivatives of size h Lambda.
    graph = catalogue.star(61)
    x0 = torch.ones(61, 1, dtype=DOUBLE, requires_grad=True)
    traj = solve(Heat() + Reaction([0.0]), x0, 40.0, graph, solver="etdrk2", rtol=1e-4, grad=grad)
    g = torch.randn(61, 1, dtype=DOUBLE)
    (found,) = torch.autograd.grad((traj.final * g).sum(), x0)
    A = -graph.laplacian("comb", dtype=DOUBLE)
    exact = dense(A, 0, 40.0, g)
    assert (found - exact).norm() <= 1e-3 * g.norm()


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_the_tolerance_is_met_on_a_stiff_problem(rtol: float) -> None:
    graph, x0 = catalogue.lollipop(8, 8), torch.rand(16, 1, dtype=DOUBLE)
    exact = reference(graph, x0, 1.0, scale=100.0)
    traj = solve(Heat(rate=100.0) + Forced(), x0, 1.0, graph, solver="etdrk2", rtol=rtol, atol=rtol)
    assert (traj.final - exact).norm() <= 5 * rtol * exact.norm()
    # Explicit steps would be limited to 3.3 / 1000, 300 of them.
    if rtol == 1e-3:
        assert traj.stats.accepted < 60


def test_directed_diffusion_with_a_rest_works_through_uniformisation() -> None:
    graph, x0 = directed(), torch.rand(9, 2, dtype=DOUBLE)
    field = Heat("rw", rate=5.0) + Reaction.fisher()
    exact = solve(field, x0, 2.0, graph, solver="dopri8", rtol=1e-12, atol=1e-13).final

    def error(n: int) -> float:
        traj = solve(field, x0, 2.0, graph, solver="etdrk2", steps=n)
        return float((traj.final - exact).norm())

    assert slope([10, 20, 40, 80, 160], error) == pytest.approx(2, abs=0.15)
    with pytest.raises(ValueError, match="backward diffusion"):
        solve(field, x0, (2.0, 0.0), graph, solver="etdrk2", steps=4)


def test_backward_steps_follow_a_mild_field_back() -> None:
    graph, x0 = catalogue.ring(6), torch.randn(6, 1, dtype=DOUBLE)
    field = Heat(rate=0.1) + Forced()
    there = solve(field, x0, 1.0, graph, solver="etdrk2", steps=200).final
    back = solve(field, there, (1.0, 0.0), graph, solver="etdrk2", steps=200).final
    assert torch.allclose(back, x0, rtol=0, atol=1e-4)


def test_a_field_that_turns_nan_is_reported_and_spares_its_companions() -> None:
    class Breaking(Reaction):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.where(x > 1.2, torch.nan, x)

    # The first graph passes 1.2 on its way, the second stays below.
    graph = Graph.union([catalogue.path(3), catalogue.path(2)])
    x0 = torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1], dtype=DOUBLE).unsqueeze(1)
    for solver in ("etdrk2", "ars222", "strang"):
        how = {"solver": solver, "steps": 20, "raise_on_failure": False}
        traj = solve(Heat() + Breaking([0.0]), x0, 1.0, graph, **how)
        assert traj.status == ("not_finite", "done")
        growth = math.exp(1.0)
        assert torch.allclose(traj.final[3:], 0.1 * growth * x0.new_ones(2, 1), rtol=2e-3)


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_single_precision_agrees_with_double(norm: str) -> None:
    graph = catalogue.lollipop(6, 6)
    x0 = torch.randn(12, 2, dtype=DOUBLE)
    field = Heat(norm, rate=50.0) + Forced()
    for how in ({"steps": 30}, {"rtol": 1e-3}):
        double = solve(field, x0, 2.0, graph, solver="etdrk2", **how)
        single = solve(field, x0.float(), 2.0, graph, solver="etdrk2", **how)
        assert single.final.dtype is SINGLE
        assert torch.allclose(single.final.double(), double.final, rtol=0, atol=1e-4)


def test_complex_states_are_advanced_as_two_real_ones() -> None:
    graph, x0 = catalogue.ring(5), torch.randn(5, 2, dtype=torch.complex128)

    class Turn(Field):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return 1j * x

    for solver in ("etdrk2", "strang", "ars222"):
        traj = solve(Heat() + Turn(), x0, 1.0, graph, solver=solver, steps=400)
        A = -graph.laplacian("comb", dtype=DOUBLE)
        linear = torch.complex(dense(A, 0, 1.0, x0.real), dense(A, 0, 1.0, x0.imag))
        assert torch.allclose(traj.final, np.exp(1j) * linear, rtol=0, atol=1e-5)
