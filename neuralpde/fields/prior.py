"""What attention on a graph weighs its scores with: edge weights and self-loops."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators.pattern import Pattern


def prior(
    graph: Graph, self_loops: float, over: str = "receiver"
) -> tuple[Pattern, Float[Tensor, " nnz"]]:
    """Return the entries of an attention matrix on a graph, and the weights of its scores.

    The pattern is completed by self-loops, and `self_loops` is added to the weight of each. Where
    there is nothing to attend to, a node attends to itself.

    Args:
        graph: The graph; its own weights and loops count.
        self_loops: Weight of self-loops, not negative.
        over: "receiver" or "sender": whose weights must not all be zero.

    >>> import torch
    >>> edge = Graph(torch.tensor([[0, 1], [1, 0]]), 3)
    >>> pattern, weights = prior(edge, 0.0)
    >>> pattern.col.tolist(), weights.tolist()
    ([0, 1, 0, 1, 2], [0.0, 1.0, 1.0, 0.0, 1.0])
    """
    pattern, slot = graph.pattern.with_diagonal()
    weights = graph.weight.new_zeros(pattern.nnz).index_add(0, slot, graph.weight)
    loops = weights.new_full((graph.num_nodes,), self_loops)
    weights = weights.index_add(0, pattern.diagonal, loops)
    index = pattern.row if over == "receiver" else pattern.col.long()
    total = weights.new_zeros(graph.num_nodes).index_add(0, index, weights)
    return pattern, weights.index_add(0, pattern.diagonal, (total == 0).to(weights))
