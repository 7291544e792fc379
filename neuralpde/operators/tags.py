"""What is known about an operator without looking at its entries, and how it propagates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 4.0
"""Rounding errors that one operation of the algebra may commit on an entry, in units of eps."""


class Enclosure(NamedTuple):
    """An interval that holds the spectrum, one per graph, and the size its rounding is judged by.

    Attributes:
        lo: lower end, float64 `[num_graphs]`.
        hi: upper end.
        norm: at least the spectral radius of the matrix of moduli `|A_ij|`, hence `eps * norm` is
            what rounding every entry by `eps` can move an eigenvalue of a self-adjoint operator.
    """

    lo: Tensor
    hi: Tensor
    norm: Tensor

    def widened(self, eps: float) -> Enclosure:
        """Return the interval after every entry has moved by `eps` of itself.

        >>> one = torch.ones(1)
        >>> Enclosure(0 * one, one, one).widened(0.5)[:2]
        (tensor([-0.5000]), tensor([1.5000]))
        """
        return Enclosure(self.lo - eps * self.norm, self.hi + eps * self.norm, self.norm)


@dataclass(frozen=True)
class Tags:
    """Facts that hold for an operator up to the rounding of its entries.

    Rules: each fact of `c A`, `A + B` and `A^T` is claimed only where it follows.

    | fact | `c A` | `A + B` | `A^T` |
    |---|---|---|---|
    | symmetric | any c | both | kept |
    | metric m | any c | the same m | 1 / m |
    | psd | c >= 0 | both, self-adjoint in one metric | kept |
    | nonnegative | c >= 0 | both | kept |
    | rising, falling | c >= 0 keeps, c <= 0 exchanges | both | kept |
    | row_sum, col_sum | times c | added | exchanged |
    | enclosure | times c, turned for c < 0 | added, if self-adjoint in one metric | kept |
    | multiple | times c | added, if both | kept |
    | channels | kept | that of either | kept |

    Adding a multiple of the identity keeps whatever does not depend on the diagonal.

    `stochastic` is nonnegative with unit sums and `generator` is rising with zero sums, so that
    `P - I`, `c (P - I)` with `c >= 0` and `-L` become generators without a rule of their own.

    Args:
        eps: relative rounding of the entries.
        symmetric: `A = A^T`; then `metric` is None and both sums agree.
        psd: self-adjoint with non-negative spectrum.
        metric: float64 `[nodes]`, positive: `diag(m) A` is symmetric.
        nonnegative: no entry is negative.
        rising: no entry off the diagonal is negative.
        falling: no entry off the diagonal is positive.
        row_sum: float64 `[2, num_graphs]`: the common sum of all rows of a graph, and the sum of
            the moduli it was added up from, which tells a zero from a small number.
        col_sum: the same for columns.
        enclosure: holds the spectrum, widened for the rounding so far.
        multiple: float64 `[num_graphs]`: the operator is this multiple of the identity.
        channels: the operator mixes the channels of a state, or treats them differently, and takes
            so many; None: it acts on every column of a state alone, and on each in the same way.
    """

    eps: float
    symmetric: bool = False
    psd: bool = False
    metric: Float[Tensor, " nodes"] | None = None
    nonnegative: bool = False
    rising: bool = False
    falling: bool = False
    row_sum: Float[Tensor, "2 graphs"] | None = None
    col_sum: Float[Tensor, "2 graphs"] | None = None
    enclosure: Enclosure | None = None
    multiple: Float[Tensor, " graphs"] | None = None
    channels: int | None = None

    @classmethod
    def identity(cls, eps: float, num_graphs: int, device: torch.device | None = None) -> Tags:
        """Return what is known of the identity.

        >>> Tags.identity(0.0, 1).stochastic
        'row'
        """
        one = torch.ones(num_graphs, dtype=torch.float64, device=device)
        return cls(
            eps,
            symmetric=True,
            psd=True,
            nonnegative=True,
            rising=True,
            falling=True,
            row_sum=torch.stack([one, one]),
            enclosure=Enclosure(one, one, one),
            multiple=one,
        )

    def __post_init__(self) -> None:
        if self.symmetric:
            object.__setattr__(self, "metric", None)
            known = self.col_sum if self.row_sum is None else self.row_sum
            object.__setattr__(self, "row_sum", known)
            object.__setattr__(self, "col_sum", known)

    @property
    def self_adjoint(self) -> bool:
        """Whether the operator is symmetric in some inner product that is known."""
        return self.symmetric or self.metric is not None

    @property
    def stochastic(self) -> str | None:
        """Return "row" or "col" where entries are non-negative and those sums are 1."""
        return self._summing_to(1.0) if self.nonnegative else None

    @property
    def generator(self) -> str | None:
        """Return "row" or "col" where off-diagonal entries are >= 0 and those sums are 0."""
        return self._summing_to(0.0) if self.rising else None

    def _summing_to(self, total: float) -> str | None:
        for side, sums in (("row", self.row_sum), ("col", self.col_sum)):
            # Scalars come in single precision at best, whatever the entries are rounded to.
            slack = ROUNDING * min(self.eps, torch.finfo(torch.float32).eps)
            if sums is not None and bool(((sums[0] - total).abs() <= slack * sums[1]).all()):
                return side
        return None

    def scaled(self, scale: Float[Tensor, " graphs"]) -> Tags:
        """Return what is known of `c A`, with a factor for each graph.

        >>> Tags(0.0, rising=True).scaled(torch.tensor([-2.0])).falling
        True
        """
        up, down = bool((scale >= 0).all()), bool((scale <= 0).all())
        size = torch.stack([scale, scale.abs()])
        return replace(
            self,
            psd=self.psd and up,
            nonnegative=self.nonnegative and up,
            rising=(self.rising and up) or (self.falling and down),
            falling=(self.falling and up) or (self.rising and down),
            row_sum=None if self.row_sum is None else self.row_sum * size,
            col_sum=None if self.col_sum is None else self.col_sum * size,
            enclosure=self._scaled_enclosure(scale),
            multiple=None if self.multiple is None else self.multiple * scale,
        )

    def _scaled_enclosure(self, scale: Tensor) -> Enclosure | None:
        if self.enclosure is None:
            return None
        ends = self.enclosure.lo * scale, self.enclosure.hi * scale
        norm = self.enclosure.norm * scale.abs()
        exact = Enclosure(torch.minimum(*ends), torch.maximum(*ends), norm)
        return exact.widened(ROUNDING * self.eps)

    def shifted(self, shift: Float[Tensor, " graphs"]) -> Tags:
        """Return what is known of `A + c I`, with a multiple for each graph.

        >>> Tags.identity(0.0, 1).shifted(torch.tensor([-1.0])).generator
        'row'
        """
        up, size = bool((shift >= 0).all()), torch.stack([shift, shift.abs()])
        enclosure = self.enclosure
        if enclosure is not None:
            lo, hi, norm = enclosure
            enclosure = Enclosure(lo + shift, hi + shift, norm + shift.abs())
            enclosure = enclosure.widened(ROUNDING * self.eps)
        return replace(
            self,
            psd=self.psd and up,
            nonnegative=self.nonnegative and up,
            row_sum=_sum(self.row_sum, size),
            col_sum=_sum(self.col_sum, size),
            enclosure=enclosure,
            multiple=_sum(self.multiple, shift),
        )

    def added(self, other: Tags) -> Tags:
        """Return what is known of `A + B`.

        >>> Tags(0.0, symmetric=True, psd=True).added(Tags(0.0, symmetric=True)).psd
        False
        """
        if other.multiple is not None:
            return self.shifted(other.multiple)
        if self.multiple is not None:
            return other.shifted(self.multiple)
        eps = max(self.eps, other.eps)
        alike = self.self_adjoint and _same(self.metric, other.metric) and other.self_adjoint
        enclosure = None
        if alike and self.enclosure is not None and other.enclosure is not None:
            ends = zip(self.enclosure, other.enclosure, strict=True)
            enclosure = Enclosure(*(a + b for a, b in ends)).widened(ROUNDING * eps)
        return Tags(
            eps=eps,
            symmetric=self.symmetric and other.symmetric,
            psd=alike and self.psd and other.psd,
            metric=self.metric if alike else None,
            nonnegative=self.nonnegative and other.nonnegative,
            rising=self.rising and other.rising,
            falling=self.falling and other.falling,
            row_sum=_sum(self.row_sum, other.row_sum),
            col_sum=_sum(self.col_sum, other.col_sum),
            enclosure=enclosure,
            channels=other.channels if self.channels is None else self.channels,
        )

    def transposed(self) -> Tags:
        """Return what is known of the transposed operator.

        >>> Tags(0.0, metric=torch.tensor([2.0])).transposed().metric
        tensor([0.5000])
        """
        metric = None if self.metric is None else 1.0 / self.metric
        return replace(self, metric=metric, row_sum=self.col_sum, col_sum=self.row_sum)

    def to(self, eps: float, device: torch.device) -> Tags:
        """Return what is known after a cast to a dtype with `eps`, and a move to `device`."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        enclosure = self.enclosure
        if enclosure is not None:
            enclosure = Enclosure(*(end.to(device) for end in enclosure))
            enclosure = enclosure.widened(eps) if eps > self.eps else enclosure
        return replace(
            self,
            eps=eps,
            metric=move(self.metric),
            row_sum=move(self.row_sum),
            col_sum=move(self.col_sum),
            enclosure=enclosure,
            multiple=move(self.multiple),
        )


def _same(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        return left is right
    return left is right or torch.equal(left, right)


def _sum(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    return None if left is None or right is None else left + right


def eps_of(dtype: torch.dtype) -> float:
    """Return the rounding unit of the dtype of entries.

    Raises:
        TypeError: it is not one of real floating numbers.

    >>> eps_of(torch.float16)
    0.0009765625
    """
    if not dtype.is_floating_point:
        raise TypeError(f"values are {dtype}; operators have real floating entries")
    return torch.finfo(dtype).eps
