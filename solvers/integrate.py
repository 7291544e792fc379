"""The loop that advances a state in time: one loop for one graph and for a thousand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.cutting import end_at_roots
from solvers.diagnosis import Breakdown
from solvers.events import Crossings, crossings
from solvers.failure import DONE, INTERRUPTED, MAX_STEPS, NOT_FINITE, STEP_TOO_SMALL, STOPPED
from solvers.flow import Flow, Stages
from solvers.masks import every, some
from solvers.pace import Adaptive, Fixed
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper, Trouble
from solvers.steps import Try
from solvers.stopping import Stopping
from solvers.tape import Kept, Move, Run, Save, Tape, write_saves

Monitor = Callable[[np.ndarray, State, State | None, np.ndarray], None]
"""Called with times per graph, the new state, its slope if it is known, and who just moved."""


@dataclass
class Loop:
    """One solve in time.

    Args:
        flow: The field on its clocks.
        stepper: The method.
        pace: Who chooses the steps.
        rows: How rows belong to graphs.
        times: Save times `[saved, clocks]`; row 0 is the start, the last row the end.
        monitors: Called at the start and after every accepted step.
        stop: The conditions that end graphs early.
        max_steps: Most steps tried per clock.
        replay: Whether the tape keeps what replaying needs.
        marks: The moves before which a replayed run keeps its state; None: a root of them.
        keep_steps: Whether every accepted state is kept (one graph).
        report: Called with the fraction of time covered after each step.
    """

    flow: Flow
    stepper: Stepper
    pace: Adaptive | Fixed
    rows: Rows
    times: np.ndarray
    monitors: tuple[Monitor, ...] = ()
    stop: Stopping | None = None
    max_steps: int = 10_000
    replay: bool = False
    keep_steps: bool = False
    report: Callable[[float], None] | None = None
    marks: frozenset[int] | None = None

    def run(self, x: State) -> Run:
        """Advance from the first to the last save time, or until every graph has ended."""
        self._open(x)
        try:
            self._advance()
        except KeyboardInterrupt:
            self.out.interrupted = True
            self.out.tape.cut(self.taken)
            del self.out.kept[self.taken :]
            self._fail(self.alive, INTERRUPTED)
        self._retire(self.alive)
        if self.keep_steps:
            slope = self.fx if self.slope_known else None
            self.out.kept.append(Kept(float(self.t[0]), self.x, slope))
        self.out.tape.save(len(self.times), np.ones(self.rows.num_graphs, bool), self.x)
        return self.out

    def _open(self, x: State) -> None:
        adaptive = isinstance(self.pace, Adaptive)
        rtol, atol = (self.pace.rtol, self.pace.atol) if adaptive else (None, None)
        deviation = self.pace.deviation if isinstance(self.pace, Adaptive) else None
        graded = self.replay or torch.is_grad_enabled()
        accuracy = Accuracy(rtol, atol, differentiated=graded, deviation=deviation)
        self.stepper = self.stepper.begin(self.flow, self.rows, accuracy)
        self.trouble: Trouble | None = None
        graphs, clocks = self.rows.num_graphs, self.times.shape[1]
        self.clock_of = np.arange(graphs) if clocks > 1 else np.zeros(graphs, dtype=int)
        self.x = self.start = x
        self.slope_known = False
        self.ratio = np.full(graphs, np.nan)
        self.t, self.end = self.times[0].copy(), self.times[-1]
        self.direction = 1.0 if (self.end >= self.t).all() else -1.0
        self.next = np.ones(clocks, dtype=int)
        self.tried, self.taken, self.spoiled = 0, 0, False
        self.alive = np.ones(graphs, dtype=bool)
        none = np.zeros(graphs, dtype=int)
        tape = Tape(len(self.times), self.rows, self.replay, self.marks)
        first = self.rows.mean_squares(x)
        self.out = Run(tape, [DONE] * graphs, {}, none, none, self.t, first, first)
        self.out.tape.save_start(0, self.alive.copy(), x)
        self.crossings: Crossings | None = None
        if self.stop is not None:
            self.stop.begin(self.flow, self.rows, self.stepper, accuracy)
            self.crossings = crossings(self.stop, self.stepper.stochastic, self.t[self.clock_of], x)

    def _advance(self) -> None:
        self.fx = self.flow(self.t, self.x)
        self.slope_known = True
        blind = ~np.isfinite(self.rows.mean_squares(self.fx))
        if some(blind):
            self._fail(blind, NOT_FINITE)
        self._after(np.ones_like(self.alive))
        self._save_at_start()
        self.take_stock()
        if isinstance(self.pace, Adaptive) and self.going.any():
            rest = tuple(torch.zeros_like(part) for part in self.fx)
            slope = self.rows.select(self.alive, self.fx, rest)
            self.pace.start(self.flow, self.t, self.end, self.x, slope, self.stepper, self.rows)
        while some(self.going):
            self._step()
            if self.report is not None:
                self.report(self._covered())

    def spread(self, h: np.ndarray, graphs: np.ndarray, like: Tensor) -> float | Tensor:
        """The clocks' steps as rows take them; graphs that have ended take none on a shared clock.

        They would not be seen again, but what overflows in them would spoil the gradients of all.
        """
        if len(h) == 1 and not every(graphs):
            return self.rows.spread(np.where(graphs, h, 0.0), like)
        return self.flow.clocks.spread(h, like)

    def take_stock(self) -> None:
        """Who is still going, and what is the next time to save; after each change of either."""
        clocks = np.arange(len(self.t))
        self.due = self.times[np.minimum(self.next, len(self.times) - 1), clocks]
        alive = self.alive if len(self.t) > 1 else self.alive.any(keepdims=True)
        self.going: np.ndarray = alive & (self.t != self.end)
        self.moving = self.alive & self.going[self.clock_of]
        self.saves_inside = bool((self.due != self.end).any())
        self.undisturbed = every(self.moving)

    def _step(self) -> None:
        """Try one step of every clock that is still going."""
        if not self.slope_known and self.stepper.needs_slope:
            self.fx, self.slope_known = self.flow(self.t, self._standing()), True
        slope = self.fx if self.slope_known else self.x
        target = self.end if self.stepper.dense else self.due
        left = self.direction * (target - self.t)
        size = self.stepper.limit(self.pace.propose(left))
        if not self.undisturbed:
            size = np.where(self.going, size, 0.0)
        h = self.direction * size
        ahead = self.pace.ahead() if isinstance(self.pace, Fixed) else None
        f = self.flow.stages(self.t, h, ahead)
        plan = self.stepper.plan(f, self.x, slope)
        step = self.take(self.alive, h, plan, f, error=self.pace.adaptive)
        self.tried, self.trouble = self.tried + 1, step.trouble
        if isinstance(self.pace, Fixed):
            moved, arrival = self._look(step, h), self.pace.landed(self.going)
        else:
            moved = self._judge(step, size)
            lands = size == left
            arrival = np.where(lands, target, self.t + h) if some(lands) else self.t + h
        if self.spoiled and moved.any() and torch.is_grad_enabled():
            # What overflowed in the others would come back from the tape as 0 times nan.
            if not self.pace.adaptive and self.slope_known:
                self.fx = self.flow(self.t, self._standing())
            step = self.take(moved[self.clock_of] & self.alive, np.where(moved, h, 0.0), plan)
        if self.crossings is not None and moved.any():
            moved = end_at_roots(self, self.crossings, step, h, arrival, moved, plan)
        if every(moved):
            self.accept(self.alive, step, h, arrival, plan)
        elif some(moved):
            h, arrival = np.where(moved, h, 0.0), np.where(moved, arrival, self.t)
            self.accept(moved[self.clock_of] & self.alive, step, h, arrival, plan)
        if self.tried >= self.max_steps:
            self._fail(self.alive & self.going[self.clock_of], MAX_STEPS)
            self.take_stock()

    def _look(self, step: Step, h: np.ndarray) -> np.ndarray:
        """Fixed steps are taken as they are, as long as they are finite."""
        size = self.rows.mean_squares(step.x)
        self.out.largest = np.fmax(self.out.largest, size)
        lost = self.moving & ~np.isfinite(size)
        self.spoiled = some(lost)
        if self.spoiled:
            self._fail(lost, NOT_FINITE, h)
            self.take_stock()
        if step.trouble is not None:
            self._fail(self.moving & step.trouble.struck(self.clock_of), step.trouble.status, h)
            self.take_stock()
        self.stepper.judged(step, self.going, np.abs(h))
        return self.going

    def _judge(self, step: Step, size: np.ndarray) -> np.ndarray:
        """Which clocks accept their step."""
        assert isinstance(self.pace, Adaptive)
        ratio = self.pace.ratio(self.x, step, self.rows)
        if step.trouble is not None:
            ratio = np.where(step.trouble.struck(self.clock_of), np.inf, ratio)
        self.ratio = ratio if self.undisturbed else np.where(self.moving, ratio, 0.0)
        worst = self.ratio if len(self.t) == len(self.ratio) else self.ratio.max(keepdims=True)
        accepted = self.pace.judge(worst, size, self.going, self.stepper.error_order)
        self.stepper.judged(step, accepted, size)
        frozen = accepted & (self.t + self.direction * size == self.t)
        if some(frozen):
            # A step that passes without moving its clock is none, unless the next one is longer.
            accepted = accepted & ~(frozen := frozen & self.pace.stuck(self.t, self.end))
        self.spoiled = not every(accepted) and not np.isfinite(self.ratio).all()
        if not every(accepted):
            self.out.rejected = self.out.rejected + (self.moving & ~accepted[self.clock_of])
            self.out.tries.append(Try(self.t, self.direction * size * ~accepted, self.ratio, False))
            self._give_up(accepted, size, np.where(frozen, worst, np.nan))
        return accepted

    def accept(
        self, graphs: np.ndarray, step: Step, h: np.ndarray, arrival: np.ndarray, plan: Any
    ) -> None:
        """Move the clocks, write what was to be saved, and tell who watches."""
        saves: tuple[Save, ...] = ()
        if some(self.direction * (self.due - arrival) <= 0):
            saves = self._saves(graphs, arrival, h)
        ends = write_saves(self.out.tape, saves, self.flow, self.t, h, self.x, self.fx, step)
        if self.replay:
            self.out.tape.record(Move(self.t, h, graphs, saves, plan), self.x)
        if self.keep_steps:
            self.out.kept.append(Kept(float(self.t[0]), self.x, self.fx, step.mid))
        x = self.rows.select(graphs, step.x, self.x)
        fx = self.fx if ends is None else self.rows.select(graphs, ends, self.fx)
        known, taken = ends is not None, self.taken + 1
        # One statement without a call in it: Ctrl-C finds all of it done, or nothing.
        self.x, self.fx, self.slope_known, self.t, self.taken = x, fx, known, arrival, taken
        self.out.tries.append(Try(arrival, h, self.ratio, True))
        self.out.accepted = self.out.accepted + graphs
        self._after(graphs)
        if saves or not every(self.alive):
            self.take_stock()

    def _after(self, graphs: np.ndarray) -> None:
        """Call the monitors and the stop conditions on the new state of these graphs."""
        if self.stop is not None and self.stop.needs_slope and not self.slope_known:
            self.fx, self.slope_known = self.flow(self.t, self.x), True
        if self.stop is None and not self.monitors:
            return
        times, slope = self.t[self.clock_of], self.fx if self.slope_known else None
        for monitor in self.monitors:
            monitor(times, self.x, slope, graphs)
        if self.stop is not None:
            ending = self.stop(times, self.x, slope, graphs & self.alive)
            for g, name in ending.items():
                self.out.status[g] = f"{STOPPED} ({name})"
            self._retire(np.isin(np.arange(len(graphs)), list(ending)))

    def take(
        self,
        graphs: np.ndarray,
        h: np.ndarray,
        plan: Any,
        f: Stages | None = None,
        *,
        error: bool = False,
    ) -> Step:
        """A step of these graphs from where they are; the others stay."""
        return self.stepper.step(
            self.flow.stages(self.t, h) if f is None else f,
            self.spread(h, graphs, self.x[0]),
            self._standing(),
            self.fx if self.slope_known else self.x,
            error=error,
            mid=self.keep_steps or self.saves_inside,
            plan=plan,
        )

    def _standing(self) -> State:  # The field is finite where a graph that has failed began.
        return self.rows.select(self.alive, self.x, self.start)

    def _saves(self, graphs: np.ndarray, arrive: np.ndarray, h: np.ndarray) -> tuple[Save, ...]:
        """The save times inside this step; the clocks' pointers go past them."""
        saves: list[Save] = []
        last = len(self.times) - 1
        clocks = np.arange(len(self.t))
        while True:
            time = self.times[np.minimum(self.next, last), clocks]
            due = (h != 0) & (self.next <= last) & (self.direction * (time - arrive) <= 0)
            if not due.any():
                return tuple(saves)
            for slot in sorted(set(self.next[due].tolist())):
                here = due & (self.next == slot)
                within = np.divide(time - self.t, h, out=np.ones_like(h), where=h != 0)
                theta = np.where(here & (time != arrive), within, 1.0)
                saves.append(Save(slot, theta, here[self.clock_of] & graphs))
            self.next = self.next + due

    def _give_up(self, accepted: np.ndarray, size: np.ndarray, held: np.ndarray) -> None:
        """End the graphs whose clocks cannot step any more, or are held by passing errors."""
        assert isinstance(self.pace, Adaptive)
        stuck = self.pace.stuck(self.t, self.end) & self.going & ~accepted
        if stuck.any():
            culprits = ~(self.ratio <= 1.0) | (self.ratio == held[self.clock_of])
            bad = stuck[self.clock_of] & self.alive & culprits
            why = STEP_TOO_SMALL if self.trouble is None else self.trouble.status
            self._fail(bad, why, self.direction * size)
            self.pace.recover(stuck, self.t, self.end)
            self.take_stock()

    def _fail(self, graphs: np.ndarray, status: str, h: np.ndarray | None = None) -> None:
        """End these graphs, each with its status and the sentence that explains it."""
        failing = np.flatnonzero(graphs & self.alive)
        self._retire(graphs)
        breakdown = Breakdown(
            status,
            self.flow,
            self.rows,
            self.clock_of,
            self.x,
            self.start,
            self.t,
            self.t if h is None else self.t + h,
            self.end,
            self.ratio,
            [one.h for one in self.out.tries if one.accepted],
            self.out.accepted,
            self.out.rejected,
            self.stepper.stability,
            self.max_steps,
            self.trouble,
        )
        for g, (word, text) in breakdown.explain(failing).items():
            self.out.status[g], self.out.messages[g] = word, text

    def _retire(self, graphs: np.ndarray) -> None:
        """These graphs go no further than they are now; a clock they shared may go on."""
        self.out.ended = np.where(graphs & self.alive, self.t[self.clock_of], self.out.ended)
        self.alive = self.alive & ~graphs

    def _save_at_start(self) -> None:
        """Save times equal to the start need no step."""
        self.take_stock()
        while (due := (self.due == self.t) & (self.next < len(self.times))).any():
            for slot in sorted(set(self.next[due].tolist())):
                here = (due & (self.next == slot))[self.clock_of]
                self.out.tape.save_start(slot, here, self.x)
            self.next = self.next + due
            self.take_stock()

    def _covered(self) -> float:
        span, way = np.abs(self.end - self.times[0]), np.abs(self.t - self.times[0])
        return float((way[span > 0] / span[span > 0]).min())
