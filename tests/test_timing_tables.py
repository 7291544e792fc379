"""Timings are paired, memory is what tensors held, tables keep every digit."""

import csv
from pathlib import Path

import pytest
import torch

from analysis import timing
from analysis.tables import Table
from analysis.timing import Timing, paired, peak_memory


class Clock:
    """A clock that alternatives advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> "Clock.Call":
        return Clock.Call(self, list(seconds))

    class Call:
        """Takes the next of its durations at each call, the last one ever after."""

        def __init__(self, clock: "Clock", seconds: list[float]) -> None:
            self.clock, self.seconds, self.calls = clock, seconds, 0

        def __call__(self) -> int:
            self.clock.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
            self.calls += 1
            return self.calls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def test_ratios_are_taken_round_by_round(clock: Clock) -> None:
    # The machine slows down: both take ten times as long in the last round.
    slow, fast = clock.takes(99.0, 1.0, 2.0, 10.0), clock.takes(50.0, 0.5, 0.5, 5.0)
    found = paired({"slow": slow, "fast": fast}, rounds=3, budget=1e9)
    assert found["slow"] == Timing(2.0, 1.0, (1.0, 1.0), 4)
    assert found["fast"].ratio == pytest.approx(2.0)
    assert found["fast"].spread == pytest.approx((2.0, 4.0))
    assert found["fast"].seconds == pytest.approx(0.5)


def test_the_first_round_warms_up(clock: Clock) -> None:
    call = clock.takes(1000.0, 1.0)
    assert paired({"one": call}, rounds=2, budget=2000.0)["one"].seconds == 1.0
    assert call.calls == 3


def test_the_budget_ends_the_rounds_but_never_the_first(clock: Clock) -> None:
    call = clock.takes(10.0)
    paired({"one": call}, rounds=50, budget=35.0)
    assert call.calls == 4
    other = clock.takes(10.0)
    paired({"one": other}, rounds=50, budget=1.0)
    assert other.calls == 2


def test_alternatives_run_in_turn() -> None:
    order: list[str] = []
    paired({name: lambda name=name: order.append(name) for name in "abc"}, rounds=2)
    assert "".join(order) == "abcabcabc"


def test_memory_is_what_tensors_held_at_the_peak() -> None:
    def hold() -> None:
        first = torch.zeros(10 * 2**20)
        second = first + 1
        del first
        second * 2

    assert peak_memory(hold) == pytest.approx(80, abs=0.01)
    assert peak_memory(lambda: None) == 0.0


def test_tables_keep_order_and_digits(tmp_path: Path) -> None:
    table = Table()
    table.add({"solver": "euler", "error": 1 / 3})
    table.add({"solver": "rk4", "nfe": 12})
    assert table.columns == ("solver", "error", "nfe")
    assert table.markdown().splitlines() == [
        "| solver | error | nfe |",
        "|---|---|---|",
        "| euler | 0.333 |  |",
        "| rk4 |  | 12 |",
    ]
    table.save(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["error"]) == 1 / 3
    assert rows[1] == {"solver": "rk4", "error": "", "nfe": "12"}
    assert (tmp_path / "table.md").read_text() == table.markdown() + "\n"


def test_a_row_is_copied() -> None:
    row = {"a": 1}
    table = Table()
    table.add(row)
    row["a"] = 2
    assert table.rows[0]["a"] == 1
    assert Table().rows is not table.rows
