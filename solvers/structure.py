"""What a solver may know of a field besides its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from solvers.problem import Operator
from solvers.rows import State

Part = Callable[[Tensor, State], State]


@dataclass(frozen=True)
class Structure:
    """The parts of dx/dt = A x + source + rest(t, x), or of x'' = force - damping x'.

    Everything is None (or False) where nothing is known, as for plain callables.

    Attributes:
        operator: A, the fixed linear part.
        source: A constant tensor, in the state's shape.
        rest: What is neither linear nor constant, as a function of time and state; None for affine
            fields.
        pointwise: Whether every entry of `rest` depends on the same entry of the state alone, so
            that its Jacobian is diagonal. True where there is no rest.
        force: For second-order fields with state (x, v): the force as a function of time and x.
        damping: The number or 0-d tensor alpha in dv/dt = force - alpha v.
        stiffness: An operator K where the force is linear, K x; where some rows are held at rest,
            K without those rows.
        noise: For stochastic fields: the diffusion; see `solvers.noise`.
        name: What the field is called in messages.

    >>> Structure().operator is None, Structure().pointwise
    (True, False)
    """

    operator: Operator | None = None
    source: Tensor | None = None
    rest: Part | None = None
    pointwise: bool = False
    force: Callable[[Tensor, Tensor], Tensor] | None = None
    damping: float | Tensor = 0.0
    stiffness: Operator | None = None
    noise: Any = None
    name: str = "the field"
