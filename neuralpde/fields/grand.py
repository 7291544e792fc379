"""GRAND: diffusion along attention, frozen or recomputed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuralpde.fields.constants import hold
from neuralpde.fields.field import Field, State
from neuralpde.fields.prior import prior
from neuralpde.graph import Graph
from neuralpde.operators import Attention, Operator, SparseOperator, attention, multiply
from solvers.failure import unknown_name

VARIANTS = ("linear", "nonlinear", "mixed")

CONSTANT_WEIGHT = 1e-5
"""What the published code sets all weights of queries and keys to."""


def _published(
    time: float, channels: int, heads: int, dim: int, kernel: str, over: str, **others: object
) -> tuple[dict[str, Any], float]:
    fixed = {"attention_dim": dim, "heads": heads, "kernel": kernel, "over": over, "paper": True}
    return {"channels": channels, **fixed, **others}, time


class GRAND(Field):
    """Graph neural diffusion, dx/dt = a (A x - x) + b x0.

    A is an attention matrix with entries `w_ij g(s_ij) / sum w g(s)` on the edges and self-loops of
    the graph: `s_ij` scores learned queries of receiver i against keys of sender j, `w` are edge
    weights (a prior; all ones on unweighted graphs), `g` is exp or squareplus. `a` is
    `sigmoid(alpha)` with a learned `alpha`, 0 at first, or the given `rate`; `b` is learned, 0 at
    first, and there only with `source`.

    "sinkhorn" scales rows and columns until both sum to 1: means are kept, too.

        linear     A is computed from x0 and frozen: a (A - I) is a generator, solved exactly
        mixed      (1 - sigmoid(gamma)) A + sigmoid(gamma) A_rw, frozen too, gamma learned from 0
        nonlinear  A is computed anew from x at every evaluation

    With `over="receiver"` rows of A sum to 1: constants stay constant and maxima never rise. With
    `over="sender"` columns do: totals over nodes are conserved instead. `alpha` only rescales time,
    and a source makes features grow linearly: pi^T x(t) = pi^T x0 (1 + b t), pi the stationary
    distribution of A. A node without edges and loops stands still (but for the source).

    The published code differs: it normalises over the sender in its settings for Cora, Citeseer and
    CoauthorCS, starts all weights of queries and keys at 1e-5 (which makes the dims of a head
    copies of each other), passes no gradient through the source's x0, and ignores edge weights in
    attention. `paper=True` switches the first three; pass `over="receiver"` with it for the
    other data sets. Not copied: squareplus of scores minus the largest score of the whole batch,
    and the dropping of edges with little attention in training (Computers, Photo, arxiv).

    Args:
        channels: Channels of the state `[nodes, channels]`.
        attention_dim: Dims of queries and keys, all heads together.
        heads: Number of heads, whose attention is averaged; divides `attention_dim`.
        kernel: "scaled_dot", "cosine", "pearson" or "distance"; see
            `neuralpde.operators.attention`.
        normalise: "softmax", "squareplus" or "sinkhorn".
        variant: "linear", "nonlinear" or "mixed".
        self_loops: Weight added to every self-loop.
        source: Whether there is the term b x0.
        over: "receiver" or "sender"; by default the receiver, with `paper` the sender.
        tied: Whether keys are the queries. With "sinkhorn" on undirected graphs A is then
            symmetric.
        rate: None for the learned sigmoid(alpha), or a number, or an `nn.Parameter`.
        paper: Whether to do as the published code does.

    Raises:
        ValueError: For unknown names, negative `self_loops`, heads that do not divide; at bind for
            a state of other shape.
        TypeError: At bind, for a state of another dtype than the parameters.

    References:
        B. Chamberlain et al., GRAND, ICML 2021, arXiv:2106.10934, eqs. 8-11; code at
        twitter-research/graph-neural-pde.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> field = GRAND(1, attention_dim=2, paper=True).bind(graph, x)
    >>> field(torch.tensor(0.0), x).flatten().tolist()
    [0.25, -0.25]
    """

    batched_time = True
    given_rate: float | Tensor

    PRESETS: ClassVar[dict[str, tuple[dict[str, Any], float]]] = {
        "Cora": _published(
            18.2948, 80, 8, 128, "scaled_dot", "sender", normalise="squareplus", source=True
        ),
        "Citeseer": _published(
            7.87411, 80, 8, 32, "distance", "sender", normalise="squareplus", source=True
        ),
        "Pubmed": _published(
            12.94233, 128, 1, 16, "cosine", "receiver", normalise="squareplus", source=True
        ),
        "CoauthorCS": _published(
            3.1264, 16, 4, 8, "scaled_dot", "sender", normalise="squareplus", self_loops=0.0
        ),
        "Computers": _published(3.24902, 128, 4, 64, "scaled_dot", "receiver", self_loops=1.714),
        "Photo": _published(3.5824, 64, 4, 64, "pearson", "receiver", self_loops=0.0578),
        "arxiv": _published(3.67602, 162, 2, 32, "scaled_dot", "receiver"),
    }
    """Arguments and end time by data set, of the published best_params.py."""

    def __init__(
        self,
        channels: int,
        *,
        attention_dim: int = 16,
        heads: int = 1,
        kernel: str = "scaled_dot",
        normalise: str = "softmax",
        variant: str = "linear",
        self_loops: float = 1.0,
        source: bool = False,
        over: str | None = None,
        tied: bool = False,
        rate: float | Tensor | None = None,
        paper: bool = False,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise unknown_name("variant", variant, VARIANTS)
        if not self_loops >= 0:
            raise ValueError(f"self_loops is {self_loops}; weights are not negative")
        over = over or ("sender" if paper else "receiver")
        self.channels, self.variant, self.paper = channels, variant, paper
        self.self_loops, self.over = float(self_loops), over
        self.has_rest = variant == "nonlinear"
        self.attention = Attention(channels, attention_dim, heads, kernel, normalise, over, tied)
        if paper:
            for layer in (self.attention.query, self.attention.key):
                if layer is not None:
                    nn.init.constant_(layer.weight, CONSTANT_WEIGHT)
        self.alpha = nn.Parameter(torch.zeros(())) if rate is None else None
        hold(self, "given_rate", 1.0 if rate is None else rate, dims=0)
        self.beta = nn.Parameter(torch.zeros(())) if source else None
        self.gamma = nn.Parameter(torch.zeros(())) if variant == "mixed" else None

    @classmethod
    def preset(cls, name: str) -> tuple[dict[str, Any], float]:
        """Return the published arguments and end time for a data set.

        What is no argument of this class (learning rates, dropout, the dropping of edges) is left
        out.

        Raises:
            ValueError: For a data set without any.

        >>> arguments, time = GRAND.preset("Cora")
        >>> GRAND(**arguments).over, time
        ('sender', 18.2948)
        """
        if name not in cls.PRESETS:
            raise unknown_name("preset", name, cls.PRESETS)
        arguments, time = cls.PRESETS[name]
        return dict(arguments), time

    @property
    def rate(self) -> float | Tensor:
        """The factor a."""
        return self.given_rate if self.alpha is None else self.alpha.sigmoid()

    def prepare(self, graph: Graph, x0: State) -> None:
        """Complete the pattern by self-loops; freeze attention and source."""
        x0 = self._checked(x0)
        self.pattern, weights = prior(graph, self.self_loops, self.over)
        self.prior = None if bool((weights == 1).all()) else weights
        self.pattern.copies(self.attention.heads)
        if self.beta is not None:
            self.source = self.beta * (x0.detach() if self.paper else x0)
        if self.variant == "nonlinear":
            return
        matrix: Operator = self._attend(x0)
        if self.gamma is not None:
            share = self.gamma.sigmoid()
            matrix = matrix * (1.0 - share) + self._walk(x0) * share
        self.operator = matrix.shifted(self.rate, -self.rate)
        # The operator and the source stand for the parameters they were computed from.
        self._modules, self._parameters = {}, {}

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The nonlinear variant: a (A(x) x - x)."""
        # As one matrix a (A - I): entries are fewer than the numbers of a state.
        values = self.rate * self.attention.values(self.pattern, x, weights=self.prior)
        loss = self.rate * x.new_ones(len(x))
        return multiply(self.pattern, values.index_add(0, self.pattern.diagonal, -loss), x)

    def _attend(self, x: Tensor) -> SparseOperator:
        graph = self.graph
        assert graph is not None
        found: SparseOperator = self.attention(
            self.pattern, x, weights=self.prior, batch=graph.batch, num_graphs=graph.num_graphs
        )
        return found

    def _walk(self, x: Tensor) -> SparseOperator:
        """A_rw: attention that pays none, so that every entry has the share of its weight."""
        graph = self.graph
        assert graph is not None
        blank = x.new_zeros(graph.num_nodes, 1)
        return attention(
            self.pattern,
            blank,
            blank,
            over=self.over,
            weights=self.prior,
            batch=graph.batch,
            num_graphs=graph.num_graphs,
        )

    def _checked(self, x0: State) -> Tensor:
        if not isinstance(x0, Tensor) or x0.dim() != 2 or x0.shape[1] != self.channels:
            shape = tuple(x0.shape) if isinstance(x0, Tensor) else "a tuple"
            raise ValueError(f"x0 is {shape}; this GRAND takes [nodes, {self.channels}]")
        dtype = self.attention.query.weight.dtype
        if x0.dtype != dtype:
            raise TypeError(
                f"x0 is {x0.dtype} and the parameters of GRAND are {dtype}; convert one: "
                f"field.to({x0.dtype}) or x0.to({dtype})"
            )
        return x0

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.channels}, variant={self.variant!r}, self_loops={self.self_loops:g}, "
            f"source={self.beta is not None}, over={self.over!r}, paper={self.paper}"
        )
