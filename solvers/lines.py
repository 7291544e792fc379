"""The entries of a state in lines short enough to be summed in single precision."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Entries that one sum in single precision may take in: one large entry among ones makes an error
# of 2e-6, and where torch.dot adds up to 1,024 of them in its many lanes, of 4e-6; measured.
LINE, SHORT = 256, 1024

Lines = tuple[Tensor, ...]
"""The entries of a state as a matrix and a vector, either of which may be missing."""


def lines(x: Tensor) -> Lines:
    """Return the entries of a contiguous state in lines that single precision can add up.

    Example:
        >>> [line.shape for line in lines(torch.ones(700, 3))]
        [torch.Size([8, 256]), torch.Size([52])]
    """
    flat = x.view(-1)
    count = flat.numel()
    if count <= SHORT:
        return (flat,)
    whole = count - count % LINE
    matrix = flat[:whole].view(-1, LINE)
    return (matrix,) if whole == count else (matrix, flat[whole:])


def dots(x: Lines, y: Lines) -> Float[Tensor, " lines"]:
    """Return the dot products of the lines of two states, to be added in double precision.

    Example:
        >>> dots(lines(torch.ones(2)), lines(torch.ones(2)))
        tensor([2.])
    """
    found = []
    for a, b in zip(x, y, strict=True):
        if a.dim() == 1:
            found.append(torch.dot(a, b).view(1))
        elif a is b:
            found.append(torch.linalg.vector_norm(a, dim=1).square_())
        else:
            found.append(torch.linalg.vecdot(a, b))
    return found[0] if len(found) == 1 else torch.cat(found)
