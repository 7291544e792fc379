"""Ends of edges: what a sheaf has a map for, and where the blocks made of them stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralpde.operators.laplacian import MEND, Weighted
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.stalks import Grown


class Remembering(Weighted, Protocol):
    """A weighted graph that keeps what was built from it."""

    def remember(self, key: Any, build: Callable[[], Any]) -> Any:
        """Return what was built under this key, or build it now."""


class Incidences:
    """The ends of the edges of an undirected graph, self-loops left out.

    First one end of each edge, at the node of the lower number, then the other ends in the same
    order: two halves, so that what belongs to an edge stands at `e` and at `e + edges`.

    Args:
        graph: an undirected graph.

    Attributes:
        num_nodes: number of nodes.
        order: `[ends]`, the entry of the graph that each end is: its node receives.
        row: node of each end.
        edges: number of edges.
        weight: weights of the ends, float64, or None if all are 1.
        degree: sums of the weights, `[nodes]`.
        pattern: entries of the graph, with every diagonal entry.

    Raises:
        ValueError: the graph is directed, or has `node_weight`.

    >>> from neuralpde.graph import Graph
    >>> ends = Incidences.of(Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])))
    >>> ends.row.tolist(), ends.order.tolist()
    ([0, 1, 1, 2], [0, 2, 1, 3])
    """

    def __init__(self, graph: Remembering) -> None:
        if graph.directed:
            raise ValueError(f"a sheaf has two maps for each edge, one at each end; {MEND}")
        if graph.node_weight is not None:
            raise ValueError(
                "sheaf Laplacians have stalks without a measure, and the graph has node_weight: "
                "use a graph without it"
            )
        pattern, kept = graph.pattern, (graph.pattern.row != graph.pattern.col).nonzero().flatten()
        if len(kept) < pattern.nnz:
            crow = torch.zeros_like(pattern.crow)
            counts = torch.bincount(pattern.row[kept], minlength=graph.num_nodes)
            crow[1:] = counts.cumsum(0)
            pattern = Pattern(crow, pattern.col[kept], graph.num_nodes)
        lower = (pattern.row < pattern.col).nonzero().flatten()
        ends = torch.cat([lower, pattern.transposed[2].long()[lower]])
        self.num_nodes, self.edges = graph.num_nodes, len(lower)
        self.order, self.row = kept[ends], pattern.row[ends]
        weight = graph.weight.double()[self.order]
        self.weight = None if bool((weight == 1).all()) else weight
        self.degree = self.summed(weight)
        self.pattern, slot = pattern.with_diagonal()
        self._slots = slot[ends].split(self.edges) if self.edges else (ends, ends)
        self._blocks: dict[tuple[int, bool], tuple[Grown, Tensor]] = {}

    @classmethod
    def of(cls, graph: Remembering) -> Incidences:
        """Return the ends of a graph's edges, found once."""
        found: Incidences = graph.remember("incidences", lambda: cls(graph))
        return found

    def summed(self, values: Float[Tensor, "*planes ends"]) -> Float[Tensor, "*planes nodes"]:
        """Return the sums over the ends of each node, in float64; differentiable."""
        values = values.double()
        blank = values.new_zeros(*values.shape[:-1], self.num_nodes)
        return blank.index_add(-1, self.row, values)

    def blocks(self, stalk: int, full: bool) -> tuple[Grown, Int[Tensor, " nnz"]]:
        """Return the pattern of a symmetric matrix of blocks, and what stands at its entries.

        Entries are positions in one vector: the blocks of the edges, rows at their first ends,
        number `(a, b)` of all of them together, then those of the nodes likewise; only `(a, a)`
        where blocks are diagonal. Both halves of the matrix read the same numbers.

        Args:
            stalk: rows of a block.
            full: whether blocks are full.
        """
        if (stalk, full) not in self._blocks:
            self._blocks[stalk, full] = self._placed(stalk, full)
        return self._blocks[stalk, full]

    def _placed(self, stalk: int, full: bool) -> tuple[Grown, Tensor]:
        grown, edges = Grown(self.pattern, stalk, full), self.edges
        places, a = grown.places(), torch.arange(stalk, device=self.row.device)
        number = a[:, None] * stalk + a if full else a
        count = number.numel()
        entries = torch.empty(places.numel(), dtype=torch.int64, device=places.device)
        edge = torch.arange(edges, device=places.device).view(-1, *[1] * number.dim())
        node = torch.arange(self.num_nodes, device=places.device).view(-1, *[1] * number.dim())
        upper, lower = self._slots
        entries[places[upper]] = number * edges + edge
        entries[places[lower]] = (number.T if full else number) * edges + edge
        own = torch.minimum(number, number.T) if full else number
        entries[places[self.pattern.diagonal]] = count * edges + own * self.num_nodes + node
        return grown, entries.to(grown.col.dtype)
