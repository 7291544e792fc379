"""The usual scale of numbers that were measured at different places."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Standard:
    """Units in which states have mean 0 and standard deviation 1 at every node.

    Attributes:
        mean: Of each node.
        std: Of each node, positive.

    >>> import torch
    >>> units = Standard.of(torch.tensor([[1.0], [3.0]]))
    >>> units.to(torch.tensor([[5.0]])).item(), units.back(torch.tensor([[3.0]])).item()
    (3.0, 5.0)
    """

    mean: Float[Tensor, " nodes"]
    std: Float[Tensor, " nodes"]

    @classmethod
    def of(cls, states: Float[Tensor, "states nodes"], least: float = 1.0) -> Standard:
        """Those of some states.

        Args:
            states: Training states alone.
            least: Smallest standard deviation; it keeps a node that hardly moved from taking part
                in millions.

        Raises:
            ValueError: For no states, or a least that is not positive.
        """
        if len(states) == 0 or not least > 0:
            raise ValueError(
                f"{len(states)} states, least={least}: give a state or more, and a positive least"
            )
        return cls(states.mean(0), states.std(0, correction=0).clamp(min=least))

    def to(self, states: Float[Tensor, "states nodes"]) -> Float[Tensor, "states nodes"]:
        """States as numbers of these units."""
        return (states - self.mean) / self.std

    def back(self, numbers: Float[Tensor, "states nodes"]) -> Float[Tensor, "states nodes"]:
        """The states again."""
        return numbers * self.std + self.mean
