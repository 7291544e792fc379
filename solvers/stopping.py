"""Conditions that end a graph before its last time."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.spectrum import spectral_radius
from solvers.stepper import Accuracy, Stepper

Times = Float[np.ndarray, " graphs"]
Mask = Bool[np.ndarray, " graphs"]

NOISE = 1.0
"""When stability limits its steps, an explicit method lets |F| float about rho (atol + rtol |x|),
in root mean squares: 0.15 of it for dopri8, 0.4 for heun, 0.7 for tsit5, 0.8 for dopri5, 1.3 for
bosh3 (medians of heat flows on a star, a grid, a tree and a complete graph, rtol 1e-3 and 1e-4)."""


@dataclass(frozen=True)
class Scene:
    """The solve that a condition looks at.

    Attributes:
        flow: The field on its clocks.
        rows: How rows belong to graphs.
        stepper: The method.
        accuracy: Its tolerances.
        packed: Whether the user's state is a tuple.
        energy: What reads the energy of the newest state; None without a graph.
    """

    flow: Flow
    rows: Rows
    stepper: Stepper
    accuracy: Accuracy
    packed: bool = False
    energy: Any = None


class Watcher(ABC):
    """A condition at work in one solve.

    Attributes:
        name: What the status of a graph says that it ended.
        needs_slope: Whether it reads dx/dt; the loop then evaluates what the method did not.
        has_root: Whether the graph ends at a root inside the step; see `solvers.events`.
    """

    name: str = ""
    needs_slope: bool = False
    has_root: bool = False

    @abstractmethod
    def ends(self, t: Times, x: State, fx: State | None, moved: Mask) -> Mask:
        """Which graphs are to end where they are.

        Called at the start, and after every accepted step of at least one graph.

        Args:
            t: times of the graphs.
            x: the new state.
            fx: dx/dt there, if it is known.
            moved: the graphs that just got there.
        """


class Condition(ABC):
    """Something to stop at; a subclass gives `name` and `begin`, and holds no state of a solve.

    Example:
        >>> WallTime(3.0).name
        'wall time'
    """

    name: str = ""

    def on(self, graph: Any, x0: Any) -> Condition:
        """This condition for solves on a graph from a first state: itself, unless that matters."""
        return self

    @abstractmethod
    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        """Get ready for one solve.

        Args:
            scene: the solve.
            before: the watcher of the piece before, when a field is solved piece by piece.
        """


@dataclass(frozen=True)
class SteadyState(Condition):
    """Ends each graph once it hardly moves: |F(x)| <= rate |F(x0)| for `hold` steps in a row.

    F is dx/dt, measured per graph as a root mean square over all its entries. It is compared with
    its own first value, not with the size of the state: a large constant part changes nothing. A
    piecewise field begins anew with every piece.

    An explicit method whose step is limited by stability does not bring F below its noise, about
    rho (atol + rtol |x|) with the spectral radius rho: a rate below that warns at the start, where
    ten evaluations estimate rho.

    Args:
        rate: The fraction, between 0 and 1.
        hold: Consecutive accepted steps.

    Raises:
        ValueError: For a rate outside (0, 1), and a hold below 1.

    Example:
        >>> SteadyState(1e-3)
        SteadyState(rate=0.001, hold=2)
    """

    rate: float = 1e-3
    hold: int = 2
    name = "steady state"

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(
                f"rate is {self.rate}; it is a fraction of |F(x0)|: give a number between 0 and 1"
            )
        if self.hold < 1 or int(self.hold) != self.hold:
            raise ValueError(f"hold is {self.hold}; give a whole number of steps, at least 1")

    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        """Get ready for one solve."""
        return _Steady(self, scene)


class Calm(Watcher):
    """Ends graphs where |F| was small for some steps in a row.

    Args:
        name: For the status.
        scene: The solve.
        hold: How many steps.
        enough: How small, given the first |F| of each graph.
    """

    needs_slope = True

    def __init__(
        self, name: str, scene: Scene, hold: int, enough: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.name, self.scene, self.hold, self.enough = name, scene, hold, enough
        self.first: np.ndarray | None = None
        self.count = np.zeros(scene.rows.num_graphs, dtype=int)

    def ends(self, t: Times, x: State, fx: State | None, moved: Mask) -> Mask:
        """The graphs that have been calm for long enough."""
        assert fx is not None
        with torch.no_grad():
            size = self.scene.rows.mean_square(fx).sqrt().cpu().numpy()
        if self.first is None:
            self.first = size
            self.look(t, x, fx)
            return np.zeros_like(moved)
        calm = size <= self.enough(self.first)
        self.count = np.where(moved, np.where(calm, self.count + 1, 0), self.count)
        found: np.ndarray = moved & (self.count >= self.hold)
        return found

    def look(self, t: Times, x: State, fx: State) -> None:
        """Look at the start of the solve; `first` is known."""


class _Steady(Calm):
    """Calm relative to the start, with a warning when noise would hide it."""

    def __init__(self, condition: SteadyState, scene: Scene) -> None:
        super().__init__(
            condition.name, scene, condition.hold, lambda first: condition.rate * first
        )
        self.condition = condition

    def look(self, t: Times, x: State, fx: State) -> None:
        """Warn when the threshold lies below what the method's own errors let F reach."""
        scene, rtol, atol = self.scene, self.scene.accuracy.rtol, self.scene.accuracy.atol
        if rtol is None or atol is None or np.isinf(scene.stepper.stability):
            return
        assert self.first is not None
        clocks = t if scene.flow.clocks.batch is not None else t[:1]
        with torch.no_grad():
            radius = spectral_radius(scene.flow, clocks, x, scene.rows, 9)
            # Entries that do not move, however large, make no noise either.
            pairs = zip(fx, x, strict=True)
            errors = tuple((atol + rtol * part.abs()) * slope for slope, part in pairs)
            size = scene.rows.mean_square(errors).sqrt().cpu().numpy()
        noise = NOISE * radius * size / np.where(self.first > 0, self.first, 1.0)
        aim = self.condition.rate * self.first
        below = np.flatnonzero((aim < noise) & (self.first > 0))
        if not len(below):
            return
        g = int(below[np.argmax(noise[below] / aim[below])])
        who = f" of graph {g}" if len(aim) > 1 else ""
        warnings.warn(
            f"{self.condition}: rate |F(x0)| = {aim[g]:.2g}{who} lies below the noise floor of "
            f"{scene.stepper.name!r}, rho (atol + rtol |x|) = {noise[g]:.2g} with rho = "
            f"{radius[g]:.3g}: if stability limits its steps, |F| floats about that floor and the "
            "steady state is seen late, by chance or never. Lower rtol and atol "
            f"{np.ceil(noise[g] / aim[g]):.0f}-fold, or use solver='rkl2'",
            stacklevel=2,
        )


@dataclass(frozen=True)
class WallTime(Condition):
    """Ends all graphs at the first accepted step after so many seconds: `traj.final` goes on.

    Args:
        seconds: Wall-clock time from the start of the solve.
        clock: Gives the time in seconds.

    Raises:
        ValueError: When the time is not above zero.

    Example:
        >>> WallTime(60.0)
        WallTime(seconds=60.0)
    """

    seconds: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    name = "wall time"

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}; give a time above zero")

    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        """Get ready for one solve."""
        return before or _Deadline(self)


class _Deadline(Watcher):
    """Compares the clock with the moment at which time is up."""

    def __init__(self, condition: WallTime) -> None:
        self.name, self.clock = condition.name, condition.clock
        self.until = condition.clock() + condition.seconds

    def ends(self, t: Times, x: State, fx: State | None, moved: Mask) -> Mask:
        over: np.ndarray = moved & (self.clock() >= self.until)
        return over


@dataclass(frozen=True)
class Told(Condition):
    """A callable as a condition: ``call(t, x, fx)`` says which graphs are to end.

    Args:
        call: Called at the start and after every accepted step with the graphs' times
            `[graphs]` (numpy), the state as a tuple of tensors, and dx/dt likewise, or None where
            the method did not evaluate it. It returns one truth value per graph, or a single one
            for all. Its attribute `name` goes into the status; with `needs_slope = True` dx/dt is
            always given.

    Example:
        >>> Told(lambda t, x, fx: t > 3.0).name
        '<lambda>'
    """

    call: Callable[[np.ndarray, State, State | None], Any]

    def __post_init__(self) -> None:
        named = getattr(self.call, "name", None) or getattr(self.call, "__name__", None)
        object.__setattr__(self, "name", str(named or type(self.call).__name__))

    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        """Get ready for one solve."""
        return _Asked(self)


class _Asked(Watcher):
    """Asks the callable and checks what it says."""

    def __init__(self, condition: Told) -> None:
        self.name, self.call = condition.name, condition.call
        self.needs_slope = bool(getattr(condition.call, "needs_slope", False))

    def ends(self, t: Times, x: State, fx: State | None, moved: Mask) -> Mask:
        with torch.no_grad():
            said = np.asarray(self.call(t, x, fx))
        if said.dtype != bool or said.shape not in ((), moved.shape):
            raise ValueError(
                f"the stop condition {self.name!r} returned {said.dtype} of shape {said.shape}; "
                f"give one truth value per graph ({len(moved)}), or a single one"
            )
        over: np.ndarray = moved & said
        return over


class Stopping:
    """All conditions of one solve, the first that holds named in the status.

    Args:
        conditions: What to stop at.
        packed: Whether the user's state is a tuple.

    Attributes:
        watchers: The conditions at work, once the loop has begun.
        energy: What reads the energy of the newest state; set by who knows the graph.

    Example:
        >>> Stopping((SteadyState(), WallTime(9.0))).conditions[1].name
        'wall time'
    """

    def __init__(self, conditions: Sequence[Condition], packed: bool = False) -> None:
        self.conditions, self.packed = tuple(conditions), packed
        self.watchers: list[Watcher] = []
        self.energy: Any = None
        self.needs_slope = False

    def begin(self, flow: Flow, rows: Rows, stepper: Stepper, accuracy: Accuracy) -> None:
        """Get ready for a run; a further one goes on from the watchers of the one before."""
        scene = Scene(flow, rows, stepper, accuracy, self.packed, self.energy)
        before: Sequence[Watcher | None] = self.watchers or [None] * len(self.conditions)
        pairs = zip(self.conditions, before, strict=True)
        self.watchers = [condition.begin(scene, watcher) for condition, watcher in pairs]
        self.needs_slope = any(watcher.needs_slope for watcher in self.watchers)

    def __call__(self, t: Times, x: State, fx: State | None, moved: Mask) -> dict[int, str]:
        """The graphs that end where they are, each with the name of the condition."""
        ending: dict[int, str] = {}
        for watcher in self.watchers:
            for g in np.flatnonzero(watcher.ends(t, x, fx, moved)):
                ending.setdefault(int(g), watcher.name)
        return ending
