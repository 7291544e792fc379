"""The route in steps: a one-step method, adaptive or on a grid, with energy and gradients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.calling import checked_field, hides_tensors
from neuralpde.driving import matched
from neuralpde.fields.structure import structure
from neuralpde.operators.product import products
from neuralpde.problem import Problem, check_resolution
from neuralpde.stopping import EnergyReading
from neuralpde.timing import fixed_grid, moved_ends, moved_start, moved_times
from neuralpde.tracking import EnergyTrack, Tolerance
from neuralpde.watching import WatchTrack
from solvers.control import Control
from solvers.dense import Dense
from solvers.flow import Flow
from solvers.integrate import Loop
from solvers.pace import Adaptive, Fixed
from solvers.replay import SHORT, Solution, advance
from solvers.reversible import WayBack
from solvers.rows import Rows, State
from solvers.stepper import Stepper
from solvers.steps import Steps
from solvers.structure import Structure
from solvers.trajectory import Stats, Trajectory

EXPLOSION = 1e6
"""A fixed-step solution that grows by more than this has probably left its stability interval."""


@dataclass
class March:
    """Steps of one method.

    Args:
        stepper: The method.
        reason: Why it was chosen.
        control: The step controller of an adaptive solve.
    """

    stepper: Stepper
    reason: str
    control: Control

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        stepper, reason = matched(self.stepper, problem), self.reason
        if stepper.stochastic:
            reason += f"; {stepper}"
        if not problem.fixed and not stepper.adaptive:
            raise ValueError(
                f"solver {stepper.name!r} takes fixed steps: give steps=n (and schedule=), or use "
                "an adaptive one such as 'tsit5'"
            )
        if not problem.fixed:
            check_resolution(problem)
        own = problem.rows.num_graphs > 1 and self._own_clocks(problem)
        clocks = problem.rows if own else Rows()
        if problem.rows.num_graphs > 1:
            shared = "one step shared by all graphs (the field does not take times per node)"
            reason += "; a step of its own for every graph" if own else f"; {shared}"
        known = structure(problem.field, problem.name, packed=problem.packed)
        flow = Flow(checked_field(problem), clocks, problem.x0[0], known)
        times = problem.times
        if own and times.shape[1] == 1:
            times = np.repeat(times, problem.rows.num_graphs, axis=1)
        times = times if own else times[:, :1]
        form = problem.form()
        track = None
        if form is not None and (problem.tracked or problem.stop is not None):
            track = self._track(problem, form)
        watch = WatchTrack(problem.watch, problem.graph, problem.packed, stepping=True)
        monitors = tuple(m for m in (track, watch if problem.watch else None) if m is not None)
        pace = self._pace(problem, times, form)
        grad = self._gradient(problem, pace, known)
        bar = _Bar(problem.progress)
        if problem.stop is not None and track is not None:
            tolerance, entries = self._tolerance(problem), entries_per_graph(problem)
            problem.stop.energy = EnergyReading(track, tolerance, problem.eps, entries)
        loop = Loop(
            flow,
            stepper,
            pace,
            problem.rows,
            times,
            monitors,
            problem.stop,
            problem.max_steps,
            keep_steps=problem.save == "steps",
            report=bar.show if problem.progress else None,
        )
        before = products.total
        try:
            solution = advance(loop, moved_start(problem, flow), problem.leaves, grad)
        finally:
            bar.close()
        if track is not None:
            track.settle()
        spent = products.total - before - (0 if track is None else track.products)
        told = loop.stepper.story()
        trajectory = self._trajectory(
            problem, loop, solution, f"{reason}; {told}" if told else reason
        )
        trajectory.stats.operator_products = spent
        if track is not None:
            entries = entries_per_graph(problem)
            tolerance = self._tolerance(problem)
            trajectory._series.update(track.series(tolerance, problem.eps, entries))
        trajectory._series.update(watch.series())
        if not stepper.stochastic:
            self._warn_of_growth(problem, solution)
        return trajectory

    @staticmethod
    def _own_clocks(problem: Problem) -> bool:
        if problem.field is not None and problem.field.batched_time:
            return True
        if problem.times.shape[1] > 1 and (problem.times != problem.times[:, :1]).any():
            raise ValueError(
                f"t gives every graph its own times, but {problem.name} reads one time; set "
                "batched_time = True on a field that takes t of shape [nodes, 1]"
            )
        return False

    def _pace(self, problem: Problem, times: np.ndarray, form: Any) -> Adaptive | Fixed:
        if problem.fixed:
            return Fixed(fixed_grid(problem, times))
        deviation = None
        if problem.error_scale == "deviation":

            def deviation(x: State) -> State:
                return tuple(form.deviation(part) for part in x)

        return Adaptive(problem.rtol, problem.atol, self.control, deviation)

    @staticmethod
    def _track(problem: Problem, form: Any) -> EnergyTrack:
        field = problem.field
        if field is None or field.operator is None or field.dissipation is None:
            return EnergyTrack(form)
        # On a directed graph -<x, L x> is not the form, and a rate of zero hides L.
        tells = (
            field.affine and field.operator.self_adjoint and bool((field.dissipation != 0).all())
        )
        return EnergyTrack(form, field.dissipation if tells else None)

    @staticmethod
    def _tolerance(problem: Problem) -> Tolerance:
        if problem.fixed:
            return Tolerance()
        return Tolerance(problem.rtol, problem.atol, problem.error_scale == "deviation")

    def _gradient(self, problem: Problem, pace: Adaptive | Fixed, known: Structure) -> str:
        if problem.grad == "adjoint":
            raise ValueError(
                "grad='adjoint' is not for this solver: it belongs to "
                "solver='torchdiffeq:<method>'; use 'auto'"
            )
        if problem.grad == "reversible":
            WayBack.plan(self.stepper, known.damping, pace, problem.dtype)
        again = problem.grad in ("replay", "reversible")
        if again and problem.save == "steps":
            raise ValueError(
                f"save='steps' keeps every state, which grad={problem.grad!r} would not "
                "differentiate; use grad='tape', or list times in t"
            )
        if again and not problem.knows_its_leaves and hides_tensors(problem):
            raise ValueError(
                f"grad={problem.grad!r} cannot see the tensors that the plain function "
                f"{problem.name} differentiates: use grad='tape', or make it a Field or an "
                "nn.Module"
            )
        if problem.grad != "auto":
            return problem.grad
        if not torch.is_grad_enabled():
            return "none"
        if not problem.knows_its_leaves:
            return "tape"
        if not problem.needs_gradient:
            return "none"
        if problem.save == "steps":
            return "tape"
        if not isinstance(pace, Fixed):
            return "replay"
        steps, longest = len(pace.grid) - 1, float(np.abs(np.diff(pace.grid, axis=0)).max())
        if steps <= SHORT:
            return "tape"
        undone = self.stepper.bounded(known, longest) and WayBack.plan(
            self.stepper, known.damping, pace, problem.dtype
        ).pays(steps)
        return "reversible" if undone else "replay"

    def _trajectory(
        self, problem: Problem, loop: Loop, solution: Solution, reason: str
    ) -> Trajectory:
        run = solution.run
        x, last = moved_times(problem, loop, solution)
        ended, last = moved_ends(problem, loop, last)
        several = problem.rows.num_graphs > 1
        t = problem.t
        if problem.save == "steps":
            t = torch.tensor([kept.t for kept in run.kept], dtype=torch.float64, device="cpu")
            states = [*(kept.x for kept in run.kept[:-1]), last]
            x = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
        dense = None
        if problem.save == "steps" and self.stepper.dense:
            dense = Dense(run.kept, loop.flow, problem.packed)
        tuples = (x, last) if problem.packed else (x[0], last[0])
        stats = Stats(
            loop.stepper.name,
            reason,
            loop.flow.nfe,
            accepted=_counts(run.accepted, several),
            rejected=_counts(run.rejected, several),
            gradient=solution.gradient,
        )
        return Trajectory(
            t,
            tuples[0],
            stats,
            tuple(run.status) if several else run.status[0],
            run.messages,
            {**problem.settings, "solver": loop.stepper.name},
            problem.graph,
            last=tuples[1],
            ended=ended if several else ended[0],
            interrupted=run.interrupted,
            steps=Steps.of(run.tries),
            _dense=dense,
            _why_not_dense=(
                f"{self.stepper.name} has no dense output of its own order: list the times in t"
                if problem.save == "steps"
                else "only save='steps' keeps dense output: ask for that, or list the time in t"
            ),
        )

    @staticmethod
    def _warn_of_growth(problem: Problem, solution: Solution) -> None:
        first = solution.run.first
        if not problem.fixed or (first < np.finfo(float).tiny).any():
            return
        growth = float(np.sqrt(np.nanmax(solution.run.largest / first)))
        if EXPLOSION < growth < np.inf:
            warnings.warn(
                f"|x| grew {growth:.2g}-fold on this fixed grid; unless the field grows by "
                "itself, the step lies outside the stability interval: use more steps or an "
                "adaptive solver",
                stacklevel=5,
            )


def entries_per_graph(problem: Problem) -> Tensor:
    """Entries of the energy's state per graph."""
    return problem.rows.entries(problem.x0[0])


def _counts(values: np.ndarray, several: bool) -> int | tuple[int, ...]:
    return tuple(int(v) for v in values) if several else int(values[0])


class _Bar:
    """A progress bar over the fraction of time covered."""

    def __init__(self, wanted: bool) -> None:
        self.bar: Any = None
        if wanted:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}")

    def show(self, fraction: float) -> None:
        """Move the bar there."""
        self.bar.update(100 * fraction - self.bar.n)

    def close(self) -> None:
        """Leave it as it is."""
        if self.bar is not None:
            self.bar.close()
