"""Sums over the terms of a series, two terms at a time: the same to the bit as one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, fields, solve
from solvers import weights
from solvers.uniformisation import poisson
from solvers.weights import Table, rounds_alike


def states(count: int, size: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(count, size, 1, dtype=dtype, generator=generator)


def one_by_one(table: Table, terms: Tensor) -> Tensor:
    y = table.begin(terms[0])
    for k in range(1, len(terms)):
        table.add(k, terms[k], y)
    return y


def in_pairs(table: Table, terms: Tensor) -> Tensor:
    y = torch.full_like(terms[0], torch.nan)
    for k in range(1, len(terms), 2):
        table.take(k, terms[k - 1 : k + 1], y)
    if len(terms) % 2:
        table.add(len(terms) - 1, terms[-1], y)
    return y


@pytest.mark.parametrize("size", [1, 7, 64, 1_000, 12_345, 200_003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [12, 13])
def test_two_terms_are_added_as_one_after_the_other(
    size: int, dtype: torch.dtype, count: int
) -> None:
    terms = states(count, size, dtype)
    table = Table([np.cos(np.arange(count))], None, terms[0])
    assert torch.equal(in_pairs(table, terms), one_by_one(table, terms))


def test_one_of_two_terms_may_have_no_weight() -> None:
    terms = states(14, 30, torch.float64)
    column = np.array([0.0, 1.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 8.0, 9.0, 1.0, 0.0, 0.0, 7.0])
    table = Table([column], None, terms[0])
    assert torch.equal(in_pairs(table, terms), one_by_one(table, terms))


@pytest.mark.parametrize("alike", [False, True])
def test_pairs_are_one_pass_only_where_that_rounds_alike(
    alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, seen = states(12, 50, torch.float64), []
    monkeypatch.setattr(weights, "rounds_alike", lambda like: alike)
    table = Table([np.ones(12)], None, terms[0])
    monkeypatch.setattr(table, "add", lambda *a, _old=table.add: seen.append(a[0]) or _old(*a))
    torch.testing.assert_close(in_pairs(table, terms), terms.sum(0))
    assert seen == ([] if alike else list(range(1, 12)))


def test_a_batch_adds_as_its_graphs_do() -> None:
    terms, batch = states(11, 90, torch.float32), torch.arange(90) // 45
    columns = [np.sin(np.arange(11.0)), np.cos(np.arange(9.0))]
    together = in_pairs(Table(columns, batch, terms[0]), terms)
    for graph, column in enumerate(columns):
        own = terms[:, batch == graph].contiguous()
        alone = in_pairs(Table([column], None, own[0]), own[: len(column)])
        assert torch.equal(together[batch == graph], alone)


def test_terms_of_no_weight_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table([poisson(1e4, 1e-6)], None, torch.ones(1, 1))
    first = int(np.argmax(poisson(1e4, 1e-6) > 0))
    assert first > 9_000
    y, poison = torch.zeros(1, 1), torch.full((2, 1, 1), torch.nan)
    for k in range(3, first - 1, 2):
        table.take(k, poison, y)
    assert y.item() == 0.0


def test_solves_do_not_follow_the_precision_of_matrix_products() -> None:
    graph, precision = catalogue.grid(60, 50), torch.get_float32_matmul_precision()
    x = states(64, 3_000, torch.float32)[:, :, 0].t().contiguous()
    found = []
    try:
        for name in ("highest", "medium"):
            torch.set_float32_matmul_precision(name)
            found.append(solve(fields.Heat("sym"), x, 20.0, graph).final)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(*found)


def test_wide_batches_give_what_their_graphs_give() -> None:
    graphs = [catalogue.grid(30, 20), catalogue.ring(500)]
    x = states(9, 1_100, torch.float32)[:, :, 0].t().contiguous()
    together = solve(fields.Heat("rw"), x, 40.0, Graph.union(graphs)).final
    alone = [
        solve(fields.Heat("rw"), part.contiguous(), 40.0, graph).final
        for part, graph in zip(x.split([600, 500]), graphs, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_what_rounds_alike_is_asked_of_the_device() -> None:
    assert not rounds_alike(torch.ones(1, device="meta"))
    assert isinstance(rounds_alike(torch.ones(1)), bool)
