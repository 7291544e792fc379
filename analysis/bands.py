"""The energy of a state by frequency: in bands of the Laplacian's spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.density import density_of_states
from analysis.ends import largest
from analysis.filters import FilterBank, filter_bank
from analysis.measures import Measure, Shot
from analysis.spectra import LARGEST, spectrum
from neuralpde.energies import CONVENTIONS, DirichletForm
from neuralpde.graph import Graph
from neuralpde.tracking import SAFETY
from solvers.failure import unknown_name
from solvers.moments import moments

SPACINGS = ("eigenvalues", "modes")
METHODS = ("auto", "exact", "chebyshev")

ON_EDGE = 1e-9
"""An eigenvalue nearer to an edge, relative to the largest one, is on it: the upper band's."""


@dataclass(frozen=True)
class BandEnergy(Measure):
    """The squared norm of a state in bands of the spectrum of L, `[graphs, bands]`.

        E_j = sum of sum_c |<mode_k, x_c>|^2 over the modes k with eigenvalue in [e_j, e_(j+1))

    The bands add up to |x|^2 (degree-weighted for "rw"). Small graphs are decomposed. Large ones
    take a bank of Chebyshev filters that all come from the moments <x, T_k x> of one recurrence,
    whatever the number of bands: each is an indicator, smoothed over `transition` mean bands (in
    the angle arccos) on either side of its edges, and beyond that wrong by `leakage` at most. The
    filters add up to 1, so that nothing is lost or counted twice, and what lies in the
    kernel of L is taken out first. Band energies come with an absolute error: that of narrower and
    wider bands from the same moments, a rigorous enclosure but for the state's own rounding;
    values below it are NaN in a series.

    Args:
        bands: Number of bands, 2 or more; or their edges, ascending, the second above 0. The first
            band holds the kernel and all that is below, the last one all that is above.
        norm: "comb", "rw" (in the degree-weighted inner product), "sym" or "augmented".
        spacing: "eigenvalues": edges equally spaced from 0 to the largest eigenvalue of the graph;
            "modes": about as many modes in each band (of large graphs by `density_of_states`).
        relative: Whether energies are divided by |x|^2: shares, NaN for a zero state.
        method: "exact" (up to 3000 nodes a graph), "chebyshev" (without gradients), or "auto".
        leakage: Share of |x|^2 that a filter may take from bands it has no edge with.
        transition: Width of the zone on either side of an edge where two bands share, in mean
            bands. Errors shrink with it, and the number of products grows: it is about
            `bands log(2 / leakage) / (4 transition)`.
        probes: None, or a number k of random combinations `x G / sqrt(k)`, G normal, that stand for
            all channels: the cost no longer depends on them, and the error is that of a mean of k,
            at most `sqrt(2 / k)` of each value (one standard deviation; it is counted in).
        seed: Of the combinations.
        name: Name of its series.

    Raises:
        ValueError: For unknown names, fewer than 2 bands, edges that do not ascend, a leakage that
            is not between 1e-12 and 0.1, a transition that is not between 0.001 and 0.5, or fewer
            than 3 probes.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> BandEnergy(2)(torch.tensor([[1.0], [3.0]]), edges).tolist()
    [[8.0, 2.0]]
    """

    bands: int | tuple[float, ...] = 8
    norm: str = "comb"
    spacing: str = "eigenvalues"
    relative: bool = False
    method: str = "auto"
    leakage: float = 1e-3
    transition: float = 0.125
    probes: int | None = None
    seed: int = 0
    name: str = "bands"

    def __post_init__(self) -> None:
        """Refuse what nobody knows or what makes no sense."""
        for what, given, known in (
            ("norm", self.norm, CONVENTIONS),
            ("spacing", self.spacing, SPACINGS),
            ("method", self.method, METHODS),
        ):
            if given not in known:
                raise unknown_name(what, given, known)
        edges = self.bands if isinstance(self.bands, tuple) else tuple(range(self.bands + 1))
        rising = all(a < b for a, b in pairwise(edges))
        if len(edges) < 3 or not rising or edges[1] <= 0:
            raise ValueError(
                f"bands={self.bands}: give 2 or more, or 3 or more ascending edges, the second "
                "above 0"
            )
        if not 1e-12 <= self.leakage <= 0.1:
            raise ValueError(f"leakage={self.leakage} is a share between 1e-12 and 0.1")
        if not 1e-3 <= self.transition <= 0.5:
            raise ValueError(f"transition={self.transition} is between 1e-3 and 0.5 mean bands")
        if self.probes is not None and self.probes < 3:
            raise ValueError(f"probes={self.probes}: fewer than 3 say nothing; None for all")

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.bands) - 1 if isinstance(self.bands, tuple) else self.bands

    @property
    def convention(self) -> str:
        """The formula in words."""
        by = "" if isinstance(self.bands, tuple) or self.spacing == "eigenvalues" else " of modes"
        share = " / |x|^2" if self.relative else ""
        return f"{self.norm}: |x|^2{share} in {self.count} bands{by}"

    def edges(self, graph: Any) -> Float[Tensor, "graphs edges"]:
        """Where the bands of each graph begin and end, eigenvalues of L."""
        where = Graph.of(graph)
        found: Tensor = where.remember(
            ("edges", self.bands, self.norm, self.spacing), lambda: self._edges(where)
        )
        return found

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The energies per graph and band; differentiable where they are exact."""
        return self._both(x, graph)[0]

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """What rounding, leakage and random combinations leave."""
        return self._both(x, graph)[1]

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The energies and their absolute errors, from the same products."""
        return self._both(*self._seen(x, graph))

    def _both(self, x: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        if self.probes is not None:
            x = x.reshape(len(x), -1) @ self._combinations(x)
        value, error = self._exact(x, graph) if self._is_exact(graph) else self._filtered(x, graph)
        if self.probes is not None:
            error = error + (2.0 / self.probes) ** 0.5 * value.detach()
        if self.relative:
            total = value.sum(1, keepdim=True)
            total = torch.where(total > 0, total, torch.nan)
            value, error = value / total, error / total.detach()
        return value, error

    def _combinations(self, x: Tensor) -> Tensor:
        assert self.probes is not None
        generator = torch.Generator().manual_seed(self.seed)
        shape = (x.shape[1:].numel(), self.probes)
        G = torch.randn(shape, generator=generator, dtype=torch.float64)
        scaled: Tensor = (G / self.probes**0.5).to(x)
        return scaled

    def _is_exact(self, graph: Graph) -> bool:
        if self.method != "auto":
            return self.method == "exact"
        return _most_nodes(graph) <= LARGEST

    def _exact(self, x: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        modes = spectrum(graph, self.norm)
        power = modes.power(x)
        place = modes.batch if modes.batch is not None else torch.zeros_like(modes.levels)
        flat = power.new_zeros(modes.num_graphs * self.count)
        flat = flat.index_add(0, place * self.count + self._band_of(graph), power)
        square = modes.per_graph(power.detach()).unsqueeze(1)
        # Rounding of the state; modes are known to about the root of n roundings of their own.
        modal = modes.per_graph(torch.ones_like(power)) * torch.finfo(torch.float64).eps ** 2
        error = SAFETY * (torch.finfo(x.dtype).eps ** 2 + modal.unsqueeze(1)) * square
        return flat.view(-1, self.count), error.expand(-1, self.count)

    def _band_of(self, graph: Graph) -> Tensor:
        """The band of each mode; a multiple eigenvalue is in one."""
        key = ("band of", self.bands, self.norm, self.spacing)
        found: Tensor = graph.remember(key, lambda: self._sorted(graph))
        return found

    def _sorted(self, graph: Graph) -> Tensor:
        modes, edges = spectrum(graph, self.norm), self.edges(graph)
        at, top = modes.eigenvalues, largest(graph, self.norm)
        if modes.batch is None:
            inner, tops = edges[0, 1:-1].expand(len(at), -1), top.expand(len(at))
        else:
            inner, tops = edges[modes.batch, 1:-1], top[modes.batch]
        band = (inner <= (at + ON_EDGE * tops).unsqueeze(1)).sum(1)
        return torch.where(at > ON_EDGE * tops, band, 0)

    def _filtered(self, x: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        form = DirichletForm.of(graph.like(x), self.norm)
        x = x.detach()
        parts = form.parts(x)
        L = graph.laplacian(self.norm, dtype=x.real.dtype)
        bank = self._bank(graph)
        mu = moments(L, form.deviation(x), bank.count, metric=form.mass)
        value, error = bank(torch.from_numpy(mu), torch.finfo(x.dtype).eps)
        # What is in the kernel is known without a filter.
        kernel = (parts.square - parts.deviation).clamp(min=0.0).cpu()
        value[:, 0] += kernel
        error[:, 0] += SAFETY * torch.finfo(x.dtype).eps * kernel
        return value.to(x.device), error.to(x.device)

    def _bank(self, graph: Graph) -> FilterBank:
        key = ("bank", self.bands, self.norm, self.spacing, self.leakage, self.transition)

        def build() -> FilterBank:
            lo, hi = graph.laplacian(self.norm, dtype=torch.float64).spectrum()
            return filter_bank(
                self.edges(graph).cpu(), lo.cpu(), hi.cpu(), self.leakage, self.transition
            )

        found: FilterBank = graph.remember(key, build)
        return found

    def _edges(self, graph: Graph) -> Tensor:
        if isinstance(self.bands, tuple):
            given = torch.tensor(self.bands, dtype=torch.float64)
            return given.expand(graph.num_graphs, -1)
        shares = torch.linspace(0.0, 1.0, self.bands + 1, dtype=torch.float64)
        top = largest(graph, self.norm).unsqueeze(1)
        if self.spacing == "eigenvalues":
            return shares * top
        if _most_nodes(graph) > LARGEST:
            generator = torch.Generator().manual_seed(self.seed)
            found = density_of_states(graph, self.norm, generator=generator).quantiles(shares).T
            found = torch.minimum(found, top)
        else:
            found = self._quantiles(graph, shares)
        found[:, 0], found[:, -1:] = 0.0, top
        return found

    def _quantiles(self, graph: Graph, shares: Tensor) -> Tensor:
        """Midway between distinct eigenvalues, so that no edge runs through an eigenspace."""
        modes = spectrum(graph, self.norm)
        sizes = [len(block) for block in modes.blocks]
        found = []
        for values, levels in zip(
            modes.eigenvalues.split(sizes), modes.levels.split(sizes), strict=True
        ):
            at = (shares * len(values)).round().long().clamp(max=max(len(values) - 1, 0))
            first = torch.searchsorted(levels, levels[at])
            below = values[(first - 1).clamp(min=0)]
            found.append(torch.where(first > 0, (below + values[at]) / 2, values[at]))
        return torch.stack(found)


def _most_nodes(graph: Graph) -> int:
    if graph.batch is None:
        return graph.num_nodes
    return int(torch.bincount(graph.batch).max())
