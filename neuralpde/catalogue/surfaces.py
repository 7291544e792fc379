"""Triangulated surfaces as weighted graphs: cotangent conductances, areas on the nodes.

With `w_ij = (cot a_ij + cot b_ij) / 2`, where a_ij and b_ij are the angles opposite to the edge,
and a third of the triangles around a node as its area M_i, the generator `-M^-1 L` tends to the
Laplace-Beltrami operator; its eigenvalues converge with the square of the edge length.

References:
    Pinkall and Polthier, Experimental Mathematics 2 (1993) 15-36; Dziuk, Finite elements for the
    Beltrami operator, LNM 1357 (1988) 142-155.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuralpde.graph import Graph

# An obtuse pair of angles would make a conductance negative and the maximum principle fail;
# below this fraction of the largest one it is rounding of a zero.
ROUNDING = 1e-12


def sphere(subdivisions: int = 3, radius: float = 1.0) -> Graph:
    """Return the icosphere: `10 * 4**subdivisions + 2` nodes on the sphere around the origin.

    All its triangles are acute, so that every conductance is positive. The Laplace-Beltrami
    operator has the eigenvalues `-l (l + 1) / radius**2`, each 2 l + 1 times.

    Args:
        subdivisions: how often each triangle of the icosahedron is cut into four.
        radius: of the sphere.

    Raises:
        ValueError: the number is negative, or the radius not positive.

    >>> sphere(1)
    Graph(42 nodes, 120 undirected edges, 1 component)
    """
    if subdivisions < 0 or not radius > 0:
        raise ValueError(
            f"sphere needs subdivisions >= 0 and radius > 0, got {subdivisions} and {radius}"
        )
    points, triangles = _icosahedron()
    for _ in range(subdivisions):
        points, triangles = _subdivided(points, triangles)
    return _surface(radius * points, triangles)


def torus_surface(rows: int, columns: int, major: float = 2.0, minor: float = 1.0) -> Graph:
    """Return a triangulated torus of revolution: `rows` circles of latitude around the axis.

    Node `i * columns + j` has the angle `2 pi i / rows` around the tube and `2 pi j / columns`
    around the axis. The quadrangles are isosceles trapezoids, whose corners lie on a circle, so
    either diagonal is Delaunay, with conductance zero: each node keeps four neighbours.

    Args:
        rows: number of nodes around the tube.
        columns: number of nodes around the axis.
        major: distance of the tube's centre from the axis.
        minor: radius of the tube.

    Raises:
        ValueError: a side is shorter than 3, the tube meets the axis, or the cells are so
            elongated that a conductance is negative (take more nodes along them).

    >>> torus_surface(8, 16)
    Graph(128 nodes, 256 undirected edges, 1 component)
    """
    if min(rows, columns) < 3 or not 0 < minor < major:
        raise ValueError(
            "torus_surface needs rows >= 3, columns >= 3 and 0 < minor < major, got "
            f"{rows}, {columns}, {minor} and {major}"
        )
    tube = (torch.arange(rows, dtype=torch.float64) * (2 * math.pi / rows))[:, None]
    axis = torch.arange(columns, dtype=torch.float64) * (2 * math.pi / columns)
    out = major + minor * tube.cos()
    height = (minor * tube.sin()).expand(rows, columns)
    points = torch.stack([out * axis.cos(), out * axis.sin(), height], dim=2).view(-1, 3)
    node = torch.arange(rows * columns).view(rows, columns)
    corner = [node, node.roll(-1, 1), node.roll((-1, -1), (0, 1)), node.roll(-1, 0)]
    halves = [
        torch.stack([corner[a], corner[b], corner[c]], -1) for a, b, c in ((0, 1, 2), (0, 2, 3))
    ]
    return _surface(points, torch.cat(halves).view(-1, 3))


def _surface(points: Tensor, triangles: Tensor) -> Graph:
    corners = points[triangles]
    sides = corners.roll(1, 1) - corners.roll(-1, 1)
    double_area = torch.linalg.cross(sides[:, 0], sides[:, 1]).norm(dim=1)
    # The edges at corner c are -sides[c-1] and sides[c+1]: their cotangent is dot over cross.
    dots = -(sides.roll(1, 1) * sides.roll(-1, 1)).sum(2)
    half_cotangents = (0.5 * dots / double_area[:, None]).flatten()
    first, second = triangles.roll(-1, 1).flatten(), triangles.roll(1, 1).flatten()
    nodes = len(points)
    pair, slot = (torch.minimum(first, second) * nodes + torch.maximum(first, second)).unique(
        return_inverse=True
    )
    weight = points.new_zeros(len(pair)).index_add(0, slot, half_cotangents)
    floor = ROUNDING * float(weight.max())
    if float(weight.min()) < -floor:
        raise ValueError(
            f"a conductance of the triangulation is {float(weight.min()):.3g}, negative: its "
            "triangles are too obtuse; take more nodes along their long sides"
        )
    pair, weight = pair[weight > floor], weight[weight > floor]
    i, j = pair // nodes, pair % nodes
    area = points.new_zeros(nodes).index_add(
        0, triangles.flatten(), (double_area / 6).repeat_interleave(3)
    )
    return Graph(
        torch.stack([torch.cat([i, j]), torch.cat([j, i])]),
        nodes,
        weight.repeat(2),
        node_weight=area,
        pos=points,
    )


def _icosahedron() -> tuple[Tensor, Tensor]:
    """Return two poles and two rings of five, and the faces between them."""
    angle = torch.arange(10, dtype=torch.float64) * (math.pi / 5)
    height = torch.where(torch.arange(10) % 2 == 0, 1.0, -1.0).double() / math.sqrt(5)
    width = 2 / math.sqrt(5)
    belt = torch.stack([width * angle.cos(), width * angle.sin(), height], dim=1)
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    k = torch.arange(10)
    pole = torch.where(k % 2 == 0, 10, 11)
    caps = torch.stack([pole, k, (k + 2) % 10], dim=1)
    middle = torch.stack([k, (k + 1) % 10, (k + 2) % 10], dim=1)
    return torch.cat([belt, poles]), torch.cat([caps, middle])


def _subdivided(points: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Cut each triangle at the midpoints of its sides and lift these onto the unit sphere."""
    nodes = len(points)
    ends = torch.stack([triangles, triangles.roll(-1, 1)], dim=2).sort(dim=2).values
    side, slot = (ends[..., 0] * nodes + ends[..., 1]).unique(return_inverse=True)
    middle = torch.nn.functional.normalize(points[side // nodes] + points[side % nodes], dim=1)
    a, b, c = triangles.T
    ab, bc, ca = (nodes + slot).T
    pieces = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    finer = torch.cat([torch.stack(piece, dim=1) for piece in pieces])
    return torch.cat([points, middle]), finer
