"""Measures of one state: live through `watch`, on `(x, graph)`, or over a whole trajectory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from neuralpde.energies import CONVENTIONS, DirichletForm
from neuralpde.graph import Graph
from solvers.failure import unknown_name


class Shot(Protocol):
    """What `solve` shows to a measure."""

    @property
    def x(self) -> Any:
        """The state."""

    @property
    def graph(self) -> Graph | None:
        """The graph."""


class Measure(ABC):
    """A quantity of one state on a graph; subclasses define `value(x, graph)`.

    A measure is called with a snapshot by `solve(watch=...)`, or with a state and its graph. Of a
    tuple state it reads the first part.

    >>> class Largest(Measure):
    ...     name = "largest"
    ...     def value(self, x, graph):
    ...         return x.abs().amax()
    >>> Largest()(torch.tensor([[-2.0], [1.0]]), torch.tensor([[0, 1], [1, 0]])).item()
    2.0
    """

    name = "measure"

    def __call__(self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None) -> Tensor:
        """The value per graph `[graphs]`."""
        state, where = (x, graph) if isinstance(x, Tensor | tuple) else (x.x, x.graph)
        first = state[0] if isinstance(state, tuple) else state
        if where is None:
            raise ValueError(f"{self.name} is measured on a graph: call it with (x, graph)")
        return self.value(first, Graph.of(where).like(first))

    @abstractmethod
    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The quantity per graph."""


@dataclass(frozen=True)
class Dirichlet(Measure):
    """The Dirichlet energy tr(x^H L x).

    Args:
        norm: "comb" (sum over undirected edges of w_ij |x_i - x_j|^2), "rw" (the same form),
            "sym" or "augmented".

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> Dirichlet()(torch.tensor([[0.0], [3.0]]), edges).item()
    9.0
    """

    norm: str = "comb"
    name = "dirichlet"

    def __post_init__(self) -> None:
        """Refuse a norm nobody knows."""
        if self.norm not in CONVENTIONS:
            raise unknown_name("norm", self.norm, CONVENTIONS)

    @property
    def convention(self) -> str:
        """The formula in words."""
        return CONVENTIONS[self.norm]

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The energy per graph."""
        return DirichletForm.of(graph, self.norm)(x)


@dataclass(frozen=True)
class Norm(Measure):
    """The Frobenius norm |x|.

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> Norm()(torch.tensor([[4.0], [3.0]]), edges).item()
    5.0
    """

    name = "frobenius"
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
    name = "rayleigh quotient"

    def __post_init__(self) -> None:
        """Refuse a norm nobody knows."""
        if self.norm not in CONVENTIONS:
            raise unknown_name("norm", self.norm, CONVENTIONS)

    @property
    def convention(self) -> str:
        """The formula in words."""
        return f"tr(x'Lx) / |x|^2, {self.norm}"

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The quotient per graph; NaN for a zero state."""
        parts = DirichletForm.of(graph, self.norm).parts(x)
        return torch.where(parts.square > 0, parts.energy / parts.square, torch.nan)
