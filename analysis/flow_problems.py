"""Flows between laws as problems of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.comparison import Run
from analysis.distances import median_bandwidths, mmd2, wasserstein
from neuralpde.flows import Heads, Model, ProbabilityFlow, StochasticSampler
from neuralpde.flows.training import Law
from neuralpde.solve import solve
from solvers import methods
from solvers.schedules import Cosine

ROLES = ("source", "target", "noise")
"""What a seed makes, each from numbers of its own."""

PILOT, TRAINING, REFERENCE = 10**6, 2 * 10**6, 3 * 10**6
"""Where seeds of pilots, of training and of the reference begin; a study's seeds are below."""

FINE = 100
"""Steps of the reference solution, by "rk4" on the cosine grid."""


class Counted(Model):
    """A model that counts how often it is evaluated, whatever a solver says.

    Args:
        model: the model; velocity and score together are one evaluation.

    >>> from neuralpde.flows import Pair
    >>> counted = Counted(Pair(lambda t, x: x, lambda t, x: -x))
    >>> _ = counted.both(torch.tensor(0.0), torch.ones(1)), counted.velocity(0.0, torch.ones(1))
    >>> counted.evaluations
    2
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.sigma = model, model.sigma
        # A list, which the copies that solves bind share.
        self._count = [0]
        self.batched_time = model.batched_time

    @property
    def evaluations(self) -> int:
        """How often it was evaluated."""
        return self._count[0]

    def both(self, t: Tensor, x: Tensor) -> Heads:
        """Both, counted once."""
        self._count[0] += 1
        return self.model.both(t, x)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity alone, counted."""
        self._count[0] += 1
        return self.model.velocity(t, x)


@dataclass
class FlowProblem:
    """A flow from one law to another, judged by the samples it ends in.

    Deterministic solvers follow the probability flow, stochastic ones the diffusion with the
    model's noise. Runs of one seed start from the same points, see the same Brownian path on every
    grid, and are judged against the same fresh sample of the target. Errors:

        mmd2   the squared maximum mean discrepancy, unbiased (it may be negative), with bandwidths
               frozen from a reference sample of the target
        w2     the exact Wasserstein distance of 1,000 points of each sample
        rmse   deterministic solvers: root mean square distance of 512 end points from those of
               100 steps of "rk4" on the cosine grid

    Args:
        model: velocity and score.
        source: the law at t = 0.
        target: the law at t = 1.
        ends: the interval, `path.ends`.
        name: of the problem.
        replica: tells apart models of one name, trained from other seeds.
        samples: points per run.
        noise: level of stochastic solvers; the model's sigma by default.

    >>> from neuralpde.flows import BrownianBridge, MixtureFlow, normal
    >>> bridge, laws = BrownianBridge(1.0), (normal(1), normal(1, mean=2.0))
    >>> problem = FlowProblem(MixtureFlow(*laws, bridge, 1.0), *laws, bridge.ends, samples=64)
    >>> problem.run(Run("heun", Cosine(), 5, None, 0))["evaluations"]
    10.0
    """

    model: Model
    source: Law
    target: Law
    ends: tuple[float, float]
    name: str = "flow"
    replica: int = 0
    samples: int = 4096
    noise: float | None = None
    _references: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _bandwidths: tuple[float, ...] = field(default=(), repr=False)

    def run(self, run: Run) -> Mapping[str, float]:
        """Sample once, and judge the sample."""
        counted = Counted(self.model)
        stochastic = bool(getattr(methods.stepper(run.solver), "stochastic", False))
        sampler = StochasticSampler(counted, self.noise) if stochastic else ProbabilityFlow(counted)
        control: dict[str, Any] = (
            {"rtol": run.rtol, "atol": 1e-2 * run.rtol}
            if run.rtol is not None
            else {"steps": run.steps, "schedule": run.schedule}
        )
        x0 = self.source.sample(self.samples, _seeded(run.seed, "source"))
        x0 = x0.to(next((weight.dtype for weight in self.model.parameters()), x0.dtype))
        with torch.no_grad():
            found = solve(
                sampler,
                x0,
                self.ends,
                solver=run.solver,
                generator=_seeded(run.seed, "noise") if stochastic else None,
                **control,
            )
        final = found.final
        assert isinstance(final, Tensor)
        fresh = self.target.sample(self.samples, _seeded(run.seed, "target"))
        errors = {
            "mmd2": mmd2(final, fresh, self.bandwidths()),
            "w2": wasserstein(final[:1000], fresh[:1000]),
        }
        if not stochastic:
            apart = final[:512] - self._reference(run.seed, x0[:512])
            errors["rmse"] = float(apart.square().sum(1).mean().sqrt())
        return {**errors, "evaluations": float(counted.evaluations)}

    def bandwidths(self) -> tuple[float, ...]:
        """Those of the kernels, from the reference sample."""
        if not self._bandwidths:
            generator = torch.Generator().manual_seed(REFERENCE)
            self._bandwidths = median_bandwidths(self.target.sample(2000, generator))
        return self._bandwidths

    def _reference(self, seed: int, x0: Float[Tensor, "points dims"]) -> Tensor:
        if seed not in self._references:
            flow = ProbabilityFlow(self.model)
            with torch.no_grad():
                found = solve(flow, x0, self.ends, solver="rk4", steps=FINE, schedule=Cosine())
            assert isinstance(found.final, Tensor)
            self._references[seed] = found.final
        return self._references[seed]


def _seeded(seed: int, role: str) -> torch.Generator:
    return torch.Generator().manual_seed(len(ROLES) * seed + ROLES.index(role))
