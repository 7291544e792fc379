"""States as rows of numbers, and back: what encoders write and decoders read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields import Field
from neuralpde.fields.field import State


def _piece(field: Field) -> Field:
    first: Field = field if field.pieces is None else field.pieces[0]
    return first


def width(field: Field, channels: int | None = None) -> int:
    """How many numbers of a node make its first state.

    Raises:
        ValueError: When neither the field nor `channels` says how many channels there are, or they
            do not agree.

    >>> from neuralpde.fields import SheafDiffusion
    >>> width(SheafDiffusion(4, 3))
    12
    """
    piece = _piece(field)
    declared: int | None = getattr(piece, "channels", None)
    count = channels if declared is None else declared
    if count is None:
        raise ValueError(f"{field.label} takes any number of channels: say how many, channels=")
    if declared is not None and channels is not None and declared != channels:
        raise ValueError(
            f"{field.label} has {declared} channels, and channels={channels} was given"
        )
    return count * (piece.stalk or 1)


def readout(field: Field, channels: int | None = None) -> int:
    """How many numbers of a node the decoder sees.

    >>> from neuralpde.fields import Schroedinger
    >>> readout(Schroedinger(), 4)
    8
    """
    return width(field, channels) * (2 if _piece(field).is_complex else 1)


def opened(field: Field, hidden: Float[Tensor, "nodes width"], velocity: str = "zero") -> State:
    """Rows of numbers as the first state of a field.

    Args:
        field: The field.
        hidden: The rows.
        velocity: "zero" or "position", for fields of second order.

    >>> from neuralpde.fields import BundleDiffusion
    >>> opened(BundleDiffusion(1, 2), torch.tensor([[1.0, 2.0]])).tolist()
    [[[1.0], [2.0]]]
    """
    piece = _piece(field)
    if piece.is_complex:
        hidden = torch.complex(hidden, torch.zeros_like(hidden))
    if piece.stalk is not None:
        hidden = hidden.unflatten(1, (piece.stalk, -1))
    if piece.order == 1:
        return hidden
    return hidden, hidden if velocity == "position" else torch.zeros_like(hidden)


def flattened(state: State) -> Float[Tensor, "nodes readout"]:
    """A state as rows of real numbers; of a pair the first part.

    >>> flattened(torch.tensor([[1.0 + 2.0j]])).tolist()
    [[1.0, 2.0]]
    """
    x = state[0] if isinstance(state, tuple) else state
    if x.is_complex():
        x = torch.cat([x.real, x.imag], dim=-1)
    return x.flatten(1)
