"""Schedules of equal information: quantiles of an entropy rate, tempered and mixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit, logit
from torch import Tensor

from neuralpde.flows.estimators import Estimate, Pilot, Velocity
from neuralpde.flows.paths import Path
from solvers.failure import unknown_name
from solvers.methods import names, stepper
from solvers.schedules import Density

RATES = ("condmarg", "budget", "conditional", "loss", "exchange")
"""What a schedule can follow; `Entropic` says what each is."""

ESTIMATORS = ("auto", "hutchinson", "covariance")
"""How conditional and marginal rates are told apart."""


class ClosedRates(Protocol):
    """Rates in closed form, as `BridgeRates` has them: one method for each name in `RATES`."""

    def condmarg(self, t: Float[Tensor, " times"], dim: int = 1) -> Float[Tensor, " times"]:
        """The signed rate at those times, of a state of so many numbers."""
        ...


@dataclass(frozen=True)
class Entropic:
    """How a schedule is made of an entropy rate; `fit`, `closed` and `of` make it.

    What is made is a `solvers.schedules.Density`: plain numbers, which know no model and no path.

    The rate is one of these, H being entropies in nats; a schedule takes the modulus:

    - "condmarg": `R = d/dt H(x_t | x0, x1) - d/dt H(x_t)`, which is minus the rate of what the
      state tells of its ends. It is positive at first (the state forgets its source), about
      dim / (2t) at t = 0; then negative, about -dim / (2 (1 - t)) at t = 1. Between Gaussian ends
      of standard deviations s0 and s1 it vanishes at s0 / (s0 + s1).
    - "budget": the excess of `|d/dt H(x_t | x0, x1)|` over `|d/dt H(x_t)|`, and 0 where there is
      none.
    - "conditional": `d/dt H(x_t | x0, x1)`; needs no model.
    - "loss": `E |u - v|^2`, the loss of flow matching: for a straight path from Gaussian noise, the
      entropic time of arXiv:2504.13612 in its rescaled form.
    - "exchange": `d/dt (H(x0 | x_t) - H(x1 | x_t))`; in closed form only.

    From the paper are the conditional-minus-marginal rate with its heavy ends, its estimation by
    Hutchinson's divergences, the times as quantiles of the normalised rate, and log1p tempering.
    Our reading are the modulus (R changes sign) and the positive part of "budget", the cut eps (the
    integral of |R| diverges at both ends, so the literal grid depends on eps), tempering by a power
    and mixing. The literal quantiles make one giant step where R crosses zero, and can be many
    times worse than equal steps: the defaults repair that, and `literal()` is there to compare.

    Args:
        rate: which rate.
        p: power of the rate; "auto" is 1 / (order + 1) for the solver's order, thus 1/2 for
            stochastic solvers, whose order is 1, and 1 with `log1p`.
        mix: fraction of equal steps: none is longer than 1 / (mix n).
        eps: distance of the first and the last node from 0 and 1, or the path's ends where those
            are farther inside; the rate is held constant beyond.
        nodes: at how many times the rate is read, equally spaced in log(t / (1 - t)).
        log1p: whether the logarithm of 1 + rate is taken before the power.
        cut: whether the rate is 0 beyond the first and the last node, in place of being held.
        estimator: "hutchinson" (needs the velocity), "covariance" (velocity and score, and no
            differentiation), or "auto": covariance where there is a score.
        solver: for which "auto" chooses p.

    Raises:
        ValueError: for unknown names, fewer than two nodes, or an eps that cuts all off. What p and
            mix may be, `Density` says.

    References:
        Trentini et al., Entropy across the bridge, 2026, arXiv:2605.16126; Stancevic, Handke and
        Ambrogioni, Entropic time schedulers for generative diffusion models, 2025,
        arXiv:2504.13612, algorithms 1 and 2.

    >>> from neuralpde.flows import BridgeRates
    >>> made = Entropic().closed(BridgeRates(s0=1.0, s1=1.0))
    >>> made.grid(2).round(9).tolist(), made.p == 1 / 3, made.mix
    ([0.0, 0.5, 1.0], True, 0.25)
    """

    rate: str = "condmarg"
    p: float | str = "auto"
    mix: float = 0.25
    eps: float = 1e-3
    nodes: int = 49
    log1p: bool = False
    cut: bool = False
    estimator: str = "auto"
    solver: str = "heun"

    def __post_init__(self) -> None:
        """Refuse unknown names, and cuts that leave nothing."""
        if self.rate not in RATES:
            raise unknown_name("rate", self.rate, RATES)
        if self.estimator not in ESTIMATORS:
            raise unknown_name("estimator", self.estimator, ESTIMATORS)
        if self.solver not in names():
            raise unknown_name("solver", self.solver, names())
        if isinstance(self.p, str) and self.p != "auto":
            raise unknown_name("p", self.p, ("auto",))
        if self.nodes < 2 or not 0 < self.eps < 0.5:
            raise ValueError(
                f"nodes={self.nodes}, eps={self.eps}: needed are two nodes or more, and an eps "
                "between 0 and 1/2"
            )

    @classmethod
    def literal(cls, rate: str = "condmarg") -> Entropic:
        """The quantiles of the rate as it is: p = 1, nothing mixed in, cut at eps = 0.02.

        Args:
            rate: which rate.
        """
        return cls(rate, p=1.0, mix=0.0, eps=0.02, cut=True)

    @property
    def power(self) -> float:
        """The power p, as "auto" chooses it."""
        if not isinstance(self.p, str):
            return self.p
        return 1.0 if self.log1p else 1 / (stepper(self.solver).order + 1)

    def fit(
        self,
        path: Path,
        x0: Float[Tensor, "points ..."],
        x1: Float[Tensor, "points ..."],
        velocity: Velocity | None = None,
        score: Velocity | None = None,
        *,
        states: int | None = None,
        probes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Density:
        """Estimate the rate on a batch of pairs, and make a schedule for the path's interval.

        The schedule's 0 and 1 are the path's `ends`: solve over them.

        Args:
            path: from which states are drawn.
            x0: sources, of the coupling that the flow is of; 512 pairs are enough for a schedule.
            x1: targets.
            velocity: the marginal velocity v(t, x); not needed for "conditional".
            score: the marginal score, if known.
            states: as in `Pilot`: graphs in the batch, where points are nodes.
            probes: as in `Pilot`: random vectors for each divergence.
            generator: of noise and probes.

        Returns:
            A density whose provenance tells how it was estimated, and whose `evaluations` are those
            of the model on the whole batch; see `Pilot`.

        Raises:
            ValueError: for what the rate or the estimator lacks.
        """
        pilot = Pilot(
            path, x0, x1, velocity, score, states=states, probes=probes, generator=generator
        )
        read, how = self._reader(pilot)
        times = self.times(path.ends)
        rates = torch.tensor([read(float(t)).rate for t in times], dtype=torch.float64)
        return self._density(
            times,
            rates,
            path.ends,
            {
                "estimator": how,
                "states": pilot.states,
                "evaluations": pilot.evaluations,
                "products": pilot.products,
            },
        )

    def closed(
        self, rates: ClosedRates, dim: int = 1, ends: tuple[float, float] = (0.0, 1.0)
    ) -> Density:
        """Make a schedule of rates in closed form.

        Args:
            rates: with a method of the rate's name, as `BridgeRates`.
            dim: numbers of a state; it matters to `log1p` alone.
            ends: the interval that will be solved over, a path's `ends`.

        >>> from neuralpde.flows import BridgeRates
        >>> fine = Entropic("exchange", p=0.5, mix=0.0, eps=1e-8, nodes=999)
        >>> fine.closed(BridgeRates()).grid(4).round(3).tolist()  # the cosine schedule
        [0.0, 0.146, 0.5, 0.854, 1.0]
        """
        method = getattr(rates, self.rate)
        times = self.times(ends)
        return self._density(times, method(torch.from_numpy(times), dim), ends, {})

    def of(
        self,
        function: Callable[[Float[Tensor, " times"]], Float[Tensor, " times"]],
        ends: tuple[float, float] = (0.0, 1.0),
    ) -> Density:
        """Make a schedule of any rate, signed or not.

        Args:
            function: of float64 times.
            ends: the interval that will be solved over, a path's `ends`.

        >>> Entropic(p=1.0).of(torch.ones_like).grid(2).tolist()
        [0.0, 0.5, 1.0]
        """
        times = self.times(ends)
        return self._density(times, function(torch.from_numpy(times)), ends, {"rate": "given"})

    def times(self, ends: tuple[float, float] = (0.0, 1.0)) -> Float[np.ndarray, " nodes"]:
        """The times at which the rate is read.

        Args:
            ends: the interval that will be solved over.

        Raises:
            ValueError: for an interval outside [0, 1].

        >>> Entropic(eps=0.1, nodes=3).times().round(3).tolist()
        [0.1, 0.5, 0.9]
        """
        if not 0 <= ends[0] < ends[1] <= 1:
            raise ValueError(f"ends are {ends}; give an interval in [0, 1]")
        first, last = max(self.eps, ends[0]), min(1 - self.eps, ends[1])
        if first >= last:
            raise ValueError(f"eps={self.eps:g} leaves nothing of the interval {ends}")
        times = expit(np.linspace(logit(first), logit(last), self.nodes))
        times[[0, -1]] = first, last
        return np.asarray(times)

    def _density(
        self,
        times: Float[np.ndarray, " nodes"],
        rates: Float[Tensor, " nodes"],
        ends: tuple[float, float],
        how: dict[str, Any],
    ) -> Density:
        values = rates.detach().double().abs().cpu().numpy()
        low, high = ends
        unit = (times - low) / (high - low)
        provenance = {"rate": self.rate, "eps": self.eps, "ends": list(ends), **how}
        return Density(
            tuple(unit), tuple(values), self.power, self.mix, self.log1p, self.cut, provenance
        )

    def _reader(self, pilot: Pilot) -> tuple[Callable[[float], Estimate], str]:
        """How one estimate is read, and what that is called."""
        if self.rate == "exchange":
            raise ValueError(
                'the rate "exchange" is known in closed form only; use closed(), or "condmarg"'
            )
        if self.rate in ("conditional", "loss"):
            return getattr(pilot, self.rate), self.rate
        auto = "hutchinson" if pilot.score is None else "covariance"
        name = auto if self.estimator == "auto" else self.estimator
        signed: Callable[[float], Estimate] = getattr(pilot, name)
        if self.rate == "condmarg":
            return signed, name

        def budget(t: float) -> Estimate:
            conditional, read = pilot.conditional(t).rate, signed(t)
            marginal = conditional - read.rate
            return Estimate(max(abs(conditional) - abs(marginal), 0.0), read.error)

        return budget, name
