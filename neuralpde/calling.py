"""The user's field as the loop calls it, with its first answer checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralpde.problem import Problem
from solvers.rows import State


def checked_field(problem: Problem) -> Callable[[Tensor, State], State]:
    """The field on packed states; its first answer is checked."""
    packed, f, name = problem.packed, problem.f, problem.name
    seen = False

    def call(t: Tensor, x: State) -> State:
        nonlocal seen
        out = f(t, x if packed else x[0])
        slopes: State = tuple(out) if packed else (out,)
        if not seen:
            _check_slopes(name, slopes, x)
            seen = True
        return slopes

    return call


def _check_slopes(name: str, slopes: State, x: State) -> None:
    if len(slopes) != len(x):
        raise ValueError(f"{name} returned {len(slopes)} parts for a state of {len(x)}")
    for slope, part in zip(slopes, x, strict=True):
        if not isinstance(slope, Tensor):
            raise TypeError(f"{name} returned {type(slope).__name__}; dx/dt is a tensor like x")
        if slope.shape != part.shape:
            raise ValueError(
                f"{name} returned shape {tuple(slope.shape)} for a state of shape "
                f"{tuple(part.shape)}; dx/dt has the shape of x"
            )
        if slope.dtype != part.dtype:
            raise TypeError(
                f"{name} returned {slope.dtype} for a state of {part.dtype}; convert the field's "
                "constants (graph.like(x) gives operators in the state's dtype)"
            )


def hides_tensors(problem: Problem) -> bool:
    """Whether a plain function's value requires grad although its state does not."""
    time = torch.tensor(problem.times[0, 0], dtype=problem.dtype.to_real(), device="cpu")
    state = tuple(part.detach() for part in problem.x0)
    with torch.enable_grad():
        slope = problem.f(time.to(state[0].device), unpack(problem, state))
    return any(part.requires_grad for part in (slope if problem.packed else (slope,)))


def unpack(problem: Problem, x: State) -> Any:
    """The state as the user's field takes it."""
    return x if problem.packed else x[0]
