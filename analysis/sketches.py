"""Dirichlet energies of huge states, estimated from a few channels or a few edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.energies import bound, rounding
from analysis.measures import Measure, Shot
from neuralpde.energies import CONVENTIONS, DirichletForm
from neuralpde.graph import Graph
from neuralpde.looks import Parts, unit
from solvers.failure import unknown_name


@dataclass(frozen=True)
class SketchedDirichlet(Measure):
    """The Dirichlet energy from k random sums of the channels, without bias.

    With signs r_c of Rademacher's law, E[(x r)^T L (x r)] = tr(x^T L x): the estimate is the mean
    over k draws, of relative variance at most 2 |M|^2 / (k tr(M)^2), M = x^T L x without its
    diagonal. The cost is that of k channels. The floor of a value is its standard error, from
    the scatter of the k draws, itself known to a part of 1 / sqrt(2 k - 2). One seed draws the
    same signs for all states, so that curves are as smooth as the energy.

    Args:
        norm: As in `Dirichlet`.
        columns: k, at least 2; states of no more channels are measured as they are.
        seed: Of the signs.
        name: Name of its series.

    References:
        Hutchinson, Commun. Stat. Simul. Comput. 19 (1990), 433.

    >>> edges, x = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.0] * 50, [1.0] + 49 * [0.0]])
    >>> SketchedDirichlet(columns=3)(x, edges).item()
    1.0
    """

    norm: str = "comb"
    columns: int = 4
    seed: int = 0
    name: str = "dirichlet"

    def __post_init__(self) -> None:
        """Refuse a norm nobody knows, and a single column, which tells no error."""
        if self.norm not in CONVENTIONS:
            raise unknown_name("norm", self.norm, CONVENTIONS)
        if self.columns < 2:
            raise ValueError(f"columns is {self.columns}; 2 at least tell a standard error")

    @property
    def convention(self) -> str:
        """The formula in words."""
        return f"{CONVENTIONS[self.norm]} from {self.columns} random columns"

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The estimate per graph, and its standard error with what rounding leaves."""
        state, where = self._seen(x, graph)
        form = DirichletForm.of(where, self.norm)
        flat = state.detach().reshape(len(state), -1)
        if flat.shape[1] <= self.columns:
            parts = form.parts(state)
            return parts.energy, rounding(parts, bound(where, form), state.dtype)
        sums = flat @ self._signs(flat, where)
        size = unit(sums)
        look = form.looks(list((sums / size).unsqueeze(2).unbind(1)), [])
        square = size.double() ** 2
        parts = Parts(*(square * part for part in (look.energy, look.square, look.deviation)))
        error = parts.energy.std(0) / self.columns**0.5
        round_off = rounding(parts, bound(where, form), state.dtype).mean(0)
        return parts.energy.mean(0), error + round_off

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The estimate per graph, without gradients."""
        return self.reading(x, graph)[0]

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """Its standard error."""
        return self.reading(x, graph)[1]

    def _signs(self, flat: Tensor, graph: Graph) -> Tensor:
        def draw() -> Tensor:
            generator = torch.Generator().manual_seed(self.seed)
            bits = torch.randint(2, (flat.shape[1], self.columns), generator=generator)
            return (2 * bits - 1).to(flat.device, flat.dtype)

        key = ("signs", flat.shape[1], self.columns, self.seed, flat.dtype)
        found: Tensor = graph.remember(key, draw)
        return found


@dataclass(frozen=True)
class SampledDirichlet(Measure):
    """The combinatorial Dirichlet energy from a sample of the arcs, without bias.

    Arcs are drawn with probabilities w / W, W the sum of all weights, with replacement: the
    estimate is W / 2 times the mean of |x_i - x_j|^2. The cost does not depend on the number of
    edges. The floor of a value is its standard error, from the scatter of the sample. One
    seed draws the same arcs for all states.

    Args:
        arcs: How many are drawn, at least 2.
        seed: Of the draws.
        name: Name of its series.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> SampledDirichlet(10)(torch.tensor([[0.0], [3.0]]), edges).item()
    9.0
    """

    arcs: int = 10_000
    seed: int = 0
    name: str = "dirichlet"

    def __post_init__(self) -> None:
        """Refuse a single arc, which tells no error."""
        if self.arcs < 2:
            raise ValueError(f"arcs is {self.arcs}; 2 at least tell a standard error")

    @property
    def convention(self) -> str:
        """The formula in words."""
        return f"{CONVENTIONS['comb']} from {self.arcs} random arcs"

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The estimate per graph, and its standard error."""
        state, where = self._seen(x, graph)
        source, target, total = where.remember(
            ("arcs", self.arcs, self.seed), lambda: self._drawn(where)
        )
        flat = state.detach().reshape(len(state), -1)
        apart = (flat[source] - flat[target]).abs()
        size = unit(apart)
        squares = (apart / size).square().sum(1, dtype=torch.float64) * size.double() ** 2
        # Arcs of other graphs of a batch count 0, which keeps each graph's estimate unbiased.
        count = max(len(squares), 1)
        labels = torch.zeros_like(source) if where.batch is None else where.batch[source]
        sums, squared = (
            squares.new_zeros(where.num_graphs).index_add(0, labels, squares**power)
            for power in (1, 2)
        )
        mean = sums / count
        variance = (squared / count - mean**2).clamp(min=0.0) * count / max(count - 1, 1)
        return total / 2 * mean, total / 2 * (variance / count).sqrt()

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The estimate per graph, without gradients."""
        return self.reading(x, graph)[0]

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """Its standard error."""
        return self.reading(x, graph)[1]

    def _drawn(self, graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
        weight = graph.edge_weight
        total = weight.sum()
        if not len(weight):
            return (*graph.edge_index, total)
        # By the inverse of the distribution: multinomial draws take at most 2^24 kinds.
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.rand(self.arcs, dtype=torch.float64, generator=generator).to(weight.device)
        picked = torch.searchsorted(weight.cumsum(0), draws * total, right=True)
        source, target = graph.edge_index[:, picked.clamp(max=len(weight) - 1)]
        return source, target, total
