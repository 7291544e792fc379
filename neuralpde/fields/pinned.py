"""Boundary nodes: held at a constant, or led along a function of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Operator, SparseOperator
from neuralpde.operators.tags import Enclosure
from solvers.noise import declared

Values = float | Float[Tensor, "pinned ..."] | Callable[[Tensor], Tensor] | None


class Pinned(Field):
    """A field with a Dirichlet boundary: dx_i/dt = f_i(t, x) inside, x_p = values(t) on nodes p.

    Linear fields stay linear under constant values, and exact. Self-adjoint ones are reduced to
    the free nodes, `x_f' = A_ff x_f + A_fp x_p`, the second term a source; the operator stays
    symmetric and its spectrum within that of A and 0. Of others the pinned rows are dropped, so
    that a generator by rows becomes that of a walk absorbed at the boundary, solved by
    uniformisation; a generator by columns goes by steps. The steady state of `Pinned(Heat(), p, v)`
    is the harmonic extension of v, which is feature propagation.

    The first state has to agree with the values: `pinned.start(x0)` puts them in. Gradients of
    constant values flow through it.

    Args:
        field: The field; not piecewise (pin each layer instead).
        nodes: Indices of the pinned nodes, or a mask `[nodes]`.
        values: What they are held at: a number or a tensor that broadcasts to `[pinned, ...]`
            (in the order of `nodes`); a function of time (a 0-d tensor) that returns such a tensor
            and is differentiated by `torch.func.jvp`; None for what the first state has there.

    Raises:
        ValueError: For nodes that repeat or are negative, a function of time with a second-order
            field; at bind, for nodes that the graph lacks, or a first state that disagrees.

    References:
        Rossi et al., On the unreasonable effectiveness of feature propagation, LoG 2022,
        arXiv:2111.12128, eq. 3.

    >>> from neuralpde.fields.diffusion import Heat
    >>> path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    >>> field = Pinned(Heat(), [0, 2], torch.tensor([[0.0], [4.0]]))
    >>> x = field.start(torch.ones(3, 1))
    >>> bound = field.bind(path, x)
    >>> bound(torch.tensor(0.0), x).flatten().tolist(), bound.affine
    ([0.0, 2.0, 0.0], True)
    """

    needs_graph = True
    field: Field
    nodes: Tensor
    values: Any

    def __init__(
        self,
        field: Field,
        nodes: Int64[Tensor, " pinned"] | Bool[Tensor, " nodes"] | list[int],
        values: Values = None,
    ) -> None:
        super().__init__()
        index = torch.as_tensor(nodes)
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long().flatten()
        if len(index.unique()) < len(index) or bool((index < 0).any()):
            raise ValueError("nodes holds a node twice, or a negative number; name each node once")
        if field.pieces is not None:
            raise ValueError("a piecewise field is pinned piece by piece: Layers([Pinned(f, ...)])")
        self.moving = callable(values)
        if self.moving and field.order != 1:
            raise ValueError("values that move with time need a first-order field")
        self.order, self.is_complex, self.field = field.order, field.is_complex, field
        self.has_force = False
        self.register_buffer("nodes", index, persistent=False)
        if isinstance(values, Tensor) and not values.requires_grad:
            self.register_buffer("values", values, persistent=False)
        else:
            self.values = values

    def start(self, x0: Tensor, t: float = 0.0) -> Tensor:
        """Return the first state with the values of time `t` at the pinned nodes.

        >>> from neuralpde.fields.diffusion import Heat
        >>> Pinned(Heat(), [1], lambda t: 2 * t).start(torch.zeros(2, 1), 3.0).flatten().tolist()
        [0.0, 6.0]
        """
        return self._placed(torch.as_tensor(t, dtype=x0.dtype.to_real(), device=x0.device), x0)

    def relabelled(self, order: Int64[Tensor, " nodes"]) -> Pinned:
        """Return the same field on a graph whose node `k` was node `order[k]` before.

        >>> from neuralpde.fields.diffusion import Heat
        >>> Pinned(Heat(), [0]).relabelled(torch.tensor([2, 0, 1])).nodes.tolist()
        [1]
        """
        inverse = torch.argsort(order.to(self.nodes))
        return Pinned(self.field, inverse[self.nodes], self.values)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Separate the boundary from the inside."""
        if len(self.nodes) and int(self.nodes.max()) >= graph.num_nodes:
            raise ValueError(
                f"node {int(self.nodes.max())} is pinned and the graph has {graph.num_nodes} nodes"
            )
        self.free = torch.ones(graph.num_nodes, dtype=torch.bool, device=graph.device)
        self.free[self.nodes] = False
        inner = self.field
        self.norm, self.dims = inner.norm, (x0[0] if isinstance(x0, tuple) else x0).dim()
        self.batched_time = inner.batched_time and not self.moving
        self.has_rest = self.moving or inner.has_rest
        if self.moving:
            return
        if isinstance(x0, Tensor):
            self._check_start(x0)
        elif inner.has_force and not bool(x0[1][self.nodes].any()):
            self.has_force, self.damping, self.stiffness = True, inner.damping, inner.stiffness
            return
        else:
            self.has_rest = True
        operator = inner.operator
        if isinstance(operator, SparseOperator) and isinstance(x0, Tensor):
            inner.operator = None
            self.operator, inflow = _reduced(operator, self.free, x0)
            own = None if inner.source is None else self._inside(inner.source.expand_as(x0))
            inner.source = None
            self.source = own if inflow is None else inflow if own is None else inflow + own
        elif operator is not None or inner.source is not None:
            self.has_rest = True
        if not self.has_rest and inner.noise is None:
            self._modules = {}

    def inherited_noise(self) -> Any:
        """The noise inside; there is none at the boundary."""
        inner: Any = self._modules.get("field")
        if inner is None:
            return None
        if inner.noise is None or not self.is_bound:
            return inner.noise
        noise, free = declared(inner.noise), self.free.double().view(-1, *[1] * (self.dims - 1))
        if noise.operator is not None:
            raise ValueError(
                "noise with an operator reaches the pinned nodes: add it outside, Pinned(field, "
                "...) + Noise(operator=B), with a B whose pinned rows are zero"
            )

        def inside(t: Tensor | None = None, x: Any = None) -> Any:
            found = tuple(g * free for g in noise.values(t, x))
            return found if len(found) > 1 else found[0]

        return replace(noise, amplitude=inside if noise.counted else inside())

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        """The force inside; what is at rest at the boundary stays there."""
        return self._inside(self.field.force(t, x))

    def rest(self, t: Tensor, x: State) -> State:
        """What the field does inside; the boundary follows its values."""
        if isinstance(x, tuple):
            slopes: tuple[Tensor, ...] = self.field(t, x)
            return tuple(map(self._inside, slopes))
        if not self.moving:
            return self._inside(self.field(t, x))
        # The inside sees the boundary itself, whatever errors the state has gathered there.
        slope = self._inside(self.field(t, self._placed(t, x)))
        speed: Tensor = torch.func.jvp(self._at, (t,), (torch.ones_like(t),))[1]
        return slope.index_copy(0, self.nodes, speed.to(x).expand(self._shape(x)))

    def _at(self, t: Tensor) -> Tensor:
        return torch.as_tensor(self.values(t))

    def _placed(self, t: Tensor, x: Tensor) -> Tensor:
        if self.values is None:
            return x
        values = self._at(t) if self.moving else torch.as_tensor(self.values)
        return x.index_copy(0, self.nodes, values.to(x).expand(self._shape(x)))

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        return (len(self.nodes), *x.shape[1:])

    def _inside(self, x: Tensor) -> Tensor:
        return x * self.free.view(-1, *[1] * (x.dim() - 1))

    def _check_start(self, x0: Tensor) -> None:
        with torch.no_grad():
            off = (self._placed(x0.new_zeros(()), x0) - x0).abs().reshape(len(x0), -1)
            size = x0.abs().reshape(len(x0), -1)
            wrong = (off > 8 * torch.finfo(x0.dtype).eps * size).any(1)
        if bool(wrong.any()):
            raise ValueError(
                f"x0 differs from the pinned values at {int(wrong.sum())} nodes (first: node "
                f"{int(wrong.nonzero()[0])}); start from pinned.start(x0), or leave out values to "
                "hold the nodes at what x0 has"
            )


def _reduced(A: SparseOperator, free: Tensor, x0: Tensor) -> tuple[Operator, Tensor | None]:
    """The operator of the inside, and what flows in from the boundary unless that is part of it."""
    rows = free[A.pattern.row]
    # Without multiples of the identity, and with the sums of rows only where they are all zero.
    tags = replace(A.tags, multiple=None, col_sum=None)
    if not A.self_adjoint:
        # The first state has the values at the boundary, and nothing moves them there.
        tags = replace(
            tags,
            row_sum=tags.row_sum if A.generator == "row" else None,
            enclosure=None,
        )
        return SparseOperator.tagged(A.pattern, A.values * rows, tags, A.graphs), None
    both = rows & free[A.pattern.col.long()]
    if tags.enclosure is not None:
        lo, hi, norm = tags.enclosure
        # A principal part has its spectrum within (Cauchy); the dropped rows add zeros.
        tags = replace(tags, enclosure=Enclosure(lo.clamp(max=0.0), hi.clamp(min=0.0), norm))
    tags = replace(tags, row_sum=None)
    shape = (-1, *[1] * (x0.dim() - 1))
    boundary = x0 * ~free.view(shape)
    inflow = (A @ boundary) * free.view(shape)
    return SparseOperator.tagged(A.pattern, A.values * both, tags, A.graphs), inflow
