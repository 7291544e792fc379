"""What a Dirichlet form says of a state: its energy, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
    """One evaluation of a form as numbers that are still to be added up in double precision.

    Attributes:
        products: They add up to E(x) / 2.
        deviations: To |x - P x|^2.
        kernels: To |P x|^2.
        alone: Whether one graph has all of them; else they are one number for each graph.
    """

    products: Tensor
    deviations: Tensor
    kernels: Tensor
    alone: bool

    @property
    def energy(self) -> Tensor:
        """E(x) per graph, float64."""
        return 2 * self._sum(self.products)

    @property
    def deviation(self) -> Tensor:
        """|x - P x|^2 per graph, in the form's metric."""
        return self._sum(self.deviations)

    @property
    def square(self) -> Tensor:
        """|x|^2 per graph; P is orthogonal."""
        return self._sum(self.deviations) + self._sum(self.kernels)

    @property
    def row(self) -> Look:
        """The same, added up, as the only one of looks `[looks, graphs]`."""
        found = (self.products, self.deviations, self.kernels)
        one, two, three = (self._sum(numbers).unsqueeze(0) for numbers in found)
        return Look(one, two, three, False)

    @property
    def last(self) -> Look:
        """The last one of looks `[looks, graphs]`."""
        return Look(self.products[-1], self.deviations[-1], self.kernels[-1], self.alone)

    @classmethod
    def joined(cls, looks: Sequence[Look]) -> Look:
        """Several looks `[looks, graphs]` as one."""
        if len(looks) == 1:
            return looks[0]
        names = ("products", "deviations", "kernels")
        one, two, three = (torch.cat([getattr(look, name) for look in looks]) for name in names)
        return cls(one, two, three, looks[0].alone)

    def _sum(self, numbers: Tensor) -> Tensor:
        return numbers.sum(-1, keepdim=True, dtype=torch.float64) if self.alone else numbers


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


def added(parts: tuple[Tensor, ...]) -> Tensor:
    """The sum of what pieces of a state add up to."""
    return torch.stack(parts).sum(0)
