"""Controlled diffusion: scipy on dense matrices, closed forms for simple inputs, two stages."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import ControlledDiffusion, Heat, time_then_space
from neuralpde.testing import check_field
from solvers.signal import Signal

F64 = torch.float64
GRAPH = catalogue.barbell(3, 1)
N = GRAPH.num_nodes
TIMES = [0.0, 0.3, 1.1, 1.7, 2.0]
RATE, DECAY = 0.6, 0.3


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=F64, generator=generator)


def matrix(norm: str = "comb") -> Tensor:
    L = GRAPH.laplacian(norm, dtype=F64).to_dense()
    return -RATE * L - DECAY * torch.eye(N, dtype=F64)


def controlled(u: Signal, **settings: object) -> ControlledDiffusion:
    return ControlledDiffusion(u, rate=RATE, decay=DECAY, **settings)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("norm", ["comb", "sym"])
def test_it_follows_scipy_on_the_dense_matrix(kind: str, norm: str) -> None:
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Linear(2, 3), nn.Tanh()).double()
    u = Signal(TIMES, normal(5, N, 2), kind)
    x0, A = normal(N, 3, seed=1), matrix(norm).numpy()

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            pushed = encoder(u(torch.tensor(t, dtype=F64))).numpy()
        return (A @ y.reshape(N, 3) + pushed).ravel()

    y = x0.numpy().ravel()
    for start, end in pairwise(TIMES):
        y = solve_ivp(slope, (start, end), y, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    field = controlled(u, encoder=encoder, norm=norm)
    found = solve(field, x0, u.grid(0.0, 2.0), GRAPH, rtol=1e-9, atol=1e-10).final
    np.testing.assert_allclose(found.detach().numpy(), y.reshape(N, 3), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("solver", ["tsit5", "etdrk2", "strang", "ars222", "trbdf2"])
def test_a_constant_input_is_an_affine_field(solver: str) -> None:
    b, x0 = normal(N, 2), normal(N, 2, seed=1)
    u = Signal([0.0, 2.0], b.expand(2, N, 2))
    block = torch.zeros(N + 2, N + 2, dtype=F64)
    block[:N, :N], block[:N, N:] = matrix(), b
    E = torch.linalg.matrix_exp(2.0 * block)
    exact = E[:N, :N] @ x0 + E[:N, N:]
    fixed = solver in ("etdrk2", "strang", "ars222")
    settings = {"steps": 64} if fixed else {"rtol": 1e-7, "atol": 1e-9}
    found = solve(controlled(u), x0, 2.0, GRAPH, solver=solver, **settings).final
    off = (found - exact).norm() / exact.norm()
    # An exponential method has the source in its exponential.
    assert off < (1e-12 if solver == "etdrk2" else 1e-3 if fixed else 1e-5)


def test_an_input_that_rises_linearly_has_phi_functions_for_a_solution() -> None:
    # x(T) = e^(TA) x0 + T phi_1(TA) b + T^2 phi_2(TA) s, from one exponential (Saad 1992).
    b, s, x0, T = normal(N, 1), normal(N, 1, seed=2), normal(N, 1, seed=1), 2.0
    u = Signal([0.0, T], torch.stack([b, b + T * s]))
    block = torch.zeros(N + 2, N + 2, dtype=F64)
    block[:N, :N], block[:N, N : N + 1], block[:N, N + 1 :] = matrix(), s, b
    block[N, N + 1] = 1.0
    exact = torch.linalg.matrix_exp(T * block)
    exact = exact[:N, :N] @ x0 + exact[:N, N + 1 :]
    # etdrk2 integrates inputs that are linear in time without error.
    found = solve(controlled(u), x0, T, GRAPH, solver="etdrk2", steps=3).final
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)
    found = solve(controlled(u), x0, T, GRAPH, rtol=1e-9, atol=1e-10).final
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


def test_a_high_order_is_kept_where_steps_end_at_the_knots() -> None:
    u, x0 = Signal(TIMES, normal(5, N, 1)), normal(N, 1, seed=1)

    def errors(times: object) -> list[Tensor]:
        ends = [
            solve(controlled(u), x0, times, GRAPH, solver="rk4", steps=n).final
            for n in (16, 32, 256)
        ]
        return [(end - ends[-1]).norm() for end in ends[:2]]

    coarse, fine = errors(u.grid(0.0, 2.0))
    assert 3.5 < math.log2(coarse / fine) < 4.5
    # None of the knots ends one of 16 or 32 equal steps.
    blind = errors(2.0)
    assert blind[0] > 5 * coarse
    assert math.log2(blind[0] / blind[1]) < 3


def test_adaptive_steps_that_end_at_the_knots_are_fewer_and_keep_the_tolerance() -> None:
    u, x0 = Signal(TIMES, normal(5, N, 1)), normal(N, 1, seed=1)
    field = controlled(u)
    exact = solve(field, x0, u.grid(0.0, 2.0), GRAPH, solver="rk4", steps=512).final
    blind = solve(field, x0, 2.0, GRAPH, rtol=1e-6, atol=1e-8)
    pieces = solve(field.between(0.0, 2.0), x0, 2.0, GRAPH, rtol=1e-6, atol=1e-8)
    assert (pieces.final - exact).norm() < 1e-6
    assert (blind.final - exact).norm() > 50 * (pieces.final - exact).norm()
    assert pieces.stats.nfe < 0.6 * blind.stats.nfe
    with pytest.raises(ValueError, match="give a Signal"):
        controlled(lambda graph, x0: u).between(0.0, 1.0)


def by_hand(u: Signal, T: float) -> np.ndarray:
    """Each node's own leaky integral, int_0^T e^(-decay (T - s)) u(s) ds, by quadrature."""

    def integrand(s: float, i: int) -> float:
        return math.exp(-DECAY * (T - s)) * float(u(torch.tensor(s, dtype=F64))[i, 0])

    knots = [t for t in TIMES if 0 < t < T]
    return np.array([quad(integrand, 0, T, (i,), points=knots, epsabs=1e-11)[0] for i in range(N)])


def test_time_then_space_is_a_filter_on_every_node_and_then_heat() -> None:
    u, share = Signal(TIMES, normal(5, N, 1), "cubic"), 0.75
    field = time_then_space(u, rate=RATE, decay=DECAY, share=share)
    found = solve(field, torch.zeros(N, 1, dtype=F64), 2.0, GRAPH, rtol=1e-9, atol=1e-10).final
    spread = torch.linalg.matrix_exp(-RATE * 0.5 * GRAPH.laplacian(dtype=F64).to_dense())
    expected = spread @ torch.from_numpy(by_hand(u, 1.5))
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-7, atol=1e-7)


def test_sensitivities_are_a_memory_times_a_heat_kernel() -> None:
    """Time-then-space: dx_i / du_j(t_k) = w_k K_ij, a product of one factor each."""
    y = normal(5, N, 1)
    K = torch.linalg.matrix_exp(-RATE * 1.0 * GRAPH.laplacian(dtype=F64).to_dense())

    def final(y: Tensor) -> Tensor:
        field = time_then_space(Signal(TIMES, y), rate=RATE, decay=DECAY)
        x0 = torch.zeros(N, 1, dtype=F64)
        return solve(field, x0, 2.0, GRAPH, rtol=1e-8, atol=1e-10).final.flatten()

    J = torch.autograd.functional.jacobian(final, y)[..., 0]
    hats = np.eye(5)
    for k in range(5):

        def weight(s: float, k: int = k) -> float:
            return math.exp(-DECAY * (1.0 - s)) * float(np.interp(s, TIMES, hats[k]))

        w, _ = quad(weight, 0.0, 1.0, points=[0.3], epsabs=1e-12)
        torch.testing.assert_close(J[:, k], w * K, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_a_control_is_learned(grad: str) -> None:
    """Steer the state to a target: gradients with respect to the signal, against differences."""
    y = nn.Parameter(normal(5, N, 1))
    x0, target = normal(N, 1, seed=1), normal(N, 1, seed=2)
    field = controlled(Signal(TIMES, y, "cubic"))

    def loss() -> Tensor:
        end = solve(field, x0, 2.0, GRAPH, solver="heun", steps=32, grad=grad).final
        return (end - target).square().sum()

    (found,) = torch.autograd.grad(loss(), y)
    way = normal(5, N, 1, seed=3)
    with torch.no_grad():
        ends = []
        for step in (1e-4, -2e-4):
            y += step * way
            ends.append(loss().item())
        y += 1e-4 * way
    assert (found * way).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-8)


def test_graphs_of_a_batch_are_solved_as_they_are_alone() -> None:
    others = [GRAPH, catalogue.ring(4)]
    both = Graph.union(others)

    def hubs(graph: Graph, x0: Tensor) -> Signal:
        return Signal(TIMES, normal(5, 1, 1) * graph.degree.view(1, -1, 1), "cubic")

    field, x0 = controlled(hubs), normal(N + 4, 2)
    together = solve(field, x0, 2.0, both, rtol=1e-6)
    assert "a step of its own for every graph" in together.stats.reason
    for graph, part, start in zip(
        others, together.final.split([N, 4]), x0.split([N, 4]), strict=True
    ):
        alone = solve(field, start, 2.0, graph, rtol=1e-6).final
        # An estimate is a difference of nearly equal numbers: steps agree to 1e-8.
        torch.testing.assert_close(part, alone, rtol=1e-8, atol=1e-8)


def test_without_a_signal_it_is_heat_that_decays() -> None:
    x0 = normal(N, 2)
    field = controlled(Signal([0.0, 1.0], torch.zeros(2, 1, 1)))
    found = solve(field, x0, 1.0, GRAPH, rtol=1e-8).final
    heat = solve(Heat(rate=RATE), x0, 1.0, GRAPH, rtol=1e-10).final
    torch.testing.assert_close(found, math.exp(-DECAY) * heat, rtol=1e-6, atol=1e-7)


class Learned(nn.Module):
    """A signal with weights, in the shape of the degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(normal(5, 1, 2))

    def forward(self, graph: Graph, x0: Tensor) -> Signal:
        return Signal(TIMES, self.w * graph.degree.view(1, -1, 1).to(x0), "cubic")


def test_it_keeps_the_contract() -> None:
    torch.manual_seed(0)
    rate, decay = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.2))
    field = ControlledDiffusion(Learned(), nn.Linear(2, 3), rate=rate, decay=decay)
    assert field.channels == 3
    check_field(field, GRAPH)


def test_nodes_keep_their_signals_when_they_are_relabelled() -> None:
    order, u, x = torch.randperm(N), Signal(TIMES, normal(5, N, 1)), normal(N, 1)
    moved = Graph(torch.argsort(order)[GRAPH.edge_index], N)
    t = torch.tensor(0.9, dtype=F64)
    slope = controlled(u).bind(GRAPH, x)(t, x)
    other = controlled(u).relabelled(order).bind(moved, x[order])(t, x[order])
    torch.testing.assert_close(other, slope[order], rtol=1e-13, atol=1e-13)


def test_signals_that_do_not_fit_are_refused_in_words() -> None:
    x0 = torch.zeros(N, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"one input for each of the 7 nodes.*\[7 or 1, inputs\]"):
        controlled(Signal(TIMES, normal(5, 4, 2))).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"encoder=nn.Linear\(3, 2\)"):
        controlled(Signal(TIMES, normal(5, N, 3))).bind(GRAPH, x0)
    with pytest.raises(TypeError, match="one tensor"):
        controlled(Signal(TIMES, normal(5, N, 2))).bind(GRAPH, (x0, x0))
