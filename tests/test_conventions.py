"""Energies of directed graphs, sheaves and bundles, and identities between conventions."""

import networkx as nx
import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from analysis import DirectedDirichlet, Dirichlet, FormEnergy, Rayleigh
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import BundleDiffusion, Heat, SheafDiffusion
from neuralpde.forms import SheafForm
from neuralpde.operators import sheaf_laplacian
from tests.sheaves import coboundary, drawn
from tests.strategies import batches, dense, graphs, quietly


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def club_of(graph: Graph) -> nx.DiGraph:
    # Row sends in networkx.
    return nx.from_numpy_array(dense(graph).T.numpy(), create_using=nx.DiGraph)


@settings(max_examples=40)
@given(graphs(min_nodes=3, max_nodes=9, directed=True))
def test_the_directed_energy_is_that_of_networkx(graph: Graph) -> None:
    club = club_of(graph)
    periodic = nx.is_strongly_connected(club) and not nx.is_aperiodic(club)
    L = torch.from_numpy(nx.directed_combinatorial_laplacian_matrix(club))
    x = normal(graph.num_nodes, 3)
    # The lazy walk, which networkx takes on periodic graphs, has half the energy.
    expected = float((x * (L @ x)).sum()) * (2 if periodic else 1)
    assert DirectedDirichlet()(x, graph).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_periodic_graph_is_walked_without_rest() -> None:
    ring = quietly(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
    x = normal(4, 1)
    expected = float((x - x.roll(1, 0)).square().sum()) / 8
    assert DirectedDirichlet()(x, ring).item() == pytest.approx(expected, rel=1e-12)
    L = torch.from_numpy(nx.directed_combinatorial_laplacian_matrix(club_of(ring)))
    assert float((x * (L @ x)).sum()) == pytest.approx(expected / 2, rel=1e-9)


@settings(max_examples=25)
@given(graphs(min_nodes=2, connected=True, loops=False))
def test_on_undirected_graphs_it_is_comb_over_the_volume(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    expected = Dirichlet()(x, graph) / graph.degree.sum()
    torch.testing.assert_close(DirectedDirichlet()(x, graph), expected)


@settings(max_examples=25)
@given(graphs(min_nodes=2, directed=True))
def test_the_average_of_both_directions_is_never_negative(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    A = dense(graph)
    A = (A + A.T) / 2
    L = A.sum(1).diag() - A
    assert Dirichlet()(x, graph).item() == pytest.approx(float((x * (L @ x)).sum()), abs=1e-9)


def test_a_star_that_points_inwards_has_a_positive_energy() -> None:
    # x^T (D_in - A) x is -1 here, which passes for an energy elsewhere.
    star = quietly(torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]]))
    x = torch.tensor([[1.0], [0.5], [0.5], [0.5], [0.5]], dtype=torch.float64)
    assert Dirichlet()(x, star).item() == pytest.approx(0.5)
    assert DirectedDirichlet()(x, star).item() > 0


@settings(max_examples=15)
@given(batches(max_graphs=3))
def test_directed_energies_are_per_graph(batch: Graph) -> None:
    x = normal(batch.num_nodes, 2)
    labels = torch.zeros(batch.num_nodes).long() if batch.batch is None else batch.batch
    found = DirectedDirichlet()(x, batch)
    for g in range(batch.num_graphs):
        rows = torch.nonzero(labels == g)[:, 0]
        keep = labels[batch.edge_index[0]] == g
        own = Graph(batch.edge_index[:, keep] - rows[0], len(rows), batch.edge_weight[keep])
        assert found[g].item() == pytest.approx(
            DirectedDirichlet()(x[rows], own).item(), rel=1e-9, abs=1e-12
        )


def test_directed_energies_keep_their_digits_near_consensus() -> None:
    arcs = quietly(torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 0, 5, 4, 4]]))
    wiggle = normal(6, 2)
    single = (1 + 1e-5 * wiggle).float()
    found, expected = DirectedDirichlet()(single, arcs), DirectedDirichlet()(single.double(), arcs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    value, floor = DirectedDirichlet().reading(torch.ones(6, 1), arcs)
    assert value <= floor
    assert torch.autograd.gradcheck(lambda y: DirectedDirichlet()(y, arcs), wiggle.requires_grad_())


@settings(max_examples=20)
@given(graphs(min_nodes=2, loops=False))
def test_the_sheaf_of_identities_has_the_form_sym(graph: Graph) -> None:
    assume(graph.num_edges > 0)
    maps = torch.eye(2, dtype=torch.float64).expand(graph.edge_index.shape[1], 2, 2)
    L = sheaf_laplacian(graph, maps, "sym")
    x = normal(graph.num_nodes, 2, 3)
    energy = FormEnergy(SheafForm(lambda _: L, graph, "sheaf"))
    torch.testing.assert_close(energy(x, graph), Dirichlet("sym")(x, graph))


def test_sheaf_energies_are_sums_over_the_edges() -> None:
    graph = catalogue.grid(3, 3)
    maps, x = drawn(graph, 3, "general"), normal(9, 3, 2)
    L = sheaf_laplacian(graph, maps)
    energy = FormEnergy(SheafForm(lambda _: L, graph, "sheaf"))
    apart = coboundary(graph, maps) @ x.reshape(27, 2)
    assert energy(x, graph).item() == pytest.approx(float(apart.square().sum()), rel=1e-12)
    relative = FormEnergy(energy.form, relative=True)
    quotient = float(apart.square().sum() / x.square().sum())
    assert relative(x, graph).item() == pytest.approx(quotient, rel=1e-12)
    assert "over |x|^2" in relative.convention
    value, floor = energy.reading(x.float(), graph)
    assert 0 < float(floor) < 1e-3 * float(value)


def test_a_sheaf_flow_is_measured_in_its_own_form() -> None:
    graph, x0 = catalogue.grid(3, 3), normal(9, 3, 2)
    field = SheafDiffusion(2, 3).double()
    traj = solve(field, x0, [0.0, 0.5, 1.0], graph)
    found = traj.measure(FormEnergy.of(field, graph, x0))
    at = [int((traj.energy.t - t).abs().argmin()) for t in traj.t]
    torch.testing.assert_close(found.y, traj.energy.y[at], rtol=1e-3, atol=0)


def test_bundles_and_heat_have_their_own_forms() -> None:
    graph = catalogue.ring(6)
    x0 = normal(6, 2, 2)
    bundle = BundleDiffusion(2, 2).double()
    energy = FormEnergy.of(bundle, graph, x0)
    traj = solve(bundle, x0, [0.0, 1.0, 2.0], graph, rtol=1e-10)
    found = traj.measure(energy)
    at = [int((traj.energy.t - t).abs().argmin()) for t in traj.t]
    torch.testing.assert_close(found.y, traj.energy.y[at], rtol=1e-6, atol=0)
    assert found.convention == traj.energy.convention
    plain = FormEnergy.of(Heat("augmented"), graph, normal(6, 1), relative=True)
    x = normal(6, 1, seed=2)
    torch.testing.assert_close(plain(x, graph), Rayleigh("augmented")(x, graph))


@settings(max_examples=20)
@given(batches())
def test_conventions_are_multiples_of_each_other(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    nodes = torch.ones(graph.num_nodes).double()
    labels = torch.zeros(graph.num_nodes).long() if graph.batch is None else graph.batch
    count = torch.zeros(graph.num_graphs).double().index_add(0, labels, nodes)
    comb = Dirichlet()(x, graph)
    torch.testing.assert_close(Dirichlet(scale="survey")(x, graph), 2 * comb / count)
    for norm in ("comb", "sym", "augmented", "rw"):
        torch.testing.assert_close(
            Dirichlet(norm, "relative")(x, graph), Rayleigh(norm)(x, graph), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize(
    ("graph", "degree"),
    [(catalogue.ring(7), 2), (catalogue.torus(4, 5), 4), (catalogue.hypercube(3), 3)],
)
def test_on_regular_graphs_conventions_differ_by_the_degree(graph: Graph, degree: int) -> None:
    x = normal(graph.num_nodes, 2)
    comb, sym = Dirichlet()(x, graph), Dirichlet("sym")(x, graph)
    torch.testing.assert_close(comb, degree * sym)
    torch.testing.assert_close(Dirichlet("augmented")(x, graph), degree / (degree + 1) * sym)
    torch.testing.assert_close(DirectedDirichlet()(x, graph), comb / (degree * graph.num_nodes))
