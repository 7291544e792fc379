"""Graph: nodes, weighted edges and what every operator on them starts from.

`edge_index` has torch_geometric's direction: row 0 sends, row 1 receives. Edge weights are
conductances `w >= 0`, kept in float64; what is computed from them is cached and cast to the
dtype that is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralpde.checks import (
    checked_batch,
    checked_count,
    checked_dtype,
    checked_edges,
    checked_measure,
    checked_pos,
    checked_weight,
)
from neuralpde.edges import Edges
from neuralpde.operators.laplacian import adjacency, laplacian
from neuralpde.operators.operator import SparseOperator
from solvers.failure import unknown_name

Maker = Callable[..., SparseOperator]
NORMS = {
    "adjacency": ("none", "row", "col", "sym"),
    "laplacian": ("comb", "sym", "rw", "augmented"),
}
REDUCTIONS = ("max", "mean", "sum")


class Graph(Edges):
    """A graph, or a batch of graphs, with weights `w_ij >= 0`.

    Duplicate edges are summed, edges of weight zero dropped, self-loops kept. Isolated nodes,
    several components and graphs without edges are legal. A graph never changes after it is
    built: methods return new graphs, which share what is already computed.

    Args:
        edge_index: integer `[2, edges]`; row 0 sends, row 1 receives. An undirected edge is
            listed both ways.
        num_nodes: number of nodes; by default what the other arguments show.
        edge_weight: conductances `[edges]`, 1 by default; constants, not parameters.
        batch: number of the graph each node belongs to, `[nodes]`, sorted, from 0, no gaps.
        node_weight: a measure M > 0 on the nodes `[nodes]` (masses, cell areas), which makes the
            generator of diffusion M^-1 L.
        pos: coordinates `[nodes, dims]`, for plots.

    Attributes:
        edge_index: int64 `[2, edges]`, coalesced, ordered by receiver, then by sender.
        edge_weight: float64 `[edges]`, in the order of `edge_index`, which is that of `pattern`.
        pattern: the entries of the adjacency matrix (row receives, column sends) in CSR order.
        num_nodes: number of nodes, over all graphs of a batch.
        num_graphs: number of graphs.
        batch: int64 `[nodes]`, or None for a single graph.
        node_weight: float64 `[nodes]` or None.
        pos: as given, or None.
        directed: whether some `w_ij` differs from `w_ji` by more than rounding.
        dtype: the dtype in which operators come; `like` and `to` change it.

    Raises:
        TypeError: an argument has the wrong dtype.
        ValueError: shapes, indices, weights or batch do not fit; the text says what to do.

    >>> Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    Graph(3 nodes, 2 undirected edges, 1 component)
    """

    edge_index: Int[Tensor, "2 edges"]
    edge_weight: Float[Tensor, " edges"]
    batch: Int[Tensor, " nodes"] | None
    node_weight: Float[Tensor, " nodes"] | None
    pos: Float[Tensor, "nodes dims"] | None

    # Plain `Tensor` here: a runtime type checker must not answer before our own messages do.
    def __init__(
        self,
        edge_index: Tensor,
        num_nodes: int | None = None,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        *,
        node_weight: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> None:
        edge_index = checked_edges(edge_index)
        weight, rounding = checked_weight(edge_weight, edge_index)
        known = next((len(v) for v in (batch, node_weight, pos) if v is not None), None)
        count = checked_count(edge_index, num_nodes, known)
        self.batch, self.num_graphs = checked_batch(batch, edge_index, count)
        self.node_weight = checked_measure(node_weight, count, weight)
        self.pos = checked_pos(pos, count, weight)
        self.dtype = torch.get_default_dtype()
        super().__init__(edge_index, weight, count, rounding)
        if self.directed and not self._has_reciprocal_pair():
            warnings.warn(
                f"none of the {self.num_edges} edges is listed both ways, so the graph is "
                'directed; if it is meant undirected, use graph.undirected(reduce="max")',
                stacklevel=2,
            )

    @classmethod
    def of(cls, graph: object, num_nodes: int | None = None) -> Graph:
        """Return `graph` as a Graph: a Graph itself, a torch_geometric `Data`, an `edge_index`.

        Args:
            graph: what stands for a graph.
            num_nodes: number of nodes where an `edge_index` alone cannot tell.

        Raises:
            TypeError: nothing known stands for a graph here.

        >>> Graph.of(torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
        Graph(3 nodes, 1 undirected edge, 2 components)
        """
        if isinstance(graph, Graph):
            return graph
        if isinstance(graph, Tensor):
            return cls(graph, num_nodes)
        return cls.from_pyg(graph)

    @classmethod
    def from_pyg(cls, data: object) -> Graph:
        """Return the graph of a torch_geometric `Data` or `Batch`.

        Reads `edge_index`, `num_nodes`, `edge_weight`, `batch`, `node_weight` and `pos`;
        `edge_attr` is not taken for weights.

        Raises:
            TypeError: there is no `edge_index` (heterogeneous data, `adj_t`).

        >>> from types import SimpleNamespace
        >>> Graph.from_pyg(SimpleNamespace(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=4))
        Graph(4 nodes, 1 undirected edge, 3 components)
        """
        edge_index = getattr(data, "edge_index", None)
        if not isinstance(edge_index, Tensor):
            raise TypeError(
                f"cannot read a graph from {type(data).__name__}: it has no edge_index tensor; "
                "pass a Graph, a homogeneous torch_geometric Data or Batch, or edge_index [2, "
                "edges]"
            )
        with warnings.catch_warnings():
            # torch_geometric warns when it counts nodes by the largest index, as we do.
            warnings.simplefilter("ignore")
            num_nodes = getattr(data, "num_nodes", None)
        return cls(
            edge_index,
            num_nodes,
            getattr(data, "edge_weight", None),
            getattr(data, "batch", None),
            node_weight=getattr(data, "node_weight", None),
            pos=getattr(data, "pos", None),
        )

    def to_pyg(self) -> Any:
        """Return a torch_geometric `Data` with the same edges; weights only where not all are 1.

        >>> Graph(torch.tensor([[0, 1], [1, 0]])).to_pyg()
        Data(edge_index=[2, 2], num_nodes=2)
        """
        from torch_geometric.data import Data

        data = Data(edge_index=self.edge_index, num_nodes=self.num_nodes)
        if bool((self.edge_weight != 1).any()):
            data.edge_weight = self.edge_weight.to(self.dtype)
        for name in ("batch", "node_weight", "pos"):
            if getattr(self, name) is not None:
                data[name] = getattr(self, name)
        return data

    @classmethod
    def union(cls, graphs: Sequence[Graph]) -> Graph:
        """Return the batch of `graphs`: their disjoint union, graph by graph.

        `pos` is kept where all graphs have it, in as many dimensions; a missing `node_weight`
        counts as 1.

        Raises:
            ValueError: the sequence is empty.

        >>> edge = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> Graph.union([edge, edge, edge])
        Graph(3 graphs, 6 nodes, 3 undirected edges, 3 components)
        """
        if not graphs:
            raise ValueError("union of no graphs; pass at least one")
        edges, batch, nodes, count = [], [], 0, 0
        for graph in graphs:
            edges.append(graph.edge_index + nodes)
            batch.append(graph._graph_of_node() + count)
            nodes, count = nodes + graph.num_nodes, count + graph.num_graphs
        positions = [graph.pos for graph in graphs if graph.pos is not None]
        dims = {pos.shape[1] for pos in positions}
        measured = any(graph.node_weight is not None for graph in graphs)
        union = cls(
            torch.cat(edges, dim=1),
            nodes,
            torch.cat([graph.edge_weight for graph in graphs]),
            torch.cat(batch),
            node_weight=torch.cat([graph._measure() for graph in graphs]) if measured else None,
            pos=torch.cat(positions) if len(positions) == len(graphs) and len(dims) == 1 else None,
        )
        return union.to(dtype=graphs[0].dtype)

    def _graph_of_node(self) -> Tensor:
        return self.edge_index.new_zeros(self.num_nodes) if self.batch is None else self.batch

    def _measure(self) -> Tensor:
        ones = self.edge_weight.new_ones(self.num_nodes)
        return ones if self.node_weight is None else self.node_weight

    def undirected(self, reduce: str = "max") -> Graph:
        """Return the graph with `w_ij = w_ji = reduce(w_ij, w_ji)`, 0 where an edge is missing.

        Self-loops keep their weights.

        Args:
            reduce: "max" (a pair listed both ways keeps weight 1), "mean" or "sum".

        Raises:
            ValueError: the reduction is unknown.

        >>> arc = Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
        >>> arc.directed, arc.undirected().edge_weight.tolist()
        (True, [1.0, 1.0, 1.0, 1.0])
        """
        if reduce not in REDUCTIONS:
            raise unknown_name("reduction", reduce, REDUCTIONS)
        if not self.directed and reduce != "sum":
            return self
        edge_index, weight = self._symmetrised(reduce)
        graph = Graph(
            edge_index,
            self.num_nodes,
            weight,
            self.batch,
            node_weight=self.node_weight,
            pos=self.pos,
        )
        return graph.to(dtype=self.dtype)

    def adjacency(
        self, norm: str = "none", self_loops: float = 0.0, *, dtype: torch.dtype | None = None
    ) -> SparseOperator:
        """Return the adjacency operator `(A x)_i = sum_j a_ij x_j`, i receives (cached).

        Args:
            norm: "none", "row", "col" or "sym"; normalised in float64, then cast.
            self_loops: weight added to every self-loop first.
            dtype: dtype of the operator; `graph.dtype` by default.

        >>> graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> graph.adjacency("row").to_dense().tolist()
        [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]
        """
        return self._made(adjacency, dtype, norm, float(self_loops))

    def laplacian(self, norm: str = "comb", *, dtype: torch.dtype | None = None) -> SparseOperator:
        """Return the Laplacian; self-loops do not enter, isolated nodes have zero rows (cached).

        With a `node_weight` M, "comb" is M^-1 L and the other norms are refused.

        Args:
            norm: "comb", "sym", "rw" or "augmented"; normalised in float64, then cast.
            dtype: dtype of the operator; `graph.dtype` by default.

        >>> Graph(torch.tensor([[0, 1], [1, 0]])).laplacian().to_dense().tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
        """
        return self._made(laplacian, dtype, norm)

    def _made(
        self, make: Maker, dtype: torch.dtype | None, norm: str, *loops: float
    ) -> SparseOperator:
        if norm not in NORMS[make.__name__]:
            raise unknown_name("norm", norm, NORMS[make.__name__])
        dtype = self.dtype if dtype is None else checked_dtype(dtype)
        key = (make.__name__, norm, *loops)
        master = self._kept(key, lambda: make(self, norm, *loops))
        return self._kept((*key, dtype), lambda: master.to(dtype=dtype))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Graph:
        """Return the graph on `device`, its operators in `dtype`; caches are shared.

        Args:
            device: where the tensors lie; the present one by default.
            dtype: dtype of a state; complex ones mean their real part's. Weights stay float64.

        Raises:
            TypeError: the dtype is neither floating nor complex.

        >>> edge = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> edge.to(dtype=torch.complex64).laplacian().dtype
        torch.float32
        """
        graph = self if device is None else self._on(torch.empty(0, device=device).device)
        other = object.__new__(Graph)
        other.__dict__.update(graph.__dict__)
        other.dtype = self.dtype if dtype is None else checked_dtype(dtype)
        return other

    def like(self, x: Tensor) -> Graph:
        """Return the graph on the device of the state `x`, its operators in the dtype of `x`.

        >>> edge, x = Graph(torch.tensor([[0, 1], [1, 0]])), torch.tensor([[3.0], [5.0]]).double()
        >>> (edge.like(x).laplacian() @ x).tolist()
        [[-2.0], [2.0]]
        """
        same = x.dtype is self.dtype and x.device == self.device
        return self if same else self.to(x.device, x.dtype)

    def _on(self, device: torch.device) -> Graph:
        if device == self.device:
            return self
        return self._kept(device, lambda: self._copied(device))

    def _copied(self, device: torch.device) -> Graph:
        other = object.__new__(Graph)
        other.__dict__.update(self.__dict__)
        for name in ("edge_index", "edge_weight", "batch", "node_weight", "pos", "pattern"):
            if getattr(self, name) is not None:
                setattr(other, name, getattr(self, name).to(device))
        other._cache = {self.device: self}
        return other

    def __repr__(self) -> str:
        kind = "directed" if self.directed else "undirected"
        parts = [
            _counted(self.num_graphs, "graph") if self.num_graphs > 1 else "",
            _counted(self.num_nodes, "node"),
            _counted(self.num_edges, f"{kind} edge"),
            _counted(self.num_self_loops, "self-loop") if self.num_self_loops else "",
            _counted(self.components[1], "component"),
        ]
        return f"Graph({', '.join(part for part in parts if part)})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
