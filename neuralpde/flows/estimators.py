"""Entropy rates read off a batch of paths: by divergence, by covariance, by loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.flows.paths import Path, Sample

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A field of time (0-d, float64) and state, as `solve` takes it."""

Given = TypeVar("Given")

EXACT = 10
"""States of up to so many numbers have their divergence summed, number by number."""


class Estimate(NamedTuple):
    """A rate at one time, of one state, in nats per unit of time.

    Attributes:
        rate: its mean over the batch, with its sign.
        error: standard error of the mean.

    >>> Estimate(2.0, 0.1).rate
    2.0
    """

    rate: float
    error: float


class Pilot:
    """A batch of pairs of ends, with which the rates of a path are estimated.

    Every time sees the same pairs and the same noise, so that rates are smooth in time, and what
    is common to all of them goes out of a schedule. The states need a path with noise, except for
    `loss`.

    Args:
        path: from which states are drawn.
        x0: sources, `[points, ...]`.
        x1: targets, coupled to them.
        velocity: the marginal velocity v(t, x): a network, or exact.
        score: the marginal score grad log p_t(x); needed by `covariance`.
        states: how many states the batch holds, by default its points. Fewer where points are
            nodes of graphs, which lie one after another and are of the same size: then dim counts
            a graph, and a velocity may couple its points.
        probes: random vectors for each divergence; None is one, and for states of up to 10 numbers
            that stand alone it is the exact trace, which takes a product for each number.
        generator: of noise and probes.

    Attributes:
        dim: numbers of a state.
        evaluations: what was spent until now, in evaluations of the whole batch: calls of velocity
            and score, and vector-Jacobian products, which take no longer than a call, as nothing
            is differentiated by weights.
        products: the products among them.

    Raises:
        ValueError: for states that do not share the batch equally, or less than one probe.

    >>> from neuralpde.flows.paths import BrownianBridge
    >>> ends = torch.zeros(8, 2), torch.zeros(8, 2)
    >>> still = Pilot(BrownianBridge(1.0), *ends, lambda t, x: 0 * x)
    >>> round(still.hutchinson(0.25).rate, 9), still.evaluations  # 4 d / 3, all of it conditional
    (2.666666667, 3)
    """

    def __init__(
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
    ) -> None:
        self.path, self.x0, self.x1 = path, x0, x1
        self.velocity, self.score, self.probes = velocity, score, probes
        self.states = len(x0) if states is None else states
        if self.states < 1 or x0.numel() % self.states:
            raise ValueError(f"{x0.numel()} numbers make no {self.states} states of the same size")
        if probes is not None and probes < 1:
            raise ValueError(f"probes={probes}; a divergence takes one or more")
        self.dim = x0.numel() // self.states
        self.evaluations = self.products = 0
        device = "cpu" if generator is None else generator.device
        self._seed = int(torch.randint(2**62, (), generator=generator, device=device))

    def hutchinson(self, t: float) -> Estimate:
        """The conditional rate less the marginal one, -dI/dt, by the divergence of the velocity.

        The marginal rate is E div v. The divergence is the exact trace, or the mean of
        z^T (dv/dx) z over random signs z, as `probes` has it.

        Args:
            t: a time inside the path's ends.

        References:
            Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059; Grathwohl et al., FFJORD,
            ICLR 2019, arXiv:1810.01367.
        """
        velocity = _given(self.velocity, "velocity", "hutchinson")
        conditional, generator = self._conditional(t), self._generator()
        x = self._sample(t, generator).x.detach().requires_grad_()
        exact = self.probes is None and self.states == len(x) and self.dim <= EXACT
        with torch.enable_grad():
            v = self._call(velocity, t, x)
            probes = _units(x) if exact else _signs(x, self.probes or 1, generator)
            parts = [self._sum(z * self._pull(v, x, z)) for z in probes]
        trace = torch.stack(parts).sum(0) / (1 if exact else len(parts))
        return _estimate(conditional - trace)

    def covariance(self, t: float) -> Estimate:
        """The conditional rate less the marginal one, by -E <u - v, grad log p(x|x0,x1) - score>.

        u is the conditional velocity. Nothing is differentiated. Quantities of known mean go out as
        control variates, with the coefficients of least variance: those of the path, whatever the
        fields are, and <u - v, x>, whose mean is 0 for the marginal velocity. Between Gaussian ends
        nothing is left of the noise. As with `hutchinson`, an error of the velocity is an error of
        the rate; one of the score alone is not. Each control needs some twenty states, and the last
        ones are left out where there are fewer.

        Args:
            t: a time inside the path's ends.

        References:
            Glasserman, Monte Carlo methods in financial engineering, 2003, section 4.1, for control
            variates; the formula is derived here.
        """
        velocity = _given(self.velocity, "velocity", "covariance")
        score = _given(self.score, "score", "covariance")
        conditional = self._conditional(t)
        at = self._sample(t, self._generator())
        own = _given(at.score, "noisy path", "covariance")
        with torch.no_grad():
            v, s = self._call(velocity, t, at.x), self._call(score, t, at.x)
            value = self._sum((at.u - v) * (s - own))
            controls = [
                self._sum(at.u * own) + conditional,
                self._sum((at.u - v) * at.x),
                self._sum(own * at.x) + self.dim,
                self._sum(own * self.x0),
                self._sum(own * self.x1),
            ]
        return _estimate(_controlled(value, controls[: max(1, self.states // 20)]))

    def loss(self, t: float) -> Estimate:
        """E |u - v|^2, the loss of flow matching at one time; positive.

        With an exact velocity it is the variance of u that the state does not explain; else it is
        more, by the error of the network.

        Args:
            t: a time inside the path's ends.
        """
        velocity = _given(self.velocity, "velocity", "loss")
        at = self._sample(t, self._generator())
        with torch.no_grad():
            return _estimate(self._sum((at.u - self._call(velocity, t, at.x)) ** 2))

    def conditional(self, t: float) -> Estimate:
        """The rate of H(x_t | x0, x1), from the path alone.

        Args:
            t: a time inside the path's ends.
        """
        return Estimate(self._conditional(t), 0.0)

    def _conditional(self, t: float) -> float:
        if not self.path.noisy:
            raise ValueError(
                f"{type(self.path).__name__} has no noise: a state with known ends has no entropy; "
                'use rate="loss"'
            )
        return float(self.path.entropy_rate(torch.tensor([t], dtype=torch.float64), self.dim))

    def _sample(self, t: float, generator: torch.Generator) -> Sample:
        return self.path.sample(self.x0, self.x1, t, generator)

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.x0.device).manual_seed(self._seed)

    def _call(self, field: Velocity, t: float, x: Tensor) -> Tensor:
        self.evaluations += 1
        return field(torch.tensor(t, dtype=torch.float64, device=x.device), x)

    def _pull(self, v: Tensor, x: Tensor, z: Tensor) -> Tensor:
        if not v.requires_grad:
            return torch.zeros_like(x)
        self.evaluations += 1
        self.products += 1
        (pulled,) = torch.autograd.grad(v, x, z, retain_graph=True, materialize_grads=True)
        return pulled

    def _sum(self, values: Tensor) -> Float[Tensor, " states"]:
        return values.detach().double().reshape(self.states, -1).sum(1)


def _estimate(values: Float[Tensor, " states"]) -> Estimate:
    spread = float(values.std()) if len(values) > 1 else float("nan")
    return Estimate(float(values.mean()), spread / len(values) ** 0.5)


def _controlled(
    values: Float[Tensor, " states"], controls: list[Float[Tensor, " states"]]
) -> Float[Tensor, " states"]:
    """The values less what controls of mean zero explain of them, by least squares."""
    columns = torch.stack(controls, 1)
    centred = columns - columns.mean(0)
    sizes = torch.linalg.vector_norm(centred, dim=0)
    scaled = centred / torch.where(sizes > 0, sizes, 1.0)
    # Controls may depend on each other: on straight paths u, x and the score are sums of the same.
    moments = torch.linalg.pinv(scaled.T @ scaled, rtol=1e-9, hermitian=True)
    weights = moments @ (scaled.T @ (values - values.mean()))
    rest: Tensor = values - columns @ (weights / torch.where(sizes > 0, sizes, 1.0))
    return rest


def _units(x: Tensor) -> list[Tensor]:
    """For each number of a point, the state that is 1 there, at all points, and 0 elsewhere."""
    rows = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    return [row.reshape(x.shape[1:]).expand_as(x) for row in rows]


def _signs(x: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    draws = [torch.rand(x.shape, generator=generator, device=x.device) for _ in range(count)]
    return [torch.where(draw < 0.5, -1.0, 1.0).to(x.dtype) for draw in draws]


def _given(value: Given | None, what: str, estimator: str) -> Given:
    if value is None:
        raise ValueError(f"the estimator {estimator!r} needs a {what}; give one, or use another")
    return value
