"""The spectrum of a graph's operator, and states in its modes: the graph Fourier transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import Operator

LARGEST = 3000
"""Nodes of one graph up to which all modes are computed: at 3000 they take 72 MB."""

TOGETHER = 64.0
"""Eigenvalues closer than this many roundings of the largest are one multiple eigenvalue."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All eigenvalues and modes of a self-adjoint operator, float64, graph by graph.

    A batch has as many modes as nodes: mode k belongs to the graph of node k, and within a graph
    eigenvalues ascend. Modes are orthonormal in the inner product <x, y> = sum_i m_i x_i y_i in
    which the operator is self-adjoint: m is the degree for "rw" (1 without edges), the measure of a
    graph with `node_weight`, else 1. Signs, and the modes within an eigenspace, are arbitrary;
    `profile`, `centroid` and `entropy` do not depend on them.

    Attributes:
        eigenvalues: Ascending in each graph.
        blocks: For each graph its modes as columns, scaled by the root of m: orthogonal matrices.
        levels: Number of the distinct eigenvalue of each mode, counted over all graphs.
        metric: m, or None for ones.
        batch: Graph of each mode, or None for one graph.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> found = spectrum(edges)
    >>> found.eigenvalues.abs().tolist()
    [0.0, 2.0]
    >>> found.power(torch.tensor([[1.0], [3.0]])).tolist()  # means weigh 16 / 2, differences 4 / 2
    [8.0, 2.0]
    """

    eigenvalues: Float[Tensor, " modes"]
    blocks: tuple[Tensor, ...]
    levels: Int64[Tensor, " modes"]
    metric: Float[Tensor, " nodes"] | None = None
    batch: Int64[Tensor, " modes"] | None = None

    @classmethod
    def of(cls, A: Operator) -> Spectrum:
        """Decompose a self-adjoint operator that treats channels alike.

        Raises:
            ValueError: It is not known to be self-adjoint, mixes channels, or has a graph of more
                than 3000 nodes.

        >>> from neuralpde import catalogue
        >>> Spectrum.of(catalogue.path(3).adjacency("sym")).eigenvalues.abs().round(decimals=9)
        tensor([1., 0., 1.], dtype=torch.float64)
        """
        if not A.self_adjoint or not A.separate:
            raise ValueError(
                f"{A!r} has no real spectrum on nodes: it must be self-adjoint and treat channels "
                'alike; build it on an undirected graph (graph.undirected(reduce="max"))'
            )
        sizes = _sizes(A)
        if max(sizes, default=0) > LARGEST:
            raise ValueError(
                f"a graph of {max(sizes)} nodes is too large for all its modes ({LARGEST} at most);"
                " use BandEnergy, density_of_states or extremes"
            )
        A = A.to(torch.float64)
        root = None if A.metric is None else A.metric.double().sqrt()
        values, blocks, levels = [], [], []
        count = 0
        for block in _dense(A, sizes, root):
            own, modes = torch.linalg.eigh((block + block.T) / 2)
            own = own.clamp(min=0.0) if A.psd else own
            apart = torch.finfo(torch.float64).eps * TOGETHER * own.abs().amax() if len(own) else 0
            level = torch.ones_like(own, dtype=torch.int64)
            level[1:] = (own.diff() > apart).long()
            levels.append(level.cumsum(0) - 1 + count)
            count = int(levels[-1][-1]) + 1 if len(own) else count
            values.append(own)
            blocks.append(modes)
        return cls(torch.cat(values), tuple(blocks), torch.cat(levels), A.metric, A.batch)

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.blocks)

    def transform(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "modes ..."]:
        """The coefficients <mode_k, x> of a state in the modes; differentiable.

        They come in double precision: |x|^2 in the metric is the sum of their squares (Parseval).
        """
        return self._turned(self._weighted(x, 0.5), transposed=True)

    def inverse(self, coefficients: Inexact[Tensor, "modes ..."]) -> Inexact[Tensor, "nodes ..."]:
        """The state of given coefficients."""
        return self._weighted(self._turned(coefficients, transposed=False), -0.5)

    def power(self, x: Inexact[Tensor, "nodes ..."]) -> Float[Tensor, " modes"]:
        """p_k = sum_c |<mode_k, x_c>|^2, over all channels."""
        return self.transform(x).abs().square().reshape(len(x), -1).sum(1)

    def profile(self, x: Inexact[Tensor, "nodes ..."]) -> Float[Tensor, " modes"]:
        """The share of the power at eigenvalues up to that of each mode: 1 at the last.

        NaN for a zero state.
        """
        power = self.power(x)
        shares = power / self.per_graph(power)[self._graph]
        of_levels = self._summed(shares, self.levels, self._level_count)
        own = of_levels.split([int(levels.unique().numel()) for levels in self._split(self.levels)])
        return torch.cat([part.cumsum(0) for part in own])[self.levels].clamp(max=1.0)

    def centroid(self, x: Inexact[Tensor, "nodes ..."]) -> Float[Tensor, " graphs"]:
        """The mean eigenvalue, weighted by power: the Rayleigh quotient of the state."""
        power = self.power(x)
        return self.per_graph(self.eigenvalues * power) / self.per_graph(power)

    def entropy(self, x: Inexact[Tensor, "nodes ..."]) -> Float[Tensor, " graphs"]:
        """-sum_l p_l log p_l of the shares of the distinct eigenvalues; 0 on an eigenspace."""
        power = self.power(x)
        shares = power / self.per_graph(power)[self._graph]
        of_levels = self._summed(shares, self.levels, self._level_count)
        graph_of = torch.zeros_like(self.levels[: self._level_count])
        graph_of[self.levels] = self._graph
        return self._summed(torch.special.entr(of_levels), graph_of, self.num_graphs)

    def per_graph(self, values: Float[Tensor, "modes ..."]) -> Float[Tensor, "graphs ..."]:
        """Add up what stands at the modes of each graph."""
        return self._summed(values, self._graph, self.num_graphs)

    @property
    def _graph(self) -> Tensor:
        return torch.zeros_like(self.levels) if self.batch is None else self.batch

    @property
    def _level_count(self) -> int:
        return int(self.levels[-1]) + 1 if len(self.levels) else 0

    def _summed(self, values: Tensor, index: Tensor, count: int) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add(0, index, values)

    def _weighted(self, x: Tensor, exponent: float) -> Tensor:
        """The state times a power of m, node by node."""
        wide = x.to(torch.complex128 if x.is_complex() else torch.float64)
        if self.metric is None:
            return wide
        m = self.metric.double() ** exponent
        return wide * m.view(-1, *[1] * (x.dim() - 1))

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = values.split([len(block) for block in self.blocks])
        return parts

    def _turned(self, x: Tensor, transposed: bool) -> Tensor:
        flat = x.reshape(len(x), x.shape[1:].numel())
        parts = self._split(flat)
        turned = [
            (block.T if transposed else block).to(part.dtype) @ part
            for block, part in zip(self.blocks, parts, strict=True)
        ]
        return torch.cat(turned).view(x.shape)


def spectrum(graph: Any, norm: str = "comb") -> Spectrum:
    """All eigenvalues and modes of a graph's Laplacian, computed once per graph.

    Args:
        graph: An undirected graph, or what stands for one; up to 3000 nodes in each of a batch.
        norm: "comb", "sym", "rw" (in the degree-weighted inner product) or "augmented".

    Raises:
        ValueError: For a directed graph, a larger one, or an unknown norm.

    References:
        Shuman, Narang, Frossard, Ortega and Vandergheynst, The emerging field of signal processing
        on graphs, IEEE Signal Processing Magazine 30 (2013), arXiv:1211.0053.

    >>> from neuralpde import catalogue
    >>> spectrum(catalogue.complete(4)).eigenvalues.round(decimals=9).abs().tolist()
    [0.0, 4.0, 4.0, 4.0]
    """
    where = Graph.of(graph)
    found: Spectrum = where.remember(
        ("modes", norm), lambda: Spectrum.of(where.laplacian(norm, dtype=torch.float64))
    )
    return found


def _sizes(A: Operator) -> list[int]:
    if A.batch is None:
        return [A.num_nodes]
    sizes: list[int] = torch.bincount(A.batch, minlength=A.num_graphs).tolist()
    return sizes


def _dense(A: Operator, sizes: list[int], root: Tensor | None) -> list[Tensor]:
    """The matrix m^(1/2) A m^(-1/2) of each graph, all of them from one product."""
    own = torch.cat([torch.arange(size, device=A.device) for size in sizes])
    units = torch.zeros(A.num_nodes, max(sizes, default=0), dtype=torch.float64, device=A.device)
    units[torch.arange(A.num_nodes, device=A.device), own] = 1.0 if root is None else 1.0 / root
    with torch.no_grad():
        image = A @ units
    image = image if root is None else image * root.unsqueeze(1)
    return [block[:, : len(block)] for block in image.split(sizes)]
