"""How alike the nodes are: distance to consensus, and differences of direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.energies import bound
from analysis.measures import Measure, Shot, sizes
from neuralpde.energies import CONVENTIONS, DirichletForm, dirichlet_energy
from neuralpde.graph import Graph
from solvers.failure import unknown_name


@dataclass(frozen=True)
class ConsensusDistance(Measure):
    """The distance |x - P x| to the kernel of L: to constants on every component with "comb".

    It costs no product and satisfies the axioms of a node-similarity measure, several components
    included. With "augmented" it is the distance d_M of Oono and Suzuki.

    Args:
        norm: Whose kernel: "comb", "rw" (in the degree-weighted norm), "sym" or "augmented".
        relative: Whether it is divided by |x|: a number between 0 and 1, NaN for a zero state.
        name: Name of its series.

    References:
        Oono and Suzuki, Graph neural networks exponentially lose expressive power, ICLR 2020,
        arXiv:1905.10947.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> round(ConsensusDistance()(torch.tensor([[0.0], [2.0]]), edges).item(), 6)
    1.414214
    """

    norm: str = "comb"
    relative: bool = False
    name: str = "consensus distance"

    def __post_init__(self) -> None:
        """Refuse a norm nobody knows."""
        if self.norm not in CONVENTIONS:
            raise unknown_name("norm", self.norm, CONVENTIONS)

    @property
    def convention(self) -> str:
        """The formula in words."""
        return f"|x - Px|{' / |x|' if self.relative else ''}, P onto the kernel of L {self.norm}"

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The distance per graph."""
        return self.reading(x, graph)[0]

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """Rounding of the entries: eps |x|."""
        return self.reading(x, graph)[1]

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The distance per graph, and what rounding of the entries leaves, from one look."""
        state, where = self._seen(x, graph)
        parts = DirichletForm.of(where, self.norm).parts(state)
        distance, size = parts.deviation, parts.square.sqrt()
        if self.relative:
            distance = torch.where(parts.square > 0, distance / parts.square, torch.nan)
            size = torch.ones_like(size)
        return distance.sqrt(), 2 * torch.finfo(state.dtype).eps * size


@dataclass(frozen=True)
class MAD(Measure):
    """The mean average distance of directions, (1/n) sum_i sum_j (1 - cos(x_i, x_j)), j ~ i.

    Computed as |u_i - u_j|^2 / 2 of the rows u = x / |x|, which keeps its digits where cosines
    round to 1. A zero row has no direction: its pairs count 1/2 each (0 among themselves). It is no
    node-similarity measure in the sense of the survey: features of one sign in one channel give 0.
    Self-loops, weights and, on directed graphs, directions play no part.

    Args:
        name: Name of its series.

    References:
        Chen et al., Measuring and relieving the over-smoothing problem for graph neural networks
        from the topological view, AAAI 2020, arXiv:1909.03211; the sum over neighbours is that of
        Rusch, Bronstein and Mishra, arXiv:2303.10993.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> MAD()(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), edges).item()
    1.0
    """

    name: str = "MAD"
    convention = "MAD: (1/n) sum of 1 - cos over neighbours"

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The distance per graph."""
        energy = dirichlet_energy(_directions(x), _unweighted(graph))
        return energy / sizes(graph).to(energy)

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """Rounding of the directions, which are of length 1."""
        plain = _unweighted(graph)
        largest = bound(plain, DirichletForm.of(plain, "comb"))
        return largest * 4 * torch.finfo(x.dtype).eps ** 2


def _directions(x: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1)
    # Scaled first, as squares of small entries vanish.
    top = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(top > 0, top, 1.0)
    size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return flat / torch.where(size > 0, size, 1.0)


def _unweighted(graph: Graph) -> Graph:
    """The same pairs of nodes, each once both ways, of weight 1."""

    def build() -> Graph:
        source, target = graph.edge_index
        edges = graph.edge_index[:, source != target]
        edges = torch.unique(torch.cat([edges, edges.flip(0)], 1), dim=1)
        return Graph(edges, graph.num_nodes, batch=graph.batch).to(dtype=graph.dtype)

    plain: Graph = graph.remember(("unweighted", graph.dtype), build)
    return plain
