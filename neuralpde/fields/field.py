"""What every vector field on a graph promises: bind once per solve, then be a pure function."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from neuralpde.fields.binding import freshen, shallow, tensors
from neuralpde.graph import Graph
from neuralpde.operators import Operator

State = Tensor | tuple[Tensor, ...]


class Field(nn.Module):
    """A vector field on a graph: dx/dt = A x + source + rest(t, x).

    A subclass gives `prepare`, which freezes what does not depend on time, and `rest`, or only
    sets `self.operator` in `prepare`: then the field is linear and is solved exactly. `t` is a 0-d
    tensor; `x` has shape `[nodes, channels]` (any trailing shape, or a tuple of tensors).

    Attributes:
        order: 2 when the state is a pair (position, velocity).
        operator: The linear part A, once bound; None when there is none.
        source: A constant tensor once bound; None when there is none.
        lyapunov: The functional that a gradient flow descends, or None.
        noise: The diffusion of a stochastic field, or None.
        norm: Which Dirichlet form is this field's own: "comb", "sym", "rw", "augmented"; None
            stands for "comb".
        batched_time: True when f takes `t` of shape `[nodes, 1]`, so that the graphs of a batch
            may keep their own clocks. Fields that do not read `t` set it too.
        dissipation: When the field is exactly -rate L with L its own form's: the rate per graph.
        pieces: The fields of a piecewise one, each for its own part of the interval; else None.

    >>> class Decay(Field):
    ...     def prepare(self, graph, x0):
    ...         self.A = graph.adjacency("row")
    ...     def rest(self, t, x):
    ...         return torch.tanh(self.A @ x) - x
    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> x = torch.zeros(2, 1)
    >>> Decay().bind(Graph(edges), x)(torch.tensor(0.0), x).tolist()
    [[0.0], [0.0]]
    """

    order: int = 1
    operator: Operator | None = None
    source: Tensor | None = None
    lyapunov: Any = None
    noise: Any = None
    norm: str | None = None
    batched_time: bool = False
    dissipation: Tensor | None = None
    pieces: tuple[Field, ...] | None = None
    has_rest: bool = False
    needs_graph: bool = False
    graph: Graph | None = None
    is_bound: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Note what the subclass gives, so that nobody needs to ask for its type."""
        super().__init_subclass__(**keywords)
        cls.has_rest = cls.rest is not Field.rest or cls.forward is not Field.forward
        if "needs_graph" not in vars(cls):
            cls.needs_graph = cls.needs_graph or "prepare" in vars(cls)

    def bind(self, graph: Graph | None, x0: State) -> Self:
        """Tie the field to a graph and a first state: a pure, differentiable copy.

        Everything that does not depend on time is computed here, once. The original stays as it
        is; two bindings know nothing of each other. Do not override; override `prepare`.

        Args:
            graph: The graph, or None for fields that need none.
            x0: The first state.

        Raises:
            ValueError: When the field needs a graph and there is none.
        """
        if self.pieces is not None:
            # Each piece is bound where it starts, by the solve that gets there.
            return self
        first = x0[0] if isinstance(x0, tuple) else x0
        graph = None if graph is None else Graph.of(graph).like(first)
        bound = _bind(self, graph, x0)
        fresh: Self = freshen(bound, {})
        return fresh

    def prepare(self, graph: Graph, x0: State) -> None:
        """Freeze what does not depend on time; override this. Children are bound already."""

    def rest(self, t: Tensor, x: Any) -> Any:
        """The part of the field that is neither linear nor constant; override this."""
        raise TypeError(f"{type(self).__name__} has no rest")

    def forward(self, t: Tensor, x: Any) -> Any:
        """dx/dt at time `t` and state `x`; torchdiffeq's signature."""
        if not self.is_bound:
            raise RuntimeError(
                f"this {type(self).__name__} is not bound: call field.bind(graph, x0) first, or "
                "pass it to solve, which does"
            )
        out = None if self.operator is None else self.operator @ x
        if self.source is not None:
            out = self.source.expand_as(x) if out is None else out + self.source
        if self.has_rest:
            rest = self.rest(t, x)
            out = rest if out is None else out + rest
        if out is None:
            raise TypeError(
                f"{type(self).__name__} gives nothing: set self.operator or self.source in "
                "prepare(graph, x0), or define rest(t, x)"
            )
        return out

    @property
    def affine(self) -> bool:
        """Whether the bound field is A x + source and nothing else: then it is solved exactly."""
        return self.operator is not None and not self.has_rest

    def leaves(self) -> tuple[Tensor, ...]:
        """The exact tensors an adjoint must differentiate: each once, none upstream of another."""
        return tuple({id(tensor): tensor for tensor in tensors(self)}.values())

    def __add__(self, other: Field) -> Field:
        """The sum of two fields: operators, sources and rests are merged."""
        from neuralpde.fields.sum import Sum

        return Sum(self, other)


def _bind(module: Any, graph: Graph | None, x0: State) -> Any:
    """Bind a tree of modules from the leaves up; only fields prepare anything."""
    if not any(isinstance(child, Field) for child in module.modules()):
        return module
    new = shallow(module)
    for name, child in module._modules.items():
        new._modules[name] = None if child is None else _bind(child, graph, x0)
    if isinstance(new, Field):
        if graph is None and new.needs_graph:
            raise ValueError(
                f"{type(new).__name__} flows on a graph and got none: solve(field, x0, t, graph)"
            )
        new.graph, new.is_bound = graph, True
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            new.prepare(graph, x0)  # type: ignore[arg-type]
    return new
