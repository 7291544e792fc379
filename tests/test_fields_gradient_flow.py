"""Gradient flows: of any energy, and Allen-Cahn with its functional."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from neuralpde import catalogue, solve
from neuralpde.energies import dirichlet_energy
from neuralpde.fields import AllenCahn, GradientFlow, Heat, Reaction, allen_cahn
from neuralpde.graph import Graph
from neuralpde.testing import check_field
from tests.strategies import dense, quietly

F64 = torch.float64
T = torch.tensor(0.0, dtype=F64)
GRAPH = catalogue.barbell(3, 1)
NORMS = ("comb", "rw", "sym", "augmented")


def weighted() -> Graph:
    """A triangle with a tail, weights that differ, and a measure on the nodes."""
    edges = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 3]])
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    both = torch.cat([edges, edges.flip(0)], 1)
    return Graph(both, 4, weights.repeat(2), node_weight=torch.tensor([1.0, 2.0, 0.5, 4.0]))


class Well(nn.Module):
    """Half the Dirichlet energy and a double well, with a learned rate, per graph."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=F64))

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        wells = 0.25 * self.rate * (1 - x**2).square().sum(1)
        batch = torch.zeros(len(x), dtype=torch.int64) if graph.batch is None else graph.batch
        total = wells.new_zeros(graph.num_graphs).index_add(0, batch, wells)
        return 0.5 * dirichlet_energy(x, graph) + total


@pytest.mark.parametrize("norm", NORMS)
def test_the_flow_of_half_the_dirichlet_energy_is_heat(norm: str) -> None:
    x = torch.randn(7, 3, dtype=F64)
    flow = GradientFlow(lambda x, graph: 0.5 * dirichlet_energy(x, graph, norm)).bind(GRAPH, x)
    L = GRAPH.to(dtype=F64).laplacian("comb" if norm == "rw" else norm).to_dense()
    torch.testing.assert_close(flow(T, x), -L @ x)


def test_an_energy_with_a_well_is_allen_cahn() -> None:
    x, well = torch.randn(7, 2, dtype=F64), Well()
    flow, known = GradientFlow(well).bind(GRAPH, x), allen_cahn(1.0, 0.7).bind(GRAPH, x)
    torch.testing.assert_close(flow(T, x), known(T, x))
    torch.testing.assert_close(flow.lyapunov(x), known.lyapunov(x))


def test_the_energy_falls_at_the_rate_of_the_squared_slope() -> None:
    x = torch.randn(7, 2, dtype=F64)
    bound = GradientFlow(Well()).bind(GRAPH, x)
    slope = bound(T, x).detach()
    _, rate = torch.autograd.functional.jvp(bound.lyapunov, x, slope)
    torch.testing.assert_close(rate[0], -slope.square().sum())
    found = solve(bound, x, torch.linspace(0, 4, 21), rtol=1e-9, atol=1e-10).x
    assert (torch.stack([bound.lyapunov(y) for y in found.detach()]).diff(dim=0) <= 1e-9).all()


def test_slopes_come_without_a_graph_of_their_own_and_twice_differentiable_with_one() -> None:
    x, well = torch.randn(7, 2, dtype=F64), Well()
    bound = GradientFlow(well).bind(GRAPH, x)
    with torch.no_grad():
        assert not bound(T, x).requires_grad
    y = x.clone().requires_grad_()
    assert gradcheck(lambda y: bound(T, y), (y,))
    assert gradcheck(lambda y: torch.autograd.grad(bound(T, y).sum(), y, create_graph=True), (y,))


def test_graphs_of_a_batch_have_energies_of_their_own() -> None:
    union, x = Graph.union([GRAPH, catalogue.path(3)]), torch.randn(10, 2, dtype=F64)
    bound = GradientFlow(Well()).bind(union, x)
    alone = GradientFlow(Well()).bind(GRAPH, x[:7])
    torch.testing.assert_close(bound.lyapunov(x)[:1], alone.lyapunov(x[:7]))


def test_a_gradient_flow_keeps_the_contract() -> None:
    check_field(GradientFlow(Well()), GRAPH)


def test_energies_that_do_not_fit_are_refused_in_words() -> None:
    union, x = Graph.union([GRAPH, GRAPH]), torch.randn(14, 2, dtype=F64)
    with pytest.raises(ValueError, match="does not depend on the state"):
        GradientFlow(lambda x, graph: x.detach().sum()).bind(None, x)(T, x)
    with pytest.raises(ValueError, match="there are 2 graphs"):
        GradientFlow(lambda x, graph: x.sum()).bind(union, x).lyapunov(x)


@pytest.mark.parametrize("norm", NORMS)
def test_allen_cahn_is_the_gradient_flow_of_its_functional(norm: str) -> None:
    graph = GRAPH if norm != "comb" else weighted()
    x = torch.randn(graph.num_nodes, 2, dtype=F64, requires_grad=True)
    field = AllenCahn(0.3, 1.7, norm)
    bound = field.bind(graph, x)
    (gradient,) = torch.autograd.grad(bound.lyapunov(x).sum(), x)
    L = graph.to(dtype=F64).laplacian(norm)
    metric = torch.ones(graph.num_nodes, dtype=F64) if L.metric is None else L.metric
    torch.testing.assert_close(bound(T, x), -gradient / metric[:, None])
    assert torch.equal(bound.operator.to_dense(), (L * -0.3).to_dense())
    assert bound.pointwise


def test_the_functional_of_allen_cahn_is_that_of_the_edges_and_wells() -> None:
    graph, x = weighted(), torch.randn(4, 2, dtype=F64)
    value = AllenCahn(0.3, 1.7).bind(graph, x).lyapunov(x)
    W, M = dense(graph), graph.node_weight
    edges = 0.25 * (W[:, :, None] * (x[:, None] - x[None]) ** 2).sum()
    wells = 0.25 * (M[:, None] * (1 - x**2) ** 2).sum()
    torch.testing.assert_close(value[0], 0.3 * edges + 1.7 * wells)


@pytest.mark.parametrize("norm", NORMS)
def test_the_functional_falls_along_allen_cahn(norm: str) -> None:
    x = 1.3 * torch.randn(7, 2, dtype=F64)
    field = AllenCahn(0.3, 2.0, norm)
    bound = field.bind(GRAPH, x)
    found = solve(field, x, torch.linspace(0, 6, 31), GRAPH, rtol=1e-9, atol=1e-10).x
    energies = torch.cat([bound.lyapunov(y) for y in found])
    assert (energies.diff() <= 1e-9).all()
    assert energies[-1] < energies[0]


@pytest.mark.parametrize("solver", ["etdrk2", "strang", "ars222", "trbdf2", "tsit5"])
def test_solvers_see_the_operator_and_the_pointwise_rest(solver: str) -> None:
    x = torch.randn(7, 2, dtype=F64)
    settings = {"steps": 60} if solver == "strang" else {"rtol": 1e-5, "atol": 1e-6}
    field = AllenCahn(0.3, 2.0)
    found = solve(field, x, 1.0, GRAPH, solver=solver, **settings).final
    plain = Heat(rate=0.3) + Reaction([0.0, 2.0, 0.0, -2.0])
    expected = solve(plain, x, 1.0, GRAPH, solver="dopri5", rtol=1e-10, atol=1e-11).final
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_each_graph_may_have_a_diffusivity_and_everything_may_be_learned() -> None:
    rates = nn.Parameter(torch.tensor([0.5, 2.0], dtype=F64))
    rate = nn.Parameter(torch.tensor(1.5, dtype=F64))
    union, x = Graph.union([GRAPH, GRAPH]), torch.randn(14, 1, dtype=F64)
    value = AllenCahn(rates, rate).bind(union, x).lyapunov(x)
    alone = torch.cat([AllenCahn(0.5, 1.5).bind(GRAPH, x[:7]).lyapunov(x[:7])])
    torch.testing.assert_close(value[:1], alone)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(value.sum(), [rates, rate]))
    check_field(AllenCahn(nn.Parameter(torch.tensor(0.3)), rate), GRAPH)


def test_the_function_makes_the_class() -> None:
    assert type(allen_cahn(2.0)) is AllenCahn


def test_on_a_directed_graph_there_is_no_functional() -> None:
    graph, x = quietly(torch.tensor([[0, 1], [1, 2]])), torch.ones(3, 1)
    with pytest.raises(ValueError, match="no gradient flow"):
        AllenCahn().bind(graph, x).lyapunov(x)
