"""Curvature of edges by counting: Forman's, with triangles, and balanced Forman."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from neuralpde.graph import Graph

CHUNK = 4_000_000
"""Entries that the counts of one chunk of edges may have: about 100 MB."""

Edges = Int[Tensor, "2 edges"]


def forman(
    graph: Any, edges: Edges | None = None, *, triangles: bool = False
) -> Float[Tensor, " edges"]:
    """Forman's curvature of edges, 4 - d_i - d_j, or 4 - d_i - d_j + 3 T with triangles filled in.

    d are numbers of neighbours, T is the number of triangles at the edge. Weights and self-loops
    play no part.

    Args:
        graph: An undirected graph.
        edges: Pairs of neighbours `[2, edges]`; by default `graph.edge_index`.
        triangles: Whether triangles are faces.

    Returns:
        One number for each edge, float64; NaN for self-loops.

    Raises:
        ValueError: For a directed graph, and pairs that are no edges.

    References:
        Forman, Discrete Comput. Geom. 29 (2003), 323; Samal et al., Sci. Rep. 8 (2018), 8650.

    >>> from neuralpde import catalogue
    >>> forman(catalogue.ring(4)).unique().tolist()
    [0.0]
    """
    plain = Neighbours(graph)
    i, j = plain.ends(edges)
    value = 4.0 - plain.degree[i] - plain.degree[j]
    if triangles:
        for part in plain.chunks(i, j):
            value[part] += 3.0 * plain.common(i[part], j[part])
    return plain.told(value, i, j)


def balanced_forman(graph: Any, edges: Edges | None = None) -> Float[Tensor, " edges"]:
    """Balanced Forman curvature of edges, by its definition.

    With S_i the neighbours of i, d_i their number, T the triangles at the edge, M and m the larger
    and the smaller degree, it is 0 if m = 1, else

        2/d_i + 2/d_j - 2 + 2 T/M + T/m + (Q_i + Q_j) / (g M)

    Q_i counts the k in S_i, not j and not in S_j, from which some w in S_j leads back that is
    neither i nor in S_i: the squares without diagonals. g is the largest number of such w of any
    k on either side; without squares the last term is left out. It lies above -2 and at most at the
    curvature of Lin, Lu and Yau. Weights and self-loops play no part.

    Public code of the paper differs: on the CPU it leaves rows at their first non-neighbour, so
    that nearly all entries are 0; on the GPU it counts k = i and k = j and squares with diagonals.

    Args:
        graph: An undirected graph.
        edges: Pairs of neighbours `[2, edges]`; by default `graph.edge_index`. A sample of 1e4
            edges makes a histogram of a large graph.

    Returns:
        One number for each edge, float64; NaN for self-loops.

    Raises:
        ValueError: For a directed graph, and pairs that are no edges.

    References:
        Topping et al., Understanding over-squashing and bottlenecks on graphs via curvature, ICLR
        2022, arXiv:2111.14522, definition 1.

    >>> from neuralpde import catalogue
    >>> balanced_forman(catalogue.ring(4)).unique().tolist()
    [1.0]
    """
    plain = Neighbours(graph)
    i, j = plain.ends(edges)
    value = np.zeros(len(i))
    for part in plain.chunks(i, j):
        value[part] = plain.balanced(i[part], j[part])
    return plain.told(value, i, j)


class Neighbours:
    """Who is next to whom, each pair once both ways, without loops; rows as sparse 0/1 vectors.

    >>> from neuralpde import catalogue
    >>> plain = Neighbours(catalogue.ring(3))
    >>> plain.degree.tolist(), plain.common(np.array([0]), np.array([1])).tolist()
    ([2.0, 2.0, 2.0], [1.0])
    """

    def __init__(self, graph: Any) -> None:
        self.graph = Graph.of(graph)
        if self.graph.directed:
            raise ValueError(
                "curvature is that of an undirected graph; use graph.undirected(reduce='max')"
            )
        source, target = self.graph.edge_index.cpu().numpy()
        keep = source != target
        shape = (self.graph.num_nodes, self.graph.num_nodes)
        ones = np.ones(int(keep.sum()))
        self.A = csr_array((ones, (target[keep], source[keep])), shape=shape)
        self.degree = np.diff(self.A.indptr).astype(np.float64)

    def ends(self, edges: Edges | None) -> tuple[np.ndarray, np.ndarray]:
        """The two ends of each edge, checked."""
        given = self.graph.edge_index if edges is None else torch.as_tensor(edges)
        i, j = given.cpu().numpy()
        if edges is not None:
            there = np.asarray(self.A[i, j]).ravel() > 0
            if not there.all():
                k = int(np.flatnonzero(~there)[0])
                raise ValueError(f"nodes {i[k]} and {j[k]} (pair {k}) are not joined by an edge")
        return i, j

    def told(self, value: np.ndarray, i: np.ndarray, j: np.ndarray) -> Tensor:
        """The values as a tensor; loops have none."""
        return torch.from_numpy(np.where(i == j, np.nan, value))

    def chunks(self, i: np.ndarray, j: np.ndarray) -> Iterator[slice]:
        """Runs of edges whose two-step neighbourhoods fit into memory together."""
        around = self.A @ self.degree
        work = np.cumsum(around[i] + around[j])
        start = 0
        while start < len(i):
            before = work[start - 1] if start else 0.0
            stop = max(start + 1, int(np.searchsorted(work, before + CHUNK, side="right")))
            yield slice(start, stop)
            start = stop

    def common(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Number of common neighbours of each pair: the triangles at it."""
        counts: np.ndarray = (self.A[i] * self.A[j]).sum(axis=1)
        return counts

    def balanced(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Balanced Forman curvature of a few edges."""
        rows = np.arange(len(i))
        shape = (len(i), self.A.shape[0])
        near_i, near_j = self.A[i], self.A[j]
        both = near_i * near_j
        triangles = both.sum(axis=1)
        ones = np.ones(len(i))
        # S_i without S_j and j, and S_j without S_i and i; a loop is in neither.
        only_i = near_i - both - near_i * csr_array((ones, (rows, j)), shape=shape)
        only_j = near_j - both - near_j * csr_array((ones, (rows, i)), shape=shape)
        from_i, from_j = (only_j @ self.A) * only_i, (only_i @ self.A) * only_j
        squares = (from_i > 0).sum(axis=1) + (from_j > 0).sum(axis=1)
        most = np.maximum(_largest(from_i), _largest(from_j))
        large = np.maximum(self.degree[i], self.degree[j])
        small = np.minimum(self.degree[i], self.degree[j])
        with np.errstate(divide="ignore", invalid="ignore"):
            value = 2 / self.degree[i] + 2 / self.degree[j] - 2
            value += 2 * triangles / large + triangles / small
            value += np.where(most > 0, squares / (most * large), 0.0)
        found: np.ndarray = np.where(small > 1, value, 0.0)
        return found


def _largest(counts: csr_array) -> np.ndarray:
    """The largest entry of each row, 0 for empty ones."""
    found: np.ndarray = counts.max(axis=1).toarray().ravel()
    return found
