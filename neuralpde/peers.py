"""The routes over torchdiffeq and scipy: their solvers, our trajectories."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.calling import checked_field
from neuralpde.marching import EXPLOSION, entries_per_graph
from neuralpde.operators.product import products
from neuralpde.problem import Problem, check_resolution
from neuralpde.timing import fixed_grid
from neuralpde.tracking import EnergyTrack, Tolerance
from neuralpde.watching import WatchTrack
from solvers import scipy_adapter, torchdiffeq_adapter
from solvers.answer import Answer
from solvers.failure import unknown_name
from solvers.rows import State
from solvers.trajectory import Stats, Trajectory

CAUTION = (
    "caution: gradients of the continuous adjoint are inexact and unstable for diffusion: it "
    "integrates the state backwards in time, where errors grow by up to e^(lambda T)"
)


@dataclass
class TorchdiffeqRoute:
    """One of torchdiffeq's methods, "torchdiffeq:<method>".

    Steps follow torchdiffeq's own control and norms; a batch shares its step, chosen for its worst
    graph. Measures and the energy are evaluated at the saved times.

    Args:
        method: Its name in torchdiffeq, checked at once.

    >>> TorchdiffeqRoute("dopri5").name
    'torchdiffeq:dopri5'
    """

    method: str

    def __post_init__(self) -> None:
        """Look the method up."""
        self.adapter = torchdiffeq_adapter.Method(self.method)
        self.name = f"torchdiffeq:{self.method}"

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        self._check(problem)
        t, slots = _distinct(problem)
        grad = self._gradient(problem)
        reason = ["asked for by name"]
        if problem.rows.num_graphs > 1:
            reason.append(
                "one step shared by all graphs"
                if problem.fixed
                else "one step shared by all graphs; the error norm is the largest RMS of a graph, "
                "so that none is diluted"
            )
        if grad == "adjoint":
            reason.append(CAUTION)
        if not self.adapter.visible:
            reason.append("its steps cannot be seen, so max_steps does not bound them")
        grid = fixed_grid(problem, problem.times[:, :1])[:, 0] if problem.fixed else None
        before = products.total
        with torch.set_grad_enabled(grad != "none" and torch.is_grad_enabled()):
            answer = (
                _unmoved(problem)
                if len(t) == 1
                else torchdiffeq_adapter.integrate(
                    checked_field(problem),
                    problem.x0,
                    t,
                    self.adapter,
                    packed=problem.packed,
                    rows=problem.rows,
                    rtol=problem.rtol,
                    atol=problem.atol,
                    grid=grid,
                    max_steps=problem.max_steps,
                    leaves=problem.leaves if grad == "adjoint" else None,
                )
            )
        spent = products.total - before
        if answer.growth > EXPLOSION:
            warnings.warn(
                f"|x| grew {answer.growth:.2g}-fold on this fixed grid; unless the field grows by "
                "itself, the step lies outside the stability interval: use more steps or an "
                "adaptive solver",
                stacklevel=4,
            )
        return _trajectory(problem, answer, slots, self.name, reason, grad, spent)

    def _check(self, problem: Problem) -> None:
        _check_requests(problem, self.name)
        if problem.fixed and not self.adapter.fixed:
            raise ValueError(
                f"solver {self.name!r} chooses its own steps: leave out steps= and schedule=, or "
                "use a fixed-grid method such as 'torchdiffeq:rk4'"
            )
        if self.adapter.fixed and not problem.fixed:
            raise ValueError(
                f"solver {self.name!r} takes fixed steps: give steps=n (and schedule=), or use an "
                "adaptive one such as 'torchdiffeq:dopri5'"
            )
        if not problem.fixed:
            check_resolution(problem)

    def _gradient(self, problem: Problem) -> str:
        if problem.grad in ("replay", "reversible"):
            raise ValueError(
                f"grad={problem.grad!r} is not for {self.name!r}: 'replay' belongs to our own "
                "steppers, 'reversible' to exact solves; torchdiffeq offers 'tape' and 'adjoint'"
            )
        if problem.grad == "none" or not torch.is_grad_enabled():
            return "none"
        if problem.grad == "adjoint":
            if not problem.knows_its_leaves and _hides_tensors(problem):
                raise ValueError(
                    f"grad='adjoint' must know every tensor to differentiate, and {problem.name} "
                    "is a plain function that uses some that require grad; make it an nn.Module "
                    "or a Field, or use grad='tape'"
                )
            if problem.dtype.is_complex:
                raise ValueError(
                    f"torchdiffeq's adjoint is for real states and x0 is {problem.dtype}; use "
                    "grad='tape', or torch.view_as_real"
                )
            return "adjoint" if problem.needs_gradient else "none"
        if not self.adapter.visible and (problem.needs_gradient or _hides_tensors(problem)):
            raise ValueError(
                f"no gradient flows through {self.name!r}: use grad='adjoint', another method, or "
                "torch.no_grad()"
            )
        return "tape"


@dataclass
class ScipyRoute:
    """One of scipy's methods, "scipy:<method>": small systems, float64 on the CPU, no gradients.

    Args:
        method: Its name in `scipy.integrate.solve_ivp`, checked at once.

    >>> ScipyRoute("BDF").name
    'scipy:BDF'
    """

    method: str

    def __post_init__(self) -> None:
        """Look the method up."""
        self.adapter = scipy_adapter.Method(self.method)
        self.name = f"scipy:{self.method}"

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        self._check(problem)
        t, slots = _distinct(problem)
        before = products.total
        answer = (
            _unmoved(problem)
            if len(t) == 1
            else scipy_adapter.integrate(
                checked_field(problem),
                problem.x0,
                t.detach().numpy(),
                self.adapter,
                rtol=problem.rtol,
                atol=problem.atol,
                max_steps=problem.max_steps,
            )
        )
        spent = products.total - before
        reason = ["asked for by name; in float64 on the CPU", *answer.notes]
        graphs = problem.rows.num_graphs
        if graphs > 1:
            reason.append("one step shared by all graphs, with one error norm over all of them")
            answer.status, answer.ended = answer.status * graphs, answer.ended * graphs
            answer.messages = {g: m for m in answer.messages.values() for g in range(graphs)}
        return _trajectory(problem, answer, slots, self.name, reason, "none", spent)

    def _check(self, problem: Problem) -> None:
        _check_requests(problem, self.name)
        if problem.fixed:
            raise ValueError(
                f"solver {self.name!r} chooses its own steps: leave out steps= and schedule=, or "
                "use a one-step method such as 'rk4'"
            )
        if problem.grad not in ("auto", "none"):
            raise ValueError(f"grad={problem.grad!r}: scipy has no gradients; see grad='none'")
        wanted = problem.grad == "auto" and torch.is_grad_enabled()
        if wanted and (problem.needs_gradient or _hides_tensors(problem)):
            raise ValueError(
                "scipy has no gradients, and something here requires grad: use one of our solvers "
                "such as 'tsit5', or solve under torch.no_grad() (or with grad='none')"
            )
        scipy_adapter.check(self.adapter, problem.x0, problem.rtol)
        check_resolution(problem)


ROUTES: dict[str, Any] = {"torchdiffeq": TorchdiffeqRoute, "scipy": ScipyRoute}


def peer_route(peer: str, method: str) -> TorchdiffeqRoute | ScipyRoute:
    """The route over another library's solver.

    Args:
        peer: "torchdiffeq" or "scipy".
        method: A method's name there.

    Raises:
        ValueError: For unknown names, with the nearest one.

    >>> peer_route("scipy", "BDF").name
    'scipy:BDF'
    """
    if peer not in ROUTES:
        raise unknown_name("peer", peer, ROUTES)
    route: TorchdiffeqRoute | ScipyRoute = ROUTES[peer](method)
    return route


def _check_requests(problem: Problem, name: str) -> None:
    """Refuse what only our own loop can do."""
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


def _hides_tensors(problem: Problem) -> bool:
    """Whether a plain function uses tensors that require grad; one evaluation."""
    x = tuple(part.detach() for part in problem.x0)
    t = torch.tensor(problem.times[0, 0], dtype=problem.dtype.to_real(), device=x[0].device)
    out = problem.f(t, x if problem.packed else x[0])
    return any(part.requires_grad for part in (out if problem.packed else (out,)))


def _distinct(problem: Problem) -> tuple[Tensor, np.ndarray]:
    """The saved times without repetitions, and for each saved time its place among them."""
    values = problem.times[:, 0]
    new = np.concatenate([[True], values[1:] != values[:-1]])
    t = problem.t if problem.t.dim() == 1 else problem.t[:, 0]
    return t[torch.from_numpy(np.flatnonzero(new))], np.cumsum(new) - 1


def _unmoved(problem: Problem) -> Answer:
    """An interval without length."""
    graphs = problem.rows.num_graphs
    start = tuple(part[None] for part in problem.x0)
    return Answer(start, problem.x0, [float(problem.times[0, 0])] * graphs, ["done"] * graphs)


def _trajectory(
    problem: Problem,
    answer: Answer,
    slots: np.ndarray,
    name: str,
    reason: Sequence[str],
    gradient: str,
    spent: int,
) -> Trajectory:
    graphs = problem.rows.num_graphs
    several = graphs > 1
    reasons = [*reason]
    if problem.graph is not None or problem.watch:
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
        ended=torch.tensor(answer.ended if several else answer.ended[0], dtype=torch.float64),
        interrupted=answer.interrupted,
        _why_not_dense=f"{name} keeps no dense output: list the time in t",
    )
    _measure(problem, trajectory, x)
    return trajectory


def _measure(problem: Problem, trajectory: Trajectory, x: State) -> None:
    """Energy and measures at the saved times that each graph reached."""
    form = problem.form()
    energy = None if form is None else EnergyTrack(form)
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
