"""Fields in two parts, dx/dt = (A x + source) + rest(t, x), as split methods work with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.chebyshev import PerGraph
from solvers.flow import Flow
from solvers.guarantee import GRADIENT_TAIL
from solvers.phi import Degrees, Functions
from solvers.problem import Operator
from solvers.rows import Rows
from solvers.stepper import Accuracy

# The share of the tolerance that the linear part of a step may be wrong by.
SHARE = 1e-2
# The same on fixed grids, in units of rounding of the state.
ROUNDINGS = 16.0


@dataclass
class Semilinear:
    """The two parts of a field, evaluated one by one and counted.

    Args:
        flow: the field on its clocks.
        A: its operator.

    Attributes:
        rows: which rows belong to which graph of A.
    """

    flow: Flow
    A: Operator

    def __post_init__(self) -> None:
        """Note the graphs."""
        self.rows = Rows(self.A.batch if self.A.num_graphs > 1 else None, self.A.num_graphs)

    @classmethod
    def of(cls, flow: Flow, solver: str) -> Semilinear:
        """Take a field apart.

        Raises:
            ValueError: it has no operator, or nothing besides one.

        Example:
            >>> Semilinear.of(Flow(lambda t, x: x, Rows(), torch.ones(1)), "strang")
            Traceback (most recent call last):
            ValueError: solver 'strang' advances the parts of dx/dt = A x + rest(t, x) each in its
            own way, and the field declares no linear part: set self.operator in prepare, or use
            'tsit5', or 'rkl2' for stiff diffusion
        """
        known = flow.structure
        if known.operator is None:
            raise ValueError(
                f"solver {solver!r} advances the parts of dx/dt = A x + rest(t, x) each in its own "
                f"way, and {known.name} declares no linear part: set self.operator in prepare, or "
                "use 'tsit5', or 'rkl2' for stiff diffusion"
            )
        if known.rest is None:
            raise ValueError(
                f"solver {solver!r} splits dx/dt = A x + rest(t, x), and {known.name} has no rest: "
                "a linear field is solved exactly, use solver='exact'"
            )
        return cls(flow, known.operator)

    def linear(self, x: Tensor) -> Tensor:
        """Return ``A x + source``."""
        source = self.flow.structure.source
        return self.A @ x if source is None else self.A @ x + source

    def rest(self, f: Any, c: float, x: Tensor) -> Tensor:
        """Return the rest at ``(t + c h, x)``, counted as an evaluation of the field."""
        rest = self.flow.structure.rest
        assert rest is not None
        self.flow.nfe += 1
        (value,) = rest(f.time(c), (x,))
        return value

    def sizes(self, f: Any) -> PerGraph:
        """Return the signed step of each graph of A."""
        sizes: PerGraph = np.broadcast_to(f.h, (self.rows.num_graphs,)).astype(np.float64)
        return sizes


class Precision:
    """How much the arithmetic of a step may be wrong by, in the norm that errors are bounded in.

    Adaptive solves allow a hundredth of the tolerance, ``0.01 (atol |1| + rtol |x|)`` for each
    graph, fixed grids 16 roundings of ``|x|``.

    Args:
        accuracy: the tolerances.
        norms: of the graphs' parts of a state.
        share: of the tolerance, if it is not a hundredth.

    Example:
        >>> precision = Precision(Accuracy(1e-3, 1e-6), lambda x: np.array([float(x.abs().max())]))
        >>> precision.allowed(torch.tensor([2.0, -1.0])).round(9).tolist()
        [2.001e-05]
    """

    def __init__(
        self, accuracy: Accuracy, norms: Callable[[Tensor], PerGraph], share: float = SHARE
    ) -> None:
        self.accuracy, self.norms, self._share = accuracy, norms, share
        self._ones: PerGraph | None = None

    def relative(self, like: Tensor) -> float:
        """Return the share of the relative tolerance, for states of this dtype."""
        if self.accuracy.rtol is None:
            return ROUNDINGS * torch.finfo(like.dtype).eps
        return self._share * self.accuracy.rtol

    @torch.no_grad()
    def allowed(self, x: Tensor) -> PerGraph:
        """Return the largest norm of an error in each graph."""
        allowed: PerGraph = self.relative(x) * self.norms(x)
        if self.accuracy.atol is not None:
            if self._ones is None:
                self._ones = self.norms(torch.ones_like(x))
            allowed = allowed + self._share * self.accuracy.atol * self._ones
        return allowed


class Actions:
    """Functions of h A within a step, each no more precise than the step needs.

    A vector that hardly matters needs hardly any products: the degree follows from the norm of
    ``h v``, by a bound that is known beforehand. Where gradients are taken the derivatives of the
    step have to be right too, whatever the size of the vectors: then ``h A phi_k(h A)`` is, to
    the relative share of the tolerance, and a thousand times better where the entries of A have
    gradients.

    Args:
        A: operator.
        accuracy: the tolerances.

    Raises:
        ValueError: the operator has no functions; see `solvers.phi.Functions`.
    """

    def __init__(self, A: Operator, accuracy: Accuracy) -> None:
        self.functions = Functions(A)
        self._precision = Precision(accuracy, self.functions.norms)
        self._finest = np.inf
        if accuracy.differentiated:
            learned = any(entry.requires_grad for entry in A.tensors)
            self._finest = GRADIENT_TAIL if learned else 1.0

    def allowed(self, x: Tensor) -> PerGraph:
        """Return the largest norm of an error in each graph."""
        return self._precision.allowed(x)

    def __call__(
        self,
        name: str,
        k: int,
        v: Tensor,
        h: PerGraph,
        allowed: PerGraph,
        notes: dict[str, Degrees],
    ) -> Tensor:
        """Return ``phi_k(h A) v`` such that it, or for k > 0 it times h, is off by what is allowed.

        Args:
            name: of the action within the step.
            k: which function.
            v: state.
            h: step of each graph.
            allowed: from :meth:`allowed`.
            notes: where the degrees are kept under that name, for when the step is taken again.
        """
        norms = self.functions.norms(v)
        if name not in notes:
            with np.errstate(divide="ignore", invalid="ignore"):
                tail = allowed / (np.abs(h) ** min(k, 1) * norms)
            stiffness = np.maximum(1.0, 2 * self.functions.reach(h))
            finest = self._finest * self._precision.relative(v) / stiffness
            # A vector of zeros allows anything; one that is not finite is not looked at.
            tail = np.minimum(np.where(np.isnan(tail), np.inf, tail), finest)
            notes[name] = self.functions.degrees(k, h, tail)
        (value,) = self.functions(v, h, [(k, notes[name])], norms)
        return value
