"""Schroedinger equations against dense exponentials and eigenphases; what they conserve."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuralpde import Graph, catalogue
from neuralpde.fields import Heat, Pinned, Schroedinger, Source
from neuralpde.solve import solve
from neuralpde.testing import check_field
from solvers.stopping import WallTime
from tests.strategies import dense, graphs

COMPLEX = torch.complex128


def normal(graph: Graph, channels: int = 2) -> Tensor:
    return torch.randn(graph.num_nodes, channels, dtype=COMPLEX)


def depth(graph: Graph) -> Tensor:
    """A potential that is made of the graph."""
    return 0.5 * graph.degree - 1.0


@settings(max_examples=10)
@given(graphs(min_nodes=2, max_nodes=6), st.floats(0.1, 2.0), st.floats(-3.0, 3.0))
def test_it_is_the_exponential_of_the_dense_hamiltonian(g: Graph, rate: float, t: float) -> None:
    A = dense(g)
    A.fill_diagonal_(0.0)
    V = torch.randn(g.num_nodes, dtype=torch.float64)
    H = rate * (torch.diag(A.sum(1)) - A) + torch.diag(V)
    psi = normal(g)
    traj = solve(Schroedinger(rate, V), psi, t, g, rtol=1e-10)
    exact = torch.linalg.matrix_exp(-1j * t * H) @ psi
    assert (traj.final - exact).norm() <= 1e-10 * psi.norm() + 1e-12
    assert traj.stats.solver == "chebyshev"
    assert "unitary" in traj.stats.reason


@pytest.mark.parametrize("dtype", [torch.complex64, COMPLEX])
def test_the_eigenphases_of_a_ring_are_exact_for_all_times_and_tolerances(
    dtype: torch.dtype,
) -> None:
    n = 10
    graph, node = catalogue.ring(n), torch.arange(n).double()
    for k in (0, 1, 3, 5):
        psi = torch.exp(2j * math.pi * k * node / n)[:, None].to(dtype)
        frequency = 4 * math.sin(math.pi * k / n) ** 2
        for T in (1e-3, 1.0, 30.0, 1e3, -1e3):
            exact = complex(math.cos(T * frequency), -math.sin(T * frequency)) * psi.to(COMPLEX)
            for rtol in (1e-3, 1e-6, 1e-10):
                found = solve(Schroedinger(), psi, T, graph, rtol=rtol).final
                slack = 2 * torch.finfo(dtype).eps
                assert (found - exact).norm() <= (rtol + slack) * psi.norm(), (k, T, rtol)


def test_potentials_keep_their_digits_with_single_precision_states() -> None:
    # Rounded to float32, 0.1 would be off by 1.5e-9, and the phase by 1.5e-5.
    graph, V = Graph(torch.zeros(2, 0).long(), 2), torch.tensor([0.1, 0.7], dtype=torch.float64)
    psi = torch.ones(2, 1, dtype=torch.complex64)
    final = solve(Schroedinger(potential=V), psi, 1e4, graph, rtol=1e-6).final
    exact = torch.exp(-1e4j * V)[:, None]
    torch.testing.assert_close(final.to(COMPLEX), exact, rtol=0, atol=3e-6)


@pytest.mark.parametrize("norm", ["comb", "rw", "sym", "augmented"])
@pytest.mark.parametrize("potential", [None, depth])
def test_norm_and_energy_are_conserved(norm: str, potential: object) -> None:
    graph = catalogue.lollipop(5, 4)
    psi, field = normal(graph), Schroedinger(0.8, potential, norm)
    traj = solve(field, psi, torch.linspace(0, 20, 6), graph, rtol=1e-10)
    bound = field.bind(graph, psi)
    energy = torch.stack([bound.lyapunov(x) for x in traj.x])
    weight = graph.degree if norm == "rw" else torch.ones(graph.num_nodes)
    size = (weight[:, None] * traj.x.abs() ** 2).sum((1, 2))
    torch.testing.assert_close(size, size[:1].expand_as(size), rtol=1e-9, atol=0)
    torch.testing.assert_close(energy, energy[:1].expand_as(energy), rtol=1e-8, atol=1e-8)


def test_without_a_potential_the_dirichlet_energy_is_conserved_too() -> None:
    graph = catalogue.barbell(4)
    traj = solve(Schroedinger(2.0), normal(graph), torch.linspace(0, 9, 5), graph, rtol=1e-9)
    y = traj.energy.y
    torch.testing.assert_close(y, y[:1].expand_as(y), rtol=1e-7, atol=0)


def test_masses_on_nodes_weigh_what_is_conserved() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), node_weight=torch.tensor([1.0, 4.0]).double())
    psi = torch.tensor([[1.0 + 0j], [2.0j]], dtype=COMPLEX)
    found = solve(Schroedinger(), psi, 3.0, graph, rtol=1e-10).final
    assert float((found.abs() ** 2).flatten() @ graph.node_weight) == pytest.approx(17.0)


def test_forwards_then_backwards_returns() -> None:
    graph = catalogue.grid(4, 5)
    psi, field = normal(graph), Schroedinger(1.5, depth)
    there = solve(field, psi, (2.0, 102.0), graph, rtol=1e-10).final
    back = solve(field, there, (102.0, 2.0), graph, rtol=1e-10).final
    assert (there - psi).norm() > 0.5 * psi.norm()
    torch.testing.assert_close(back, psi, rtol=0, atol=1e-8)


def test_a_walk_on_two_nodes_swings_between_them() -> None:
    # H has the eigenvalues 0 and 2: the probability to have stayed is cos^2 t.
    graph, psi = catalogue.path(2), torch.tensor([[1.0], [0.0]], dtype=COMPLEX)
    times = torch.linspace(0, 5, 11, dtype=torch.float64)
    traj = solve(Schroedinger(), psi, times, graph, rtol=1e-10)
    torch.testing.assert_close(traj.x[:, 0, 0].abs() ** 2, torch.cos(times) ** 2)


def test_every_graph_of_a_batch_has_its_own_rate_and_times() -> None:
    parts = [catalogue.ring(5), catalogue.star(4)]
    both = Graph.union(parts)
    psi, rates = normal(both), torch.tensor([0.7, 3.0], dtype=torch.float64)
    times = torch.tensor([[0.0, 0.0], [-1.0, -4.0], [-2.5, -5.0]], dtype=torch.float64)
    joint = solve(Schroedinger(rates, depth), psi, times, both, rtol=1e-9).x
    for g, own in enumerate((slice(0, 5), slice(5, 9))):
        field = Schroedinger(float(rates[g]), depth)
        alone = solve(field, psi[own], times[:, g], parts[g], rtol=1e-9).x
        torch.testing.assert_close(joint[:, own], alone, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["rk4", "tsit5", "trbdf2", "scipy:RK45"])
def test_methods_in_steps_go_the_same_way(name: str) -> None:
    graph = catalogue.ring(5)
    how = {"rk4": {"steps": 200}, "trbdf2": {"rtol": 1e-6}}.get(name, {"rtol": 1e-8})
    psi, field = normal(graph), Schroedinger(1.2, depth)
    exact = solve(field, psi, 1.5, graph, rtol=1e-10).final
    found = solve(field, psi, 1.5, graph, solver=name, **how).final
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3 if name == "trbdf2" else 1e-5)


def test_gradients_of_an_exact_solve_are_those_of_fine_steps() -> None:
    graph, found = catalogue.path(4), []
    psi, weight = normal(graph), normal(graph)
    for how in ({"rtol": 1e-10}, {"solver": "rk4", "steps": 300}):
        rate = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))
        V = nn.Parameter(torch.tensor([0.1, -0.4, 0.0, 2.0], dtype=torch.float64))
        x = psi.clone().requires_grad_()
        end = solve(Schroedinger(rate, V, "rw"), x, 2.0, graph, **how).final
        found.append(torch.autograd.grad((weight * end).imag.sum(), (rate, V, x)))
    for exact, stepped in zip(*found, strict=True):
        torch.testing.assert_close(exact, stepped, rtol=1e-6, atol=1e-7)


def test_auto_takes_steps_where_the_series_has_nothing_to_say_and_says_why() -> None:
    graph = catalogue.ring(5)
    psi = normal(graph)
    for field, how, words in (
        (Schroedinger() + Source(0.5), {}, "unitary flow with a source"),
        (Schroedinger() + Heat(), {}, "neither self-adjoint"),
        (Schroedinger(), {"stop": WallTime(60.0)}, "stop= needs steps"),
    ):
        stats = solve(field, psi, 0.5, graph, **how).stats
        assert stats.solver == "tsit5"
        assert words in stats.reason
    two = solve(Schroedinger() + Schroedinger(0.5, depth), psi, 1.0, graph, rtol=1e-9)
    one = solve(Schroedinger(1.5, depth), psi, 1.0, graph, rtol=1e-9)
    assert two.stats.solver == "chebyshev"
    torch.testing.assert_close(two.final, one.final, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "field",
    [
        Schroedinger(nn.Parameter(torch.tensor(0.8)), depth, "rw"),
        Schroedinger() + Source(0.3),
        Pinned(Schroedinger(), [0, 3]),
    ],
    ids=["potential", "source", "pinned"],
)
def test_it_keeps_the_contract(field: Schroedinger) -> None:
    check_field(field, catalogue.barbell(3))


def test_what_is_wrong_is_refused_in_words() -> None:
    graph = catalogue.ring(4)
    with pytest.raises(TypeError, match=r"x0\.to\(torch\.complex64\)"):
        solve(Schroedinger(), torch.ones(4, 1), 1.0, graph)
    with pytest.raises(ValueError, match="each of the 4 nodes"):
        Schroedinger(potential=torch.ones(3)).bind(graph, torch.ones(4, 1, dtype=COMPLEX))
    with pytest.raises(ValueError, match="finite"):
        Schroedinger(potential=torch.tensor([1.0, math.inf]))
    cycle = Graph(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]))
    with pytest.raises(ValueError, match=r"graph\.undirected"):
        Schroedinger(potential=depth).bind(cycle, torch.ones(3, 1, dtype=COMPLEX))
