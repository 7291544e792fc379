"""Straight lines between the ends: conditional optimal transport."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.flows.paths import Coefficients, Isotropic, Time


@dataclass(frozen=True)
class Linear(Isotropic):
    """Straight lines, `x_t = (1 - t) x0 + t x1 + width z`, with the velocity `x1 - x0`.

    Without a width (the default) both ends fix the point: there is no conditional score, and the
    conditional entropy is minus infinity. From a standard normal source the marginal score is
    known all the same, see `score_from_velocity`.

    Args:
        width: Standard deviation around the line, the same at all times, not negative.

    Raises:
        ValueError: For a negative width.

    References:
        Lipman et al., Flow matching for generative modeling, ICLR 2023, arXiv:2210.02747; Tong et
        al., Improving and generalizing flow-based generative models with minibatch optimal
        transport, TMLR 2024, arXiv:2302.00482, for the width.

    >>> at = Linear().sample(torch.zeros(1, 1), torch.full((1, 1), 4.0), 0.25)
    >>> at.x.item(), at.u.item(), at.score
    (1.0, 4.0, None)
    """

    width: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a negative width."""
        if not self.width >= 0:
            raise ValueError(f"width={self.width}: a standard deviation is not negative")

    @property
    def noisy(self) -> bool:
        """Whether there is a width."""
        return self.width > 0

    def coefficients(self, t: Tensor) -> Coefficients:
        """The line's coefficients and the width, with their slopes."""
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, self.width * one, -one, one, 0 * one)

    def score(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional score.

        Raises:
            ValueError: Without a width.
        """
        self._refuse("score")
        return super().score(t, x, x0, x1)

    def entropy_rate(self, t: Float[Tensor, " times"], dim: int) -> Float[Tensor, " times"]:
        """Zero: the width does not change.

        Raises:
            ValueError: Without a width.
        """
        self._refuse("entropy")
        return super().entropy_rate(t, dim)

    def _refuse(self, what: str) -> None:
        if not self.noisy:
            raise ValueError(
                f"Linear() has no noise between its ends, hence no conditional {what}: give a "
                "width, take a BrownianBridge, or use score_from_velocity for a normal source"
            )
