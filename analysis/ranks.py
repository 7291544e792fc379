"""How many directions a state spans: effective and numerical rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.measures import Measure, sizes
from neuralpde.energies import DirichletForm
from neuralpde.graph import Graph


@dataclass(frozen=True)
class EffectiveRank(Measure):
    """The effective rank exp(-sum_k p_k log p_k), p_k = s_k / sum s, s the singular values.

    Between 1 (rank one: also consensus) and the number of channels.

    Args:
        centred: Whether the part in the kernel of the combinatorial L is taken out first; near
            consensus the rank then counts the modes that are left.
        name: Name of its series.

    References:
        Roy and Vetterli, The effective rank, EUSIPCO 2007; Zhang et al., Rethinking oversmoothing
        in graph neural networks: a rank-based perspective, 2025, arXiv:2502.04591.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> round(EffectiveRank()(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), edges).item(), 6)
    2.0
    """

    centred: bool = False
    name: str = "effective rank"

    @property
    def convention(self) -> str:
        """The formula in words."""
        return "effective rank" + (" of x - Px" if self.centred else "")

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The rank per graph; NaN for a zero state."""
        s = _singular_values(x, graph, self.centred)
        p = s / s.sum(1, keepdim=True)
        entropy: Tensor = torch.special.entr(p).sum(1)
        return entropy.exp()


@dataclass(frozen=True)
class NumericalRank(Measure):
    """The numerical (stable) rank |x|_F^2 / |x|_2^2: between 1 and the number of channels.

    Args:
        centred: Whether the part in the kernel of the combinatorial L is taken out first.
        name: Name of its series.

    References:
        Rudelson and Vershynin, J. ACM 54 (2007), 21.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> NumericalRank()(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), edges).item()
    1.25
    """

    centred: bool = False
    name: str = "numerical rank"

    @property
    def convention(self) -> str:
        """The formula in words."""
        return "numerical rank" + (" of x - Px" if self.centred else "")

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The rank per graph; NaN for a zero state."""
        s = _singular_values(x, graph, self.centred)
        return (s / s.amax(1, keepdim=True)).square().sum(1)


def _singular_values(x: Tensor, graph: Graph, centred: bool) -> Tensor:
    """Singular values of each graph's rows, `[graphs, channels]`, float64, from a Gram matrix.

    Those below 1e-8 of the largest are rounding, and count for nothing in either rank.
    """
    x = DirichletForm.of(graph, "comb").deviation(x) if centred else x
    wide = torch.complex128 if x.is_complex() else torch.float64
    flat = x.reshape(len(x), -1).to(wide)
    labels = flat.new_zeros(len(flat), dtype=torch.int64) if graph.batch is None else graph.batch
    top = flat.abs().new_zeros(graph.num_graphs)
    top = top.scatter_reduce(0, labels, flat.detach().abs().amax(1), "amax")
    flat = flat / torch.where(top > 0, top, 1.0)[labels, None]
    if graph.batch is None:
        small = flat if flat.shape[0] >= flat.shape[1] else flat.T
        gram = (small.mH @ small)[None]
    else:
        bounds = graph.remember("split", lambda: sizes(graph).long().tolist())
        gram = torch.stack([part.mH @ part for part in flat.split(bounds)])
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp(min=0.0).sqrt()
