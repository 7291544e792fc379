"""Anti-symmetric networks: channels turn instead of fading."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.constants import hold
from neuralpde.fields.coupling import Coupling
from neuralpde.fields.field import Field, State
from neuralpde.fields.mixing import Mixing
from neuralpde.graph import Graph


class AntiSymmetricDGN(Field):
    """Anti-symmetric deep graph network, x_i' = act((W - W^T - gamma I) x_i + Phi(x)_i + b).

    W acts on the channels of every node. Without Phi the Jacobian is diag(act') (W - W^T - gamma
    I), whose eigenvalues for gamma = 0 and act' > 0 are imaginary: nothing fades and nothing
    explodes; with act = id, d|x|^2/dt = -2 gamma |x|^2. (With Phi neither holds: its part of the
    Jacobian is added.) The published network is `solver="euler"` with steps of size epsilon; Euler
    is stable iff |1 + epsilon (i omega - gamma)| <= 1 for the eigenvalues i omega of W - W^T, so
    never for gamma = 0.

    Args:
        channels: Channels of the state.
        coupling: Phi, a graph convolution or a field of first order; by default that of Kipf and
            Welling, D~^-1/2 (A + I) D~^-1/2 x V^T.
        gamma: A number or a 0-d tensor; an `nn.Parameter` is learned.
        act: A function of every entry.
        bias: Whether there is a b.

    References:
        Gravina, Bacciu and Gallicchio, Anti-symmetric DGN, ICLR 2023, arXiv:2210.09789;
        torch_geometric's `AntiSymmetricConv` is Euler's method for this field.

    >>> field = AntiSymmetricDGN(2, gamma=0.0, act=lambda x: x)
    >>> for weight in (field.weight, field.coupling.weight):
    ...     _ = weight.data.zero_()
    >>> field.weight.data[0, 1] = 3.0
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> field.bind(Graph(torch.zeros(2, 0).long(), 1), x)(torch.tensor(0.0), x).tolist()
    [[6.0, -3.0]]
    """

    gamma: float | Tensor

    def __init__(
        self,
        channels: int,
        coupling: nn.Module | None = None,
        gamma: float | Tensor = 0.1,
        act: Callable[[Tensor], Tensor] = torch.tanh,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        phi = Mixing(channels) if coupling is None else coupling
        if not isinstance(phi, Field):
            phi = Coupling(phi, act=lambda x: x, leak=0.0)
        if phi.order != 1 or phi.pieces is not None:
            raise ValueError(f"{phi.label} cannot be a coupling: give a field of first order")
        self.channels, self.act = channels, act
        self.coupling: Any = phi
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        hold(self, "gamma", gamma, dims=0)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build W - W^T - gamma I."""
        if not isinstance(x0, Tensor) or x0.shape[-1] != self.channels:
            got = "a tuple" if isinstance(x0, tuple) else f"{tuple(x0.shape)}"
            raise ValueError(f"the state is {got}; this field takes [nodes, {self.channels}]")
        eye = torch.eye(self.channels, dtype=self.weight.dtype, device=self.weight.device)
        self.turn = self.weight - self.weight.T - self.gamma * eye
        self.batched_time = self.coupling.batched_time
        # The matrix stands for what it was made of.
        self._parameters = {k: v for k, v in self._parameters.items() if k == "bias"}

    def rest(
        self, t: Tensor, x: Float[Tensor, "nodes channels"]
    ) -> Float[Tensor, "nodes channels"]:
        """The activated sum."""
        total = x @ self.turn.T + self.coupling(t, x)
        return self.act(total if self.bias is None else total + self.bias)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, gamma={self.gamma!r}, bias={self.bias is not None}"
