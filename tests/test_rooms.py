"""Dot products of the two matrices of a room, against double precision."""

import pytest
import torch

from solvers.columns import WIDTH
from solvers.rooms import LINE, NARROW, SMALL, rooms

SHAPES = [
    (0, 3),
    (1, 1),
    (5, 0),
    (30, NARROW - 1),
    (30, NARROW),
    (700, 1),
    (777, 13),
    (300, WIDTH),
    (SMALL // WIDTH - 1, WIDTH),
    (40, 2 * WIDTH + 3),
    (9, LINE + 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_room_multiplies_its_two_matrices(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, y = torch.randn(2, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    found = torch.zeros(2, 2, dtype=torch.float64)
    of_rows = torch.zeros(2, len(x), 2, dtype=torch.float64)
    for room in rooms(x):
        room.first.copy_(room.of(x))
        room.second.copy_(room.of(y))
        for which in (0, 1):
            found[which] += room.sums(which)
            of_rows[which] += room.of_rows(which)
    both = torch.stack([x, y]).double()
    wanted = torch.einsum("anc,bnc->anb", both, both)
    size = 1e-12 if dtype is torch.float64 else 2e-6
    size *= max(float(both.square().sum()), 1.0)
    torch.testing.assert_close(of_rows, wanted, rtol=0, atol=size)
    torch.testing.assert_close(found, wanted.sum(1), rtol=0, atol=size)


def test_what_a_wider_piece_left_does_not_count() -> None:
    x = torch.ones(33, WIDTH + 5)
    for _ in range(2):
        for room in rooms(x):
            room.first.fill_(1.0)
            room.second.fill_(2.0)
            assert room.sums(1).tolist() == [2.0 * room.first.numel(), 4.0 * room.first.numel()]


def test_what_was_infinite_is_forgotten() -> None:
    (room,) = rooms(torch.ones(40, 10))
    room.second.fill_(1.0)
    for entry, wanted in ((1e30, torch.inf), (1.0, 400.0)):
        room.first.fill_(entry)
        assert room.sums(0)[0] == wanted
        assert room.of_rows(0)[:, 0].sum() == wanted


def test_one_large_entry_does_not_swallow_the_others() -> None:
    x = torch.ones(4_000, 10)
    x[7, 3] = 4096.0
    (room,) = rooms(x)
    room.first.copy_(x)
    wanted = x.double().square().sum()
    assert abs(room.sums(0)[0] / wanted - 1) < 4e-6


def test_dot_products_do_not_follow_the_precision_of_matrix_products() -> None:
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    (room,) = rooms(x)
    room.first.copy_(x)
    wanted = x.double().square().sum()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = room.sums(0)[0]
    finally:
        torch.set_float32_matmul_precision(before)
    assert abs(found / wanted - 1) < 1e-6
