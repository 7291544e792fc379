"""Stub steppers that do as they are told, and write down what they were asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from solvers.failure import NEWTON_FAILED
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.pace import Adaptive, Fixed
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper, Trouble
from solvers.tape import Run

TOL = 1e-3


@dataclass
class Log:
    """What a stub was asked, in order."""

    asked: list[str] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)
    sizes: list[list[float]] = field(default_factory=list)
    judged: list[list[bool]] = field(default_factory=list)
    plans: list[Any] = field(default_factory=list)
    accuracy: Accuracy | None = None


class Scripted(Stepper):
    """Euler's method whose error ratios are read from a script; the last one is repeated."""

    name = "scripted"
    adaptive = True

    def __init__(self, *ratios: float | Sequence[float], ceiling: float = np.inf) -> None:
        self.ratios, self.ceiling, self.log = ratios or (0.5,), ceiling, Log()

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        assert flow.nfe == 0, "begin comes before any evaluation"
        self.rows, self.log.accuracy = rows, accuracy
        self.log.asked.append("begin")
        return self

    def limit(self, h: np.ndarray) -> np.ndarray:
        return np.minimum(h, self.ceiling)

    def plan(self, f: Any, x: State, fx: State | None) -> int:
        self.log.asked.append("plan")
        return len(self.log.sizes)

    def judged(self, step: Step, accepted: np.ndarray, h: np.ndarray) -> None:
        self.log.asked.append("judged")
        self.log.judged.append(accepted.tolist())
        np.testing.assert_array_equal(h, np.abs(self.log.sizes[-1]))

    def ratio(self, f: Any, plan: int) -> np.ndarray:
        return np.broadcast_to(self.ratios[min(plan, len(self.ratios) - 1)], len(f.h))

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Any = None,
    ) -> Step:
        self.log.asked.append("step")
        self.log.times.append(f.t.tolist())
        self.log.sizes.append(f.h.tolist())
        self.log.plans.append(plan)
        new = tuple(part + h * slope for part, slope in zip(x, fx, strict=True))
        wrong = f.flow.clocks.spread(TOL * self.ratio(f, plan), x[0])
        return Step(new, error=tuple(torch.zeros_like(part) + wrong for part in x))


class Stumbling(Scripted):
    """A step is in trouble for the clocks whose step is longer than a threshold each."""

    def __init__(self, *longest: float) -> None:
        super().__init__(0.5)
        self.longest = np.array(longest)

    def step(self, f: Any, *arguments: Any, **options: Any) -> Step:
        step = super().step(f, *arguments, **options)
        lost = np.abs(f.h) > self.longest
        if lost.any():
            step.trouble = Trouble(NEWTON_FAILED, lost, "Newton's method went astray. Pray.")
        return step


def clock(t: Tensor, x: State) -> State:
    return (torch.ones_like(x[0]),)


def run(stub: Stepper, times: Sequence[float], steps: int | None = None, **options: Any) -> Run:
    """One graph from x = times[0], adaptive at an absolute tolerance unless `steps` are given."""
    pace = Adaptive(0.0, TOL) if steps is None else Fixed(grid(times, steps))
    first = torch.full((2,), times[0], dtype=torch.float64)
    flow = options.pop("flow", None) or Flow(clock, Rows(), first)
    return Loop(flow, stub, pace, Rows(), np.array(times)[:, None], **options).run((first,))


def grid(times: Sequence[float], steps: int) -> np.ndarray:
    return np.linspace(times[0], times[-1], steps + 1)[:, None]


def column(log: list[list[float]]) -> list[float]:
    return [row[0] for row in log]
