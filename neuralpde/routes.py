"""Which way a solve goes: by name, or by the structure of the field; never silently."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch

from neuralpde.chaining import Chain
from neuralpde.exact import METHODS, ExactRoute
from neuralpde.marching import March
from neuralpde.problem import Problem
from solvers import methods
from solvers.control import Control
from solvers.failure import unknown_name
from solvers.noise import NoiseTerm, declared
from solvers.switching import Switching
from solvers.trajectory import Trajectory

PEERS = ("torchdiffeq", "scipy", "torchsde")


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
    peers = (f"{peer}:<method>" for peer in PEERS)
    return ("auto", *METHODS, *methods.names(), *peers)


def _automatic(problem: Problem) -> Route:
    field = problem.field
    if field is not None and field.noise is not None:
        return _stochastic(problem, declared(field.noise))
    if problem.fixed:
        return _on_grid(problem)
    if field is not None and field.has_force:
        why = "of second order, without steps= for a symplectic method; adaptive, of order 5"
        return _march("tsit5", f"auto: {problem.name} is {why}")
    why_not = _obstacle(problem)
    if why_not is None:
        return ExactRoute("auto", "auto: the field is linear")
    return March(Switching(), f"auto: {why_not}; adaptive explicit of order 5", Control())


def _march(name: str, reason: str) -> March:
    stepper = methods.stepper(name)
    return March(stepper, reason, stepper.control or Control())


def _on_grid(problem: Problem) -> March:
    """Fixed steps: symplectic for oscillators, else explicit of order 2."""
    field = problem.field
    if field is None or not field.has_force:
        return _march("heun", "auto: fixed steps asked for, explicit of order 2")
    if bool((torch.as_tensor(field.damping) != 0).any()):
        why = "damped, of second order: kicks, drifts and the exact damping, of order 2"
        return _march("kick_drift_damp", f"auto: {problem.name} is {why}")
    return _march("leapfrog", f"auto: {problem.name} is of second order: symplectic, of order 2")


def _stochastic(problem: Problem, noise: NoiseTerm) -> March:
    """Fixed steps in the convention of the noise."""
    if not problem.fixed:
        raise ValueError(
            f"{problem.name} is stochastic, and its methods take fixed steps: give steps=n "
            "(error falls with the step, so compare n with 2 n)"
        )
    if noise.convention == "ito" and not noise.additive:
        return _march("euler_maruyama", "auto: multiplicative noise, meant in Ito's sense")
    sense = "additive noise" if noise.additive else "noise meant in Stratonovich's sense"
    return _march("stochastic_heun", f"auto: {sense}; of order 2 where the noise is small")


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
    unitary = operator.hamiltonian is not None
    if unitary and field.source is not None:
        return "unitary flow with a source has no series"
    if not (unitary or operator.self_adjoint or operator.generator or operator.stochastic):
        return "the linear operator is neither self-adjoint nor a generator"
    if problem.stop is not None:
        return "stop= needs steps"
    if problem.save == "steps":
        return "save='steps' needs steps"
    if problem.error_scale != "state":
        return "error_scale= needs steps"
    return None
