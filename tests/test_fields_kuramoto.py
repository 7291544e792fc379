"""Kuramoto phases against double sums, Adler's equation, and what symmetry demands."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from neuralpde import Graph, catalogue
from neuralpde.fields import Kuramoto, Oscillator, order_parameter
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.strategies import dense, graphs

NOW = torch.tensor(0.0, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@settings(max_examples=15)
@given(graphs(min_nodes=1, max_nodes=6, directed=True))
def test_it_is_the_sum_of_sines_over_the_arcs(graph: Graph) -> None:
    n, A = graph.num_nodes, dense(graph)
    x, omega = normal(n, 2), normal(n, 1)
    expected = omega.expand(n, 2).clone()
    for i in range(n):
        for j in range(n):
            expected[i] += 1.7 * A[i, j] * torch.sin(x[j] - x[i])
    found = Kuramoto(omega, 1.7).bind(graph, x)(NOW, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=15)
@given(graphs(min_nodes=1, max_nodes=6))
def test_rates_sum_to_the_frequencies_and_do_not_see_a_common_shift(graph: Graph) -> None:
    x, omega = normal(graph.num_nodes, 2), normal(graph.num_nodes, 1)
    field = Kuramoto(omega, 2.0).bind(graph, x)
    rates = field(NOW, x)
    torch.testing.assert_close(rates.sum(0), omega.sum().expand(2))
    torch.testing.assert_close(field(NOW, x + 0.9), rates, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "row", "col", "sym"])
def test_it_is_a_gradient_flow_in_the_metric_of_the_adjacency(norm: str) -> None:
    graph = catalogue.lollipop(4, 3)
    x = normal(7, 2).requires_grad_()
    field = Kuramoto(normal(7, 1), 1.3, norm).bind(graph, x)
    (slope,) = torch.autograd.grad(field.lyapunov(x).sum(), x)
    degree = graph.degree[:, None]
    metric = {"row": degree, "col": 1 / degree}.get(norm, torch.ones_like(degree))
    torch.testing.assert_close(field(NOW, x), -slope / metric, rtol=1e-10, atol=1e-12)


def test_equal_frequencies_descend_to_one_phase_on_a_complete_graph() -> None:
    graph, x = catalogue.complete(8), normal(8, 1)
    field = Kuramoto(0.0)
    traj = solve(field, x, torch.linspace(0, 1.5, 8), graph, rtol=1e-8, atol=1e-10)
    energy = torch.stack([field.bind(graph, x).lyapunov(state) for state in traj.x])
    assert (energy.diff(dim=0) < 0).all()
    assert energy[-1].item() == pytest.approx(0.0, abs=1e-6)
    turning = solve(Kuramoto(0.4), x, 1.5, graph, rtol=1e-8, atol=1e-10).final
    torch.testing.assert_close(turning, traj.final + 1.5 * 0.4, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("gap", "K"), [(1.0, 0.8), (1.0, 0.5 * 1.001), (1.0, 0.3), (-2.0, 0.4)])
def test_two_nodes_follow_adlers_equation(gap: float, K: float) -> None:
    # phi' = gap - 2 K sin phi, phi = theta_1 - theta_2; with u = tan(phi / 2) a Riccati equation.
    start, T = 0.3, 2.0
    root = torch.tensor(gap**2 - 4 * K**2, dtype=torch.complex128).sqrt()
    centre, c = 2 * K / gap, math.tan(start / 2)
    shift = torch.atan((c - centre) * gap / root)
    u = centre + root / gap * torch.tan(root * T / 2 + shift)
    assert abs(u.imag) < 1e-9
    omega, x = torch.tensor([[gap], [0.0]]).double(), torch.tensor([[start], [0.0]]).double()
    final = solve(Kuramoto(omega, K), x, T, catalogue.path(2), rtol=1e-10, atol=1e-12).final
    found = torch.tan((final[0] - final[1]) / 2)
    assert found.item() == pytest.approx(u.real.item(), rel=1e-6)


@pytest.mark.parametrize(("gap", "locks"), [(1.9, True), (2.1, False)])
def test_two_nodes_lock_iff_their_gap_is_at_most_twice_the_coupling(
    gap: float, locks: bool
) -> None:
    omega, x = torch.tensor([[gap], [0.0]]).double(), torch.zeros(2, 1).double()
    final = solve(Kuramoto(omega, 1.0), x, 60.0, catalogue.path(2), rtol=1e-8).final
    difference = (final[0] - final[1]).item()
    if locks:
        assert difference == pytest.approx(math.asin(gap / 2), abs=1e-5)
    else:
        period = 2 * math.pi / math.sqrt(gap**2 - 4)
        assert abs(difference - 2 * math.pi * 60 / period) < 2 * math.pi


@settings(max_examples=10)
@given(graphs(min_nodes=1, max_nodes=6))
def test_the_order_parameter_lies_in_the_unit_interval(graph: Graph) -> None:
    both = Graph.union([graph, catalogue.ring(5)])
    x = 3 * normal(both.num_nodes, 2)
    r = order_parameter(x, both)
    assert r.shape == (2, 2)
    assert (r >= 0).all()
    assert (r <= 1 + 1e-12).all()
    own = torch.exp(1j * x[graph.num_nodes :]).mean(0).abs()
    torch.testing.assert_close(r[1], own)
    torch.testing.assert_close(order_parameter(0 * x + 2.0, both), torch.ones_like(r))


def test_frequencies_may_be_drawn_learned_or_made_of_the_first_state() -> None:
    graph, x = catalogue.ring(6), normal(6, 2)
    drawn = [Kuramoto.drawn(6, 3.0, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(drawn[0].omega, drawn[1].omega)
    own = Kuramoto(lambda graph, x0: 2 * x0, 0.0).bind(graph, x)(NOW, 0 * x)
    torch.testing.assert_close(own, 2 * x)
    omega = nn.Parameter(torch.zeros(6, 1, dtype=torch.float64))
    final = solve(Kuramoto(omega), x, 1.0, graph).final
    (slope,) = torch.autograd.grad(final.sum(), omega)
    torch.testing.assert_close(slope, torch.full_like(slope, 2.0), rtol=1e-3, atol=0)


def test_with_inertia_and_friction_it_is_the_swing_equation() -> None:
    graph, x, v = catalogue.path(2), normal(2, 1), normal(2, 1)
    power = torch.tensor([[0.6], [-0.6]], dtype=torch.float64)
    field = Oscillator(Kuramoto(power, 1.5), stiffness=0.0, damping=0.4).bind(graph, (x, v))
    pull = torch.stack([torch.sin(x[1] - x[0]), torch.sin(x[0] - x[1])])
    torch.testing.assert_close(field(NOW, (x, v))[1], power + 1.5 * pull - 0.4 * v)
    final = solve(Oscillator(Kuramoto(power, 1.5), 0.0, 0.4), (x, v), 60.0, graph, rtol=1e-8).final
    assert math.sin(float(final[0][0] - final[0][1])) == pytest.approx(0.6 / 1.5, abs=1e-4)


@pytest.mark.parametrize(
    "field",
    [
        Kuramoto(nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(1.2)), "row"),
        Kuramoto(lambda graph, x0: x0, 0.7, "sym"),
    ],
    ids=["learned", "of the first state"],
)
def test_it_keeps_the_contract(field: Kuramoto) -> None:
    check_field(field, catalogue.barbell(3))


def test_what_is_wrong_is_refused_in_words() -> None:
    graph = catalogue.ring(4)
    with pytest.raises(ValueError, match=r"give \[nodes, 1\]"):
        Kuramoto(torch.ones(4)).bind(graph, torch.zeros(4, 2))
    with pytest.raises(TypeError, match="real tensor"):
        Kuramoto().bind(graph, torch.zeros(4, 2, dtype=torch.complex64))
    cycle = Graph(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]))
    assert Kuramoto().bind(cycle, torch.zeros(3, 1)).lyapunov is None
