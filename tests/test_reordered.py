"""Exact solves with the nodes in another order: faster, and the same to the bit."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, fields, solve
from neuralpde.operators import Pattern, SparseOperator
from neuralpde.operators.reordered import Reordered, near_order
from solvers import columns
from solvers.chebyshev import Chebyshev
from solvers.columns import WIDTH
from solvers.exact import propagate
from solvers.moments import moments
from solvers.rows import Rows

TIMES = torch.tensor([0.0, 3.0, 40.0], dtype=torch.float64)


def shuffled(graph: Graph) -> Graph:
    """The graph with its nodes in no order."""
    place = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(0))
    return Graph(place[graph.edge_index], graph.num_nodes, edge_weight=graph.edge_weight)


def state(graph: Graph, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(graph.num_nodes, width, dtype=dtype, generator=generator)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small states are reordered too."""
    monkeypatch.setattr(columns, "LARGE", 0)


def spread(pattern: Pattern, place: Tensor) -> float:
    return float((place[pattern.row] - place[pattern.col.long()]).abs().double().mean())


def test_the_order_brings_neighbours_close() -> None:
    pattern = shuffled(catalogue.grid(30, 20)).adjacency("none").pattern
    order = near_order(pattern)
    assert order is not None
    assert order.sort().values.tolist() == list(range(600))
    place = torch.empty_like(order)
    place[order] = torch.arange(600)
    assert spread(pattern, torch.arange(600)) > 150
    assert spread(pattern, place) < 20


def test_an_order_that_is_good_stays() -> None:
    assert near_order(catalogue.grid(30, 20).adjacency("none").pattern) is None
    assert near_order(Pattern.identity(5)) is None
    empty, _ = Pattern.from_edges(torch.empty(0, dtype=int), torch.empty(0, dtype=int), 4)
    assert near_order(empty) is None


def test_reordered_products_are_the_products_to_the_bit() -> None:
    graph = shuffled(catalogue.grid(40, 25))
    A, x, y = graph.laplacian("rw"), state(graph, 5), state(graph, 5).flip(0)
    moved = A.reordered
    assert moved is not None
    out = moved.enter(y, torch.empty_like(y))
    moved.addmm_(out, moved.enter(x, torch.empty_like(x)), alpha=2.0, beta=-1.0)
    back = moved.leave(out, torch.empty_like(x))
    assert torch.equal(back, A.addmm_(y.clone(), x, alpha=2.0, beta=-1.0))
    strided = torch.empty(len(x), 9)[:, 2:7]
    assert torch.equal(moved.leave(out, strided), back)


@pytest.mark.parametrize("width", [3, WIDTH + 3])
@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reordered_solves_are_the_solves_to_the_bit(
    norm: str, width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = shuffled(catalogue.grid(30, 20))
    x, before = state(graph, width, dtype), state(graph, width, dtype)
    field = fields.Heat(norm)
    plain = solve(field, x, TIMES, graph)
    seen = []
    monkeypatch.setattr(columns, "LARGE", 0)
    monkeypatch.setattr(
        Reordered, "addmm_", lambda *a, _old=Reordered.addmm_, **k: seen.append(1) or _old(*a, **k)
    )
    moved = solve(field, x, TIMES, graph)
    assert len(seen) > 10
    assert torch.equal(x, before)
    assert torch.equal(moved.x, plain.x)
    assert moved.stats.operator_products == plain.stats.operator_products
    count = len(seen)
    energies = [run.energy.y.numpy() for run in (moved, plain)]
    assert len(seen) > count
    np.testing.assert_allclose(*energies, rtol=1e-4 if dtype is torch.float32 else 1e-10)


def test_reordered_energies_are_those_of_the_eigenvectors(everywhere: None) -> None:
    graph = shuffled(catalogue.grid(12, 9)).to(dtype=torch.float64)
    x = state(graph, 4, torch.float64)
    values, vectors = torch.linalg.eigh(graph.laplacian("sym").to_dense())
    found = solve(fields.Heat("sym"), x, 30.0, graph).energy
    parts = (vectors.T @ x).square().sum(1)
    wanted = (values * torch.exp(-2 * found.t[:, None] * values)) @ parts
    torch.testing.assert_close(found.y, wanted, rtol=1e-8, atol=1e-12)


def test_moments_in_a_metric_are_reordered(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = shuffled(catalogue.grid(20, 10)).to(dtype=torch.float64)
    L, x = graph.laplacian("rw"), state(graph, 3, torch.float64)
    plain = moments(L, x, 40, metric=L.metric)
    monkeypatch.setattr(columns, "LARGE", 0)
    np.testing.assert_allclose(moments(L, x, 40, metric=L.metric), plain, rtol=1e-10, atol=1e-9)


def test_batches_and_directed_graphs_stay_in_their_order(everywhere: None) -> None:
    one = shuffled(catalogue.grid(20, 10))
    assert one.laplacian("sym").reordered is not None
    assert Graph.union([one, one]).laplacian("sym").reordered is None
    ring = torch.arange(9)
    arcs = torch.stack([torch.cat([ring, ring.roll(4)[:1]]), torch.cat([ring.roll(4), ring[:1]])])
    directed = Graph(arcs, 9)
    assert directed.laplacian("rw").reordered is None


@pytest.mark.parametrize(("width", "t"), [(2, 40.0), (WIDTH, 0.1)])
def test_no_order_is_looked_for_where_it_would_not_pay(width: int, t: float) -> None:
    graph = shuffled(catalogue.grid(50, 50))
    solve(fields.Heat("sym"), state(graph, width), t, graph)
    A = graph.laplacian("sym").pattern.with_diagonal()[0]
    assert "near_order" not in A.__dict__
    solve(fields.Heat("sym"), state(graph, WIDTH), 40.0, graph)
    assert "near_order" in A.__dict__


@pytest.mark.parametrize("norm", ["rw", "sym"])
def test_norms_do_not_depend_on_the_order(norm: str) -> None:
    A = shuffled(catalogue.grid(9, 8)).laplacian(norm)
    series, moved, x = Chebyshev(A, Rows()), A.reordered, state(catalogue.grid(9, 8), 5)
    x *= torch.arange(72).unsqueeze(1)
    assert moved is not None
    there = moved.enter(x, torch.empty_like(x))
    np.testing.assert_allclose(series.norms(there, moved), series.norms(x), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_a_wrong_enclosure_is_still_found(size: float, everywhere: None) -> None:
    graph = shuffled(catalogue.grid(20, 10))
    L = graph.laplacian("comb")
    A = SparseOperator(L.pattern, -L.values, symmetric=True, enclosure=(-1.0, 0.0))
    assert A.reordered is not None
    with pytest.raises(ArithmeticError, match="correct its enclosure"):
        propagate(A, size * state(graph, 2), torch.tensor([0.0, 200.0]), rtol=1e-4)


def test_gradients_do_not_notice(everywhere: None) -> None:
    graph = shuffled(catalogue.grid(20, 10))
    x = state(graph, 3).requires_grad_()
    recorded = solve(fields.Heat("sym"), x, 30.0, graph).final
    assert torch.equal(solve(fields.Heat("sym"), x.detach(), 30.0, graph).final, recorded.detach())
    recorded.square().sum().backward()
    assert x.grad is not None
    wanted = solve(fields.Heat("sym"), 2 * recorded.detach(), 30.0, graph).final
    torch.testing.assert_close(x.grad, wanted, rtol=1e-3, atol=1e-5)
