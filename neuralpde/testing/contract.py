"""check_field: the properties that every vector field on a graph must have, on anyone's field."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.testing.slopes import (
    bare_graphs,
    batches,
    clocks,
    equivariance,
    precision,
    purity,
    shape,
)
from neuralpde.testing.solves import convergence, frontier, gradients, no_trace
from neuralpde.testing.subject import Subject, doubled, first_state, mapped

CHECKS = (
    shape,
    purity,
    equivariance,
    batches,
    clocks,
    bare_graphs,
    precision,
    frontier,
    convergence,
    gradients,
    no_trace,
)


def check_field(
    field: Field,
    graph: Any,
    x0: State | None = None,
    *,
    t: float = 1.0,
    rtol: float = 1e-6,
    smooth: bool = True,
) -> None:
    """Check a field against the contract of `Field`, and say which line of it broke.

    In this order: dx/dt has the shape and dtype of x; two calls agree and two bindings are
    independent (purity); relabelled nodes give relabelled slopes; a graph of a batch gets what it
    gets alone; times per node are read as such where `batched_time` says so; graphs without edges
    and isolated nodes give finite slopes; float32 agrees with float64; every tensor behind a slope
    is among `leaves()`, and none of them is computed from another; the second-order method heun
    shows order 2; recorded, replayed and adjoint gradients agree; a solve leaves the field as it
    was.

    A copy of the field is checked, in float64; the original and the global random state are left
    alone. A field that names nodes gives `relabelled(order)`, as `Pinned` does; one that holds a
    tensor per edge cannot be checked (let it compute that from the graph). Of a stochastic field
    the drift is solved.

    Args:
        field: The field, not bound; a piecewise one is checked piece by piece.
        graph: A graph, or what stands for one.
        x0: The first state, no equilibrium; by default normal, `[nodes, field.channels]` (3
            channels where the field has no such attribute), a pair for second-order fields.
        t: End time of the solves.
        rtol: Relative agreement that is asked of gradients.
        smooth: Whether f has no kinks. Where it has some (relu, maxima), direct and adjoint
            gradients are both wrong by the length of a step, and only 1% is asked of them.

    Raises:
        AssertionError: A line of the contract broke; the text names it and the mend.

    >>> from neuralpde.fields.diffusion import Heat
    >>> check_field(Heat(), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    """
    for piece in field.pieces or (field,):
        if piece.is_bound:
            raise ValueError("check_field binds the field itself; give it the unbound one")
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            whole = Graph.of(graph).to(dtype=torch.float64)
            state = first_state(piece, whole) if x0 is None else mapped(x0, doubled)
            subject = Subject(copy.deepcopy(piece).double(), whole, state, float(t), rtol, smooth)
            for check in CHECKS:
                check(subject)
