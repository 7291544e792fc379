"""Loops of maps and flows whose period and multiplier are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from analysis import loop_of_flow, loop_of_map, loop_of_states, trace
from analysis.multipliers import derivative, leading_eigenvalue
from neuralpde import catalogue, solve
from neuralpde.energies import DirichletForm
from neuralpde.fields import Heat


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def logistic(r: float) -> Tensor:
    x, found = torch.tensor([0.3], dtype=torch.float64), []
    for _ in range(500):
        x = r * x * (1 - x)
        found.append(x)
    return torch.stack(found)


def test_a_change_of_sign_has_period_two() -> None:
    found = loop_of_map(torch.neg, normal(4, 3))
    assert (found.outcome, found.period) == ("cycle of period 2", 2)
    assert found.contraction == pytest.approx(1.0, abs=1e-12)
    assert found.residual == 0.0


@pytest.mark.parametrize("period", [3, 5, 16])
def test_a_turn_has_the_period_of_its_angle(period: int) -> None:
    R = turn(2 * math.pi / period)
    found = loop_of_map(lambda x: x @ R.T, normal(6, 2))
    assert found.outcome == f"cycle of period {period}"
    assert found.contraction == pytest.approx(1.0, abs=1e-12)


def test_an_angle_that_never_closes_is_left_undecided() -> None:
    R = turn(math.sqrt(2))
    found = loop_of_map(lambda x: x @ R.T, normal(6, 2))
    assert found.outcome == "undecided"
    assert not found.decided
    assert math.isnan(found.period)
    assert found.residual == pytest.approx(2 * math.sin(math.sqrt(2) / 2), rel=1e-3)


@pytest.mark.parametrize("factor", [0.3, -0.3, 0.9])
def test_a_contraction_comes_to_rest_by_its_factor(factor: float) -> None:
    target = normal(5, 2)
    found = loop_of_map(lambda x: target + factor * (x - target), normal(5, 2, seed=1))
    assert (found.outcome, found.period) == ("fixed point", 1)
    assert found.contraction == pytest.approx(abs(factor), abs=1e-9)
    torch.testing.assert_close(found.state, target, rtol=0, atol=1e-9)
    # From the iterates alone, and to zero, where relative gaps never shrink.
    powers = factor ** torch.arange(400, dtype=torch.float64)[:, None]
    read = loop_of_states(powers)
    assert read.outcome == "fixed point"
    assert read.contraction == pytest.approx(abs(factor), rel=1e-6)


def test_the_logistic_map_doubles_its_period() -> None:
    two = loop_of_map(lambda x: 3.2 * x * (1 - x), torch.tensor([0.3], dtype=torch.float64))
    # f'(a) f'(b) at the points of the cycle of two is 4 + 2 r - r^2.
    assert two.outcome == "cycle of period 2"
    assert two.contraction == pytest.approx(4 + 2 * 3.2 - 3.2**2, abs=1e-9)
    four = loop_of_map(lambda x: 3.5 * x * (1 - x), torch.tensor([0.3], dtype=torch.float64))
    cycle = logistic(3.5)[-4:, 0]
    assert four.outcome == "cycle of period 4"
    assert four.contraction == pytest.approx(abs(math.prod(3.5 * (1 - 2 * cycle)).item()), abs=1e-9)
    assert loop_of_states(logistic(3.2)).contraction == pytest.approx(0.16, rel=1e-3)
    assert loop_of_states(logistic(3.9)).outcome == "undecided"


def test_what_creeps_is_not_at_rest() -> None:
    # x_k falls like (2 k)^(-1/2): relative gaps of 1 / (2 k) that would add up to all of x.
    x0 = torch.tensor([0.5], dtype=torch.float64)
    found = loop_of_map(lambda x: x - x**3, x0, steps=20_000, tolerance=1e-4)
    assert found.outcome == "undecided"
    assert "still to add up" in found.reason


def test_one_repetition_is_no_period() -> None:
    once = torch.tensor([1.0, 2.0, 3.0, 5.0, 5.0])[:, None]
    assert loop_of_states(once).outcome == "undecided"
    assert loop_of_states(torch.cat([once, once[-1:], once[-1:]])).outcome == "fixed point"


def test_two_frequencies_that_share_no_period_are_left_undecided() -> None:
    omega = torch.tensor([1.0, math.sqrt(2)], dtype=torch.float64)
    z0 = torch.tensor([1.0 + 0j, 0.5j], dtype=torch.complex128)
    found = loop_of_flow(lambda t, z: 1j * omega * z, z0, 1.0, longest=20.0, tolerance=1e-4)
    assert found.outcome == "undecided"
    assert "nearest" in found.reason
    closed = loop_of_flow(lambda t, z: 1j * omega.round() * z, z0, 1.0, longest=7.0, tolerance=1e-4)
    assert closed.period == pytest.approx(2 * math.pi, rel=1e-5)


def test_what_grows_has_no_loop() -> None:
    assert loop_of_map(lambda x: 3 * x, normal(3, 1)).outcome == "undecided"
    slowly = loop_of_map(lambda x: 1 + (1 + 1e-8) * (x - 1), normal(3, 1))
    assert slowly.outcome == "undecided"


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(0, 99))
def test_permutations_have_the_period_of_their_longest_common_multiple(n: int, seed: int) -> None:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    cycles, left = [], set(range(n))
    while left:
        k, length = min(left), 0
        while k in left:
            left.remove(k)
            k, length = int(order[k]), length + 1
        cycles.append(length)
    found = loop_of_map(lambda x: x[order], normal(n, 2, seed=seed))
    assert found.period == math.lcm(*cycles)


class Looped(nn.Module):
    """One layer, again and again."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.times = GCNConv(4, 4).double(), times
        nn.init.orthogonal_(self.layer.lin.weight)
        nn.init.normal_(self.layer.bias)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.tanh(0.7 * self.layer(x, edge_index))
        return x


@pytest.mark.parametrize("side", [5, 6])
def test_a_looped_network_contracts_by_its_jacobian(side: int) -> None:
    graph, model = catalogue.grid(side, side), Looped(1)
    x0 = normal(side * side, 4)

    def step(x: Tensor) -> Tensor:
        return model(x, graph.edge_index)

    found = loop_of_map(step, x0, steps=200)
    assert found.outcome == "fixed point"
    J = torch.autograd.functional.jacobian(step, found.state)
    values = torch.linalg.eigvals(J.reshape(x0.numel(), -1))
    # Products of all unit vectors for 100 numbers, Arnoldi's method for 144.
    assert found.contraction == pytest.approx(float(values.abs().max()), rel=1e-6)
    model.times = 60
    layers = trace(model, Data(x0, graph.edge_index))
    read = loop_of_states(layers.x[:-1])
    assert read.outcome == "fixed point"
    assert read.contraction == pytest.approx(found.contraction, rel=0.05)


@pytest.mark.parametrize(("side", "norm"), [(5, "comb"), (12, "comb"), (5, "rw"), (5, "sym")])
def test_heat_comes_to_consensus_at_the_rate_of_the_gap(side: int, norm: str) -> None:
    graph = catalogue.grid(side, side)
    values = torch.linalg.eigvals(graph.laplacian(norm, dtype=torch.float64).to_dense()).real
    gap = float(values.sort()[0][1])
    project = DirichletForm.of(graph.to(dtype=torch.float64), norm).deviation
    x0 = normal(side * side, 2)
    found = loop_of_flow(Heat(norm), x0, 30 / gap, graph, project=project)
    assert (found.outcome, found.period) == ("fixed point", 0.0)
    assert found.rate == pytest.approx(-gap, rel=1e-9)
    # Along the constants nothing pulls.
    assert loop_of_flow(Heat(norm), x0, 30 / gap, graph).rate == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("mu", "omega", "tolerance"), [(0.5, 3.0, 1e-6), (0.2, -1.0, 1e-4)])
def test_stuart_landau_goes_round_at_its_frequency(
    mu: float, omega: float, tolerance: float
) -> None:
    z0 = torch.tensor([0.3 + 0.2j], dtype=torch.complex128)

    def flow(t: Tensor, z: Tensor) -> Tensor:
        return (mu + 1j * omega) * z - z.abs() ** 2 * z

    round_trip = 2 * math.pi / abs(omega)
    settings = {"longest": 1.1 * round_trip, "tolerance": tolerance}
    found = loop_of_flow(flow, z0, 8.0 / mu, **settings)
    assert found.outcome.startswith("cycle of period")
    assert found.period == pytest.approx(round_trip, rel=0.1 * tolerance)
    assert found.contraction == pytest.approx(math.exp(-2 * mu * round_trip), rel=100 * tolerance)
    assert float(found.state.abs()) == pytest.approx(math.sqrt(mu), rel=tolerance)


def test_stuart_landau_below_its_threshold_comes_to_rest() -> None:
    z0 = torch.tensor([0.3 + 0.2j], dtype=torch.complex128)
    found = loop_of_flow(lambda t, z: (-0.5 + 3j) * z - z.abs() ** 2 * z, z0, 40.0, tolerance=1e-4)
    assert found.outcome == "fixed point"
    assert found.rate == pytest.approx(-0.5, rel=1e-9)


def test_a_flow_that_goes_on_is_left_undecided() -> None:
    still = loop_of_flow(lambda t, x: torch.ones_like(x), torch.zeros(2).double(), 5.0)
    assert still.outcome == "undecided"
    assert "does not come back" in still.reason
    # Too short a search, for a period of 2 pi / 3.
    z0 = torch.tensor([0.7 + 0.0j], dtype=torch.complex128)
    short = loop_of_flow(
        lambda t, z: (0.5 + 3j) * z - z.abs() ** 2 * z, z0, 8.0, longest=1.9, tolerance=1e-4
    )
    assert short.outcome == "undecided"


def test_a_flow_read_at_even_times_is_a_map() -> None:
    times = torch.arange(0, 41, dtype=torch.float64) * (math.pi / 4)
    x0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    traj = solve(
        lambda t, x: x.flip(0) * x.new_tensor([-1.0, 1.0]), x0, times, rtol=1e-9, atol=1e-9
    )
    assert loop_of_states(traj).period == 8


def test_derivatives_of_what_is_differentiable_once_are_differences() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    at = torch.tensor([1.0, 3.0], dtype=torch.float64)
    found = derivative(Once.apply, at)(torch.ones(2).double())
    torch.testing.assert_close(found, 2 * at, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [60, 180])
def test_leading_eigenvalues_are_those_of_the_matrix(size: int) -> None:
    J = normal(size, size)
    values = torch.linalg.eigvals(J)
    largest = leading_eigenvalue(lambda v: J @ v, J[0])
    assert abs(largest) == pytest.approx(float(values.abs().max()), rel=1e-8)
    right = leading_eigenvalue(lambda v: J @ v, J[0], "real")
    assert right.real == pytest.approx(float(values.real.max()), rel=1e-8)
    # On the complement of the constants, far to the left of zero.
    Q = torch.linalg.qr(torch.cat([torch.ones(size, 1).double(), normal(size, size - 1)], 1)).Q
    inner = -30 * torch.eye(size - 1).double() + J[1:, 1:]
    A = Q[:, 1:] @ inner @ Q[:, 1:].T
    found = leading_eigenvalue(lambda v: A @ v, J[0], "real", lambda v: v - v.mean())
    assert found.real == pytest.approx(float(torch.linalg.eigvals(inner).real.max()), rel=1e-8)


def test_what_tells_nothing_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        loop_of_states(torch.ones(3, 1))
    with pytest.raises(ValueError, match="tolerance is 1e-09"):
        loop_of_states(torch.ones(8, 1), tolerance=1e-9)
    with pytest.raises(ValueError, match="periods up to 16 take 64"):
        loop_of_map(torch.neg, torch.ones(2), steps=10)
    with pytest.raises(ValueError, match="modulus"):
        leading_eigenvalue(torch.neg, torch.ones(2), "modul")
