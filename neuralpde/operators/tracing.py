"""Products as single operations, for graphs of operations that torch.compile traces.

Torch can trace neither its CSR tensors nor what operators remember of them. In a traced graph each
product is therefore one operation on plain tensors: index sets, values, states. When the graph runs
it does what happens without compilation; the pattern and what it has found out about itself is
looked up by its index sets, so that a graph traced once serves every pattern of its size.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralpde.operators.pattern import Pattern
from neuralpde.operators.trilinear import Matrix, apply, dot

WRONG_ROWS = "the state has another number of rows than the operator has nodes"
MATMUL = ("matmul", "__matmul__", "__rmatmul__")


class Traced:
    """An operator whose products torch.compile sees: it reads `A @ x` as a function of a tensor.

    >>> class Double(Traced):
    ...     def __matmul__(self, x):
    ...         return x + x
    >>> (Double() @ torch.ones(1)).tolist()
    [2.0]
    """

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Take the products with tensors that a trace meets; all else is Python's own business."""
        if not torch.compiler.is_compiling() or func.__name__ not in MATMUL:
            return NotImplemented
        # `A @ x` comes with the tensor first, as `x @ A` would.
        x, A = args
        return A.__matmul__(x)


@torch.library.custom_op(
    "neuralpde::multiply",
    mutates_args=(),
    schema="(Tensor crow, Tensor col, Tensor values, Tensor x, bool transposed, bool symmetric)"
    " -> Tensor",
)
def multiply(
    crow: Int[Tensor, " rows"],
    col: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    x: Float[Tensor, "nodes channels"],
    transposed: bool,
    symmetric: bool,
) -> Float[Tensor, "nodes channels"]:
    """Return `A x` or `A^T x`, differentiable in `values` and `x`.

    Args:
        crow: as in `Pattern`.
        col: as in `Pattern`.
        values: the entries.
        x: state.
        transposed: multiply with the transposed matrix.
        symmetric: the two are the same.

    >>> one = Pattern.identity(1)
    >>> multiply(one.crow, one.col, torch.tensor([2.0]), torch.ones(1, 1), False, True).tolist()
    [[2.0]]
    """
    matrix = Matrix(Pattern.of(crow, col), symmetric)
    return apply((matrix.backward if transposed else matrix.forward)(values), x)


@torch.library.custom_op(
    "neuralpde::gather_dot",
    mutates_args=(),
    schema="(Tensor crow, Tensor col, Tensor g, Tensor x) -> Tensor",
)
def gather_dot(
    crow: Int[Tensor, " rows"],
    col: Int[Tensor, " nnz"],
    g: Float[Tensor, "nodes channels"],
    x: Float[Tensor, "nodes channels"],
) -> Float[Tensor, " nnz"]:
    """Return `<g_row, x_col>` at the entries, differentiable in `g` and `x`.

    >>> one = Pattern.identity(1)
    >>> gather_dot(one.crow, one.col, torch.full((1, 1), 2.0), torch.ones(1, 1)).tolist()
    [2.0]
    """
    return dot(Pattern.of(crow, col), g.detach(), x.detach())


@multiply.register_fake
def _(crow: Tensor, col: Tensor, values: Tensor, x: Tensor, *flags: bool) -> Tensor:
    torch._check(x.shape[0] == crow.shape[0] - 1, lambda: WRONG_ROWS)
    return x.new_empty(x.shape)


@gather_dot.register_fake
def _(crow: Tensor, col: Tensor, g: Tensor, x: Tensor) -> Tensor:
    torch._check(x.shape[0] == crow.shape[0] - 1, lambda: WRONG_ROWS)
    return g.new_empty(col.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.flags = inputs[4:]


def _multiply_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    crow, col, values, x = ctx.saved_tensors
    transposed, symmetric = ctx.flags
    pair = (x, g) if transposed else (g, x)
    to_values, to_x = ctx.needs_input_grad[2:4]
    return (
        None,
        None,
        gather_dot(crow, col, *pair) if to_values else None,
        multiply(crow, col, values, g, not transposed, symmetric) if to_x else None,
        None,
        None,
    )


def _gather_dot_backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
    crow, col, g, x = ctx.saved_tensors
    to_g, to_x = ctx.needs_input_grad[2:4]
    return (
        None,
        None,
        multiply(crow, col, w, x, False, False) if to_g else None,
        multiply(crow, col, w, g, True, False) if to_x else None,
    )


multiply.register_autograd(_multiply_backward, setup_context=_keep)
gather_dot.register_autograd(_gather_dot_backward, setup_context=_keep)
