"""The Jacobian of a field at one point, without its entries: products J v and J^T g."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Bool
from torch import Tensor

from solvers.groups import Groups, Matrix
from solvers.problem import Operator

ONE = Groups()

CLOSE = 1e3
"""Units of rounding within which two inner products count as equal."""

Field = Callable[[Tensor], Tensor]


class Jacobian(Protocol):
    """What an implicit step asks of the derivative of its field.

    Attributes:
        value: the field at the point.
        diagonal: the diagonal entries, broadcasting against the state; None if they would cost.
        symmetric: whether ``J = J^T`` is known; None if nothing is.
        metric: positive weights ``m`` per row, float64, such that J is self-adjoint in
            ``sum m x y``; None stands for ones.
        separate: whether the columns of the state do not see each other.
        adjoint: whether there is ``J^T g``.
    """

    @property
    def value(self) -> Matrix:
        """The field at the point."""

    @property
    def diagonal(self) -> Tensor | None:
        """The diagonal entries."""

    @property
    def symmetric(self) -> bool | None:
        """Whether ``J = J^T``, or self-adjoint in the metric."""

    @property
    def metric(self) -> Tensor | None:
        """The weights of the inner product."""

    @property
    def separate(self) -> bool:
        """Whether columns are independent."""

    @property
    def adjoint(self) -> bool:
        """Whether `transposed` works."""

    def times(self, v: Matrix) -> Matrix:
        """Return ``J v``."""

    def transposed(self, g: Matrix) -> Matrix:
        """Return ``J^T g``."""


class Recorded:
    """The Jacobian of any differentiable field, from one recorded evaluation.

    ``J^T g`` is a backward pass. It is linear in g, so that ``J v`` is the backward pass of that
    backward pass: ``v -> d<J^T u, v>/du``, whatever u is. The second recording is made when the
    first ``J v`` is asked for. Fields that autograd does not see through, or not twice (see
    `twice_differentiable`), get differences ``(f(y + e v) - f(y)) / e`` instead.

    Args:
        field: maps a matrix to one of the same shape.
        point: where.
        count: called for every pass through the field.
        groups: the graphs; differences are taken with a step of their own for each.
        differences: whether to take differences at once.

    Source:
        Townsend, A new trick for calculating Jacobian vector products (2017).

    Example:
        >>> J = Recorded(lambda y: y.flip(0) ** 2, torch.tensor([[1.0], [3.0]]), lambda: None)
        >>> J.times(torch.tensor([[1.0], [0.0]])).flatten().tolist()
        [0.0, 2.0]
        >>> J.transposed(torch.tensor([[1.0], [0.0]])).flatten().tolist()
        [0.0, 6.0]
    """

    diagonal = None
    symmetric = None
    metric = None
    separate = False

    def __init__(
        self,
        field: Field,
        point: Matrix,
        count: Callable[[], None],
        groups: Groups = ONE,
        *,
        differences: bool = False,
    ) -> None:
        self._field, self._count, self._groups = field, count, groups
        with torch.enable_grad():
            self._at = point.detach().requires_grad_()
            self._recorded = field(self._at)
        count()
        self.value: Tensor = self._recorded.detach()
        self._once: Tensor | None = None
        self._again: Tensor | None = None
        self.adjoint = self._recorded.requires_grad
        self._differences = differences or not self.adjoint

    @classmethod
    def of(cls, at: Matrix, recorded: Matrix, count: Callable[[], None]) -> Recorded:
        """Take a recording that was made elsewhere; it serves `transposed`.

        Args:
            at: the point, which requires a gradient.
            recorded: the field there, with its graph.
            count: called for every pass through the field.
        """
        self = cls.__new__(cls)
        self._at, self._recorded, self._count = at, recorded, count
        self.value = recorded.detach()
        self.adjoint, self._differences = True, False
        return self

    def transposed(self, g: Matrix) -> Matrix:
        """Return ``J^T g``: one backward pass."""
        self._count()
        return self._pull(self._recorded, self._at, g)

    def times(self, v: Matrix) -> Matrix:
        """Return ``J v``: one pass through the doubled recording, or one difference."""
        if self._differences:
            return self._difference(v)
        if self._once is None:
            with torch.enable_grad():
                self._again = torch.zeros_like(self._recorded, requires_grad=True)
                self._once = self._pull(self._recorded, self._at, self._again, again=True)
            self._count()
        assert self._again is not None
        self._count()
        return self._pull(self._once, self._again, v)

    def _difference(self, v: Matrix) -> Matrix:
        self._count()
        with torch.no_grad():
            at, groups = self._at.detach(), self._groups
            size, length = groups.rms(at), groups.rms(v)
            ratio = torch.where(length > 0, (1.0 + size) / length, 1.0)
            step = groups.spread(torch.finfo(v.dtype).eps ** 0.5 * ratio, v)
            return (self._field(at + step * v) - self.value) / step

    @staticmethod
    def _pull(value: Tensor, at: Tensor, g: Tensor, *, again: bool = False) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(at)
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            value, at, g, retain_graph=True, create_graph=again, allow_unused=True
        )
        return torch.zeros_like(at) if found[0] is None else found[0]


class Split:
    """The Jacobian ``A + diag(r'(y))`` of ``A y + source + r(y)`` with r acting entry by entry.

    Args:
        operator: A, on rows.
        source: a constant matrix, or None.
        rest: r, or None.
        point: where.
        count: called for every pass through the field.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> A = SparseOperator(Pattern.identity(2), torch.tensor([1.0, 2.0]), symmetric=True)
        >>> J = Split(A, None, lambda y: -(y**3), torch.ones(2, 1), lambda: None)
        >>> J.value.flatten().tolist(), J.times(torch.ones(2, 1)).flatten().tolist()
        ([0.0, 1.0], [-2.0, -1.0])
    """

    adjoint = True

    def __init__(
        self,
        operator: Operator,
        source: Matrix | None,
        rest: Field | None,
        point: Matrix,
        count: Callable[[], None],
    ) -> None:
        self._operator, self._count = operator, count
        self._slope: Tensor | None = None
        self.symmetric, self.metric = operator.self_adjoint, operator.metric
        self.separate = operator.separate
        point = point.detach()
        with torch.no_grad():
            self.value = operator @ point
            if source is not None:
                self.value = self.value + source
        if rest is not None:
            with torch.enable_grad():
                at = point.requires_grad_()
                value = rest(at)
                if value.requires_grad:
                    self._slope = torch.autograd.grad(value.sum(), at, allow_unused=True)[0]
            self.value = self.value + value.detach()
        count()
        found = operator.diagonal().reshape(len(point), operator.stalk)
        if operator.stalk > 1:
            found = found.repeat_interleave(point.shape[1] // operator.stalk, 1)
        self.diagonal = found if self._slope is None else found + self._slope

    def times(self, v: Matrix) -> Matrix:
        """Return ``A v + r' v``."""
        self._count()
        with torch.no_grad():
            return self._with_slope(self._operator @ v, v)

    def transposed(self, g: Matrix) -> Matrix:
        """Return ``A^T g + r' g``."""
        self._count()
        with torch.no_grad():
            return self._with_slope(self._operator.T @ g, g)

    def _with_slope(self, product: Tensor, v: Tensor) -> Tensor:
        return product if self._slope is None else torch.addcmul(product, self._slope, v)


def looks_symmetric(jacobian: Jacobian, groups: Groups) -> Bool[Tensor, " graphs"]:
    """Test ``<J v, w> = <v, J w>`` for one random pair; who passes need not be symmetric elsewhere.

    Args:
        jacobian: J; False for all graphs if it has no adjoint.
        groups: the graphs.

    Example:
        >>> signs = torch.tensor([[1.0], [-1.0]])
        >>> turn = Recorded(lambda y: y.flip(0) * signs, torch.ones(2, 1), lambda: None)
        >>> looks_symmetric(turn, Groups()).tolist()
        [False]
    """
    like = jacobian.value
    if not jacobian.adjoint:
        return torch.zeros(groups.num_graphs, dtype=torch.bool, device=like.device)
    v, w = _pair(like)
    Jv, Jw = jacobian.transposed(v), jacobian.transposed(w)
    gap = (groups.dot(Jv, w) - groups.dot(v, Jw)).abs()
    size = (groups.dot(Jv, Jv) * groups.dot(w, w)).sqrt()
    return (gap <= CLOSE * torch.finfo(like.dtype).eps * size)[:, 0]


def twice_differentiable(jacobian: Jacobian, groups: Groups) -> bool:
    """Test whether ``<J v, w> = <v, J^T w>`` for one random pair.

    It fails where a part of the field is marked as differentiable once: torch then leaves that
    part out of ``J v`` without a word, or raises.

    Args:
        jacobian: J.
        groups: the graphs.

    Example:
        >>> twice_differentiable(Recorded(torch.sin, torch.ones(2, 1), lambda: None), Groups())
        True
    """
    like = jacobian.value
    if not jacobian.adjoint:
        return False
    v, w = _pair(like)
    Jw = jacobian.transposed(w)
    try:
        Jv = jacobian.times(v)
    except RuntimeError:
        # torch's word for an operation of the field that has no second derivative.
        return False
    gap = (groups.dot(Jv, w) - groups.dot(v, Jw)).abs().sum()
    size = (groups.dot(Jw, Jw) * groups.dot(v, v)).sqrt().sum()
    return bool(gap <= CLOSE * torch.finfo(like.dtype).eps * size)


def _pair(like: Matrix) -> tuple[Matrix, Matrix]:
    generator = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, *like.shape, generator=generator, dtype=torch.float64, device="cpu").to(
        like
    )
    return v, w
