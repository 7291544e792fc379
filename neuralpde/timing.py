"""Times of a march: the grid of fixed steps, and the gradients of the saved times."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.calling import unpack
from neuralpde.problem import Problem
from solvers.events import linked
from solvers.failure import DONE
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.replay import Solution
from solvers.rows import State
from solvers.schedules import Uniform


def fixed_grid(problem: Problem, times: np.ndarray) -> np.ndarray:
    """The schedule's points on every clock's interval, with its save times added."""
    schedule: Any = problem.schedule or Uniform()
    points = schedule.grid(problem.steps or len(schedule.times) - 1)
    columns = []
    for own in times.T:
        start, end = own[0], own[-1]
        grid = start + points * (end - start)
        grid[-1] = end
        sign = 1.0 if end >= start else -1.0
        # A grid point within rounding of a saved time is that saved time.
        near = np.abs(grid[:, None] - own[None, :]).min(1) <= 1e-12 * abs(end - start)
        columns.append(sign * np.unique(sign * np.concatenate([grid[~near], own])))
    longest = max(map(len, columns))
    return np.stack([np.pad(c, (0, longest - len(c)), mode="edge") for c in columns], axis=1)


def moved_start(problem: Problem, flow: Flow) -> State:
    """Attach the gradient of the start time: x0 - f(t0, x0) (t0 - its value)."""
    if not problem.t.requires_grad:
        return problem.x0
    shift = (problem.t[0] - problem.t[0].detach()).to(problem.x0[0])
    if shift.dim():
        raise ValueError("gradients of times per graph need an exact solver")
    slope = problem.f(flow.time(problem.times[0, :1]), unpack(problem, problem.x0))
    slopes = slope if problem.packed else (slope,)
    return tuple(x - f.detach() * shift for x, f in zip(problem.x0, slopes, strict=True))


def moved_times(problem: Problem, loop: Loop, solution: Solution) -> tuple[State, State]:
    """Attach the gradients of the saved times: dx/dt = f(t, x) at each of them."""
    if not problem.t.requires_grad:
        return solution.x, solution.last
    shift = (problem.t - problem.t.detach()).to(problem.x0[0])
    states = []
    for s in range(len(problem.t)):
        state = tuple(part[s] for part in solution.x)
        with torch.no_grad():
            f = problem.f(loop.flow.time(problem.times[s, :1]), unpack(problem, state))
        # A time that was not reached has no slope, and whatever it is, no gradient.
        slopes = tuple(k.nan_to_num() for k in (f if problem.packed else (f,)))
        # At the start this undoes the start's own shift: x(t0) is x0 whatever t0.
        states.append(tuple(x + k * shift[s] for x, k in zip(state, slopes, strict=True)))
    stacked = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
    arrived = np.array([word == DONE for word in solution.run.status])
    return stacked, problem.rows.select(arrived, states[-1], solution.last)


def moved_ends(problem: Problem, loop: Loop, last: State) -> tuple[Tensor, State]:
    """Attach the gradients of the times at which events ended graphs; the times are float64."""
    run, events = loop.out, loop.crossings
    wanted = torch.is_grad_enabled() and problem.grad != "none"
    if events is None or not events.cuts or not events.ended or not wanted:
        return torch.from_numpy(run.ended), last
    return linked(events.ended, run.ended, loop.flow, problem.rows, last)
