"""Measures of smoothing against their definitions, in both precisions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import analysis
from analysis import (
    MAD,
    ConsensusDistance,
    Dirichlet,
    EffectiveRank,
    Lyapunov,
    Mass,
    NumericalRank,
    Rayleigh,
)
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat, Wave, allen_cahn
from tests.strategies import batches, graphs

NORMS = ["comb", "rw", "sym", "augmented"]
KERNEL = {"sym": lambda d: d.sqrt(), "augmented": lambda d: (d + 1).sqrt()}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def per_graph(graph: Graph, numbers: Tensor) -> Tensor:
    labels = torch.zeros(len(numbers)).long() if graph.batch is None else graph.batch
    return torch.zeros(graph.num_graphs).double().index_add(0, labels, numbers)


@settings(max_examples=20)
@given(batches())
def test_the_survey_sums_over_neighbours_and_means_over_nodes(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    source, target = graph.edge_index
    apart = (x[source] - x[target]).square().sum(1) * graph.edge_weight
    sums = torch.zeros(graph.num_nodes).double().index_add(0, target, apart)
    nodes = per_graph(graph, torch.ones(graph.num_nodes).double())
    expected = per_graph(graph, sums) / nodes
    torch.testing.assert_close(Dirichlet(scale="survey")(x, graph), expected)
    torch.testing.assert_close(Dirichlet(scale="survey", root=True)(x, graph), expected.sqrt())
    torch.testing.assert_close(
        2 * Dirichlet(scale="half")(x, graph), Dirichlet()(x, graph), rtol=1e-12, atol=0
    )


@settings(max_examples=20)
@given(graphs(min_nodes=2, connected=True, loops=False))
def test_mad_is_the_mean_over_nodes_of_summed_cosine_distances(graph: Graph) -> None:
    x = normal(graph.num_nodes, 3)
    pairs = {tuple(sorted(pair)) for pair in graph.edge_index.T.tolist() if pair[0] != pair[1]}
    cosine = torch.nn.functional.cosine_similarity
    total = sum(2 * (1 - float(cosine(x[i], x[j], dim=0))) for i, j in pairs)
    assert MAD()(x, graph).item() == pytest.approx(total / graph.num_nodes, rel=1e-9, abs=1e-12)


def test_mad_keeps_its_digits_in_single_precision() -> None:
    graph, small = catalogue.grid(6, 6), 1e-5
    turned = small * normal(36, 1)
    x = torch.cat([torch.cos(turned), torch.sin(turned)], 1)
    source, target = graph.edge_index
    apart = turned[source] - turned[target]
    expected = (1 - torch.cos(apart)).sum() / 36
    assert MAD()(x.float(), graph).item() == pytest.approx(float(expected), rel=1e-2)
    plain = 1 - (x.float()[source] * x.float()[target]).sum(1)
    assert abs(float(plain.sum() / 36) / float(expected) - 1) > 0.1


@settings(max_examples=20)
@given(batches(), st.sampled_from(NORMS))
def test_distance_to_consensus_is_that_to_the_kernel(graph: Graph, norm: str) -> None:
    x = normal(graph.num_nodes, 2)
    degree = graph.degree
    root = KERNEL.get(norm, torch.ones_like)(degree).double()
    metric = torch.where(degree > 0, degree, 1.0) if norm == "rw" else torch.ones_like(degree)
    left = torch.zeros_like(x)
    labels, count = graph.components
    for part in range(count):
        at = labels == part
        basis = torch.where(degree[at] > 0, root[at], 1.0)[:, None]
        share = (metric[at, None] * basis * x[at]).sum(0) / (metric[at, None] * basis**2).sum()
        left[at] = x[at] - basis * share
    expected = per_graph(graph, metric * left.square().sum(1)).sqrt()
    torch.testing.assert_close(ConsensusDistance(norm)(x, graph), expected, rtol=1e-9, atol=1e-12)


def test_the_centred_quotient_of_heat_tends_to_the_spectral_gap() -> None:
    graph = catalogue.path(9)
    gap = 2 - 2 * math.cos(math.pi / 9)
    traj = solve(Heat(), normal(9, 2), 40.0, graph)
    assert Dirichlet(scale="centred")(traj.final, graph).item() == pytest.approx(gap, rel=1e-2)
    assert torch.isnan(Dirichlet(scale="centred")(torch.ones(9, 1).double(), graph)).all()


def test_known_ranks() -> None:
    graph = catalogue.ring(8)
    rank_one = normal(8, 1) @ normal(1, 5, seed=1)
    orthonormal = torch.linalg.qr(normal(8, 3)).Q
    consensus = torch.ones(8, 1).double() @ normal(1, 4)
    for measure in (EffectiveRank(), NumericalRank()):
        assert measure(rank_one, graph).item() == pytest.approx(1.0, abs=1e-6)
        assert measure(orthonormal, graph).item() == pytest.approx(3.0, abs=1e-9)
        assert measure(consensus, graph).item() == pytest.approx(1.0, abs=1e-6)
    one_mode = consensus + 1e-3 * rank_one[:, :4]
    assert EffectiveRank(centred=True)(one_mode, graph).item() == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=20)
@given(batches(max_graphs=3))
def test_ranks_are_those_of_singular_values_per_graph(graph: Graph) -> None:
    x = normal(graph.num_nodes, 3)
    labels = torch.zeros(len(x)).long() if graph.batch is None else graph.batch
    for g, (effective, numerical) in enumerate(
        zip(EffectiveRank()(x, graph), NumericalRank()(x, graph), strict=True)
    ):
        s = torch.linalg.svdvals(x[labels == g])
        p = s / s.sum()
        assert effective.item() == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-5)
        assert numerical.item() == pytest.approx(float(s.square().sum() / s[0] ** 2), rel=1e-9)


def test_scale_changes_neither_direction_nor_rank() -> None:
    graph, x = catalogue.grid(3, 4), normal(12, 3)
    for measure in (MAD(), EffectiveRank(), NumericalRank()):
        for factor in (1e-200, 1e200):
            torch.testing.assert_close(measure(factor * x, graph), measure(x, graph))
    distance = ConsensusDistance(relative=True)
    torch.testing.assert_close(distance(1e-100 * x, graph), distance(x, graph))


def test_invariants_are_kept_by_the_flows_that_keep_them() -> None:
    graph = catalogue.barbell(4, 1)
    x = normal(9, 2)
    watch = [Mass(), Mass(weight="degree", name="weighted")]
    comb = solve(Heat(), x, 3.0, graph, solver="dopri5", rtol=1e-9, watch=watch)
    walk = solve(Heat("rw"), x, 3.0, graph, solver="dopri5", rtol=1e-9, watch=watch)
    for kept, lost in ((comb["mass"], walk["mass"]), (walk["weighted"], comb["weighted"])):
        assert float((kept.y - kept.y[0]).abs().max()) < 1e-7
        assert float((lost.y - lost.y[0]).abs().max()) > 1e-2


def test_the_functional_of_a_wave_is_watched_with_its_velocity() -> None:
    graph, x = catalogue.ring(7), normal(7, 1)
    state = (x, normal(7, 1, seed=1))
    traj = solve(Wave(), state, 20.0, graph, solver="leapfrog", steps=2000, watch=Lyapunov(Wave()))
    total = traj["lyapunov"].y
    assert float((total / total[0] - 1).abs().max()) < 1e-3
    with pytest.raises(ValueError, match="no lyapunov"):
        Lyapunov(allen_cahn() + Heat())


def test_measures_are_differentiable_on_request() -> None:
    graph = catalogue.grid(3, 3)
    measures = [
        Dirichlet("sym", "survey"),
        Dirichlet("augmented", "centred"),
        Dirichlet(root=True),
        MAD(),
        EffectiveRank(),
        NumericalRank(),
    ]
    for measure in measures:
        x = normal(9, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda y, m=measure: m(y, graph), (x,)), measure


@pytest.mark.parametrize("measure", [Dirichlet(), Rayleigh(), ConsensusDistance(), MAD()])
def test_values_below_their_floor_are_left_out(measure: analysis.Measure) -> None:
    graph = catalogue.grid(5, 5)
    times = torch.linspace(0, 90, 91, dtype=torch.float64)
    x0 = 1 + 0.1 * normal(25, 2)
    traj = solve(Heat(), x0.float(), times, graph)
    series = traj.measure(measure)
    assert not bool(series.y[:4].isnan().any())
    assert bool(series.y[-1].isnan())
    assert float(series.floor[-1]) > 0


def test_watched_and_measured_floors_agree() -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 2).float()
    measures = [Dirichlet("sym"), ConsensusDistance(), MAD()]
    traj = solve(Heat(), x0, 2.0, graph, solver="tsit5", save="steps", watch=measures)
    for measure in measures:
        live, later = traj[measure.name], traj.measure(measure)
        torch.testing.assert_close(live.y, later.y, rtol=1e-6, atol=0)
        torch.testing.assert_close(live.floor, later.floor, rtol=1e-6, atol=0)


def test_names_and_settings_are_checked() -> None:
    for wrong in (
        lambda: Dirichlet(scale="surveys"),
        lambda: ConsensusDistance("combinatorial"),
        lambda: Mass(weight="degrees"),
    ):
        with pytest.raises(ValueError, match=r"survey|comb|degree"):
            wrong()
