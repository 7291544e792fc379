"""What the solvers ask of a linear operator; `neuralpde.operators.Operator` provides it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor


class Reordered(Protocol):
    """Products with ``P A P^T``, P a permutation of the nodes; one graph only.

    Attributes:
        order: the node that stands at each place.
    """

    order: Int64[Tensor, " nodes"]

    def enter(self, x: Tensor, out: Tensor) -> Tensor:
        """Return ``P x`` in ``out``."""

    def leave(self, y: Tensor, out: Tensor) -> Tensor:
        """Return ``P^T y`` in ``out``."""

    def addmm_(self, y: Tensor, x: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
        """Set ``y <- beta y + alpha P A P^T x`` in place and return ``y``."""


class Operator(Protocol):
    """A sparse square matrix on the nodes of one graph, or of a batch of graphs.

    ``y = A x`` for states ``[nodes, ...]``. Tags state what is known about the matrix; a solver
    relies on them and never looks at the entries.
    """

    @property
    def num_nodes(self) -> int:
        """Number of rows and of columns."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the entries, or of H where A is ``-i H``; real."""

    @property
    def device(self) -> torch.device:
        """Where the entries are."""

    @property
    def num_graphs(self) -> int:
        """Number of graphs; no entry joins two of them."""

    @property
    def batch(self) -> Int64[Tensor, " nodes"] | None:
        """Graph of each node, sorted; may be None where there is one graph."""

    @property
    def separate(self) -> bool:
        """Whether the columns of a state do not see each other, and are all treated alike."""

    @property
    def reordered(self) -> Reordered | None:
        """Products with the rows of states in an order that suits the cache better, or None."""

    @property
    def symmetric(self) -> bool:
        """Whether ``A = A.T``."""

    @property
    def metric(self) -> Float[Tensor, " nodes"] | None:
        """Positive ``m`` such that A is self-adjoint in ``sum_i m_i x_i y_i``; float64."""

    @property
    def self_adjoint(self) -> bool:
        """Whether A is symmetric or has a metric."""

    @property
    def psd(self) -> bool:
        """Whether no eigenvalue is negative."""

    @property
    def stochastic(self) -> str | None:
        """Return "row" or "col" where entries are not negative and those sums are 1."""

    @property
    def generator(self) -> str | None:
        """Return "row" or "col" where only the diagonal is negative and those sums are 0."""

    @property
    def hamiltonian(self) -> Operator | None:
        """The self-adjoint H of a unitary flow, ``A = -i H``; None for real operators."""

    @property
    def rate(self) -> Float[Tensor, " graphs"]:
        """Largest ``-A_ii`` of each graph, at least 0; float64."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors it holds that may require gradients."""

    @property
    def T(self) -> Operator:
        """The transposed operator."""

    @property
    def stalk(self) -> int:
        """Rows of `core` for each node: where it is not 1, A mixes columns of ``[nodes, ...]``."""

    @property
    def core(self) -> Operator:
        """The operator in coordinates in which columns do not mix; itself for most."""

    def enter(self, x: Float[Tensor, "nodes columns"]) -> Float[Tensor, "rows some"]:
        """Return a state in the coordinates of `core`: an orthogonal map, differentiable."""

    def leave(self, y: Float[Tensor, "*times rows some"]) -> Float[Tensor, "*times nodes columns"]:
        """Return states from there."""

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        """Multiply; differentiable twice in x and in `tensors`."""

    def gradients(
        self, g: Float[Tensor, "nodes channels"], x: Float[Tensor, "nodes channels"]
    ) -> tuple[Tensor, ...]:
        """Return ``d<g, A x>/d tensors``, without a graph."""

    def diagonal(self) -> Float[Tensor, "nodes ..."]:
        """Return the diagonal entries, without gradients; ``[nodes, stalk]`` with stalks."""

    def summands(self) -> Float[Tensor, " graphs"]:
        """Return the most numbers that a product adds up for one entry of each graph; float64."""

    def spectrum(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return ``(lo, hi)`` of each graph in float64; every eigenvalue lies in between."""

    def shifted(self, scale: float | Tensor, shift: float | Tensor) -> Operator:
        """Return ``scale A + shift I`` as one matrix; one number each, or one per graph."""

    def addmm_(self, y: Tensor, x: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
        """Overwrite ``y`` with ``beta y + alpha A x``; contiguous real matrices, no autograd."""

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Operator:
        """Return the operator in another dtype or on another device.

        An operator that knows its entries more precisely than its dtype returns them so.
        """


def numbers(values: Float[np.ndarray, " graphs"], A: Operator) -> float | Tensor:
    """Return one number per graph as :meth:`Operator.shifted` takes them."""
    return float(values[0]) if len(values) == 1 else torch.as_tensor(values, device=A.device)
