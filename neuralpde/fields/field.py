"""What every vector field promises: bind once per solve, be a pure function, add to others."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, Self

import torch
from torch import Tensor, nn

from neuralpde.fields.binding import freshen, shallow, tensors
from neuralpde.fields.equation import NAMES, check_noise, equation
from neuralpde.forms import Form
from neuralpde.graph import Graph
from neuralpde.operators import Operator
from solvers.noise import declared, merged

State = Tensor | tuple[Tensor, ...]


class Field(nn.Module):
    """A vector field on a graph: dx/dt = A x + source + rest(t, x).

    A subclass gives `prepare`, which freezes what does not depend on time, and `rest`, or only
    sets `self.operator` in `prepare`: then the field is linear and is solved exactly. `t` is a 0-d
    tensor; `x` has shape `[nodes, channels]` (any trailing shape, or a tuple of tensors). A field
    of second order, x'' = force(t, x) - damping x', gives `force` and `damping` instead.

    A bound field compiles in one piece, `torch.compile(bound, fullgraph=True)`, if what it calls
    does: `rest` may multiply with operators, which are made in `prepare`. Fields share `forward`,
    and dynamo keeps few compilations of one function; `isolate_recompiles=True` counts them apart.

    Attributes:
        order: 2 when the state is a pair (position, velocity).
        stalk: Dims of a stalk where the state is `[nodes, stalk, channels]`; else None.
        is_complex: True when the state is complex.
        operator: The linear part A, once bound; None when there is none.
        source: A constant tensor once bound; None when there is none.
        lyapunov: The functional that a gradient flow descends, or None.
        noise: What multiplies dW in a stochastic field, dX = f dt + noise dW, or None: a number or
            0-d tensor, a tensor that broadcasts against the state, an operator B (B dW), or a
            method `noise(t, x)` that acts entry by entry; see `Noise` for more.
        damping: Of a field of second order: a number or a 0-d tensor.
        stiffness: Of a field of second order whose force is linear, K x: the operator K. It tells
            solvers which steps are stable.
        pointwise: True when every entry of `rest` depends on the same entry of x alone.
        norm: Which Dirichlet form is this field's own: "comb", "sym", "rw", "augmented"; None
            stands for "comb".
        form: The field's own quadratic form, once bound, where it is none of the graph's: that of
            a sheaf or a bundle.
        batched_time: True when f takes `t` of shape `[nodes, 1]`, so that the graphs of a batch
            may keep their own clocks. Fields that do not read `t` set it too.
        dissipation: When the field is exactly -rate L with L its own form's: the rate per graph.

    >>> import torch
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
    stalk: int | None = None
    is_complex: bool = False
    operator: Operator | None = None
    source: Tensor | None = None
    lyapunov: Any = None
    noise: Any
    damping: float | Tensor
    stiffness: Operator | None = None
    pointwise: bool = False
    norm: str | None = None
    form: Form | None = None
    batched_time: bool = False
    dissipation: Tensor | None = None
    has_rest: bool = False
    has_force: bool = False
    inherits_noise: bool = False
    splits: bool = True
    needs_graph: bool = False
    graph: Graph | None = None
    is_bound: bool = False

    def __init__(self) -> None:
        super().__init__()
        if not (self.inherits_noise or hasattr(type(self), "noise")):
            # As a value of the class it would hide a parameter or a module of that name.
            self.noise = None

    def __getattr__(self, name: str) -> Any:
        """What is not held: the noise of the parts, and the names that torchsde calls."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "noise" and self.inherits_noise:
                return self.inherited_noise()
            found = {}
            if name in NAMES and self.is_bound and self.noise is not None:
                found = equation(self)
            if name not in found:
                raise
            return found[name]

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Note what the subclass gives, so that nobody needs to ask for its type."""
        super().__init_subclass__(**keywords)
        cls.splits = cls.forward is Field.forward
        cls.has_rest = cls.rest is not Field.rest or not cls.splits
        cls.has_force = cls.force is not Field.force
        cls.inherits_noise = cls.inherited_noise is not Field.inherited_noise
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

    def inner_state(self, x0: State) -> State:
        """The first state that the fields inside this one are bound to; by default its own."""
        return x0

    def rest(self, t: Tensor, x: Any) -> Any:
        """The part of the field that is neither linear nor constant; override this."""
        raise TypeError(f"{type(self).__name__} has no rest")

    def force(self, t: Tensor, x: Any) -> Any:
        """The force on the positions x, of a field of second order; override this."""
        raise TypeError(f"{type(self).__name__} has no force")

    def forward(self, t: Tensor, x: Any) -> Any:
        """dx/dt at time `t` and state `x`; torchdiffeq's signature."""
        if not self.is_bound:
            raise RuntimeError(
                f"this {type(self).__name__} is not bound: call field.bind(graph, x0) first, or "
                "pass it to solve, which does"
            )
        if self.has_force:
            position, velocity = x
            return velocity, self.force(t, position) - self.damping * velocity
        out = None if self.operator is None else self.operator @ x
        if self.source is not None:
            out = self.source.expand_as(x) if out is None else out + self.source
        if self.has_rest:
            rest = self.rest(t, x)
            out = rest if out is None else out + rest
        if out is None and self.noise is not None:
            return torch.zeros_like(x) if isinstance(x, Tensor) else tuple(0 * part for part in x)
        if out is None:
            raise TypeError(
                f"{type(self).__name__} gives nothing: set self.operator or self.source in "
                "prepare(graph, x0), or define rest(t, x)"
            )
        return out

    def inherited_noise(self) -> Any:
        """The noise of a field made of others, where it declares none of its own."""
        return None

    @property
    def pieces(self) -> tuple[Any, ...] | None:
        """The fields of a piecewise one, each for its own part of the interval; else None."""
        return None

    @property
    def label(self) -> str:
        """What the field is called in messages and statistics."""
        return type(self).__name__

    @property
    def affine(self) -> bool:
        """Whether the bound field is A x + source and nothing else: then it is solved exactly."""
        return self.operator is not None and not (self.has_rest or self.has_force)

    def leaves(self) -> tuple[Tensor, ...]:
        """The exact tensors an adjoint must differentiate: each once, none upstream of another."""
        return tuple({id(tensor): tensor for tensor in tensors(self)}.values())

    def __add__(self, other: Field) -> Field:
        """The sum of two fields: operators, sources and rests are merged."""
        return Sum(self, other)


class Sum(Field):
    """dx/dt = f1(t, x) + f2(t, x) + ...: one merged operator, one source, the rests added.

    Args:
        fields: The terms; nested sums are flattened.

    >>> from neuralpde.fields import Heat, Source
    >>> import torch
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x = torch.tensor([[1.0], [0.0]])
    >>> field = (Heat() + Source(2.0)).bind(graph, x)
    >>> field(torch.tensor(0.0), x).tolist(), field.affine
    ([[1.0], [3.0]], True)
    """

    has_rest = False
    # The terms say whether they need one.
    needs_graph = False

    def __init__(self, *fields: Field) -> None:
        super().__init__()
        flat = [part for f in fields for part in getattr(f, "parts", (f,))]
        self.terms = nn.ModuleList(flat)
        self._label = " + ".join(part.label for part in flat)
        if any(part.pieces is not None for part in flat):
            raise ValueError("a piecewise field is added to piece by piece: Layers([f + g, ...])")
        orders = {part.order for part in flat}
        if orders != {1}:
            raise ValueError(f"only first-order fields add up; these have orders {sorted(orders)}")
        self.is_complex = any(part.is_complex for part in flat)
        self.inherited_noise()

    @property
    def label(self) -> str:
        """The terms' labels, with a plus between them."""
        return self._label

    @property
    def parts(self) -> tuple[Any, ...]:
        """The terms."""
        return tuple(self.terms)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Merge what the terms prepared."""
        parts = self.parts
        operators = [part.operator for part in parts if part.operator is not None]
        sources = [part.source for part in parts if part.source is not None]
        self.operator = reduce(add, operators) if operators else None
        self.source = reduce(add, sources) if sources else None
        self.has_rest = any(part.has_rest for part in parts)
        self.batched_time = all(part.batched_time for part in parts)
        self.pointwise = all(part.pointwise for part in parts if part.has_rest)
        self.norm = next((part.norm for part in parts if part.norm is not None), None)
        self.form = next((part.form for part in parts if part.form is not None), None)
        # The merged operator and source stand for the terms' own, which must not be leaves too.
        for part in parts:
            part.operator = part.source = None
        self.noisy = nn.ModuleList([part for part in parts if part.noise is not None])
        self.terms = nn.ModuleList([part for part in parts if part.has_rest])

    def inherited_noise(self) -> Any:
        """The terms' noises as one of the same law; they are independent."""
        terms: Any = self.noisy if self.is_bound else self.terms
        noises = [part.noise for part in terms if part.noise is not None]
        return merged([declared(noise) for noise in noises]) if noises else None

    def rest(self, t: Tensor, x: Any) -> Any:
        """The terms' rests, added."""
        return reduce(add, (part(t, x) for part in self.parts))


def _bind(module: Any, graph: Any, x0: State) -> Any:
    """Bind a tree of modules from the leaves up; only fields prepare anything.

    The graph is None only for fields that say they need none.
    """
    if not any(isinstance(child, Field) for child in module.modules()):
        return module
    new = shallow(module)
    inner = new.inner_state(x0) if isinstance(new, Field) else x0
    for name, child in module._modules.items():
        new._modules[name] = None if child is None else _bind(child, graph, inner)
    if isinstance(new, Field):
        if graph is None and new.needs_graph:
            raise ValueError(
                f"{type(new).__name__} flows on a graph and got none: solve(field, x0, t, graph)"
            )
        new.graph, new.is_bound = graph, True
        new.prepare(graph, x0)
        check_noise(new.noise, x0, new.label)
    return new
