"""Spectra and graph Fourier transforms: closed forms, Parseval, invariance, exact dynamics."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from analysis import Rayleigh, Spectrum, joint_spectrum, spectrum
from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Heat, Oscillator, Schroedinger, Wave
from neuralpde.operators import Kronecker
from tests.strategies import batches, dense, graphs, states

NORMS = ["comb", "sym", "rw", "augmented"]
F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def squares(x: Tensor, graph: Graph, metric: Tensor | None) -> Tensor:
    rows = x.abs().square().reshape(len(x), -1).sum(1)
    rows = rows if metric is None else rows * metric
    labels = torch.zeros(len(x)).long() if graph.batch is None else graph.batch
    return torch.zeros(graph.num_graphs, dtype=F64).index_add(0, labels, rows)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("path", (9,)), ("ring", (8,)), ("star", (7,)), ("complete", (6,)), ("hypercube", (4,)),
     ("torus", (4, 5)), ("bipartite", (3, 5))],
)  # fmt: skip
@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
def test_eigenvalues_are_the_known_ones(family: str, sizes: tuple[int, ...], norm: str) -> None:
    graph = getattr(catalogue, family)(*sizes)
    expected = catalogue.eigenvalues(family, *sizes, norm=norm)
    torch.testing.assert_close(spectrum(graph, norm).eigenvalues, expected, rtol=0, atol=1e-13)


@settings(max_examples=25)
@given(batches())
def test_the_transform_is_an_isometry_that_diagonalises_the_laplacian(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    for norm in NORMS:
        L = graph.laplacian(norm, dtype=F64)
        modes = spectrum(graph, norm)
        coefficients = modes.transform(x)
        torch.testing.assert_close(modes.inverse(coefficients), x)
        square = squares(x, graph, L.metric)
        torch.testing.assert_close(modes.per_graph(modes.power(x)), square)
        scaled = modes.eigenvalues[:, None] * coefficients
        torch.testing.assert_close(modes.transform(L @ x), scaled, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(modes.centroid(x), Rayleigh(norm)(x, graph), atol=1e-9, rtol=0)


@settings(max_examples=20)
@given(graphs(min_nodes=2))
def test_random_walk_modes_are_orthonormal_by_degree(graph: Graph) -> None:
    degree = dense(graph).fill_diagonal_(0.0).sum(1)
    m = torch.where(degree > 0, degree, 1.0)
    modes = spectrum(graph, "rw").inverse(torch.eye(graph.num_nodes, dtype=F64))
    gram = modes.T @ (m[:, None] * modes)
    torch.testing.assert_close(gram, torch.eye(graph.num_nodes, dtype=F64))


def test_a_measure_on_the_nodes_is_the_inner_product() -> None:
    edges, m = catalogue.path(4).edge_index, torch.tensor([0.5, 1.0, 2.0, 0.5]).double()
    modes = spectrum(Graph(edges, node_weight=m))
    x = normal(4, 1)
    assert float(modes.power(x).sum()) == pytest.approx(float((m * x[:, 0] ** 2).sum()))
    flat = modes.transform(torch.ones(4, 1))[:, 0].square()
    torch.testing.assert_close(flat, torch.tensor([4.0, 0, 0, 0]).double(), rtol=0, atol=1e-13)


def test_isolated_nodes_are_modes_of_eigenvalue_zero() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 4)
    for norm, top in (("comb", 2.0), ("sym", 2.0), ("rw", 2.0), ("augmented", 1.0)):
        modes = spectrum(graph, norm)
        expected = torch.tensor([0.0, 0.0, 0.0, top]).double()
        torch.testing.assert_close(modes.eigenvalues, expected, rtol=0, atol=1e-14)
        assert modes.levels.tolist() == [0, 0, 0, 1]


def test_rotating_an_eigenspace_changes_nothing_that_is_reported() -> None:
    graph = catalogue.hypercube(4)
    modes, x = spectrum(graph), normal(16, 2)
    assert modes.levels.bincount().tolist() == [1, 4, 6, 4, 1]
    (block,) = modes.blocks
    turn = torch.eye(16, dtype=F64)
    turn[1:5, 1:5] = torch.linalg.qr(normal(4, 4)).Q
    turn[5:11, 5:11] = torch.linalg.qr(normal(6, 6)).Q
    turned = replace(modes, blocks=(block @ turn,))
    assert float((turned.power(x) - modes.power(x)).abs().max()) > 0.1
    for name in ("profile", "centroid", "entropy"):
        torch.testing.assert_close(getattr(turned, name)(x), getattr(modes, name)(x))


def test_profiles_rise_to_one_and_entropies_count_eigenvalues() -> None:
    batch = Graph.union([catalogue.hypercube(3), catalogue.path(3), catalogue.complete(4)])
    modes = spectrum(batch)
    x = modes.inverse(torch.ones(15, 1, dtype=F64))
    eighths = [1, 4, 4, 4, 7, 7, 7, 8]
    profile = modes.profile(x)
    expected = [k / 8 for k in eighths] + [1 / 3, 2 / 3, 1] + [1 / 4, 1, 1, 1]
    torch.testing.assert_close(profile, torch.tensor(expected, dtype=F64))
    shares = [(1 / 8, 3 / 8, 3 / 8, 1 / 8), (1 / 3,) * 3, (1 / 4, 3 / 4)]
    entropies = [-sum(p * math.log(p) for p in row) for row in shares]
    torch.testing.assert_close(modes.entropy(x), torch.tensor(entropies, dtype=F64))
    x[:8] *= 1e-12
    torch.testing.assert_close(modes.profile(x), profile)
    assert modes.entropy(modes.inverse(torch.eye(15, 1, dtype=F64)))[0] < 1e-25
    assert modes.profile(0 * x).isnan().all()


@pytest.mark.parametrize("norm", NORMS)
def test_heat_takes_the_power_of_each_mode_away_at_twice_its_eigenvalue(norm: str) -> None:
    graph, x0 = catalogue.grid(4, 5), normal(20, 2)
    modes = spectrum(graph, norm)
    traj = solve(Heat(norm), x0, [0.0, 0.5, 1.5], graph, rtol=1e-11)
    start = modes.power(x0)
    for t, x in zip(traj.t.tolist(), traj.x, strict=True):
        expected = start * torch.exp(-2 * modes.eigenvalues * t)
        torch.testing.assert_close(modes.power(x), expected, rtol=1e-7, atol=1e-14)


@settings(max_examples=10)
@given(states(catalogue.ring(6)))
def test_transforms_are_differentiable_and_take_complex_states(x: Tensor) -> None:
    modes = spectrum(catalogue.ring(6))
    assert torch.autograd.gradcheck(modes.power, (x.clone().requires_grad_(),))
    z = torch.complex(x, 2 * x)
    torch.testing.assert_close(modes.power(z), 5 * modes.power(x))
    torch.testing.assert_close(modes.inverse(modes.transform(z)), z)


def test_a_spectrum_is_computed_once_and_refused_where_it_is_none() -> None:
    graph = catalogue.path(5)
    assert spectrum(graph) is spectrum(graph) is not spectrum(graph, "sym")
    with pytest.raises(ValueError, match="too large for all its modes"):
        spectrum(catalogue.path(3001))
    with pytest.raises(ValueError, match="unknown norm 'som'; did you mean"):
        spectrum(graph, "som")
    arcs = Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    with pytest.raises(ValueError, match="must be self-adjoint"):
        spectrum(arcs)
    with pytest.raises(ValueError, match="treat channels alike"):
        Spectrum.of(Kronecker(graph.adjacency("sym"), torch.ones(2, 2)))


def test_adjacencies_have_spectra_too() -> None:
    graph = catalogue.star(6)
    for norm in ("sym", "row", "col"):
        found = Spectrum.of(graph.adjacency(norm)).eigenvalues
        expected = (1 - spectrum(graph, "sym").eigenvalues).sort().values
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "speed"), [("comb", 1.0), ("sym", 2.0)])
def test_waves_have_their_power_on_the_ridge_of_the_dispersion_relation(
    norm: str, speed: float
) -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 3)
    t = torch.linspace(0, 100, 401, dtype=F64)
    field = Wave(speed, norm=norm)
    traj = solve(field, (x0, 0 * x0), t, graph, rtol=1e-8, atol=1e-10)
    found = joint_spectrum(traj, norm)
    omega = speed * found.eigenvalues.sqrt()
    assert found.resolution == pytest.approx(2 * math.pi / (401 * 0.25))
    # A line between two lines is placed by a parabola; multiple eigenvalues have one frequency.
    assert (found.ridge() - omega).abs().max() < 0.1 * found.resolution
    far = (found.frequencies[:, None] - omega).abs() > 3 * found.resolution
    assert float(found.power[far].sum() / found.power.sum()) < 1e-3


def test_oscillators_swing_with_their_springs_on_top() -> None:
    graph, x0 = catalogue.ring(6), normal(6, 1)
    field = Oscillator(Heat(), stiffness=4.0, damping=0.0)
    t = torch.linspace(0, 60, 301, dtype=F64)
    found = joint_spectrum(solve(field, (x0, 0 * x0), t, graph, rtol=1e-8, atol=1e-10))
    omega = (4.0 + catalogue.eigenvalues("ring", 6)).sqrt()
    assert (found.ridge() - omega).abs().max() < 0.1 * found.resolution


def test_complex_states_have_signed_frequencies() -> None:
    graph = catalogue.ring(5)
    x0 = torch.complex(normal(5, 1), normal(5, 1, seed=1))
    t = torch.linspace(0, 80, 401, dtype=F64)
    traj = solve(Schroedinger(), x0, t, graph, rtol=1e-9)
    found = joint_spectrum(traj, "comb")
    signed = found.ridge()
    assert (found.frequencies.diff() > 0).all()
    torch.testing.assert_close(signed.abs(), found.eigenvalues, rtol=0, atol=0.02)
    assert len(signed[1:].sign().unique()) == 1


def test_frequencies_need_equal_gaps() -> None:
    graph = catalogue.path(3)
    t = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 8]).double()
    with pytest.raises(ValueError, match="1 to 2 apart"):
        joint_spectrum(Trajectory(t, torch.zeros(8, 3, 1), graph=graph))
    with pytest.raises(ValueError, match="7 saved times are too few"):
        joint_spectrum(Trajectory(t[:7], torch.zeros(7, 3, 1), graph=graph))
    with pytest.raises(ValueError, match="one graph with one clock"):
        joint_spectrum(Trajectory(t, torch.zeros(8, 3, 1)))
