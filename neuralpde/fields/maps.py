"""Learned maps of stalks: restrictions at the ends of edges, frames of nodes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.graph import Graph
from neuralpde.operators.orthogonal import WAYS, orthogonal
from solvers.failure import unknown_name

KINDS = ("diagonal", *WAYS, "general")


class Restrictions(nn.Module):
    """A map for each end of each edge, learned from the states of both: `tanh(V [x_v || x_u] + b)`.

    The map at node v of the edge to u reads v first. The linear layer is applied to nodes and its
    halves are added at the ends, so that nothing of the size ends x features is held. Maps that are
    fixed to 1 (and -1) may be appended as further components of the stalk.

    Args:
        features: Numbers of a node's state.
        stalk: Components of the stalk, the fixed ones included.
        kind: "diagonal", "general", or orthogonal by "householder", "cayley" or "exponential".
        low_pass: Whether one component has the maps 1 and 1: that of the graph's Laplacian.
        high_pass: Whether one has 1 and -1: `D + A`.

    Raises:
        ValueError: For an unknown kind, and a stalk without room for what is to be learned.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> maps = Restrictions(2, 2, "diagonal", low_pass=True)
    >>> maps(graph, torch.zeros(2, 2))[:, 1].tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        features: int,
        stalk: int,
        kind: str = "householder",
        *,
        low_pass: bool = False,
        high_pass: bool = False,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown_name("kind of maps", kind, KINDS)
        self.kind, self.stalk = kind, stalk
        self.low_pass, self.high_pass = low_pass, high_pass
        self.learned = stalk - low_pass - high_pass
        if self.learned < 1:
            raise ValueError(
                f"a stalk of {stalk} has no room for learned maps beside the fixed ones; give at "
                f"least {1 + low_pass + high_pass}"
            )
        d = self.learned
        numbers = {"diagonal": d, "general": d * d}.get(kind, d * (d - 1) // 2)
        # As nn.Linear draws them, which warns where there is nothing to learn.
        size = (2 * features) ** -0.5
        self.weight = nn.Parameter(torch.empty(numbers, 2 * features).uniform_(-size, size))
        self.bias = nn.Parameter(torch.empty(numbers).uniform_(-size, size))

    @property
    def orthogonal(self) -> bool:
        """Whether all maps are orthogonal."""
        return self.kind in WAYS

    def forward(
        self, graph: Graph, x: Float[Tensor, "nodes features"]
    ) -> Float[Tensor, "entries stalk ..."]:
        """Return the maps in the order of `graph.edge_index`, each that of the receiver."""
        source, target = graph.edge_index
        mine, other = self.weight.chunk(2, 1)
        # Long rows, one for each number: as the Laplacian reads them.
        here = torch.addmm(self.bias[:, None], mine, x.T).index_select(1, target)
        numbers = torch.tanh(here + (other @ x.T).index_select(1, source))
        if self.orthogonal:
            maps = orthogonal(numbers.T, self.learned, self.kind).movedim(0, -1)
        elif self.kind == "general":
            maps = numbers.unflatten(0, (self.learned, self.learned))
        else:
            maps = numbers
        if self.low_pass or self.high_pass:
            maps = self._appended(maps, torch.where(target < source, -1.0, 1.0).to(x))
        return maps.movedim(-1, 0)

    def _appended(self, maps: Tensor, signs: Tensor) -> Tensor:
        fixed = [torch.ones_like(signs)] * self.low_pass + [signs] * self.high_pass
        if maps.dim() == 2:
            return torch.cat([maps, torch.stack(fixed)])
        grown = nn.functional.pad(maps, (0, 0, 0, len(fixed), 0, len(fixed)))
        for k, values in enumerate(fixed, self.learned):
            grown = grown.index_put((torch.tensor(k), torch.tensor(k)), values)
        return grown

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"stalk={self.stalk}, kind={self.kind!r}, low_pass={self.low_pass}, "
            f"high_pass={self.high_pass}"
        )


class Frames(nn.Module):
    """An orthogonal frame for each node, learned from its state by a network of one hidden layer.

    With `hops` = k the network reads [x || P x || .. || P^k x], P the mean over neighbours, so that
    frames see as far as that; they are called with the graph then.

    Args:
        features: Numbers of a node's state.
        stalk: Dims of the frames.
        bundles: Frames of a node, each for its own share of the channels.
        hidden: Width of the hidden layer.
        by: "householder", "cayley" or "exponential".
        hops: How far a frame sees.

    Raises:
        ValueError: For an unknown name, stalks of one dim, and hops without a graph to go along.

    >>> Frames(4, 2)(torch.zeros(3, 4)).shape
    torch.Size([3, 1, 2, 2])
    """

    def __init__(
        self,
        features: int,
        stalk: int,
        bundles: int = 1,
        hidden: int = 32,
        by: str = "householder",
        hops: int = 0,
    ) -> None:
        super().__init__()
        if by not in WAYS:
            raise unknown_name("parametrisation", by, WAYS)
        if stalk < 2:
            raise ValueError("frames of one dim are 1 or -1 and cannot be learned; give at least 2")
        self.stalk, self.bundles, self.by, self.hops = stalk, bundles, by, hops
        numbers = stalk * (stalk - 1) // 2
        self.network = nn.Sequential(
            nn.Linear((1 + hops) * features, hidden),
            nn.Tanh(),
            nn.Linear(hidden, bundles * numbers),
        )

    @property
    def needs_graph(self) -> bool:
        """Whether they are called with the graph too."""
        return self.hops > 0

    def forward(
        self, x: Float[Tensor, "nodes features"], graph: Graph | None = None
    ) -> Float[Tensor, "nodes bundles d d"]:
        """Return the frames of the nodes."""
        seen = [x]
        if self.hops:
            if graph is None:
                raise ValueError(f"these frames see {self.hops} hops: call them with the graph")
            mean = graph.like(x).adjacency("row")
            for _ in range(self.hops):
                seen.append(mean @ seen[-1])
        count = self.stalk * (self.stalk - 1) // 2
        numbers = self.network(torch.cat(seen, 1) if self.hops else x).reshape(
            len(x) * self.bundles, count
        )
        frames = orthogonal(numbers, self.stalk, self.by)
        return frames.reshape(len(x), self.bundles, self.stalk, self.stalk)
