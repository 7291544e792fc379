"""Reactions: every entry of the state on its own, with a polynomial right-hand side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.constants import hold
from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import Field, Sum


class Reaction(Field):
    """A pointwise polynomial reaction, dx/dt = rate (c_0 + c_1 x + c_2 x^2 + ...).

    Added to a diffusion it makes a reaction-diffusion field: `Heat() + Reaction.fisher()`.

    Args:
        coefficients: c_0, c_1, ...: numbers, or a tensor `[degree + 1, ...]` whose entries
            broadcast against the state (one polynomial per channel: `[degree + 1, channels]`);
            an `nn.Parameter` is learned.
        rate: A number or a 0-d tensor; an `nn.Parameter` is learned.

    Raises:
        ValueError: For no coefficients, or numbers that are not finite.

    References:
        Allen and Cahn, Acta Metall. 27 (1979), 1085. Fisher, Ann. Eugenics 7 (1937), 355. On
        graphs: Choi et al., GREAD, ICML 2023, arXiv:2211.14208, reactions "AC" and "F".

    >>> x = torch.tensor([[0.5], [2.0]])
    >>> Reaction([1.0, 0.0, 3.0]).bind(None, x)(torch.tensor(0.0), x).flatten().tolist()
    [1.75, 13.0]
    """

    batched_time = True
    pointwise = True
    coefficients: tuple[float, ...] | Tensor
    rate: float | Tensor

    def __init__(
        self,
        coefficients: Sequence[float] | Float[Tensor, "powers ..."],
        rate: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        if len(coefficients) == 0:
            raise ValueError("a reaction needs at least one coefficient, the constant")
        if isinstance(coefficients, Tensor):
            hold(self, "coefficients", coefficients, dims=None)
        else:
            self.coefficients = tuple(float(c) for c in coefficients)
        hold(self, "rate", rate, dims=0)

    @classmethod
    def allen_cahn(cls, rate: float | Tensor = 1.0) -> Self:
        """The double well, dx/dt = rate (x - x^3): -1 and 1 attract, 0 repels.

        >>> Reaction.allen_cahn().coefficients
        (0.0, 1.0, 0.0, -1.0)
        """
        return cls((0.0, 1.0, 0.0, -1.0), rate)

    @classmethod
    def fisher(cls, rate: float | Tensor = 1.0) -> Self:
        """Logistic growth, dx/dt = rate x (1 - x): 1 attracts, 0 repels.

        >>> Reaction.fisher().coefficients
        (0.0, 1.0, -1.0)
        """
        return cls((0.0, 1.0, -1.0), rate)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The polynomial by Horner's rule."""
        total = torch.zeros_like(x)
        for coefficient in reversed(self.coefficients):
            total = total * x + coefficient
        return self.rate * total

    def extra_repr(self) -> str:
        """The arguments."""
        return f"coefficients={self.coefficients!r}, rate={self.rate!r}"


def fisher(
    diffusivity: float | Tensor = 1.0, rate: float | Tensor = 1.0, norm: str = "comb"
) -> Sum:
    """Return the Fisher-KPP field, dx/dt = -diffusivity L x + rate x (1 - x).

    With "comb" and "rw" it keeps states in [0, 1].

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> field = fisher(0.1).bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> field(torch.tensor(0.0), x).flatten().tolist()
    [0.1, -0.1]
    """
    return Sum(Heat(norm, diffusivity), Reaction.fisher(rate))
