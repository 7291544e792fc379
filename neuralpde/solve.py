"""solve(field, x0, t, graph): from a field and a first state to a trajectory with its energy."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.energies import DirichletForm
from neuralpde.fields.field import Field, State
from neuralpde.precision import own_precision
from neuralpde.problem import pose
from neuralpde.routes import Route, choose
from solvers.failure import SolveFailed, SolveInterrupted
from solvers.lasting import lasting
from solvers.schedules import Schedule
from solvers.trajectory import Trajectory

SAVES = (None, "end", "steps")
ERROR_SCALES = ("state", "deviation")


def solve(
    field: Field | nn.Module | Callable[[Tensor, Any], Any],
    x0: State,
    t: float | Sequence[float] | Tensor,
    graph: Any = None,
    *,
    solver: Any = "auto",
    schedule: Schedule | str | None = None,
    steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    error_scale: str = "state",
    watch: Any = (),
    save: str | None = None,
    grad: str = "auto",
    stop: Any = None,
    generator: torch.Generator | None = None,
    max_steps: int = 10_000,
    raise_on_failure: bool = True,
    progress: bool = False,
) -> Trajectory:
    """Solve dx/dt = f(t, x) on a graph from x0 and return the trajectory with its energy.

    Device and dtype follow x0; autocast is off meanwhile.

    Args:
        field: A `Field`, or any callable f(t, x).
        x0: First state, `[nodes, ...]` on a graph, any shape without one; or a tuple of such.
        t: The end time (from 0), a pair, a monotone 1-D tensor of save times whose first entry is
            x0's time, or `[saved, graphs]` times of each graph.
        graph: A `Graph`, a torch_geometric `Data` or an `edge_index`; None for plain states.
        solver: A name or a stepper; "auto" chooses by structure and says why in `stats.reason`.
        schedule: Places the fixed steps; uniform by default. Needs `steps`.
        steps: Number of fixed steps; "auto" then means "heun".
        rtol: Relative tolerance, 1e-4 by default.
        atol: Absolute tolerance, 1e-6 by default; it plays no part in exact solves.
        error_scale: What step control compares errors with: "state", or "deviation" (x - P x, P
            the projection onto the kernel of the field's Laplacian) for rates near consensus.
        watch: A measure, or several, evaluated at the start and after every accepted step, beside
            the energy; None measures nothing, the energy neither, as training does.
        save: None: both ends, or the entries of `t`; "end": the last state; "steps": all of them.
        grad: "auto", "none", "tape", "replay", "reversible" (exact solves) or "adjoint"
            (torchdiffeq).
        stop: A condition of `neuralpde.stopping` that ends graphs early, or several; or a callable
            `stop(t, x, slope)`, see `solvers.stopping.Told`.
        generator: Source of randomness for stochastic fields.
        max_steps: Most steps tried per graph.
        raise_on_failure: Whether a failed solve raises `SolveFailed`; else see `.status`.
        progress: Whether to show a progress bar.

    Raises:
        ValueError, TypeError: For arguments that make no sense, before any work is done.
        SolveFailed: With the partial trajectory.
        SolveInterrupted: On Ctrl-C, with the partial trajectory.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> from neuralpde.fields import Heat
    >>> traj = solve(Heat(), torch.tensor([[0.0], [2.0]]), 50.0, edges)
    >>> traj.final.flatten().tolist(), traj.stats.solver
    ([1.0, 1.0], 'chebyshev')
    """
    started = clock.perf_counter()
    # A graph keeps what is made here for other solves.
    with lasting(), own_precision(x0):
        problem = pose(
            field,
            x0,
            t,
            graph,
            rtol=rtol,
            atol=atol,
            error_scale=error_scale,
            save=save,
            steps=steps,
            schedule=schedule,
            max_steps=max_steps,
            watch=watch,
            stop=stop,
            grad=grad,
            generator=generator,
            progress=progress,
        )
        route: Route = choose(solver, problem)
        trajectory = route.run(problem)
    if problem.graph is not None:
        plain = DirichletForm.of(problem.graph, "comb")
        trajectory.offer("dirichlet", lambda: trajectory.measure(plain))
    trajectory.stats.seconds = clock.perf_counter() - started
    if problem.save == "end":
        trajectory = _only_the_end(trajectory)
    if trajectory.interrupted:
        raise SolveInterrupted(trajectory, "interrupted; the trajectory so far is in .trajectory")
    if raise_on_failure and not trajectory.succeeded:
        raise SolveFailed(trajectory, " ".join(trajectory.messages.values()))
    return trajectory


def _only_the_end(trajectory: Trajectory) -> Trajectory:
    cut = trajectory.x
    trajectory.x = tuple(p[-1:] for p in cut) if isinstance(cut, tuple) else cut[-1:]
    if trajectory.t.dim() == 1:
        trajectory._span = trajectory.t[0].item(), trajectory.t[-1].item()
    trajectory.t = trajectory.t[-1:]
    return trajectory
