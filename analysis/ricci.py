"""Ollivier's curvature of edges by optimal transport between the neighbourhoods of their ends."""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import csr_array, eye_array, hstack, kron, vstack
from torch import Tensor

from analysis.curvature import Neighbours

FINEST, MOST = 12, 128
"""Parts of the smallest mass that are tried as the unit, and units that an assignment may have."""

BLOCK = 256
"""Edges that one task of an executor works on."""


def ollivier(
    graph: Any,
    edges: Int[Tensor, "2 edges"] | None = None,
    *,
    idleness: float = 0.5,
    executor: Executor | None = None,
) -> Float[Tensor, " edges"]:
    """The Ollivier-Ricci curvature of edges, 1 - W_1(m_i, m_j).

    The measure m_i leaves the mass a at i and spreads 1 - a evenly over its neighbours. W_1 is the
    cost of optimal transport along shortest paths, exact: an assignment where the masses are
    multiples of one unit, else a linear program. Both supports are at most three steps apart, so
    only neighbourhoods are looked at. Weights and self-loops play no part.

    Args:
        graph: An undirected graph.
        edges: Pairs of neighbours `[2, edges]`; by default `graph.edge_index`.
        idleness: a, the mass that stays, in [0, 1).
        executor: Runs blocks of edges, e.g. a `ProcessPoolExecutor`; None for this process.

    Returns:
        One number for each edge, float64; NaN for self-loops.

    Raises:
        ValueError: For a directed graph, pairs that are no edges, an idleness outside [0, 1).

    References:
        Ollivier, J. Funct. Anal. 256 (2009), 810; Lin, Lu and Yau, Tohoku Math. J. 63 (2011), 605.

    >>> from neuralpde import catalogue
    >>> ollivier(catalogue.complete(5), idleness=0.0).unique().tolist()
    [0.75]
    """
    if not 0 <= idleness < 1:
        raise ValueError(f"idleness is {idleness}; give a mass of at least 0 and below 1")
    return _by_pairs(graph, edges, executor, idleness)


def lin_lu_yau(
    graph: Any, edges: Int[Tensor, "2 edges"] | None = None, *, executor: Executor | None = None
) -> Float[Tensor, " edges"]:
    """The curvature of Lin, Lu and Yau: the limit of kappa_a / (1 - a) for idleness a to 1.

    The limit is attained at a = 1 / (1 + max(d_i, d_j)), where it is computed. Arguments and errors
    are those of `ollivier`.

    References:
        Lin, Lu and Yau, Tohoku Math. J. 63 (2011), 605; Bourne et al., SIAM J. Discrete Math. 32
        (2018), 1408, theorem 1.1 (kappa is linear from there on).

    >>> from neuralpde import catalogue
    >>> [round(value, 12) for value in lin_lu_yau(catalogue.hypercube(4)).unique().tolist()]
    [0.5]
    """
    return _by_pairs(graph, edges, executor, None)


def _by_pairs(
    graph: Any, edges: Tensor | None, executor: Executor | None, idleness: float | None
) -> Tensor:
    """Each pair once, whichever way it is listed."""
    plain = Neighbours(graph)
    i, j = plain.ends(edges)
    pairs = np.sort(np.stack([i, j], 1), axis=1)
    once, back = np.unique(pairs, axis=0, return_inverse=True)
    blocks = [once[k : k + BLOCK] for k in range(0, len(once), BLOCK)]
    work = partial(_curvatures, plain.A, idleness=idleness)
    found = list((map if executor is None else executor.map)(work, blocks))
    values = np.concatenate(found) if found else np.zeros(0)
    return plain.told(values[back.ravel()], i, j)


def _curvatures(A: csr_array, pairs: np.ndarray, idleness: float | None) -> np.ndarray:
    return np.array([_curvature(A, int(i), int(j), idleness) for i, j in pairs])


def _curvature(A: csr_array, i: int, j: int, idleness: float | None) -> float:
    if i == j:
        return np.nan
    near_i, near_j = _row(A, i), _row(A, j)
    stays = 1 / (1 + max(len(near_i), len(near_j))) if idleness is None else idleness
    nodes = np.unique(np.concatenate([near_i, near_j]))
    moved = np.zeros(len(nodes))
    moved[np.searchsorted(nodes, near_i)] += (1 - stays) / len(near_i)
    moved[np.searchsorted(nodes, near_j)] -= (1 - stays) / len(near_j)
    moved[np.searchsorted(nodes, i)] += stays
    moved[np.searchsorted(nodes, j)] -= stays
    # Mass that both have in common stays where it is, by the triangle inequality.
    moved[np.abs(moved) < 1e-13] = 0.0
    gives, takes = nodes[moved > 0], nodes[moved < 0]
    if not len(gives):
        cost = 0.0
    else:
        cost = transport(moved[moved > 0], -moved[moved < 0], _steps(A, gives, takes))
    return (1 - cost) / (1 - stays) if idleness is None else 1 - cost


def _row(A: csr_array, i: int) -> np.ndarray:
    found: np.ndarray = A.indices[A.indptr[i] : A.indptr[i + 1]]
    return found


def _steps(A: csr_array, gives: np.ndarray, takes: np.ndarray) -> np.ndarray:
    """Distances between two sets without a node in common, at most three steps apart."""
    to, back = A[gives], A[takes]
    steps = np.full((len(gives), len(takes)), 3.0)
    steps[(to @ back.T).toarray() > 0] = 2.0
    steps[to[:, takes].toarray() > 0] = 1.0
    return steps


def transport(
    supply: Float[np.ndarray, " sources"],
    demand: Float[np.ndarray, " sinks"],
    cost: Float[np.ndarray, "sources sinks"],
) -> float:
    """The least cost of moving the supply to the demand; both have the same total.

    >>> transport(np.array([0.5, 0.5]), np.array([1.0]), np.array([[1.0], [3.0]]))
    2.0
    """
    count, other = cost.shape
    if count == 1 or other == 1:
        return float(supply @ cost @ demand / max(supply.sum(), demand.sum()))
    unit = min(supply.min(), demand.min())
    for parts in range(1, FINEST + 1):
        sent, taken = supply * parts / unit, demand * parts / unit
        whole = np.rint(sent), np.rint(taken)
        if whole[0].sum() > MOST:
            break
        if max(np.abs(sent - whole[0]).max(), np.abs(taken - whole[1]).max()) < 1e-9 * parts:
            copies = [part.astype(np.int64) for part in whole]
            spread = cost.repeat(copies[0], 0).repeat(copies[1], 1)
            rows, columns = linear_sum_assignment(spread)
            return float(unit / parts * spread[rows, columns].sum())
    # The last equation follows from the others.
    leave = kron(eye_array(count), np.ones((1, other)), format="csr")
    arrive = hstack([eye_array(other)] * count, format="csr")[:-1]
    found = linprog(
        cost.ravel(),
        A_eq=vstack([leave, arrive]),
        b_eq=np.concatenate([supply, demand[:-1] * (supply.sum() / demand.sum())]),
        method="highs",
    )
    if found.status != 0:
        raise ArithmeticError(f"optimal transport failed: {found.message}")
    return float(found.fun)
