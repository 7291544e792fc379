"""What every linear operator on node states can do, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Self

import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor

from neuralpde.operators.coordinates import Coordinates
from neuralpde.operators.graphs import Graphs, Scalar
from neuralpde.operators.tags import ROUNDING, Tags
from neuralpde.operators.tracing import Traced
from neuralpde.operators.units import matrix, units


class Operator(Coordinates, Traced, ABC):
    """A linear map `x -> A x` of states `[nodes, ...]` that keeps their shape.

    Operators combine: `A + B`, `A - B`, `-A`, `c * A`, `A / c`, `A.T`; what is known of them (see
    `Tags`) follows by rules. They never change.

    A new kind gives the attributes below and the abstract methods. Everything else, sums with other
    kinds included, then works through products; override what can be done faster (a scalar that
    merges into the storage, a fused `addmm_`).

    Args:
        num_nodes: rows of the states it acts on.
        dtype: real dtype of its entries.
        tags: what is known of it.
        graphs: which graph each node belongs to; no entry joins two graphs.

    >>> from neuralpde.operators import Pattern, SparseOperator, identity
    >>> A = SparseOperator(Pattern.identity(2), torch.tensor([1.0, 2.0]), symmetric=True)
    >>> (3.0 * A - identity(A)).to_dense().diagonal().tolist()
    [2.0, 5.0]
    """

    # The self-adjoint H where `A = -i H`, see `SkewAdjoint`.
    hamiltonian: Operator | None = None
    # Makes numpy's scalars leave `c * A` to `A.__rmul__`.
    __array_ufunc__ = None

    def __init__(self, num_nodes: int, dtype: torch.dtype, tags: Tags, graphs: Graphs) -> None:
        self.num_nodes, self.dtype, self.tags, self.graphs = num_nodes, dtype, tags, graphs

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.graphs.device

    @property
    def batch(self) -> Int64[Tensor, " nodes"] | None:
        """Graph of each node, sorted; None for one graph."""
        return self.graphs.batch

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return self.graphs.num_graphs

    @abstractmethod
    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        """Return `A x`, differentiable twice in `x` and in `tensors`."""

    @property
    @abstractmethod
    def T(self) -> Operator:
        """The transposed operator."""

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the operator holds and that may require gradients."""

    @abstractmethod
    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x> / d` each of `tensors`, without a graph of its own."""

    @abstractmethod
    def fresh(self) -> Self:
        """Return the operator on views of its tensors: new nodes of the autograd graph."""

    @abstractmethod
    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Operator:
        """Return the operator in another dtype or on another device; itself if it is there."""

    @abstractmethod
    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries, without gradients."""

    @abstractmethod
    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds, float64, of the largest row sum and column sum of moduli."""

    def summands(self) -> Float[Tensor, " graphs"]:
        """Return the most numbers that a product adds up for one entry of each graph, float64."""
        ones = torch.ones(self.num_nodes, dtype=torch.float64, device=self.device)
        return self.graphs.reduced(ones, "sum")

    @property
    def symmetric(self) -> bool:
        """Whether `A = A^T`."""
        return self.tags.symmetric

    @property
    def psd(self) -> bool:
        """Whether `A` is self-adjoint with a spectrum that is not negative."""
        return self.tags.psd

    @property
    def metric(self) -> Float[Tensor, " nodes"] | None:
        """Weights `m > 0` with `A` self-adjoint in `sum_i m_i x_i y_i`; None if plainly, or not."""
        return self.tags.metric

    @property
    def self_adjoint(self) -> bool:
        """Whether `A` is symmetric, plainly or in its metric."""
        return self.tags.self_adjoint

    @property
    def stochastic(self) -> str | None:
        """Return "row" or "col": entries >= 0 and those sums 1; "row" if both."""
        return self.tags.stochastic

    @property
    def generator(self) -> str | None:
        """Return "row" or "col": off-diagonal entries >= 0, those sums 0; "row" if both."""
        return self.tags.generator

    @property
    def rate(self) -> Float[Tensor, " graphs"]:
        """Largest `-A_ii` of each graph, float64 and at least 0: how fast a generator jumps."""
        return self.graphs.reduced(-self.diagonal().double(), "amax").clamp(min=0.0)

    def spectrum(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return a guaranteed enclosure `(lo, hi)` of the spectrum of each graph, float64.

        Rounding of the entries is counted in, so that a bound of 0 comes as a tiny negative number.

        Raises:
            ValueError: the operator is not known to be self-adjoint.
        """
        if not self.self_adjoint:
            raise ValueError(
                "the spectrum of an operator that is not self-adjoint lies in no real interval: "
                "use .bound() for its largest modulus, or build it on an undirected graph "
                '(graph.undirected(reduce="max"))'
            )
        if self.tags.enclosure is not None:
            return self.tags.enclosure.lo, self.tags.enclosure.hi
        return self._real_interval()

    def _real_interval(self) -> tuple[Tensor, Tensor]:
        radius = torch.minimum(*self.norms())
        return -radius, radius

    def bound(self) -> Float[Tensor, " graphs"]:
        """Return a guaranteed bound on the modulus of every eigenvalue of each graph, float64."""
        if self.self_adjoint:
            lo, hi = self.spectrum()
            return torch.maximum(lo.abs(), hi.abs())
        return torch.minimum(*self.norms())

    def shifted(self, scale: Scalar, shift: Scalar) -> Operator:
        """Return `scale A + shift I`, for numbers, 0-d tensors or `[num_graphs]`."""
        return Combination([(scale, self)], shift)

    def minus_identity(self) -> Operator:
        """Return `A - I`: the generator of the walk with the steps of a stochastic `A`."""
        return self.shifted(1.0, -1.0)

    def addmm_(
        self,
        y: Float[Tensor, "nodes channels"],
        x: Float[Tensor, "nodes channels"],
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> Float[Tensor, "nodes channels"]:
        """Set `y <- beta y + alpha A x` in place, outside autograd, and return `y`.

        With `beta=0` the old `y` is not read, not even its NaN. `x` is another state than `y`.
        """
        with torch.no_grad():
            product = self @ x
            if beta == 0.0:
                return torch.mul(product, alpha, out=y)
            return y.mul_(beta).add_(product, alpha=alpha)

    def to_dense(self) -> Float[Tensor, "rows rows"]:
        """Return the matrix `A`; one that mixes channels acts on `x.flatten()`."""
        channels = self.tags.channels
        return matrix(self @ units(self, self.dtype, channels), channels)

    def __mul__(self, scale: Scalar) -> Operator:
        return Combination([(scale, self)])

    def __add__(self, other: Operator) -> Operator:
        return other + self if other.stalk > 1 else Combination([(1.0, self), (1.0, other)])

    def __rmul__(self, scale: Scalar) -> Operator:
        return self * scale

    def __truediv__(self, scale: Scalar) -> Operator:
        return self * (1.0 / (scale.double() if isinstance(scale, Tensor) else scale))

    def __neg__(self) -> Operator:
        return self * -1.0

    def __sub__(self, other: Operator) -> Operator:
        return self + -other

    def check_alike(self, other: Operator) -> None:
        """Refuse an operator that cannot be added to this one.

        Raises:
            ValueError: it acts on other nodes or other graphs.
            TypeError: it has another dtype.
        """
        if self.num_nodes != other.num_nodes or not self.graphs.same_as(other.graphs):
            raise ValueError(
                f"{self!r} and {other!r} do not add: they act on different nodes or graphs"
            )
        if self.dtype != other.dtype:
            raise TypeError(
                f"operators in {self.dtype} and {other.dtype} do not add: use .to({self.dtype})"
            )

    def __repr__(self) -> str:
        graphs = f", {self.num_graphs} graphs" if self.num_graphs > 1 else ""
        names = ("symmetric", "psd", "stochastic", "generator")
        known = "".join(f", {name}" for name in names if getattr(self, name))
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({self.num_nodes} nodes{graphs}, {dtype}{known})"


class Combination(Operator):
    """A sum `s_1 A_1 + ... + s_k A_k + shift I` of operators that have no common storage.

    Args:
        terms: pairs of a scalar and an operator; at least one.
        shift: multiple of the identity.

    Raises:
        ValueError: the operators act on different nodes or graphs.
        TypeError: their dtypes differ.
    """

    def __init__(self, terms: Sequence[tuple[Scalar, Operator]], shift: Scalar = 0.0) -> None:
        self.terms, self.shift = tuple(terms), shift
        first = self.terms[0][1]
        tags = [A.tags.scaled(first.graphs.numbers(scale)) for scale, A in self.terms]
        for _, A in self.terms[1:]:
            first.check_alike(A)
        super().__init__(
            first.num_nodes,
            first.dtype,
            reduce(Tags.added, tags).shifted(first.graphs.numbers(shift)),
            first.graphs,
        )

    def _spread(self, scalar: Scalar, x: Tensor) -> float | Tensor:
        factor = self.graphs.spread(scalar, x.real.dtype)
        if isinstance(factor, Tensor) and factor.dim():
            return factor.reshape(-1, *[1] * (x.dim() - 1))
        return factor

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        y = self._spread(self.shift, x) * x
        for scale, A in self.terms:
            y = y + self._spread(scale, x) * (A @ x)
        return y

    @property
    def T(self) -> Operator:
        """The transposed sum."""
        return Combination([(scale, A.T) for scale, A in self.terms], self.shift)

    @property
    def _scalars(self) -> tuple[Scalar, ...]:
        return (*(scale for scale, _ in self.terms), self.shift)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The scalars that are tensors, then the tensors of the operators."""
        scalars = tuple(scalar for scalar in self._scalars if isinstance(scalar, Tensor))
        return scalars + tuple(tensor for _, A in self.terms for tensor in A.tensors)

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x> / d` each of `tensors`."""
        with torch.no_grad():
            of_scalars = [
                self._pairing(scalar, g, x if A is None else A @ x)
                for scalar, A in zip(
                    self._scalars, (*(A for _, A in self.terms), None), strict=True
                )
                if isinstance(scalar, Tensor)
            ]
            of_terms = [A.gradients(self._spread(scale, g) * g, x) for scale, A in self.terms]
        return (*of_scalars, *(tensor for part in of_terms for tensor in part))

    def _pairing(self, scalar: Tensor, g: Tensor, y: Tensor) -> Tensor:
        rows = (g.conj() * y).real if g.is_complex() else g * y
        rows = rows.reshape(self.num_nodes, -1).sum(1)
        if self.batch is None or not scalar.dim():
            return rows.sum().to(scalar.dtype).reshape(scalar.shape)
        return rows.new_zeros(self.num_graphs).index_add(0, self.batch, rows).to(scalar.dtype)

    def fresh(self) -> Combination:
        """Return the sum on views of its tensors."""
        *scales, shift = (s.view_as(s) if isinstance(s, Tensor) else s for s in self._scalars)
        operators = (A.fresh() for _, A in self.terms)
        return Combination(list(zip(scales, operators, strict=True)), shift)

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Operator:
        """Return the sum in another dtype or on another device."""
        return Combination([(scale, A.to(dtype, device)) for scale, A in self.terms], self.shift)

    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries, without gradients."""
        with torch.no_grad():
            total = torch.zeros(self.num_nodes, dtype=self.dtype, device=self.device)
            total = total + self.graphs.spread(self.shift, self.dtype)
            for scale, A in self.terms:
                total = total + self.graphs.spread(scale, self.dtype) * A.diagonal()
            return total

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        rows = columns = self.graphs.numbers(self.shift).abs()
        for scale, A in self.terms:
            factor, (row, column) = self.graphs.numbers(scale).abs(), A.norms()
            rows, columns = rows + factor * row, columns + factor * column
        slack = 1.0 + ROUNDING * self.tags.eps
        return rows * slack, columns * slack
