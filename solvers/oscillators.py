"""Steps for oscillators, x'' = force(t, x) - damping x'; symplectic, and undone exactly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from copy import copy
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.flow import Flow, Stages
from solvers.kicks import (
    DAMPS,
    EXACT,
    EXPLICIT,
    HALF_EXPLICIT,
    HALF_IMPLICIT,
    Advance,
    Drift,
    Kick,
    Number,
    Part,
    Retreat,
    plain,
)
from solvers.rows import Rows, State
from solvers.stepper import Accuracy, Step, Stepper
from solvers.structure import Structure

POWER_ITERATIONS = 20
WELL_WITHIN = 0.9
"""The share of the stability limit up to which nothing comes near to resonance."""


class Oscillator(Stepper):
    """A step of kicks, drifts and damps for states (x, v) with x'' = force(t, x) - damping x'.

    Every part is undone exactly, so that gradients may run the solve backwards instead of storing
    it. Where the force is a gradient, each step is conformally symplectic: it shrinks the area
    ``dx ^ dv`` of every plane by the product of the factors of its damps, and conserves it without
    damping (McLachlan and Perlmutter, Conformal Hamiltonian systems, J. Geom. Phys. 39 (2001)). One
    force is evaluated per step. Grids are fixed; times to be saved are added to them, and a grid
    that is not uniform keeps the order but gives up the bounded error of the energy.

    Args:
        name: How users ask for it.
        order: Of the solution.
        parts: What a step does, in this order.
        limit: The largest stable ``h^2 lambda`` as a function of ``damping h``, for a force
            ``-lambda x``.

    Example:
        >>> [method().order for method in (leapfrog, symplectic_euler, kick_drift_damp, graphcon)]
        [2, 1, 2, 1]
    """

    dense = True
    reversible = True

    def __init__(
        self, name: str, order: int, parts: tuple[Part, ...], limit: Callable[[float], float]
    ) -> None:
        self.name, self.order, self.error_order = name, order, order + 1
        self.parts, self.limit_of = parts, limit
        self.fsal = Kick(0.5, 1.0) in parts
        self.damped = True
        self._stiffest: Float[np.ndarray, " clocks"] | None = None
        self._from_below = False

    def __repr__(self) -> str:
        return f"{self.name}()"

    def begin(self, flow: Flow, rows: Rows, accuracy: Accuracy) -> Self:
        """Ask for a force, and for what bounds its stiffness.

        Raises:
            ValueError: When the field has no force.
        """
        known = flow.structure
        if known.force is None:
            raise ValueError(
                f"solver {self.name!r} advances x'' = force(t, x) - damping x' with the state "
                f"(x, v), and {known.name} has no force; give a Field that defines force(t, x) "
                "and damping (Wave does, so does Pinned(Wave(...)) with nodes at rest), or take "
                "'tsit5' (adaptive) or 'heun' (fixed steps) for this one"
            )
        own = copy(self)
        if isinstance(known.damping, float) and known.damping == 0.0:
            own.parts, own.damped = tuple(p for p in self.parts if p not in DAMPS), False
        if known.stiffness is not None and known.stiffness.self_adjoint:
            with torch.no_grad():
                own._stiffest = _per_clock(flow, -known.stiffness.spectrum()[0])
        return own

    def plan(self, f: Stages, x: State, fx: State | None) -> None:
        """Warn, once, when a step lies outside the stability interval of a force that is known."""
        if self._stiffest is None:
            return
        z = plain(f.flow.structure.damping) * np.abs(f.h)
        if (f.h**2 * self._stiffest <= self._limit(z)).all():
            return
        if not self._from_below:
            # A guaranteed bound may be twice too large; nobody is warned for that.
            self._stiffest, self._from_below = _estimate(f, x[0]), True
        over = f.h**2 * self._stiffest - self._limit(z)
        if (over > 0).any():
            self._warn(f, z, int(over.argmax()))
            self._stiffest = None

    def bounded(self, known: Structure, h: float) -> bool:
        """Whether steps of at most ``h`` let no error grow, forwards or (but for damping) back.

        So it is for a force -K x with a self-adjoint K >= 0, well within the stability limit and
        with weak damping.
        """
        force, damping = known.stiffness, plain(known.damping)
        if force is None or not force.self_adjoint or not 0.0 <= damping * h < 0.5:
            return False
        with torch.no_grad():
            lowest, highest = (
                float(end) for end in (force.spectrum()[0].min(), force.spectrum()[1].max())
            )
        attracts = highest <= -1e-6 * lowest
        return attracts and -lowest * h**2 <= WELL_WITHIN * self.limit_of(damping * h)

    def _limit(self, z: Float[np.ndarray, " clocks"]) -> Float[np.ndarray, " clocks"]:
        return np.array([max(self.limit_of(one), 0.0) for one in z])

    def _warn(self, f: Stages, z: Float[np.ndarray, " clocks"], clock: int) -> None:
        assert self._stiffest is not None
        h, stiffest = abs(f.h[clock]), self._stiffest[clock]
        shares = np.linspace(0.0, 1.0, 1001)
        stable = (shares * h) ** 2 * stiffest < self._limit(shares * z[clock])
        where = f" in graph {clock}" if len(f.h) > 1 else ""
        warnings.warn(
            f"{self.name} with h={h:.3g} lies outside its stability limit{where}: "
            f"h sqrt(lambda_max) = {h * math.sqrt(stiffest):.3g} has to stay below "
            f"{math.sqrt(self._limit(z)[clock]):.3g}, where lambda_max, here about "
            f"{stiffest:.3g}, is the stiffest that the force of {f.flow.structure.name} can be. "
            f"The solution will grow from step to step: take steps below "
            f"{shares[stable].max() * h:.3g}, or an adaptive solver such as 'tsit5'",
            stacklevel=2,
        )

    def step(
        self,
        f: Stages,
        h: Number,
        x: State,
        fx: State,
        *,
        error: bool = True,
        mid: bool = False,
        plan: None = None,
    ) -> Step:
        """Advance by one step; see `solvers.stepper.Stepper.step`."""
        damping, (_, velocity), (_, pull) = f.flow.structure.damping, x, fx
        body = Advance(f, h, x, pull + damping * velocity if self.damped else pull)
        for part in self.parts:
            part.on(body)
        new = (body.position, body.velocity)
        if not self.fsal:
            return Step(new)
        assert body.force is not None
        pull = body.force - damping * body.velocity if self.damped else body.force
        return Step(new, f=(body.velocity, pull))

    def inverse(self, f: Stages, h: Number, x: State) -> State:
        """Undo a step of size ``h`` from the time of ``f``; ``x`` is where it went."""
        body = Retreat(f, h, x)
        for part in reversed(self.parts):
            part.on(body)
        return body.position, body.velocity


def leapfrog() -> Oscillator:
    """Velocity Verlet, which with damping is the central difference scheme; order 2.

    ``v' = v + h/2 (force(t, x) - damping v)``, ``x+ = x + h v'``,
    ``v+ = v' + h/2 (force(t + h, x+) - damping v+)``, the last line solved for ``v+``. Eliminating
    velocities: ``(x+ - 2 x + x-) / h^2 = force(t, x) - damping (x+ - x-) / (2 h)``. Symmetric in
    time; areas shrink by ``(1 - z/2) / (1 + z/2)``, z = damping h; stable for
    ``h sqrt(lambda) < 2`` whatever the damping. Hairer, Lubich and Wanner, Geometric numerical
    integration illustrated by the Stoermer-Verlet method, Acta Numerica 12 (2003), for damping = 0;
    Newmark's method with beta = 0, gamma = 1/2.

    Example:
        >>> leapfrog().parts[1:4]
        (Kick(weight=0.5, node=0.0), Drift(weight=1.0), Kick(weight=0.5, node=1.0))
    """
    parts = (HALF_EXPLICIT, Kick(0.5, 0.0), Drift(1.0), Kick(0.5, 1.0), HALF_IMPLICIT)
    return Oscillator("leapfrog", 2, parts, lambda z: 4.0)


def kick_drift_damp() -> Oscillator:
    """Kick, drift, damp, drift, kick; damping is exact; order 2.

    ``v += h/2 force(t, x)``; ``x += h/2 v``; ``v *= e^(-damping h)``; ``x += h/2 v``;
    ``v += h/2 force(t + h, x)``. Symmetric in time; areas shrink by ``e^(-damping h)`` as they do
    in the flow itself, so it is the scheme for long damped solves; stable for
    ``h sqrt(lambda) < 2`` whatever the damping. Leapfrog where there is no damping. Bhatt, Floyd
    and Moore, Second order conformal symplectic schemes for damped Hamiltonian systems, J. Sci.
    Comput. 66 (2016).

    Example:
        >>> kick_drift_damp().parts[1:3] == (Drift(0.5), EXACT)
        True
    """
    parts = (Kick(0.5, 0.0), Drift(0.5), EXACT, Drift(0.5), Kick(0.5, 1.0))
    return Oscillator("kick_drift_damp", 2, parts, lambda z: 4.0)


def symplectic_euler() -> Oscillator:
    """Symplectic Euler with exact damping; order 1.

    ``v+ = e^(-damping h) v + h force(t, x)``, ``x+ = x + h v+``. Areas shrink by
    ``e^(-damping h)``; stable for ``h^2 lambda < 2 (1 + e^(-damping h))``. Hairer, Lubich and
    Wanner, Geometric Numerical Integration (2006), section I.1.2, for damping = 0.

    Example:
        >>> symplectic_euler().parts == (EXACT, Kick(1.0, 0.0), Drift(1.0))
        True
    """
    parts = (EXACT, Kick(1.0, 0.0), Drift(1.0))
    return Oscillator("symplectic_euler", 1, parts, lambda z: 2.0 * (1.0 + math.exp(-z)))


def graphcon() -> Oscillator:
    """The scheme of GraphCON, symplectic Euler with explicit damping; order 1.

    ``v+ = v + h (force(t, x) - damping v)``, ``x+ = x + h v+``. Areas shrink by
    ``1 - damping h``; stable for ``h^2 lambda < 4 - 2 damping h``. With h = damping = 1, as the
    paper has it, a step forgets the velocity and cannot be undone. Rusch, Chamberlain, Rowbottom,
    Mishra and Bronstein, Graph-coupled oscillator networks, ICML 2022, arXiv:2202.02296.

    Example:
        >>> graphcon().parts == (EXPLICIT, Kick(1.0, 0.0), Drift(1.0))
        True
    """
    parts = (EXPLICIT, Kick(1.0, 0.0), Drift(1.0))
    return Oscillator("graphcon", 1, parts, lambda z: 4.0 - 2.0 * z)


def _per_clock(flow: Flow, values: Tensor) -> Float[np.ndarray, " clocks"]:
    largest: np.ndarray = values.clamp(min=0.0).cpu().numpy()
    return largest if flow.clocks.num_graphs > 1 else largest.max(keepdims=True)


@torch.no_grad()
def _estimate(f: Stages, x: Tensor) -> Float[np.ndarray, " clocks"]:
    """The stiffness of a linear force from below, by power iteration, graph by graph."""
    flow, rows, time = f.flow, f.flow.clocks, f.time(0.0)
    force, stiffness = flow.structure.force, flow.structure.stiffness
    assert force is not None
    assert stiffness is not None
    shape = (-1, *[1] * (x.dim() - 1))
    metric = stiffness.metric
    weight = 1.0 if metric is None else metric.sqrt().view(shape)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(x.shape, generator=generator, dtype=x.dtype.to_real(), device="cpu").to(x)
    for _ in range(POWER_ITERATIONS):
        w = force(time, w)
        flow.nfe += 1
        size = rows.mean_square((weight * w,)).sqrt().cpu().numpy()
        w = w * rows.spread(1.0 / np.where(size > 0, size, 1.0), w)
    flow.nfe += 1
    last: np.ndarray = rows.mean_square((weight * force(time, w),)).sqrt().cpu().numpy()
    return last
