"""Reductions per graph against plain loops over the graphs."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from solvers.rows import LONGEST_SINGLE_SUM, Rows

F64 = torch.float64


def batch_of(nodes: list[int]) -> tuple[Tensor, Rows]:
    batch = torch.repeat_interleave(torch.arange(len(nodes)), torch.tensor(nodes))
    return batch, Rows(batch, len(nodes))


@given(
    nodes=st.lists(st.integers(0, 5), min_size=2, max_size=5),
    channels=st.integers(0, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_reductions_agree_with_a_loop_over_graphs(
    nodes: list[int], channels: int, seed: int
) -> None:
    torch.manual_seed(seed)
    batch, rows = batch_of(nodes)
    parts = (
        torch.randn(len(batch), channels, 2, dtype=F64),
        torch.randn(len(batch), dtype=F64),
    )
    for graph in range(len(nodes)):
        mine = torch.cat([part[batch == graph].flatten() for part in parts])
        wanted = (mine**2).mean().item() if mine.numel() else 0.0
        assert rows.mean_square(parts)[graph].item() == pytest.approx(wanted, rel=1e-13)
        assert rows.sums(parts)[graph].item() == pytest.approx(mine.sum().item(), abs=1e-13)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 3), (5, 3), (2, 3, 4)])
def test_one_graph_may_have_any_shape(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=F64)
    wanted = (x**2).mean().item() if x.numel() else 0.0
    assert Rows().mean_square((x,)).tolist() == [pytest.approx(wanted, rel=1e-14)]
    assert Rows().sums((x,)).tolist() == [pytest.approx(x.sum().item(), abs=1e-14)]


def test_parts_of_one_graph_need_not_share_their_shape() -> None:
    parts = (torch.full((4, 2), 3.0), torch.tensor(5.0))
    assert Rows().mean_square(parts).tolist() == [pytest.approx((8 * 9 + 25) / 9, rel=1e-6)]


def test_complex_entries_count_by_their_modulus() -> None:
    _, rows = batch_of([1, 2])
    z = torch.tensor([[3 + 4j], [1j], [1 - 1j]])
    assert rows.mean_square((z,)).tolist() == pytest.approx([25.0, 1.5], rel=1e-6)
    assert rows.mean_square((z[:, 0],)).tolist() == pytest.approx([25.0, 1.5], rel=1e-6)
    assert Rows().mean_square((z,)).dtype == F64


@pytest.mark.parametrize("shape", [(20000, 64), (100000,), (3, 50 * LONGEST_SINGLE_SUM)])
def test_float32_is_reduced_to_better_than_a_millionth(shape: tuple[int, ...]) -> None:
    # Equal entries are the worst case: every rounding of a running sum goes the same way.
    for x in (torch.full(shape, 0.1), torch.rand(shape, generator=torch.manual_seed(0))):
        exact = x.double().square().mean().item()
        assert Rows().mean_square((x,)).item() == pytest.approx(exact, rel=3e-7)
        assert Rows().sums((x,)).item() == pytest.approx(x.double().sum().item(), rel=1e-12)


def test_nothing_of_the_size_of_the_state_is_stored_in_double_precision() -> None:
    x = torch.rand(1000, 64)
    with torch.profiler.profile(profile_memory=True) as profile:
        Rows().mean_square((x,))
    largest = max(event.cpu_memory_usage for event in profile.key_averages())
    assert largest < x.numel() * 4


def test_a_nan_stays_in_its_graph() -> None:
    _, rows = batch_of([2, 3])
    x = torch.ones(5, 2)
    x[0, 0] = math.nan
    got = rows.mean_square((x,)).tolist()
    assert math.isnan(got[0])
    assert got[1] == pytest.approx(1.0, rel=1e-6)


def test_reductions_are_differentiable() -> None:
    _, rows = batch_of([1, 2])
    x = torch.randn(3, 2, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rows.mean_square((x,)), (x,))
    assert torch.autograd.gradcheck(lambda x: rows.sums((x, x[:, 0])), (x,))


def test_spread_gives_every_row_the_value_of_its_graph() -> None:
    _, rows = batch_of([1, 0, 2])
    like = torch.zeros(3, 2, 4, dtype=torch.complex64)
    spread = rows.spread(np.array([1.0, 2.0, 3.0]), like)
    assert isinstance(spread, Tensor)
    assert spread.shape == (3, 1, 1)
    assert spread.dtype == torch.float32
    assert (like + spread)[:, 1, 3].tolist() == [1, 3, 3]


def test_spread_of_one_graph_is_a_float() -> None:
    got = Rows().spread(np.array([2.5]), torch.zeros(3))
    assert type(got) is float
    assert got == 2.5
    assert type(Rows(torch.zeros(3, dtype=torch.int64), 1).spread(np.ones(1), torch.zeros(3))) is (
        float
    )


@given(mask=st.lists(st.booleans(), min_size=3, max_size=3))
def test_select_mixes_whole_graphs(mask: list[bool]) -> None:
    batch, rows = batch_of([2, 1, 3])
    yes = (torch.ones(6, 2), torch.ones(6))
    no = (torch.zeros(6, 2), torch.zeros(6))
    got = rows.select(np.array(mask), yes, no)
    wanted = [float(mask[graph]) for graph in batch.tolist()]
    assert got[0][:, 1].tolist() == wanted
    assert got[1].tolist() == wanted


def test_select_copies_nothing_when_graphs_agree() -> None:
    _, rows = batch_of([1, 1])
    yes, no = (torch.ones(2),), (torch.zeros(2),)
    assert rows.select(np.array([True, True]), yes, no) is yes
    assert rows.select(np.array([False, False]), yes, no) is no
    assert Rows().select(np.array([True]), yes, no) is yes
    assert Rows().select(np.array([False]), yes, no) is no


def test_select_keeps_nan_out_of_the_graphs_that_were_not_taken() -> None:
    _, rows = batch_of([1, 1])
    no = torch.zeros(2, requires_grad=True)
    (got,) = rows.select(np.array([True, False]), (torch.tensor([1.0, math.nan]),), (no,))
    got.sum().backward()
    assert got.tolist() == [1.0, 0.0]
    assert no.grad is not None
    assert no.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("batch", "num_graphs", "said"),
    [
        (None, 2, "no batch"),
        (None, 0, "at least one graph"),
        (torch.tensor([1, 0]), 2, "sorted"),
        (torch.tensor([0, 2]), 2, r"0\.\.1"),
        (torch.tensor([-1, 0]), 2, "sorted"),
        (torch.tensor([0, 1], dtype=torch.int32), 2, "int64"),
        (torch.tensor([[0, 1]]), 2, "1-D"),
    ],
)
def test_bad_batches_are_refused(batch: Tensor | None, num_graphs: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rows(batch, num_graphs)
