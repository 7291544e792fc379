"""The slope of a functional of the state, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def downhill(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return -dE/dx, differentiable in x and in what the energy holds where gradients are on.

    Args:
        energy: Maps a state to a number, or to one for each graph.
        x: The state.

    >>> downhill(lambda x: (x**2).sum() / 2, torch.tensor([[3.0]])).tolist()
    [[-3.0]]
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        at = x if recording and x.requires_grad else x.detach().requires_grad_()
        total = energy(at).sum()
        (slope,) = torch.autograd.grad(total, at, create_graph=recording)
    return -slope
