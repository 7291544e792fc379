"""Adjacency matrices and Laplacians of weighted graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from neuralpde.operators.graphs import Graphs
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.tags import Tags

MEND = 'make the graph undirected first: graph.undirected(reduce="max")'
EPS = torch.finfo(torch.float64).eps


class Weighted(Protocol):
    """What adjacency matrices and Laplacians need to know of a graph.

    Attributes:
        num_nodes: number of nodes.
        num_graphs: number of graphs in the batch.
        pattern: entries of the adjacency matrix; rows receive, columns send.
        directed: whether the weights are not symmetric.
        batch: graph of each node, or None.
        node_weight: measure of each node, or None.
        weight: float64 weight of each entry, not negative.
    """

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""

    @property
    def pattern(self) -> Pattern:
        """Entries of the adjacency matrix."""

    @property
    def directed(self) -> bool:
        """Whether the weights are not symmetric."""

    @property
    def batch(self) -> Tensor | None:
        """Graph of each node."""

    @property
    def node_weight(self) -> Tensor | None:
        """Measure of each node."""

    @property
    def weight(self) -> Tensor:
        """Weight of each entry."""


def adjacency(graph: Weighted, norm: str = "none", self_loops: float = 0.0) -> SparseOperator:
    """Return the adjacency matrix, `A_ij` = weight of the edge from `j` to `i`, normalised.

    With `W = A + self_loops I` and its sums `r_i` over row `i` (received), `c_j` over column `j`:

        none  W          row  W_ij / r_i          col  W_ij / c_j          sym  W_ij / sqrt(r_i r_j)

    A node with a zero sum keeps a zero row (column). "row" is therefore tagged row-stochastic only
    if no node receives nothing, and "col" column-stochastic only if every node sends something.
    On undirected graphs "row" is self-adjoint in the metric `r`, "col" in `1 / c`.

    Args:
        graph: a weighted graph; its own self-loops count.
        norm: "none", "row", "col" or "sym".
        self_loops: weight added to every self-loop before normalisation.

    Returns:
        The operator with float64 values; those of "row", "col" and "sym" lie in [-1, 1].

    Raises:
        ValueError: the name of the norm is unknown, `self_loops` is negative, or "sym" is asked of
            a directed graph.

    References:
        T. N. Kipf, M. Welling, ICLR 2017, arXiv:1609.02907 ("sym" with `self_loops=1`).

    >>> from types import SimpleNamespace
    >>> path, _ = Pattern.from_edges(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 1]), 3)
    >>> graph = SimpleNamespace(num_nodes=3, num_graphs=1, pattern=path, directed=False, batch=None,
    ...                         node_weight=None, weight=torch.ones(4).double())
    >>> adjacency(graph, "row").values.tolist()
    [1.0, 0.5, 0.5, 1.0]
    """
    if norm not in ADJACENCIES:
        raise ValueError(
            f"unknown norm {norm!r} of an adjacency; allowed: {', '.join(ADJACENCIES)}"
        )
    if not self_loops >= 0.0:
        raise ValueError(f"self_loops is {self_loops}; weights are not negative")
    if norm == "sym" and graph.directed:
        raise ValueError(f'the "sym" adjacency needs symmetric weights; {MEND}')
    pattern, weight = graph.pattern, graph.weight.double()
    if self_loops > 0.0:
        pattern, slot = pattern.with_diagonal()
        weight = weight.new_zeros(pattern.nnz).index_add(0, slot, weight)
        loops = weight.new_full((graph.num_nodes,), self_loops)
        weight = weight.index_add(0, pattern.diagonal, loops)
    graphs = Graphs(graph.batch, graph.num_graphs, weight.device)
    tags = Tags(EPS, nonnegative=True, rising=True)
    if norm == "none":
        tags = replace(tags, symmetric=not graph.directed)
        return SparseOperator.tagged(pattern, weight, tags, graphs)
    total = _summed(weight, pattern.col if norm == "col" else pattern.row, graph.num_nodes)
    safe = torch.where(total > 0, total, 1.0)
    ones = None if bool((total == 0).any()) else _ones(graphs)
    tags = replace(
        tags,
        symmetric=norm == "sym",
        row_sum=ones if norm == "row" else None,
        col_sum=ones if norm == "col" else None,
        metric=None if graph.directed else {"row": safe, "col": 1.0 / safe}.get(norm),
    )
    if graph.directed:
        ends = None
    else:
        # Gershgorin for W_ij / r_i, to which the other two are similar.
        loop = torch.cat([weight, weight.new_zeros(1)])[pattern.diagonal] / safe
        radius = (total > 0).double() - loop
        ends = graphs.reduced(loop - radius, "amin"), graphs.reduced(loop + radius, "amax")
    return SparseOperator.tagged(
        pattern, weight / DIVISORS[norm](safe, pattern), tags, graphs, ends
    )


DIVISORS: dict[str, Callable[[Tensor, Pattern], Tensor]] = {
    "row": lambda total, pattern: total[pattern.row],
    "col": lambda total, pattern: total.index_select(0, pattern.col),
    # One root of the product: exactly symmetric, and exactly 1 where it divides the total itself.
    "sym": lambda total, pattern: (total[pattern.row] * total.index_select(0, pattern.col)).sqrt(),
}
ADJACENCIES = ("none", *DIVISORS)
LAPLACIANS = {"comb": "row", "sym": "sym", "rw": "row", "augmented": "sym"}


def laplacian(graph: Weighted, norm: str = "comb") -> SparseOperator:
    """Return a Laplacian of the graph; `x' = -L x` is its diffusion.

    With received weight `d_i = sum_j A_ij`, self-loops left out:

        comb       D - A               M^-1 (D - A) on a graph with `node_weight` M
        sym        D^-1/2 (D - A) D^-1/2
        rw         D^-1 (D - A)
        augmented  (D + I)^-1/2 (D - A) (D + I)^-1/2  =  I - (D + I)^-1/2 (A + I) (D + I)^-1/2

    A node without edges has a zero row. Rows of "comb" and "rw" sum to zero, so `-L` is a
    generator; "rw" is self-adjoint in the metric `d` (1 without edges), `M^-1 (D - A)` in `M`.
    On directed graphs "comb" and "rw" act on the receiver.

    Args:
        graph: a weighted graph.
        norm: "comb", "sym", "rw" or "augmented".

    Returns:
        The operator with float64 values. Its enclosure is [0, 2] or tighter when normalised; with
        `q = d / M` it is `max_i (q_i + sum_j A_ij q_j / d_i)` for "comb", which is at most the
        largest `d_i + d_j` over edges, or the weight of the complete graph if that is less.

    Raises:
        ValueError: the name of the norm is unknown, "sym" or "augmented" is asked of a directed
            graph, or a normalised Laplacian of a graph with `node_weight`.

    References:
        F. Chung, Spectral Graph Theory, 1997, ch. 1. R. Merris, A note on Laplacian graph
        eigenvalues, Linear Algebra Appl. 285 (1998), for the bound.

    >>> from types import SimpleNamespace
    >>> path, _ = Pattern.from_edges(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 1]), 3)
    >>> graph = SimpleNamespace(num_nodes=3, num_graphs=1, pattern=path, directed=False, batch=None,
    ...                         node_weight=None, weight=torch.ones(4).double())
    >>> L = laplacian(graph)
    >>> L.to_dense().tolist(), L.spectrum()[1].tolist(), (-L).generator
    ([[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]], [3.0], 'row')
    """
    if norm not in LAPLACIANS:
        raise ValueError(f"unknown norm {norm!r} of a Laplacian; allowed: {', '.join(LAPLACIANS)}")
    if graph.directed and LAPLACIANS[norm] == "sym":
        raise ValueError(f'the "{norm}" Laplacian needs symmetric weights; {MEND}')
    if graph.node_weight is not None and norm != "comb":
        raise ValueError(
            f'the "{norm}" Laplacian has its own measure, the graph has node_weight too: use '
            'norm="comb", which then is M^-1 (D - A), or a graph without node_weight'
        )
    pattern, slot = graph.pattern.with_diagonal()
    edges = graph.weight.double() * (graph.pattern.row != graph.pattern.col)
    degree = _summed(edges, graph.pattern.row, graph.num_nodes)
    values = edges.new_zeros(pattern.nnz).index_add(0, slot, -edges)
    values = values.index_add(0, pattern.diagonal, degree)
    measure = _measure(norm, degree, graph.node_weight)
    if measure is not None:
        values = values / DIVISORS[LAPLACIANS[norm]](measure, pattern)
    graphs = Graphs(graph.batch, graph.num_graphs, values.device)
    by_row = LAPLACIANS[norm] == "row"
    tags = Tags(
        EPS,
        symmetric=not graph.directed and (measure is None or not by_row),
        psd=not graph.directed,
        metric=None if graph.directed or not by_row else measure,
        falling=True,
        row_sum=0.0 * _ones(graphs) if by_row else None,
    )
    if graph.directed:
        return SparseOperator.tagged(pattern, values, tags, graphs)
    top = _largest(graph, edges, degree, torch.ones_like(degree) if measure is None else measure)
    top = top if norm == "comb" else top.clamp(max=2.0)
    return SparseOperator.tagged(pattern, values, tags, graphs, enclosure=(0.0, top))


def _measure(norm: str, degree: Tensor, node_weight: Tensor | None) -> Tensor | None:
    if norm == "comb":
        return None if node_weight is None else node_weight.double()
    return degree + 1.0 if norm == "augmented" else torch.where(degree > 0, degree, 1.0)


def _largest(graph: Weighted, edges: Tensor, degree: Tensor, measure: Tensor) -> Tensor:
    # M^-1 (D - A) has moduli M^-1 (D + A), whose row sums in the basis diag(q) bound the spectrum.
    graphs, pattern = Graphs(graph.batch, graph.num_graphs, edges.device), graph.pattern
    q = degree / measure
    neighbours = _summed(edges * q.index_select(0, pattern.col), pattern.row, graph.num_nodes)
    merris = graphs.reduced(q + neighbours / torch.where(degree > 0, degree, 1.0), "amax")
    # w n I - (D - A) is positive on the complement of the constants if no weight exceeds w.
    heaviest = edges.new_zeros(graph.num_nodes).scatter_reduce(0, pattern.row, edges, "amax")
    count = graphs.reduced(torch.ones_like(degree), "sum")
    complete = graphs.reduced(heaviest, "amax") * count * graphs.reduced(1.0 / measure, "amax")
    return torch.minimum(merris, complete)


def _summed(values: Tensor, index: Tensor, num_nodes: int) -> Tensor:
    return values.new_zeros(num_nodes).index_add(0, index, values)


def _ones(graphs: Graphs) -> Tensor:
    return torch.ones(2, graphs.num_graphs, dtype=torch.float64, device=graphs.device)
