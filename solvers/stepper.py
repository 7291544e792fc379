"""What a one-step method is to the loop: what it can do, as attributes, and one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.flow import Flow
from solvers.rows import Rows, State

Stage = Callable[[float, State], State]
"""The field inside a step: ``f(c, x)`` is its value at time ``t + c h``."""


@dataclass(frozen=True)
class Trouble:
    """What went wrong inside a step, other than its error estimate.

    Attributes:
        status: one of the words in `solvers.failure`.
        clocks: the clocks whose step is lost; an adaptive solve tries them again with less.
        text: the cause in words and numbers, and what to try, as whole sentences.
    """

    status: str
    clocks: Bool[np.ndarray, " clocks"]
    text: str


@dataclass
class Step:
    """What one step gives.

    Attributes:
        x: the state at ``t + h``, in tensors of its own.
        error: estimate of the local error, or None where none was asked for.
        f: the field at ``(t + h, x)`` if the method evaluated it as its last stage, else None.
        mid: the state at ``t + h/2``, or None.
        trouble: why the step must not be accepted, or None.
    """

    x: State
    error: State | None = None
    f: State | None = None
    mid: State | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Accuracy:
    """How precisely a solve works: what methods with inner iterations aim at.

    Attributes:
        rtol: relative tolerance of an adaptive solve; None on a fixed grid.
        atol: absolute tolerance of an adaptive solve; None on a fixed grid.
    """

    rtol: float | None = None
    atol: float | None = None


class Stepper:
    """A one-step method; a subclass sets the attributes and gives `step`.

    A stepper as a user writes it holds no state of any solve. `begin` gives the one that a solve
    works with, and may measure and remember; everything that `step` depends on besides its
    arguments and the field goes through `plan`, so that a step can be taken again for gradients.

    Attributes:
        name: how users ask for it.
        order: of the solution.
        error_order: the q in the step factor ``ratio^(-1/q)``: order of the local error estimate.
        adaptive: whether there is an error estimate.
        fsal: whether ``Step.f`` is given.
        stability: length of the real negative stability interval; infinite for implicit methods.
        dense: whether cubic Hermite interpolation (quartic with ``mid``) keeps up with the order.
        control: step controller of an adaptive solve; None stands for the integral one.
        needs_slope: whether a step uses ``fx``; else the loop does not evaluate it.

    Example:
        >>> Stepper().begin(None, None, Accuracy()).plan(None, None, None) is None
        True
    """

    name: str = ""
    order: int = 1
    error_order: int = 1
    adaptive: bool = False
    fsal: bool = False
    stability: float = float("inf")
    dense: bool = False
    control: Any = None
    needs_slope: bool = True

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Get ready for one solve; called once, before any evaluation of the field.

        Args:
            flow: the field on its clocks, with what is known of its structure.
            rows: how rows belong to graphs.
            accuracy: the tolerances.

        Returns:
            A stepper of this solve's own, or itself where there is nothing to remember.

        Raises:
            ValueError: when the field lacks the structure that the method needs; says what came,
                what is needed and which method to take instead.
        """
        return self

    def limit(self, h: Float[np.ndarray, " clocks"]) -> Float[np.ndarray, " clocks"]:
        """Cut the sizes of the next steps to what the method can take."""
        return h

    def plan(self, f: Any, x: State, fx: State | None) -> Any:
        """Decide what the next step needs to know, such as a number of stages; None for nothing.

        It is kept with the step and given to `step` again when gradients replay it.

        Args:
            f: the field inside the step, a `solvers.flow.Stages`.
            x: the state at ``t``.
            fx: the field there, if it is needed.
        """
        return None

    def judged(
        self, step: Step, accepted: Bool[np.ndarray, " clocks"], h: Float[np.ndarray, " clocks"]
    ) -> None:
        """Hear what became of a step of sizes ``h``: which clocks accepted it."""

    def step(
        self,
        f: Any,
        h: float | Tensor,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: Any = None,
    ) -> Step:
        """Advance by one step.

        Args:
            f: the field inside the step: ``f(c, x)`` is its value at ``t + c h``.
            h: the step, negative for backward: a number, or a tensor with one value per row.
            x: the state at ``t``.
            fx: the field there, ``f(0, x)``; ``x`` itself where `needs_slope` is False.
            error: whether to estimate the error, where the method can.
            mid: whether to give the state at ``t + h/2``, where the method can.
            plan: what `plan` decided for this step.

        Returns:
            The new state and what was asked for.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")
