"""Memory that stays between solves: lent to one at a time, and never more than a little."""

import threading

import pytest
import torch

from solvers import scratch
from solvers.scratch import lent, release

ONE = torch.ones(1)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    release()


def test_the_same_memory_is_lent_again() -> None:
    with lent(ONE, 1_000) as room:
        place = room.data_ptr()
    with lent(ONE.double(), 500) as room:
        assert (room.data_ptr(), room.dtype, len(room)) == (place, torch.float64, 500)


def test_larger_memory_replaces_smaller() -> None:
    with lent(ONE, 10):
        pass
    with lent(ONE, 1_000) as room:
        room.fill_(2.0)
    with lent(ONE, 1_000) as room:
        assert room.sum().item() == 2_000.0


def test_whoever_has_it_is_alone_with_it() -> None:
    with lent(ONE, 100):
        pass
    with lent(ONE, 100) as one, lent(ONE, 100) as other:
        one.fill_(1.0)
        other.fill_(2.0)
        assert one.sum().item() == 100.0


def test_it_comes_back_from_what_failed() -> None:
    places = []

    def fail() -> None:
        with lent(ONE, 100) as room:
            places.append(room.data_ptr())
            raise RuntimeError("it broke")

    with pytest.raises(RuntimeError, match="it broke"):
        fail()
    with lent(ONE, 100) as room:
        assert [room.data_ptr()] == places


def test_large_pieces_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MOST", 400)
    with lent(ONE, 101) as room:
        assert len(room) == 101
    assert not scratch._kept
    with lent(ONE, 100):
        pass
    assert len(scratch._kept) == 1


def test_one_piece_is_kept_whatever_the_threads() -> None:
    meet, sums = threading.Barrier(4), []

    def work(value: float) -> None:
        with lent(ONE, 1_000) as room:
            room.fill_(value)
            meet.wait()
            sums.append(room.sum().item())

    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == [0.0, 1_000.0, 2_000.0, 3_000.0]
    assert len(scratch._kept) == 1


def test_memory_lent_under_inference_mode_is_written_to_outside() -> None:
    with torch.inference_mode(), lent(ONE, 100) as room:
        room.fill_(1.0)
        place = room.data_ptr()
    assert not scratch._kept[0].is_inference()
    with lent(ONE, 100) as room:
        assert room.data_ptr() == place
        assert room.fill_(3.0).sum().item() == 300.0
