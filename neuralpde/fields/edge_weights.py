"""A network that is learned edge by edge."""

from __future__ import annotations

from torch import nn

from neuralpde.fields.field import State
from neuralpde.graph import Graph
from neuralpde.operators import SparseOperator


class EdgeWeights(nn.Module):
    """A network with learned weights on the edges of a graph: G_ij = weights[e], e from j to i.

    Args:
        graph: Whose edges they are; weights stand in the order of `graph.edge_index`.
        symmetric: Whether both directions of an edge have the mean of their two weights. The graph
            is undirected then.

    Attributes:
        weights: Parameter `[edges]`, the weights of the graph at first.

    Raises:
        ValueError: For a directed graph with `symmetric`; when called, for another graph.

    >>> import torch
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> network = EdgeWeights(graph)
    >>> network.weights.data = torch.tensor([2.0, 4.0])
    >>> network(graph, torch.zeros(2, 1)).to_dense().tolist()
    [[0.0, 3.0], [3.0, 0.0]]
    """

    def __init__(self, graph: Graph, *, symmetric: bool = True) -> None:
        super().__init__()
        if symmetric and graph.directed:
            raise ValueError(
                "symmetric weights need both directions of every edge: use "
                'graph.undirected(reduce="max"), or symmetric=False'
            )
        self.symmetric = symmetric
        self.weights = nn.Parameter(graph.edge_weight.to(graph.dtype, copy=True))

    def forward(self, graph: Graph, x0: State) -> SparseOperator:
        """The operator G."""
        first = x0[0] if isinstance(x0, tuple) else x0
        values = self.weights.to(first.dtype)
        if len(values) != graph.pattern.nnz:
            raise ValueError(
                f"{len(values)} weights for a graph of {graph.pattern.nnz} arcs; they belong to "
                "the graph that they were made for"
            )
        if self.symmetric:
            values = (values + values[graph.pattern.transposed[2]]) / 2
        return SparseOperator(
            graph.pattern,
            values,
            symmetric=self.symmetric,
            batch=graph.batch,
            num_graphs=graph.num_graphs,
        )
