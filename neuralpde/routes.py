"""Which way a solve goes: by name, or by the structure of the field; never silently."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from neuralpde.chaining import Chain
from neuralpde.exact import METHODS, ExactRoute
from neuralpde.marching import March
from neuralpde.problem import Problem
from solvers import methods
from solvers.control import Control
from solvers.failure import unknown_name
from solvers.trajectory import Trajectory

PEERS = ("torchdiffeq", "scipy")


class Route(Protocol):
    """A way to solve a problem."""

    def run(self, problem: Problem) -> Trajectory:
        """Solve it."""


def choose(solver: Any, problem: Problem) -> Route:
    """The route for a solver's name, for a stepper, or for "auto".

    Raises:
        ValueError: For an unknown name, with the nearest one.
    """
    if problem.field is not None and problem.field.pieces is not None:
        return Chain(partial(choose, solver))
    if not isinstance(solver, str):
        if not (hasattr(solver, "step") and hasattr(solver, "control")):
            raise TypeError(f"solver is {solver!r}; give a name or a stepper")
        return March(solver, "given as an object", solver.control or Control())
    if solver == "auto":
        return _automatic(problem)
    if solver in METHODS:
        return ExactRoute(METHODS[solver], "asked for by name")
    if solver in methods.names():
        stepper = methods.stepper(solver)
        return March(stepper, "asked for by name", stepper.control or Control())
    peer, _, method = solver.partition(":")
    if peer in PEERS and method:
        from neuralpde.peers import peer_route

        return peer_route(peer, method)
    raise unknown_name("solver", solver, names())


def names() -> tuple[str, ...]:
    """Every solver that can be asked for by name."""
    return ("auto", *METHODS, *methods.names(), "torchdiffeq:<method>", "scipy:<method>")


def _automatic(problem: Problem) -> Route:
    if problem.fixed:
        return March(
            methods.stepper("heun"), "auto: fixed steps asked for, explicit of order 2", Control()
        )
    why_not = _obstacle(problem)
    if why_not is None:
        return ExactRoute("auto", "auto: the field is linear")
    return March(
        methods.stepper("tsit5"), f"auto: {why_not}; adaptive explicit of order 5", Control()
    )


def _obstacle(problem: Problem) -> str | None:
    """Why an exact solve is out of the question, or None."""
    field = problem.field
    if field is None:
        return "a plain callable shows no structure"
    if problem.packed:
        return "the state is a tuple"
    if not field.affine or field.operator is None:
        return f"{problem.name} is nonlinear"
    operator = field.operator
    if not (operator.self_adjoint or operator.generator or operator.stochastic):
        return "the linear operator is neither self-adjoint nor a generator"
    if problem.stop is not None:
        return "stop= needs steps"
    if problem.save == "steps":
        return "save='steps' needs steps"
    if problem.error_scale != "state":
        return "error_scale= needs steps"
    return None
