"""Operators stored as one sparse matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor

from neuralpde.operators.discs import gershgorin, norms
from neuralpde.operators.graphs import Graphs, Scalar
from neuralpde.operators.linear import Combination, Operator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.product import WIDE, gather_dot, product
from neuralpde.operators.reordered import Reordered
from neuralpde.operators.tags import ROUNDING, Enclosure, Tags, eps_of
from neuralpde.operators.trilinear import Matrix, apply, tracked
from solvers.lasting import kept, lasting
from solvers.products import products

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Combination", "Operator", "SparseOperator"]

SIDES = (None, "row", "col")


class SparseOperator(Operator):
    """A sparse matrix: `(A x)_i = sum_j A_ij x_j`, row `i` receiving from column `j`.

    Values are given once and never change; the torch matrices made of them are kept, and the
    transposed order is found once for each pattern.

    Args:
        pattern: where the entries are.
        values: `[nnz]`, in the order of the pattern; may require gradients.
        symmetric: `A = A^T`, to the bit.
        psd: self-adjoint with a spectrum that is not negative.
        metric: `[nodes]`, positive: `diag(metric) A` is symmetric.
        stochastic: "row" or "col": no entry is negative and those sums are 1.
        generator: "row" or "col": no off-diagonal entry is negative and those sums are 0.
        enclosure: `(lo, hi)`, each a number or `[num_graphs]`, of the spectrum in exact arithmetic.
        batch: graph of each node, sorted, or None for one graph.
        num_graphs: number of graphs.

    Raises:
        ValueError: sizes do not fit, a side is unknown, or several graphs have no `batch`.
        TypeError: the values are not real floating numbers.

    >>> swap, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> A = SparseOperator(swap, torch.tensor([2.0, 2.0]), symmetric=True)
    >>> (A @ torch.tensor([3.0, 5.0])).tolist(), A.spectrum()[1].tolist()
    ([10.0, 6.0], [2.0])
    """

    def __init__(
        self,
        pattern: Pattern,
        values: Float[Tensor, " nnz"],
        *,
        symmetric: bool = False,
        psd: bool = False,
        metric: Float[Tensor, " nodes"] | None = None,
        stochastic: str | None = None,
        generator: str | None = None,
        enclosure: tuple[Scalar, Scalar] | None = None,
        batch: Int64[Tensor, " nodes"] | None = None,
        num_graphs: int = 1,
    ) -> None:
        if stochastic not in SIDES or generator not in SIDES:
            raise ValueError(
                f'stochastic={stochastic!r}, generator={generator!r}; allowed: "row", "col", None'
            )
        if metric is not None and metric.shape != (pattern.num_nodes,):
            raise ValueError(f"metric is {tuple(metric.shape)}, one number for each node is needed")
        graphs = Graphs(batch, num_graphs, values.device)
        one = torch.ones(2, num_graphs, dtype=torch.float64, device=values.device)
        sums = {"row": one, "col": one} if stochastic else {"row": 0 * one, "col": 0 * one}
        tags = Tags(
            eps_of(values.dtype),
            symmetric=symmetric,
            psd=psd,
            metric=None if metric is None else metric.detach().double(),
            nonnegative=stochastic is not None,
            rising=stochastic is not None or generator is not None,
            row_sum=sums["row"] if "row" in (stochastic, generator) else None,
            col_sum=sums["col"] if "col" in (stochastic, generator) else None,
        )
        self._hold(pattern, values, tags, graphs)
        if enclosure is not None:
            self.tags = self._enclosed(enclosure)

    @classmethod
    def tagged(
        cls,
        pattern: Pattern,
        values: Float[Tensor, " nnz"],
        tags: Tags,
        graphs: Graphs,
        enclosure: tuple[Scalar, Scalar] | None = None,
    ) -> Self:
        """Return the operator of which `tags` are known; for makers of operators.

        Args:
            pattern: where the entries are.
            values: the entries.
            tags: what is known; `tags.eps` is that of the dtype of `values`.
            graphs: which graph each node belongs to.
            enclosure: interval of the spectrum in exact arithmetic.
        """
        self = cls.__new__(cls)
        self._hold(pattern, values, tags, graphs)
        if enclosure is not None:
            self.tags = self._enclosed(enclosure)
        return self

    def _hold(self, pattern: Pattern, values: Tensor, tags: Tags, graphs: Graphs) -> None:
        if values.shape != (pattern.nnz,):
            raise ValueError(f"values are {tuple(values.shape)}, {pattern!r} has another number")
        super().__init__(pattern.num_nodes, values.dtype, tags, graphs)
        self.pattern, self.values = pattern, values
        # With gradients the two halves of a symmetric matrix are different variables.
        self._matrix = Matrix(pattern, symmetric=tags.symmetric and not values.requires_grad)
        self._transposed: SparseOperator | None = self if self._matrix.symmetric else None
        self._unrounded: Callable[[], SparseOperator] | None = None
        self._last: dict[str, tuple[tuple[Scalar, ...], SparseOperator]] = {}

    def _enclosed(self, enclosure: tuple[Scalar, Scalar]) -> Tags:
        lo, hi = (self.graphs.numbers(end) for end in enclosure)
        norm = torch.minimum(*self.norms())
        # Values come from sums over rows, whose errors grow with their length.
        sums = self.pattern.longest_row * torch.finfo(torch.float64).eps
        exact = Enclosure(lo, hi, norm)
        return replace(self.tags, enclosure=exact.widened(ROUNDING * self.tags.eps + sums))

    def _like(
        self,
        pattern: Pattern,
        values: Tensor,
        tags: Tags,
        unrounded: Callable[[], SparseOperator] | None = None,
    ) -> SparseOperator:
        other = SparseOperator.tagged(pattern, values, tags, self.graphs)
        other._unrounded = None if self._unrounded is None else unrounded
        return other

    def wide(self) -> SparseOperator:
        """Return the operator in float64, as it was before it, or what made it, was rounded.

        >>> third = SparseOperator(Pattern.identity(1), torch.tensor([1 / 3]).double())
        >>> (third.to(torch.float32) * 3.0).wide().values.item()
        1.0
        """
        if self.dtype is torch.float64:
            return self
        return self._unrounded() if self._unrounded else self._cast(torch.float64, self.device)

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        plain = not torch.compiler.is_compiling() and x.dtype is self.dtype
        plain = plain and x.dim() == 2 and x.shape[0] == self.num_nodes
        if plain and self.dtype not in WIDE and not tracked(self.values, x):
            # The state of every solver: one call of torch, nothing else.
            return apply(self._matrix.forward(self.values), x)
        return product(self._matrix, self.values, x)

    @property
    def T(self) -> SparseOperator:
        """The transposed operator; itself if it is symmetric and has no gradients."""
        if self._transposed is not None:
            return self._transposed
        tags = self.tags.transposed()
        with lasting():
            values = self.values.index_select(0, self.pattern.transposed[2])
            other = self._like(self.pattern.T, values, tags, lambda: self.wide().T)
        if not self.values.requires_grad:
            self._transposed, other._transposed = other, self
        return other

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The values."""
        return (self.values,)

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x> / d values`, without a graph of its own."""
        with torch.no_grad():
            return (gather_dot(self.pattern, g, x).to(self.dtype),)

    def fresh(self) -> Self:
        """Return the operator on a view of its values: a new node of the autograd graph."""
        other = self.tagged(self.pattern, self.values.view_as(self.values), self.tags, self.graphs)
        other._unrounded = self._unrounded
        return other

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> SparseOperator:
        """Return the operator elsewhere; cast to float64 it is what it was, see `wide`."""
        target = torch.empty(0, device=device or self.device).device
        wanted = dtype or self.dtype
        if target == self.device and wanted is self.dtype:
            return self
        if wanted is torch.float64 and self._unrounded is not None:
            return self.wide().to(device=target)
        other = self._cast(wanted, target)
        if self.dtype is torch.float64 or self._unrounded is not None:
            other._unrounded = lambda: self.wide().to(device=target)
        return other

    def _cast(self, dtype: torch.dtype, device: torch.device) -> SparseOperator:
        values = self.values.to(device, dtype)
        tags = self.tags.to(eps_of(values.dtype), values.device)
        batch = None if self.batch is None else self.batch.to(values.device)
        graphs = Graphs(batch, self.num_graphs, values.device)
        return SparseOperator.tagged(self.pattern.to(values.device), values, tags, graphs)

    def __mul__(self, scale: Scalar) -> SparseOperator:
        return self._made("multiple", self._multiple, scale)

    def _multiple(self, scale: Scalar) -> SparseOperator:
        tags = self.tags.scaled(self.graphs.numbers(scale))
        values = self.values * self._per_entry(scale, self.dtype)
        return self._like(self.pattern, values, tags, lambda: self.wide() * scale)

    def _made(
        self, kind: str, make: Callable[..., SparseOperator], *scalars: Scalar
    ) -> SparseOperator:
        # Solves of one field on one graph ask for the same matrices again: the last ones are kept.
        if self.values.requires_grad or any(isinstance(scalar, Tensor) for scalar in scalars):
            return make(*scalars)
        known = self._last.get(kind)
        if known is None or known[0] != scalars:
            with lasting():
                known = self._last[kind] = scalars, make(*scalars)
        return known[1]

    def __add__(self, other: Operator) -> Operator:
        if not isinstance(other, SparseOperator):
            return super().__add__(other)
        self.check_alike(other)
        pattern, mine, theirs = self.pattern.union(other.pattern)
        left, right = pattern.placed(self.values, mine), pattern.placed(other.values, theirs)
        tags = self.tags.added(other.tags)
        total = self._like(pattern, left + right, tags)
        if self._unrounded is not None or other._unrounded is not None:
            total._unrounded = lambda: self._plus(other)
        return total

    def _plus(self, other: SparseOperator) -> SparseOperator:
        return cast("SparseOperator", self.wide() + other.wide())

    def shifted(self, scale: Scalar, shift: Scalar) -> SparseOperator:
        """Return `scale A + shift I` as one matrix, computed in float64 and then cast.

        Scale and shift are numbers, 0-d tensors or `[num_graphs]`, and may require gradients.

        >>> A = SparseOperator(Pattern.identity(2), torch.tensor([1.0, 2.0]))
        >>> A.shifted(3.0, -1.0).values.tolist()
        [2.0, 5.0]
        """
        return self._made("shifted", self._shifted, scale, shift)

    def _shifted(self, scale: Scalar, shift: Scalar) -> SparseOperator:
        pattern, slot = self.pattern.with_diagonal()
        values = self.values.double() * self._per_entry(scale, torch.float64)
        values = pattern.placed(values, None if pattern is self.pattern else slot)
        on_nodes = values.new_ones(self.num_nodes) * self.graphs.spread(shift, torch.float64)
        values = values.index_add(0, pattern.diagonal, on_nodes).to(self.dtype)
        tags = self.tags.scaled(self.graphs.numbers(scale)).shifted(self.graphs.numbers(shift))
        return self._like(pattern, values, tags, lambda: self.wide().shifted(scale, shift))

    def minus_identity(self) -> SparseOperator:
        """Return `A - I`: the generator of the walk with the steps of a stochastic `A`."""
        return self.shifted(1.0, -1.0)

    def addmm_(
        self,
        y: Float[Tensor, "nodes channels"],
        x: Float[Tensor, "nodes channels"],
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> Float[Tensor, "nodes channels"]:
        """Set `y <- beta y + alpha A x` in place, outside autograd, in one call; return `y`.

        With `beta=0` the old `y` is not read, not even its NaN.

        Args:
            y: state of the dtype of the operator, contiguous.
            x: another state, not `y`.
            alpha: factor of the product.
            beta: factor of the old `y`.
        """
        if y.dim() != 2 or y.dtype is not self.dtype or self.dtype in WIDE:
            return super().addmm_(y, x, alpha, beta)
        products.total += 1
        with torch.no_grad():
            return torch.addmm(
                y, self._matrix.forward(self.values), x, beta=beta, alpha=alpha, out=y
            )

    @kept
    def reordered(self) -> Reordered | None:
        """Products with the nodes in another order; None where that gains nothing."""
        return Reordered.of(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: v for name, v in self.__dict__.items() if name != "reordered"}
        return {**state, "_unrounded": None, "_last": {}}

    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries, without gradients."""
        return torch.cat([self.values.detach(), self.values.new_zeros(1)])[self.pattern.diagonal]

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        return norms(self.pattern, self.values, self.graphs, self.symmetric)

    def summands(self) -> Float[Tensor, " graphs"]:
        """Return the length of the longest row of each graph, float64."""
        return self.graphs.reduced(self.pattern.crow.diff().double(), "amax")

    def _real_interval(self) -> tuple[Tensor, Tensor]:
        centre = self.diagonal().double()
        found = gershgorin(self.pattern, self.values, centre, self.graphs, self.symmetric)
        return found.lo, found.hi

    def to_dense(self) -> Float[Tensor, "nodes nodes"]:
        """Return the matrix `A`, differentiable in the values."""
        dense = self.values.new_zeros(self.num_nodes, self.num_nodes)
        return dense.index_put((self.pattern.row, self.pattern.col.long()), self.values)

    def to_scipy(self) -> csr_matrix:
        """Return the matrix as a scipy CSR matrix; half precision comes in float32."""
        from scipy.sparse import csr_matrix

        values = self.values.detach().to("cpu", WIDE.get(self.dtype, self.dtype))
        indices = (self.pattern.col.cpu().numpy(), self.pattern.crow.cpu().numpy())
        return csr_matrix((values.numpy(), *indices), shape=(self.num_nodes, self.num_nodes))

    def _per_entry(self, scalar: Scalar, dtype: torch.dtype) -> float | Tensor:
        factor = self.graphs.spread(scalar, dtype)
        if isinstance(factor, Tensor) and factor.dim():
            return factor.index_select(0, self.pattern.row)
        return factor
