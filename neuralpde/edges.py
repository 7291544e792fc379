"""Edges: the weighted adjacency matrix of a graph and what one counts on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuralpde.operators.pattern import Pattern
from solvers.lasting import lasting

Value = TypeVar("Value")


class Edges:
    """Weighted edges, coalesced: duplicates summed, weights of zero dropped, self-loops kept.

    The part of a `Graph` that knows nothing but `w_ij`.

    Args:
        edge_index: int64 `[2, edges]`, checked; row 0 sends, row 1 receives.
        weight: float64 `[edges]`, checked.
        num_nodes: number of nodes.
        rounding: relative difference up to which `w_ij` and `w_ji` count as equal.

    >>> ones = torch.ones(3, dtype=torch.float64)
    >>> Edges(torch.tensor([[0, 0, 1], [1, 1, 0]]), ones, 2, 0.0).edge_weight.tolist()
    [1.0, 2.0]
    """

    def __init__(self, edge_index: Tensor, weight: Tensor, num_nodes: int, rounding: float) -> None:
        self.num_nodes = num_nodes
        present = weight > 0
        source, target = edge_index[:, present]
        self.pattern, slot = Pattern.from_edges(target, source, num_nodes)
        self.edge_weight: Tensor = weight.new_zeros(self.pattern.col.numel()).index_add(
            0, slot.long(), weight[present]
        )
        self.edge_index: Tensor = torch.stack([self.pattern.col.long(), self.pattern.row.long()])
        self.directed = self._differs_from_its_transpose(rounding)
        self._cache: dict[Any, Any] = {}

    def _kept(self, key: object, make: Callable[[], Value]) -> Value:
        if key not in self._cache:
            with lasting():
                self._cache[key] = make()
        return cast(Value, self._cache[key])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def _differs_from_its_transpose(self, rounding: float) -> bool:
        crow_t, col_t, perm = self.pattern.transposed
        if not (torch.equal(crow_t, self.pattern.crow) and torch.equal(col_t, self.pattern.col)):
            return True
        weight, reverse = self.edge_weight, self.edge_weight[perm.long()]
        if bool(((weight - reverse).abs() > rounding * (weight + reverse)).any()):
            return True
        # Weights computed per direction differ in their last digits: operators that are called
        # symmetric must be so to the bit.
        self.edge_weight = 0.5 * (weight + reverse)
        return False

    def _has_reciprocal_pair(self) -> bool:
        source, target = self.edge_index[:, self.edge_index[0] != self.edge_index[1]]
        forward, backward = source * self.num_nodes + target, target * self.num_nodes + source
        return bool(torch.isin(backward, forward).any())

    def _symmetrised(self, reduce: str) -> tuple[Tensor, Tensor]:
        source, target = self.edge_index
        loop = source == target
        edge_index = torch.cat([self.edge_index, self.edge_index[:, ~loop].flip(0)], dim=1)
        weight = torch.cat([self.edge_weight, self.edge_weight[~loop]])
        if reduce == "max":
            key, slot = (edge_index[0] * self.num_nodes + edge_index[1]).unique(return_inverse=True)
            edge_index = torch.stack([key // self.num_nodes, key % self.num_nodes])
            weight = weight.new_zeros(len(key)).scatter_reduce(0, slot, weight, "amax")
        if reduce == "mean":
            weight = torch.where(edge_index[0] == edge_index[1], weight, 0.5 * weight)
        return edge_index, weight

    def remember(self, key: Any, build: Callable[[], Any]) -> Any:
        """Return what was built under this key, or build it now; a graph never changes.

        >>> edges = Edges(torch.tensor([[0], [1]]), torch.ones(1).double(), 2, 0.0)
        >>> edges.remember("answer", lambda: 6 * 7), edges.remember("answer", lambda: 0)
        (42, 42)
        """
        return self._kept(key, build)

    @property
    def device(self) -> torch.device:
        """Device of all tensors.

        >>> from neuralpde.graph import Graph
        >>> Graph(torch.tensor([[0, 1], [1, 0]])).device
        device(type='cpu')
        """
        return self.edge_index.device

    @property
    def weight(self) -> Float[Tensor, " edges"]:
        """The same as `edge_weight`: the values that belong to `pattern`.

        >>> from neuralpde.graph import Graph
        >>> Graph(torch.tensor([[0, 1, 0], [1, 0, 0]])).weight.tolist()
        [1.0, 1.0, 1.0]
        """
        return self.edge_weight

    @property
    def num_self_loops(self) -> int:
        """Number of self-loops.

        >>> from neuralpde.graph import Graph
        >>> Graph(torch.tensor([[0, 1, 0], [1, 0, 0]])).num_self_loops
        1
        """
        return int((self.edge_index[0] == self.edge_index[1]).sum())

    @property
    def num_edges(self) -> int:
        """Number of edges without self-loops: pairs if undirected, arcs if directed.

        (`edge_index` has one column for each arc and each self-loop.)

        >>> from neuralpde.graph import Graph
        >>> Graph(torch.tensor([[0, 1, 0], [1, 0, 0]])).num_edges
        1
        """
        arcs = self.edge_index.shape[1] - self.num_self_loops
        return arcs if self.directed else arcs // 2

    @property
    def degree(self) -> Float[Tensor, " nodes"]:
        """Sum of the weights that each node receives, without self-loops: the diagonal of L.

        >>> from neuralpde.graph import Graph
        >>> Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])).degree.tolist()
        [1.0, 2.0, 1.0]
        """
        source, target = self.edge_index
        weight = torch.where(source == target, 0.0, self.edge_weight)
        return weight.new_zeros(self.num_nodes).index_add(0, target, weight)

    @property
    def isolated(self) -> Bool[Tensor, " nodes"]:
        """Nodes that no edge joins to another node.

        >>> from neuralpde.graph import Graph
        >>> Graph(torch.tensor([[0, 1, 2], [1, 0, 2]]), num_nodes=4).isolated.tolist()
        [False, False, True, True]
        """
        mask = torch.ones(self.num_nodes, dtype=torch.bool, device=self.device)
        mask[self.edge_index[:, self.edge_index[0] != self.edge_index[1]].flatten()] = False
        return mask

    @property
    def components(self) -> tuple[Int[Tensor, " nodes"], int]:
        """Label of each node's component, and their number (weakly connected if directed).

        >>> from neuralpde.graph import Graph
        >>> labels, count = Graph(torch.tensor([[0, 2], [2, 0]])).components
        >>> labels.tolist(), count
        ([0, 1, 0], 2)
        """
        return self._kept("components", self._connected)

    def _connected(self) -> tuple[Tensor, int]:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        source, target = self.edge_index.cpu().numpy()
        shape = (self.num_nodes, self.num_nodes)
        entries = coo_array((self.edge_weight.cpu().numpy(), (target, source)), shape)
        count, labels = connected_components(entries, directed=True, connection="weak")
        return torch.from_numpy(labels).long().to(self.device), int(count)
