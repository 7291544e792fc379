"""What a Dirichlet form says of a state: its energy, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Far within single precision: products with weights do not leave it, nor do squares of what is
# left of a nearly constant state.
SMALL, LARGE = 1e-12, 1e24


@dataclass(frozen=True)
class Parts:
    """One evaluation of a form.

    Attributes:
        energy: E(x) per graph, float64.
        square: |x|^2 per graph, in the form's metric.
        deviation: |x - P x|^2 per graph, likewise.
    """

    energy: Tensor
    square: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Look:
    """One evaluation of a form, or several, kept as few tensors: every step of a solve has one.

    Attributes:
        numbers: Half the energy, |x - P x|^2 and |P x|^2 in the form's metric; float64, on the
            device. `[3, graphs]`, of several looks `[looks, 3, graphs]`.

    >>> one = Look.of(*torch.tensor([[3.0], [4.0], [5.0]]))
    >>> one.energy.item(), one.square.item(), Look.joined([one, one]).kernel.tolist()
    (6.0, 9.0, [[5.0], [5.0]])
    >>> Look.joined([Look(one.numbers + 1.0), one]).last.energy.item()
    6.0
    """

    numbers: Float[Tensor, "*looks three graphs"]

    @classmethod
    def of(cls, products: Tensor, deviation: Tensor, kernel: Tensor) -> Look:
        """Half of the energies, |x - P x|^2 and |P x|^2."""
        return cls(torch.stack((products, deviation, kernel), -2))

    @property
    def energy(self) -> Tensor:
        """E(x)."""
        return 2 * self.numbers.select(-2, 0)

    @property
    def deviation(self) -> Tensor:
        """|x - P x|^2."""
        return self.numbers.select(-2, 1)

    @property
    def kernel(self) -> Tensor:
        """|P x|^2."""
        return self.numbers.select(-2, 2)

    @property
    def square(self) -> Tensor:
        """|x|^2; P is orthogonal."""
        return self.deviation + self.kernel

    @classmethod
    def added(cls, looks: Sequence[Look]) -> Look:
        """What pieces of a state add up to."""
        return cls(torch.stack([look.numbers for look in looks]).sum(0))

    @property
    def last(self) -> Look:
        """This one, or the last one of several."""
        return Look(self._several[-1])

    @classmethod
    def joined(cls, looks: Sequence[Look]) -> Look:
        """Single looks and several ones as several."""
        return cls(torch.cat([look._several for look in looks]))

    @property
    def _several(self) -> Tensor:
        return self.numbers.unsqueeze(0) if self.numbers.dim() == 2 else self.numbers


def unit(x: Tensor) -> Tensor:
    """The power of two at the largest modulus of a state, without asking the device for it.

    Dividing by it is exact, and squares of what is left neither overflow nor vanish all.

    >>> unit(torch.tensor([3.0, -20.0])).item(), unit(torch.zeros(2)).item()
    (16.0, 1.0)
    """
    if x.numel() == 0:
        return x.real.new_ones(())
    largest = torch.linalg.vector_norm(x, torch.inf)
    exponent = (torch.frexp(largest.float()).exponent - 1).clamp(-126, 127)
    power = torch.ldexp(torch.ones_like(largest, dtype=torch.float64), exponent)
    return torch.where((largest > 0) & largest.isfinite(), power, 1.0).to(largest.dtype)


def in_range(squares: Tensor) -> bool:
    """Whether single precision held every number of which these are the sums of squares.

    >>> in_range(torch.tensor([1.0, 1e-3])), in_range(torch.tensor([1.0, torch.inf]))
    (True, False)
    """
    return bool(((squares > SMALL) & (squares < LARGE)).all())
