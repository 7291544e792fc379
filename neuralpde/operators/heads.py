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
    return x.unflatten(1, (heads, x.shape[1] // heads)).transpose(0, 1).flatten(0, 1)


def joined(x: Float[Tensor, "copies dims"], heads: int) -> Float[Tensor, "nodes dims"]:
    """Return what `split` was given.

    >>> joined(split(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2), 2).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return x.unflatten(0, (heads, x.shape[0] // heads)).transpose(0, 1).flatten(1)


def project(
    x: Float[Tensor, "nodes channels"], layer: nn.Linear, heads: int
) -> Float[Tensor, "copies dims"]:
    """Return `split(layer(x), heads)`, written where it belongs at once.

    >>> layer = nn.Linear(3, 4)
    >>> x = torch.ones(5, 3)
    >>> torch.allclose(project(x, layer, 2), split(layer(x), 2))
    True
    """
    if heads == 1 or layer.bias is None or torch.compiler.is_compiling():
        return split(layer(x), heads)
    found: Tensor = _Project.apply(x, layer.weight, layer.bias, heads)
    return found


class _Project(Function):
    """A linear map in one product for each head; backwards it is the product for all of them."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        maps = weight.unflatten(0, (heads, weight.shape[0] // heads)).mT
        found = torch.baddbmm(bias.view(heads, 1, -1), x.expand(heads, *x.shape), maps)
        return found.flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.heads = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = ctx.saved_tensors
        g = joined(g, ctx.heads)
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        return (
            g @ weight if to_x else None,
            g.T @ x if to_weight else None,
            g.sum(0) if to_bias else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dweight: Tensor, dbias: Tensor, _: None) -> Tensor:
        x, weight, _ = ctx.saved_tensors
        return split(dx @ weight.T + x @ dweight.T + dbias, ctx.heads)
