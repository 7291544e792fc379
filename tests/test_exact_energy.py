"""What an exact solve says of its energy: at saved times, of the first state, of any size."""

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.energies import DirichletForm
from neuralpde.fields import Heat, Source


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_saved_states_know_their_energy_better_than_moments() -> None:
    graph, x0 = catalogue.grid(15, 20), normal(300, 64)
    run = solve(Heat("sym"), x0, 4.0, graph, rtol=1e-6)
    floor = run.energy.floor
    assert floor[-1] < 1e-3 * floor[-2]
    own = DirichletForm.of(graph.like(x0), "sym")(run.final)
    torch.testing.assert_close(run.energy.y[-1:], own, rtol=1e-12, atol=0)
    assert abs(run.energy.y[-2] - run.energy.y[-1]) < 0.1 * run.energy.y[-1]


def test_the_first_state_carries_no_error_of_the_solve() -> None:
    run = solve(Heat("sym") + Source(normal(12, 2)), normal(12, 2), 1.0, catalogue.ring(12))
    assert run.energy.floor[0] < 1e-6 * run.energy.floor[1]


def test_norms_of_wide_states_count_the_kernel_of_every_piece() -> None:
    x0 = 3.0 + normal(12, 150)
    norm = solve(Heat("sym"), x0, 1.0, catalogue.ring(12))["norm"]
    assert norm.y[0].item() == pytest.approx(float(x0.norm()), rel=1e-12)


def test_exact_solves_know_saved_times_to_the_bit_whenever_they_start() -> None:
    x0, heat = normal(9, 2), Heat("sym")
    times = [0.3, 0.7, 1.1, 2.9]
    energy = solve(heat, x0, times, catalogue.ring(9)).energy
    assert set(times) <= set(energy.t.tolist())
    shifted = solve(heat, x0, [t - 0.3 for t in times], catalogue.ring(9)).energy
    torch.testing.assert_close(energy.y[[0, -1]], shifted.y[[0, -1]])
    pair = Graph.union([catalogue.ring(9), catalogue.path(4)])
    own = torch.tensor([[0.3, 0.1], [1.1, 0.7], [2.9, 5.7]], dtype=torch.float64)
    found = solve(heat, normal(13, 2), own, pair).energy
    for graph in range(2):
        assert set(own[:, graph].tolist()) <= set(found.t[:, graph].tolist())


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
