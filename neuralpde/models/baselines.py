"""Networks to compare with: convolutions in layers, or none."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.graph import Graph
from neuralpde.models.sparse import SparseInput
from solvers.failure import unknown_name

KINDS = {"mlp": "", "gcn": "GCNConv", "gat": "GATConv", "sage": "SAGEConv"}


class Convolutions(nn.Module):
    """Layers of a convolution with activation and dropout between them, called as `NodeModel` is.

    Args:
        kind: "mlp" (linear layers), "gcn", "gat" (averaged heads in the last layer) or "sage".
        inputs: Channels of the features.
        channels: Channels in between; of "gat" all heads together.
        outputs: Channels of the output.
        layers: Number of layers.
        dropout: Before every layer.
        input_dropout: Before the first one instead; None for the same.
        heads: Of "gat"; they divide `channels`.

    Raises:
        ValueError: For an unknown kind, no layers, or heads that do not divide.

    >>> Convolutions("mlp", 3, 8, 2)(torch.ones(4, 3), torch.zeros(2, 0).long()).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        kind: str,
        inputs: int,
        channels: int,
        outputs: int,
        layers: int = 2,
        *,
        dropout: float = 0.5,
        input_dropout: float | None = None,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown_name("baseline", kind, KINDS)
        if layers < 1:
            raise ValueError(f"layers is {layers}; at least 1 is needed")
        if kind == "gat" and channels % heads:
            raise ValueError(f"{heads} heads do not share {channels} channels equally")
        self.kind = kind
        first = dropout if input_dropout is None else input_dropout
        self.dropouts = nn.ModuleList(
            nn.Dropout(first if k == 0 else dropout) for k in range(layers)
        )
        sizes = [inputs, *[channels] * (layers - 1), outputs]
        ends = pairwise(sizes)
        self.layers = nn.ModuleList(
            _layer(kind, a, b, heads, last=k == layers - 1) for k, (a, b) in enumerate(ends)
        )
        if kind != "sage":
            # These begin with a linear layer: the one that sees the features, mostly zeros.
            self._begin_sparse(first)
        self.act: Any = torch.nn.functional.elu if kind == "gat" else torch.relu

    def _begin_sparse(self, dropout: float) -> None:
        layer: Any = self.layers[0]
        self.dropouts[0] = nn.Identity()
        if self.kind == "mlp":
            self.layers[0] = SparseInput(layer, dropout)
        else:
            layer.lin = SparseInput(layer.lin, dropout)

    def forward(
        self, x: Float[Tensor, "nodes inputs"], graph: Any
    ) -> Float[Tensor, "nodes outputs"]:
        """The output for features on a graph."""
        edges = () if self.kind == "mlp" else (Graph.of(graph).edge_index,)
        for k, (layer, dropout) in enumerate(zip(self.layers, self.dropouts, strict=True)):
            x = layer(dropout(x if k == 0 else self.act(x)), *edges)
        return x


class Convolution(nn.Module):
    """A layer of torch_geometric that is called with a graph; weights of edges are not read.

    Args:
        conv: Called as `conv(x, edge_index)`.

    >>> from torch_geometric.nn import SimpleConv
    >>> pair = torch.tensor([[0, 1], [1, 0]])
    >>> Convolution(SimpleConv())(torch.tensor([[1.0], [2.0]]), pair).tolist()
    [[2.0], [1.0]]
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Float[Tensor, "nodes inputs"], graph: Any) -> Float[Tensor, "nodes some"]:
        """What the layer makes of a state."""
        out: Tensor = self.conv(x, Graph.of(graph).edge_index)
        return out


def mixing(kind: str, channels: int, heads: int = 8) -> Convolution | None:
    """A layer of a kind of network as what mixes in a block: as many channels as it gets.

    Raises:
        ValueError: For an unknown kind, or heads of "gat" that do not divide the channels.

    >>> mixing("mlp", 8) is None
    True
    """
    if kind not in KINDS:
        raise unknown_name("baseline", kind, KINDS)
    if kind == "gat" and channels % heads:
        raise ValueError(f"{heads} heads do not share {channels} channels equally")
    if kind == "mlp":
        return None
    return Convolution(_layer(kind, channels, channels, heads, last=False))


def _layer(kind: str, inputs: int, outputs: int, heads: int, *, last: bool) -> nn.Module:
    if kind == "mlp":
        return nn.Linear(inputs, outputs)
    conv: Any = getattr(import_module("torch_geometric.nn"), KINDS[kind])
    if kind != "gat":
        made: nn.Module = conv(inputs, outputs)
    elif last:
        made = conv(inputs, outputs, heads=heads, concat=False)
    else:
        made = conv(inputs, outputs // heads, heads=heads)
    return made
