"""The stationary measure of a random walk on a directed graph."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

TELEPORT = 0.95
"""Probability of a step along an edge where the walk must jump now and then; networkx's default."""


def walk(weights: csr_array) -> csr_array:
    """Rows divided by their sums: the walk; rows without entries stay empty.

    >>> walk(csr_array(np.array([[1.0, 3.0], [0.0, 0.0]]))).toarray().tolist()
    [[0.25, 0.75], [0.0, 0.0]]
    """
    sums = np.asarray(weights.sum(axis=1)).ravel()
    share = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    return csr_array(
        (weights.data * np.repeat(share, np.diff(weights.indptr)), weights.indices, weights.indptr),
        shape=weights.shape,
    )


def perron_measure(
    P: csr_array, groups: Int[np.ndarray, " nodes"]
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """The measure m P = m, of mass 1 in each group of nodes, by a sparse factorisation.

    A group that is not strongly connected has no such measure, or many: its walk takes an edge with
    probability 0.95 and else jumps to any node of the group, and it jumps from nodes without edges.

    Args:
        P: A walk, see `walk`; no edge leaves its group.
        groups: Number of the group of each node, from 0.

    Returns:
        m, and the probability of a jump from each node: 0 in strongly connected groups.

    References:
        Chung, Laplacians and the Cheeger inequality for directed graphs, Ann. Comb. 9 (2005), 1.

    >>> ring = csr_array(np.roll(np.eye(4), 1, axis=1))
    >>> [part.tolist() for part in perron_measure(ring, np.zeros(4, dtype=int))]
    [[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    parts = connected_components(P, directed=True, connection="strong")[1]
    # Numbers of the strong components: a group of one of them is irreducible.
    pairs = np.unique(np.stack([groups, parts]), axis=1)[0]
    whole = (np.bincount(pairs, minlength=count) == 1)[groups]
    sinks = np.diff(P.indptr) == 0
    # One node alone is at rest, with an edge to itself or without.
    alone = (np.bincount(groups, minlength=count) == 1)[groups]
    jumps = np.where(whole, 0.0, np.where(sinks, 1.0, 1 - TELEPORT))
    # In irreducible groups m is 1 at the first node; elsewhere (I - a P^T) m is constant.
    roots = np.zeros(len(groups), dtype=bool)
    roots[np.unique(groups, return_index=True)[1]] = True
    roots &= whole
    stays = np.where(whole, 1.0, TELEPORT)
    A = eye_array(len(groups), format="csr") - csr_array(P.T) * stays
    free = np.flatnonzero(~roots)
    m = np.ones(len(groups))
    if len(free):
        right = np.where(whole, 0.0, 1.0)[free] - np.asarray(A[free] @ roots).ravel()
        m[free] = splu(A[free][:, free].tocsc()).solve(right)
    mass = np.bincount(groups, m, minlength=count)
    return m / mass[groups], np.where(alone, 0.0, jumps)
