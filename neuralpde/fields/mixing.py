"""The coupling of a graph convolution: neighbours are averaged, channels are mixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph


class Mixing(Field):
    """Linear message passing, dx/dt = A x W^T, with A an adjacency and W on the channels.

    The convolution of Kipf and Welling without its activation is A = D~^-1/2 (A + I) D~^-1/2.

    Args:
        channels: Channels of the state.
        norm: Of the adjacency: "none", "row", "col" or "sym"; see `Graph.adjacency`.
        self_loops: Weight added to every self-loop.

    References:
        Kipf and Welling, ICLR 2017, arXiv:1609.02907.

    >>> field = Mixing(1, "row", 0.0)
    >>> field.weight.data.fill_(2.0).tolist()
    [[2.0]]
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> field.bind(torch.tensor([[0, 1], [1, 0]]), x)(torch.tensor(0.0), x).tolist()
    [[6.0], [2.0]]
    """

    batched_time = True

    def __init__(self, channels: int, norm: str = "sym", self_loops: float = 1.0) -> None:
        super().__init__()
        self.channels, self.kind, self.self_loops = channels, norm, self_loops
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.xavier_uniform_(self.weight)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Normalise the adjacency."""
        if not isinstance(x0, Tensor) or x0.shape[-1] != self.channels:
            got = "a tuple" if isinstance(x0, tuple) else f"{tuple(x0.shape)}"
            raise ValueError(f"the state is {got}; this field takes [nodes, {self.channels}]")
        self.A = graph.adjacency(self.kind, self.self_loops)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """Messages of the neighbours, channels mixed."""
        return self.A @ (x @ self.weight.T)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.channels}, norm={self.kind!r}, self_loops={self.self_loops:g}"
