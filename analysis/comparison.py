"""Fair comparisons of schedules and solvers: the same problems, seeds and noise for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from analysis.runs import AGAIN, FAILED, Row
from analysis.study import Study
from solvers import schedules as known
from solvers.failure import SolveFailed
from solvers.schedules import Schedule

ADAPTIVE = "adaptive"
"""The name, among schedules, of step control by a tolerance."""


class Problem(Protocol):
    """What is solved again and again.

    Attributes:
        name: of the problem.
        replica: tells apart several of one name, such as networks trained from several seeds.
    """

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def replica(self) -> int:
        """Which of those of its name."""

    def run(self, run: Run) -> Mapping[str, float]:
        """Solve once: errors by name, and `evaluations`; the seed fixes all randomness."""


@dataclass(frozen=True)
class Run:
    """One solve of a study.

    Attributes:
        solver: name of the solver.
        schedule: where the steps are; None under a tolerance.
        steps: how many; None under a tolerance.
        rtol: the tolerance; None on a grid.
        seed: of first states and noise. Two runs of one seed see the same of both.

    >>> Run("heun", None, 5, None, 0).control
    5
    """

    solver: str
    schedule: Schedule | None
    steps: int | None
    rtol: float | None
    seed: int

    @property
    def control(self) -> int | str:
        """The number of steps, or the tolerance in words."""
        return f"rtol {self.rtol:g}" if self.steps is None else self.steps


def compare(
    problems: Problem | Sequence[Problem],
    *,
    schedules: Mapping[str, Schedule | str] | Sequence[str],
    solvers: Sequence[str] = ("heun",),
    steps: Sequence[int] = (),
    rtols: Sequence[float] = (),
    seeds: Sequence[int] | int = 8,
    baseline: str | None = None,
    store: Path | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Study:
    """Run every problem with every solver, schedule, number of steps and seed.

    All runs of a seed share first states and noise, so that differences are those of the
    schedules. The baseline is run a second time under seeds nobody else uses, as `"<name> again"`:
    what differs between these two is noise. Solves that fail become rows that say so.

    Args:
        problems: one or more.
        schedules: by name; strings are names of `solvers.schedules`. A schedule with an attribute
            `evaluations` has cost so many when it was fitted.
        solvers: names; with `rtols` they have step control.
        steps: numbers of steps of the grids.
        rtols: tolerances of runs under step control, the schedule "adaptive".
        seeds: seeds, or how many from 0 on.
        baseline: name of a schedule; the first by default.
        store: a file of JSON lines; what it holds is not run again, and every result is appended
            at once. It belongs to one study: the file is refused where its schedules differ.
        executor: runs solves in parallel; results do not depend on it.
        progress: called with the number of runs done, and of all.

    Raises:
        ValueError: nothing to run, unknown names, or a file of another study.

    >>> class Decay:
    ...     name, replica = "x' = -x", 0
    ...     def run(self, run):
    ...         import torch
    ...         from neuralpde import solve
    ...         f = lambda t, x: -x
    ...         x = torch.ones(1).double()
    ...         found = solve(f, x, 1.0, solver=run.solver, steps=run.steps, schedule=run.schedule)
    ...         return {"error": abs(found.final.item() - 0.36788), "evaluations": found.stats.nfe}
    >>> study = compare(Decay(), schedules=["uniform", "cosine"], steps=[10], seeds=2)
    >>> [row["schedule"] for row in study.table().rows]
    ['uniform', 'cosine', 'uniform again']
    """
    every = list(problems) if isinstance(problems, Sequence) else [problems]
    named = schedules if isinstance(schedules, Mapping) else {name: name for name in schedules}
    grids = {name: known.get(schedule) for name, schedule in named.items()}
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _check(every, grids, solvers, steps, rtols, numbers)
    baseline = baseline or next(iter(grids))
    plan = list(_plan(every, grids, solvers, steps, rtols, numbers, baseline))
    settings = {name: _written(schedule) for name, schedule in grids.items()}
    done = _stored(store, settings)
    open_runs = [(key, problem, run) for key, problem, run in plan if key not in done]
    count = len(plan) - len(open_runs)
    for key, row in _results(open_runs, executor):
        done[key] = row
        count += 1
        if store is not None:
            with store.open("a") as file:
                file.write(json.dumps({"key": key, "row": row}) + "\n")
        if progress is not None:
            progress(count, len(plan))
    return Study([done[key] for key, _, _ in plan], baseline)


Planned = tuple[str, Problem, Run]


def _plan(
    problems: Sequence[Problem],
    grids: Mapping[str, Schedule],
    solvers: Sequence[str],
    steps: Sequence[int],
    rtols: Sequence[float],
    seeds: Sequence[int],
    baseline: str,
) -> Iterator[Planned]:
    fresh = [max(seeds) + 1 + k for k in range(len(seeds))]
    for problem in problems:
        for solver in solvers:
            for n in steps:
                for name, schedule in grids.items():
                    for seed in seeds:
                        run = Run(solver, schedule, n, None, seed)
                        yield _key(problem, name, run, seed), problem, run
                # Paired with the seeds of the others by their place.
                for seed, other in zip(seeds, fresh, strict=True):
                    run = Run(solver, grids[baseline], n, None, other)
                    yield _key(problem, baseline + AGAIN, run, seed), problem, run
            for rtol in rtols:
                for seed in seeds:
                    run = Run(solver, None, None, rtol, seed)
                    yield _key(problem, ADAPTIVE, run, seed), problem, run


def _key(problem: Problem, schedule: str, run: Run, seed: int) -> str:
    parts = (problem.name, problem.replica, run.solver, run.control, schedule, seed)
    return json.dumps(parts)


def _solved(key: str, problem: Problem, run: Run) -> Row:
    name, replica, solver, control, schedule, seed = json.loads(key)
    row: dict[str, Any] = {
        "problem": name,
        "solver": solver,
        "control": control,
        "schedule": schedule,
        "replica": replica,
        "seed": seed,
        "fitting": int(getattr(run.schedule, "evaluations", 0)),
    }
    try:
        return {**row, **{k: float(v) for k, v in problem.run(run).items()}}
    except SolveFailed as failure:
        return {**row, FAILED: str(failure.reason)}


def _results(runs: Sequence[Planned], executor: Executor | None) -> Iterator[tuple[str, Row]]:
    if executor is None:
        for key, problem, run in runs:
            yield key, _solved(key, problem, run)
        return
    from concurrent.futures import as_completed

    waiting: dict[Future[Row], str] = {
        executor.submit(_solved, key, problem, run): key for key, problem, run in runs
    }
    for future in as_completed(waiting):
        yield waiting[future], future.result()


def _written(schedule: Schedule) -> Any:
    text = getattr(schedule, "to_json", None)
    return json.loads(text()) if text else repr(schedule)


def _stored(store: Path | None, settings: Mapping[str, Any]) -> dict[str, Row]:
    if store is None:
        return {}
    head = {"schedules": json.loads(json.dumps(settings))}
    if not store.exists() or not store.read_text():
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_text(json.dumps(head) + "\n")
        return {}
    text = store.read_text()
    if not text.endswith("\n"):
        with store.open("a") as file:
            file.write("\n")
    lines = text.splitlines()
    if json.loads(lines[0]) != head:
        raise ValueError(
            f"{store} belongs to a study with other schedules; give another file, or remove it"
        )
    found = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            # The line that a killed study was writing; its run is done again.
            continue
        found[entry["key"]] = entry["row"]
    return found


def _check(
    problems: Sequence[Problem],
    grids: Mapping[str, Schedule],
    solvers: Sequence[str],
    steps: Sequence[int],
    rtols: Sequence[float],
    seeds: Sequence[int],
) -> None:
    if not (problems and solvers and seeds and (rtols or (steps and grids))):
        raise ValueError(
            f"nothing to compare: {len(problems)} problems, {len(grids)} schedules, "
            f"{len(solvers)} solvers, {len(steps)} numbers of steps, {len(rtols)} tolerances, "
            f"{len(seeds)} seeds"
        )
    named = [(problem.name, problem.replica) for problem in problems]
    if len(set(named)) < len(named):
        raise ValueError(f"problems of one name need different replicas, got {named}")
    taken = [name for name in grids if name.endswith(AGAIN) or name == ADAPTIVE]
    if taken:
        raise ValueError(f"schedules cannot be called {taken}: these names have a meaning here")
