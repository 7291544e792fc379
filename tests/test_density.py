"""Densities of states against known spectra."""

import pytest
import torch

from analysis import density_of_states
from analysis.density import jackson
from neuralpde import Graph, catalogue

F64 = torch.float64


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
def test_shares_and_quantiles_are_those_of_the_eigenvalues(norm: str) -> None:
    graph, known = catalogue.torus(30, 40), catalogue.eigenvalues("torus", 30, 40, norm=norm)
    found = density_of_states(graph, norm, count=400, generator=seeded())
    at = torch.linspace(0.05, 0.95, 40, dtype=F64) * known.max()
    # Within the resolution the smeared count lies between those around it.
    width = 3 * float(found.resolution[0])
    low, high = ((known <= (at + d)[:, None]).double().mean(1) for d in (-width, width))
    share = found.cumulative(at)[:, 0]
    assert (share > low - 0.015).all()
    assert (share < high + 0.015).all()
    shares = torch.tensor([0.1, 0.5, 0.9]).double()
    quantiles = found.quantiles(shares)[:, 0]
    torch.testing.assert_close(quantiles, known.quantile(shares), rtol=0, atol=2 * width)
    torch.testing.assert_close(found.cumulative(quantiles)[:, 0], shares, rtol=0, atol=1e-3)


def test_the_density_is_positive_and_integrates_to_one() -> None:
    found = density_of_states(catalogue.grid(20, 20), generator=seeded())
    angle = (torch.arange(4000, dtype=F64) + 0.5) / 4000 * torch.pi
    half = (found.hi[0] - found.lo[0]) / 2
    at = found.lo[0] + half * (1 - angle.cos())
    density = found(at)[:, 0]
    assert density.min() > -1e-12
    area = (density * half * angle.sin()).mean() * torch.pi
    assert float(area) == pytest.approx(1.0, abs=1e-6)


def test_batches_have_a_density_each() -> None:
    batch = Graph.union([catalogue.complete(50), catalogue.hypercube(6)])
    found = density_of_states(batch, count=200, probes=64, generator=seeded())
    # One of 50 eigenvalues of the first is 0, the others are 50; of the second 22 of 64 are <= 4.
    share = found.cumulative(torch.tensor([5.0]).double())[0]
    torch.testing.assert_close(share, torch.tensor([1 / 50, 22 / 64]).double(), atol=0.03, rtol=0)


def test_the_kernel_is_positive() -> None:
    angle = torch.linspace(0, torch.pi, 500, dtype=F64)
    for count in (2, 7, 40):
        g = torch.from_numpy(jackson(count))
        waves = torch.cos(torch.arange(count).double()[:, None] * angle) * g[:, None]
        assert (2 * waves.sum(0) - 1).min() > -1e-12
        assert g[0] == 1
    with pytest.raises(ValueError, match="give 2 moments and 1 probe at least"):
        density_of_states(catalogue.path(3), count=1)
