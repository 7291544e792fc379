"""Sketches without bias, cadence that changes nothing, and steps that wait for no device."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from analysis import (
    MAD,
    ConsensusDistance,
    DirectedDirichlet,
    Dirichlet,
    EffectiveRank,
    Every,
    Mass,
    Measure,
    Norm,
    NumericalRank,
    Rayleigh,
    SampledDirichlet,
    SketchedDirichlet,
)
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat, Wave, allen_cahn

ASKING = ("_local_scalar_dense", "nonzero", "bincount", "unique", "masked_select", "equal")
"""Operations after which a program on the host must wait for the device."""


class Waits(TorchDispatchMode):
    """Counts the operations that would make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.strip("_")
        if any(name.startswith(word.strip("_")) for word in ASKING):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def two() -> Graph:
    return Graph.union([catalogue.grid(4, 4), catalogue.star(9)])


@pytest.mark.parametrize("norm", ["comb", "sym", "augmented"])
def test_channel_sketches_have_no_bias_and_know_their_error(norm: str) -> None:
    graph, x = two(), normal(25, 20)
    exact = Dirichlet(norm)(x, graph)
    draws = 1500
    readings = [SketchedDirichlet(norm, 4, seed).reading(x, graph) for seed in range(draws)]
    values = torch.stack([value for value, _ in readings])
    errors = torch.stack([error for _, error in readings])
    spread = values.std(0)
    assert bool(((values.mean(0) - exact).abs() < 4 * spread / draws**0.5).all())
    # The mean square of the standard errors is the variance.
    torch.testing.assert_close(errors.square().mean(0).sqrt(), spread, rtol=0.1, atol=0)
    # Var = 2 (|M|^2 - |diag M|^2) / k, M = x^T L x.
    L = graph.laplacian(norm, dtype=torch.float64).to_dense()
    M = x[:16].T @ L[:16, :16] @ x[:16]
    variance = 2 * (M.square().sum() - M.diagonal().square().sum()) / 4
    assert float(spread[0]) == pytest.approx(float(variance.sqrt()), rel=0.1)


def test_few_channels_are_measured_as_they_are() -> None:
    graph, x = two(), normal(25, 3)
    torch.testing.assert_close(SketchedDirichlet(columns=4)(x, graph), Dirichlet()(x, graph))
    waves = torch.complex(normal(16, 2), normal(16, 2, seed=1))
    grid = catalogue.grid(4, 4)
    torch.testing.assert_close(SketchedDirichlet()(waves, grid), Dirichlet()(waves, grid))


def test_complex_states_are_sketched_too() -> None:
    graph = catalogue.grid(4, 4)
    x = torch.complex(normal(16, 12), normal(16, 12, seed=1))
    values = torch.stack([SketchedDirichlet(seed=seed)(x, graph) for seed in range(800)])
    expected = float(Dirichlet()(x, graph))
    assert float(values.mean()) == pytest.approx(expected, abs=4 * float(values.std()) / 800**0.5)


@pytest.mark.parametrize(("batched", "arcs"), [(False, 3), (True, 50)])
def test_samples_of_arcs_have_no_bias_and_know_their_error(batched: bool, arcs: int) -> None:
    base = catalogue.grid(5, 5)
    weights = 0.5 + (base.edge_index.sum(0) % 3).double()
    graph = Graph(base.edge_index, 25, weights)
    graph = Graph.union([graph, catalogue.star(9)]) if batched else graph
    x = normal(graph.num_nodes, 3)
    exact = Dirichlet()(x, graph)
    draws = 1500
    readings = [SampledDirichlet(arcs, seed).reading(x, graph) for seed in range(draws)]
    values = torch.stack([value for value, _ in readings])
    errors = torch.stack([error for _, error in readings])
    assert bool(((values.mean(0) - exact).abs() < 4 * values.std(0) / draws**0.5).all())
    torch.testing.assert_close(errors.square().mean(0).sqrt(), values.std(0), rtol=0.1, atol=0)


def test_estimates_survive_large_numbers_in_single_precision() -> None:
    graph, x = catalogue.grid(4, 4), 1e25 * normal(16, 9)
    for measure in (SketchedDirichlet(), SampledDirichlet(50)):
        torch.testing.assert_close(
            measure(x.float(), graph) / measure(x, graph), torch.ones(1).double(), rtol=1e-5, atol=0
        )
    assert SampledDirichlet(9)(normal(3, 1), Graph(torch.zeros(2, 0).long(), 3)).item() == 0.0


def test_curves_are_as_smooth_as_the_energy() -> None:
    graph, x0 = catalogue.grid(6, 6), normal(36, 24)
    times = torch.linspace(0, 3, 31, dtype=torch.float64)
    traj = solve(Heat(), x0, times, graph)
    for measure in (SketchedDirichlet(columns=12), SampledDirichlet(500)):
        series = traj.measure(measure)
        assert bool((series.y.diff() < 0).all())
        off = (series.y - traj.measure(Dirichlet()).y).abs()
        assert bool((off < 4 * series.floor).all())


def test_a_measure_is_read_every_so_many_steps_and_at_the_end() -> None:
    graph, x0 = catalogue.grid(3, 3), normal(9, 2)
    told = {"watch": [Dirichlet(), Every(Norm(), 4)], "solver": "rk4", "steps": 10}
    traj = solve(Heat(), x0, 1.0, graph, **told)
    whole = solve(Heat(), x0, 1.0, graph, watch=Norm(), solver="rk4", steps=10)["frobenius"]
    assert len(traj["dirichlet"].t) == 11
    seldom = traj["frobenius"]
    torch.testing.assert_close(seldom.t, torch.tensor([0.0, 0.4, 0.8, 1.0]).double())
    assert torch.equal(seldom.y, whole.y[[0, 4, 8, 10]])
    assert seldom.convention == Norm().convention
    exactly = solve(Heat(), x0, 1.0, graph, watch=Every(Norm(), 5), solver="rk4", steps=10)
    assert len(exactly["frobenius"].t) == 3


def test_graphs_of_a_batch_have_their_own_last_reading() -> None:
    batch, x0 = two(), normal(25, 1)
    watch = [Every(Norm(), 7), Every(lambda shot: shot.t, 7)]
    traj = solve(allen_cahn(), 3 * x0, 2.0, batch, watch=watch, solver="tsit5", rtol=1e-6)
    steps = solve(allen_cahn(), 3 * x0, 2.0, batch, watch=Norm(), solver="tsit5", rtol=1e-6)
    seldom, often = traj["frobenius"], steps["frobenius"]
    for g in range(2):
        few = torch.stack([seldom.t[:, g], seldom.y[:, g]], 1)
        many = torch.stack([often.t[:, g], often.y[:, g]], 1)
        few, many = (part[part[:, 0].isfinite()] for part in (few, many))
        assert torch.equal(few[-1], many[-1])
        assert 2 < len(few) < len(many) / 3
        known = {tuple(row) for row in many.tolist()}
        assert all(tuple(row) in known for row in few.tolist())


def test_cadence_changes_neither_the_solution_nor_its_cost() -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 2)
    state = (x0, 0 * x0)
    plain = solve(Wave(), state, 3.0, graph, solver="tsit5")
    seen = solve(Wave(), state, 3.0, graph, solver="tsit5", watch=Every(Dirichlet(), 3))
    assert torch.equal(plain.final[0], seen.final[0])
    assert plain.stats.nfe == seen.stats.nfe
    exact = solve(Heat(), x0, [0.0, 1.0, 2.0, 3.0], graph, watch=Every(Norm(), 2))
    assert exact["frobenius"].t.tolist() == [0.0, 2.0, 3.0]
    assert torch.equal(exact.measure(Every(Norm(), 2)).y, exact.measure(Norm()).y)
    with pytest.raises(ValueError, match="steps is 0"):
        Every(Norm(), 0)


MEASURES = [
    Dirichlet(), Dirichlet("sym", "survey", root=True), Dirichlet("augmented", "centred"),
    Dirichlet("rw", "relative"), Norm(), Rayleigh(), MAD(), ConsensusDistance(),
    ConsensusDistance("sym", relative=True), EffectiveRank(), NumericalRank(centred=True), Mass(),
    DirectedDirichlet(), SketchedDirichlet(), SampledDirichlet(20), Every(Dirichlet(), 3),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("graph", [catalogue.grid(4, 4), two()], ids=["one", "batch"])
@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_no_reading_waits_for_the_device(
    measure: Measure, graph: Graph, dtype: torch.dtype
) -> None:
    x = normal(graph.num_nodes, 6).to(dtype)
    # What is computed once for a graph may wait.
    measure.reading(x, graph)
    with Waits() as waits, torch.no_grad():
        measure.reading(x, graph)
    assert waits.seen == []


def test_what_tells_no_error_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="columns is 1"):
        SketchedDirichlet(columns=1)
    with pytest.raises(ValueError, match="arcs is 1"):
        SampledDirichlet(1)
    with pytest.raises(ValueError, match="unknown norm 'som'"):
        SketchedDirichlet("som")


@pytest.mark.parametrize("factor", [1e25, 1e-25])
def test_squares_that_single_precision_does_not_hold_are_measured(factor: float) -> None:
    graph, x = catalogue.grid(4, 4), factor * normal(16, 3).float()
    for measure in (Dirichlet(), ConsensusDistance(), Norm()):
        ratio = measure(x, graph) / measure(x.double(), graph)
        torch.testing.assert_close(ratio, torch.ones(1).double(), rtol=1e-5, atol=0)
