"""What a run leaves behind: states at the saved times, and enough to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from solvers.flow import Flow
from solvers.interpolation import hermite
from solvers.rows import Rows, State
from solvers.stepper import Step
from solvers.steps import Try


class Sink(Protocol):
    """Whatever takes saved states."""

    def save(self, slot: int, graphs: np.ndarray, value: State) -> None:
        """Take the rows of these graphs for this slot."""


@dataclass(frozen=True)
class Save:
    """One saved time inside a step: its slot, where in the step (theta) and for which graphs."""

    slot: int
    theta: np.ndarray
    graphs: np.ndarray


@dataclass(frozen=True)
class Move:
    """One accepted step of at least one graph.

    Attributes:
        t: Where the clocks were.
        h: Their signed steps; 0 for those that stayed.
        graphs: Which graphs moved.
        saves: What was saved in it.
        plan: What the stepper decided for it.
    """

    t: np.ndarray
    h: np.ndarray
    graphs: np.ndarray
    saves: tuple[Save, ...]
    plan: Any = None


@dataclass
class Kept:
    """The start of a step with what its dense output needs; the last one has no step after it."""

    t: float
    x: State
    f: State | None
    mid: State | None = None


@dataclass
class Tape:
    """States at the saved times, the accepted moves, and sparse checkpoints for replaying them.

    Args:
        slots: Number of saved times; one more slot holds the state where each graph ended.
        rows: How rows belong to graphs.
        replay: Whether moves and checkpoints are kept.
        marks: The moves before which the state is kept; None for a root of them.
    """

    slots: int
    rows: Rows
    replay: bool = False
    marks: frozenset[int] | None = None
    saved: list[State | None] = field(init=False)
    moves: list[Move] = field(default_factory=list)
    checkpoints: list[tuple[int, State]] = field(default_factory=list)
    at_start: list[tuple[int, np.ndarray]] = field(default_factory=list)
    stride: int = 1

    def __post_init__(self) -> None:
        """Open the slots."""
        self.saved = [None] * (self.slots + 1)

    def save(self, slot: int, graphs: np.ndarray, value: State) -> None:
        """Write the rows of these graphs into a slot; other rows stay as they are, NaN at first."""
        old = self.saved[slot]
        if old is None and not graphs.all():
            old = tuple(torch.full_like(part, torch.nan) for part in value)
        self.saved[slot] = value if old is None else self.rows.select(graphs, value, old)

    def save_start(self, slot: int, graphs: np.ndarray, x: State) -> None:
        """Write the first state into a slot."""
        self.at_start.append((slot, graphs))
        self.save(slot, graphs, x)

    def record(self, move: Move, x: State) -> None:
        """Keep a move and, now and then, the state before it.

        The stride between checkpoints doubles whenever there are more than two strides of them, so
        that N steps keep between sqrt(N) and 2 sqrt(N) states although N is not known beforehand.
        """
        if not self.replay:
            return
        at = len(self.moves)
        if self.marks is not None:
            if at in self.marks:
                self.checkpoints.append((at, tuple(part.detach() for part in x)))
        elif at % self.stride == 0:
            self.checkpoints.append((at, tuple(part.detach() for part in x)))
            if len(self.checkpoints) > 2 * self.stride:
                self.stride *= 2
                self.checkpoints = [c for c in self.checkpoints if c[0] % self.stride == 0]
        self.moves.append(move)

    def cut(self, moves: int) -> None:
        """Forget what was recorded after so many moves: a step that was interrupted."""
        del self.moves[moves:]
        self.checkpoints = [c for c in self.checkpoints if c[0] < max(moves, 1)]

    def stacked(self, like: State) -> tuple[State, State]:
        """All slots as `[saved, rows, ...]` (NaN where not reached), and the end state."""
        blank = tuple(torch.full_like(part, torch.nan) for part in like)
        filled = [blank if state is None else state for state in self.saved]
        stacks = tuple(torch.stack(parts) for parts in zip(*filled[:-1], strict=True))
        return stacks, filled[-1]


@dataclass
class Run:
    """Everything a run leaves behind.

    Attributes:
        tape: Saved states, moves and checkpoints.
        status: One word per graph.
        messages: Why, for the graphs that did not end as asked.
        accepted: Accepted steps per graph.
        rejected: Rejected steps per graph.
        ended: The time each graph reached.
        first: Mean square of the first state per graph.
        largest: Largest mean square on a fixed grid.
        kept: With `keep_steps`, every accepted state with its slope and its middle.
        interrupted: Whether Ctrl-C ended it.
        tries: Every step that was tried.
    """

    tape: Tape
    status: list[str]
    messages: dict[int, str]
    accepted: np.ndarray
    rejected: np.ndarray
    ended: np.ndarray
    first: np.ndarray
    largest: np.ndarray
    kept: list[Kept] = field(default_factory=list)
    interrupted: bool = False
    tries: list[Try] = field(default_factory=list)


def interpolate(
    clocks: Rows,
    theta: np.ndarray,
    h: np.ndarray,
    ends: tuple[State, State],
    slopes: tuple[State, State],
    mid: State | None,
) -> State:
    """The state at t + theta h inside a step, clock by clock."""
    return hermite(
        clocks.spread(theta, ends[0][0]),
        clocks.spread(h, ends[0][0]),
        ends[0],
        slopes[0],
        ends[1],
        slopes[1],
        mid,
    )


def write_saves(
    sink: Sink,
    move_saves: Sequence[Save],
    flow: Flow,
    t: np.ndarray,
    h: np.ndarray,
    x: State,
    fx: State,
    step: Step,
) -> State | None:
    """Write the saved times inside one accepted step; return the end slope if it was needed.

    Args:
        sink: Receives the states.
        move_saves: Which slots, where and for whom.
        flow: Evaluates the end slope when the method does not know it.
        t: The clocks' times.
        h: The clocks' steps.
        x: State at the start of the step.
        fx: Slope there.
        step: The step.
    """
    end_slope = step.f
    for save in move_saves:
        inside = save.theta != 1.0
        if not inside.any():
            sink.save(save.slot, save.graphs, step.x)
            continue
        if end_slope is None:
            end_slope = flow(t + h, step.x)
        value = interpolate(flow.clocks, save.theta, h, (x, step.x), (fx, end_slope), step.mid)
        sink.save(save.slot, save.graphs, value)
    return end_slope
