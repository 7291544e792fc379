"""What a one-step method is to the loop: what it can do, as attributes, and one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.structure import Structure

Stage = Callable[[float, State], State]
"""The field inside a step: ``f(c, x)`` is its value at time ``t + c h``."""


@dataclass(frozen=True)
class Trouble:
    """What went wrong inside a step, other than its error estimate.

    Attributes:
        status: one of the words in `solvers.failure`.
        clocks: the clocks whose step is lost; an adaptive solve tries them again with less.
        text: the cause in words and numbers, and what to try, as whole sentences.
        graphs: the graphs it happened in, where they share a clock; None for all of those clocks.
    """

    status: str
    clocks: Bool[np.ndarray, " clocks"]
    text: str
    graphs: Bool[np.ndarray, " graphs"] | None = None

    def struck(self, clock_of: Int[np.ndarray, " graphs"]) -> Bool[np.ndarray, " graphs"]:
        """Tell which graphs it happened in, given the clock of each."""
        return self.clocks[clock_of] if self.graphs is None else self.graphs


@dataclass
class Step:
    """What one step gives.

    Attributes:
        x: the state at ``t + h``, in tensors of its own.
        error: estimate of the local error, or None where none was asked for; the next step may
            write to its memory.
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
        differentiated: whether gradients may be taken through the steps, on the tape or replayed.
        deviation: maps a state to the part that errors are compared with; None: the state.
    """

    rtol: float | None = None
    atol: float | None = None
    differentiated: bool = field(default=False, compare=False)
    deviation: Callable[[State], State] | None = field(default=None, compare=False)


class Stepper(ABC):
    """A one-step method; a subclass sets the attributes and gives `step`.

    A stepper as a user writes it holds no state of any solve. `begin` gives the one that a solve
    works with, and may measure and remember; everything that `step` depends on besides its
    arguments and the field goes through `plan`, so that a step can be taken again for gradients.

    Attributes:
        name: how users ask for it.
        order: of the solution.
        error_order: the q in the step factor ``ratio^(-1/q)``: order of the local error estimate;
            one for each clock where they differ.
        adaptive: whether there is an error estimate.
        fsal: whether ``Step.f`` is given.
        stability: length of the real negative stability interval; infinite for implicit methods.
        dense: whether cubic Hermite interpolation (quartic with ``mid``) keeps up with the order.
        control: step controller of an adaptive solve; None stands for the integral one.
        needs_slope: whether a step uses ``fx``; else the loop does not evaluate it.
        stochastic: whether it solves fields with noise; it is then of no use for others.
        reversible: whether `inverse` undoes a step, to rounding.
        parts: of a reversible method, what its step consists of; see `solvers.oscillators`.

    Example:
        >>> class Still(Stepper):
        ...     def step(self, f, h, x, fx, *, error=True, mid=False, plan=None):
        ...         return Step(x)
        >>> Still().begin(None, None, Accuracy()).plan(None, None, None) is None
        True
    """

    name: str = ""
    order: int = 1
    error_order: int | Int[np.ndarray, " clocks"] = 1
    adaptive: bool = False
    fsal: bool = False
    stability: float = float("inf")
    dense: bool = False
    control: Any = None
    needs_slope: bool = True
    stochastic: bool = False
    reversible: bool = False
    parts: tuple[Any, ...] = ()

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
        """Hear what became of a step of sizes ``h``: which clocks accepted it; not all care."""
        return

    def story(self) -> str:
        """Tell after the solve what its steps were like, for ``stats.reason``; "" for nothing."""
        return ""

    @abstractmethod
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

    def bounded(self, known: Structure, h: float) -> bool:
        """Whether no error grows in steps of at most ``h``, undone ones included, for certain."""
        return False

    def inverse(self, f: Any, h: float | Tensor, x: State) -> State:
        """Undo a step, where the method is `reversible`.

        Args:
            f: the field inside the step, as it was.
            h: the step, as it was.
            x: the state at ``t + h``.

        Returns:
            The state at ``t``, to rounding.
        """
        raise TypeError(f"{type(self).__name__} cannot be undone: it is not reversible")
