"""A large state is propagated some columns at a time, so that its terms stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from solvers.problem import Operator, Reordered
from solvers.products import products

State = Float[Tensor, "nodes columns"]

# A sparse product reads the rows of a state in the order of the edges: fast while the state is in
# the cache, and with 64 columns it is there twice as long as with 128. Products of 32 columns do
# not share their work between threads any more: on two of them they take as long as those of 64.
WIDTH = 64

# Another order of the rows is looked for where a series is long and a piece does not stay in the
# cache of one core, in bytes: finding it takes about as long as 10 products, once for a graph.
LONG, LARGE = 12, 2**18


def pieces(x: State) -> list[slice]:
    """Cut the columns of a state into pieces that may be propagated one after the other.

    Columns do not mix, and each is computed as it is in one piece. On other devices than the CPU
    there is one piece, as their kernels wait for large states.

    Args:
        x: the state.

    Example:
        >>> import torch
        >>> pieces(torch.ones(5, 80))
        [slice(0, 64, None), slice(64, 80, None)]
    """
    columns = x.shape[1]
    if x.device.type != "cpu" or columns <= WIDTH:
        return [slice(0, columns)]
    return [slice(first, min(first + WIDTH, columns)) for first in range(0, columns, WIDTH)]


def buffers(x: State, count: int) -> list[Tensor]:
    """Return uninitialised room for so many pieces of a state; see :func:`fitted`.

    Example:
        >>> import torch
        >>> [room.shape for room in buffers(torch.ones(5, 80), 2)]
        [torch.Size([320]), torch.Size([320])]
    """
    width = max((piece.stop - piece.start for piece in pieces(x)), default=0)
    return [x.new_empty(len(x) * width) for _ in range(count)]


def fitted(room: Tensor, part: State) -> State:
    """Return the beginning of a buffer as a contiguous tensor of the shape of a piece.

    Example:
        >>> import torch
        >>> fitted(torch.ones(160), torch.ones(5, 8)).shape
        torch.Size([5, 8])
    """
    return room[: part.numel()].view(part.shape)


def reordered(A: Operator, x: State, terms: int) -> Reordered | None:
    """Return products with rows in an order that suits the cache, where that pays.

    Args:
        A: the operator.
        x: a state.
        terms: how many products there will be.
    """
    piece = x.shape[0] * min(x.shape[1], WIDTH) * x.element_size()
    return A.reordered if terms >= LONG and piece >= LARGE and A.separate else None


def piecewise(
    propagate: Callable[[State, Sequence[State], State], object],
    v: State,
    sums: Sequence[State],
    order: Reordered | None = None,
) -> None:
    """Fill sums over the terms of a series piece by piece; products count once for all pieces.

    Args:
        propagate: called with a piece of the state, where to put the piece's sums, and a spare
            piece; contiguous all of them, and the first and last may be overwritten.
        v: the state; it is not written to.
        sums: filled.
        order: the order of the rows of pieces, if it is another one.

    Example:
        >>> import torch
        >>> y = torch.empty(5, 80)
        >>> piecewise(lambda v, sums, spare: sums[0].copy_(v), torch.ones(5, 80), [y])
        >>> y.sum().item()
        400.0
    """
    every = pieces(v)
    # What an only piece is put into serves as its spare before: fresh memory takes its time.
    lent = sums[0] if order is not None and len(every) == 1 and sums[0].is_contiguous() else None
    rooms = buffers(v, (2 if lent is None else 1) + len(sums))
    for columns in products.once(every):
        part = v[:, columns]
        first, *places = (fitted(room, part) for room in rooms)
        spare = places.pop() if lent is None else lent
        propagate(first.copy_(part) if order is None else order.enter(part, first), places, spare)
        for y, place in zip(sums, places, strict=True):
            if order is None:
                y[:, columns] = place
            else:
                order.leave(place, y[:, columns])
