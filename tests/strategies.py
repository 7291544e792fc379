"""Hypothesis strategies: edge lists, graphs, batches and states."""

import warnings

import torch
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.graph import Graph

# Exact in float32 and in sums of a few, so that equality may be asked for.
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 8.0)


def quietly(*arguments: object, **options: object) -> Graph:
    """A graph that may be listed one way, without the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Graph(*arguments, **options)


@st.composite
def edge_lists(
    draw: st.DrawFn, min_nodes: int = 1, max_nodes: int = 9, max_edges: int = 24
) -> tuple[int, Tensor, Tensor]:
    """Number of nodes, arcs `[2, edges]` with repetitions and loops, weights (some zero)."""
    nodes = draw(st.integers(min_nodes, max_nodes))
    index = st.integers(0, nodes - 1)
    arcs = draw(st.lists(st.tuples(index, index, st.sampled_from(WEIGHTS)), max_size=max_edges))
    edge_index = torch.tensor([arc[:2] for arc in arcs], dtype=torch.int64).view(-1, 2).T
    return nodes, edge_index, torch.tensor([arc[2] for arc in arcs], dtype=torch.float64)


@st.composite
def graphs(
    draw: st.DrawFn,
    min_nodes: int = 1,
    max_nodes: int = 9,
    *,
    directed: bool = False,
    weighted: bool = True,
    loops: bool = True,
    connected: bool = False,
) -> Graph:
    """Graphs; undirected unless `directed` (which may still come out undirected)."""
    nodes, edge_index, weight = draw(edge_lists(min_nodes, max_nodes))
    if connected:
        parents = [draw(st.integers(0, child - 1)) for child in range(1, nodes)]
        branches = torch.tensor([parents, list(range(1, nodes))], dtype=torch.int64).view(2, -1)
        edge_index = torch.cat([edge_index, branches], dim=1)
        weight = torch.cat([weight, torch.ones(nodes - 1, dtype=torch.float64)])
    if not loops:
        keep = edge_index[0] != edge_index[1]
        edge_index, weight = edge_index[:, keep], weight[keep]
    if not directed or connected:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        weight = weight.repeat(2)
    if directed and connected:
        forward = torch.arange(len(weight)) < len(weight) // 2
        weight = torch.where(forward, weight, 2 * weight)
    if not weighted:
        edge_index, weight = edge_index.unique(dim=1), None
    return quietly(edge_index, nodes, weight)


def batches(max_graphs: int = 4, max_nodes: int = 6) -> st.SearchStrategy[Graph]:
    """Batches of one to `max_graphs` undirected graphs."""
    return st.lists(graphs(max_nodes=max_nodes), min_size=1, max_size=max_graphs).map(Graph.union)


def states(
    graph: Graph, channels: int = 3, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Tensor]:
    """Normal states `[nodes, channels]`."""

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(graph.num_nodes, channels, dtype=dtype, generator=generator)

    return st.integers(0, 2**16).map(draw)


def dense(graph: Graph) -> Tensor:
    """Adjacency matrix, row receives, built entry by entry."""
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for (source, target), weight in zip(
        graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True
    ):
        matrix[target, source] += weight
    return matrix
