"""Waves against closed forms and a dense exponential; their energy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralpde import catalogue
from neuralpde.fields import Wave
from neuralpde.graph import Graph
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.strategies import dense, graphs

TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def pair(graph: Graph, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, graph.num_nodes, 2, dtype=torch.float64, generator=generator)
    return x[0], x[1]


def test_a_ring_has_the_dispersion_of_a_ring() -> None:
    nodes, k, c = 8, 3, 1.7
    graph, angle = catalogue.ring(8), 2 * math.pi * k * torch.arange(8).double() / nodes
    omega = 2 * c * math.sin(math.pi * k / nodes)
    times = torch.linspace(0, 6, 5, dtype=torch.float64)
    x0 = torch.cos(angle)[:, None]
    traj = solve(Wave(c), (x0, torch.zeros_like(x0)), times, graph, **TIGHT)
    torch.testing.assert_close(
        traj.x[0], torch.cos(omega * times)[:, None, None] * x0, rtol=1e-7, atol=1e-7
    )


@settings(max_examples=8)
@given(graphs(min_nodes=2, max_nodes=6), st.floats(0.1, 2.0), st.floats(0.0, 1.0))
def test_it_is_the_exponential_of_the_companion_matrix(
    graph: Graph, c: float, damping: float
) -> None:
    x, v = pair(graph)
    A = dense(graph)
    A.fill_diagonal_(0.0)
    L = torch.diag(A.sum(1)) - A
    zero, one = torch.zeros_like(L), torch.eye(len(L), dtype=torch.float64)
    companion = torch.cat([torch.cat([zero, one], 1), torch.cat([-(c**2) * L, -damping * one], 1)])
    expected = torch.linalg.matrix_exp(0.8 * companion) @ torch.cat([x, v])
    got = torch.cat(solve(Wave(c, damping=damping), (x, v), 0.8, graph, **TIGHT).final)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", ["comb", "rw", "sym", "augmented"])
def test_energy_is_conserved_without_damping_and_falls_with_it(norm: str) -> None:
    graph = catalogue.star(5)
    state = pair(graph)
    for damping in (0.0, 0.3):
        field = Wave(1.3, norm, damping)
        bound = field.bind(graph, state)
        traj = solve(field, state, torch.linspace(0, 5, 6), graph, **TIGHT)
        energy = torch.stack([bound.lyapunov(shot) for shot in zip(*traj.x, strict=True)])
        if damping:
            assert (energy.diff(dim=0) < 0).all()
        else:
            torch.testing.assert_close(energy, energy[:1].expand_as(energy), rtol=1e-7, atol=0)


def test_masses_on_nodes_weigh_the_energy() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    graph = Graph(edges, node_weight=torch.tensor([1.0, 4.0]).double())
    field = Wave(2.0)
    x, v = torch.tensor([[1.0], [3.0]]).double(), torch.tensor([[2.0], [5.0]]).double()
    expected = 0.5 * (1 * 4 + 4 * 25) + 0.5 * 4.0 * (3 - 1) ** 2
    assert field.bind(graph, (x, v)).lyapunov((x, v)).item() == pytest.approx(expected)
    final = solve(field, (x, v), 2.0, graph, **TIGHT).final
    assert field.bind(graph, (x, v)).lyapunov(final).item() == pytest.approx(expected, rel=1e-7)


def test_every_graph_of_a_batch_may_have_its_own_speed() -> None:
    ring = catalogue.ring(4)
    both, (x, v) = Graph.union([ring, ring]), pair(ring)
    speed = torch.tensor([0.5, 2.0], dtype=torch.float64)
    joint = solve(Wave(speed), (x.repeat(2, 1), v.repeat(2, 1)), 1.0, both, **TIGHT).final
    for g, c in enumerate(speed.tolist()):
        alone = solve(Wave(c), (x, v), 1.0, ring, **TIGHT).final
        torch.testing.assert_close(joint[0][4 * g : 4 * g + 4], alone[0], rtol=1e-6, atol=1e-7)


def test_the_energy_of_the_trajectory_is_that_of_the_position() -> None:
    graph = catalogue.path(3)
    x = torch.tensor([[0.0], [1.0], [3.0]]).double()
    traj = solve(Wave(), (x, 0 * x), 0.5, graph)
    assert traj.energy.y[0].item() == pytest.approx(1.0 + 4.0)


def test_it_keeps_the_contract() -> None:
    speed = torch.nn.Parameter(torch.tensor(1.2))
    check_field(Wave(speed, "sym", torch.nn.Parameter(torch.tensor(0.2))), catalogue.barbell(3))


def test_wrong_states_and_graphs_are_refused_in_words() -> None:
    graph = catalogue.ring(4)
    with pytest.raises(TypeError, match=r"pair \(x, v\)"):
        Wave().bind(graph, torch.zeros(4, 1))
    with pytest.raises(ValueError, match="allowed: a number, 0-d"):
        Wave(damping=torch.ones(2))
    cycle = Graph(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]))
    state = (torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="undirected"):
        Wave().bind(cycle, state).lyapunov(state)
