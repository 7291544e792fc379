"""A graph network that knows where its nodes are, and what goes on far away."""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralpde.fields.field import Field, State
from neuralpde.flows.networks import GraphNetwork


class ModalNetwork(Field):
    """Messages between neighbours that also read a few modes u_k of one graph.

    A `GraphNetwork` is the same at every node, and a few rounds see a few steps far: it can learn
    neither that one junction jams before others nor that all of them jam together. Here every node
    reads, beside its state x_i, the coefficients `c_k = <u_k, x>` of the whole state, the part
    `sum_k c_k u_k` of it that the modes span, and its own entries `sqrt(n) u_ik`.

    For states on one graph, or on a batch of copies of it.

    Args:
        modes: Orthonormal columns on the nodes of the graph, such as its smooth eigenvectors.
        channels: Numbers on a node.
        heads: 1 for a velocity; 2 for velocity and score.
        width: See `GraphNetwork`.
        depth: See `GraphNetwork`.

    Raises:
        ValueError: Unless the modes are orthonormal.

    >>> from neuralpde.catalogue import ring
    >>> net = ModalNetwork(torch.full((4, 1), 0.5), 3, heads=2)
    >>> x = torch.zeros(4, 3)
    >>> net.bind(ring(4), x)(torch.tensor(0.5), x).shape
    torch.Size([4, 6])
    """

    batched_time = True
    modes: Tensor

    def __init__(
        self,
        modes: Float[Tensor, "nodes modes"],
        channels: int = 1,
        heads: int = 1,
        *,
        width: int = 16,
        depth: int = 3,
    ) -> None:
        super().__init__()
        gram = modes.double().T @ modes.double()
        if not torch.allclose(gram, torch.eye(len(gram)).to(gram), atol=1e-4):
            raise ValueError(
                f"modes {tuple(modes.shape)} are not orthonormal columns: take eigenvectors, or "
                "torch.linalg.qr(modes).Q"
            )
        self.channels, self.outputs = channels, heads * channels
        self.register_buffer("modes", modes)
        count = modes.shape[1]
        self.inner = GraphNetwork(
            2 * channels + count * (channels + 1), heads, width=width, depth=depth
        )

    def relabelled(self, order: Int64[Tensor, " nodes"]) -> ModalNetwork:
        """Return the same network on a graph whose node `k` was node `order[k]` before."""
        fresh = copy(self)
        fresh._buffers = self._buffers | {"modes": self.modes[order]}
        return fresh

    def inner_state(self, x0: State) -> State:
        """What the inner network reads of the first state."""
        assert isinstance(x0, Tensor)
        return self.read(x0)

    def read(self, x: Float[Tensor, "nodes channels"]) -> Float[Tensor, "nodes inputs"]:
        """State, its part along the modes, all coefficients, the modes, side by side.

        Raises:
            ValueError: For a state of other nodes.
        """
        modes = self.modes.to(x)
        nodes = len(modes)
        if len(x) % nodes:
            raise ValueError(f"{len(x)} nodes are no copies of the {nodes} that the modes are of")
        copies = x.view(-1, nodes, x.shape[1])
        coefficients = modes.T @ copies
        along = modes @ coefficients
        shape = (len(copies), nodes, -1)
        parts = (
            copies,
            along,
            coefficients.flatten(1)[:, None].expand(shape),
            (nodes**0.5 * modes).expand(shape),
        )
        return torch.cat(parts, 2).flatten(0, 1)

    def rest(self, t: Tensor, x: Float[Tensor, "nodes channels"]) -> Float[Tensor, "nodes outputs"]:
        """All heads, side by side."""
        out: Tensor = self.inner(t, self.read(x))
        return out[:, : self.outputs]
