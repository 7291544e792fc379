"""The route of a piecewise field: one solve after the other, joined to one trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from neuralpde.problem import Problem
from solvers.failure import DONE
from solvers.schedules import Points, Uniform
from solvers.series import Series
from solvers.steps import Steps
from solvers.trajectory import Stats, Trajectory


class Route(Protocol):
    """A way to solve one piece."""

    def run(self, problem: Problem) -> Trajectory:
        """Solve it."""


@dataclass
class Chain:
    """The pieces of a field, each solved by the route that is best for it.

    Graphs of a batch that fail or stop in one piece stay where they are; the others go on.

    Args:
        choose: Finds the route of a piece.
    """

    choose: Callable[[Problem], Route]

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        pieces: Any = problem.field
        fractions = np.array(pieces.fractions)
        start, end = problem.t[:1], problem.t[-1:]
        bounds = [start + fraction * (end - start) for fraction in pieces.fractions[:-1]]
        joined = _Joined(problem, [*bounds, end])
        state = problem.x0
        for k, field in enumerate(pieces.pieces):
            part = self._piece(problem, field, state, joined.asked(k), fractions[k : k + 2])
            joined.add(self.choose(part).run(part))
            if joined.over:
                break
            state = joined.state()
        return joined.trajectory()

    @staticmethod
    def _piece(
        problem: Problem, field: Any, x0: tuple[Tensor, ...], t: Tensor, ends: np.ndarray
    ) -> Problem:
        bound = field.bind(problem.graph, x0 if problem.packed else x0[0])
        schedule, steps = problem.schedule, problem.steps
        if problem.fixed:
            grid = (schedule or Uniform()).grid(steps or len(schedule.times) - 1)
            low, high = ends
            # A point of the grid within rounding of a boundary is that boundary.
            inner = grid[(grid > low + 1e-12) & (grid < high - 1e-12)]
            schedule = Points((0.0, *((inner - low) / (high - low)).tolist(), 1.0))
            steps = len(schedule.times) - 1
        return replace(
            problem,
            f=bound,
            field=bound,
            name=type(field).__name__,
            x0=x0,
            t=t,
            times=t.detach().numpy().reshape(len(t), -1),
            schedule=schedule,
            steps=steps,
        )


class _Joined:
    """Trajectories that follow one another.

    Args:
        problem: What was asked of the whole.
        bounds: Where pieces begin and end, `[1]` or `[1, graphs]` each.
    """

    def __init__(self, problem: Problem, bounds: list[Tensor]) -> None:
        self.problem, self.bounds = problem, bounds
        self.parts: list[Trajectory] = []
        self.going: list[np.ndarray] = []
        self.saved: list[tuple[np.ndarray, np.ndarray]] = []
        graphs = problem.rows.num_graphs
        self.status, self.messages = [DONE] * graphs, dict[int, str]()
        last = torch.from_numpy(problem.times[-1])
        self.ended = last.repeat(1 if problem.times.shape[1] > 1 else graphs)

    def asked(self, k: int) -> Tensor:
        """The times for which piece k is solved: its ends, and in between those to be saved."""
        low, high = self.bounds[k], self.bounds[k + 1]
        times, sign = self.problem.times, self._sign()
        ends = [bound.detach().numpy().reshape(1, -1) for bound in (low, high)]
        inside = (sign * (times - ends[0]) > 0) & (sign * (times - ends[1]) <= 0)
        inside |= (times == ends[0]) & (k == 0)
        slots = np.flatnonzero(inside.any(1))
        self.saved.append((slots, inside[slots]))
        t = self.problem.t[torch.from_numpy(slots)]
        clamped = torch.maximum(t, torch.minimum(low, high))
        clamped = torch.minimum(clamped, torch.maximum(low, high))
        return torch.cat([low, clamped, high])

    def _alive(self) -> np.ndarray:
        return np.array([word == DONE for word in self.status])

    def _sign(self) -> np.ndarray:
        return np.where(self.problem.times[-1] >= self.problem.times[0], 1.0, -1.0)

    def add(self, part: Trajectory) -> None:
        """Append a piece and note which graphs ended in it."""
        status = (part.status,) if isinstance(part.status, str) else part.status
        alive = self._alive()
        self.going.append(alive)
        for g, word in enumerate(status):
            if self.status[g] == DONE and word != DONE:
                self.status[g] = word
                if g in part.messages:
                    self.messages[g] = f"in piece {len(self.parts)}: {part.messages[g]}"
        if part.ended is not None:
            here = torch.from_numpy(alive & ~self._alive())
            self.ended = torch.where(here, part.ended.reshape(-1), self.ended)
        self.parts.append(part)

    @property
    def over(self) -> bool:
        """Whether no graph goes on."""
        return not self._alive().any() or self.parts[-1].interrupted

    def state(self) -> tuple[Tensor, ...]:
        """Where the next piece begins."""
        final = self.parts[-1].final
        state = final if isinstance(final, tuple) else (final,)
        # Graphs that have ended go along from a state that did no harm; nobody reads what they do.
        return self.problem.rows.select(self._alive(), state, self.problem.x0)

    def trajectory(self) -> Trajectory:
        """The whole."""
        problem, parts = self.problem, self.parts
        if problem.save == "steps":
            t = torch.cat([p.t if k == 0 else p.t[1:] for k, p in enumerate(parts)])
            states = [_x(p, 0 if k == 0 else 1) for k, p in enumerate(parts)]
            x = tuple(torch.cat(pieces) for pieces in zip(*states, strict=True))
        else:
            t, x = problem.t, self._at_saved()
        one = problem.rows.num_graphs == 1
        solvers = " + ".join(dict.fromkeys(part.stats.solver for part in parts))
        trajectory = Trajectory(
            t,
            x if problem.packed else x[0],
            _joined_stats([part.stats for part in parts], solvers),
            self.status[0] if one else tuple(self.status),
            self.messages,
            {**problem.settings, "solver": solvers},
            problem.graph,
            last=self._last(),
            ended=self.ended[0] if one else self.ended,
            interrupted=parts[-1].interrupted,
            steps=_joined_steps(parts),
            _dense=self._at,
        )
        for name in parts[0]:
            trajectory.offer(name, partial(_joined_series, parts, self.going, name))
        return trajectory

    def _at_saved(self) -> tuple[Tensor, ...]:
        """States at the times that were asked for, NaN where they were not reached."""
        rows = self.problem.rows
        states: list[Any] = [None] * len(self.problem.times)
        nowhere = tuple(torch.full_like(part, torch.nan) for part in self.problem.x0)
        for part, (slots, inside), going in zip(self.parts, self.saved, self.going, strict=False):
            for k, slot in enumerate(slots):
                here = tuple(one[k + 1] for one in _x(part))
                mine = inside[k] & going
                states[slot] = rows.select(mine, here, states[slot] or nowhere)
        reached = (state or nowhere for state in states)
        return tuple(torch.stack(pieces) for pieces in zip(*reached, strict=True))

    def _last(self) -> Any:
        """Where each graph ended, in whichever piece that was."""
        last: tuple[Tensor, ...] | None = None
        for part, going in zip(self.parts, self.going, strict=True):
            final = part.final if isinstance(part.final, tuple) else (part.final,)
            last = final if last is None else self.problem.rows.select(going, final, last)
        assert last is not None
        return last if self.problem.packed else last[0]

    def _at(self, t: float) -> Any:
        bounds = [float(bound.detach()[0]) for bound in self.bounds[1:-1]]
        sign = float(self._sign()[0])
        return self.parts[sum(sign * (t - bound) > 0 for bound in bounds)].at(t)


def _x(part: Trajectory, first: int = 0) -> tuple[Tensor, ...]:
    return tuple(x[first:] for x in part.x) if isinstance(part.x, tuple) else (part.x[first:],)


def _joined_stats(stats: Sequence[Stats], solvers: str) -> Stats:
    def total(name: str) -> Any:
        counts = [getattr(one, name) for one in stats]
        width = max((len(c) for c in counts if isinstance(c, tuple)), default=0)
        if not width:
            return sum(counts)
        wide = [c if isinstance(c, tuple) else (c,) * width for c in counts]
        return tuple(map(sum, zip(*wide, strict=True)))

    reasons = "; ".join(f"piece {k}: {one.reason}" for k, one in enumerate(stats))
    return Stats(
        solvers,
        reasons,
        total("nfe"),
        total("operator_products"),
        total("accepted"),
        total("rejected"),
        gradient=" + ".join(dict.fromkeys(one.gradient for one in stats)),
    )


def _joined_steps(parts: Sequence[Trajectory]) -> Steps | None:
    """All of them, or None where a piece tells none."""
    known = [part.steps for part in parts if part.steps is not None]
    return Steps.joined(known) if len(known) == len(parts) else None


def _joined_series(parts: Sequence[Trajectory], going: Sequence[np.ndarray], name: str) -> Series:
    """The series of all pieces; a boundary counts once, with the value before it."""
    series = [part[name] for part in parts]
    stacks: list[list[Tensor]] = [[], [], []]
    for one, alive in zip(series, going, strict=True):
        y = one.y.reshape(len(one.y), -1)
        t = one.t.reshape(len(one.t), -1).expand(y.shape)
        t = torch.where(torch.from_numpy(alive)[: y.shape[1]], t, torch.nan)
        for stack, values in zip(stacks, (t, y, one.floor.reshape(y.shape)), strict=True):
            stack.append(values)
    # Graphs take different numbers of steps in a piece, and boundaries come twice.
    t, y, floor = (torch.cat(stack) for stack in stacks)
    t, y, floor = _without(t, y, floor, lambda t: t.isnan())
    t, y, floor = _without(t, y, floor, lambda t: t == torch.cat([t[:1] - 1, t[:-1]]))
    if series[0].y.dim() == 1:
        t, y, floor = t[:, 0], y[:, 0], floor[:, 0]
    return Series(t, y, "; then ".join(dict.fromkeys(one.convention for one in series)), floor)


def _without(
    t: Tensor, y: Tensor, floor: Tensor, void: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave out points, column by column; what is behind the last one is NaN."""
    out = void(t)
    order = torch.argsort(out.to(torch.int8), dim=0, stable=True)[: int((~out).sum(0).max())]
    beyond = out.gather(0, order)
    t, y, floor = (v.gather(0, order).masked_fill(beyond, torch.nan) for v in (t, y, floor))
    return t, y, floor
