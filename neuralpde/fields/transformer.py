"""The attention of a transformer as a flow."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.field import Field, State
from neuralpde.fields.prior import prior
from neuralpde.graph import Graph
from neuralpde.operators import Attention, Kronecker, SparseOperator
from solvers.failure import unknown_name

VARIANTS = ("linear", "nonlinear")


class TransformerFlow(Field):
    """The flow whose Euler steps are attention layers, dx/dt = sum_h A_h(x) x H_h.

    Every head has a matrix of channels `H_h = W_V^h W_O^h`, and its own attention A_h on the edges
    and self-loops of the graph; edge weights are a prior. A transformer attends to every node: so
    does this on a complete graph (`catalogue.complete`), and only there.

        nonlinear  A_h is computed from x at every evaluation
        linear     A_h is computed from x0 and frozen: with one head, a step X + A X H of length 1
                   has the spectrum `1 + lambda_A lambda_H`. The operator is sum_h A_h (x) H_h

    With "sinkhorn" on an undirected graph, tied queries and keys `x W` without bias, and `H_h` a
    positive multiple of `W W^T` it climbs along a gradient, as Sander et al. show for points.

    Args:
        channels: Channels of the state `[nodes, channels]`.
        attention_dim: Dims of queries, keys and values, all heads together.
        heads: Number of heads; divides `attention_dim`.
        kernel: "scaled_dot", "cosine", "pearson" or "distance".
        normalise: "softmax", "squareplus" or "sinkhorn".
        variant: "nonlinear" or "linear".
        self_loops: Weight added to every self-loop.
        tied: Whether keys are the queries.

    Raises:
        ValueError: For unknown names, negative `self_loops`, heads that do not divide; at bind for
            a state of other shape.

    References:
        A. Vaswani et al., 2017, arXiv:1706.03762. As a linear map with its spectrum: G. Dovonon,
        M. Bronstein, M. Kusner, 2024, arXiv:2401.04301. As a flow: M. Sander et al., Sinkformers,
        AISTATS 2022, arXiv:2110.11773.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> field = TransformerFlow(1, attention_dim=1, variant="linear")
    >>> _ = nn.init.ones_(field.value.weight), nn.init.ones_(field.out.weight)
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> field.bind(graph, torch.zeros(2, 1))(torch.tensor(0.0), x).tolist()
    [[2.0], [2.0]]
    """

    batched_time = True

    def __init__(
        self,
        channels: int,
        *,
        attention_dim: int = 16,
        heads: int = 1,
        kernel: str = "scaled_dot",
        normalise: str = "softmax",
        variant: str = "nonlinear",
        self_loops: float = 1.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise unknown_name("variant", variant, VARIANTS)
        if not self_loops >= 0:
            raise ValueError(f"self_loops is {self_loops}; weights are not negative")
        if heads < 1 or attention_dim % heads:
            raise ValueError(
                f"{heads} heads do not divide {attention_dim} dims; choose dims = heads * d"
            )
        self.channels, self.variant, self.self_loops = channels, variant, float(self_loops)
        self.heads, self.has_rest = heads, variant == "nonlinear"
        self.attention = nn.ModuleList(
            Attention(channels, attention_dim // heads, 1, kernel, normalise, tied=tied)
            for _ in range(heads)
        )
        self.value = nn.Linear(channels, attention_dim, bias=False)
        self.out = nn.Linear(attention_dim, channels, bias=False)

    @property
    def H(self) -> Float[Tensor, "heads channels channels"]:
        """The matrix of channels of each head, W_V W_O; the state is multiplied from the right."""
        values = self.value.weight.unflatten(0, (self.heads, -1))
        outs = self.out.weight.unflatten(1, (self.heads, -1))
        return torch.einsum("hdc,ehd->hce", values, outs)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Complete the pattern by self-loops; freeze attention in the linear variant."""
        if not isinstance(x0, Tensor) or x0.dim() != 2 or x0.shape[1] != self.channels:
            shape = tuple(x0.shape) if isinstance(x0, Tensor) else "a tuple"
            raise ValueError(f"x0 is {shape}; this TransformerFlow takes [nodes, {self.channels}]")
        self.pattern, self.prior = prior(graph, self.self_loops)
        if self.variant == "linear":
            pairs = zip(self._attend(x0), self.H.unbind(), strict=True)
            self.operator = reduce(add, (Kronecker(A, H) for A, H in pairs))
            # The operator stands for the parameters it was computed from.
            self._modules = {}

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """Every head gathers its values; their matrices of channels are multiplied last."""
        values = self.value(x).chunk(self.heads, 1)
        gathered = [A @ v.contiguous() for A, v in zip(self._attend(x), values, strict=True)]
        moved: Tensor = self.out(torch.cat(gathered, 1))
        return moved

    def _attend(self, x: Tensor) -> list[SparseOperator]:
        graph = self.graph
        assert graph is not None
        return [
            attention(
                self.pattern, x, weights=self.prior, batch=graph.batch, num_graphs=graph.num_graphs
            )
            for attention in self.attention
        ]

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, variant={self.variant!r}, self_loops={self.self_loops:g}"
