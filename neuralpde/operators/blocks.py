"""Operators that mix the axis of a stalk: sparse matrices of small blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from neuralpde.operators.graphs import Graphs, Scalar
from neuralpde.operators.linear import Operator
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.stalks import Grown
from neuralpde.operators.tags import Tags

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class BlockOperator(Operator):
    """A sparse matrix on `nodes x stalk` rows as an operator on nodes with stalks.

    It acts on states `[nodes, stalk, ...]`, and on the same memory as `[nodes, stalk * channels]`.
    Sums, multiples and shifts of block operators are block operators; a plain operator A that is
    added counts as `A (x) I`, acting on every component of the stalk alike. Numbers of nodes and
    of graphs are the graph's; `core` is the matrix on rows, by which solvers go, since columns of
    a flat state mix. `diagonal()` is `[nodes, stalk]`, and `to_dense()` is the matrix on rows.

    Args:
        core: the matrix; row `i stalk + a` is component `a` of node `i`.
        stalk: rows of each node.

    Raises:
        ValueError: rows are no multiple of `stalk`, or graphs or the metric differ within a stalk.

    >>> turn, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> A = BlockOperator(SparseOperator(turn, torch.tensor([-1.0, 1.0])), 2)
    >>> A.num_nodes, (A @ torch.tensor([[[3.0], [5.0]]])).flatten().tolist()
    (1, [-5.0, 3.0])
    """

    def __init__(self, core: SparseOperator, stalk: int) -> None:
        if stalk < 1 or core.num_nodes % stalk:
            raise ValueError(f"{core.num_nodes} rows are no blocks of {stalk}")
        tags, batch = core.tags, core.batch
        if batch is not None:
            batch = _common("graph", batch, stalk)
        if core.metric is not None:
            tags = replace(tags, metric=_common("metric", core.metric, stalk))
        graphs = Graphs(batch, core.num_graphs, core.device)
        super().__init__(core.num_nodes // stalk, core.dtype, tags, graphs)
        self._core, self.stalk = core, stalk

    @classmethod
    def tagged(
        cls,
        pattern: Pattern,
        values: Float[Tensor, " nnz"],
        tags: Tags,
        graphs: Graphs,
        stalk: int,
    ) -> BlockOperator:
        """Return the operator of which `tags` are known; for makers of operators.

        Args:
            pattern: where the entries are, on `nodes x stalk` rows.
            values: the entries.
            tags: what is known.
            graphs: which graph each node belongs to.
            stalk: rows of each node.
        """
        batch = None if graphs.batch is None else graphs.batch.repeat_interleave(stalk)
        own = Graphs(batch, graphs.num_graphs, graphs.device)
        return cls(SparseOperator.tagged(pattern, values, tags, own), stalk)

    @classmethod
    def alike(cls, A: SparseOperator, stalk: int) -> BlockOperator:
        """Return `A (x) I`: an operator on nodes, acting on every component of a stalk.

        >>> BlockOperator.alike(SparseOperator(Pattern.identity(1), torch.ones(1)), 2).to_dense()
        tensor([[1., 0.],
                [0., 1.]])
        """
        pattern = Grown(A.pattern, stalk, False)
        places, blank = pattern.places(), A.values.new_zeros(pattern.nnz)
        values = blank.index_put((places,), A.values[:, None].expand_as(places))
        metric = A.tags.metric
        tags = A.tags if metric is None else replace(A.tags, metric=metric.repeat_interleave(stalk))
        return cls.tagged(pattern, values, tags, A.graphs, stalk)

    @property
    def core(self) -> SparseOperator:
        """The matrix on `nodes x stalk` rows."""
        return self._core

    def enter(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "rows some"]:
        """Return the state with a row for each component of a stalk; the same memory."""
        width = math.prod(x.shape[1:])
        if x.dim() == 0 or x.shape[0] != self.num_nodes or width % self.stalk or x.dim() == 1:
            raise ValueError(
                f"state is {tuple(x.shape)}; the operator acts on [{self.num_nodes} nodes, stalk "
                f"of {self.stalk}, channels] or [{self.num_nodes}, {self.stalk} * channels]"
            )
        return x.reshape(self.num_nodes * self.stalk, width // self.stalk)

    def leave(self, y: Float[Tensor, "*times rows some"]) -> Float[Tensor, "*times nodes columns"]:
        """Return states with a row for each node."""
        return y.reshape(*y.shape[:-2], self.num_nodes, self.stalk * y.shape[-1])

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        return (self._core @ self.enter(x)).reshape(x.shape)

    @property
    def T(self) -> BlockOperator:
        """The transposed operator."""
        return self._like(self._core.T)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The entries of the blocks."""
        return self._core.tensors

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x> / d values`, without a graph of its own."""
        return self._core.gradients(self.enter(g), self.enter(x))

    def fresh(self) -> BlockOperator:
        """Return the operator on a view of its values: a new node of the autograd graph."""
        return self._like(self._core.fresh())

    def detached(self) -> BlockOperator:
        """Return the operator without gradients."""
        core = self._core
        values = core.values.detach()
        return self._like(SparseOperator.tagged(core.pattern, values, core.tags, core.graphs))

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> BlockOperator:
        """Return the operator in another dtype or on another device; itself if it is there."""
        core = self._core.to(dtype, device)
        return self if core is self._core else self._like(core)

    def diagonal(self) -> Float[Tensor, "nodes stalk"]:
        """Return the diagonal entries of every node's block, without gradients."""
        return self._core.diagonal().reshape(self.num_nodes, self.stalk)

    @property
    def rate(self) -> Float[Tensor, " graphs"]:
        """Largest negated diagonal entry of each graph, float64 and at least 0."""
        return self._core.rate

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        return self._core.norms()

    def spectrum(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return a guaranteed enclosure of the spectrum of each graph; see `Operator.spectrum`."""
        return self._core.spectrum()

    def addmm_(
        self,
        y: Float[Tensor, "nodes columns"],
        x: Float[Tensor, "nodes columns"],
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> Float[Tensor, "nodes columns"]:
        """Set `y <- beta y + alpha A x` in place, outside autograd, in one call; return `y`."""
        rows = self.enter(x)
        self._core.addmm_(y.view(rows.shape), rows, alpha, beta)
        return y

    def shifted(self, scale: Scalar, shift: Scalar) -> BlockOperator:
        """Return `scale A + shift I` as one matrix, computed in float64 and then cast."""
        return self._like(self._core.shifted(scale, shift))

    def to_dense(self) -> Float[Tensor, "rows rows"]:
        """Return the matrix on rows, differentiable in the values."""
        return self._core.to_dense()

    def to_scipy(self) -> csr_matrix:
        """Return the matrix on rows as a scipy CSR matrix."""
        return self._core.to_scipy()

    def wide(self) -> BlockOperator:
        """Return the operator in float64, as it was before it was rounded."""
        return self._like(self._core.wide())

    def __mul__(self, scale: Scalar) -> BlockOperator:
        return self._like(self._core * scale)

    def __add__(self, other: Operator) -> Operator:
        plain: Any = other
        lift: Callable[..., BlockOperator] = BlockOperator.alike
        if other.stalk == 1 and hasattr(other, "pattern"):
            other = lift(plain, self.stalk)
        core = other.core
        if self.stalk != other.stalk or not isinstance(core, SparseOperator):
            raise ValueError(
                f"{self!r} and {other!r} do not add: block operators add to those of the same "
                "stalk and to sparse operators on the nodes"
            )
        self.check_alike(other)
        total = self._core + core
        assert isinstance(total, SparseOperator)
        return self._like(total)

    def _like(self, core: SparseOperator) -> BlockOperator:
        return BlockOperator(core, self.stalk)


def _common(what: str, values: Tensor, stalk: int) -> Tensor:
    blocks = values.view(-1, stalk)
    if not bool((blocks == blocks[:, :1]).all()):
        raise ValueError(f"the {what} of rows differs within a stalk of {stalk}")
    return blocks[:, 0]
