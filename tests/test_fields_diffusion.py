"""Linear diffusion: maximum principles with their thresholds, invariants, energies, semigroups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import GCNConv

from neuralpde import Graph, catalogue, solve
from neuralpde.energies import dirichlet_energy
from neuralpde.fields import GRAND, Diffusion, Field, Heat
from neuralpde.operators import Operator
from tests.strategies import graphs

F64 = torch.float64


def walk(norm: str, a: float = 1.0) -> Diffusion:
    """x' = a (A x - x) with the weights of the graph and self-loops."""

    def build(graph: Graph, x0: Tensor) -> Operator:
        return graph.adjacency(norm, self_loops=1.0).shifted(a, -a)

    return Diffusion(build)


def normal(graph: Graph, channels: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.num_nodes, channels, dtype=F64, generator=generator)


def stepped(field: Field, graph: Graph, h: float, solver: str) -> Tensor:
    """The matrix of one step, from the columns of the identity."""
    return solve(
        field, torch.eye(graph.num_nodes, dtype=F64), h, graph, solver=solver, steps=1
    ).final


def fields_by_rows(graph: Graph) -> dict[str, tuple[Field, Tensor]]:
    """Fields whose generator keeps constants, with the diagonal of A in a (A - I)."""
    with torch.no_grad():
        attention = GRAND(graph.num_nodes, attention_dim=4, rate=0.7).double()
        bound = attention.bind(graph, torch.eye(graph.num_nodes, dtype=F64))
        share = 1 + bound.operator.diagonal() / 0.7
    weights = graph.to(dtype=F64).adjacency("row", self_loops=1.0)
    return {
        "walk": (walk("row", 0.7), weights.diagonal()),
        "attention": (attention, share),
    }


@pytest.mark.parametrize("name", ["walk", "attention"])
@pytest.mark.parametrize("graph", [catalogue.star(6), catalogue.barbell(3, 1)])
def test_euler_keeps_maxima_up_to_a_sharp_length_of_step(name: str, graph: Graph) -> None:
    # h a (1 - a_ii) <= 1 for all i, and no farther.
    field, share = fields_by_rows(graph)[name]
    longest = float(1 / (0.7 * (1 - share).max()))
    with torch.no_grad():
        within = stepped(field, graph, 0.9999 * longest, "euler")
        beyond = stepped(field, graph, 1.05 * longest, "euler")
    assert within.min() >= 0
    torch.testing.assert_close(within.sum(1), torch.ones(graph.num_nodes, dtype=F64))
    assert beyond.min() < -0.04


@pytest.mark.parametrize("name", ["walk", "attention"])
def test_implicit_steps_and_the_flow_keep_maxima_at_any_length(name: str) -> None:
    graph = catalogue.star(6)
    field, _ = fields_by_rows(graph)[name]
    with torch.no_grad():
        implicit = stepped(field, graph, 100.0, "implicit_euler")
        exact = solve(field, torch.eye(6, dtype=F64), 100.0, graph, rtol=1e-9).final
        rk4 = stepped(field, graph, 6.0, "rk4")
    assert implicit.min() >= -1e-9
    assert exact.min() >= 0
    assert rk4.min() < 0


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_heat_keeps_its_mean_and_ends_there(norm: str) -> None:
    graph = Graph.union([catalogue.barbell(4, 1), catalogue.star(5)])
    x = normal(graph)
    final = solve(Heat(norm), x, 300.0, graph, rtol=1e-9).final
    L = graph.laplacian(dtype=F64)
    weight = torch.ones(14, dtype=F64) if norm == "comb" else L.diagonal()
    for nodes in (slice(0, 9), slice(9, 14)):
        mean = (weight[nodes, None] * x[nodes]).sum(0) / weight[nodes].sum()
        torch.testing.assert_close(final[nodes], mean.expand_as(final[nodes]), rtol=1e-6, atol=1e-7)


def test_normalised_over_columns_totals_are_kept_and_maxima_are_not() -> None:
    # What the published GRAND does on Cora: from constants, a hub fills up and leaves run dry.
    graph = catalogue.star(6)
    field = walk("col")
    final = solve(field, torch.ones(6, 1, dtype=F64), 5.0, graph, rtol=1e-10).final
    torch.testing.assert_close(final.sum(), torch.tensor(6.0, dtype=F64))
    # The hub follows h' = 3 - 4 h / 3.
    hub = 9 / 4 - 5 / 4 * math.exp(-20 / 3)
    assert final[:, 0].tolist() == pytest.approx([hub] + 5 * [(6 - hub) / 5], abs=1e-9)
    # The kernel is proportional to degrees with loops.
    degree = torch.tensor([[6.0], [2.0], [2.0], [2.0], [2.0], [2.0]], dtype=F64)
    bound = field.bind(graph, degree)
    assert bound(torch.tensor(0.0), degree).abs().max() < 1e-14


@settings(max_examples=15)
@given(graphs(min_nodes=3, connected=True), st.floats(0.1, 3.0))
def test_energy_decays_between_the_slowest_and_the_fastest_mode(graph: Graph, t: float) -> None:
    x = normal(graph)
    traj = solve(Heat("sym", 0.8), x, torch.tensor([0.0, t]), graph, rtol=1e-11)
    L = graph.laplacian("sym", dtype=F64).to_dense()
    values, vectors = torch.linalg.eigh(L)
    shares = (vectors.T @ x).square().sum(1)
    expected = (values * shares * torch.exp(-1.6 * values * t)).sum()
    first, last = traj.energy.y[0], traj.energy.y[-1]
    assert float(dirichlet_energy(traj.final, graph, "sym")) == pytest.approx(
        float(expected), rel=1e-6
    )
    assert last == pytest.approx(float(expected), rel=1e-6)
    slack = 1 + 1e-6
    assert math.exp(-1.6 * float(values[-1]) * t) * first <= last * slack
    assert last <= math.exp(-1.6 * float(values[1]) * t) * first * slack
    assert traj["norm"].y[-1] <= traj["norm"].y[0]


def test_the_slope_of_the_energy_tends_to_the_spectral_gap() -> None:
    graph = catalogue.barbell(4, 1)
    traj = solve(Heat("sym"), normal(graph), 60.0, graph, rtol=1e-10)
    gap = torch.linalg.eigvalsh(graph.laplacian("sym", dtype=F64).to_dense())[1]
    assert -traj.energy.rate() / 2 == pytest.approx(float(gap), rel=1e-3)


@pytest.mark.parametrize("share", [0.98, 1.02])
def test_euler_lowers_the_energy_up_to_a_sharp_length_of_step(share: float) -> None:
    graph = catalogue.grid(3, 3)
    values, vectors = torch.linalg.eigh(graph.laplacian(dtype=F64).to_dense())
    x = vectors[:, -1:] + 0.1 * vectors[:, 1:2]
    h = float(share * 2 / values[-1])
    steps = 200
    traj = solve(Heat(), x, steps * h, graph, solver="euler", steps=steps)
    assert (traj.energy.y[-1] < traj.energy.y[0]) == (share < 1)


@pytest.mark.parametrize(
    "field", [Heat("rw"), walk("row", 0.7), walk("col", 0.7), walk("sym", 0.7)]
)
def test_flows_form_a_semigroup(field: Field) -> None:
    graph = catalogue.barbell(4, 1)
    x = normal(graph)
    half = solve(field, x, 0.8, graph, rtol=1e-11).final
    twice = solve(field, half, 1.7, graph, rtol=1e-11).final
    torch.testing.assert_close(
        twice, solve(field, x, 2.5, graph, rtol=1e-11).final, rtol=1e-9, atol=1e-9
    )


def test_short_flows_can_be_run_back_by_an_explicit_method() -> None:
    graph = catalogue.barbell(4, 1)
    x = normal(graph)
    there = solve(Heat("rw"), x, 0.5, graph, rtol=1e-11).final
    back = solve(Heat("rw"), there, (0.5, 0.0), graph, solver="tsit5", rtol=1e-10, atol=1e-12).final
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("a", [1.0, 0.4])
def test_a_gcn_layer_is_one_euler_step_of_the_flow(a: float) -> None:
    graph = catalogue.barbell(4, 1)
    x = normal(graph, 3)
    layer = GCNConv(3, 3, bias=False).double()
    layer.lin.weight.data = torch.eye(3, dtype=F64)
    step = solve(walk("sym", a), x, 1 / a, graph, solver="euler", steps=1).final
    torch.testing.assert_close(step, layer(x, graph.edge_index).detach(), rtol=1e-12, atol=1e-12)


def test_a_rate_only_rescales_time() -> None:
    graph = catalogue.grid(3, 3)
    x = normal(graph)
    slow = solve(Heat(rate=0.25), x, 4.0, graph, rtol=1e-11).final
    torch.testing.assert_close(slow, solve(Heat(), x, 1.0, graph, rtol=1e-11).final)
