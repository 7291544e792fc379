"""What another library's solver handed back, as a trajectory; and what it cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuralpde.marching import entries_per_graph
from neuralpde.problem import Problem
from neuralpde.tracking import EnergyTrack, Tolerance
from neuralpde.watching import WatchTrack
from solvers.answer import Answer
from solvers.rows import State
from solvers.trajectory import Stats, Trajectory


def check_requests(problem: Problem, name: str) -> None:
    """Refuse what only our own loop can do.

    Raises:
        ValueError: Names the argument and what to use instead.
    """
    if problem.stop is not None:
        raise ValueError(f"stop= is not seen by {name!r}; use one of our steppers, as 'tsit5'")
    if problem.save == "steps":
        raise ValueError(
            f"save='steps' keeps dense output, which {name!r} does not hand out: list the times in "
            "t, or use one of our steppers such as 'dopri5'"
        )
    if problem.error_scale != "state":
        raise ValueError(
            f"error_scale={problem.error_scale!r} is for our own step control, not for {name!r}; "
            "use an adaptive stepper such as 'tsit5'"
        )
    if problem.times.shape[1] > 1 and (
        problem.t.requires_grad or (problem.times != problem.times[:, :1]).any()
    ):
        raise ValueError(
            f"t gives every graph its own times, but {name!r} keeps one clock; use an exact or one "
            "of our adaptive solvers, or one solve per graph"
        )


def distinct(problem: Problem) -> tuple[Tensor, np.ndarray]:
    """The saved times without repetitions, and for each saved time its place among them."""
    values = problem.times[:, 0]
    new = np.concatenate([[True], values[1:] != values[:-1]])
    t = problem.t if problem.t.dim() == 1 else problem.t[:, 0]
    return t[torch.from_numpy(np.flatnonzero(new))], np.cumsum(new) - 1


def unmoved(problem: Problem) -> Answer:
    """An interval without length."""
    graphs = problem.rows.num_graphs
    start = tuple(part[None] for part in problem.x0)
    return Answer(start, problem.x0, [float(problem.times[0, 0])] * graphs, ["done"] * graphs)


def as_trajectory(
    problem: Problem,
    answer: Answer,
    slots: np.ndarray,
    name: str,
    reason: Sequence[str],
    gradient: str,
    spent: int,
) -> Trajectory:
    """The trajectory of an answer, with energy and measures at the saved times.

    Args:
        problem: What was asked.
        answer: What the other library computed.
        slots: For each saved time its place in the answer; see `distinct`.
        name: Of the solver.
        reason: Why it was chosen, and what else there is to say.
        gradient: What carries it, if the states require one.
        spent: Operator products.
    """
    graphs = problem.rows.num_graphs
    several = graphs > 1
    reasons = [*reason]
    if problem.tracked or problem.watch:
        reasons.append("energy and measures at the saved times")
    if problem.progress:
        reasons.append("no progress bar, which only our own steppers move")
    x: State = tuple(part[torch.from_numpy(slots).to(part.device)] for part in answer.x)
    last = answer.last
    if all(word == "done" for word in answer.status):
        last = tuple(part[-1] for part in x)
    if not any(part.requires_grad for part in x):
        gradient = "none"
    trajectory = Trajectory(
        problem.t,
        x if problem.packed else x[0],
        Stats(
            name,
            "; ".join(reasons),
            answer.nfe,
            spent,
            (answer.accepted,) * graphs if several else answer.accepted,
            (answer.rejected,) * graphs if several else answer.rejected,
            gradient=gradient,
        ),
        tuple(answer.status) if several else answer.status[0],
        answer.messages,
        {**problem.settings, "solver": name},
        problem.graph,
        last=last if problem.packed else last[0],
        ended=torch.tensor(
            answer.ended if several else answer.ended[0], dtype=torch.float64, device="cpu"
        ),
        interrupted=answer.interrupted,
        _why_not_dense=f"{name} keeps no dense output: list the time in t",
    )
    _measure(problem, trajectory, x)
    return trajectory


def _measure(problem: Problem, trajectory: Trajectory, x: State) -> None:
    """Energy and measures at the saved times that each graph reached."""
    form = problem.form()
    energy = EnergyTrack(form) if form is not None and problem.tracked else None
    watch = WatchTrack(problem.watch, problem.graph, problem.packed)
    everyone = problem.rows.num_graphs
    for s, times in enumerate(problem.times):
        state = tuple(part[s].detach() for part in x)
        reached = torch.isfinite(problem.rows.mean_square(state)).cpu().numpy()
        own = np.broadcast_to(times, everyone).copy()
        for monitor in (energy, watch if problem.watch else None):
            if monitor is not None:
                monitor(own, state, None, reached)
    if energy is not None:
        tolerance = Tolerance() if problem.fixed else Tolerance(problem.rtol, problem.atol)
        series = energy.series(tolerance, problem.eps, entries_per_graph(problem))
        trajectory._series.update(series)
    trajectory._series.update(watch.series())
