"""The implicit-explicit method of Ascher, Ruuth and Spiteri."""

import math

import numpy as np
import pytest
import torch
from modes import DOUBLE
from scipy.integrate import solve_ivp
from split import Forced, one_step
from strategies import quietly
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Diffusion, Heat, Reaction, Source
from neuralpde.operators import products
from solvers.failure import SolveFailed
from solvers.imex import DELTA, GAMMA, Shifted


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
