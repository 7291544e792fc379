"""Measures made of a Dirichlet form: energies in the conventions in use, norm, quotient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analysis.measures import Measure, Shot, sizes
from neuralpde.energies import CONVENTIONS, DirichletForm, dirichlet_energy
from neuralpde.graph import Graph
from neuralpde.looks import Parts
from neuralpde.tracking import SAFETY
from solvers.failure import unknown_name

SCALES = {
    "total": "tr(x'Lx)",
    "half": "tr(x'Lx) / 2",
    "survey": "2 tr(x'Lx) / n",
    "relative": "tr(x'Lx) / |x|^2",
    "centred": "tr(x'Lx) / |x - Px|^2",
}


@dataclass(frozen=True)
class Dirichlet(Measure):
    """The Dirichlet energy tr(x^H L x), in the conventions in circulation.

        total    tr(x^H L x); with "comb" the sum over undirected edges of w_ij |x_i - x_j|^2
        half     half of it: x' = -L x is its gradient flow
        survey   (1/n) sum_i sum_j w_ij |x_i - x_j|^2 = (2/n) tr(x^H L x)
        relative tr(x^H L x) / |x|^2, the Rayleigh quotient; NaN for a zero state
        centred  tr(x^H L x) / |x - P x|^2, P the projection onto the kernel of L: between
                 lambda_2 and lambda_max, it tells which mode is left; NaN at consensus

    Only the square root satisfies the triangle inequality that the survey asks of a node-similarity
    measure. On a directed graph "comb" is the sum over arcs of w_ij |x_i - x_j|^2 / 2, that of the
    average of w_ij and w_ji; `DirectedDirichlet` weights arcs by how often a walk takes them.
    `FormEnergy` is the energy of a sheaf or a bundle.

    Args:
        norm: "comb", "rw" (the same form), "sym" (its kernel is D^(1/2) 1, not the constants) or
            "augmented" (that of GCN's propagation, with self-loops).
        scale: "total", "half", "survey", "relative" or "centred".
        root: Whether the square root is taken.
        name: Name of its series.

    References:
        Rusch, Bronstein and Mishra, A survey on oversmoothing in graph neural networks, 2023,
        arXiv:2303.10993 ("survey"); Cai and Wang, A note on over-smoothing for graph neural
        networks, 2020, arXiv:2006.13318 ("augmented").

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> x = torch.tensor([[0.0], [3.0]])
    >>> [Dirichlet(scale=scale)(x, edges).item() for scale in ("total", "half", "centred")]
    [9.0, 4.5, 2.0]
    """

    norm: str = "comb"
    scale: str = "total"
    root: bool = False
    name: str = "dirichlet"

    def __post_init__(self) -> None:
        """Refuse a norm or a scale nobody knows."""
        if self.norm not in CONVENTIONS:
            raise unknown_name("norm", self.norm, CONVENTIONS)
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)

    @property
    def convention(self) -> str:
        """The formula in words."""
        form = CONVENTIONS[self.norm].replace("tr(x'Lx)", SCALES[self.scale])
        return form.replace(": ", ": root of ", 1) if self.root else form

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The energy per graph, and its absolute error by rounding, from one product."""
        state, where = self._seen(x, graph)
        form = DirichletForm.of(where, self.norm)
        parts = form.parts(state)
        error = rounding(parts, bound(where, form), state.dtype)
        about = (parts.square, parts.deviation, where, state.dtype)
        return self._scaled(parts.energy, *about), self._scaled(error, *about)

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The energy per graph; differentiable where the state is."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.reading(x, graph)[0]
        form = DirichletForm.of(graph, self.norm)
        energy = dirichlet_energy(x, graph, self.norm)
        squares = _square(x, form), _square(form.deviation(x), form)
        return self._scaled(energy, *squares, graph, x.dtype)

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """What rounding of the form and of the state leaves."""
        return self.reading(x, graph)[1]

    def _scaled(
        self, energy: Tensor, square: Tensor, deviation: Tensor, graph: Graph, dtype: torch.dtype
    ) -> Tensor:
        if self.scale == "half":
            energy = energy / 2
        elif self.scale == "survey":
            energy = 2 * energy / sizes(graph).to(energy)
        elif self.scale == "relative":
            energy = torch.where(square > 0, energy / square, torch.nan)
        elif self.scale == "centred":
            # What rounding leaves of a state in the kernel.
            consensus = (4 * torch.finfo(dtype).eps) ** 2 * square
            energy = torch.where(deviation > consensus, energy / deviation, torch.nan)
        return energy.sqrt() if self.root else energy


@dataclass(frozen=True)
class Norm(Measure):
    """The Frobenius norm |x|.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> Norm()(torch.tensor([[4.0], [3.0]]), edges).item()
    5.0
    """

    name: str = "frobenius"
    convention = "Frobenius norm of x"

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The norm per graph."""
        return DirichletForm.of(graph, "comb").parts(x).square.sqrt()


@dataclass(frozen=True)
class Rayleigh(Measure):
    """The Rayleigh quotient tr(x^H L x) / |x|^2: what the energy says once the norm is left out.

    Args:
        norm: As in `Dirichlet`; "rw" divides by the degree-weighted norm.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> Rayleigh()(torch.tensor([[1.0], [-1.0]]), edges).item()
    2.0
    """

    norm: str = "comb"
    name: str = "rayleigh quotient"

    def __post_init__(self) -> None:
        """Refuse a norm nobody knows."""
        if self.norm not in CONVENTIONS:
            raise unknown_name("norm", self.norm, CONVENTIONS)

    @property
    def convention(self) -> str:
        """The formula in words."""
        return f"tr(x'Lx) / |x|^2, {self.norm}"

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The quotient per graph, and its absolute error by rounding; NaN for a zero state."""
        state, where = self._seen(x, graph)
        form = DirichletForm.of(where, self.norm)
        parts = form.parts(state)
        square = torch.where(parts.square > 0, parts.square, torch.nan)
        return parts.energy / square, rounding(parts, bound(where, form), state.dtype) / square

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The quotient per graph; NaN for a zero state."""
        return self.reading(x, graph)[0]

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """What rounding of the form and of the state leaves."""
        return self.reading(x, graph)[1]


def bound(graph: Graph, form: DirichletForm) -> Tensor:
    """A bound of E(x) / |x|^2 per graph, kept where the graph is.

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> bound(pair, DirichletForm.of(pair)).tolist()
    [2.0]
    """
    found: Tensor = graph.remember(
        ("largest", form.norm), lambda: form.largest.to(graph.device, torch.float64)
    )
    return found


def rounding(parts: Parts, largest: Tensor, dtype: torch.dtype) -> Tensor:
    """What rounding leaves in a form, near and away from its kernel.

    Args:
        parts: One evaluation of the form.
        largest: A bound of E(x) / |x|^2.
        dtype: That of the state.
    """
    eps = torch.finfo(dtype).eps
    error = eps * parts.deviation + 4 * eps**2 * parts.square
    return SAFETY * largest * error


def _square(x: Tensor, form: DirichletForm) -> Tensor:
    """|x|^2 per graph in the metric of a form, differentiable."""
    squares = x.abs().square().reshape(len(x), -1).sum(1)
    return form.rows.sums((squares if form.mass is None else form.mass.to(squares) * squares,))
