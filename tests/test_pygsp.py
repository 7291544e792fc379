"""PyGSP: where it agrees with our spectra, energies and filters, and where it differs and how."""

import numpy as np
import pytest
import torch
from pygsp import filters, graphs
from torch import Tensor

from analysis import BandEnergy, Spectrum, spectrum
from neuralpde import Graph, catalogue, data, dirichlet_energy, solve
from neuralpde.fields import Heat
from tests.strategies import dense

F64 = torch.float64
KIND = {"comb": "combinatorial", "sym": "normalized"}


def peer(graph: Graph, norm: str = "comb") -> graphs.Graph:
    G = graphs.Graph(dense(graph).numpy(), lap_type=KIND[norm])
    G.compute_fourier_basis()
    return G


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def weighted() -> Graph:
    graph = catalogue.grid(4, 5)
    half = torch.rand(20, 20, dtype=F64, generator=torch.Generator().manual_seed(1))
    source, target = graph.edge_index
    return Graph(graph.edge_index, 20, 0.2 + (half + half.T)[source, target])


GRAPHS = {"weighted": weighted, "karate": data.karate, "star": lambda: catalogue.star(9)}


@pytest.mark.parametrize("norm", KIND)
@pytest.mark.parametrize("kind", GRAPHS)
def test_fourier_transforms_have_the_same_power_at_each_eigenvalue(kind: str, norm: str) -> None:
    graph = GRAPHS[kind]().to(dtype=F64)
    G, modes = peer(graph, norm), spectrum(graph, norm)
    np.testing.assert_allclose(modes.eigenvalues.numpy(), G.e, atol=1e-12)
    x = normal(graph.num_nodes, 3)
    theirs = np.square(G.gft(x.numpy())).sum(1)

    def at_levels(power: np.ndarray, modes: Spectrum = modes) -> np.ndarray:
        return np.bincount(modes.levels.numpy(), power)

    np.testing.assert_allclose(at_levels(modes.power(x).numpy()), at_levels(theirs), rtol=1e-9)


@pytest.mark.parametrize("norm", KIND)
@pytest.mark.parametrize("kind", GRAPHS)
def test_energies_agree_channel_by_channel_and_theirs_of_several_is_a_matrix(
    kind: str, norm: str
) -> None:
    graph = GRAPHS[kind]().to(dtype=F64)
    G, x = peer(graph, norm), normal(graph.num_nodes, 3)
    for k in range(3):
        ours = float(dirichlet_energy(x[:, k : k + 1], graph, norm))
        assert ours == pytest.approx(float(G.dirichlet_energy(x[:, k].numpy())), rel=1e-9)
    theirs = G.dirichlet_energy(x.numpy())
    assert theirs.shape == (3, 3)
    assert float(dirichlet_energy(x, graph, norm)) == pytest.approx(np.trace(theirs), rel=1e-9)


def test_their_heat_is_slower_by_the_largest_eigenvalue() -> None:
    graph, x = weighted(), normal(20, 1)
    G = peer(graph)
    tau = 3.0
    theirs = filters.Heat(G, tau).filter(x[:, 0].numpy(), method="exact")
    for t, same in ((tau / G.lmax, True), (tau, False)):
        ours = solve(Heat(), x, t, graph, rtol=1e-11).final
        assert isinstance(ours, Tensor)
        assert np.allclose(ours[:, 0].numpy(), theirs, atol=1e-8) is same


def test_energies_of_their_ideal_filters_are_our_bands() -> None:
    """A bank of indicators in PyGSP, exact and by their Chebyshev series of the same degree."""
    graph, x = weighted(), normal(20, 1)
    G, measure = peer(graph), BandEnergy(4)
    edges = measure.edges(graph)[0].numpy().copy()
    edges[-1] = np.inf
    bank = filters.Filter(
        G, [lambda e, j=j: ((e >= edges[j]) & (e < edges[j + 1])) * 1.0 for j in range(4)]
    )
    theirs = np.square(bank.filter(x[:, 0].numpy(), method="exact")).sum(0)
    np.testing.assert_allclose(measure(x, graph)[0].numpy(), theirs, rtol=1e-9)
    # Cut Chebyshev series of jumps overshoot: theirs miss the squared norm, ours add up to it.
    cut = np.square(bank.filter(x[:, 0].numpy(), method="chebyshev", order=60)).sum()
    assert abs(cut / float(x.square().sum()) - 1) > 1e-3
    ours = BandEnergy(4, method="chebyshev")(x, graph)
    assert float(ours.sum()) == pytest.approx(float(x.square().sum()), rel=1e-12)


def test_isolated_nodes_have_zero_rows_in_both_and_spoil_their_bound() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 4)
    for norm, kind in KIND.items():
        G = graphs.Graph(dense(graph).numpy(), lap_type=kind)
        ours = graph.laplacian(norm, dtype=F64).to_dense().numpy()
        np.testing.assert_allclose(ours, G.L.toarray(), atol=1e-15)
        torch.testing.assert_close(
            spectrum(graph, norm).eigenvalues, torch.tensor([0.0, 0, 0, 2]).double()
        )
    # The mean degree of no neighbours.
    with pytest.warns(RuntimeWarning, match="invalid value"):
        peer(graph)
