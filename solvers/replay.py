"""Gradients by discretise-then-optimise: on the tape, by replaying steps, or by undoing them.

A replayed solve keeps about sqrt(N) states of its N accepted steps. The backward pass runs each
stretch between two of them again, with autograd on, from the last to the first. Rejected steps and
step-size control are never differentiated, so the gradient is that of the accepted steps: the same
as on the tape, to rounding (Zhuang et al., Adaptive checkpoint adjoint, ICML 2020,
arXiv:2006.02493).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.integrate import Loop
from solvers.reversible import Reversible, WayBack
from solvers.rows import State
from solvers.stretch import add, rows_of, stretch
from solvers.tape import Run

GRADIENTS = ("auto", "none", "tape", "replay", "reversible")
SHORT = 30
"""Fixed grids up to this many steps stay on the tape under "auto"."""


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
        # Without a single step there is no stretch.
        for (start, x), end in reversed(list(zip(tape.checkpoints, ends, strict=False))):
            g, found = stretch(loop, start, end, x, leaves, slots, g)
            total = [t if f is None else t + f for t, f in zip(total, found, strict=True)]
        for slot, graphs in tape.at_start:
            g = add(g, rows_of(loop, slots, slot, graphs))
        loop.flow.nfe = counted
        return (None, None, None, *g, *total)


ROUTES: dict[str, Any] = {"replay": Replay, "reversible": Reversible}


def advance(loop: Loop, x: State, leaves: Sequence[Tensor], grad: str) -> Solution:
    """Run the loop and attach the gradient.

    Args:
        loop: The solve.
        x: The first state.
        leaves: Every tensor besides `x` that the field depends on and that requires grad.
        grad: "none", "tape", "replay" or "reversible".

    Raises:
        ValueError: When "reversible" is not for this solve; see `solvers.reversible`.
    """
    if grad == "tape":
        run = loop.run(x)
        stacked, last = run.tape.stacked(x)
        return Solution(stacked, last, run, grad)
    loop.replay = grad in ROUTES
    if grad == "reversible":
        damping = loop.flow.structure.damping
        loop.marks = WayBack.plan(loop.stepper, damping, loop.pace, loop.flow.dtype).kept
    with torch.no_grad():
        run = loop.run(x)
        stacked, last = run.tape.stacked(x)
    # What watched the run has seen it all; the way back would hold it until it is over.
    loop.monitors = ()
    if grad in ROUTES:
        flat = ROUTES[grad].apply(loop, (stacked, last), len(x), *x, *leaves)
        stacked, last = tuple(flat[: len(x)]), tuple(flat[len(x) :])
    return Solution(stacked, last, run, grad)
