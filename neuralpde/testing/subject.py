"""What a field is tried on, and how two states are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralpde.fields.field import Field, State, Sum
from neuralpde.graph import Graph

CHANNELS = 3
"""Channels of the state that is made up for a field that does not say how many it takes."""


@dataclass
class Subject:
    """A field in float64 with what it is tried on."""

    field: Field
    graph: Graph
    x0: State
    end: float
    rtol: float
    smooth: bool

    @property
    def time(self) -> Tensor:
        """A time inside the interval."""
        return torch.tensor(0.3 * self.end, dtype=torch.float64)

    def slope(
        self, graph: Graph | None = None, x: State | None = None, field: Field | None = None
    ) -> State:
        """Bind and evaluate."""
        graph, x = graph or self.graph, self.x0 if x is None else x
        with torch.no_grad():
            slope: State = (field or self.field).bind(graph, x)(self.time, x)
        return slope

    @property
    def solved(self) -> Field:
        """What deterministic methods solve: the field, or the drift of a stochastic one."""
        noisy = self.field.bind(self.graph, self.x0).noise is not None
        return _Drift(self.field) if noisy else self.field

    def fail(self, line: str, found: str, mend: str) -> AssertionError:
        """The error for a broken line of the contract."""
        name = type(self.field).__name__
        return AssertionError(f"{name} breaks the contract of fields: {line}. {found} {mend}")

    def compare(self, one: State, other: State, tolerance: float, *texts: str) -> None:
        """Fail unless two states agree to a relative tolerance."""
        off = distance(one, other)
        if not off <= tolerance:
            line, found, mend = texts
            raise self.fail(line, f"{found} by {off:.2g} (relative).", mend)


class _Drift(Sum):
    """A field without its noise."""

    def inherited_noise(self) -> None:
        """None."""


def first_state(field: Field, graph: Graph) -> State:
    """Make up a state of the kind that the field takes."""
    stalk = () if field.stalk is None else (field.stalk,)
    shape = (graph.num_nodes, *stalk, getattr(field, "channels", CHANNELS))
    dtype = torch.complex128 if field.is_complex else torch.float64
    x = torch.randn(shape, dtype=dtype)
    if field.order == 2:
        return x, torch.randn(shape, dtype=dtype)
    return started(field, x)


def started(field: Field, x: State) -> State:
    """The state as a field with boundary values wants it."""
    start: Callable[[Tensor], Tensor] | None = getattr(field, "start", None)
    return x if start is None or isinstance(x, tuple) else start(x)


def doubled(part: Tensor) -> Tensor:
    """Return it in double precision."""
    return part.to(torch.complex128 if part.is_complex() else torch.float64)


def parts(x: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state."""
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def mapped(x: State, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a state."""
    return tuple(map(change, x)) if isinstance(x, tuple) else change(x)


def distance(one: State, other: State) -> float:
    """The largest difference, relative to the largest entry of all parts."""
    pairs = list(zip(parts(one), parts(other), strict=True))
    if not all(bool(part.isfinite().all()) for pair in pairs for part in pair):
        return math.inf
    scale = max((float(a.detach().abs().max()) for a, _ in pairs if a.numel()), default=0.0)
    off = max((float((a - b).detach().abs().max()) for a, b in pairs if a.numel()), default=0.0)
    return off / max(scale, 1e-12)
