"""Energies of states so large or small that their squares leave single precision."""

import pytest
import torch

from neuralpde import catalogue, solve
from neuralpde.fields import Heat, Source


@pytest.mark.parametrize("norm", ["sym", "rw"])
@pytest.mark.parametrize("size", [2.0**-84, 2.0**70])
def test_states_whose_squares_leave_single_precision_have_their_energy(
    size: float, norm: str
) -> None:
    graph, heat = catalogue.grid(12, 9), Heat(norm)
    x = torch.randn(108, 200, generator=torch.Generator().manual_seed(0))
    wanted = solve(heat, x, 2.0, graph)
    found = solve(heat, size * x, 2.0, graph)
    for name in ("energy", "norm"):
        power = 2 if name == "energy" else 1
        torch.testing.assert_close(found[name].y / size**power, wanted[name].y, rtol=1e-6, atol=0)
    assert (found.energy.floor > 0).all()
    torch.testing.assert_close(found.energy.floor / size**2, wanted.energy.floor)


def test_saved_states_that_have_grown_have_their_energy() -> None:
    graph = catalogue.grid(4, 5)
    force = 2.0**70 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    x0 = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    single = solve(Heat("sym") + Source(force), x0, 2.0, graph).energy
    double = solve(Heat("sym") + Source(force.double()), x0.double(), 2.0, graph).energy
    torch.testing.assert_close(single.y, double.y, rtol=1e-4, atol=0)
    assert single.y[-1] > 1e40
