"""Fair timings on noisy machines: alternatives run in turn, ratios taken pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Timing:
    """How long something took, and how its time compares with the baseline's.

    Attributes:
        seconds: Median over the rounds.
        ratio: Median of (baseline's time / own time), round by round; above 1 it is faster.
        spread: Smallest and largest of these ratios.
        value: What the last call returned.
    """

    seconds: float
    ratio: float
    spread: tuple[float, float]
    value: Any


def paired(
    alternatives: Mapping[str, Callable[[], Any]], *, rounds: int = 5, budget: float = 60.0
) -> dict[str, Timing]:
    """Time alternatives in turn, A B C A B C ..., after one round that does not count.

    Args:
        alternatives: Name and what to call; the first is the baseline of the ratios.
        rounds: Rounds that count; fewer, but at least one, when the budget is used up.
        budget: Seconds after which no new round begins.

    >>> times = paired({"slow": lambda: time.sleep(0.02), "fast": lambda: 7}, rounds=2)
    >>> times["fast"].ratio > 5, times["fast"].value
    (True, 7)
    """
    started = time.perf_counter()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    values: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for name, call in alternatives.items():
            before = time.perf_counter()
            values[name] = call()
            if turn:
                seconds[name].append(time.perf_counter() - before)
        if turn and time.perf_counter() - started > budget:
            break
    baseline = next(iter(seconds.values()))
    timings = {}
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(baseline, own, strict=True)]
        timings[name] = Timing(
            statistics.median(own),
            statistics.median(ratios),
            (min(ratios), max(ratios)),
            values[name],
        )
    return timings


def compare(
    part: str, graph: str, calls: Mapping[str, Callable[[], Any]], *, rounds: int = 5, **more: Any
) -> dict[str, Any]:
    """One row of a benchmark: the first call is the baseline, the last is what the row is about.

    Args:
        part: What is measured.
        graph: On what.
        calls: Baseline and contender.
        rounds: Rounds that count.
        **more: Further columns.

    >>> row = compare("sleep", "none", {"a": lambda: time.sleep(0.02), "b": lambda: 1}, rounds=1)
    >>> row["baseline"], row["ours"], row["ratio"] > 5
    ('a', 'b', True)
    """
    times = paired(calls, rounds=rounds)
    base, ours = next(iter(calls)), list(calls)[-1]
    return {
        "part": part,
        "graph": graph,
        "baseline": base,
        "ours": ours,
        "baseline seconds": times[base].seconds,
        "seconds": times[ours].seconds,
        "ratio": times[ours].ratio,
        "ratio min": times[ours].spread[0],
        "ratio max": times[ours].spread[1],
        **more,
    }


def relative_error(x: Tensor, reference: Tensor) -> float:
    """The distance |x - reference| / |reference|, in the reference's precision.

    >>> import torch
    >>> relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]).double())
    0.2
    """
    return float((x.to(reference) - reference).norm() / reference.norm())


def peak_memory(call: Callable[[], Any]) -> float:
    """Megabytes of tensors that `call` held at its peak, beyond those that were there before.

    Every allocation of torch on the CPU is counted, so memory that the process has free already
    does not hide one. What numpy or a library allocates for itself is not seen.

    >>> import torch
    >>> round(peak_memory(lambda: torch.zeros(2**20) + torch.ones(2**20)))
    12
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    assert record.profiler is not None
    results = record.profiler.kineto_results
    assert results is not None
    memory = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20
