"""Deep networks with fresh weights, as the literature on over-smoothing runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from neuralpde.fields import Coupling, GradientGating, GraphCON, Layers
from solvers.failure import unknown_name

KINDS = ("gcn", "gat", "sage")
"""Layers of Kipf and Welling, of Velickovic et al. (one head), of Hamilton et al. (mean)."""


def layer(kind: str, channels: int) -> nn.Module:
    """Draw one layer of torch_geometric by its own initialiser: no bias, double precision.

    Weights are drawn in torch's default precision, as the initialiser does, and then converted.

    Args:
        kind: "gcn", "gat" or "sage".
        channels: Channels that come and go.

    Raises:
        ValueError: For an unknown kind.

    >>> sum(weight.numel() for weight in layer("sage", 3).parameters())
    18
    """
    from torch_geometric import nn as pyg

    layers: dict[str, Callable[..., Any]] = {
        "gcn": pyg.GCNConv,
        "gat": pyg.GATConv,
        "sage": pyg.SAGEConv,
    }
    if kind not in layers:
        raise unknown_name("layer", kind, layers)
    made: nn.Module = layers[kind](channels, channels, bias=False).double()
    return made


class DeepNetwork(nn.Module):
    """A network x <- (1 - s) relu(conv_k(x)) + r x + s x(0) of layers with weights of their own.

    Args:
        kind: Of the layers: "gcn", "gat" or "sage".
        channels: Channels throughout.
        depth: Number of layers.
        residual: Whether r is 1 instead of 0.
        source: s, the share of the first state in every layer.

    References:
        Rusch, Bronstein and Mishra, A survey on oversmoothing in graph neural networks, 2023,
        arXiv:2303.10993; the source is that of Chen et al., GCNII, ICML 2020, arXiv:2007.02133,
        and of Gasteiger et al., ICLR 2019, arXiv:1810.05997.

    >>> import torch
    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> x = torch.rand(2, 3, dtype=torch.float64)
    >>> torch.equal(DeepNetwork("gcn", 3, 4, source=1.0)(x, edges), x)
    True
    """

    def __init__(
        self, kind: str, channels: int, depth: int, *, residual: bool = False, source: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(kind, channels) for _ in range(depth))
        self.residual, self.source = residual, source

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The state after the last activation."""
        first = x
        for conv in self.layers:
            moved = (1.0 - self.source) * conv(x, edge_index).relu() + self.source * first
            x = moved + x if self.residual else moved
        return x


def deep_oscillators(channels: int, depth: int, damping: float = 0.0) -> Layers:
    """GraphCON with a new convolution in every layer: `solver="graphcon"`, one step a layer.

    Args:
        channels: Channels of the state.
        depth: Number of layers.
        damping: alpha; with alpha = 1 and steps of 1 the network is the plain one.

    >>> len(deep_oscillators(2, 3).pieces)
    3
    """
    return Layers(
        [GraphCON(channels, layer("gcn", channels), damping=damping) for _ in range(depth)]
    )


def deep_gates(kind: str, channels: int, depth: int, p: float = 2.0) -> Layers:
    """G2 with a new convolution, and another for the gates, in every layer: `solver="euler"`.

    Gates take the mean over neighbours, as the published code does.

    Args:
        kind: Of the layers: "gcn", "gat" or "sage".
        channels: Channels of the state.
        depth: Number of layers.
        p: Exponent of the differences.

    >>> len(deep_gates("gcn", 2, 3).pieces)
    3
    """

    def coupling() -> Coupling:
        return Coupling(layer(kind, channels), act=_relu)

    def gated() -> GradientGating:
        field = coupling()
        return GradientGating(field, p, "mean", coupling())

    return Layers([gated() for _ in range(depth)])


def _relu(x: Tensor) -> Tensor:
    return x.relu()
