"""Curvature of the matrix that propagates, weighted and directed, and its flow along a trajectory.

The name is that of "decurve flows". What stands here is our reconstruction of the curvature in
"continuous unified Ricci curvature" (arXiv:2402.08480) from its stated properties: it extends
Ollivier's to directed weighted graphs, is continuous in the weights and does not change when all
of them are scaled. The paper's own definition may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components, dijkstra
from torch import Tensor

from analysis.perron import perron_measure, walk
from analysis.transports import Move, transports
from neuralpde.graph import Graph
from solvers.trajectory import Trajectory

BLOCK = 64
"""Nodes that one task of an executor works on."""

TINY = 1e-150
"""Weights below it are none: their lengths would overflow."""


@dataclass(frozen=True)
class DecurveFlow:
    """Curvatures of a propagation matrix along time.

    Attributes:
        t: Times.
        curvature: One number for each time and pair of nodes; NaN where there is none.
        pairs: The pairs `[2, pairs]`, senders first.

    >>> flow = DecurveFlow(torch.zeros(1), torch.tensor([[0.2, 0.4, torch.nan]]), torch.ones(2, 3))
    >>> [part.tolist() for part in flow.histograms(2, (0.0, 1.0))]
    [[[1.0, 0.0]], [0.0, 0.5, 1.0]]
    """

    t: Float[Tensor, " times"]
    curvature: Float[Tensor, "times pairs"]
    pairs: Int[Tensor, "2 pairs"]

    def histograms(
        self, bins: int = 40, span: tuple[float, float] | None = None
    ) -> tuple[Float[Tensor, "times bins"], Float[Tensor, " edges"]]:
        """Shares of the pairs in bins that are the same at all times, and the edges of the bins.

        Args:
            bins: Number of bins.
            span: Their range; by default that of all values.
        """
        good = [row[row.isfinite()].numpy() for row in self.curvature.double()]
        every = np.concatenate(good)
        low, high = span or ((every.min(), every.max()) if len(every) else (-1.0, 1.0))
        edges = np.histogram_bin_edges(every, bins, (low, high))
        shares = [np.histogram(row, edges)[0] / max(len(row), 1) for row in good]
        return torch.from_numpy(np.array(shares)), torch.from_numpy(edges)

    def quantiles(self, *levels: float) -> Float[Tensor, "times levels"]:
        """Quantiles of the curvatures at each time, NaN left out."""
        wanted = torch.tensor(levels, dtype=torch.float64)
        return torch.nanquantile(self.curvature.double(), wanted, dim=1).T


def propagation_curvature(
    matrix: Any, pairs: Int[Tensor, "2 pairs"] | None = None, *, executor: Executor | None = None
) -> Float[Tensor, " pairs"]:
    """The curvature kappa(i, j) = 1 - W_1(K_i, K_j) / d(i, j) of pairs (j sends, i receives).

        P = W with rows divided by their sums       the walk from a receiver to its senders
        m P = m                                     its Perron measure, see `perron_measure`
        K = (P + P*) / 2,  P*_ij = m_j P_ji / m_i   the mean of the walk and its reversal
        d                                           shortest paths, of length 1 / W_ij along i, j

    W_1 is exact optimal transport of the row K_i to the row K_j with costs d. On undirected
    unweighted graphs it is Ollivier's curvature of idleness 0; it is the same for W and s W,
    continuous as an entry of W tends to 0, and not symmetric. Diagonal entries are mass that stays.

    A weakly connected component whose walk does not return everywhere has no Perron measure of its
    own; there the walk jumps with probability 0.05 for the measure, and rows of P* are divided by
    their sums. Curvatures are NaN where one part of the neighbourhoods cannot be reached from
    another.

    Args:
        matrix: W >= 0: an operator (attention, adjacency), or a graph.
        pairs: Pairs of nodes `[2, pairs]`; by default the entries of the matrix in order of rows,
            as in `edge_index`.
        executor: Runs blocks of nodes, e.g. a `ProcessPoolExecutor`; None for this process.

    Returns:
        One number for each pair, float64; NaN for a node and itself.

    Raises:
        ValueError: For negative entries and such that are not finite.

    References:
        A reconstruction, see above; Ollivier, J. Funct. Anal. 256 (2009), 810 (W_1); Chung, Ann.
        Comb. 9 (2005), 1 (the measure and the reversal).

    >>> from neuralpde import catalogue
    >>> propagation_curvature(catalogue.complete(5)).unique().tolist()
    [0.75]
    """
    W = _matrix(matrix)
    if pairs is None:
        rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
        i, j = rows, W.indices.astype(np.int64)
    else:
        j, i = torch.as_tensor(pairs).cpu().numpy()
    kernel = _kernel(W)
    lengths = csr_array((1 / W.data, W.indices, W.indptr), shape=W.shape)
    order = np.argsort(i, kind="stable")
    heads, starts = np.unique(i[order], return_index=True)
    ends = np.append(starts[1:], len(i))
    tasks = [
        (int(head), j[order[start:end]])
        for head, start, end in zip(heads, starts, ends, strict=True)
    ]
    blocks = [tasks[k : k + BLOCK] for k in range(0, len(tasks), BLOCK)]
    work = partial(_curvatures, kernel, lengths)
    found = list((map if executor is None else executor.map)(work, blocks))
    value = np.empty(len(i))
    value[order] = np.concatenate(found) if found else np.zeros(0)
    return torch.from_numpy(value)


def decurve_flow(
    trajectory: Trajectory,
    matrix: Callable[[Tensor], Any],
    pairs: Int[Tensor, "2 pairs"] | None = None,
    *,
    executor: Executor | None = None,
) -> DecurveFlow:
    """Curvature of the propagation matrix of each saved state.

    Args:
        trajectory: A solution of one graph.
        matrix: The matrix of a state: for a bound `GRAND(variant="nonlinear")` it is
            `lambda x: field.attention(field.pattern, x, weights=field.prior)`.
        pairs: See `propagation_curvature`; by default the entries of the first matrix.
        executor: See there.

    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Heat
    >>> ring = catalogue.ring(4)
    >>> traj = solve(Heat(), torch.rand(4, 1), [0.0, 1.0], ring)
    >>> decurve_flow(traj, lambda x: ring).curvature.shape
    torch.Size([2, 8])
    """
    states = trajectory.x[0] if isinstance(trajectory.x, tuple) else trajectory.x
    rows = []
    for x in states:
        with torch.no_grad():
            W = _matrix(matrix(x.detach()))
        if pairs is None:
            ends = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
            pairs = torch.from_numpy(np.stack([W.indices.astype(np.int64), ends]))
        rows.append(propagation_curvature(W, pairs, executor=executor))
    assert pairs is not None
    return DecurveFlow(trajectory.t.detach(), torch.stack(rows), pairs)


def _matrix(matrix: Any) -> csr_array:
    """W as a sparse array without zeros."""
    if not isinstance(matrix, csr_array):
        operator = matrix if hasattr(matrix, "to_scipy") else Graph.of(matrix).adjacency()
        matrix = csr_array(operator.to_scipy()).astype(np.float64)
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise ValueError("curvature is that of a matrix of finite weights that are not negative")
    W = matrix.copy()
    W.data[W.data < TINY * W.data.max(initial=0.0)] = 0.0
    W.eliminate_zeros()
    W.sort_indices()
    return W


def _kernel(W: csr_array) -> csr_array:
    """The mean of the walk and its reversal."""
    P = walk(W)
    m = perron_measure(P, connected_components(W, directed=False)[1])[0]
    reversal = diags_array(1 / m) @ P.T @ diags_array(m)
    return csr_array(walk(csr_array(P + walk(csr_array(reversal)))))


def _curvatures(
    kernel: csr_array, lengths: csr_array, tasks: list[tuple[int, np.ndarray]]
) -> np.ndarray:
    """All pairs of some receivers."""
    value, moves, at = np.empty(sum(len(senders) for _, senders in tasks)), [], []
    k = 0
    for i, senders in tasks:
        near = _support(kernel, i)
        # Distances from the support of a receiver serve all its senders.
        distance = dijkstra(lengths, indices=np.append(near, i))
        for j in senders.tolist():
            move = _move(kernel, near, distance, i, j)
            if isinstance(move, Move):
                moves.append(move)
                at.append(k)
            else:
                value[k] = move
            k += 1
    value[at] = 1 - transports(moves)
    return value


def _move(
    kernel: csr_array, near: np.ndarray, distance: np.ndarray, i: int, j: int
) -> Move | float:
    """What is to be moved from row i to row j, or the curvature where that is known."""
    apart = distance[-1, j]
    if i == j or not np.isfinite(apart):
        return np.nan
    other = _support(kernel, j)
    nodes = np.union1d(near, other)
    moved = np.zeros(len(nodes))
    moved[np.searchsorted(nodes, near)] += _masses(kernel, i)
    moved[np.searchsorted(nodes, other)] -= _masses(kernel, j)
    # Mass that both have in common stays where it is, by the triangle inequality.
    moved[np.abs(moved) < 1e-13] = 0.0
    gives, takes = np.flatnonzero(moved > 0), np.flatnonzero(moved < 0)
    if not len(gives) or not len(takes):
        return 1.0
    rows = np.searchsorted(near, nodes[gives])
    cost = distance[np.ix_(rows, nodes[takes])] / apart
    return Move(moved[gives], -moved[takes], cost) if np.isfinite(cost).all() else np.nan


def _support(kernel: csr_array, i: int) -> np.ndarray:
    found: np.ndarray = kernel.indices[kernel.indptr[i] : kernel.indptr[i + 1]]
    return found


def _masses(kernel: csr_array, i: int) -> np.ndarray:
    found: np.ndarray = kernel.data[kernel.indptr[i] : kernel.indptr[i + 1]]
    return found
