"""Two energies of one propagation: Bison and Sperduti, arXiv:2512.09890."""

import pytest
import torch

from analysis import Dirichlet, Rayleigh, propagate, verdict
from neuralpde import catalogue
from neuralpde.data import load


def normal(nodes: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(nodes, channels, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("self_loops", [False, True])
def test_layers_are_powers_of_the_normalised_adjacency(self_loops: bool) -> None:
    graph = catalogue.lollipop(4, 3)
    A = torch.eye(7).double() - graph.laplacian("sym", dtype=torch.float64).to_dense()
    if self_loops:
        plain = (graph.laplacian("comb", dtype=torch.float64).to_dense() < 0).double()
        looped = plain + torch.eye(7)
        A = looped / looped.sum(1).sqrt()[:, None] / looped.sum(1).sqrt()
    x = normal(7)
    traj = propagate(graph, x, 6, self_loops=self_loops)
    for k in range(7):
        torch.testing.assert_close(
            traj.x[k], torch.linalg.matrix_power(A, k) @ x, rtol=1e-11, atol=1e-13
        )


@pytest.mark.parametrize(
    ("graph", "degree"), [(catalogue.torus(5, 7), 4), (catalogue.complete(6), 5)]
)
def test_on_regular_graphs_the_energies_are_in_the_ratio_of_the_degree(graph, degree: int) -> None:
    traj = propagate(graph, normal(graph.num_nodes), 8)
    comb, sym = (traj.measure(Dirichlet(norm)).y for norm in ("comb", "sym"))
    torch.testing.assert_close(comb / sym, torch.full((9,), degree).double(), rtol=1e-9, atol=0)


def test_on_irregular_graphs_one_energy_vanishes_and_the_other_has_a_limit() -> None:
    graph = load("karate").graph
    x = normal(34)
    traj = propagate(graph, x, 200)
    comb, sym = (traj.measure(Dirichlet(norm)).y for norm in ("comb", "sym"))
    source, target = graph.edge_index
    limit = torch.bincount(source, minlength=34).double().sqrt()
    limit = limit / limit.norm()
    apart = (limit[source] - limit[target]).square().sum() / 2
    expected = float(apart * (limit @ x).square().sum())
    assert float(comb[-1]) == pytest.approx(expected, rel=1e-5)
    assert not float(sym[-1]) > 1e-10 * float(sym[0])


def test_the_verdict_needs_the_matching_form() -> None:
    traj = propagate(load("karate").graph, normal(34), 60)
    assert verdict(traj).outcome == "over-smooths"
    other = traj.measure(Rayleigh("comb"))
    assert verdict(traj, other, traj["norm"]).outcome == "does not smooth"
