"""Stochastic fields in a solve: which solvers may take them, and where their seed comes from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralpde.calling import unpack
from neuralpde.problem import Problem
from solvers.noise import NoiseTerm, declared
from solvers.stepper import Stepper

STOCHASTIC = "'euler_maruyama', 'stochastic_heun' or 'torchsde:<method>', with steps=n"


def noise_of(problem: Problem) -> NoiseTerm | None:
    """The noise of the bound field, or None."""
    noise = None if problem.field is None else problem.field.noise
    return None if noise is None else declared(noise)


def refuse_noise(problem: Problem, solver: str) -> None:
    """Refuse to leave out the noise of a stochastic field.

    Args:
        problem: What is asked.
        solver: The deterministic solver that was asked for.

    Raises:
        ValueError: Names the solvers that follow noise.
    """
    if noise_of(problem) is not None:
        raise ValueError(
            f"{problem.name} is stochastic, and solver {solver!r} would leave out its noise: use "
            f"{STOCHASTIC}"
        )


def matched(stepper: Stepper, problem: Problem) -> Stepper:
    """The stepper of this solve: as it is where there is no noise, else with the seed of a path.

    Args:
        stepper: As it was asked for.
        problem: What is asked.

    Raises:
        ValueError: For noise and a deterministic stepper, for a stochastic one without steps=, for
            gradients of the times, and for noise whose gradients a replay would not see.
    """
    if not stepper.stochastic:
        refuse_noise(problem, stepper.name)
        return stepper
    check_request(problem, stepper.name)
    noise = noise_of(problem)
    if noise is not None and problem.grad in ("auto", "replay"):
        check_leaves(problem, noise)
    seeded: Any = stepper
    own: Stepper = seeded.seeded(problem.generator)
    return own


def check_request(problem: Problem, solver: str) -> None:
    """Refuse what no solver of stochastic fields can do.

    Raises:
        ValueError: Without steps=, and for times that require grad.
    """
    if not problem.fixed:
        raise ValueError(
            f"solver {solver!r} takes fixed steps, and rtol and atol mean nothing to it: give "
            "steps=n (and schedule=)"
        )
    if problem.t.requires_grad:
        raise ValueError(
            "t requires grad, and the paths of a stochastic field have no derivative in time: "
            "give t.detach()"
        )


def check_leaves(problem: Problem, noise: NoiseTerm) -> None:
    """Refuse noise that depends on tensors the field does not hold; one evaluation of it.

    Gradients that run a solve again differentiate the tensors in `field.leaves()`; a function
    that brings others along would get none, without a word.

    Raises:
        ValueError: Says how to let the field hold them.
    """
    if not noise.counted or not torch.is_grad_enabled():
        return
    x = tuple(part.detach() for part in problem.x0)
    t = torch.tensor(problem.times[0, 0], dtype=problem.dtype, device=x[0].device)
    found = [one for one in noise.values(t, unpack(problem, x)) if isinstance(one, Tensor)]
    if any(_reaches_beyond(one, problem.leaves) for one in found):
        raise ValueError(
            f"the noise of {problem.name} is a function of tensors that require grad and that the "
            "field does not hold: write it as a method noise(self, t, x) of the field, or as "
            "Noise(module) with an nn.Module; or use grad='tape'"
        )


def _reaches_beyond(value: Tensor, leaves: tuple[Tensor, ...]) -> bool:
    """Whether a value comes from tensors that require grad other than these."""
    known = {leaf.grad_fn for leaf in leaves}
    own = {id(leaf) for leaf in leaves}
    if value.grad_fn is None:
        return value.requires_grad and id(value) not in own
    seen: set[Any] = set()
    open_: list[Any] = [value.grad_fn]
    while open_:
        node = open_.pop()
        if node is None or node in known or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) not in own:
            return True
        open_.extend(following for following, _ in node.next_functions)
    return False
