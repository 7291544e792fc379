"""Quadratic polynomials of a sparse matrix, taken by two products."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from neuralpde.operators.linear import Operator
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.tags import ROUNDING, Enclosure, Tags

Coefficient = float | Tensor


class Quadratic(Operator):
    """The operator `c_0 + c_1 A + c_2 A^2`, never multiplied out: `A (c_2 A x + c_1 x) + c_0 x`.

    It is self-adjoint where A is, and its spectrum lies in the range of the polynomial on that of
    A, which is tighter than the sum of the ranges of the terms.

    Args:
        A: a sparse matrix.
        c0: a number, a 0-d tensor, or a polynomial for each channel: `[channels]`, for states
            `[nodes, ..., channels]`. Tensors may require gradients.
        c1: the same.
        c2: the same.

    Raises:
        ValueError: coefficients of other shapes.

    >>> from neuralpde.operators import Pattern
    >>> swap, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> A = SparseOperator(swap, torch.ones(2), symmetric=True)
    >>> (Quadratic(A, 0.0, 1.0, -1.0) @ torch.tensor([[3.0], [5.0]])).flatten().tolist()
    [2.0, -2.0]
    """

    def __init__(
        self, A: SparseOperator, c0: Coefficient, c1: Coefficient, c2: Coefficient
    ) -> None:
        self.A, self.coefficients = A, (c0, c1, c2)
        shapes = {tuple(c.shape) for c in self.coefficients if isinstance(c, Tensor)} - {()}
        if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
            raise ValueError(
                f"coefficients have the shapes {sorted(shapes)}; give numbers, 0-d tensors, or one "
                "[channels] for all that differ between channels"
            )
        channels = shapes.pop()[0] if shapes else None
        super().__init__(A.num_nodes, A.dtype, self._tags(A.tags, channels), A.graphs)

    def _tags(self, tags: Tags, channels: int | None) -> Tags:
        known = Tags(tags.eps, symmetric=tags.symmetric, metric=tags.metric, channels=channels)
        if not tags.self_adjoint:
            return known
        lo, hi = self.A.spectrum()
        norm = torch.minimum(*self.A.norms())
        c0, c1, c2 = (c[:, None] for c in self._numbers)
        ends = torch.stack([c0 + end * (c1 + end * c2) for end in (lo, hi)])
        # The vertex counts where it lies inside; elsewhere an end stands for it.
        vertex = -c1 / torch.where(c2 == 0, 1.0, 2.0 * c2)
        inside = (vertex > lo) & (vertex < hi) & (c2 != 0)
        values = torch.cat([ends, torch.where(inside, c0 + vertex * c1 / 2.0, ends[0])[None]])
        size = (c0.abs() + norm * (c1.abs() + norm * c2.abs())).amax(0)
        enclosure = Enclosure(values.amin((0, 1)), values.amax((0, 1)), size)
        return replace(known, enclosure=enclosure.widened(ROUNDING * tags.eps))

    @property
    def _numbers(self) -> tuple[Tensor, ...]:
        given = [
            torch.as_tensor(c, dtype=torch.float64).detach().reshape(-1) for c in self.coefficients
        ]
        width = max(map(len, given))
        return tuple(c.to(self.A.device).expand(width) for c in given)

    def _times(self, c: Coefficient, x: Tensor) -> Tensor:
        if isinstance(c, Tensor):
            if c.dim() and (x.dim() < 2 or x.shape[-1] != len(c)):
                raise ValueError(
                    f"state is {tuple(x.shape)}; this operator has a polynomial for each of "
                    f"{len(c)} channels and takes states [nodes, ..., {len(c)}]"
                )
            c = c.to(x.dtype)
        return c * x

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        c0, c1, c2 = self.coefficients
        inner = self.A @ self._times(c2, x) + self._times(c1, x)
        return self.A @ inner + self._times(c0, x)

    @property
    def T(self) -> Quadratic:
        """The same polynomial of the transposed matrix."""
        return Quadratic(self.A.T, *self.coefficients)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The coefficients that are tensors, then those of A."""
        return (*(c for c in self.coefficients if isinstance(c, Tensor)), *self.A.tensors)

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, p(A) x> / d` each of `tensors`."""
        _, c1, c2 = self.coefficients
        with torch.no_grad():
            last = self._times(c2, x)
            inner = self.A @ last + self._times(c1, x)
            back = [g, self.A.T @ g]
            back.append(self.A.T @ back[1])
            of_c = [
                _paired(c, one, x)
                for c, one in zip(self.coefficients, back, strict=True)
                if isinstance(c, Tensor)
            ]
            pairs = (self.A.gradients(back[0], inner), self.A.gradients(back[1], last))
            return (*of_c, *(a + b for a, b in zip(*pairs, strict=True)))

    def fresh(self) -> Quadratic:
        """Return the operator on views of its tensors."""
        views = (c.view_as(c) if isinstance(c, Tensor) else c for c in self.coefficients)
        return Quadratic(self.A.fresh(), *views)

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Quadratic:
        """Return the operator in another dtype or on another device; itself if it is there."""
        A = self.A.to(dtype, device)
        if A is self.A:
            return self
        moved = (c.to(A.device) if isinstance(c, Tensor) else c for c in self.coefficients)
        return Quadratic(A, *moved)

    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries of each node, averaged over channels that differ."""
        with torch.no_grad():
            c0, c1, c2 = (c.mean().to(self.dtype) for c in self._numbers)
            return c0 + c1 * self.A.diagonal() + c2 * self._returns()

    def _returns(self) -> Tensor:
        """The diagonal of A^2: what comes back from every neighbour."""
        pattern, values = self.A.pattern, self.A.values
        there = pattern.row * self.num_nodes + pattern.col
        back = pattern.col.long() * self.num_nodes + pattern.row
        place = torch.searchsorted(there, back).clamp(max=max(len(there) - 1, 0))
        other = torch.where(there[place] == back, values[place], 0.0)
        return values.new_zeros(self.num_nodes).index_add(0, pattern.row, values * other)

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        c0, c1, c2 = (c.abs()[:, None] for c in self._numbers)
        slack = 1.0 + ROUNDING * torch.finfo(torch.float64).eps
        rows, columns = ((c0 + norm * (c1 + norm * c2)).amax(0) * slack for norm in self.A.norms())
        return rows, columns


def _paired(c: Tensor, g: Tensor, x: Tensor) -> Tensor:
    rows = (g.conj() * x).real if g.is_complex() else g * x
    if c.dim():
        rows = rows.reshape(-1, len(c)).sum(0)
    return rows.sum().to(c.dtype) if not c.dim() else rows.to(c.dtype)
