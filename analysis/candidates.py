"""What can be tracked by name: networks with fresh weights, fields, and what may cure them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.networks import KINDS, DeepNetwork, deep_gates, deep_oscillators
from analysis.tracing import trace
from neuralpde import solve
from neuralpde.fields import GRAFF, GRAND, Field, Heat, Wave
from neuralpde.fields.registry import first_state
from neuralpde.graph import Graph
from solvers.failure import unknown_name
from solvers.trajectory import Trajectory

SOURCE = 0.1
"""Share of the first state that the remedy "source" mixes into every layer, as in GCNII."""

MORE_EDGES = 0.1
"""Edges that rewiring adds, in edges of the graph."""

Run = Callable[[Graph, Tensor, int], Trajectory]


@dataclass(frozen=True)
class Candidate:
    """Something that moves a state on a graph, to some depth.

    Attributes:
        run: Called with a graph, a state `[nodes, channels]` and a depth; torch's global generator
            draws the weights. The states at 0, 1, ..., depth are the answer.
        norm: The Dirichlet form whose kernel the propagation keeps.
        axis: "layer" or "time", which one unit of depth is.
        rewire: What is done to the graph before.

    >>> still = Candidate(lambda graph, x, depth: solve(lambda t, x: 0 * x, x, (0.0, depth), graph))
    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> still.run(pair, torch.eye(2, dtype=torch.float64), 3).energy.y[-1].item()
    2.0
    """

    run: Run
    norm: str = "comb"
    axis: str = "layer"
    rewire: Callable[[Graph], Graph] | None = None


def _network(kind: str, *, residual: bool = False, source: float = 0.0) -> Candidate:
    norm = "augmented" if kind == "gcn" else "comb"

    def run(graph: Graph, x: Tensor, depth: int) -> Trajectory:
        network = DeepNetwork(kind, x.shape[1], depth, residual=residual, source=source)
        return trace(network, _data(graph, x), norm=norm, output=True)

    return Candidate(run, norm)


def _gated(kind: str) -> Candidate:
    def run(graph: Graph, x: Tensor, depth: int) -> Trajectory:
        field = deep_gates(kind, x.shape[1], depth)
        return solve(field, x, _times(depth), graph, solver="euler", steps=depth)

    return Candidate(run, "augmented" if kind == "gcn" else "comb")


def _oscillating(graph: Graph, x: Tensor, depth: int) -> Trajectory:
    field = deep_oscillators(x.shape[1], depth)
    return solve(field, (x, x), _times(depth), graph, solver="graphcon", steps=depth)


def _flow(make: Callable[[int], Field], norm: str) -> Candidate:
    def run(graph: Graph, x: Tensor, depth: int) -> Trajectory:
        field = make(x.shape[1]).double()
        return solve(field, first_state(field, graph, x), _times(depth), graph)

    return Candidate(run, norm, "time")


def _repelling(channels: int) -> GRAFF:
    """All eigenvalues of W below zero, and small: states grow slowly."""
    field = GRAFF(channels, "neg_prod", external=False)
    assert field.weights.matrix is not None
    field.weights.matrix.mul_(0.15)
    return field


CANDIDATES: dict[str, Candidate] = {
    "gcn": _network("gcn"),
    "gat": _network("gat"),
    "sage": _network("sage"),
    "graphcon": Candidate(_oscillating, "augmented"),
    "g2": _gated("gcn"),
    "grand": _flow(lambda channels: GRAND(channels, rate=1.0), "comb"),
    "graff": _flow(_repelling, "sym"),
    "heat": _flow(lambda channels: Heat(), "comb"),
    "wave": _flow(lambda channels: Wave(), "comb"),
}
"""Plain networks, GraphCON (alpha = 0, h = 1) and G2 (p = 2) layer by layer with fresh weights;
GRAND (linear, a = 1: an Euler step of 1 is one averaging), a repelling GRAFF, heat and waves along
time."""

REMEDIES = ("residual", "source", "gating", "sdrf", "fosr")
"""x + f(x), a share of the first state in every layer, G2, and two ways to rewire the graph."""


def candidate(name: str) -> Candidate:
    """A candidate by name, with remedies behind a plus: "gcn", "gat+residual", "grand+fosr".

    Args:
        name: One of `CANDIDATES`; "residual", "source" and "gating" are for plain networks, "sdrf"
            and "fosr" for all.

    Raises:
        ValueError: For names nobody knows, and remedies that are not for it.

    >>> candidate("gcn+fosr").norm, candidate("wave").axis
    ('augmented', 'time')
    """
    base, *remedies = name.lower().split("+")
    if base not in CANDIDATES:
        raise unknown_name("candidate", base, CANDIDATES)
    for remedy in remedies:
        if remedy not in REMEDIES:
            raise unknown_name("remedy", remedy, REMEDIES)
    made = CANDIDATES[base]
    ways = [remedy for remedy in remedies if remedy in ("sdrf", "fosr")]
    inside = set(remedies) - set(ways)
    if len(ways) > 1 or (inside and base not in KINDS) or ("gating" in inside and len(inside) > 1):
        raise ValueError(
            f"{name!r} cannot be had: a graph is rewired one way, layers of {', '.join(KINDS)} are "
            "gated or get residuals and sources"
        )
    if "gating" in inside:
        made = _gated(base)
    elif inside:
        source = SOURCE if "source" in inside else 0.0
        made = _network(base, residual="residual" in inside, source=source)
    if not ways:
        return made
    return Candidate(made.run, made.norm, made.axis, _rewired(ways[0]))


def _rewired(way: str) -> Callable[[Graph], Graph]:
    def rewire(graph: Graph) -> Graph:
        from analysis.rewiring import SDRF, FoSR

        steps = max(1, round(MORE_EDGES * graph.num_edges))
        generator = torch.Generator().manual_seed(0)
        sdrf, fosr = SDRF(steps, 20.0, generator=generator), FoSR(steps)
        return Graph.of((sdrf if way == "sdrf" else fosr)(graph.to_pyg()))

    return rewire


def _times(depth: int) -> Tensor:
    return torch.arange(depth + 1, dtype=torch.float64)


def _data(graph: Graph, x: Tensor) -> object:
    from torch_geometric.data import Data

    return Data(x, graph.edge_index)
