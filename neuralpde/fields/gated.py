"""Gates: fields whose every entry moves at a rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators.disagreement import disagreement
from solvers.failure import unknown_name

AGGREGATES = ("sum", "mean")


class Gated(Field):
    """A field times a rate, dx/dt = rate(t, x) f(t, x), entry by entry.

    Where f is linear this is not: the operator of f is no operator of the gated field.

    Args:
        field: f.
        rate: A function of (t, x) that broadcasts against the state; a `Field` serves too, and is
            bound with this one, and so does a module.

    Raises:
        ValueError: For a field of second order, a piecewise or a stochastic one.

    >>> from neuralpde.fields.reaction import Reaction
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> Gated(Reaction([1.0]), lambda t, x: x**2).bind(None, x)(torch.tensor(0.0), x).tolist()
    [[1.0], [4.0]]
    """

    needs_graph = False
    field: Field

    def __init__(self, field: Field, rate: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.field, self.rate = field, rate
        _check(field)

    def prepare(self, graph: Graph | None, x0: State) -> None:
        """Take over what the field says of itself."""
        self.norm = self.field.norm
        self.batched_time = self.field.batched_time and getattr(self.rate, "batched_time", True)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The gated field."""
        slope: Tensor = self.field(t, x)
        return self.rate(t, x) * slope


class GradientGating(Field):
    """Gradient gating (G2): neighbours that agree stop moving.

        x' = tau(x) (sigma(F(x)) - x),   tau_ik = tanh(sum_j w_ij |y_jk - y_ik|^p)

    The sum goes over the neighbours j that send to i, `y = sigma(F^(x))`, and `w` are the weights
    of the edges, 1 in the paper. The inner field is `f(t, x) = sigma(F(x)) - x`, any field of first
    order: `Coupling(conv, act=...)` of a convolution, or `Heat("rw")`, where F averages. Rates lie
    in [0, 1) (in floating point they may round to 1), every channel of every node has its own, and
    they vanish where all neighbours agree: so distances of neighbours shrink like
    `(2 p t)^(-1/p)`, no longer exponentially, and boxes that sigma(F) maps into themselves are kept
    as they are without gates. Nodes without neighbours stand still. With p towards 0 the gates
    open: all rates of a node that disagrees with n neighbours tend to `tanh(n)`.

    tau has kinks where neighbours agree, if p <= 1 or p is odd; p > 1 makes f differentiable. For
    p < 1 it is not even Lipschitz there.

    The published code takes the mean over neighbours, not the sum, and on directed graphs over
    those that are sent to, while its convolutions receive: here both receive. Its default is
    p = 2.5.

    Args:
        field: f, whose `f(t, x) + x` is sigma(F(x)).
        p: Exponent of the differences, positive.
        aggregate: "sum" (as in the paper) or "mean" (as in the published code), a weighted mean.
        gate: A field for F^, `y = gate(t, x) + x`; None for F itself.

    Raises:
        ValueError: For p that is not positive, an unknown aggregate, a field of second order, a
            piecewise or a stochastic one.

    References:
        T. K. Rusch, B. Chamberlain, M. Mahoney, M. Bronstein, S. Mishra, Gradient gating for deep
        multi-rate learning on graphs, ICLR 2023, arXiv:2210.00513; code at tk-rusch/gradientgating.

    >>> from neuralpde.fields.diffusion import Heat
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> field = GradientGating(Heat("rw"), p=2.0).bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> field.tau(torch.tensor(0.0), x).flatten().tolist()
    [0.9993, 0.9993]
    """

    field: Field
    gate: Field | None
    nodes: Tensor

    def __init__(
        self, field: Field, p: float = 2.0, aggregate: str = "sum", gate: Field | None = None
    ) -> None:
        super().__init__()
        if not 0.0 < p < float("inf"):
            raise ValueError(f"p is {p}; the exponent of differences is positive and finite")
        if aggregate not in AGGREGATES:
            raise unknown_name("aggregate", aggregate, AGGREGATES)
        for part in (field, gate):
            if part is not None:
                _check(part)
        self.field, self.gate, self.p, self.aggregate = field, gate, float(p), aggregate
        channels: Any = getattr(field, "channels", None)
        if channels is not None:
            self.channels = channels

    def prepare(self, graph: Graph, x0: State) -> None:
        """Weigh the neighbours: all of them alike, or so that they sum up to one."""
        parts = [self.field] if self.gate is None else [self.field, self.gate]
        self.norm = self.field.norm
        self.batched_time = all(part.batched_time for part in parts)
        weights = torch.where(graph.pattern.row == graph.pattern.col, 0.0, graph.edge_weight)
        if self.aggregate == "mean":
            total = weights.new_zeros(graph.num_nodes).index_add(0, graph.pattern.row, weights)
            weights = weights / torch.where(total > 0, total, 1.0)[graph.pattern.row]
        assert isinstance(x0, Tensor)
        self.pattern, self.weights = graph.pattern, weights.to(x0.dtype.to_real())

    def tau(self, t: Tensor, x: Float[Tensor, "nodes ..."]) -> Float[Tensor, "nodes ..."]:
        """The rates of all entries."""
        slope: Tensor = (self.field if self.gate is None else self.gate)(t, x)
        return self._opened(x + slope)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The gated field."""
        slope: Tensor = self.field(t, x)
        other: Tensor = slope if self.gate is None else self.gate(t, x)
        return self._opened(x + other) * slope

    def _opened(self, y: Tensor) -> Tensor:
        return torch.tanh(disagreement(self.pattern, self.weights, y, self.p))

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p:g}, aggregate={self.aggregate!r}"


def _check(field: Field) -> None:
    if field.order != 1 or field.pieces is not None:
        raise ValueError(
            f"{field.label} is of order {field.order} or piecewise; gates open on first-order "
            "fields (gate the pieces one by one: Layers([GradientGating(f), ...]))"
        )
    if field.noise is not None:
        raise ValueError(f"{field.label} is stochastic; gate its drift and add the noise outside")
