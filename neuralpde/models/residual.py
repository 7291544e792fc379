"""Layers that add to what they are given."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """`x + inner(x)`.

    Args:
        inner: What is added.

    >>> import torch
    >>> Residual(nn.ReLU())(torch.tensor([-1.0, 2.0])).tolist()
    [-1.0, 4.0]
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        added: Tensor = self.inner(x)
        return x + added
