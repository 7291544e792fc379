"""What was measured, as a law, and the directions it varies in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Empirical:
    """The law of states that were measured, each as likely as the others, or blurred.

    A blur makes it a sum of normal laws about the states, of which a few in many dimensions are
    else all that a network sees.

    Attributes:
        states: One in each row.
        blur: Standard deviation of independent normal noise that every draw gets.

    Raises:
        ValueError: Without a state; for a blur that is negative or not finite.

    >>> Empirical(torch.tensor([[7.0, 8.0]])).sample(2).tolist()
    [[7.0, 8.0], [7.0, 8.0]]
    """

    states: Float[Tensor, "states ..."]
    blur: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an empty law and an impossible blur."""
        if len(self.states) == 0:
            raise ValueError("no states to draw from; give at least one")
        if not 0.0 <= self.blur < math.inf:
            raise ValueError(f"blur is {self.blur}; give a standard deviation, 0 for none")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n ..."]:
        """Draw with replacement."""
        drawn = self.states[torch.randint(len(self.states), (n,), generator=generator)]
        if not self.blur:
            return drawn
        noise = torch.randn(drawn.shape, generator=generator, dtype=drawn.dtype)
        return drawn + self.blur * noise.to(drawn.device)


def principal_modes(
    states: Float[Tensor, "states nodes"], count: int
) -> Float[Tensor, "nodes modes"]:
    """Orthonormal patterns on the nodes along which states vary most about their mean.

    Args:
        states: One in each row.
        count: How many patterns, fewer than states and at most as many as nodes.

    Raises:
        ValueError: Where there are not as many.

    >>> modes = principal_modes(torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 8.0]]), 1)
    >>> modes.abs().tolist()
    [[0.0], [1.0]]
    """
    most = min(len(states) - 1, states.shape[1])
    if not 0 < count <= most:
        raise ValueError(f"count={count}: {tuple(states.shape)} states have 1 to {most} modes")
    rows = torch.linalg.svd(states - states.mean(0), full_matrices=False).Vh
    modes: Tensor = rows[:count].T.contiguous()
    return modes
