"""A stretch of accepted steps, run again so that gradients flow back through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from solvers.integrate import Loop
from solvers.pace import Fixed
from solvers.rows import State
from solvers.tape import write_saves


@dataclass
class Collected:
    """The states that a stretch of steps saves, with their slots and graphs."""

    saves: list[tuple[int, np.ndarray, State]] = field(default_factory=list)

    def save(self, slot: int, graphs: np.ndarray, value: State) -> None:
        """Keep one."""
        self.saves.append((slot, graphs, value))


def stretch(
    loop: Loop,
    start: int,
    end: int,
    x: State,
    leaves: Sequence[Tensor],
    slots: State,
    g: State,
) -> tuple[State, Sequence[Tensor | None]]:
    """Run moves `start` to `end` again and pull the gradients back through them.

    Args:
        loop: The finished run.
        start: The first of the moves.
        end: The first move after them.
        x: The state before the first move.
        leaves: What else the field depends on.
        slots: Gradients of all that was saved, `[saved, rows, ...]` parts.
        g: The gradient of the state after the last move.

    Returns:
        The gradient of `x`, and of each of the leaves (None where there is none).
    """
    first = tuple(part.detach().requires_grad_() for part in x)
    kept = Collected()
    with torch.enable_grad():
        state, slope = first, None
        going: np.ndarray | None = None
        for move in loop.out.tape.moves[start:end]:
            before = state
            if isinstance(loop.pace, Fixed):
                # As in the run, graphs that have failed are evaluated where the field is finite.
                before = loop.rows.select(move.graphs, state, loop.start)
                if going is not None and not np.array_equal(going, move.graphs):
                    slope = None
                going = move.graphs
            if slope is None:
                slope = loop.flow(move.t, before) if loop.stepper.needs_slope else before
            fx = slope
            step = loop.stepper.step(
                loop.flow.stages(move.t, move.h),
                loop.spread(move.h, move.graphs, state[0]),
                before,
                fx,
                error=False,
                mid=any((save.theta != 1.0).any() for save in move.saves),
                plan=move.plan,
            )
            slope = write_saves(kept, move.saves, loop.flow, move.t, move.h, state, fx, step)
            state = loop.rows.select(move.graphs, step.x, state)
            if slope is not None:
                slope = loop.rows.select(move.graphs, slope, fx)
        outputs, pulls = list(state), list(g)
        for slot, graphs, value in kept.saves:
            outputs += value
            pulls += rows_of(loop, slots, slot, graphs)
        wanted = [k for k, out in enumerate(outputs) if out.requires_grad]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            [outputs[k] for k in wanted],
            (*first, *leaves),
            [pulls[k] for k in wanted],
            allow_unused=True,
        )
    g = tuple(
        torch.zeros_like(part) if grad is None else grad
        for part, grad in zip(first, found[: len(first)], strict=True)
    )
    return g, found[len(first) :]


def rows_of(loop: Loop, slots: State, slot: int, graphs: np.ndarray) -> State:
    """The gradient of what these graphs saved in a slot; zero for the others."""
    value = tuple(part[slot] for part in slots)
    return loop.rows.select(graphs, value, tuple(torch.zeros_like(part) for part in value))


def add(one: State, other: State) -> State:
    """The sum of two states.

    >>> add((torch.ones(1),), (torch.ones(1),))
    (tensor([2.]),)
    """
    return tuple(a + b for a, b in zip(one, other, strict=True))
