"""Quantities of known graphs in closed form, and where other libraries differ."""

import math

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.utils import get_laplacian, to_dense_adj

from analysis import (
    MAD,
    ConsensusDistance,
    Dirichlet,
    Rayleigh,
    balanced_forman,
    cheeger_sweep,
    effective_resistance,
    forman,
    kirchhoff_index,
    lin_lu_yau,
    ollivier,
    spectral_gap,
)
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def petersen() -> Graph:
    edges = torch.tensor(list(nx.petersen_graph().edges)).T
    return Graph(torch.cat([edges, edges.flip(0)], 1))


def regular_tree(degree: int, depth: int) -> Graph:
    """Every inner node has so many neighbours."""
    edges, last, count = [], [0], 1
    for level in range(depth):
        grown = []
        for parent in last:
            for _ in range(degree if level == 0 else degree - 1):
                edges.append((parent, count))
                grown.append(count)
                count += 1
        last = grown
    found = torch.tensor(edges).T
    return Graph(torch.cat([found, found.flip(0)], 1))


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_edges_of_regular_trees(degree: int) -> None:
    tree = regular_tree(degree, 3)
    inner, leaf = torch.tensor([[0], [1]]), torch.tensor([[tree.num_nodes - 1], [0]])
    leaf[1] = int(tree.edge_index[0][tree.edge_index[1] == tree.num_nodes - 1])
    for curvature in (balanced_forman, lin_lu_yau):
        assert curvature(tree, inner).item() == pytest.approx(4 / degree - 2, abs=1e-9)
    assert ollivier(tree, inner, idleness=0.0).item() == pytest.approx(4 / degree - 2, abs=1e-9)
    assert forman(tree, inner).item() == 4 - 2 * degree
    assert balanced_forman(tree, leaf).item() == 0
    assert lin_lu_yau(tree, leaf).item() == pytest.approx(2 / degree, abs=1e-9)
    assert ollivier(tree, leaf, idleness=0.0).item() == pytest.approx(0.0, abs=1e-9)
    assert forman(tree, leaf).item() == 3 - degree


@pytest.mark.parametrize("n", [3, 5, 8])
def test_edges_of_complete_graphs_and_stars(n: int) -> None:
    full, star = catalogue.complete(n), catalogue.star(n)
    assert balanced_forman(full).unique().item() == pytest.approx(n / (n - 1))
    assert lin_lu_yau(full)[0].item() == pytest.approx(n / (n - 1))
    assert ollivier(full, idleness=0.0)[0].item() == pytest.approx((n - 2) / (n - 1))
    assert forman(full, triangles=True)[0].item() == n
    assert not balanced_forman(star).any()
    assert lin_lu_yau(star)[0].item() == pytest.approx(2 / (n - 1))
    assert forman(star)[0].item() == 4 - n


@pytest.mark.parametrize("d", [2, 3, 5])
def test_edges_of_cubes_and_of_balanced_bipartite_graphs(d: int) -> None:
    cube, both = catalogue.hypercube(d), catalogue.bipartite(d, d)
    assert balanced_forman(cube)[0].item() == pytest.approx(2 / d)
    assert lin_lu_yau(cube)[0].item() == pytest.approx(2 / d)
    assert balanced_forman(both)[0].item() == pytest.approx(6 / d - 2)
    assert lin_lu_yau(both)[0].item() == pytest.approx(2 / d)
    assert ollivier(cube)[0].item() == pytest.approx(1 / d)


def test_kirchhoff_indices_of_trees_are_their_sums_of_distances() -> None:
    assert kirchhoff_index(petersen()) == pytest.approx(33)
    tree = catalogue.tree(4)
    assert kirchhoff_index(tree) == pytest.approx(2304)
    club = nx.Graph(tree.edge_index.T.tolist())
    assert kirchhoff_index(tree) == pytest.approx(nx.wiener_index(club))
    grid = catalogue.grid(3, 4)
    spectrum = catalogue.eigenvalues("grid", 3, 4)
    assert kirchhoff_index(grid) == pytest.approx(12 * float((1 / spectrum.sort()[0][1:]).sum()))


def test_every_edge_of_a_clique_at_a_bridge_and_the_bridge() -> None:
    barbell = catalogue.barbell(5, 2)
    value = effective_resistance(barbell).value
    i, j = barbell.edge_index
    clique = ((i < 5) & (j < 5)) | ((i > 6) & (j > 6))
    torch.testing.assert_close(value[clique], torch.full_like(value[clique], 2 / 5))
    torch.testing.assert_close(value[~clique], torch.ones_like(value[~clique]))


@pytest.mark.parametrize(
    ("graph", "conductance"),
    [
        (catalogue.complete(5), 3 / 4), (catalogue.complete(6), 3 / 5), (catalogue.star(7), 1),
        (catalogue.path(7), 1 / 5), (catalogue.ring(7), 1 / 3), (catalogue.barbell(4), 1 / 13),
    ],
    ids=["K5", "K6", "star", "P7", "C7", "barbell"],
)  # fmt: skip
def test_conductances(graph: Graph, conductance: float) -> None:
    assert cheeger_sweep(graph).conductance == pytest.approx(conductance)


@pytest.mark.parametrize(
    ("graph", "comb", "sym"),
    [
        (petersen(), 2, 2 / 3),
        (catalogue.grid(4, 6), 2 - 2 * math.cos(math.pi / 6), None),
        (catalogue.torus(4, 7), 2 - 2 * math.cos(2 * math.pi / 7),
         (1 - math.cos(2 * math.pi / 7)) / 2),
        (catalogue.bipartite(3, 3), 3, 1),
    ],
    ids=["Petersen", "grid", "torus", "bipartite"],
)  # fmt: skip
def test_gaps(graph: Graph, comb: float, sym: float | None) -> None:
    assert spectral_gap(graph, "comb") == pytest.approx(comb)
    if sym is not None:
        assert spectral_gap(graph) == pytest.approx(sym)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("n", [3, 6, 11])
def test_energies_of_ramps_and_constants(n: int) -> None:
    ramp, ones = torch.arange(n).double()[:, None], torch.ones(n, 1).double()
    path, ring, star = catalogue.path(n), catalogue.ring(n), catalogue.star(n)
    assert Dirichlet()(ramp, path).item() == pytest.approx(n - 1)
    assert Dirichlet()(ramp, ring).item() == pytest.approx((n - 1) + (n - 1) ** 2)
    assert Dirichlet()(ones, star).item() == pytest.approx(0.0, abs=1e-12)
    # The kernel of "sym" is D^(1/2) 1, not the constants.
    assert Dirichlet("sym")(ones, path).item() == pytest.approx(2 * (1 - 2**-0.5) ** 2)
    hub = (n - 1) * (1 - (n - 1) ** -0.5) ** 2
    assert Dirichlet("sym")(ones, star).item() == pytest.approx(hub)


def test_energies_of_one_node_and_of_signs() -> None:
    graph = catalogue.grid(3, 4)
    for node in (0, 1, 5):
        delta = torch.zeros(12, 1).double()
        delta[node] = 1.0
        assert Dirichlet()(delta, graph).item() == pytest.approx(float(graph.degree[node]))
        assert Dirichlet("sym")(delta, graph).item() == pytest.approx(1.0)
    signs = column(*[(-1.0) ** (row + col) for row in range(3) for col in range(4)])
    assert Dirichlet()(signs, graph).item() == pytest.approx(4 * graph.num_edges)
    root = graph.degree.double().sqrt()[:, None]
    assert Rayleigh("sym")(root * signs, graph).item() == pytest.approx(2.0)
    assert MAD()(signs, graph).item() == pytest.approx(4 * graph.num_edges / 12)


def test_one_step_of_a_complete_graph_reaches_consensus_and_signs_never_do() -> None:
    full, x = catalogue.complete(7), normal(7, 3)
    once = full.adjacency("sym", 1.0, dtype=torch.float64) @ x
    assert ConsensusDistance()(once, full).item() < 1e-14
    # Without self-loops the walk on a bipartite graph turns signs over for ever.
    both, signs = catalogue.bipartite(3, 4), column(1, 1, 1, -1, -1, -1, -1)
    walked = both.adjacency("row", dtype=torch.float64) @ signs
    torch.testing.assert_close(walked, -signs)


@pytest.mark.parametrize("norm", ["comb", "sym", "augmented"])
def test_all_the_energy_of_heat_is_half_the_squared_distance_to_consensus(norm: str) -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 2)
    # Dense in logarithmic time, as modes are.
    times = torch.cat([torch.zeros(1), torch.logspace(-5, 2.2, 4000)]).double()
    traj = solve(Heat(norm), x0, times, graph, rtol=1e-9)
    distance = ConsensusDistance(norm)(x0, graph).item()
    total = traj.measure(Dirichlet(norm)).integral()
    assert total == pytest.approx(distance**2 / 2, rel=1e-5)


@pytest.mark.parametrize(("h", "ratio"), [(0.25, 0.0), (0.5, 1.0), (0.6, 1.96)])
def test_euler_steps_multiply_the_energy_of_a_mode(h: float, ratio: float) -> None:
    # The alternating mode of C4 has lambda = 4: (1 - 4 h)^2 a step.
    ring, x0 = catalogue.ring(4), column(1.0, -1.0, 1.0, -1.0)
    traj = solve(Heat(), x0, h, ring, solver="euler", steps=1)
    found = Dirichlet()(traj.final, ring) / Dirichlet()(x0, ring)
    assert found.item() == pytest.approx(ratio, abs=1e-12)


def test_isolated_nodes_have_zero_rows_as_in_networkx_and_not_as_in_torch_geometric() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    graph, x = Graph(edges, 3), column(1.0, 2.0, 5.0)
    club = nx.Graph([(0, 1)])
    club.add_node(2)
    L = torch.from_numpy(nx.normalized_laplacian_matrix(club).toarray())
    assert Dirichlet("sym")(x, graph).item() == pytest.approx(float((x * (L @ x)).sum()))
    index, weight = get_laplacian(edges, None, "sym", num_nodes=3)
    theirs = to_dense_adj(index, edge_attr=weight, max_num_nodes=3)[0].double()
    assert theirs[2, 2] == 1
    # The lonely node's square, which no flow would ever lose.
    assert float((x * (theirs @ x)).sum()) == pytest.approx(25 + Dirichlet("sym")(x, graph).item())


def test_directed_laplacians_of_torch_geometric_give_negative_energies() -> None:
    arcs = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]])
    x = column(1.0, 0.5, 0.5, 0.5, 0.5)
    index, weight = get_laplacian(arcs, None, num_nodes=5)
    theirs = to_dense_adj(index, edge_attr=weight, max_num_nodes=5)[0].double()
    assert float((x * (theirs @ x)).sum()) == pytest.approx(-1.0)
    with pytest.warns(UserWarning, match="listed both ways"):
        graph = Graph(arcs, 5)
    assert Dirichlet()(x, graph).item() == pytest.approx(0.5)
