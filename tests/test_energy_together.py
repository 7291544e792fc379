"""Energies of small states, which wait and are measured many at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, SolveInterrupted, catalogue, solve
from neuralpde.energies import DirichletForm
from neuralpde.fields import Heat, allen_cahn
from neuralpde.tracking import MOST, TOGETHER, EnergyTrack, Tolerance

F64 = torch.float64
BATCH = Graph.union([catalogue.ring(5), catalogue.star(4), catalogue.path(3)])
MANY = Graph.union([catalogue.grid(3, 3), Graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=2)])


def of_graphs(graph: Graph, rows: Tensor) -> Tensor:
    """Sums over the rows of each graph."""
    groups = torch.zeros(len(rows), dtype=torch.int64) if graph.batch is None else graph.batch
    return torch.zeros(graph.num_graphs, dtype=F64).index_add_(0, groups, rows)


def dense(graph: Graph, norm: str, x: Tensor) -> Tensor:
    """tr(x^H L x) of each graph from the dense matrix of L."""
    flat = (torch.view_as_real(x) if x.is_complex() else x).reshape(len(x), -1)
    L = graph.like(flat).laplacian("comb" if norm == "rw" else norm).to_dense()
    return of_graphs(graph, (flat * (L @ flat)).sum(1))


@pytest.mark.parametrize("norm", ["comb", "rw", "sym", "augmented"])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("graph", [BATCH, MANY, catalogue.star(9)], ids=["batch", "parts", "one"])
def test_looks_at_several_states_give_the_energy_of_each(
    norm: str, shape: tuple[int, ...], dtype: torch.dtype, graph: Graph
) -> None:
    states = [torch.randn(graph.num_nodes, *shape, dtype=dtype) for _ in range(5)]
    form = DirichletForm(graph.like(states[0].real), norm)
    found = form.looks(states, [])
    want = torch.stack([dense(graph, norm, x) for x in states])
    torch.testing.assert_close(found.energy, want, rtol=1e-12, atol=1e-12)
    mass = torch.ones(graph.num_nodes, dtype=F64) if form.mass is None else form.mass
    for square, x in zip(found.square, states, strict=True):
        rows = x.abs().square().reshape(len(x), -1).sum(1) * mass
        torch.testing.assert_close(square, of_graphs(graph, rows), rtol=1e-12, atol=1e-12)


def test_energies_near_consensus_stay_right_in_single_precision() -> None:
    graph = catalogue.grid(6, 6)
    small = [1e-3 * torch.randn(36, 2, dtype=F64) for _ in range(4)]
    states = [(1.0 + part).float() for part in small]
    found = DirichletForm(graph.like(states[0]), "comb").looks(states, []).energy
    want = torch.stack([dense(graph, "comb", x.double()) for x in states])
    torch.testing.assert_close(found, want, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("channels", "steps"), [(1, 2 * MOST + 3), (TOGETHER // 40, 11), (TOGETHER // 9, 3)]
)
def test_every_step_has_its_energy_however_many_wait(channels: int, steps: int) -> None:
    graph, x0 = catalogue.ring(10), torch.randn(10, channels, dtype=F64)
    traj = solve(allen_cahn(), x0, 0.2, graph, solver="heun", steps=steps, save="steps")
    assert len(traj.energy.t) == steps + 1
    torch.testing.assert_close(traj.energy.t, traj.t, rtol=0, atol=0)
    want = torch.cat([dense(graph, "comb", x) for x in traj.x])
    torch.testing.assert_close(traj.energy.y, want, rtol=1e-10, atol=0)


def test_few_states_wait_and_large_ones_do_not() -> None:
    form = DirichletForm(catalogue.ring(10).like(torch.ones(1, dtype=F64)), "comb")
    for channels, longest in ((1, MOST), (TOGETHER // 100, 10), (TOGETHER // 10, 1)):
        track, waited = EnergyTrack(form), 0
        state = (torch.randn(10, channels, dtype=F64),)
        for step in range(MOST + 5):
            track(np.array([float(step)]), state, None, np.array([True]))
            waited = max(waited, len(track._states))
        assert waited == longest - 1
        found = track.series(Tolerance(), 2e-16, torch.tensor([10.0 * channels]))
        assert len(found["energy"].y) == MOST + 5


def test_slopes_that_come_and_go_give_one_curve() -> None:
    graph = catalogue.ring(8)
    x0 = torch.randn(8, 2, dtype=F64)
    form = DirichletForm(graph.like(x0), "rw")
    L = graph.like(x0).laplacian("rw").to_dense()
    track = EnergyTrack(form, torch.tensor([0.5], dtype=F64))
    states = [torch.randn(8, 2, dtype=F64) for _ in range(9)]
    for step, x in enumerate(states):
        slope = None if step % 3 == 1 else (-0.5 * L @ x,)
        track(np.array([float(step)]), (x,), slope, np.array([True]))
    assert track.products == 3
    found = track.series(Tolerance(), 2e-16, torch.tensor([16.0]))["energy"]
    want = torch.cat([dense(graph, "rw", x) for x in states])
    torch.testing.assert_close(found.y, want, rtol=1e-12, atol=1e-12)


def test_what_was_measured_before_an_interrupt_is_kept() -> None:
    graph, calls = catalogue.ring(6), SimpleNamespace(left=30)

    def field(t: Tensor, x: Tensor) -> Tensor:
        calls.left -= 1
        if calls.left == 0:
            raise KeyboardInterrupt
        return torch.tanh(x.roll(1, 0)) - x

    x0 = torch.randn(6, 2, dtype=F64)
    with pytest.raises(SolveInterrupted) as caught:
        solve(field, x0, 50.0, graph, solver="dopri5")
    traj = caught.value.trajectory
    assert len(traj.energy.y) == traj.stats.accepted + 1 > 2
    assert float(traj.energy.y[-1]) == pytest.approx(float(dense(graph, "comb", traj.final)))


def test_heat_in_a_batch_with_slopes_is_measured_as_by_products() -> None:
    x0 = torch.randn(BATCH.num_nodes, 2, dtype=F64)
    free = solve(Heat("rw"), x0, 1.0, BATCH, solver="dopri5")
    paid = solve(lambda t, x: -(BATCH.like(x).laplacian("rw") @ x), x0, 1.0, BATCH, solver="dopri5")
    first = dense(BATCH, "rw", x0)
    torch.testing.assert_close(free.energy.y[0], first, rtol=1e-12, atol=0)
    torch.testing.assert_close(paid.energy.y[0], first, rtol=1e-12, atol=0)
