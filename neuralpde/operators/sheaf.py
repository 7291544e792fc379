"""Laplacians of cellular sheaves on graphs: every edge compares what two maps make of its ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.operators.blocks import BlockOperator
from neuralpde.operators.graphs import Graphs
from neuralpde.operators.incidences import Incidences, Remembering
from neuralpde.operators.tags import ROUNDING, Enclosure, Tags
from solvers.failure import unknown_name

NORMS = ("comb", "sym", "augmented")

SINGULAR = 16.0
"""A pivot of this many roundings of its diagonal entry is none."""

Planes = list[list[Tensor]]
"""Matrices for many ends or nodes, number by number: `planes[a][b]` has number `(a, b)` of all."""


def sheaf_laplacian(
    graph: Remembering,
    maps: Float[Tensor, "entries stalk stalk"] | Float[Tensor, "entries stalk"],
    norm: str = "comb",
    *,
    orthogonal: bool = False,
    enclose: bool = True,
) -> BlockOperator:
    """Return the Laplacian of a sheaf, `x^T L x = sum_edges w |F_v x_v - F_u x_u|^2`.

    Each end of an edge has a map `F` from the stalk of its node to that of the edge. With the sums
    over the edges at v, or the edge from v to u::

        comb        L_vv = D_v = sum w F_v^T F_v      L_vu = -w F_v^T F_u
        augmented   C^-1 L C^-T,  D_v + I = C_v C_v^T
        sym         C^-1 L C^-T,  D_v = C_v C_v^T

    The factor C is Cholesky's: it gives the spectrum of `(D + I)^-1/2 L (D + I)^-1/2`, which the
    sheaf sees in other frames of its stalks, and its gradients need no gaps between eigenvalues.
    A node without edges has zero rows. Entries are differentiable functions of the maps.

    Args:
        graph: an undirected graph; its weights multiply squares, its self-loops do not enter.
        maps: for each entry of `graph.edge_index` the map of the receiving node, `[stalk, stalk]`,
            or the diagonal of it.
        norm: "comb", "sym" or "augmented".
        orthogonal: a promise that all maps are orthogonal: then `D = degree I`, and is not
            computed.
        enclose: whether the spectrum is enclosed: in `[0, 2 m / (1 + m)]` or `[0, 2]` where
            normalised, m the largest norm of a `D_v`; by Gershgorin for the blocks of the edges
            and by `2 m` otherwise. Steps do not need it.

    Raises:
        ValueError: the graph is directed or has a measure, the name of the norm is unknown, maps do
            not fit, or "sym" meets a singular `D_v`.

    References:
        Hansen and Ghrist, Toward a spectral theory of cellular sheaves, 2019, arXiv:1808.01513.
        Bodnar et al., Neural Sheaf Diffusion, NeurIPS 2022, arXiv:2202.04579.

    >>> from neuralpde.graph import Graph
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> sheaf_laplacian(graph, torch.tensor([[1.0], [-2.0]])).to_dense().tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    _check(graph, maps)
    ends, stalk, full = Incidences.of(graph), maps.shape[1], maps.dim() == 3
    F = _planes(maps, ends)
    D = [[ends.degree]] if orthogonal else _squares(F, ends)
    diagonal = D
    if norm != "comb":
        inverse, diagonal = _factored(D, norm, torch.finfo(maps.dtype).eps)
        F = _framed(F, inverse, ends)
    if len(diagonal) < len(F):
        zero = torch.zeros_like(ends.degree)
        diagonal = [
            [diagonal[0][0] if a == b else zero for b in range(stalk)] for a in range(stalk)
        ]
    numbers = [-number for row in _products(F, ends.edges) for number in row]
    numbers += [number.to(maps.dtype) for row in diagonal for number in row]
    pattern, entries = ends.blocks(stalk, full)
    values = torch.cat([number.reshape(-1) for number in numbers]).index_select(0, entries)
    graphs = Graphs(graph.batch, graph.num_graphs, maps.device)
    eps = torch.finfo(maps.dtype).eps
    tags = Tags(eps, symmetric=True, psd=True)
    if enclose:
        found = _enclosed(F, D, norm, ends, graphs, stalk)
        tags = replace(tags, enclosure=found.widened(max(ROUNDING, float(stalk)) * eps))
    return BlockOperator.tagged(pattern, values, tags, graphs, stalk)


def _check(graph: Remembering, maps: Tensor) -> None:
    fits = maps.dim() in (2, 3) and maps.shape[0] == graph.pattern.nnz and maps.shape[1] > 0
    if not fits or maps.shape[1] != maps.shape[-1]:
        raise ValueError(
            f"maps are {tuple(maps.shape)}; give one for each of the {graph.pattern.nnz} columns "
            "of graph.edge_index: [entries, stalk, stalk], or [entries, stalk] for diagonals"
        )
    if not maps.is_floating_point():
        raise TypeError(f"maps are {maps.dtype}; stalks are real vector spaces")


def _planes(maps: Tensor, ends: Incidences) -> Planes:
    """The maps number by number; diagonal ones as one number, a vector over the stalk."""
    # As a matrix: torch is ten times slower to select along a third axis.
    F = maps.flatten(1).T.index_select(1, ends.order)
    if ends.weight is not None:
        F = F * ends.weight.sqrt().to(F.dtype)
    return [list(row) for row in F.unflatten(0, maps.shape[1:])] if maps.dim() == 3 else [[F]]


def _products(F: Planes, edges: int) -> Planes:
    """F_v^T F_u for every edge, v its first end."""
    first = [[number[..., :edges] for number in row] for row in F]
    other = [[number[..., edges:] for number in row] for row in F]
    return [[_dot(a, b) for b in zip(*other, strict=True)] for a in zip(*first, strict=True)]


def _squares(F: Planes, ends: Incidences) -> Planes:
    """The sums of F^T F over the ends of each node, float64."""
    size, columns = range(len(F)), list(zip(*F, strict=True))
    half = {(a, b): _dot(columns[a], columns[b]) for a in size for b in size if a <= b}
    found = dict(zip(half, ends.summed(torch.stack(list(half.values()))), strict=True))
    return [[found[min(a, b), max(a, b)] for b in size] for a in size]


def _factored(D: Planes, norm: str, eps: float) -> tuple[Planes, Planes]:
    """The inverse of Cholesky's factor of D or D + I, and C^-1 D C^-T."""
    size = range(len(D))
    shift = torch.ones_like(D[0][0])
    alone = _sum([D[a][a] for a in size]) == 0
    if norm == "sym":
        # A node without edges has any frame.
        shift = alone.to(shift)
    C: Planes = [[] for _ in size]
    for b in size:
        for a in range(b, len(D)):
            left = D[a][b] + shift if a == b else D[a][b]
            rest = left - _dot(C[a][:b], C[b][:b]) if b else left
            # D + I is never singular, and a look at numbers would hold up compilers.
            if norm == "sym" and a == b and _vanishes(rest, SINGULAR * eps * left):
                raise ValueError(
                    'the maps at some node have a common kernel, and norm="sym" divides by the sum '
                    'of their squares: use norm="augmented"'
                )
            C[a].append(rest.sqrt() if a == b else rest / C[b][b])
    inverse: Planes = [[] for _ in size]
    for a in size:
        for b in range(a):
            below = [inverse[k][b] for k in range(b, a)]
            inverse[a].append(-_dot(C[a][b:a], below) / C[a][a])
        inverse[a].append(1.0 / C[a][a])
    found: Planes = [[] for _ in size]
    for a in size:
        for b in size:
            common = min(a, b) + 1
            share = shift * _dot(inverse[a][:common], inverse[b][:common])
            found[a].append(float(a == b) - share)
    return inverse, found


def _vanishes(numbers: Tensor, beside: Tensor) -> bool:
    return bool((numbers.detach() <= beside.detach()).any())


def _framed(F: Planes, inverse: Planes, ends: Incidences) -> Planes:
    """F C^-T, the maps in the frames of the normalisation."""
    if len(inverse) == 1:
        scale = inverse[0][0].to(F[0][0]).index_select(-1, ends.row)
        return [[number * scale for number in row] for row in F]
    packed = torch.stack([number for row in inverse for number in row]).to(F[0][0])
    spread = iter(packed.index_select(-1, ends.row))
    M = [[next(spread) for _ in row] for row in inverse]
    return [[_dot(f[: len(m)], m) for m in M] for f in F]


@torch.no_grad()
def _enclosed(
    F: Planes, D: Planes, norm: str, ends: Incidences, graphs: Graphs, stalk: int
) -> Enclosure:
    size = range(len(D))
    of_rows = [_sum([D[a][b].abs() for b in size]) for a in size]
    largest = _largest_of_each(of_rows)
    trace = _sum([D[a][a] for a in size])
    trace = trace * stalk if len(D) < len(F) else trace if trace.dim() == 1 else trace.sum(0)
    m, trace = graphs.reduced(largest, "amax"), graphs.reduced(trace, "amax")
    if norm == "comb":
        top = torch.minimum(2 * m, _by_edges(F, len(D) < len(F), ends, graphs))
        # |L| is at most P^T P with P the moduli of the maps, and that at most twice its traces.
        return Enclosure(0 * top, top, 2 * trace)
    top = 2 * m / (1 + m) if norm == "augmented" else 2.0 * (m > 0).double()
    return Enclosure(0 * top, top, stalk * top)


def _by_edges(F: Planes, orthogonal: bool, ends: Incidences, graphs: Graphs) -> Tensor:
    """Gershgorin's bound for P P^T, edge by edge; L = P^T P has the same largest eigenvalue."""
    size = range(len(F))
    if orthogonal:
        ones = torch.ones_like(ends.row, dtype=torch.float64)
        norms = ones if ends.weight is None else ends.weight.sqrt()
    else:
        moduli = [[number.abs() for number in row] for row in F]
        rows = _largest_of_each([_sum(row) for row in moduli])
        columns = _largest_of_each([_sum([row[b] for row in moduli]) for b in size])
        frobenius = _sum([number.square() for row in moduli for number in row]).sqrt()
        frobenius = frobenius if len(F) > 1 else rows
        norms = torch.minimum(frobenius, (rows * columns).sqrt()).double()
    around = ends.summed(norms)
    of_ends = norms * around.index_select(0, ends.row)
    both = of_ends + of_ends.roll(ends.edges)
    of_nodes = both.new_zeros(ends.num_nodes).scatter_reduce(0, ends.row, both, "amax")
    return graphs.reduced(of_nodes, "amax")


def _largest_of_each(numbers: list[Tensor]) -> Tensor:
    """The largest of many numbers for each end or node, over the stalk too where they have one."""
    largest = numbers[0]
    for number in numbers[1:]:
        largest = torch.maximum(largest, number)
    return largest if largest.dim() == 1 else largest.amax(0)


def _dot(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total = torch.addcmul(total, a, b)
    return total


def _sum(numbers: Sequence[Tensor]) -> Tensor:
    total = numbers[0]
    for number in numbers[1:]:
        total = total + number
    return total
