"""Where matrices of blocks have entries: the pattern of a graph, each entry grown to a block."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from neuralpde.operators.pattern import Pattern
from solvers.lasting import kept


class Grown(Pattern):
    """The pattern on `nodes x stalk` rows whose entries are the blocks of a pattern on nodes.

    Row `i stalk + a` is row `a` of node `i`. Nothing is sorted: rows of blocks are in order, and
    the transposed order follows from that of the nodes.

    Args:
        nodes: entries on the nodes.
        stalk: rows of a block.
        full: whether blocks are full; else diagonal.

    >>> rows = Grown(Pattern.identity(2), 2, True)
    >>> rows.col.tolist(), rows.places()[1].tolist()
    ([0, 1, 0, 1, 2, 3, 2, 3], [[4, 5], [6, 7]])
    """

    def __init__(self, nodes: Pattern, stalk: int, full: bool) -> None:
        self.nodes, self.stalk, self.full = nodes, stalk, full
        width = stalk if full else 1
        counts = nodes.crow.diff().long() * width
        places = self.places()
        col = nodes.col.long()[:, None] * stalk + torch.arange(stalk, device=nodes.device)
        if full:
            col = col[:, None, :].expand_as(places)
        crow = counts.new_zeros(nodes.num_nodes * stalk + 1)
        torch.cumsum(counts.repeat_interleave(stalk), 0, out=crow[1:])
        columns = torch.empty(places.numel(), dtype=nodes.col.dtype, device=nodes.device)
        columns[places.reshape(-1)] = col.reshape(-1).to(columns.dtype)
        super().__init__(crow, columns, nodes.num_nodes * stalk)

    @kept
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The transposed matrix as `(crow, col, perm)`; its values are `values[perm]`."""
        other = Grown(self.nodes.T, self.stalk, self.full)
        blocks = self.places()[self.nodes.transposed[2].long()]
        perm = torch.empty_like(other.col)
        perm[other.places().reshape(-1)] = (blocks.mT if self.full else blocks).reshape(-1).to(perm)
        return other.crow, other.col, perm

    def places(self) -> Int[Tensor, "blocks ..."]:
        """Return where the numbers of each block stand: `[blocks, stalk, stalk]`, or of diagonals.

        They are as many as the entries, so they are not kept.
        """
        nodes, width = self.nodes, self.stalk if self.full else 1
        counts, first = nodes.crow.diff().long()[nodes.row], nodes.crow.long()[nodes.row]
        entry = torch.arange(nodes.nnz, device=nodes.device) - first
        steps = torch.arange(self.stalk, device=nodes.device)
        # Node i's rows begin after all blocks of earlier nodes; each holds a row of all its blocks.
        start = first * (self.stalk * width) + entry * width
        places = start[:, None] + steps * (counts * width)[:, None]
        return places[:, :, None] + steps if self.full else places
