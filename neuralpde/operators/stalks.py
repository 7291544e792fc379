"""Where matrices of blocks have entries: the pattern of a graph, each entry grown to a block."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from neuralpde.operators.pattern import Pattern


def grown(pattern: Pattern, stalk: int, full: bool) -> tuple[Pattern, Int[Tensor, "nnz *block"]]:
    """Return the pattern on `nodes x stalk` rows, and where the numbers of each block stand in it.

    Row `i stalk + a` is row `a` of node `i`. Nothing is sorted: blocks are rows of rows already.

    Args:
        pattern: entries on the nodes.
        stalk: rows of a block.
        full: whether blocks are full; else diagonal.

    Returns:
        The pattern, and places `[nnz, stalk, stalk]` in it, or `[nnz, stalk]` of diagonals.

    >>> rows, places = grown(Pattern.identity(2), 2, True)
    >>> rows.col.tolist(), places[1].tolist()
    ([0, 1, 0, 1, 2, 3, 2, 3], [[4, 5], [6, 7]])
    """
    width = stalk if full else 1
    steps = torch.arange(stalk, device=pattern.device)
    counts, first = pattern.crow.diff().long(), pattern.crow.long()[pattern.row]
    entry = torch.arange(pattern.nnz, device=pattern.device) - first
    # Node i's rows begin after all blocks of earlier nodes; each is as long as its entries.
    start = first * (stalk * width) + entry * width
    places = start[:, None] + steps * (counts[pattern.row] * width)[:, None]
    col = pattern.col.long()[:, None] * stalk + steps
    if full:
        places = places[:, :, None] + steps
        col = col[:, None, :].expand_as(places)
    crow = counts.new_zeros(pattern.num_nodes * stalk + 1)
    torch.cumsum((counts * width).repeat_interleave(stalk), 0, out=crow[1:])
    columns = col.new_empty(places.numel(), dtype=pattern.col.dtype)
    columns[places.reshape(-1)] = col.reshape(-1).to(columns.dtype)
    return Pattern(crow, columns, pattern.num_nodes * stalk), places
