"""A large state is propagated some columns at a time, so that its terms stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from solvers.problem import Operator, Reordered
from solvers.products import products
from solvers.scratch import lent

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


def terms_of(v: State) -> Float[Tensor, "two nodes columns"]:
    """Return fresh room for two terms of a series, the first of which is the state.

    Example:
        >>> import torch
        >>> terms_of(torch.ones(5, 3))[0].sum().item()
        15.0
    """
    terms = v.new_empty(2, *v.shape)
    terms[0] = v
    return terms


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
    propagate: Callable[[Tensor, list[Tensor]], object],
    v: State,
    sums: Sequence[State],
    order: Reordered | None = None,
    *,
    whole: bool = False,
) -> None:
    """Fill sums over the terms of a series piece by piece; products count once for all pieces.

    Args:
        propagate: called with a place for two terms, ``[2, nodes, some]``, the first of which is
            a piece of the state, and with where to put the piece's sums; contiguous all of them,
            and the terms may be overwritten.
        v: the state; it is not written to.
        sums: filled.
        order: the order of the rows of pieces, if it is another one.
        whole: there is one piece, whatever the number of columns.

    Example:
        >>> import torch
        >>> y = torch.empty(5, 80)
        >>> piecewise(lambda terms, sums: sums[0].copy_(terms[0]), torch.ones(5, 80), [y])
        >>> y.sum().item()
        400.0
    """
    every = [slice(0, v.shape[1])] if whole else pieces(v)
    at_once = order is None and len(every) == 1 and all(y.is_contiguous() for y in sums)
    count, most = 2 if at_once else 2 + len(sums), v[:, every[0]].numel()
    with lent(v, count * most) as memory:
        for columns in products.once(every):
            part = v[:, columns]
            places = memory[: count * part.numel()].view(count, *part.shape)
            if order is None:
                places[0] = part
            else:
                order.enter(part, places[0])
            if at_once:
                propagate(places, list(sums))
                return
            propagate(places[:2], list(places[2:]))
            for y, place in zip(sums, places[2:], strict=True):
                if order is None:
                    y[:, columns] = place
                else:
                    order.leave(place, y[:, columns])
