"""Newton's iteration for a stage of an implicit method, graph by graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.groups import Groups, Matrix
from solvers.jacobian import Jacobian
from solvers.resolvent import Resolvent

LIMIT = 20
"""Most iterations of one stage."""

SLOW = 0.2
"""A contraction above this asks for a new Jacobian."""

PATIENCE = 5
"""A contraction that leaves more than so many iterations to go asks for one, too."""

TRUST = 0.8
"""How much of a contraction is believed one stage later: its power, and a share of its slope."""

Nodes = Float[Tensor, " graphs"]
Flags = Bool[Tensor, " graphs"]


class Field(Protocol):
    """A field with a Jacobian; `solvers.matrix_field` provides it."""

    @property
    def linear(self) -> bool:
        """Whether it is affine in the state, so that one iteration is enough."""

    def value(self, c: Nodes, y: Matrix) -> Matrix:
        """The field at nodes c (one per graph) and state y."""

    def linearised(self, c: Nodes, y: Matrix) -> Jacobian:
        """Its Jacobian there, with its value."""


@dataclass(frozen=True)
class Equations:
    """What the stages of one step have in common: ``y = right + s f(c, y)``.

    Attributes:
        field: f.
        scale: s, a number or one per row.
        weight: positive; a correction d with ``rms(weight d) = 1`` is one tolerance.
        groups: the graphs.
        moving: graphs whose step is not zero.
        target: how small the error of a stage must be, in tolerances.
        resolving: whether a stage fails over which the field grows too fast to be followed.
    """

    field: Field
    scale: float | Tensor
    weight: Matrix | Float[Tensor, ""]
    groups: Groups
    moving: Flags
    target: float
    resolving: bool = False


class Newton:
    """Newton's iteration with a Jacobian that is kept as long as it serves.

    ``(I - s J) d = right + s f(c, y) - y``, ``y <- y + d``. With the contraction
    ``theta = |d| / |d before|`` of the latest two corrections the error left is at most
    ``theta / (1 - theta) |d|``; a graph is done, and stands still, when that is below the target.
    The first iteration of a stage goes by what stages before it saw: the larger one of their
    contraction and of what that makes for each tolerance of distance from where the Jacobian was
    taken, times the distance now. Both are trusted less with every stage. Above `SLOW` the
    Jacobian is taken anew at the present point, each graph for itself.

    Where an eigenvalue of s J has a real part above 1, a mode grows e-fold and more within the
    stage. Implicit methods damp such modes: a step may follow what is unstable, and miss a jump
    without a trace in its error estimate. Stages of adaptive solves fail there. The Jacobian that
    is looked at is the iteration's own; as it contracts, no eigenvalue of ``I - s J`` changes sign
    on the way to the solution's.

    Args:
        equations: of the step.
        seen: contraction per graph, and contraction for each tolerance of distance, `[graphs, 2]`;
            inf where nothing is known.
        symmetric: which graphs have symmetric Jacobians, by a test.
        used: takes the names of the linear solvers that were needed.

    Attributes:
        seen: the same as it was seen last.
        unsolved: graphs whose iteration failed to converge.
        unsolvable: graphs whose linear system could not be solved.
        overgrown: graphs in which the field grows too fast for the step.
        text: the latest failure in words and numbers.

    Source:
        Hairer and Wanner, Solving Ordinary Differential Equations II, IV.8.

    Example:
        >>> from solvers.jacobian import Recorded
        >>> class Square:
        ...     linear = False
        ...     def value(self, c, y):
        ...         return -(y**2)
        ...     def linearised(self, c, y):
        ...         return Recorded(lambda y: -(y**2), y, lambda: None)
        >>> yes = torch.tensor([True])
        >>> equations = Equations(Square(), 1.0, torch.tensor(1e6), Groups(), yes, 1.0)
        >>> newton = Newton(equations, torch.full((1, 2), torch.inf), yes)
        >>> two = torch.tensor([[2.0]])
        >>> newton.solve(1.0, two, two, two).item()  # y^2 + y = 2
        1.0
    """

    def __init__(
        self,
        equations: Equations,
        seen: Tensor,
        symmetric: Flags,
        used: set[str] | None = None,
    ) -> None:
        self._equations, self.seen, self._symmetric = equations, seen.double(), symmetric
        self._used = set() if used is None else used
        none = torch.zeros_like(equations.moving)
        self.unsolved, self.unsolvable, self.overgrown = none, none, none
        self.text = ""
        self._resolvent: Resolvent | None = None
        self._point: Tensor | None = None
        self._nodes = torch.zeros(len(none), dtype=torch.float64, device=none.device)

    @property
    def symmetric(self) -> Flags:
        """Which graphs are still taken for symmetric."""
        return self._symmetric if self._resolvent is None else self._resolvent.symmetric

    @property
    def lost(self) -> Flags:
        """Graphs that failed."""
        return self.unsolved | self.unsolvable | self.overgrown

    def solve(self, c: float, right: Matrix, guess: Matrix, safe: Matrix) -> Matrix:
        """Solve one stage.

        Args:
            c: its node.
            right: what is known of it.
            guess: where to begin.
            safe: where to begin again when the first attempt does not contract.

        Returns:
            The stage; where it failed, what is safe.
        """
        this, groups = self._equations, self._equations.groups
        nodes = torch.full_like(self._nodes, c)
        eps = torch.finfo(guess.dtype).eps
        y, active = guess, this.moving & ~self.lost
        floor = 10 * eps * groups.rms(guess * this.weight)[:, 0]
        rates, bends = self.seen.unbind(1)
        rates, bends = rates.clamp(min=eps) ** TRUST, bends / TRUST
        tolerance = torch.full_like(rates, 0.5 * this.target)
        none = torch.zeros_like(active)
        renew, again = active if self._resolvent is None else none, none
        last = way = torch.full_like(rates, torch.nan)
        for _ in range(LIMIT):
            value = self._value(nodes, y, renew, active)
            correction = self._correction(right + this.scale * value - y, tolerance, active)
            active = active & ~self.lost
            y = y + correction
            size = groups.rms(correction * this.weight)[:, 0]
            if this.field.linear:
                break
            known = active & last.isfinite()
            rate = size / last
            # Linear systems are solved to a tolerance, below which nothing is seen.
            sure = torch.maximum(size, tolerance) / last
            rates = torch.where(known, sure, rates)
            bends = torch.where(known & (way > 0), sure / way, bends)
            way = self._way(y)
            expected = torch.maximum(rates, (bends * way).nan_to_num(torch.inf, torch.inf))
            rate = torch.where(known, rate, expected)
            left = torch.where(rate < 1, rate / (1 - rate), torch.inf) * size
            active = active & ~((left <= this.target) | (size <= floor))
            if not bool(active.any()):
                break
            known = known & active
            astray = known & (rate >= 1)
            self._give_up(astray & again, size, rate)
            astray, active = astray & ~again, active & ~self.lost
            y, again = groups.select(astray, safe, y), again | astray
            long = left * rate**PATIENCE > this.target
            renew = active & known & ((rate > SLOW) | long)
            # Corrections from different Jacobians do not compare.
            last = torch.where(renew, torch.nan, size)
        else:
            self._give_up(active, size, rate)
        if this.resolving:
            self._look_for_growth()
        self.seen = torch.stack([rates, bends], 1).where(~self.lost.unsqueeze(1), torch.inf)
        return groups.select(self.lost, safe, y)

    def _look_for_growth(self) -> None:
        assert self._resolvent is not None
        growing = self._equations.moving & ~self.lost & self._resolvent.growing
        if bool(growing.any()):
            self.overgrown = self.overgrown | growing
            self.text = "what the field makes grow outgrows the method, d h lambda > 1,"

    def filtered(self, error: Matrix) -> Matrix:
        """Return ``(I - s J)^-1`` times an error estimate: what is left of its stiff part.

        Args:
            error: the estimate.
        """
        assert self._resolvent is not None
        this = self._equations
        active = this.moving & ~self.lost
        tolerance = torch.full_like(self.seen[:, 0], 0.05)
        error = this.groups.only(active, error)
        return self._resolvent.solve(error, tolerance, this.weight, active).x

    def _value(self, nodes: Nodes, y: Matrix, renew: Flags, active: Flags) -> Matrix:
        """The field at y, after the Jacobians of the graphs in `renew` were taken there."""
        this = self._equations
        if not bool(renew.any()):
            return this.field.value(nodes, y)
        before = y if self._point is None else self._point
        self._point = this.groups.select(renew, y, before)
        self._nodes = torch.where(renew, nodes, self._nodes)
        symmetric = self.symmetric
        jacobian = this.field.linearised(self._nodes, self._point)
        self._resolvent = Resolvent(jacobian, this.scale, this.groups, symmetric, used=self._used)
        covered = bool((renew | ~active).all())
        return jacobian.value if covered else this.field.value(nodes, y)

    def _way(self, y: Matrix) -> Tensor:
        """How far y is from where the Jacobians were taken, in tolerances."""
        this = self._equations
        assert self._point is not None
        return this.groups.rms((y - self._point) * this.weight)[:, 0]

    def _correction(self, residual: Matrix, tolerance: Tensor, active: Flags) -> Matrix:
        this, groups = self._equations, self._equations.groups
        assert self._resolvent is not None
        residual = groups.only(active, residual)
        size = groups.rms(residual)[:, 0]
        blind = active & ~size.isfinite()
        if bool(blind.any()):
            self.unsolved = self.unsolved | blind
            self.text = "the field is not finite where Newton's iteration went"
            residual, active = groups.only(~blind, residual), active & ~blind
        found = self._resolvent.solve(residual, tolerance, this.weight, active)
        lost = active & ~found.reached
        if bool(lost.any()):
            self.unsolvable = self.unsolvable | lost
            left = float(found.residual[lost].max())
            self.text = (
                f"the linear system of a stage could not be solved (residual {left:.2g} of the "
                "tolerance; is I - h d J singular or far from symmetric?)"
            )
        return groups.only(active & ~lost, found.x)

    def _give_up(self, graphs: Flags, size: Tensor, rate: Tensor) -> None:
        if not bool(graphs.any()):
            return
        self.unsolved = self.unsolved | graphs
        self.text = (
            "Newton's iteration did not converge (contraction "
            f"{float(rate[graphs].max()):.2g}, last correction {float(size[graphs].max()):.2g} of "
            "the tolerance)"
        )
