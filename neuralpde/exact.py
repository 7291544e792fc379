"""The exact route: linear and affine fields by Chebyshev, uniformisation or Lanczos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralpde.driving import refuse_noise
from neuralpde.exact_energy import ExactEnergy, unchanged
from neuralpde.operators.product import products
from neuralpde.problem import Problem
from neuralpde.watching import WatchTrack
from solvers.exact import Gradients, Method, propagate
from solvers.trajectory import Stats, Trajectory

GRADIENTS: dict[str, Gradients] = {
    "auto": "auto",
    "none": "auto",
    "replay": "auto",
    "tape": "tape",
    "reversible": "reversible",
}
METHODS: dict[str, Method] = {
    "exact": "auto",
    "chebyshev": "chebyshev",
    "uniformisation": "uniformisation",
    "lanczos": "lanczos",
}


@dataclass
class ExactRoute:
    """One linear solve with a guaranteed error.

    Args:
        method: "auto", "chebyshev", "uniformisation" or "lanczos".
        reason: Why an exact solve was chosen.
    """

    method: Method
    reason: str

    def run(self, problem: Problem) -> Trajectory:
        """Solve."""
        self._check(problem)
        field = problem.field
        assert field is not None
        assert field.operator is not None
        before = products.total
        offsets = problem.t - problem.t[:1]
        x0 = problem.x0[0]
        found = propagate(
            field.operator,
            x0,
            offsets,
            rtol=problem.rtol,
            source=None if field.source is None else field.source.expand_as(x0),
            method=self.method,
            grad=GRADIENTS[problem.grad],
        )
        x = found.x.detach() if problem.grad == "none" else found.x
        several = problem.rows.num_graphs > 1
        gradient = "none"
        if x.requires_grad:
            gradient = "tape" if problem.grad == "tape" else "reversible"
        stats = Stats(
            found.method,
            f"{self.reason}: {found.reason}",
            operator_products=products.total - before,
            gradient=gradient,
        )
        trajectory = Trajectory(
            problem.t,
            x,
            stats,
            ("done",) * problem.rows.num_graphs if several else "done",
            {},
            {**problem.settings, "solver": found.method},
            problem.graph,
            _dense=self._again(problem, unchanged(x), stats),
            _why_not_dense="it cannot be computed again",
        )
        if problem.tracked:
            self._attach_energy(problem, trajectory)
        self._watch(problem, trajectory)
        return trajectory

    def _check(self, problem: Problem) -> None:
        refuse_noise(problem, self.method if self.method != "auto" else "exact")
        if problem.field is None or not problem.field.affine or problem.packed:
            raise ValueError(
                f"an exact solve needs a linear field dx/dt = A x + source, and {problem.name} "
                "does not declare one (set self.operator in prepare and define no rest); use an "
                "adaptive solver such as 'tsit5'"
            )
        if problem.fixed:
            raise ValueError("an exact solve takes no steps; leave out steps= and schedule=")
        if problem.save == "steps":
            raise ValueError("an exact solve takes no steps to save; list times in t instead")
        if problem.stop is not None:
            raise ValueError("an exact solve takes no steps to stop at; use solver='tsit5'")
        if problem.grad == "adjoint":
            raise ValueError("grad='adjoint' belongs to solver='torchdiffeq:<method>'")

    def _again(self, problem: Problem, states: Callable[[], Tensor], stats: Stats) -> Any:
        """The state at any time by the same method; its products are counted."""
        field, method = problem.field, self.method
        assert field is not None
        operator = field.operator
        assert operator is not None

        def at(t: float) -> Tensor:
            times = torch.tensor([0.0, t], dtype=torch.float64, device="cpu")
            times[1] -= float(problem.times[0, 0])
            x0 = states()[0]
            source = None if field.source is None else field.source.expand_as(x0)
            with torch.no_grad():
                found = propagate(
                    operator,
                    x0,
                    times,
                    rtol=problem.rtol,
                    source=source,
                    method=method,
                )
            stats.operator_products += found.products
            return found.x[-1]

        return at

    @staticmethod
    def _attach_energy(problem: Problem, trajectory: Trajectory) -> None:
        field, form, graph = problem.field, problem.form(), problem.graph
        assert field is not None
        assert form is not None
        assert graph is not None
        assert field.operator is not None
        # Moments need a real spectrum, which directed diffusion has not.
        matched = field.source is None and field.operator.self_adjoint

        def count(spent: int) -> None:
            trajectory.stats.operator_products += spent

        ExactEnergy(
            form,
            graph,
            problem.t.detach(),
            field.dissipation if matched else None,
            problem.rtol,
            count,
        ).attach(trajectory)

    @staticmethod
    def _watch(problem: Problem, trajectory: Trajectory) -> None:
        """An exact solve has no steps: measures see the saved states."""
        if not problem.watch:
            return
        track = WatchTrack(problem.watch, problem.graph, packed=False)
        times = trajectory.t.detach()
        times = times[:, None].expand(-1, problem.rows.num_graphs) if times.dim() == 1 else times
        everyone = torch.ones(problem.rows.num_graphs, dtype=torch.bool, device="cpu").numpy()
        assert isinstance(trajectory.x, Tensor)
        for t, x in zip(times, trajectory.x, strict=True):
            track(t.numpy(), (x,), None, everyone)
        trajectory._series.update(track.series())
