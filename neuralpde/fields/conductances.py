"""Edge weights of a diffusion that are learned and stay positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.field import State
from neuralpde.graph import Graph
from neuralpde.operators import Operator
from neuralpde.operators.laplacian import laplacian
from neuralpde.operators.pattern import Pattern


@dataclass(frozen=True)
class _Weighted:
    """A graph whose weights are learned; a `Graph` holds constants."""

    num_nodes: int
    num_graphs: int
    pattern: Pattern
    batch: Tensor | None
    node_weight: Tensor | None
    weight: Tensor
    directed: bool = False


class Conductances(nn.Module):
    """The generator -L(w) with w = exp(theta), one theta for each undirected edge of a graph.

    `Diffusion(Conductances(graph), norm="comb")` is the heat flow x' = -L(w) x whose diffusivities
    are to be found: linear, so solved exactly, with exact gradients to theta. Its energy is that of
    the graph as it is, not of w. Self-loops play no part and have no weight.

    Args:
        graph: Undirected; its weights are the first values.
        norm: "comb", "rw" or "sym"; see `Graph.laplacian`.

    Attributes:
        log_weights: theta, a parameter `[undirected edges]`, float64 as the operator is.
        ends: The two nodes of each edge, `[2, undirected edges]`, smaller index first.

    Raises:
        ValueError: For a directed graph; when called, for another graph.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> flow = Conductances(Graph(edges, edge_weight=torch.tensor([2.0, 2.0]).double()))
    >>> flow.weights.tolist(), flow(Graph(edges), torch.zeros(2, 1).double()).to_dense().tolist()
    ([2.0], [[-2.0, 2.0], [2.0, -2.0]])
    """

    ends: Tensor
    slot: Tensor

    def __init__(self, graph: Graph, norm: str = "comb") -> None:
        super().__init__()
        if graph.directed:
            raise ValueError(
                "conductances belong to undirected edges: "
                'use graph.undirected(reduce="max") or EdgeWeights(graph, symmetric=False)'
            )
        row, col = graph.pattern.row.long(), graph.pattern.col.long()
        apart = row != col
        pairs = torch.stack([torch.minimum(row, col), torch.maximum(row, col)])
        keys = (pairs[0] * graph.num_nodes + pairs[1])[apart]
        known, place = keys.unique(return_inverse=True)
        # The last slot is that of self-loops, which have no weight.
        slot = torch.full_like(row, len(known))
        slot[apart] = place
        weights = graph.edge_weight.double().new_zeros(len(known))
        weights[place] = graph.edge_weight.double()[apart]
        self.norm = norm
        self.log_weights = nn.Parameter(weights.log())
        ends = torch.stack([known // graph.num_nodes, known % graph.num_nodes])
        self.register_buffer("ends", ends, persistent=False)
        self.register_buffer("slot", slot, persistent=False)

    @property
    def weights(self) -> Float[Tensor, " edges"]:
        """The weights w."""
        return self.log_weights.exp()

    def forward(self, graph: Graph, x0: State) -> Operator:
        """The operator -L(w)."""
        first = x0[0] if isinstance(x0, tuple) else x0
        if len(self.slot) != graph.pattern.nnz:
            raise ValueError(
                f"weights for {len(self.slot)} arcs, and the graph has {graph.pattern.nnz}; they "
                "belong to the graph that they were made for"
            )
        both = torch.cat([self.weights, self.log_weights.new_zeros(1)])[self.slot]
        weighted = _Weighted(
            graph.num_nodes,
            graph.num_graphs,
            graph.pattern,
            graph.batch,
            graph.node_weight,
            both,
        )
        generator: Operator = -laplacian(weighted, self.norm).to(dtype=first.dtype.to_real())
        return generator
