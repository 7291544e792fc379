"""The trilinear form of a sparse matrix and its derivatives, on real matrices of states.

With entries `v_e` at `(row(e), col(e))` everything here is a derivative of

    T(v, g, x) = sum_e v_e <g_row(e), x_col(e)>

`push` is dT/dg, `pull` is dT/dx and `dot` is dT/dv. The derivatives of each are the other two, so
all may be differentiated any number of times, in reverse or forward.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function, forward_ad

from neuralpde.operators.pattern import Pattern
from solvers.products import products

SAMPLED = ("cpu", "cuda")
"""Devices on which torch can multiply two dense matrices at the entries of a sparse one."""

CHUNK = 1 << 20
"""Numbers that a gather-dot without such a kernel may hold at a time."""


class Matrix:
    """The torch CSR matrices of one set of values, both ways round, built when first needed.

    Args:
        pattern: where the entries are.
        symmetric: the transposed matrix has the same values and need not be built.
    """

    __slots__ = ("_backward", "_forward", "pattern", "symmetric")

    def __init__(self, pattern: Pattern, symmetric: bool = False) -> None:
        self.pattern, self.symmetric = pattern, symmetric
        self._forward: Tensor | None = None
        self._backward: Tensor | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Return the matrix; `values` are the same in every call."""
        if self._forward is None:
            self._forward = self.pattern.csr(values.detach())
        return self._forward

    def backward(self, values: Tensor) -> Tensor:
        """Return the transposed matrix; `values` are those of the matrix itself."""
        if self.symmetric:
            return self.forward(values)
        if self._backward is None:
            perm = self.pattern.transposed[2]
            self._backward = self.pattern.T.csr(values.detach().index_select(0, perm))
        return self._backward

    def __reduce__(self) -> tuple[type[Matrix], tuple[Pattern, bool]]:
        # The torch matrices are made again where they are needed.
        return Matrix, (self.pattern, self.symmetric)


def apply(
    matrix: Float[Tensor, "nodes nodes"], x: Float[Tensor, "nodes channels"]
) -> Float[Tensor, "nodes channels"]:
    """Multiply a torch CSR matrix with `x`, without autograd, and count the product.

    >>> apply(Pattern.identity(2).csr(torch.ones(2)), torch.tensor([[1.0], [2.0]])).tolist()
    [[1.0], [2.0]]
    """
    products.total += 1
    # With beta=0 the empty buffer is never read; `matrix @ x` fills one with zeros and copies it.
    y = torch.empty_like(x) if x.is_contiguous() else x.new_empty(x.shape)
    return torch.addmm(y, matrix, x, beta=0.0, out=y)


def tracked(a: Tensor, b: Tensor) -> bool:
    """Whether autograd, in reverse or forward, has to see what happens to `a` or `b`.

    >>> tracked(torch.ones(1), torch.ones(1, requires_grad=True))
    True
    """
    if (a.requires_grad or b.requires_grad) and torch.is_grad_enabled():
        return True
    if forward_ad._current_level < 0:
        # Nobody differentiates forwards: the usual case, and asking both would take a while.
        return False
    duals = forward_ad.unpack_dual(a), forward_ad.unpack_dual(b)
    return duals[0].tangent is not None or duals[1].tangent is not None


def _recorded(form: type[Function], static: Matrix | Pattern, a: Tensor, b: Tensor) -> Tensor:
    result: Tensor = form.apply(static, a, b)
    return result


def push(
    matrix: Matrix, values: Float[Tensor, " nnz"], x: Float[Tensor, "nodes channels"]
) -> Float[Tensor, "nodes channels"]:
    """Return `A x`, differentiable in `values` and `x`.

    >>> push(Matrix(Pattern.identity(1)), torch.tensor([2.0]), torch.tensor([[3.0]])).tolist()
    [[6.0]]
    """
    if tracked(values, x):
        return _recorded(_Multiply, matrix, values, x)
    return apply(matrix.forward(values), x)


def pull(
    matrix: Matrix, values: Float[Tensor, " nnz"], g: Float[Tensor, "nodes channels"]
) -> Float[Tensor, "nodes channels"]:
    """Return `A^T g`, differentiable in `values` and `g`.

    >>> pull(Matrix(Pattern.identity(1)), torch.tensor([2.0]), torch.tensor([[3.0]])).tolist()
    [[6.0]]
    """
    if tracked(values, g):
        return _recorded(_Transposed, matrix, values, g)
    return apply(matrix.backward(values), g)


def dot(
    pattern: Pattern, g: Float[Tensor, "nodes channels"], x: Float[Tensor, "nodes channels"]
) -> Float[Tensor, " nnz"]:
    """Return `<g_row, x_col>` at the entries, differentiable in `g` and `x`.

    >>> dot(Pattern.identity(1), torch.tensor([[2.0]]), torch.tensor([[3.0]])).tolist()
    [6.0]
    """
    if tracked(g, x):
        return _recorded(_Dot, pattern, g, x)
    if g.device.type in SAMPLED:
        # Zeros and not the operator's own values: 0 times an infinite entry is no zero. They are
        # overwritten; a result of its own would get copies of the index sets first.
        dots = g.new_zeros(pattern.nnz)
        blank = pattern.csr(dots)
        torch.sparse.sampled_addmm(blank, g, x.T, beta=0.0, out=blank)
        return dots
    return chunked_dot(pattern, g, x)


def chunked_dot(
    pattern: Pattern, g: Float[Tensor, "nodes channels"], x: Float[Tensor, "nodes channels"]
) -> Float[Tensor, " nnz"]:
    """Compute `dot` by pieces of the edge list, on any device.

    >>> chunked_dot(Pattern.identity(2), torch.eye(2), torch.ones(2, 2)).tolist()
    [1.0, 1.0]
    """
    size = max(1, CHUNK // max(1, g.shape[1]))
    pieces = zip(pattern.row.split(size), pattern.col.split(size), strict=True)
    dots = [(g.index_select(0, i) * x.index_select(0, j)).sum(1) for i, j in pieces]
    return torch.cat(dots) if dots else g.new_zeros(0)


class _Trilinear(Function):
    """What the three products share: the two tensors that their derivatives need."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, Tensor, Tensor], output: Tensor) -> None:
        ctx.static, *pair = inputs
        ctx.save_for_backward(*pair)
        ctx.save_for_forward(*pair)


class _Multiply(_Trilinear):
    @staticmethod
    def forward(matrix: Matrix, values: Tensor, x: Tensor) -> Tensor:
        return apply(matrix.forward(values), x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        values, x = ctx.saved_tensors
        _, to_values, to_x = ctx.needs_input_grad
        return (
            None,
            _recorded(_Dot, ctx.static.pattern, g, x) if to_values else None,
            _recorded(_Transposed, ctx.static, values, g) if to_x else None,
        )

    @staticmethod
    def jvp(ctx: Any, _: None, v: Tensor | None, h: Tensor | None) -> Tensor | None:
        values, x = ctx.saved_tensors
        return _sum(
            None if v is None else _recorded(_Multiply, Matrix(ctx.static.pattern), v, x),
            None if h is None else _recorded(_Multiply, ctx.static, values, h),
        )


class _Transposed(_Trilinear):
    @staticmethod
    def forward(matrix: Matrix, values: Tensor, g: Tensor) -> Tensor:
        return apply(matrix.backward(values), g)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        values, g = ctx.saved_tensors
        _, to_values, to_g = ctx.needs_input_grad
        return (
            None,
            _recorded(_Dot, ctx.static.pattern, g, x) if to_values else None,
            _recorded(_Multiply, ctx.static, values, x) if to_g else None,
        )

    @staticmethod
    def jvp(ctx: Any, _: None, v: Tensor | None, h: Tensor | None) -> Tensor | None:
        values, g = ctx.saved_tensors
        return _sum(
            None if v is None else _recorded(_Transposed, Matrix(ctx.static.pattern), v, g),
            None if h is None else _recorded(_Transposed, ctx.static, values, h),
        )


class _Dot(_Trilinear):
    @staticmethod
    def forward(pattern: Pattern, g: Tensor, x: Tensor) -> Tensor:
        return dot(pattern, g, x)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        g, x = ctx.saved_tensors
        _, to_g, to_x = ctx.needs_input_grad
        matrix = Matrix(ctx.static)
        return (
            None,
            _recorded(_Multiply, matrix, w, x) if to_g else None,
            _recorded(_Transposed, matrix, w, g) if to_x else None,
        )

    @staticmethod
    def jvp(ctx: Any, _: None, dg: Tensor | None, dx: Tensor | None) -> Tensor | None:
        g, x = ctx.saved_tensors
        return _sum(
            None if dg is None else _recorded(_Dot, ctx.static, dg, x),
            None if dx is None else _recorded(_Dot, ctx.static, g, dx),
        )


def _sum(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    return right if left is None else left if right is None else left + right
