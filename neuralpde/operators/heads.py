"""Heads of queries and keys, side by side: `[heads * nodes, dims]`, as copies of a graph are."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function


def split(x: Float[Tensor, "nodes dims"], heads: int) -> Float[Tensor, "copies dims"]:
    """Return the heads of each node, all nodes of one head after those of the last.

    >>> split(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2).flatten().tolist()
    [1.0, 3.0, 2.0, 4.0]
    """
    ends: Tensor = x.unflatten(1, (heads, x.shape[1] // heads))
    return ends.transpose(0, 1).flatten(0, 1)


def project(
    x: Float[Tensor, "nodes channels"], query: nn.Linear, key: nn.Linear, heads: int
) -> tuple[Float[Tensor, "copies dims"], Float[Tensor, "copies dims"]]:
    """Return the heads of `query(x)` and `key(x)`, written where they belong at once.

    >>> query, key = nn.Linear(3, 4), nn.Linear(3, 4)
    >>> x = torch.ones(5, 3)
    >>> q, k = project(x, query, key, 2)
    >>> torch.allclose(q, split(query(x), 2)), torch.allclose(k, split(key(x), 2))
    (True, True)
    """
    if heads == 1 or torch.compiler.is_compiling():
        return split(query(x), heads), split(key(x), heads)
    parameters = query.weight, query.bias, key.weight, key.bias
    form: type[Function] = _Project
    found: tuple[Tensor, Tensor] = form.apply(x, *parameters, heads)
    return found


class _Project(Function):
    """Two linear maps, each in one product for each head; backwards all is one product."""

    @staticmethod
    def forward(
        x: Tensor, Wq: Tensor, bq: Tensor, Wk: Tensor, bk: Tensor, heads: int
    ) -> tuple[Tensor, Tensor]:
        rows = x.expand(heads, *x.shape)
        q, k = (
            torch.baddbmm(b.view(heads, 1, -1), rows, W.view(heads, -1, x.shape[1]).mT)
            for W, b in ((Wq, bq), (Wk, bk))
        )
        return q.flatten(0, 1), k.flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, Wq, _, Wk, _, ctx.heads = inputs
        ctx.save_for_backward(x, Wq, Wk)
        ctx.save_for_forward(x, Wq, Wk)

    @staticmethod
    def backward(ctx: Any, gq: Tensor, gk: Tensor) -> tuple[Tensor | None, ...]:
        x, Wq, Wk = ctx.saved_tensors
        ends = (g.unflatten(0, (ctx.heads, len(x))).transpose(0, 1) for g in (gq, gk))
        both = torch.stack(tuple(ends), 1).flatten(1)
        to_x = both @ torch.cat([Wq, Wk]) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return to_x, None, None, None, None, None
        to_W, to_b = both.T @ x, both.sum(0)
        dims = len(Wq)
        return to_x, to_W[:dims], to_b[:dims], to_W[dims:], to_b[dims:], None

    @staticmethod
    def jvp(
        ctx: Any, dx: Tensor, dWq: Tensor, dbq: Tensor, dWk: Tensor, dbk: Tensor, _: None
    ) -> tuple[Tensor, Tensor]:
        x, Wq, Wk = ctx.saved_tensors
        q, k = dx @ Wq.T + x @ dWq.T + dbq, dx @ Wk.T + x @ dWk.T + dbk
        return split(q, ctx.heads), split(k, ctx.heads)
