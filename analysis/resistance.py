"""Effective resistance, commute time and Kirchhoff index: how far apart nodes are for a flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralpde.graph import Graph
from solvers.failure import unknown_name
from solvers.groups import Groups
from solvers.krylov import conjugate_gradients

SMALL = 3000
"""Nodes up to which the pseudo-inverse is formed."""

FEW = 64
"""Pairs up to which a larger graph gets one linear system for each."""

COLUMNS = 64
"""Right-hand sides that are solved for together."""

EXACT = 1e-10
METHODS = ("auto", "dense", "systems", "projection")


@dataclass(frozen=True)
class Resistances:
    """Effective resistances and how well they are known.

    Attributes:
        value: One number for each pair, float64; infinite between components.
        error: Relative root mean square error to expect; 0 where only rounding is left.
        method: "dense", "systems" or "projection", with what it took.

    >>> print(Resistances(torch.tensor([1.0, 0.5]), 0.1, "projection on 200 directions"))
    2 resistances, relative error 0.1 (projection on 200 directions)
    """

    value: Float[Tensor, " pairs"]
    error: float
    method: str

    def __str__(self) -> str:
        """Count, error, method."""
        error = f"relative error {self.error:.2g}" if self.error else "exact to rounding"
        return f"{self.value.numel()} resistances, {error} ({self.method})"


def effective_resistance(
    graph: Any,
    pairs: Int[Tensor, "2 pairs"] | None = None,
    *,
    method: str = "auto",
    error: float = 0.1,
    generator: torch.Generator | None = None,
) -> Resistances:
    """Effective resistances R_ij = (e_i - e_j)^T L^+ (e_i - e_j); edge weights are conductances.

    For edges, sum w_ij R_ij = nodes - components (Foster). R is a metric; R_ij is the integral over
    all times of K_t(i, i) + K_t(j, j) - 2 K_t(i, j), K the heat kernel.

    Args:
        graph: An undirected graph.
        pairs: Pairs of nodes `[2, pairs]`; by default the edges.
        method: "dense" (the pseudo-inverse, n^3), "systems" (conjugate gradients for each pair,
            to 1e-10), "projection" (a few random directions for all pairs, relative error `error`),
            or "auto": the first that is quick.
        error: Relative root mean square error of "projection"; it takes 2 / error^2 systems.
        generator: Of the random directions.

    Raises:
        ValueError: For a directed graph, an unknown method, an error outside (0, 1).
        ArithmeticError: When conjugate gradients do not converge.

    References:
        Spielman and Srivastava, SIAM J. Comput. 40 (2011), 1913, arXiv:0803.0929 (projections);
        Foster, 1949.

    >>> from neuralpde import catalogue
    >>> effective_resistance(catalogue.ring(4), torch.tensor([[0, 0], [1, 2]])).value.tolist()
    [0.75, 1.0]
    """
    where = _undirected(graph)
    i, j = where.edge_index if pairs is None else torch.as_tensor(pairs).to(where.device)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if not 0 < error < 1:
        raise ValueError(f"error is {error}; give a relative error between 0 and 1")
    if method == "auto":
        few = "systems" if len(i) <= FEW else "projection"
        method = "dense" if where.num_nodes <= SMALL else few
    if method == "dense":
        G = pseudo_inverse(where)
        value, left, how = G[i, i] + G[j, j] - 2 * G[i, j], 0.0, "dense"
    elif method == "systems":
        value, left, how = _by_systems(where, i, j), 0.0, f"systems, to {EXACT:g}"
    else:
        count = math.ceil(2 / error**2)
        value = _by_projection(where, i, j, count, error, generator)
        left, how = math.sqrt(2 / count), f"projection on {count} directions"
    labels = where.components[0]
    apart = torch.where(labels[i] == labels[j], value, torch.inf)
    return Resistances(torch.where(i == j, 0.0, apart), left, how)


def commute_time(
    graph: Any, pairs: Int[Tensor, "2 pairs"] | None = None, *, error: float = 0.1
) -> Float[Tensor, " pairs"]:
    """Expected steps of the random walk from i to j and back: vol R_ij, vol the sum of degrees.

    Arguments and errors are those of `effective_resistance`; the volume is that of the component.

    References:
        Chandra et al., The electrical resistance of a graph captures its commute and cover times,
        Comput. Complexity 6 (1996), 312.

    >>> from neuralpde import catalogue
    >>> round(commute_time(catalogue.path(3), torch.tensor([[0], [2]])).item(), 9)
    8.0
    """
    where = _undirected(graph)
    i = where.edge_index[0] if pairs is None else torch.as_tensor(pairs)[0]
    labels, count = where.components
    volume = where.degree.double().new_zeros(count).index_add(0, labels, where.degree.double())
    return volume[labels[i]] * effective_resistance(where, pairs, error=error).value


def kirchhoff_index(graph: Any) -> float:
    """The sum of effective resistances over all pairs of nodes, n tr L^+; infinite if disconnected.

    Raises:
        ValueError: For a directed graph, and beyond 3,000 nodes, where the pseudo-inverse is not
            formed: sample `effective_resistance` of random pairs instead.

    References:
        Klein and Randic, Resistance distance, J. Math. Chem. 12 (1993), 81.

    >>> from neuralpde import catalogue
    >>> round(kirchhoff_index(catalogue.complete(5)), 9)
    4.0
    """
    where = _undirected(graph)
    if where.num_nodes > SMALL:
        raise ValueError(
            f"the graph has {where.num_nodes} nodes, more than {SMALL}: take the mean of "
            "effective_resistance over random pairs, times n (n - 1) / 2"
        )
    if where.components[1] > 1:
        return math.inf
    return where.num_nodes * float(pseudo_inverse(where).diagonal().sum())


def pseudo_inverse(graph: Graph) -> Float[Tensor, "nodes nodes"]:
    """The pseudo-inverse of the combinatorial Laplacian, dense, by Cholesky's factorisation.

    L plus the projections onto the constants of each component is positive definite; its inverse is
    L^+ plus the same projections.

    >>> from neuralpde import catalogue
    >>> pseudo_inverse(catalogue.path(2)).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    L = graph.laplacian("comb", dtype=torch.float64).to_dense()
    labels, count = graph.components
    members = torch.nn.functional.one_hot(labels, count).double()
    # Of the size of the spectrum, so that the condition number is that of L.
    scale = float(L.diagonal().mean()) or 1.0
    P = members @ (members / members.sum(0)).T
    return torch.cholesky_inverse(torch.linalg.cholesky(L + scale * P)) - P / scale


def _undirected(graph: Any) -> Graph:
    where = Graph.of(graph)
    if where.directed:
        raise ValueError(
            "resistances are those of an undirected graph; use graph.undirected(reduce='max')"
        )
    return where


def _solve(graph: Graph, b: Tensor, tolerance: float) -> Tensor:
    """L^+ b for columns without a part in the kernel, a few at a time."""
    L = graph.laplacian("comb", dtype=torch.float64)
    scale = torch.where(L.diagonal() > 0, L.diagonal(), 1.0)[:, None]
    groups, found = Groups(separate=True), []
    for part in b.split(COLUMNS, 1):
        size = groups.rms(part).amin(1)
        solved = conjugate_gradients(
            lambda x: L @ x,
            part,
            tolerance * size,
            groups,
            preconditioner=scale,
            limit=10 * graph.num_nodes,
        )
        if not bool(solved.reached.all()):
            raise ArithmeticError(
                f"conjugate gradients stopped at a residual of {float(solved.residual):.2g} after "
                f"{solved.products} products; weights of the graph differ too much"
            )
        found.append(solved.x)
    return torch.cat(found, 1)


def _by_systems(graph: Graph, i: Tensor, j: Tensor) -> Tensor:
    labels = graph.components[0]
    joined = torch.nonzero((labels[i] == labels[j]) & (i != j)).flatten()
    value = torch.zeros(len(i), dtype=torch.float64, device=graph.device)
    if len(joined):
        column = torch.arange(len(joined), device=graph.device)
        b = value.new_zeros(graph.num_nodes, len(joined))
        b[i[joined], column], b[j[joined], column] = 1.0, -1.0
        x = _solve(graph, b, EXACT)
        value[joined] = x[i[joined], column] - x[j[joined], column]
    return value


def _by_projection(
    graph: Graph,
    i: Tensor,
    j: Tensor,
    count: int,
    error: float,
    generator: torch.Generator | None,
) -> Tensor:
    source, target = graph.edge_index
    once = source < target
    source, target, root = source[once], target[once], graph.edge_weight[once].sqrt()
    value = torch.zeros(len(i), dtype=torch.float64, device=graph.device)
    for start in range(0, count, COLUMNS):
        width = min(COLUMNS, count - start)
        signs = torch.randint(2, (len(root), width), generator=generator).to(root) * 2 - 1
        flow = root[:, None] * signs
        b = flow.new_zeros(graph.num_nodes, width)
        b = b.index_add(0, source, flow).index_add(0, target, flow, alpha=-1)
        # The error of a system counts squared, and must not show beside that of the projection.
        x = _solve(graph, b, 1e-2 * error)
        value += (x[i] - x[j]).square().sum(1)
    return value / count
