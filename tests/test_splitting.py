"""Strang splitting; what all split methods have in common."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from modes import DOUBLE
from scipy.integrate import solve_ivp
from split import BARBELL, Exchange, Forced, Season, one_step, slope
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Diffusion, Field, Heat, Reaction, Source
from neuralpde.operators import products
from solvers.explicit import explicit

SPLIT = ["etdrk2", "strang", "ars222"]


every = pytest.mark.parametrize("solver", SPLIT)
either_way = pytest.mark.parametrize(
    ("solver", "how"),
    [
        *((solver, {"steps": 10}) for solver in SPLIT),
        *((solver, {"rtol": 2e-3}) for solver in ("etdrk2", "ars222")),
    ],
)


PROBLEMS: dict[str, tuple[Field, Callable[[float, np.ndarray], np.ndarray]]] = {
    "autonomous": (Reaction.allen_cahn(), lambda t, x: x - x**3),
    "forced Allen-Cahn": (Forced(), lambda t, x: x - x**3 + 0.3 * np.sin(3 * t)),
    "season": (Season(), lambda t, x: np.linspace(0.5, 1.5, 12)[:, None] * x * np.cos(t)),
}


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


@either_way
def test_a_batch_gives_what_its_graphs_give_alone(solver: str, how: dict[str, float]) -> None:
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


@either_way
def test_replay_is_the_tape(solver: str, how: dict[str, float]) -> None:
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


def test_strang_asks_for_a_grid() -> None:
    with pytest.raises(ValueError, match="takes fixed steps"):
        solve(Heat() + Forced(), torch.zeros(12, 1), 1.0, BARBELL, solver="strang", rtol=1e-3)


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
