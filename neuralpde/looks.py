"""What a Dirichlet form says of a state: its energy, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
    """One evaluation of a form, `[graphs]`, or several, `[looks, graphs]`, float64 on the device.

    Attributes:
        products: E(x) / 2.
        deviation: |x - P x|^2, in the form's metric.
        kernel: |P x|^2.
    """

    products: Tensor
    deviation: Tensor
    kernel: Tensor

    @property
    def energy(self) -> Tensor:
        """E(x)."""
        return 2 * self.products

    @property
    def square(self) -> Tensor:
        """|x|^2; P is orthogonal."""
        return self.deviation + self.kernel

    @classmethod
    def added(cls, looks: Sequence[Look]) -> Look:
        """What pieces of a state add up to."""
        parts = zip(*(look._numbers for look in looks), strict=True)
        return cls(*(torch.stack(numbers).sum(0) for numbers in parts))

    @property
    def row(self) -> Look:
        """This one as the only one of looks `[looks, graphs]`."""
        return Look(*(numbers.unsqueeze(0) for numbers in self._numbers))

    @property
    def last(self) -> Look:
        """The last one of looks `[looks, graphs]`."""
        return Look(*(numbers[-1] for numbers in self._numbers))

    @classmethod
    def joined(cls, looks: Sequence[Look]) -> Look:
        """Several looks `[looks, graphs]` as one."""
        if len(looks) == 1:
            return looks[0]
        parts = zip(*(look._numbers for look in looks), strict=True)
        return cls(*(torch.cat(numbers) for numbers in parts))

    @property
    def _numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.products, self.deviation, self.kernel


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
