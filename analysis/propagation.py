"""Propagation without weights: what the normalised adjacency does to features, layer by layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde import solve
from neuralpde.fields import Heat
from neuralpde.graph import Graph
from solvers.trajectory import Trajectory


def propagate(
    graph: Graph, x: Float[Tensor, "nodes channels"], layers: int, *, self_loops: bool = False
) -> Trajectory:
    """Multiply features by the normalised adjacency again and again, x <- D^(-1/2) A D^(-1/2) x.

    Each layer is an Euler step of 1 of heat flow. Along it the energy of the matching form falls
    (without self-loops "sym", where no component is bipartite), and that of "comb" ends where the
    limit D^(1/2) 1 leaves it; on d-regular graphs the two are in the ratio d throughout.

    Args:
        graph: An undirected graph.
        x: Features.
        layers: Number of products.
        self_loops: Whether A and D count a loop at every node, as in GCN.

    References:
        Bison and Sperduti, Analysis of Dirichlet energies as over-smoothing measures, 2025,
        arXiv:2512.09890.

    >>> from neuralpde import catalogue
    >>> x = torch.tensor([[2.0], [0.0], [0.0]], dtype=torch.float64)
    >>> propagate(catalogue.path(3), x, 2).final.flatten().tolist()
    [1.0, 0.0, 1.0]
    """
    times = torch.arange(layers + 1, dtype=torch.float64)
    field = Heat("augmented" if self_loops else "sym")
    return solve(field, x, times, graph, solver="euler", steps=layers)
