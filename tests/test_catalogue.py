import math

import networkx as nx
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import dense

from neuralpde import catalogue
from neuralpde.graph import Graph


def laplacian(graph: Graph, norm: str = "comb") -> np.ndarray:
    adjacency = dense(graph).numpy()
    adjacency -= np.diag(np.diag(adjacency))
    degree = adjacency.sum(1)
    matrix = np.diag(degree) - adjacency
    if norm == "comb":
        return matrix
    scale = np.where(degree > 0, degree, 1.0) ** -0.5
    return scale[:, None] * matrix * scale


def as_networkx(graph: Graph) -> nx.Graph:
    return nx.from_numpy_array(dense(graph).numpy())


@pytest.mark.parametrize(
    ("graph", "reference"),
    [
        (catalogue.path(1), nx.path_graph(1)),
        (catalogue.path(7), nx.path_graph(7)),
        (catalogue.ring(6), nx.cycle_graph(6)),
        (catalogue.grid(3, 5), nx.grid_2d_graph(3, 5)),
        (catalogue.torus(3, 4), nx.grid_2d_graph(3, 4, periodic=True)),
        (catalogue.complete(1), nx.complete_graph(1)),
        (catalogue.complete(5), nx.complete_graph(5)),
        (catalogue.star(6), nx.star_graph(5)),
        (catalogue.bipartite(2, 4), nx.complete_bipartite_graph(2, 4)),
        (catalogue.hypercube(4), nx.hypercube_graph(4)),
        (catalogue.barbell(4), nx.barbell_graph(4, 0)),
        (catalogue.barbell(3, 2), nx.barbell_graph(3, 2)),
        (catalogue.lollipop(4, 3), nx.lollipop_graph(4, 3)),
        (catalogue.tree(3), nx.balanced_tree(2, 3)),
        (catalogue.tree(2, 3), nx.balanced_tree(3, 2)),
    ],
    ids=str,
)
def test_families_are_isomorphic_to_networkx(graph: Graph, reference: nx.Graph) -> None:
    assert nx.is_isomorphic(as_networkx(graph), reference)
    assert not graph.directed
    assert graph.num_self_loops == 0
    assert graph.edge_weight.unique().tolist() in ([], [1.0])
    assert graph.pos is not None
    assert len(graph.pos.unique(dim=0)) == graph.num_nodes


@pytest.mark.parametrize("norm", ["comb", "sym"])
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("path", (1,)),
        ("path", (2,)),
        ("path", (9,)),
        ("ring", (3,)),
        ("ring", (8,)),
        ("grid", (3, 5)),
        ("torus", (3, 4)),
        ("complete", (1,)),
        ("complete", (6,)),
        ("star", (2,)),
        ("star", (7,)),
        ("bipartite", (1, 1)),
        ("bipartite", (3, 5)),
        ("hypercube", (4,)),
        ("barbell", (2,)),
        ("barbell", (5,)),
    ],
)
def test_known_spectra_are_those_of_the_matrices(
    family: str, sizes: tuple[int, ...], norm: str
) -> None:
    if norm == "sym" and family in ("grid", "barbell"):
        with pytest.raises(ValueError, match=f"unknown closed-form sym spectrum '{family}'"):
            catalogue.eigenvalues(family, *sizes, norm=norm)
        return
    known = catalogue.eigenvalues(family, *sizes, norm=norm)
    graph = getattr(catalogue, family)(*sizes)
    found = np.linalg.eigvalsh(laplacian(graph, norm))
    np.testing.assert_allclose(known.numpy(), found, atol=2e-14 * max(1, found[-1]))


def test_small_eigenvalues_of_long_paths_keep_their_digits() -> None:
    nodes = 10**6
    assert catalogue.eigenvalues("path", nodes)[1].item() == pytest.approx(
        (math.pi / nodes) ** 2 * (1 - (math.pi / nodes) ** 2 / 12), rel=1e-14
    )


def test_unknown_spectra_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'star'"):
        catalogue.eigenvalues("start", 3)
    with pytest.raises(ValueError, match="unknown norm 'row'"):
        catalogue.eigenvalues("star", 3, norm="row")
    with pytest.raises(ValueError, match="2 inner bridge nodes"):
        catalogue.eigenvalues("barbell", 3, 2)


@pytest.mark.parametrize(
    ("family", "sizes", "text"),
    [
        ("path", (0,), "nodes >= 1, got 0"),
        ("ring", (2,), "nodes >= 3, got 2"),
        ("grid", (0, 3), "rows >= 1"),
        ("torus", (3, 2), "columns >= 3"),
        ("star", (1,), "nodes >= 2"),
        ("bipartite", (1, 0), "right >= 1"),
        ("hypercube", (0,), "dimension >= 1"),
        ("barbell", (1,), "clique >= 2"),
        ("tree", (-1,), "depth >= 0"),
        ("sphere", (-1,), "subdivisions >= 0"),
        ("torus_surface", (8, 8, 1.0, 1.0), "minor < major"),
        ("torus_surface", (40, 3), "too obtuse"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(
    family: str, sizes: tuple[int, ...], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        getattr(catalogue, family)(*sizes)


def test_sbm_with_certain_edges_is_the_graph_of_its_blocks() -> None:
    graph = catalogue.sbm([4, 3, 0, 5], [[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1]])
    block = torch.tensor([0, 0, 0, 0, 1, 1, 1, 3, 3, 3, 3, 3])
    joined = (block[:, None] != 1) & (block != 1)
    assert torch.equal(dense(graph), joined.double().fill_diagonal_(0))


@pytest.mark.slow
def test_sbm_draws_every_pair_with_its_probability() -> None:
    p = torch.tensor([[0.5, 0.05], [0.05, 0.2]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = 2500
    total = sum(dense(catalogue.sbm([5, 7], p.tolist(), generator=generator)) for _ in range(draws))
    block = torch.arange(2).repeat_interleave(torch.tensor([5, 7]))
    expected = p[block[:, None], block].fill_diagonal_(0)
    deviation = (total / draws - expected) / (expected * (1 - expected) / draws + 1e-300).sqrt()
    assert deviation.fill_diagonal_(0).abs().max() < 4
    assert torch.equal(total, total.T)


def test_sbm_repeats_with_its_generator_and_scales_with_edges() -> None:
    first, second = (
        catalogue.sbm(
            [200_000, 100_000],
            [[1e-5, 1e-6], [1e-6, 2e-5]],
            generator=torch.Generator().manual_seed(3),
        )
        for _ in range(2)
    )
    assert torch.equal(first.edge_index, second.edge_index)
    expected = 2e5 * (2e5 - 1) / 2 * 1e-5 + 2e10 * 1e-6 + 1e5 * (1e5 - 1) / 2 * 2e-5
    assert abs(first.num_edges - expected) < 5 * expected**0.5


@pytest.mark.parametrize(
    "probabilities",
    [[[0.5]], [[0.1, 0.2], [0.3, 0.1]], [[1.2, 0], [0, 0]], [[math.nan, 0], [0, 0]]],
)
def test_sbm_refuses_matrices_that_are_no_probabilities(probabilities: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        catalogue.sbm([2, 2], probabilities)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 3), st.data())
def test_knn_joins_whoever_is_near_enough(
    seed: int, nodes: int, dims: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, nodes - 1))
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(nodes, dims, dtype=torch.float64, generator=generator)
    distance = torch.cdist(points, points).fill_diagonal_(math.inf)
    near = torch.zeros(nodes, nodes, dtype=torch.float64)
    near.scatter_(1, distance.topk(k, largest=False).indices, 1.0)
    assert torch.equal(dense(catalogue.knn(points, k)), torch.maximum(near, near.T))


def test_knn_of_coinciding_points_has_no_self_loops() -> None:
    graph = catalogue.knn(torch.zeros(6, 2), 2)
    assert graph.num_self_loops == 0
    assert bool((graph.degree >= 2).all())


@pytest.mark.parametrize(("points", "k"), [(torch.zeros(3, 1), 3), (torch.zeros(3, 1), 0)])
def test_knn_refuses_neighbours_that_are_not_there(points: torch.Tensor, k: int) -> None:
    with pytest.raises(ValueError, match="k lies between 1 and 2"):
        catalogue.knn(points, k)


def surface_eigenvalues(graph: Graph, count: int) -> np.ndarray:
    assert graph.node_weight is not None
    mass = np.diag(graph.node_weight.numpy())
    return scipy.linalg.eigh(
        laplacian(graph), mass, eigvals_only=True, subset_by_index=[0, count - 1]
    )


def test_spectrum_of_the_sphere_converges_with_second_order() -> None:
    exact = np.array([0.0] + [2.0] * 3 + [6.0] * 5)
    coarse, fine = (catalogue.sphere(level) for level in (2, 3))
    errors = [np.abs(surface_eigenvalues(g, 9) - exact)[1:].max() for g in (coarse, fine)]
    assert errors[1] < 0.05
    assert 3.6 < errors[0] / errors[1] < 4.4


def test_area_of_the_sphere_converges_with_second_order() -> None:
    areas = [catalogue.sphere(level, radius=3.0).node_weight.sum() for level in (2, 3, 4)]
    errors = [36 * math.pi - float(area) for area in areas]
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, abs=0.03)


@pytest.mark.parametrize("level", range(5))
def test_triangles_of_the_sphere_are_acute_and_close_up(level: int) -> None:
    graph = catalogue.sphere(level)
    assert graph.num_nodes == 10 * 4**level + 2
    assert graph.num_edges == 30 * 4**level
    assert graph.edge_weight.min() > 0.1
    torch.testing.assert_close(graph.pos.norm(dim=1), torch.ones_like(graph.pos[:, 0]))


def test_radius_of_the_sphere_scales_areas_but_not_conductances() -> None:
    unit, large = catalogue.sphere(1), catalogue.sphere(1, radius=5.0)
    torch.testing.assert_close(large.edge_weight, unit.edge_weight)
    torch.testing.assert_close(large.node_weight, 25 * unit.node_weight)


def torus_modes(order: int, major: float, minor: float, nodes: int = 63) -> np.ndarray:
    """Eigenvalues of exp(i order u) f(v) on the torus, by Fourier collocation in v.

    (On an odd number of points: on an even one the sawtooth would have derivative zero.)
    """
    v = 2 * np.pi * np.arange(nodes) / nodes
    difference = np.subtract.outer(np.arange(nodes), np.arange(nodes))
    with np.errstate(divide="ignore"):
        derivative = 0.5 * (-1.0) ** difference / np.sin(np.pi * difference / nodes)
    np.fill_diagonal(derivative, 0)
    out = major + minor * np.cos(v)
    stiffness = derivative.T @ np.diag(out) @ derivative / minor**2 + np.diag(order**2 / out)
    values = scipy.linalg.eigh(stiffness, np.diag(out), eigvals_only=True)
    return values[:4] if order else values[1:5]


def test_spectrum_of_the_torus_converges_with_second_order() -> None:
    modes = [torus_modes(order, 2.0, 1.0) for order in (1, 2)]
    exact = np.sort([*torus_modes(0, 2.0, 1.0), *np.repeat(modes, 2)])[:5]
    errors = []
    for size in (12, 24):
        graph = catalogue.torus_surface(size, 2 * size)
        found = surface_eigenvalues(graph, 6)[1:]
        errors.append(np.abs(found - exact).max())
    assert errors[1] < 0.02
    assert 3.4 < errors[0] / errors[1] < 4.6


def test_area_of_the_torus_is_that_of_pappus() -> None:
    graph = catalogue.torus_surface(60, 120, major=3.0, minor=0.5)
    assert graph.node_weight.sum().item() == pytest.approx(4 * math.pi**2 * 1.5, rel=2e-3)
    assert graph.num_edges == 2 * 60 * 120


def test_random_pairs_keep_every_pair_drawn() -> None:
    graph = catalogue.random_pairs(7, 40, generator=torch.Generator().manual_seed(1))
    assert float(graph.edge_weight.sum()) == 80.0
    assert not graph.directed
    with pytest.raises(ValueError, match="at least one node"):
        catalogue.random_pairs(0, 3)


def test_graphs_have_names() -> None:
    assert torch.equal(
        catalogue.named("grid:3x4").graph.edge_index, catalogue.grid(3, 4).edge_index
    )
    assert catalogue.named("barbell:4").graph.num_nodes == 8
    assert catalogue.named("karate").num_classes == 2
    blocks = catalogue.named("sbm:3x4x1x0")
    assert blocks.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert blocks.graph.num_edges == 3 * 6
    both = (catalogue.named("sbm:2x20x0.3x0.05").graph for _ in range(2))
    assert torch.equal(*(one.edge_index for one in both))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gird:4x4", "'grid'"),
        ("grid:4", "grid takes rows, columns"),
        ("grid:4x-1", "whole numbers"),
        ("ring:1", "nodes >= 3"),
        ("minesota", "'minnesota'"),
        ("sbm:2x5x0.5", "sbm takes blocks"),
        ("sbm:2x5xax0.1", "sbm takes blocks"),
        ("sbm:2x5x1.5x0.1", "1.5"),
    ],
)
def test_a_name_that_names_nothing_is_refused_in_words(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        catalogue.named(name)
