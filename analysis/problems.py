"""Graph fields as problems of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from analysis.comparison import Run
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.solve import solve


@dataclass
class FieldProblem:
    """A field on a graph, its first states by seed, and a reference solution in float64.

    Errors are those of the last state (of a tuple, its first part): `state error` is relative in
    the Frobenius norm, `energy error` that of the field's own Dirichlet energy, left out where
    it is below its floor. Work is counted in evaluations of the field and in products with its
    operator.

    Args:
        field: the field.
        graph: the graph.
        first: the first state of a seed; only its float64 values are used for the reference.
        end: the end time.
        name: of the problem; the field's by default.
        replica: tells apart fields of one name.
        rtol: tolerance of the reference, by "dopri8" or exact.

    >>> from neuralpde import catalogue
    >>> from neuralpde.fields import Heat
    >>> graph = catalogue.ring(8)
    >>> first = lambda seed: torch.eye(8, dtype=torch.float64)
    >>> heat = FieldProblem(Heat(), graph, first, 1.0)
    >>> found = heat.run(Run("rk4", None, 10, None, 0))
    >>> found["evaluations"], 0 < found["state error"] < 1e-3
    (40.0, True)
    """

    field: Field
    graph: Graph
    first: Callable[[int], State]
    end: float
    name: str = ""
    replica: int = 0
    rtol: float = 1e-10
    _references: dict[int, tuple[Tensor, float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Name the problem after its field."""
        self.name = self.name or type(self.field).__name__

    def run(self, run: Run) -> Mapping[str, float]:
        """Solve once and measure the last state."""
        x = self.first(run.seed)
        control: dict[str, Any] = (
            {"rtol": run.rtol, "atol": 1e-2 * run.rtol}
            if run.rtol is not None
            else {"steps": run.steps, "schedule": run.schedule}
        )
        generator = torch.Generator().manual_seed(run.seed)
        found = solve(
            self.field, x, self.end, self.graph, solver=run.solver, generator=generator, **control
        )
        state, energy = self._reference(run.seed, x)
        final = _first(found.final).double()
        off = abs(self._energy(found) - energy) / abs(energy) if energy else math.nan
        return {
            "state error": float((final - state).norm() / state.norm()),
            **({"energy error": off} if math.isfinite(off) else {}),
            "evaluations": float(found.stats.nfe),
            "products": float(found.stats.operator_products),
        }

    def _reference(self, seed: int, x: State) -> tuple[Tensor, float]:
        if seed not in self._references:
            from copy import deepcopy

            exact = deepcopy(self.field).double()
            wide = tuple(part.double() for part in x) if isinstance(x, tuple) else x.double()
            found = solve(exact, wide, self.end, self.graph, rtol=self.rtol, atol=1e-3 * self.rtol)
            self._references[seed] = _first(found.final), self._energy(found)
        return self._references[seed]

    @staticmethod
    def _energy(trajectory: Any) -> float:
        return float(trajectory.energy.y[-1])


def _first(x: State) -> Tensor:
    return x[0] if isinstance(x, tuple) else x
