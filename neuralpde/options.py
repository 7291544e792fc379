"""torchdiffeq's names of methods and options, and what stands for them here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.fields.field import State
from solvers.schedules import Points

ADAPTIVE = {
    "dopri5": "dopri5",
    "tsit5": "tsit5",
    "dopri8": "dopri8",
    "bosh3": "bosh3",
    "adaptive_heun": "heun",
    "fehlberg2": "torchdiffeq:fehlberg2",
    "scipy_solver": "torchdiffeq:scipy_solver",
}
"""Adaptive methods by torchdiffeq's names, and the solver that runs them."""

FIXED = {
    "euler": "euler",
    "midpoint": "midpoint",
    "heun2": "heun",
    "heun3": "torchdiffeq:heun3",
    "rk4": "rk4",
    "explicit_adams": "torchdiffeq:explicit_adams",
    "implicit_adams": "torchdiffeq:implicit_adams",
    "fixed_adams": "torchdiffeq:fixed_adams",
}
"""Methods on a fixed grid, likewise."""

OPTIONS = {"adaptive": ("max_num_steps",), "fixed": ("step_size", "grid_constructor")}
"""What `options` may hold; in all, over the whole interval."""

Function = Callable[[Tensor, Any], Any]


def number(name: str, value: Any) -> float:
    """A tolerance as one number.

    Raises:
        ValueError: For several of them.

    >>> number("rtol", torch.tensor(0.5))
    0.5
    """
    if isinstance(value, (tuple, list)) or (isinstance(value, Tensor) and value.numel() != 1):
        raise ValueError(
            f"{name} has several entries; give one number. Parts of a tuple that need different "
            "tolerances are better scaled to the same size"
        )
    return float(value)


def checked_options(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a method, none of them ignored.

    Raises:
        ValueError: For an option that is unknown, or that this method does not have.

    >>> checked_options("euler", {"step_size": 0.1})
    {'step_size': 0.1}
    """
    kind = "fixed" if method in FIXED else "adaptive"
    allowed = OPTIONS[kind]
    wrong = [name for name in options if name not in allowed]
    if wrong:
        everything = sorted(name for names in OPTIONS.values() for name in names)
        near = difflib.get_close_matches(str(wrong[0]), everything, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] not in options else ";"
        raise ValueError(
            f"unknown option {wrong[0]!r} for method {method!r}{hint} supported are "
            f"{', '.join(allowed)}"
        )
    if len(options) > 1:
        raise ValueError("step_size and grid_constructor both place the grid; give one of them")
    return options


def grid_of(func: Function, y0: State, t: Tensor, options: Mapping[str, Any]) -> Points | None:
    """The grid's points as fractions of the interval; None when the entries of t are enough.

    Raises:
        ValueError: For a step that is not positive, or a grid that does not fit t.

    >>> y0, t = torch.zeros(1), torch.tensor([0.0, 1.0])
    >>> grid_of(lambda t, y: y, y0, t, {"step_size": 0.5})
    Points(times=(0.0, 0.5, 1.0))
    """
    times = t.detach().double().cpu().numpy()
    start, span = times[0], times[-1] - times[0]
    if "grid_constructor" in options:
        made = torch.as_tensor(options["grid_constructor"](func, y0, t))
        grid = made.detach().double().cpu().numpy()
        if len(grid) < 2 or grid[0] != start or grid[-1] != times[-1]:
            raise ValueError(
                f"grid_constructor made a grid from {grid[0]:g} to {grid[-1]:g}; it must begin "
                f"and end as t does, {start:g} and {times[-1]:g}"
            )
    elif "step_size" in options:
        size = float(options["step_size"])
        if not size > 0:
            raise ValueError(f"step_size is {size:g}; give a positive number")
        # A last step of nothing but rounding is none.
        count = max(int(np.ceil(abs(span) / size - 1e-9)), 1)
        grid = start + np.arange(count + 1) * np.copysign(size, span)
        grid[-1] = times[-1]
    else:
        return None
    points = (grid - start) / span
    points[0], points[-1] = 0.0, 1.0
    return Points(tuple(points))
