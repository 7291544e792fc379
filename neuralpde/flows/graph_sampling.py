"""Many states of one graph, carried through a flow together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.field import Field
from neuralpde.graph import Graph
from neuralpde.solve import solve
from solvers.schedules import Schedule
from solvers.stepper import Stepper

CHUNK = 64
"""States at once: with narrow networks on some hundred nodes, what stays in a core's cache."""


def carry(
    sampler: Field,
    graph: Graph,
    states: Float[Tensor, "states nodes ..."],
    span: tuple[float, float],
    *,
    steps: int,
    solver: str | Stepper = "heun",
    schedule: Schedule | str | None = None,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
) -> Float[Tensor, "states nodes ..."]:
    """Solve a sampler on one graph from many states, chunk by chunk, without gradients.

    Args:
        sampler: `ProbabilityFlow` or `StochasticSampler` of a network on the graph.
        graph: The graph, one.
        states: First states.
        span: From where to where, such as `path.ends`.
        steps: How many.
        solver: See `solve`.
        schedule: See `solve`.
        generator: Of stochastic solvers.
        chunk: States that are solved together, as a batch of copies of the graph.

    Raises:
        ValueError: For a batch of graphs, states of other nodes, or an empty chunk.

    >>> from neuralpde.catalogue import ring
    >>> from neuralpde.flows import ProbabilityFlow
    >>> shift = ProbabilityFlow(lambda t, x: torch.ones_like(x))
    >>> carry(shift, ring(4), torch.zeros(3, 4), (0.0, 2.0), steps=2, chunk=2).sum().item()
    24.0
    """
    nodes = graph.num_nodes
    if graph.num_graphs != 1 or states.shape[1:2] != (nodes,) or chunk < 1:
        raise ValueError(
            f"states {tuple(states.shape)} on {graph!r}, chunk={chunk}: give states [states, "
            "nodes, ...] of one graph, and a positive chunk"
        )
    ends, copies = [], Graph.union([graph] * min(chunk, max(1, len(states))))
    for part in states.split(chunk):
        if len(part) != copies.num_graphs:
            copies = Graph.union([graph] * len(part))
        with torch.no_grad():
            found = solve(
                sampler,
                part.reshape(len(part) * nodes, -1),
                span,
                copies,
                solver=solver,
                steps=steps,
                schedule=schedule,
                generator=generator,
                save="end",
            )
        assert isinstance(found.final, Tensor)
        ends.append(found.final.reshape(part.shape))
    return torch.cat(ends) if ends else states
