"""Gradients by discretise-then-optimise: on the tape, or by replaying stored steps.

A replayed solve keeps about sqrt(N) states of its N accepted steps. The backward pass runs each
stretch between two of them again, with autograd on, from the last to the first. Rejected steps and
step-size control are never differentiated, so the gradient is that of the accepted steps: the same
as on the tape, to rounding (Zhuang et al., Adaptive checkpoint adjoint, ICML 2020,
arXiv:2006.02493).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.integrate import Loop
from solvers.rows import State
from solvers.tape import Run, write_saves

GRADIENTS = ("auto", "none", "tape", "replay")
SHORT = 30
"""Fixed grids up to this many steps stay on the tape under "auto"."""


@dataclass
class Collected:
    """The states that a stretch of steps saves, with their slots and graphs."""

    saves: list[tuple[int, np.ndarray, State]] = field(default_factory=list)

    def save(self, slot: int, graphs: np.ndarray, value: State) -> None:
        """Keep one."""
        self.saves.append((slot, graphs, value))


@dataclass
class Solution:
    """A run with its states: `[saved, rows, ...]` parts, and where each graph ended."""

    x: State
    last: State
    run: Run
    gradient: str


class Replay(torch.autograd.Function):
    """The outputs of a finished run as a function of its first state and its leaves."""

    @staticmethod
    def forward(
        ctx: Any, loop: Loop, out: tuple[State, State], parts: int, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Hand the outputs through; keep the loop for the way back."""
        ctx.loop, ctx.parts = loop, parts
        ctx.save_for_backward(*inputs)
        return (*(part.clone() for part in out[0]), *(part.clone() for part in out[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Replay the stretches from the last to the first."""
        loop, parts = ctx.loop, ctx.parts
        leaves = ctx.saved_tensors[parts:]
        slots, g = grads[:parts], grads[parts:]
        tape, counted = loop.out.tape, loop.flow.nfe
        total = [torch.zeros_like(leaf) for leaf in leaves]
        ends = [start for start, _ in tape.checkpoints[1:]] + [len(tape.moves)]
        for (start, x), end in reversed(list(zip(tape.checkpoints, ends, strict=True))):
            g, found = _stretch(loop, start, end, x, leaves, slots, g)
            total = [t if f is None else t + f for t, f in zip(total, found, strict=True)]
        for slot, graphs in tape.at_start:
            g = _add(g, _rows_of(loop, slots, slot, graphs))
        loop.flow.nfe = counted
        return (None, None, None, *g, *total)


def _stretch(
    loop: Loop,
    start: int,
    end: int,
    x: State,
    leaves: Sequence[Tensor],
    slots: State,
    g: State,
) -> tuple[State, Sequence[Tensor | None]]:
    """Run moves `start` to `end` again and pull the gradients back through them."""
    first = tuple(part.detach().requires_grad_() for part in x)
    kept = Collected()
    with torch.enable_grad():
        state, slope = first, None
        for move in loop.out.tape.moves[start:end]:
            if slope is None:
                slope = loop.flow(move.t, state) if loop.stepper.needs_slope else state
            fx = slope
            step = loop.stepper.step(
                loop.flow.stages(move.t, move.h),
                loop.spread(move.h, move.graphs, state[0]),
                state,
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
            pulls += _rows_of(loop, slots, slot, graphs)
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


def _rows_of(loop: Loop, slots: State, slot: int, graphs: np.ndarray) -> State:
    value = tuple(part[slot] for part in slots)
    return loop.rows.select(graphs, value, tuple(torch.zeros_like(part) for part in value))


def _add(one: State, other: State) -> State:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def advance(loop: Loop, x: State, leaves: Sequence[Tensor], grad: str) -> Solution:
    """Run the loop and attach the gradient.

    Args:
        loop: The solve.
        x: The first state.
        leaves: Every tensor besides `x` that the field depends on and that requires grad.
        grad: "none", "tape" or "replay".
    """
    if grad == "tape":
        run = loop.run(x)
        stacked, last = run.tape.stacked(x)
        return Solution(stacked, last, run, grad)
    loop.replay = grad == "replay"
    with torch.no_grad():
        run = loop.run(x)
        stacked, last = run.tape.stacked(x)
    if grad == "replay":
        replay: Any = Replay
        flat = replay.apply(loop, (stacked, last), len(x), *x, *leaves)
        stacked, last = tuple(flat[: len(x)]), tuple(flat[len(x) :])
    return Solution(stacked, last, run, grad)
