"""Gradients of oscillators without stored states: the solve is run backwards, step by step.

The steps of `solvers.oscillators` are undone by the same operations in reverse, so the way back
needs the end state alone. Undoing a damp divides by what it has multiplied by: rounding grows by
the product of these factors, ``e^(damping T)`` for exact damping. Where that is too much, a state
is kept every now and then and the way back starts anew from it.

Griewank and Walther, Evaluating Derivatives (SIAM 2008); Gomez, Ren, Urtasun and Grosse, The
reversible residual network, NeurIPS 2017, arXiv:1707.04585, for the idea in networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.integrate import Loop
from solvers.kicks import Damp, Retreat, moved, plain
from solvers.pace import Adaptive, Fixed
from solvers.rows import State
from solvers.stepper import Stepper
from solvers.stretch import add, rows_of, stretch

SEGMENT = 5.0
"""Logarithm of the growth of errors between two kept states: ``damping T`` for exact damping.

In single precision ``e^5 eps = 1.8e-5``; measured is up to thirty times that, where a constant push
holds the velocity and roundings have one sign. At ``damping T = 10`` such errors reach 0.2.

Gradients of ``|x|^2 + sin v`` at the end, by `kick_drift_damp` with ``damping h = 0.01``, were off
by (relative, against double precision, all states undone at once) at ``damping T`` of

    =========================  ======  ======  ======  ======
    field                         2.5       5     7.5      10
    =========================  ======  ======  ======  ======
    constant push, no spring    3e-06   1e-05   9e-04   8e-03
    constant push on a spring   2e-06   2e-06   3e-06   3e-06
    free spring                 2e-06   3e-06   3e-06   5e-06
    wave on a ring              1e-06   2e-06   2e-05   2e-05
    =========================  ======  ======  ======  ======

The tape itself is off by 1e-6 to 2e-5. Springs would bear 10, a push does not, and what a field is
like shows only on the way: so 5, at the price of one kept state."""
WEAK, STRONG = 0.5, 1.0
"""From the first damping h on, states are kept anyway; from the second on, no step is undone."""
EARLY = 10
"""Errors are compared with the state after this fraction of a stretch, for one that starts at 0."""
TOLERATED = 1000.0
"""How much further than rounding explains a way back may miss its goal."""


def allowed_growth(dtype: torch.dtype) -> float:
    """The largest damping T without kept states: what costs the same share of the digits.

    ``5 ln(eps) / ln(eps of float32)``: 5 in single precision, where errors reach
    ``e^5 eps = 1.8e-5``, and 11.3 in double precision, with ``e^11.3 eps = 1.8e-11``.

    >>> round(allowed_growth(torch.float32), 3), round(allowed_growth(torch.float64), 1)
    (5.0, 11.3)
    """
    single = math.log(torch.finfo(torch.float32).eps)
    return SEGMENT * math.log(torch.finfo(dtype).eps) / single


@dataclass(frozen=True)
class WayBack:
    """How a solve on a fixed grid is undone.

    Attributes:
        kept: The moves before which the state is kept; the first one always.

    >>> from solvers.oscillators import kick_drift_damp
    >>> grid = Fixed(0.25 * np.arange(101.0)[:, None])
    >>> way = WayBack.plan(kick_drift_damp(), 0.5, grid, torch.float32)
    >>> sorted(way.kept)
    [0, 40, 80]
    """

    kept: frozenset[int]

    @classmethod
    def plan(
        cls, stepper: Stepper, damping: float | Tensor, pace: Adaptive | Fixed, dtype: torch.dtype
    ) -> Self:
        """Decide where states have to be kept.

        Args:
            stepper: The method.
            damping: Of the field.
            pace: The grid.
            dtype: Of the state.

        Raises:
            ValueError: When the solve cannot be undone; says why and what to take.
        """
        if not stepper.reversible:
            raise ValueError(
                f"grad='reversible' undoes every step, which {stepper.name!r} cannot: it is for "
                "'leapfrog', 'kick_drift_damp', 'symplectic_euler' and 'graphcon', and for exact "
                "solves; use grad='auto'"
            )
        if not isinstance(pace, Fixed):
            raise ValueError("grad='reversible' needs fixed steps: give steps=n, or grad='replay'")
        z = plain(damping) * np.diff(pace.grid, axis=0)
        # A clock that has arrived stands still, with z = 0.
        left = np.ones(z.shape)
        for part in stepper.parts:
            if isinstance(part, Damp):
                left *= np.vectorize(part.factor, otypes=[float])(z)
        # Errors grow by what is divided by, on the clock that is damped most.
        moves = -np.log(np.maximum(left.min(axis=1, initial=1.0), np.finfo(float).tiny))
        strongest = float(np.abs(z).max(initial=0.0))
        if strongest >= STRONG or moves.max(initial=0.0) > SEGMENT:
            raise ValueError(
                f"grad='reversible' divides by what damping leaves of the velocity. Here damping h "
                f"reaches {strongest:.3g}, and {stepper.name!r} leaves {left.min():.3g} of it in "
                f"one step: {'nothing that' if left.min() <= 0 else 'too little that'} could be "
                f"undone. Allowed is damping h < {STRONG:g}, good is below {WEAK:g}: use more "
                "steps, or grad='replay'"
            )
        kept, since = [0], 0.0
        if strongest < WEAK and moves.sum() < allowed_growth(dtype):
            return cls(frozenset(kept))
        for at, more in enumerate(moves):
            if since > 0 and since + more > SEGMENT * (1 + 1e-9):
                kept.append(at)
                since = 0.0
            since += float(more)
        return cls(frozenset(kept))

    def pays(self, steps: int) -> bool:
        """Whether it keeps fewer states than a replay does.

        >>> WayBack(frozenset({0})).pays(100), WayBack(frozenset(range(50))).pays(100)
        (True, False)
        """
        return len(self.kept) <= math.sqrt(steps)


class Reversible(torch.autograd.Function):
    """The outputs of a finished run as a function of its first state and its leaves."""

    @staticmethod
    def forward(
        ctx: Any, loop: Loop, out: tuple[State, State], parts: int, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Hand the outputs through; keep the loop and the end for the way back."""
        ctx.loop, ctx.parts, ctx.end = loop, parts, out[1]
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return (*(part.clone() for part in out[0]), *(part.clone() for part in out[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        """Undo the moves from the last to the first."""
        loop, parts = ctx.loop, ctx.parts
        tape = loop.out.tape
        slots = _filled(given[:parts], ctx.end, tape.slots)
        last = _filled(given[parts:], ctx.end)
        kept = dict(tape.checkpoints)
        way = Pullback(loop, ctx.saved_tensors[parts:], ctx.end, slots, last)
        starts = sorted(kept)
        ends = [*starts[1:], len(tape.moves)]
        early = {start + (end - start) // EARLY for start, end in zip(starts, ends, strict=True)}
        for at in reversed(range(len(tape.moves))):
            way.undo(at, slots)
            if at in early:
                way.measure()
            if at in kept:
                way.land(kept[at])
        g = way.gradient
        for slot, graphs in tape.at_start:
            g = add(g, rows_of(loop, slots, slot, graphs))
        return (None, None, None, *g, *way.leaf_gradients())


class Pullback(Retreat):
    """A state on its way back, and with it the gradient of everything after it.

    The force at a position is evaluated once for the kicks of both steps that meet there, and
    differentiated once, when the position changes: what its kicks pass on is collected until then.
    A graph waits at its first state, where its force is finite, until its last move is undone; one
    that nobody asks for waits there for ever.

    Args:
        loop: The finished run.
        leaves: What the force depends on besides the position.
        end: The end state.
        slots: The gradients of what was saved, `[saved, rows, ...]` parts.
        last: The gradient of the end state.
    """

    def __init__(
        self, loop: Loop, leaves: Sequence[Tensor], end: State, slots: State, last: State
    ) -> None:
        checkpoints = loop.out.tape.checkpoints
        first = checkpoints[0][1] if checkpoints else end
        super().__init__(loop.flow.stages(loop.t, 0.0 * loop.t), 0.0, first)
        self.loop, self.leaves, self.end, self.gradient = loop, leaves, end, last
        self.totals = [torch.zeros_like(leaf) for leaf in leaves]
        self.damping_total: float | Tensor = 0.0
        self.owed: Tensor | None = None
        asked = [loop.rows.sums((part.abs(),)) for part in (*last, *(g for p in slots for g in p))]
        self.asked: np.ndarray = (torch.stack(asked).sum(0) != 0).cpu().numpy()
        self.awake = np.zeros_like(self.asked)

    def _wake(self, graphs: np.ndarray) -> None:
        """Put those at the end state that are met for the first time."""
        new = graphs & ~self.awake
        if new.any():
            self.settle()
            state = self.loop.rows.select(new, self.end, (self.position, self.velocity))
            self.position, self.velocity = state
            self.awake = self.awake | new

    def undo(self, at: int, slots: State) -> None:
        """Undo one move; the gradients of what it saved join in first."""
        loop, move = self.loop, self.loop.out.tape.moves[at]
        graphs = move.graphs & self.asked
        self._wake(graphs)
        self.f = loop.flow.stages(move.t, move.h)
        size = np.where(graphs, move.h, 0.0) if len(move.h) > 1 else move.h
        self.h = loop.spread(size, graphs, self.position)
        if not loop.stepper.parts or any((save.theta != 1.0).any() for save in move.saves):
            self._undo_slowly(at, slots)
            return
        for save in move.saves:
            self.gradient = add(self.gradient, rows_of(loop, slots, save.slot, save.graphs))
        for part in reversed(loop.stepper.parts):
            part.on(self)

    def _undo_slowly(self, at: int, slots: State) -> None:
        """Undo a move, then take it again with autograd on: for states saved inside a step."""
        self.settle()
        loop, after = self.loop, (self.position, self.velocity)
        before = self.position, self.velocity = loop.stepper.inverse(self.f, self.h, after)
        self.gradient, found = stretch(loop, at, at + 1, before, self.leaves, slots, self.gradient)
        self._collect(found)

    def pull(self, node: float) -> Tensor:
        """The force, recorded for `settle`."""
        if self.force is None:
            self.position = self.position.detach().requires_grad_()
            with torch.enable_grad():
                self.recorded = super().pull(node)
            self.force = self.recorded.detach()
            self.position, self.point = self.position.detach(), self.position
        return self.force

    def kick(self, weight: float, node: float) -> None:
        """Undo a kick: it passes the velocity's gradient on to the force."""
        super().kick(weight, node)
        passed = self.gradient[1] * (weight * self.h)
        self.owed = passed if self.owed is None else self.owed + passed

    def drift(self, weight: float) -> None:
        """Undo a drift: it passes the position's gradient on to the velocity."""
        self.settle()
        super().drift(weight)
        position, velocity = self.gradient
        self.gradient = position, moved(velocity, weight * self.h, position)

    def damp(self, law: Damp) -> None:
        """Undo a damp: it scales the velocity's gradient as it scales the velocity."""
        super().damp(law)
        position, velocity = self.gradient
        damping = self.f.flow.structure.damping
        z = damping * self.h
        if isinstance(damping, Tensor) and damping.requires_grad:
            share = (velocity * self.velocity.conj()).real
            self.damping_total = self.damping_total + (share * (law.slope(z) * self.h)).sum()
        self.gradient = position, velocity * law.factor(z)

    def settle(self) -> None:
        """Differentiate the force at the position that is about to be left."""
        owed, self.owed, self.force = self.owed, None, None
        if owed is None or not self.recorded.requires_grad:
            return
        found = torch.autograd.grad(
            self.recorded, (self.point, *self.leaves), owed, allow_unused=True
        )
        position, velocity = self.gradient
        if found[0] is not None:
            self.gradient = position + found[0], velocity
        self._collect(found[1:])

    def measure(self) -> None:
        """Take the size of the state as the measure of errors."""
        self.size = self.loop.rows.mean_square((self.position, self.velocity))

    def land(self, x: State) -> None:
        """Take the kept state for the one that was reached, if they agree."""
        self.settle()
        rows = self.loop.rows
        here = (self.position, self.velocity)
        x = rows.select(self.awake, x, here)
        missed = tuple(a - b for a, b in zip(here, x, strict=True))
        scale = torch.maximum(rows.mean_square(x), self.size)
        miss = (rows.mean_square(missed) / scale).sqrt().nan_to_num(math.inf, math.inf)
        miss = torch.where(scale > 0, miss, 0.0)
        dtype = x[0].dtype
        tolerance = TOLERATED * math.exp(allowed_growth(dtype)) * torch.finfo(dtype).eps
        if bool((miss > tolerance).any()):
            g = int(miss.argmax())
            clock = min(g, len(self.f.t) - 1)
            where = f"of graph {g} " if len(miss) > 1 else ""
            raise RuntimeError(
                f"grad='reversible' came back to the state {where}at t={self.f.t[clock]:.6g} with "
                f"a relative error of {float(miss[g]):.2g} (allowed: {tolerance:.2g}): backwards "
                f"in time {self.f.flow.structure.name} amplifies rounding, by more than its "
                "damping explains, so the gradient would be wrong; use grad='replay'"
            )
        self.position, self.velocity = x

    def leaf_gradients(self) -> list[Tensor]:
        """The gradients of the leaves, the damping's share among them."""
        damping, total = self.f.flow.structure.damping, self.damping_total
        if isinstance(damping, Tensor) and isinstance(total, Tensor):
            seed = total.to(damping).reshape(damping.shape)
            self._collect(torch.autograd.grad(damping, self.leaves, seed, allow_unused=True))
        return self.totals

    def _collect(self, found: Sequence[Tensor | None]) -> None:
        for total, one in zip(self.totals, found, strict=True):
            if one is not None:
                total += one


def _filled(given: Sequence[Tensor | None], like: State, *leading: int) -> State:
    """Gradients, with zeros that take no memory in place of those that nobody asked for."""
    return tuple(
        part.new_zeros(()).expand(*leading, *part.shape) if g is None else g
        for g, part in zip(given, like, strict=True)
    )
