"""Transferability: does a flow do the same on a coarse and on a fine graph of one space?"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.fields import Field
from neuralpde.graph import Graph
from neuralpde.solve import solve

Sampling = Int64[Tensor, " coarse"] | Float[Tensor, "coarse fine"]


def transfer_error(
    field: Field,
    coarse: Any,
    fine: Any,
    sampling: Sampling,
    x0: Float[Tensor, "fine channels"],
    t: float,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-10,
) -> float:
    """The relative difference of a flow on a coarse graph from the same flow on a fine one.

        |S phi_fine(t, x0) - phi_coarse(t, S x0)| / |S phi_fine(t, x0)|

    S reads a state of the fine graph at the nodes of the coarse one. Where both discretise one
    space the error falls with the square of the mesh size h, as that of the field's Laplacian does,
    provided that both carry the scale of the space: conductances proportional to 1 / h^2 (`scaled`)
    or areas as `node_weight`. Norms are weighted by the coarse graph's `node_weight`, if any.

    Args:
        field: Bound to each of the graphs.
        coarse: The coarse graph.
        fine: The fine graph.
        sampling: S: for each coarse node its node of the fine graph, or a matrix `[coarse, fine]`
            (means over cells).
        x0: First state on the fine graph.
        t: End time.
        rtol: Relative tolerance of both solves, which should be far below the error.
        atol: Absolute tolerance.

    Raises:
        ValueError: The sampling does not fit the graphs.

    References:
        R. Levie, W. Huang, L. Bucci, M. Bronstein, G. Kutyniok, Transferability of spectral graph
        convolutional neural networks, JMLR 22 (2021), arXiv:1907.12972.

    >>> from neuralpde import catalogue
    >>> from neuralpde.fields import Heat
    >>> x0 = torch.cos(torch.arange(8) * torch.pi / 4).double()[:, None]
    >>> rings = [scaled(catalogue.ring(n), n**2 / (2 * torch.pi) ** 2) for n in (4, 8)]
    >>> error = transfer_error(Heat(), *rings, torch.arange(0, 8, 2), x0, 1.0)
    >>> round(error, 3)  # eigenvalues 0.811 and 0.950 stand for 1
    0.149
    """
    small, large = Graph.of(coarse), Graph.of(fine)
    shape = (small.num_nodes, large.num_nodes)
    if tuple(sampling.shape) not in (shape, shape[:1]) or len(x0) != large.num_nodes:
        raise ValueError(
            f"sampling is {tuple(sampling.shape)} and x0 has {len(x0)} rows; the graphs ask for "
            f"{shape[:1]} node numbers or a matrix {shape}, and {shape[1]} rows"
        )

    def read(x: Tensor) -> Tensor:
        if sampling.dim() == 1:
            return x[sampling]
        averaged: Tensor = torch.tensordot(sampling.to(x.dtype), x, 1)
        return averaged

    def end(x: Tensor, graph: Graph) -> Tensor:
        found = solve(field, x, t, graph, rtol=rtol, atol=atol, save="end", grad="none").final
        assert isinstance(found, Tensor)
        return found

    expected = read(end(x0, large))
    form = DirichletForm.of(small.like(expected), "comb")
    error = form.norm_alone(end(read(x0), small) - expected).square.sum()
    return float((error / form.norm_alone(expected).square.sum()).sqrt())


def scaled(graph: Any, factor: float) -> Graph:
    """The same graph with all weights multiplied: by 1 / h^2 for a mesh of size h.

    >>> scaled(torch.tensor([[0, 1], [1, 0]]), 4.0).laplacian().to_dense().tolist()
    [[4.0, -4.0], [-4.0, 4.0]]
    """
    where = Graph.of(graph)
    return Graph(
        where.edge_index,
        where.num_nodes,
        factor * where.edge_weight,
        where.batch,
        node_weight=where.node_weight,
        pos=where.pos,
    ).to(dtype=where.dtype)
