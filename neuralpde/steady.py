"""Steady states of a field, with gradients by the implicit function theorem."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.calling import checked_field
from neuralpde.fields.field import State
from neuralpde.fields.structure import structure
from neuralpde.operators.product import products
from neuralpde.problem import ATOL, RTOL, Problem, pose
from neuralpde.routes import choose
from solvers.equilibrium import Balance, Polished
from solvers.failure import DONE, NEWTON_FAILED, SolveFailed, SolveInterrupted
from solvers.flow import Flow
from solvers.groups import Groups
from solvers.layout import Layout
from solvers.matrix_field import MatrixField
from solvers.rows import Rows
from solvers.spectrum import spectral_radius
from solvers.stopping import NOISE, Calm, Condition, Scene, Stopping, Watcher
from solvers.trajectory import Trajectory

RATE = 1e-2
"""The flow is followed until |F| is this part of what it was; Newton's method does the rest."""

HOLD = 2
"""For so many steps in a row."""

SINGULAR = (
    "has a singular Jacobian at its steady state: nothing pulls back in some direction, as for the "
    "constants under a Laplacian or a sum that is kept. The steady state then depends on x0, and "
    "F(x) = 0 alone does not say how. Follow the flow, solve(..., stop=SteadyState()), which is "
    "differentiated as it is; or hold nodes with Pinned, or add a decay"
)
SADDLE = (
    "has F(x) = 0 where its Jacobian has a direction that grows: the flow passes by and does not "
    "stay there. Start from another x0"
)


def steady_state(
    field: Any,
    x0: State,
    graph: Any = None,
    *,
    solver: Any = "auto",
    horizon: float = 1e4,
    tolerance: float | None = None,
    max_steps: int = 10_000,
) -> Trajectory:
    """Follow a field from x0 to its steady state F(x*) = 0, and differentiate x* itself.

    The flow decides which steady state it is: it is followed until |F| has fallen to a hundredth
    in every graph, and Newton's method with products of the Jacobian ends it. Gradients come from
    F(x*) = 0 alone, whatever way led there: ``dx* = -J^-1 dF``, one linear system on the way back.

    Args:
        field: A `Field`, or any callable f(t, x), that does not change with time.
        x0: The first state; gradients reach it only through what the field prepares from it.
        graph: A graph; graphs of a batch are systems of their own.
        solver: Who follows the flow, with error control.
        horizon: How long at most.
        tolerance: Relative error of x*; 1000 eps of the dtype by default.
        max_steps: Most steps of the flow per graph.

    Returns:
        A trajectory from x0 to x*, `final`, with the energy along the flow.

    Raises:
        ValueError: For fields that depend on time, are piecewise or stochastic; where the
            Jacobian at x* is singular: then x* depends on x0 (the mean that a Laplacian keeps),
            and the implicit function theorem does not apply; at saddles, as far as a symmetric
            Jacobian shows them.
        SolveFailed: When no steady state is reached.

    Source:
        Bai, Kolter, Koltun, Deep equilibrium models, NeurIPS 2019, arXiv:1909.01377, theorem 1.

    >>> import torch
    >>> b = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    >>> x = steady_state(lambda t, x: b - x * x, torch.ones(1, dtype=torch.float64)).final
    >>> x.sum().backward()
    >>> round(x.item(), 12), b.grad.item()
    (2.0, 0.25)
    """
    started = clock.perf_counter()
    problem = _posed(field, x0, graph, horizon, max_steps)
    before, system = products.total, _System.of(problem)
    with torch.no_grad():
        problem.stop = Stopping((_Slow(system.slow_enough()),), problem.packed)
        spent = products.total - before
        traj = choose(solver, problem).run(problem)
        before = products.total - spent
        _check_calm(traj, horizon)
        last = system.layout.pack(traj.final if isinstance(traj.final, tuple) else (traj.final,))
        _check_pull(system.balance, last)
        precise = 1e3 * problem.eps if tolerance is None else tolerance
        found = system.balance.polished(last, precise)
    _check_found(traj, found)
    x = system.balance.attached(found.x) if torch.is_grad_enabled() else found.x
    if x.requires_grad:
        traj.stats.gradient = "implicit"
    state = system.layout.unpack(x)
    stacked = tuple(torch.stack(ends) for ends in zip(problem.x0, state, strict=True))
    traj.x, traj.last = (stacked if problem.packed else stacked[0]), None
    assert traj.ended is not None
    traj.t = torch.stack([torch.zeros_like(traj.ended.max()), traj.ended.max()])
    traj.stats.nfe += system.flow.nfe
    traj.stats.operator_products += products.total - before
    traj.stats.solver += " + newton"
    traj.stats.reason += f"; then {found.steps} steps of Newton's method"
    traj.stats.seconds = clock.perf_counter() - started
    return traj


@dataclass
class _System:
    """F(x) = 0 on matrices."""

    problem: Problem
    flow: Flow
    layout: Layout
    balance: Balance

    @classmethod
    def of(cls, problem: Problem) -> _System:
        known = structure(problem.field, problem.name, packed=problem.packed)
        flow = Flow(checked_field(problem), Rows(), problem.x0[0], known)
        layout = Layout(problem.x0)
        groups = Groups(problem.rows.batch, problem.rows.num_graphs)
        matrix = MatrixField(flow.stages(np.zeros(1), np.zeros(1)), layout, groups)
        now = torch.zeros(problem.rows.num_graphs, dtype=torch.float64, device="cpu")
        balance = Balance(
            lambda y: matrix.value(now, y), lambda y: matrix.linearised(now, y), groups
        )
        return cls(problem, flow, layout, balance)

    def slow_enough(self) -> np.ndarray:
        """How small |F| is to become in every graph: a hundredth, but not below its noise."""
        x, rows = self.problem.x0, self.problem.rows
        start = self.flow(np.zeros(1), x)
        later = self.flow(np.ones(1), x)
        size, change = (
            rows.mean_square(part).sqrt().cpu().numpy()
            for part in (start, tuple(a - b for a, b in zip(start, later, strict=True)))
        )
        if (change > 1e3 * self.problem.eps * size).any():
            raise ValueError(
                f"{self.problem.name} changes with time (F(0, x0) and F(1, x0) differ), so it has "
                "no steady state; fix the time in it, or solve over an interval"
            )
        radius = spectral_radius(self.flow, np.zeros(1), x, rows, 9)
        length = rows.mean_square(x).sqrt().cpu().numpy()
        noise = 2 * NOISE * radius * (ATOL + RTOL * length)
        enough: np.ndarray = np.maximum(RATE * size, noise)
        return enough


@dataclass(frozen=True)
class _Slow(Condition):
    """Ends a graph once |F| is below a threshold of its own for some steps in a row."""

    threshold: np.ndarray
    name = "steady state"

    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        return Calm(self.name, scene, HOLD, lambda first: self.threshold)


def _posed(field: Any, x0: State, graph: Any, horizon: float, max_steps: int) -> Problem:
    problem = pose(
        field,
        x0,
        float(horizon),
        graph,
        rtol=None,
        atol=None,
        error_scale="state",
        save=None,
        steps=None,
        schedule=None,
        max_steps=max_steps,
        watch=(),
        stop=None,
        grad="none",
        generator=None,
        progress=False,
    )
    known = problem.field
    if known is not None and known.pieces is not None:
        raise ValueError(
            f"{problem.name} is piecewise in time and has no steady state; give one of its pieces"
        )
    if known is not None and known.noise is not None:
        raise ValueError(f"{problem.name} is stochastic and never at rest; give its drift alone")
    unsettled = getattr(known, "unsettled", None)
    why = None if unsettled is None else unsettled()
    if why is not None:
        raise ValueError(f"{problem.name} {why}")
    return problem


def _check_calm(traj: Trajectory, horizon: float) -> None:
    if traj.interrupted:
        raise SolveInterrupted(traj, "interrupted; the trajectory so far is in .trajectory")
    if not traj.succeeded:
        raise SolveFailed(traj, " ".join(traj.messages.values()))
    status = (traj.status,) if isinstance(traj.status, str) else traj.status
    late = [str(g) for g, word in enumerate(status) if word == DONE]
    if late:
        who = f"graph {', '.join(late)} was" if len(status) > 1 else "the field was"
        raise SolveFailed(
            traj,
            f"{who} not at rest by t={horizon:g}: |F| had not fallen to {RATE:g} of its first "
            "value. If it goes round in circles there is no steady state to find; else raise "
            "horizon",
        )


def _check_found(traj: Trajectory, found: Polished) -> None:
    lost = torch.nonzero(~found.reached).flatten().tolist()
    if not lost:
        return
    who = f"graph {lost[0]}" if len(found.reached) > 1 else "the field"
    if not bool(found.regular[lost[0]]):
        raise ValueError(f"{who} {SINGULAR}")
    several = not isinstance(traj.status, str)
    words = [NEWTON_FAILED if g in lost else DONE for g in range(len(found.reached))]
    traj.status = tuple(words) if several else words[0]
    traj.messages = {
        g: f"Newton's method did not converge: |F| = {float(found.residual[g]):.3g} after "
        f"{found.steps} steps. The field has a kink at its steady state, or tolerance is below "
        "what its rounding allows: loosen it"
        for g in lost
    }
    raise SolveFailed(traj, " ".join(traj.messages.values()))


def _check_pull(balance: Balance, x: Tensor) -> None:
    """Refuse what is no isolated steady state of the flow."""
    regular, saddle = balance.judged(x)
    for bad, text in ((~regular, SINGULAR), (saddle, SADDLE)):
        if bool(bad.any()):
            g = int(torch.nonzero(bad)[0])
            raise ValueError(f"{f'graph {g}' if len(bad) > 1 else 'the field'} {text}")
