"""A sampler on its way along a time grid: it can be paused, cloned, reweighted and resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from neuralpde.fields.field import Field, State
from neuralpde.solve import solve
from solvers import methods, schedules
from solvers.schedules import Schedule
from solvers.stepper import Stepper


@dataclass(frozen=True, eq=False)
class Walk:
    """Where a solve on a fixed grid is: at node `at` of `nodes`, with the state `x`.

    A walk never changes: `advance` returns another one. So a pause is to stop asking, a clone is
    the same walk advanced twice, and what a particle method does between steps is
    `walk.replaced(x=walk.x[chosen])`. Where it stops makes no difference: the states at the nodes
    are those of one `solve` on the whole grid, bit for bit. Noise belongs to the seed, the time and
    the *row* of the state, so that two rows that were cloned from one go different ways, and two
    walks with one seed the same; `reseeded` gives a walk noise of its own from there on.

    Attributes:
        field: The bound field.
        nodes: Times of the grid, float64.
        x: The state.
        stepper: The method, with the seed of its path where it is stochastic.
        at: Index of the node reached.
        nfe: Evaluations so far.

    >>> from neuralpde.flows.samplers import ProbabilityFlow
    >>> flow = ProbabilityFlow(lambda t, x: torch.full_like(x, 2.0))
    >>> walk = Walk.begin(flow, torch.zeros(1, 1), (0.0, 1.0), steps=4, solver="euler")
    >>> half = walk.advance(2)
    >>> half.t, half.x.item(), half.finish().x.item(), walk.x.item()
    (0.5, 1.0, 2.0, 0.0)
    """

    field: Field
    nodes: np.ndarray
    x: Any
    stepper: Stepper
    at: int = 0
    nfe: int = 0

    @classmethod
    def begin(
        cls,
        field: Field,
        x0: State,
        ends: tuple[float, float],
        graph: Any = None,
        *,
        steps: int,
        solver: str | Stepper = "heun",
        schedule: Schedule | str = "uniform",
        generator: torch.Generator | None = None,
    ) -> Self:
        """Stand at the first node.

        Args:
            field: The sampler.
            x0: The first state.
            ends: First and last time, such as `path.ends`; falling for a backward sampler.
            graph: As in `solve`.
            steps: Of the grid.
            solver: A one-step method.
            schedule: Places the steps.
            generator: Source of the seed of a stochastic method.

        Raises:
            ValueError: For an unknown name.
        """
        stepper: Any = methods.stepper(solver) if isinstance(solver, str) else solver
        if stepper.stochastic:
            stepper = stepper.seeded(generator)
        start, end = ends
        nodes = start + schedules.get(schedule).grid(steps) * (end - start)
        nodes[-1] = end
        return cls(field.bind(graph, x0), nodes, x0, stepper)

    @property
    def t(self) -> float:
        """The time of the node reached."""
        return float(self.nodes[self.at])

    @property
    def left(self) -> int:
        """Steps to the end of the grid."""
        return len(self.nodes) - 1 - self.at

    def advance(self, steps: int = 1) -> Self:
        """Take steps.

        Args:
            steps: How many, from 1 to `left`.

        Raises:
            ValueError: For a step beyond the end of the grid.
            SolveFailed: As `solve` does.
        """
        if not 1 <= steps <= self.left:
            raise ValueError(f"{steps} steps from node {self.at}; {self.left} are left")
        times = torch.from_numpy(self.nodes[self.at : self.at + steps + 1].copy())
        # Save times are nodes of the grid, exactly; one step between the ends adds no other.
        done = solve(self.field, self.x, times, solver=self.stepper, steps=1)
        return replace(self, x=done.final, at=self.at + steps, nfe=self.nfe + done.stats.nfe)

    def finish(self) -> Self:
        """Take all steps that are left."""
        return self.advance(self.left) if self.left else self

    def replaced(self, x: State) -> Self:
        """The walk with another state at the same node: chosen, moved or corrected."""
        return replace(self, x=x)

    def reseeded(self, generator: torch.Generator | None = None) -> Self:
        """The walk with noise of its own from here on.

        Raises:
            ValueError: For a method without noise.
        """
        if not self.stepper.stochastic:
            raise ValueError(f"{self.stepper.name} takes no noise: there is nothing to seed")
        stepper: Any = type(self.stepper)()
        return replace(self, stepper=stepper.seeded(generator))
