"""Networks for velocities and scores: of points, and of the nodes of a graph."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Operator


def time_features(t: Tensor, frequencies: int, like: Tensor) -> Float[Tensor, "times features"]:
    """The time as a network reads it: t, cos(pi k t), sin(pi k t), k = 1 to `frequencies`.

    Args:
        t: 0-d, or a column with one entry for each row of the state.
        frequencies: How many.
        like: The state, whose dtype is taken.

    >>> time_features(torch.tensor(0.5), 1, torch.ones(3, 2)).round(decimals=4).abs().tolist()
    [[0.5, 0.0, 1.0]]
    """
    times = t.to(like).reshape(-1, 1)
    waves = math.pi * times * torch.arange(1, frequencies + 1).to(like)
    return torch.cat([times, waves.cos(), waves.sin()], 1)


class MLP(nn.Module):
    """A multilayer perceptron of state and time, one point by itself.

    Args:
        channels: Numbers of a point.
        heads: 1 for a velocity; 2 for velocity and score, as `Learned` takes them.
        width: Of the hidden layers.
        depth: Hidden layers.
        frequencies: See `time_features`.

    Attributes:
        batched_time: True: it takes a column of times.

    >>> net = MLP(2, heads=2)
    >>> net(torch.tensor(0.5), torch.zeros(7, 2)).shape
    torch.Size([7, 4])
    """

    batched_time = True

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        *,
        width: int = 64,
        depth: int = 3,
        frequencies: int = 2,
    ) -> None:
        super().__init__()
        self.channels, self.frequencies = channels, frequencies
        layers: list[nn.Module] = [nn.Linear(channels + 2 * frequencies + 1, width), nn.SELU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.SELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, heads * channels))

    def forward(
        self, t: Tensor, x: Float[Tensor, "points channels"]
    ) -> Float[Tensor, "points outputs"]:
        """All heads, side by side."""
        times = time_features(t, self.frequencies, x).expand(len(x), -1)
        out: Tensor = self.layers(torch.cat([x, times], 1))
        return out


class Layer(nn.Module):
    """One round of messages, `h + W act(W_own h + W_near A h + W_time tau)`.

    Args:
        width: Of the hidden state h.
        times: Features of the time.

    >>> from neuralpde.catalogue import path
    >>> h = torch.ones(2, 3)
    >>> Layer(3, 1)(path(2).adjacency("row"), h, torch.ones(1, 1)).shape
    torch.Size([2, 3])
    """

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.own, self.near = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.time, self.out = nn.Linear(times, width, bias=False), nn.Linear(width, width)

    def forward(self, A: Operator, h: Tensor, times: Tensor) -> Tensor:
        """The next hidden state."""
        # Sums go into products: on narrow states a pass over memory costs as much as one of them.
        mixed = nn.functional.linear(times, self.time.weight, self.own.bias)
        mixed = torch.addmm(mixed, h, self.own.weight.T)
        mixed = mixed.addmm_(A @ h, self.near.weight.T)
        new: Tensor = self.out(nn.functional.silu(mixed)).add_(h)
        return new


class GraphNetwork(Field):
    """A network of messages between neighbours, for flows of what stands on the nodes of a graph.

    Rounds of `Layer` between two linear maps, with the row-normalised adjacency by default: a mean
    over neighbours. Relabelling nodes relabels the answer, and the graphs of a batch do not see
    each other; the time may differ between graphs, as a column with one entry for each node.

    A field by itself where `heads` is 1; with 2 it goes into `Learned`. To train it, bind it:
    `bound = model.bind(graph, x)` shares its parameters.

    Args:
        channels: Numbers on a node.
        heads: 1 for a velocity; 2 for velocity and score.
        width: Of the hidden state.
        depth: Rounds: a node sees as many steps far.
        norm: Of the adjacency.
        frequencies: See `time_features`.

    >>> from neuralpde.catalogue import ring
    >>> x = torch.zeros(4, 3)
    >>> net = GraphNetwork(3, heads=2).bind(ring(4), x)
    >>> net(torch.tensor(0.5), x).shape
    torch.Size([4, 6])
    """

    batched_time = True

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        *,
        width: int = 64,
        depth: int = 3,
        norm: str = "row",
        frequencies: int = 2,
    ) -> None:
        super().__init__()
        self.channels, self.frequencies, self.adjacency_norm = channels, frequencies, norm
        self.first = nn.Linear(channels, width)
        self.layers = nn.ModuleList(Layer(width, 2 * frequencies + 1) for _ in range(depth))
        self.last = nn.Linear(width, heads * channels)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Normalise the adjacency."""
        self.A = graph.adjacency(self.adjacency_norm)

    def rest(self, t: Tensor, x: Float[Tensor, "nodes channels"]) -> Float[Tensor, "nodes outputs"]:
        """All heads, side by side."""
        times = time_features(t, self.frequencies, x)
        h = self.first(x)
        for layer in self.layers:
            h = layer(self.A, h, times)
        out: Tensor = self.last(nn.functional.silu(h))
        return out
