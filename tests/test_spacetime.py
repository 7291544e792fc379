"""Sensitivity in space and time, its split, and its bound."""

import math

import pytest
import torch
from torch import Tensor

from analysis import (
    sensitivity,
    sensitivity_bound,
    space_time_sensitivity,
)
from analysis.spacetime import delay_line, split_flow, split_layers
from analysis.tangents import Unforced
from neuralpde import catalogue, solve
from neuralpde.fields import AllenCahn, Heat, Layers, Reaction
from neuralpde.operators import Pattern, SparseOperator


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_heat_forgets_when_it_was_disturbed() -> None:
    graph, t, starts = catalogue.path(4), [0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 2.0]
    found = space_time_sensitivity(Heat(), normal(4, 1), t, graph, starts=starts)
    L = graph.laplacian("comb", dtype=torch.float64).to_dense()
    for a, s in enumerate(starts):
        for b, late in enumerate(t):
            K = (
                torch.linalg.matrix_exp(-(late - s) * L)
                if late >= s
                else torch.zeros(4, 4).double()
            )
            torch.testing.assert_close(found.value[a, b].T, K, rtol=0, atol=1e-8)


def test_nonlinear_flows_are_disturbed_where_they_are_by_then() -> None:
    graph, x0, h = catalogue.path(4), 0.5 * normal(4, 1), 1e-4
    found = space_time_sensitivity(
        AllenCahn(), x0, [0.0, 0.6, 1.0], graph, starts=[0.0, 0.6], sources=[1]
    )
    precise = {"rtol": 1e-11, "atol": 1e-13}
    there = solve(AllenCahn(), x0, 0.6, graph, **precise).final
    ends = []
    for sign in (1, -1):
        moved = there.clone()
        moved[1] += sign * h
        ends.append(solve(AllenCahn(), moved, [0.6, 1.0], graph, **precise).final)
    J = ((ends[0] - ends[1]) / (2 * h)).abs()[:, 0]
    torch.testing.assert_close(found.value[1, 2, 0], J, rtol=0, atol=1e-7)
    whole = sensitivity(AllenCahn(), x0, [0.0, 0.6, 1.0], graph, sources=[1])
    torch.testing.assert_close(found.value[0], whole.value, rtol=0, atol=1e-7)


def test_flows_of_space_and_time_split_exactly() -> None:
    graph, steps, t = catalogue.ring(4), 3, 1.3
    A = graph.adjacency("row", dtype=torch.float64)
    T = normal(steps, steps)
    found = split_flow(A, T, [0.0, t])
    whole = torch.kron(A.to_dense(), torch.eye(steps).double())
    whole = whole + torch.kron(torch.eye(4).double(), T)
    expected = torch.linalg.matrix_exp(t * whole).view(4, steps, 4, steps).abs()
    torch.testing.assert_close(found.value[1].permute(1, 2, 0, 3), expected, rtol=0, atol=1e-8)


def test_a_delay_line_forgets_what_is_recent() -> None:
    found = split_flow(
        catalogue.path(2).adjacency("row", dtype=torch.float64), delay_line(6), [0.0, 2.5], [0]
    )
    expected = torch.tensor([2.5**a / math.factorial(a) for a in range(6)]).double()
    torch.testing.assert_close(found.time[1, :, 0], expected)
    for i in range(6):
        for j in range(i):
            ratio = (found.time[1, j, 0] / found.time[1, i, 0]).item()
            closed = (2.5**j / math.factorial(j)) / (2.5**i / math.factorial(i))
            assert ratio == pytest.approx(closed)


def test_layers_are_powers_and_causal_ones_binomials() -> None:
    S = catalogue.star(5).adjacency("sym", 1.0, dtype=torch.float64)
    R, layers = torch.eye(4).double() + delay_line(4), [0, 1, 3, 7]
    found = split_layers(S, R, layers, [2, 0])
    for k, count in enumerate(layers):
        power = torch.linalg.matrix_power(S.to_dense(), count)
        torch.testing.assert_close(found.space[k], power[:, [2, 0]].T)
        closed = torch.tensor(
            [[math.comb(count, a - b) if a >= b else 0 for b in range(4)] for a in range(4)]
        )
        torch.testing.assert_close(found.time[k], closed.double())
    # Where rows are normalised, only the oldest step is left in the end.
    rows = R / R.sum(1, keepdim=True)
    late = split_layers(S, rows, [400], [0]).time[0]
    torch.testing.assert_close(late[:, 0], torch.ones(4).double())


def test_the_bound_is_attained_by_diffusion() -> None:
    graph, x0 = catalogue.barbell(3), normal(6, 2)
    bound = sensitivity_bound(Heat(), x0, [0.0, 0.5, 2.0], graph)
    found = sensitivity(Heat(), x0, [0.0, 0.5, 2.0], graph, norm="spectral")
    torch.testing.assert_close(bound, found.value, rtol=0, atol=1e-8)


def test_no_block_exceeds_the_bound() -> None:
    graph, x0, t = catalogue.grid(2, 4), normal(8, 1), [0.0, 0.3, 1.0, 3.0]
    found = sensitivity(AllenCahn(rate=2.0), x0, t, graph, norm="spectral").value
    bound = sensitivity_bound(AllenCahn(rate=2.0), x0, t, graph, growth=2.0)
    assert bool((found <= bound * (1 + 1e-6) + 1e-9).all())
    assert float((found / bound)[1].max()) > 0.3


def test_negative_entries_are_bounded_by_their_moduli() -> None:
    dense = torch.tensor([[-1.0, -2.0, 0.5], [1.0, 0.0, -1.0], [0.0, 3.0, 0.2]]).double()
    row, col = dense.nonzero().T
    pattern, order = Pattern.from_edges(row, col, 3)
    values = torch.zeros(pattern.nnz).double().index_add(0, order, dense[row, col])
    field = Unforced(SparseOperator(pattern, values))
    x0 = torch.zeros(3, 1).double()
    bound = sensitivity_bound(field.bind(None, x0), x0, 0.7)[-1].T
    M = dense.abs() - torch.diag(dense.diag().abs()) + torch.diag(dense.diag())
    torch.testing.assert_close(bound, torch.linalg.matrix_exp(0.7 * M), rtol=0, atol=1e-6)
    assert bool((torch.linalg.matrix_exp(0.7 * dense).abs() <= bound + 1e-6).all())


def test_what_makes_no_sense_is_said() -> None:
    graph, x0 = catalogue.path(3), normal(3, 1)
    for t, starts, word in (
        ([0.0], [0.0], "two"),
        ([1.0, 0.0], [0.0], "rising"),
        ([0.0, 1.0], [-1.0], "before"),
        ([0.0, 1.0], [], "list"),
    ):
        with pytest.raises(ValueError, match=word):
            space_time_sensitivity(Heat(), x0, t, graph, starts=starts)
    with pytest.raises(ValueError, match="pieces"):
        space_time_sensitivity(Layers([Heat()]), x0, [0.0, 1.0], graph, starts=[0.0])
    with pytest.raises(ValueError, match="not negative"):
        split_layers(graph.adjacency(), delay_line(2), [-1])
    with pytest.raises(ValueError, match="sparse operator"):
        sensitivity_bound(Reaction([0.0, 1.0]), x0, 1.0, graph)
