"""Graphs drawn at random or from points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from neuralpde.graph import Graph


def sbm(
    sizes: Sequence[int],
    probabilities: Sequence[Sequence[float]],
    *,
    generator: Generator | None = None,
) -> Graph:
    """Draw a stochastic block model: nodes of blocks a and b are joined with probability p_ab.

    Nodes come block by block, so the labels are
    `torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))`. Work grows with the number
    of edges drawn, not with that of pairs.

    Args:
        sizes: number of nodes in each block.
        probabilities: symmetric matrix of probabilities, one row for each block.
        generator: source of randomness; torch's global one by default.

    Raises:
        ValueError: the matrix has the wrong shape, is not symmetric, or leaves [0, 1].

    References:
        Holland, Laskey and Leinhardt, Social Networks 5 (1983) 109-137.

    >>> sbm([2, 3], [[1, 0], [0, 1]])
    Graph(5 nodes, 4 undirected edges, 2 components)
    """
    p = torch.as_tensor(probabilities, dtype=torch.float64)
    if p.shape != (len(sizes), len(sizes)) or not torch.equal(p, p.T):
        raise ValueError(
            f"probabilities must be a symmetric {len(sizes)} x {len(sizes)} matrix, one row for "
            f"each of the {len(sizes)} blocks, got shape {tuple(p.shape)}: {p.tolist()}"
        )
    if bool(((p < 0) | (p > 1)).any()) or bool(p.isnan().any()):
        raise ValueError(f"probabilities lie in [0, 1], got {p.tolist()}")
    start = [sum(sizes[:a]) for a in range(len(sizes))]
    first, second = [], []
    for a, size in enumerate(sizes):
        pair = _successes(size * (size - 1) // 2, float(p[a, a]), generator)
        # Pair q of the strict lower triangle lies in row i = floor((1 + sqrt(1 + 8 q)) / 2).
        row = ((1 + (1 + 8 * pair.double()).sqrt()) / 2).floor().long()
        row -= (row * (row - 1) // 2 > pair).long()
        row += (row * (row + 1) // 2 <= pair).long()
        first.append(start[a] + row)
        second.append(start[a] + pair - row * (row - 1) // 2)
        for b in range(a):
            pair = _successes(size * sizes[b], float(p[a, b]), generator)
            first.append(start[a] + pair // max(sizes[b], 1))
            second.append(start[b] + pair % max(sizes[b], 1))
    i, j = torch.cat(first), torch.cat(second)
    return Graph(torch.stack([torch.cat([i, j]), torch.cat([j, i])]), sum(sizes))


def knn(points: Float[Tensor, "nodes dims"], k: int) -> Graph:
    """Join each point with its k nearest ones; an edge stands if either end wants it.

    Args:
        points: coordinates; they become `pos`.
        k: number of neighbours, less than the number of points.

    Raises:
        ValueError: k does not fit, or a coordinate is not finite.

    >>> knn(torch.tensor([[0.0], [1.0], [3.0], [4.0]]), 1)
    Graph(4 nodes, 2 undirected edges, 2 components)
    """
    if points.dim() != 2 or not bool(torch.isfinite(points).all()):
        raise ValueError(f"points are finite coordinates [nodes, dims], got {tuple(points.shape)}")
    if not 1 <= k < len(points):
        raise ValueError(
            f"k lies between 1 and {len(points) - 1} for {len(points)} points, got {k}"
        )
    from scipy.spatial import cKDTree

    coordinates = points.detach().cpu().double().numpy()
    found = torch.from_numpy(cKDTree(coordinates).query(coordinates, k + 1)[1])
    node = torch.arange(len(points))[:, None]
    other = found != node
    # Where points coincide a point may miss itself among its k + 1 nearest: drop the farthest.
    other[other.all(dim=1), -1] = False
    arcs = torch.stack([found[other], node.expand_as(found)[other]])
    both = torch.cat([arcs, arcs.flip(0)], dim=1).unique(dim=1)
    return Graph(both.to(points.device), len(points), pos=points.detach())


def random_pairs(nodes: int, pairs: int, *, generator: Generator | None = None) -> Graph:
    """Join random pairs of nodes, drawn with replacement, as in an edge list of a given length.

    Pairs drawn twice have weight 2, a node drawn with itself gets a self-loop.

    Args:
        nodes: number of nodes.
        pairs: number of pairs drawn.
        generator: source of randomness.

    Raises:
        ValueError: there is no node, or the number of pairs is negative.

    >>> graph = random_pairs(50, 80, generator=torch.Generator().manual_seed(0))
    >>> graph.edge_weight.sum().item(), graph.directed
    (160.0, False)
    """
    if nodes < 1 or pairs < 0:
        raise ValueError(f"random_pairs({nodes}, {pairs}): at least one node, and pairs >= 0")
    ends = torch.randint(0, nodes, (2, pairs), generator=generator)
    return Graph(torch.cat([ends, ends.flip(0)], dim=1), nodes)


def _successes(trials: int, probability: float, generator: Generator | None) -> Tensor:
    """Return the positions of the successes among independent trials, by geometric gaps."""
    if probability == 0 or trials == 0:
        return torch.empty(0, dtype=torch.int64)
    if probability == 1:
        return torch.arange(trials)
    mean = trials * probability
    block = int(mean) + 1
    positions, last = [], -1.0
    while last < trials:
        gaps = torch.empty(block, dtype=torch.float64).geometric_(probability, generator=generator)
        positions.append(last + gaps.cumsum(0))
        last = float(positions[-1][-1])
    found = torch.cat(positions)
    return found[found < trials].long()
