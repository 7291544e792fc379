"""Heat flow with a time of its own for every channel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from neuralpde.fields.constants import hold
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import ChannelScaled


class AnisotropicDiffusion(Field):
    """The diffusion of graph anisotropic diffusion, dx/dt = -L x diag(tau), tau_k >= 0.

    Channel k diffuses for its own time: at t = 1 it is `e^(-tau_k L) x_k`, exactly. tau is
    `softplus(theta)`, learned, 1 at first, or given. With "rw" the field keeps the degree-weighted
    mean of every channel, and extremes never grow.

    The paper has two versions of the layer. Its implicit one, `(D + tau L)^-1 D x`, is a single
    step of `solver="implicit_euler"` of this field, from 0 to 1; its spectral one is this field
    from a truncated eigenbasis, which breaks the maximum principle. Its code clamps tau at 1e-8
    instead, from 0. Its directional aggregation is no part of the field; the matrices are
    `neuralpde.operators.directional`.

    Args:
        channels: Channels of the state `[nodes, channels]`.
        norm: "rw" (the paper's), "comb", "sym" or "augmented".
        tau: None to learn softplus(theta), or a tensor `[channels]`, not negative; an
            `nn.Parameter` is learned as it is.

    Raises:
        ValueError: For a tau of other shape, or negative; at bind for a state of other shape.

    References:
        A. Elhag et al., Graph Anisotropic Diffusion, 2022, arXiv:2205.00354; code at
        Ahmed-A-A-Elhag/GAD.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> field = AnisotropicDiffusion(2, tau=torch.tensor([1.0, 5.0])).bind(graph, x)
    >>> field(torch.tensor(0.0), x).tolist()
    [[1.0, 5.0], [-1.0, -5.0]]
    """

    batched_time = True
    given: Tensor

    def __init__(
        self,
        channels: int,
        *,
        norm: str = "rw",
        tau: Float[Tensor, " channels"] | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.norm = channels, norm
        self.learns = tau is None
        if tau is None:
            self.theta = nn.Parameter(torch.full((channels,), math.log(math.e - 1.0)))
            return
        if tau.shape != (channels,) or bool((tau.detach() < 0).any()):
            raise ValueError(
                f"tau is {tau.tolist()}; give {channels} times, one for each channel, none negative"
            )
        hold(self, "given", tau)

    @property
    def tau(self) -> Float[Tensor, " channels"]:
        """The times of the channels."""
        return functional.softplus(self.theta) if self.learns else self.given

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -L diag(tau)."""
        if not isinstance(x0, Tensor) or x0.is_complex() or x0.shape[1:] != (self.channels,):
            raise ValueError(
                f"this AnisotropicDiffusion takes a real state [nodes, {self.channels}], a channel "
                "for each time"
            )
        assert self.norm is not None
        self.operator = ChannelScaled(-graph.laplacian(self.norm), self.tau.to(x0.dtype))
        self._parameters, self._buffers = {}, {}

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.channels}, norm={self.norm!r}"
