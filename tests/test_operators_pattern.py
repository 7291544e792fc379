"""Index sets: order, duplicates, transposes, diagonals, unions."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.operators import Pattern


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    nodes = draw(st.integers(1, 7))
    ends = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    pairs = draw(st.lists(ends, max_size=20))
    rows, cols = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return rows, cols, nodes


def dense(pattern: Pattern, values: torch.Tensor) -> np.ndarray:
    matrix = np.zeros((pattern.num_nodes, pattern.num_nodes))
    matrix[pattern.row.numpy(), pattern.col.numpy()] = values.numpy()
    return matrix


@given(edge_lists())
@settings(max_examples=50)
def test_repeated_positions_become_one_entry_with_the_sum(edges):
    rows, cols, nodes = edges
    weight = torch.rand(len(rows), dtype=torch.float64)
    pattern, slot = Pattern.from_edges(rows, cols, nodes)
    values = torch.zeros(pattern.nnz, dtype=torch.float64).index_add(0, slot, weight)
    expected = scipy.sparse.coo_matrix((weight, (rows, cols)), shape=(nodes, nodes)).toarray()
    assert np.allclose(dense(pattern, values), expected, rtol=0, atol=1e-15)
    assert pattern.nnz == len({*zip(rows.tolist(), cols.tolist(), strict=True)})
    assert np.allclose(pattern.csr(values).to_dense().numpy(), expected, rtol=0, atol=1e-15)


@given(edge_lists())
@settings(max_examples=50)
def test_the_transposed_order_is_scipys_and_transposing_twice_is_nothing(edges):
    pattern, _ = Pattern.from_edges(*edges)
    values = torch.rand(pattern.nnz, dtype=torch.float64)
    ours = scipy.sparse.csr_matrix((values, pattern.col, pattern.crow), shape=(edges[2],) * 2)
    crow, col, perm = pattern.transposed
    theirs = ours.T.tocsr()
    theirs.sort_indices()
    assert np.array_equal(crow, theirs.indptr)
    assert np.array_equal(col, theirs.indices)
    assert np.array_equal(values[perm], theirs.data)
    assert pattern.T.T is pattern
    back = pattern.T.transposed[2]
    assert torch.equal(values[perm][back], values)


@given(edge_lists(), edge_lists())
@settings(max_examples=50)
def test_the_union_holds_the_entries_of_both_and_nothing_else(left, right):
    nodes = max(left[2], right[2])
    one, _ = Pattern.from_edges(left[0], left[1], nodes)
    two, _ = Pattern.from_edges(right[0], right[1], nodes)
    union, mine, theirs = one.union(two)
    cells = {*zip(one.row.tolist(), one.col.tolist(), strict=True)}
    cells |= {*zip(two.row.tolist(), two.col.tolist(), strict=True)}
    assert [*zip(union.row.tolist(), union.col.tolist(), strict=True)] == sorted(cells)
    for part, slot in ((one, mine), (two, theirs)):
        slot = torch.arange(part.nnz) if slot is None else slot
        assert torch.equal(union.row[slot], part.row)
        assert torch.equal(union.col[slot], part.col)


@given(edge_lists())
@settings(max_examples=50)
def test_the_diagonal_is_found_and_completed_once(edges):
    pattern, _ = Pattern.from_edges(*edges)
    cells = [*zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)]
    expected = [cells.index((i, i)) if (i, i) in cells else -1 for i in range(edges[2])]
    assert pattern.diagonal.tolist() == expected
    filled, slot = pattern.with_diagonal()
    assert filled is pattern.with_diagonal()[0]
    assert filled.with_diagonal()[0] is filled
    assert filled.has_diagonal
    assert filled.nnz == pattern.nnz + expected.count(-1)
    assert torch.equal(filled.row[slot], pattern.row)
    assert torch.equal(filled.col[slot].long(), pattern.col.long())
    assert pattern.union(filled)[0] is filled
    assert filled.union(pattern)[0] is filled


def test_rows_and_columns_without_entries_are_noticed():
    pattern, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([0, 0]), 2)
    assert (pattern.every_row, pattern.every_column, pattern.longest_row) == (True, False, 1)
    assert (pattern.T.every_row, pattern.T.every_column, pattern.T.longest_row) == (False, True, 2)


def test_indices_are_int32_and_a_pattern_of_no_nodes_is_legal():
    assert Pattern.identity(3).col.dtype == torch.int32
    empty = Pattern(torch.zeros(1), torch.zeros(0), 0)
    assert empty.T.nnz == empty.with_diagonal()[0].nnz == empty.longest_row == 0


def test_patterns_of_other_sizes_do_not_unite():
    with pytest.raises(ValueError, match="on 2 and on 3 nodes"):
        Pattern.identity(2).union(Pattern.identity(3))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_patterns_survive_copying_after_use(through):
    pattern, _ = Pattern.from_edges(torch.tensor([0, 2]), torch.tensor([1, 1]), 3)
    assert through(pattern).same_as(pattern)
    assert through(pattern).T.same_as(pattern.T)


@pytest.mark.parametrize("edges", [([0, 2, 2], [1, 0, 2]), ([], [])])
def test_copies_are_the_blocks_of_a_block_diagonal_matrix(edges):
    row, col = (torch.tensor(ends, dtype=torch.int64) for ends in edges)
    pattern, _ = Pattern.from_edges(row, col, 3)
    copies = pattern.copies(3)
    values = torch.randn(3, pattern.nnz)
    blocks = [pattern.csr(block).to_dense() for block in values]
    assert torch.equal(copies.csr(values.flatten()).to_dense(), torch.block_diag(*blocks))
    assert torch.equal(copies.row, Pattern(copies.crow, copies.col, 9).row)
    assert copies.col.dtype == copies.crow.dtype == torch.int32
    assert pattern.copies(3) is copies
    assert pattern.copies(1) is pattern
