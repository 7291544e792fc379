"""Rewiring: what it adds and removes, that it helps, and that nothing else changes."""

import math
import random

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import GDC, Compose, ToUndirected
from torch_geometric.utils import is_undirected

from analysis import balanced_forman, effective_resistance, spectral_gap
from analysis.local_curvature import LocalCurvature
from analysis.rewiring import SDRF, Diffused, FoSR
from neuralpde import Graph, catalogue


def drawn(seed: int = 0) -> Graph:
    return catalogue.sbm(
        [12, 12], [[0.4, 0.03], [0.03, 0.4]], generator=torch.Generator().manual_seed(seed)
    )


def pairs(data: Data) -> set[tuple[int, int]]:
    return {tuple(sorted(pair)) for pair in data.edge_index.T.tolist()}


def test_local_curvature_stays_that_of_the_whole_graph() -> None:
    local, dice = LocalCurvature(drawn()), random.Random(0)
    for _ in range(30):
        i, j = sorted(dice.sample(range(24), 2))
        if j in local.near[i]:
            local.remove(i, j)
        else:
            local.add(i, j)
    edges = torch.tensor([[i, j] for i, near in enumerate(local.near) for j in near]).T
    graph = Graph(edges, 24)
    whole = balanced_forman(graph).tolist()
    found = {
        tuple(pair): value for pair, value in zip(graph.edge_index.T.tolist(), whole, strict=True)
    }
    assert set(local.of) == {pair for pair in found if pair[0] < pair[1]}
    for pair, value in local.of.items():
        assert value == pytest.approx(found[pair], abs=1e-12)


def test_gains_are_differences_of_curvature() -> None:
    graph = drawn(1)
    local = LocalCurvature(graph)
    i, j = local.least()
    for (k, m), gain in list(local.gains(i, j).items())[:12]:
        ends = torch.tensor([[k, m], [m, k]])
        more = Graph(torch.cat([graph.edge_index, ends], 1), graph.num_nodes)
        pair = torch.tensor([[i], [j]])
        after, before = balanced_forman(more, pair), balanced_forman(graph, pair)
        assert gain == pytest.approx(float(after - before), abs=1e-12)


def test_ricci_flow_supports_the_bottleneck() -> None:
    graph = catalogue.barbell(6)
    new = SDRF(10, tau=math.inf)(graph.to_pyg())
    assert min(balanced_forman(new)) > min(balanced_forman(graph)) + 0.5
    assert spectral_gap(new) > 2 * spectral_gap(graph)
    bridge = torch.tensor([[5], [6]])
    resistances = [effective_resistance(g, bridge).value for g in (new, graph)]
    assert resistances[0] < 0.5 * resistances[1]


def test_first_order_rewiring_opens_the_gap_edge_by_edge() -> None:
    graph = catalogue.barbell(6, 2)
    gaps = [spectral_gap(FoSR(k)(graph.to_pyg())) for k in (1, 3, 6, 12)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 5 * spectral_gap(graph)


def test_the_pair_that_is_added_is_the_most_opposed_one() -> None:
    graph = catalogue.path(8)
    new = FoSR(1, iterations=2000)(graph.to_pyg())
    root = (1 + graph.degree.double()).sqrt()
    A = torch.eye(8).double()
    A[graph.edge_index[0], graph.edge_index[1]] = 1.0
    x = torch.linalg.eigh(A / torch.outer(root, root))[1][:, -2]
    change = torch.outer(x / root, x / root)
    change[A > 0] = math.inf
    best = divmod(int(change.argmin()), 8)
    assert pairs(new) - pairs(graph.to_pyg()) == {tuple(sorted(best))}


def old_edges_with_their_attributes(data: Data, new: Data) -> torch.Tensor:
    """Which edges are no new ones; each has the attributes that it had."""
    old = new.edge_type == 0
    attributes = {
        tuple(e): a
        for e, a in zip(data.edge_index.T.tolist(), data.edge_attr.tolist(), strict=True)
    }
    for e, a in zip(new.edge_index[:, old].T.tolist(), new.edge_attr[old].tolist(), strict=True):
        assert attributes[tuple(e)] == a
    return old


@pytest.mark.parametrize("transform", [SDRF(5, 2.0, removal_bound=0.5), FoSR(5)])
def test_attributes_survive_and_the_log_tells_what_happened(transform: SDRF | FoSR) -> None:
    graph = drawn(2)
    edges = graph.edge_index.shape[1]
    data = Data(
        torch.randn(24, 3),
        graph.edge_index,
        edge_attr=torch.randn(edges, 2),
        y=torch.zeros(24),
        edge_weight=torch.full((edges,), 2.0),
    )
    before = data.clone()
    new = transform(data)
    assert torch.equal(data.edge_index, before.edge_index)
    assert new.x is data.x
    assert new.edge_attr.shape == (new.num_edges, 2)
    old = old_edges_with_their_attributes(data, new)
    assert bool((new.edge_weight[~old] == 1).all())
    here, log = pairs(data), new.rewiring
    for what, i, j, _ in log:
        here = here | {(i, j)} if what == "add" else here - {(i, j)}
    assert here == pairs(new)
    assert is_undirected(new.edge_index)


def test_one_seed_draws_one_graph() -> None:
    data = drawn(3).to_pyg()
    runs = [
        SDRF(6, 1.0, generator=torch.Generator().manual_seed(seed))(data).rewiring
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_high_inverse_temperatures_do_not_overflow() -> None:
    # The largest that was published; without a shift its exponentials are infinite.
    new = SDRF(3, tau=436.0, generator=torch.Generator().manual_seed(0))(drawn(4).to_pyg())
    assert len(new.rewiring) == 3


def test_isolated_nodes_and_complete_graphs_end_in_peace() -> None:
    lonely = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=4)
    assert SDRF(2)(lonely).num_nodes == 4
    assert FoSR(1)(lonely).num_nodes == 4
    full = catalogue.complete(4).to_pyg()
    assert SDRF(2)(full).rewiring == []
    assert FoSR(2)(full).rewiring == []


def test_directed_graphs_are_refused_with_the_transform_that_mends_them() -> None:
    arrow = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), num_nodes=3)
    with (
        pytest.warns(UserWarning, match="listed both ways"),
        pytest.raises(ValueError, match="ToUndirected"),
    ):
        SDRF(1)(arrow)
    mended = Compose([ToUndirected(), FoSR(1)])(arrow)
    assert mended.rewiring == []


def propagation(A: torch.Tensor) -> torch.Tensor:
    A = A + torch.eye(len(A)).double()
    root = A.sum(1).sqrt()
    return A / torch.outer(root, root)


@pytest.mark.parametrize("time", [None, 2.0])
def test_diffusion_has_the_weights_of_its_kernel(time: float | None) -> None:
    base = drawn(5)
    weight = 1 + (base.edge_index.sum(0) % 3).double()
    graph = Graph(base.edge_index, 24, weight)
    A = torch.zeros(24, 24).double()
    A[base.edge_index[1], base.edge_index[0]] = weight
    T, eye = propagation(A), torch.eye(24).double()
    S = 0.2 * torch.linalg.inv(eye - 0.8 * T)
    if time is not None:
        S = torch.linalg.matrix_exp(time * (T - eye))
    data = graph.to_pyg()
    data.edge_weight = data.edge_weight.double()
    whole = Diffused(0.2, time=time, degree=24)(data)
    root = S.sum(1).sqrt()
    found = torch.zeros(24, 24).double()
    found[whole.edge_index[1], whole.edge_index[0]] = whole.edge_weight
    torch.testing.assert_close(found, S / torch.outer(root, root), rtol=1e-9, atol=1e-12)
    # The largest ones, as many as the average degree says.
    some = Diffused(0.2, time=time, degree=5)(data)
    assert some.num_edges == pytest.approx(5 * 24, abs=4)
    kept = torch.zeros(24, 24, dtype=torch.bool)
    kept[some.edge_index[1], some.edge_index[0]] = True
    assert S[kept].min() >= S[~kept].max() - 1e-12
    assert some.rewiring[0][3] == pytest.approx(float(S[kept].min()), rel=1e-9)
    assert is_undirected(some.edge_index, some.edge_weight)
    assert not Graph.of(some).directed


def test_diffusion_keeps_attributes_and_counts_what_it_did() -> None:
    graph = catalogue.barbell(5, 2)
    edges = graph.edge_index.shape[1]
    data = Data(
        torch.randn(12, 3), graph.edge_index, edge_attr=torch.randn(edges, 2), y=torch.arange(12)
    )
    new = Diffused(time=4.0, degree=8)(data)
    assert new.x is data.x
    assert new.edge_attr.shape == (new.num_edges, 2)
    old = old_edges_with_their_attributes(data, new)
    assert not new.edge_attr[~old].any()
    apart = {pair for pair in pairs(new) if pair[0] != pair[1]}
    what, added, removed, _ = new.rewiring[0]
    assert what == "diffuse"
    assert (added, removed) == (len(apart - pairs(data)), len(pairs(data) - apart))
    assert spectral_gap(new) > 2 * spectral_gap(graph)
    assert data.num_edges == edges


def test_torch_geometrics_own_transform_loses_weights_on_the_way() -> None:
    # Why there is a wrapper: GDC neither reads nor writes edge_weight.
    graph = catalogue.barbell(4)
    data = graph.to_pyg()
    theirs = GDC(normalization_out="sym")(data.clone())
    assert "edge_weight" not in theirs
    assert bool((Graph.of(theirs).edge_weight == 1).all())
    data.edge_weight = torch.rand(data.num_edges)
    again = GDC(normalization_out="sym")(data)
    torch.testing.assert_close(again.edge_attr, theirs.edge_attr)


def test_diffusion_of_nothing_is_nothing() -> None:
    lonely = Data(edge_index=torch.zeros(2, 0).long(), num_nodes=3)
    new = Diffused(degree=2)(lonely)
    assert new.num_nodes == 3
    assert new.rewiring[0][1:3] == (0, 0)
    for wrong in ({"alpha": 1.0}, {"time": 0.0}, {"degree": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Diffused(**wrong)


def test_ties_at_the_threshold_keep_both_directions() -> None:
    data = catalogue.grid(5, 5).to_pyg()
    theirs = GDC(
        normalization_out=None, sparsification_kwargs={"method": "threshold", "avg_degree": 6}
    )(Data(edge_index=data.edge_index, edge_attr=torch.ones(80).double(), num_nodes=25))
    assert not is_undirected(theirs.edge_index)
    assert is_undirected(Diffused(degree=6)(data).edge_index)
