"""All unit states at once: how an operator that is only known by its products becomes a matrix."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Sized(Protocol):
    """Where unit states live."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""

    @property
    def device(self) -> torch.device:
        """Of the states."""


def units(
    like: Sized, dtype: torch.dtype, channels: int | None
) -> Float[Tensor, "nodes columns"] | Float[Tensor, "nodes units channels"]:
    """Return all unit states: columns of the identity, or states `[nodes, channels]` with a 1.

    Args:
        like: on its nodes and device.
        dtype: of the states.
        channels: of the states of an operator that mixes them; None for one that does not.

    >>> from types import SimpleNamespace
    >>> like = SimpleNamespace(num_nodes=2, device=None)
    >>> units(like, torch.float32, 3).shape
    torch.Size([2, 6, 3])
    """
    size = like.num_nodes * (channels or 1)
    eye = torch.eye(size, dtype=dtype, device=like.device)
    return eye if channels is None else eye.view(size, like.num_nodes, channels).transpose(0, 1)


def matrix(images: Tensor, channels: int | None) -> Float[Tensor, "rows rows"]:
    """Return the matrix of which these are the images of the unit states.

    Args:
        images: of what `units` gave.
        channels: as given there.

    >>> images = torch.arange(4.0).view(1, 2, 2)
    >>> matrix(images, 2).tolist()
    [[0.0, 2.0], [1.0, 3.0]]
    """
    return images if channels is None else images.transpose(1, 2).flatten(0, 1)
