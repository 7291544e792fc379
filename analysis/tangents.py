"""How disturbances of the first state travel: by themselves in linear fields, else along x."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from jaxtyping import Float, Inexact, Int
from torch import Tensor
from torch.autograd import forward_ad

from analysis.variational import Variational, acts_by_entry, seeds, starts_matter
from neuralpde import solve
from neuralpde.fields.field import Field
from neuralpde.operators import Operator
from neuralpde.problem import Problem
from solvers.noise import declared

Sources = Int[Tensor, " sources"]
Directions = Float[Tensor, "sources tangents channels"]
Blocks = Inexact[Tensor, "times nodes sources tangents channels"]


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        problem: The solve, checked; its field is bound.
        field: The field as it was given, bound or not.
        read: Which part of the state is read.
        moved: Which part is disturbed.
        options: What `solve` is told besides.

    >>> list(Request.__dataclass_fields__)
    ['problem', 'field', 'read', 'moved', 'options']
    """

    problem: Problem
    field: Any
    read: int
    moved: int
    options: dict[str, Any]

    @cached_property
    def starts_matter(self) -> bool:
        """Whether what the field prepares depends on x0."""
        problem = self.problem
        x0 = problem.x0 if problem.packed else problem.x0[0]
        return starts_matter(self.field, problem.graph, x0)

    def channels(self, part: int) -> int:
        """How many numbers a node has in a part of the state."""
        return math.prod(self.problem.x0[part].shape[1:])

    def solved(self, field: Field, x0: Any, columns: int = 1) -> Tensor:
        """What is read of a solve, whose tolerance holds for each of so many columns."""
        options = dict(self.options)
        if options["rtol"] is not None:
            options["rtol"] = options["rtol"] / math.sqrt(columns)
        found = solve(field, x0, self.problem.t, self.problem.graph, grad="none", **options)
        y: Tensor = found.x[self.read] if isinstance(found.x, tuple) else found.x
        return y


class Way(Protocol):
    """A way to find tangents.

    Attributes:
        method: What it is, in words.
        channels: In how many channels a source is disturbed.
        width: How many numbers it keeps for a node and a tangent.
        copies: How often its blocks stand on the diagonal of dx_i(t)/dx_j(0).
        diagonal: Whether blocks are: one tangent in all channels at once tells them.
        whole: Whether whole blocks are cheaper than probes.
    """

    method: str
    channels: int
    width: int
    copies: int
    diagonal: bool
    whole: bool

    def blocks(self, sources: Sources, directions: Directions) -> Blocks:
        """Return the tangents at all times."""


class Unforced(Field):
    """x' = A x.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> flow = Unforced(SparseOperator(Pattern.identity(1), torch.tensor([2.0])))
    >>> flow.bind(None, torch.ones(1))(torch.tensor(0.0), torch.ones(1)).item()
    2.0
    """

    batched_time = True

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator


@dataclass
class Columns:
    """Linear fields that treat channels alike: J = K (x) I, one column of K for each source.

    On stalks, one for each of their dims.
    """

    request: Request
    operator: Operator
    diagonal = False
    whole = True

    def __post_init__(self) -> None:
        self.channels = self.width = self.operator.stalk
        self.copies = self.request.channels(0) // self.channels
        self.method = "columns of the linear flow, channels being alike"

    def blocks(self, sources: Sources, directions: Directions) -> Blocks:
        """Return the columns at all times."""
        request, stalk = self.request, self.channels
        field, x0 = request.problem.field, request.problem.x0
        assert field is not None
        like = tuple(part.new_zeros(len(part), stalk) for part in x0)
        found = seeds(like, request.moved, sources, directions)
        starts = tuple(one.movedim(1, 2).contiguous() for one in found)
        starts = starts if stalk > 1 else tuple(one.squeeze(1) for one in starts)
        # A field of second order moves pairs, as it is.
        flow, start = (field, starts) if len(x0) > 1 else (Unforced(self.operator), starts[0])
        y = request.solved(flow, start, directions.shape[0] * directions.shape[1])
        return y.reshape(len(y), y.shape[1], stalk, *directions.shape[:2]).movedim(2, -1)


@dataclass
class Alone:
    """Linear fields that mix channels: every tangent is solved by itself."""

    request: Request
    operator: Operator
    copies = 1
    diagonal = whole = False
    method = "tangents of the linear flow"

    def __post_init__(self) -> None:
        self.channels = self.width = self.request.channels(0)

    def blocks(self, sources: Sources, directions: Directions) -> Blocks:
        """Return the tangents at all times."""
        field = Unforced(self.operator)
        (starts,) = seeds(self.request.problem.x0, 0, sources, directions)
        y = [
            self.request.solved(field, start.contiguous()).flatten(2) for start in starts.unbind(1)
        ]
        found: Tensor = torch.stack(y, 2).unflatten(2, directions.shape[:2])
        return found


@dataclass
class Along:
    """Any field: its state and the tangents are one system, the variational equation."""

    request: Request
    copies = 1

    def __post_init__(self) -> None:
        request = self.request
        field = request.problem.field
        plain = not request.problem.packed and acts_by_entry(field)
        self.diagonal = self.whole = plain and not request.starts_matter
        self.method = "tangents along the solution"
        self.method += ", channels being independent" if self.diagonal else ""
        self.channels = request.channels(request.moved)
        self.width = sum(request.channels(k) for k in range(len(request.problem.x0)))

    def blocks(self, sources: Sources, directions: Directions) -> Blocks:
        """Return the tangents at all times."""
        request, x0 = self.request, self.request.problem.x0
        starts = seeds(x0, request.moved, sources, directions)
        field = Variational.of(request.field, len(x0), request.problem.packed)
        later = Request(request.problem, field, len(x0) + request.read, 0, request.options)
        with forward_ad.dual_level():
            y = later.solved(field, (*x0, *starts)).flatten(3)
        found: Tensor = y.unflatten(2, directions.shape[:2])
        return found


def way(request: Request) -> Way:
    """The cheapest way for a field.

    Raises:
        ValueError: Where the derivative is none of a solve's: noise that depends on the state, or
            along a path; complex states of nonlinear fields.
    """
    problem = request.problem
    field, known = problem.field, _linear_part(request)
    noise = None if field is None or field.noise is None else declared(field.noise)
    if noise is not None and (known is None or not noise.additive):
        raise ValueError(
            f"{problem.name} is stochastic, and its sensitivity differs from path to path: give "
            "its drift alone"
        )
    if known is not None:
        alike = known.separate or (known.stalk > 1 and known.tags.channels is None)
        return Columns(request, known) if alike else Alone(request, known)
    if any(part.is_complex() for part in problem.x0):
        raise ValueError(
            f"the state is complex and {problem.name} is not linear: its derivative is no complex "
            "matrix; write real and imaginary parts as channels"
        )
    return Along(request)


def _linear_part(request: Request) -> Operator | None:
    """The operator whose flow is the derivative, or None."""
    problem = request.problem
    field = problem.field
    if field is None or request.starts_matter:
        return None
    if field.has_force:
        known = field.stiffness
        return known if known is not None and known.separate else None
    return field.operator if field.affine and not problem.packed else None
