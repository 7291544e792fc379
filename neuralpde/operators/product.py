"""Products of a sparse matrix with states of any shape, real or complex, in any precision."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from neuralpde.operators import tracing
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.trilinear import Matrix, dot, pull, push
from solvers.products import ProductCounter, products

__all__ = ["ProductCounter", "gather_dot", "multiply", "multiply_transposed", "product", "products"]

WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""The dtype in which products of half precision are accumulated."""


def product(matrix: Matrix, values: Tensor, x: Tensor, transposed: bool = False) -> Tensor:
    """Return `A x`, or `A^T x`, for a state of any trailing shape and dtype.

    Args:
        matrix: what is kept of the matrix with these values.
        values: the entries, the same in every call.
        x: `[nodes, ...]`, real or complex.
        transposed: multiply with the transposed matrix.

    Raises:
        ValueError: `x` has another number of rows than the matrix, or `values` another length.
        TypeError: the dtypes of `values` and `x` differ.

    >>> x = torch.tensor([1.0 + 2.0j])
    >>> product(Matrix(Pattern.identity(1)), torch.tensor([3.0]), x).tolist()
    [(3+6j)]
    """
    traced = torch.compiler.is_compiling()
    if not traced:
        _check_sizes(matrix.pattern, values, x)
    _check_kinds(values, x)
    wide = WIDE.get(values.dtype, values.dtype)
    flat, values = _columns(x).to(wide), values.to(wide)
    if traced:
        # Nothing here asks for the number of nodes: one graph serves patterns of all sizes.
        sets = matrix.pattern.crow, matrix.pattern.col
        y: Tensor = tracing.multiply(*sets, values, flat, transposed, matrix.symmetric)
    else:
        y = (pull if transposed else push)(matrix, values, flat)
    y = y.to(x.real.dtype)
    if x.is_complex():
        return torch.view_as_complex(y.reshape(*x.shape, 2))
    return y.reshape(x.shape)


def multiply(
    pattern: Pattern, values: Float[Tensor, " nnz"], x: Inexact[Tensor, "nodes ..."]
) -> Inexact[Tensor, "nodes ..."]:
    """Multiply the matrix with `x`: `y_i = sum_e v_e x_col(e)` over the entries of row `i`.

    Args:
        pattern: where the entries are.
        values: the entries, real, of the (real) dtype of `x`; float32 also serves half precision.
        x: state of any trailing shape. Half precision is accumulated in float32.

    Raises:
        ValueError: `x` has another number of rows than the pattern.
        TypeError: the dtypes of `values` and `x` differ.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0]), torch.tensor([1]), 2)
    >>> multiply(pattern, torch.tensor([2.0]), torch.tensor([3.0, 5.0])).tolist()
    [10.0, 0.0]
    """
    return product(Matrix(pattern), values, x)


def multiply_transposed(
    pattern: Pattern, values: Float[Tensor, " nnz"], g: Inexact[Tensor, "nodes ..."]
) -> Inexact[Tensor, "nodes ..."]:
    """Multiply the transposed matrix with `g`: `z_j = sum_e v_e g_row(e)` over column `j`.

    Arguments and errors are those of `multiply`.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0]), torch.tensor([1]), 2)
    >>> multiply_transposed(pattern, torch.tensor([2.0]), torch.tensor([3.0, 5.0])).tolist()
    [0.0, 6.0]
    """
    return product(Matrix(pattern), values, g, transposed=True)


def gather_dot(
    pattern: Pattern, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
) -> Float[Tensor, " nnz"]:
    """Multiply rows of `g` with rows of `x` at the entries: `Re <g_row(e), x_col(e)>`.

    The products of single numbers are never all held at once: memory is `nnz`, not
    `nnz x channels`.

    Args:
        pattern: where the entries are.
        g: `[nodes, ...]`, read at the rows.
        x: of the shape and dtype of `g`, read at the columns.

    Returns:
        One real number for each entry, in the (real) dtype of `g`.

    Raises:
        ValueError: the shapes differ, or do not fit the pattern.
        TypeError: the dtypes differ.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0]), torch.tensor([1]), 2)
    >>> gather_dot(pattern, torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0])).tolist()
    [14.0]
    """
    if g.shape != x.shape:
        raise ValueError(f"rows of {tuple(g.shape)} and {tuple(x.shape)} have no dot product")
    if g.dtype != x.dtype:
        raise TypeError(f"g is {g.dtype} and x is {x.dtype}: bring one .to the dtype of the other")
    traced = torch.compiler.is_compiling()
    if not traced:
        _check_rows(pattern, g)
    # Unlike `dtype.to_real()`, this can be traced.
    real = g.real.dtype
    wide = WIDE.get(real, real)
    pair = _columns(g).to(wide), _columns(x).to(wide)
    dots: Tensor
    dots = tracing.gather_dot(pattern.crow, pattern.col, *pair) if traced else dot(pattern, *pair)
    return dots.to(real)


def _check_sizes(pattern: Pattern, values: Tensor, x: Tensor) -> None:
    if values.shape != (pattern.nnz,):
        raise ValueError(f"values are {tuple(values.shape)}, {pattern!r} has another number")
    _check_rows(pattern, x)


def _check_kinds(values: Tensor, x: Tensor) -> None:
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"state is {x.dtype}; operators act on real or complex floating numbers")
    real = x.real.dtype
    if values.dtype not in (real, WIDE.get(real)):
        raise TypeError(
            f"operator is {values.dtype}, state is {x.dtype}: use operator.to({real}), "
            f"or state.to({values.dtype})"
        )


def _check_rows(pattern: Pattern, x: Tensor) -> None:
    if x.dim() == 0 or x.shape[0] != pattern.num_nodes:
        rows = f"{x.shape[0]} rows" if x.dim() else "no rows"
        raise ValueError(f"state has {rows}, the operator acts on {pattern.num_nodes} nodes")


def _columns(x: Tensor) -> Tensor:
    real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return real.reshape(x.shape[0], math.prod(real.shape[1:]))
