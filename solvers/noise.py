"""The noise of a stochastic field: what multiplies dW in dX = f(t, X) dt + g(t, X) dW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import torch
from torch import Tensor

from solvers.failure import unknown_name
from solvers.rows import State

CONVENTIONS = ("ito", "stratonovich")

Amplitude = float | Tensor | tuple[float | Tensor, ...] | Callable[..., Any]
"""A number, a tensor that broadcasts against the state, one of them per part, or a function."""


@dataclass(frozen=True)
class NoiseTerm:
    """The term g(t, x) dW, with one Brownian motion for every entry of the state.

    Without an operator it acts entry by entry, `g_i dW_i`; with an operator B it is `g B dW`, so
    that the covariance of the increments is `g^2 B B^T dt` over the nodes.

    Args:
        amplitude: g: a number; a tensor that broadcasts against the state; a tuple of such for a
            tuple state; or a function of (t, x), whose entry i may depend on entry i of x alone,
            or of t alone where the noise is additive.
        operator: B, or None.
        additive: Whether g does not depend on the state. Then both conventions mean the same.
        convention: "ito" or "stratonovich".
        packed: Whether functions take the state as a tuple.

    Raises:
        ValueError: For an unknown convention, and for an operator with anything but a number.

    >>> term = NoiseTerm(lambda t, x: 2.0 * x, additive=False)
    >>> x, dw = (torch.tensor([1.0, 3.0]),), (torch.tensor([0.5, 0.5]),)
    >>> term(torch.tensor(0.0), x, dw)
    (tensor([1., 3.]),)
    """

    amplitude: Amplitude
    operator: Any = None
    additive: bool = True
    convention: str = "ito"
    packed: bool = False

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.convention not in CONVENTIONS:
            raise unknown_name("convention", self.convention, CONVENTIONS)
        number = not callable(self.amplitude) and not isinstance(self.amplitude, tuple)
        if self.operator is not None and not (
            number and torch.as_tensor(self.amplitude).dim() == 0
        ):
            raise ValueError(
                "noise with an operator is scale * B dW with a number for a scale; put what "
                "differs between nodes into B"
            )

    @property
    def counted(self) -> bool:
        """Whether it takes an evaluation of a function."""
        return callable(self.amplitude)

    def __call__(self, t: Tensor, x: State, dw: State) -> State:
        """G(t, x) dW, a state."""
        if self.operator is not None:
            dw = tuple(self.operator @ part for part in dw)
        return tuple(g * part for g, part in zip(self.factors(t, x), dw, strict=True))

    def factors(self, t: Tensor, x: State) -> State:
        """The factors g(t, x), which broadcast against the parts of the state.

        Raises:
            ValueError: For a function that gives another shape or number of parts.

        >>> NoiseTerm(0.5).factors(torch.tensor(0.0), (torch.ones(2),))
        (tensor(0.5000),)
        """
        return self.fitted(self.values(t, x if self.packed else x[0]), x)

    @staticmethod
    def fitted(parts: tuple[Any, ...], x: State) -> State:
        """The factors as tensors like the state, checked against its shapes.

        Raises:
            ValueError: For another shape or number of parts.

        >>> NoiseTerm.fitted((0.5,), (torch.ones(2),))
        (tensor(0.5000),)
        """
        if len(parts) != len(x):
            raise ValueError(
                f"noise for {len(parts)} part(s) of a state of {len(x)}; give a tuple with one "
                "entry per part, 0.0 where there is none"
            )
        return tuple(_fitting(g, part) for g, part in zip(parts, x, strict=True))

    def values(self, t: Tensor | None = None, x: Any = None) -> tuple[Any, ...]:
        """The factors as they were given, one per part.

        >>> NoiseTerm((0.0, 0.5)).values()
        (0.0, 0.5)
        """
        found: Any = self.amplitude
        if callable(found):
            found = found(t) if self.additive else found(t, x)
        return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _fitting(g: Any, x: Tensor) -> Tensor:
    factor = torch.as_tensor(g, dtype=x.dtype, device=x.device)
    sizes = (*(1,) * (x.dim() - factor.dim()), *factor.shape)
    if len(sizes) != x.dim() or any(
        own not in (1, size) for own, size in zip(sizes, x.shape, strict=True)
    ):
        raise ValueError(
            f"noise of shape {tuple(factor.shape)} does not broadcast against a state of shape "
            f"{tuple(x.shape)}: give a number, or one factor per node ([nodes, 1]), channel or "
            "entry"
        )
    return factor


def declared(noise: Any) -> NoiseTerm:
    """The term that a field declares: by a number, a tensor, an operator, a function, or as it is.

    Numbers, tensors and operators are additive; functions are of (t, x), entry by entry, Ito.

    >>> declared(0.3).additive, declared(lambda t, x: x).additive
    (True, False)
    """
    if isinstance(noise, NoiseTerm):
        return noise
    if hasattr(noise, "spectrum"):
        return NoiseTerm(1.0, operator=noise)
    return NoiseTerm(noise, additive=not callable(noise))


def merged(terms: Sequence[NoiseTerm]) -> NoiseTerm:
    """One term with the law of several independent ones: amplitudes add in squares.

    `g_1 dW_1 + g_2 dW_2` and `sqrt(g_1^2 + g_2^2) dW` have the same law where the noise acts entry
    by entry, in either convention: the covariance is the same, and so is the drift
    `(g_1 g_1' + g_2 g_2') / 2` that tells Stratonovich from Ito.

    Raises:
        ValueError: For several terms with an operator among them, or multiplicative ones of both
            conventions.

    >>> merged([NoiseTerm(3.0), NoiseTerm(4.0)]).amplitude
    5.0
    """
    if len(terms) == 1:
        return terms[0]
    if any(term.operator is not None for term in terms):
        raise ValueError(
            "noise with an operator adds up with no other noise: B1 dW1 + B2 dW2 is no single "
            "B dW that could be kept sparse; give one operator with B B^T = B1 B1^T + B2 B2^T"
        )
    conventions = {term.convention for term in terms if not term.additive}
    if len(conventions) > 1:
        raise ValueError(
            "one noise is Ito and the other Stratonovich, and no solver follows both at once: "
            "rewrite one (the Stratonovich drift is the Ito drift - g g' / 2)"
        )
    convention = conventions.pop() if conventions else "ito"
    additive = all(term.additive for term in terms)
    if any(term.counted for term in terms):

        def together(t: Tensor, x: Any = None) -> Any:
            return _joint([term.values(t, x) for term in terms])

        return NoiseTerm(together, additive=additive, convention=convention)
    return NoiseTerm(_joint([term.values() for term in terms]), convention=convention)


def _joint(rows: Sequence[tuple[Any, ...]]) -> Any:
    """The roots of the sums of squares, part by part."""
    joint = tuple(map(_root_of_squares, zip(*rows, strict=True)))
    return joint if len(joint) > 1 else joint[0]


def _root_of_squares(values: Sequence[Any]) -> Any:
    if not any(isinstance(value, Tensor) for value in values):
        return hypot(*values)
    total: Any = sum(value * value for value in values)
    # Where there is no noise at all its derivative is set to 0, not to 0 / 0.
    some = total > 0
    return torch.where(some, total, 1.0).sqrt() * some
