"""Networks in depth: residual blocks, each with a flow between its norm and its linear maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.graph import Graph
from neuralpde.operators.bundle import framed, unframed
from neuralpde.tracking import layered
from solvers.trajectory import Trajectory


class Block(nn.Module):
    """A residual block: normalise, mix over the graph, two linear maps.

        z = O norm(x),   m = mixing(z),   x <- x + O^T (W2 act(W1 [z || m] + b1) + b2)

    W1 reads m alone unless `separate`, and O = 1 without `frames`; dropout follows both maps. What
    mixes is any module called as `mixing(z, graph)`: a field for a time is
    `NodeModel(nn.Identity(), field, nn.Identity(), ...)`, a layer of torch_geometric is
    `Convolution`, and None is a network without a graph.

    With frames the flow and the linear maps see every node's stalk in the node's own frame, learned
    from norm(x): with heat for a mixing this is one layer of a bundle network, whose
    e^(-tau L) is exact here. The published code sums 8 terms of Taylor's series, and its W1 reads
    norm(x) instead of O norm(x), which depends on how the stalks are turned.

    Args:
        width: Numbers of a node.
        mixing: Maps `[nodes, width]` to `[nodes, mixed]`; None leaves z as it is.
        mixed: What the mixing returns, `width` by default.
        frames: Maps `[nodes, width]` and the graph to orthogonal `[nodes, bundles, d, d]`.
        separate: Whether a node's own numbers stand beside the mixed ones.
        act: Between the linear maps, GELU by default.
        dropout: After each of them.
        norm: Whether there is a LayerNorm.

    References:
        Platonov et al., A critical look at the evaluation of GNNs under heterophily, ICLR 2023,
        arXiv:2302.11640; code at yandex-research/heterophilous-graphs. Frames: Bamberger et al.,
        Bundle Neural Networks, ICLR 2025, arXiv:2405.15540.

    >>> block, x = Block(2), torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    >>> for weights in block.maps.parameters():
    ...     _ = nn.init.zeros_(weights)
    >>> block(x, torch.tensor([[0, 1], [1, 0]])).tolist()
    [[1.0, 3.0], [2.0, 0.0]]
    """

    def __init__(
        self,
        width: int,
        mixing: nn.Module | None = None,
        *,
        mixed: int | None = None,
        frames: nn.Module | None = None,
        separate: bool = False,
        act: nn.Module | None = None,
        dropout: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.width, self.mixing, self.frames, self.separate = width, mixing, frames, separate
        self.norm: nn.Module = nn.LayerNorm(width) if norm else nn.Identity()
        seen = (width if mixed is None else mixed) + (width if separate else 0)
        self.maps = nn.Sequential(
            nn.Linear(seen, width),
            nn.Dropout(dropout),
            nn.GELU() if act is None else act,
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "nodes width"], graph: Any) -> Float[Tensor, "nodes width"]:
        """The state after the block."""
        owner = Graph.of(graph).like(x)
        z = self.norm(x)
        if self.frames is None:
            return x + self._moved(z, owner)
        frames = self.frames(z, owner)
        return x + unframed(frames, self._moved(framed(frames, z), owner))

    def _moved(self, z: Tensor, graph: Graph) -> Tensor:
        m = z if self.mixing is None else self.mixing(z, graph)
        moved: Tensor = self.maps(torch.cat([z, m], 1) if self.separate else m)
        return moved


class Stack(nn.Module):
    """An encoder, blocks one after the other, and a decoder; called as `NodeModel` is.

    Args:
        encoder: Maps `[nodes, inputs]` to `[nodes, width]`.
        blocks: Modules called as `block(x, graph)`.
        decoder: Maps `[nodes, width]` to `[nodes, outputs]`.

    Raises:
        ValueError: For no blocks.

    >>> stack = Stack(nn.Linear(3, 4), [Block(4), Block(4)], nn.Linear(4, 2))
    >>> pair = torch.tensor([[0, 1], [1, 0]])
    >>> stack(torch.ones(2, 3), pair).shape, len(stack.trajectory(torch.ones(2, 3), pair).x)
    (torch.Size([2, 2]), 3)
    """

    def __init__(self, encoder: nn.Module, blocks: Sequence[nn.Module], decoder: nn.Module) -> None:
        super().__init__()
        if not blocks:
            raise ValueError("a Stack of no blocks; give at least one")
        self.encoder, self.blocks, self.decoder = encoder, nn.ModuleList(blocks), decoder

    def states(
        self, x: Float[Tensor, "nodes inputs"], graph: Any
    ) -> list[Float[Tensor, "nodes width"]]:
        """What the encoder makes of features, and the state after every block."""
        owner, found = Graph.of(graph).like(x), [self.encoder(x)]
        for block in self.blocks:
            found.append(block(found[-1], owner))
        return found

    def last(self, x: Float[Tensor, "nodes inputs"], graph: Any) -> Float[Tensor, "nodes width"]:
        """The state after the last block."""
        return self.states(x, graph)[-1]

    def read(self, state: Float[Tensor, "nodes width"]) -> Float[Tensor, "nodes outputs"]:
        """What the decoder makes of a state."""
        out: Tensor = self.decoder(state)
        return out

    def forward(
        self, x: Float[Tensor, "nodes inputs"], graph: Any
    ) -> Float[Tensor, "nodes outputs"]:
        """The output for features on a graph."""
        return self.read(self.last(x, graph))

    def trajectory(
        self, x: Float[Tensor, "nodes inputs"], graph: Any, *, norm: str = "sym"
    ) -> Trajectory:
        """The states in eval mode, without gradients, with their energy; t counts the blocks.

        The mode of the model is what it was before: it may be called while the model trains.

        Args:
            x: Features.
            graph: The graph.
            norm: Dirichlet form of the energy: "comb", "sym", "rw" or "augmented".
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.no_grad():
                states = torch.stack(self.states(x, graph))
        finally:
            for module, mode in modes.items():
                module.training = mode
        return layered(states, Graph.of(graph), norm, type(self).__name__)
