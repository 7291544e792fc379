"""Sheaves made entry by entry, for comparison."""

import torch
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import orthogonal

F64 = torch.float64


def drawn(graph: Graph, stalk: int, kind: str, seed: int = 0) -> Tensor:
    """Random maps for every entry: "general", "diagonal", or orthogonal by rotations."""
    generator = torch.Generator().manual_seed(seed)
    numbers = {"general": stalk**2, "diagonal": stalk}.get(kind, stalk * (stalk - 1) // 2)
    flat = torch.randn(graph.pattern.nnz, numbers, generator=generator, dtype=F64)
    if kind == "orthogonal":
        return orthogonal(flat, stalk, "cayley")
    return flat.view(-1, stalk, stalk) if kind == "general" else flat


def full(maps: Tensor) -> Tensor:
    return torch.diag_embed(maps) if maps.dim() == 2 else maps


def edges(graph: Graph) -> list[tuple[int, int, int, int, float]]:
    """(v, u, entry of v, entry of u, weight) for every edge, self-loops left out."""
    pairs = graph.edge_index.T.tolist()
    entry = {(source, target): k for k, (source, target) in enumerate(pairs)}
    return [
        (v, u, entry[u, v], entry[v, u], float(graph.edge_weight[entry[u, v]]))
        for u, v in pairs
        if v < u
    ]


def coboundary(graph: Graph, maps: Tensor) -> Tensor:
    """The matrix P with rows sqrt(w) (F_v x_v - F_u x_u): L = P^T P."""
    maps, stalk = full(maps), maps.shape[1]
    rows = []
    for v, u, at_v, at_u, weight in edges(graph):
        row = torch.zeros(stalk, graph.num_nodes, stalk, dtype=F64)
        row[:, v], row[:, u] = weight**0.5 * maps[at_v], -(weight**0.5) * maps[at_u]
        rows.append(row.flatten(1))
    return torch.cat(rows) if rows else torch.zeros(0, graph.num_nodes * stalk, dtype=F64)


def blocks(matrix: Tensor, stalk: int) -> Tensor:
    """The diagonal blocks of a matrix."""
    n = len(matrix) // stalk
    return torch.stack([matrix.view(n, stalk, n, stalk)[v, :, v] for v in range(n)])


def root_inverse(D: Tensor) -> Tensor:
    """D^-1/2 of each block, zero on its kernel."""
    values, vectors = torch.linalg.eigh(D)
    safe = torch.where(values > 1e-9, values, torch.inf)
    return vectors @ torch.diag_embed(safe**-0.5) @ vectors.mT
