"""Deterministic families of undirected graphs with unit weights, each with coordinates to plot."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuralpde.graph import Graph


def path(nodes: int) -> Graph:
    """Return the path 0 - 1 - ... - nodes-1.

    Raises:
        ValueError: there is no node.

    >>> path(4)
    Graph(4 nodes, 3 undirected edges, 1 component)
    """
    _require("path", nodes=(nodes, 1))
    node = torch.arange(nodes)
    return _joined(node[:-1], node[1:], torch.stack([node, 0 * node], dim=1))


def ring(nodes: int) -> Graph:
    """Return the cycle on `nodes` nodes.

    Raises:
        ValueError: there are fewer than 3 nodes.

    >>> ring(4)
    Graph(4 nodes, 4 undirected edges, 1 component)
    """
    _require("ring", nodes=(nodes, 3))
    node = torch.arange(nodes)
    return _joined(node, (node + 1) % nodes, _circle(nodes))


def grid(rows: int, columns: int) -> Graph:
    """Return the rectangular grid, path times path; node `r * columns + c` is at row r, column c.

    Raises:
        ValueError: a side is empty.

    >>> grid(2, 3)
    Graph(6 nodes, 7 undirected edges, 1 component)
    """
    _require("grid", rows=(rows, 1), columns=(columns, 1))
    node = torch.arange(rows * columns).view(rows, columns)
    first = torch.cat([node[:, :-1].flatten(), node[:-1].flatten()])
    second = torch.cat([node[:, 1:].flatten(), node[1:].flatten()])
    row, column = node.flatten() // columns, node.flatten() % columns
    return _joined(first, second, torch.stack([column, -row], dim=1))


def torus(rows: int, columns: int) -> Graph:
    """Return the periodic grid, ring times ring; every node has degree 4; `pos` is 3-D.

    Raises:
        ValueError: a side is shorter than 3.

    >>> torus(3, 4)
    Graph(12 nodes, 24 undirected edges, 1 component)
    """
    _require("torus", rows=(rows, 3), columns=(columns, 3))
    node = torch.arange(rows * columns).view(rows, columns)
    first = torch.cat([node.flatten(), node.flatten()])
    second = torch.cat([node.roll(-1, 1).flatten(), node.roll(-1, 0).flatten()])
    around = _circle(rows).repeat_interleave(columns, dim=0)
    tube = _circle(columns).repeat(rows, 1)
    pos = torch.cat([around * (2 + tube[:, :1]), tube[:, 1:]], dim=1)
    return _joined(first, second, pos)


def complete(nodes: int) -> Graph:
    """Return the complete graph.

    Raises:
        ValueError: there is no node.

    >>> complete(4)
    Graph(4 nodes, 6 undirected edges, 1 component)
    """
    _require("complete", nodes=(nodes, 1))
    first, second = torch.triu_indices(nodes, nodes, offset=1)
    return _joined(first, second, _circle(nodes))


def star(nodes: int) -> Graph:
    """Return the star: hub 0 joined to nodes-1 leaves.

    Raises:
        ValueError: there are fewer than 2 nodes.

    >>> star(5)
    Graph(5 nodes, 4 undirected edges, 1 component)
    """
    _require("star", nodes=(nodes, 2))
    leaves = torch.arange(1, nodes)
    pos = torch.cat([torch.zeros(1, 2, dtype=torch.float64), _circle(nodes - 1)])
    return _joined(0 * leaves, leaves, pos)


def bipartite(left: int, right: int) -> Graph:
    """Return the complete bipartite graph; the left nodes come first.

    Raises:
        ValueError: a side is empty.

    >>> bipartite(2, 3)
    Graph(5 nodes, 6 undirected edges, 1 component)
    """
    _require("bipartite", left=(left, 1), right=(right, 1))
    pair = torch.cartesian_prod(torch.arange(left), left + torch.arange(right))
    side = torch.arange(left + right) >= left
    height = torch.cat([torch.arange(n) - (n - 1) / 2 for n in (left, right)])
    return _joined(pair[:, 0], pair[:, 1], torch.stack([side * max(left, right), height], dim=1))


def hypercube(dimension: int) -> Graph:
    """Return the hypercube: nodes are bit patterns, edges flip one bit.

    Raises:
        ValueError: the dimension is below 1.

    >>> hypercube(3)
    Graph(8 nodes, 12 undirected edges, 1 component)
    """
    _require("hypercube", dimension=(dimension, 1))
    node, bit = torch.arange(2**dimension), 2 ** torch.arange(dimension)
    off = (node[:, None] & bit) == 0
    first = node[:, None].expand_as(off)[off]
    second = (node[:, None] | bit)[off]
    directions = _circle(2 * dimension)[:dimension]
    return _joined(first, second, (~off).double() @ directions)


def barbell(clique: int, bridge: int = 0) -> Graph:
    """Return two complete graphs joined by a path with `bridge` inner nodes.

    Nodes: first clique, bridge, second clique; the path leaves the last node of the first clique
    and enters the first node of the second.

    Raises:
        ValueError: a clique has fewer than 2 nodes, or the bridge a negative number.

    >>> barbell(3, 1)
    Graph(7 nodes, 8 undirected edges, 1 component)
    """
    _require("barbell", clique=(clique, 2), bridge=(bridge, 0))
    first, second = torch.triu_indices(clique, clique, offset=1)
    chain = clique - 1 + torch.arange(bridge + 2)
    first = torch.cat([first, chain[:-1], first + clique + bridge])
    second = torch.cat([second, chain[1:], second + clique + bridge])
    left, middle = _clique_and_tail(clique, bridge)
    reach = middle[-1, 0] if bridge else left[-1, 0]
    right = left.flip(0) * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    right[:, 0] += reach + 1 - right[0, 0]
    return _joined(first, second, torch.cat([left, middle, right]))


def lollipop(clique: int, tail: int) -> Graph:
    """Return a complete graph with a path of `tail` nodes hanging from its last node.

    Raises:
        ValueError: the clique has fewer than 2 nodes, or the tail a negative number.

    >>> lollipop(3, 2)
    Graph(5 nodes, 5 undirected edges, 1 component)
    """
    _require("lollipop", clique=(clique, 2), tail=(tail, 0))
    first, second = torch.triu_indices(clique, clique, offset=1)
    chain = clique - 1 + torch.arange(tail + 1)
    pos = torch.cat(_clique_and_tail(clique, tail))
    return _joined(torch.cat([first, chain[:-1]]), torch.cat([second, chain[1:]]), pos)


def tree(depth: int, branching: int = 2) -> Graph:
    """Return the balanced tree; root 0, children of node i are `branching * i + 1` and following.

    Raises:
        ValueError: the depth is negative, or nothing branches.

    >>> tree(2)
    Graph(7 nodes, 6 undirected edges, 1 component)
    """
    _require("tree", depth=(depth, 0), branching=(branching, 1))
    levels = [branching**level for level in range(depth + 1)]
    child = torch.arange(1, sum(levels))
    across = torch.cat([(torch.arange(n) + 0.5) * levels[-1] / n for n in levels])
    down = torch.arange(depth + 1).repeat_interleave(torch.tensor(levels))
    return _joined((child - 1) // branching, child, torch.stack([across, -down], dim=1))


def _joined(first: Tensor, second: Tensor, pos: Tensor) -> Graph:
    edge_index = torch.stack([torch.cat([first, second]), torch.cat([second, first])])
    return Graph(edge_index, len(pos), pos=pos.to(torch.float64))


def _circle(nodes: int) -> Tensor:
    angle = torch.arange(nodes, dtype=torch.float64) * (2 * math.pi / nodes)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def _clique_and_tail(clique: int, tail: int) -> tuple[Tensor, Tensor]:
    """Place a clique on a circle whose last node touches the tail that runs to the right."""
    radius = max(1.0, clique / 6)
    along = radius + 1 + torch.arange(tail, dtype=torch.float64)
    return radius * _circle(clique).roll(-1, 0), torch.stack([along, 0 * along], dim=1)


def _require(family: str, **sizes: tuple[int, int]) -> None:
    for name, (given, least) in sizes.items():
        if given < least:
            raise ValueError(f"{family} needs {name} >= {least}, got {given}")
