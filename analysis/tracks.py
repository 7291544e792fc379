"""The over-smoothing survey as a call: what happens to differences between nodes, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.candidates import Candidate, candidate
from analysis.decay import Decay, fit_decay
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.measures import Measure
from analysis.ranks import EffectiveRank
from analysis.similarity import MAD
from analysis.verdicts import Verdict, verdict
from neuralpde.graph import Graph
from solvers.series import Series

MEASURES: dict[str, Measure] = {
    "energy": Dirichlet("comb", "survey"),
    "comb": Dirichlet("comb"),
    "MAD": MAD(),
    "rayleigh": Rayleigh("comb"),
    "rayleigh augmented": Rayleigh("augmented"),
    "norm": Norm(),
    "rank": EffectiveRank(),
}
"""What is measured in every layer, on the edges of the graph that was given."""


@dataclass(frozen=True)
class Track:
    """What one candidate did, layer by layer.

    Attributes:
        name: Of the candidate.
        axis: "layer" or "time".
        series: The curves of `MEASURES`.
        absolute: The verdict on the survey's energy: does it fall exponentially?
        shape: The verdict on the candidate's own Rayleigh quotient, on the edges that it ran on:
            do differences fall faster than the state?
        edges: Number of undirected edges that it ran on.
        window: First and last layer of the rates; None for the later half.

    >>> from neuralpde import catalogue
    >>> (heat,) = track(["heat"], catalogue.ring(6), depth=24, channels=2)
    >>> heat.shape.outcome, round(heat.decay.exponential.rate, 6)
    ('over-smooths', 2.0)
    """

    name: str
    axis: str
    series: dict[str, Series]
    absolute: Verdict
    shape: Verdict
    edges: int
    window: tuple[float, float] | None = None

    @property
    def decay(self) -> Decay | None:
        """The laws fitted to the energy, or None where too few values lie above the floor.

        The energy is a square: the survey's C2, which belongs to its root, is half its rate.
        """
        try:
            return fit_decay(self.series["energy"], *(self.window or (None, None)))
        except ValueError:
            return None

    @property
    def decades(self) -> tuple[float, float]:
        """By how many powers of ten the energy fell, and the square of the norm in that time."""
        energy, norm = self.series["energy"].y, self.series["norm"].y
        known = (energy > 0).nonzero()[:, 0]
        if not len(known):
            return math.nan, math.nan
        first, last = int(known[0]), int(known[-1])
        fallen = torch.log10(energy[first] / energy[last])
        return float(fallen), float(2 * torch.log10(norm[first] / norm[last]))

    def row(self) -> dict[str, Any]:
        """One line of the table of verdicts."""
        found, (fallen, by_norm) = self.decay, self.decades
        return {
            "field": self.name,
            "axis": self.axis,
            "edges": self.edges,
            "E first": float(self.series["energy"].y[0]),
            "E last": float(self.series["energy"].y[-1]),
            "decades": fallen,
            "of the norm": by_norm,
            "rate": math.nan if found is None else found.exponential.rate,
            "error": math.nan if found is None else found.error,
            "MAD": float(self.series["MAD"].y[-1]),
            "rank": float(self.series["rank"].y[-1]),
            "by energy": self.absolute.outcome,
            "by shape": self.shape.outcome,
        }

    def rows(self) -> list[dict[str, Any]]:
        """All measures in layers 0, 1, 2, 4, ... and the last one."""
        depth = len(self.series["energy"].t) - 1
        layers = sorted({0, depth, *(2**k for k in range(depth.bit_length()))})
        return [
            {"field": self.name, self.axis: k}
            | {name: float(series.y[k]) for name, series in self.series.items()}
            for k in layers
        ]


def track(
    names: Sequence[str],
    graph: Graph,
    depth: int = 128,
    *,
    channels: int = 64,
    seed: int = 0,
    x: Float[Tensor, "nodes channels"] | None = None,
    window: tuple[float, float] | None = None,
) -> list[Track]:
    """Run networks and fields on one graph to some depth, and judge whether they over-smooth.

    Every candidate starts from the same state and the same seed. Edges count alike, whatever
    weights the graph has.

    Args:
        names: As `candidate` takes them: "gcn", "gat+residual", "grand".
        graph: The graph.
        depth: Layers, or units of time.
        channels: Channels of the state.
        seed: Of the state, uniform on [0, 1), and of the weights, drawn after it.
        x: Another first state, in double precision.
        window: First and last layer between which rates are fitted; the later half by default.

    Raises:
        ValueError: For names nobody knows, before anything runs.

    References:
        Rusch, Bronstein and Mishra, A survey on oversmoothing in graph neural networks, 2023,
        arXiv:2303.10993.

    >>> from neuralpde import catalogue
    >>> [one.absolute.outcome for one in track(["heat", "wave"], catalogue.ring(6), 24)]
    ['over-smooths', 'does not smooth']
    """
    chosen = {name: candidate(name) for name in names}
    plain = Graph(graph.edge_index, graph.num_nodes, batch=graph.batch)
    return [
        _tracked(name, one, plain, depth, channels, seed, x, window) for name, one in chosen.items()
    ]


def _tracked(
    name: str,
    one: Candidate,
    graph: Graph,
    depth: int,
    channels: int,
    seed: int,
    x: Tensor | None,
    window: tuple[float, float] | None,
) -> Track:
    own = graph if one.rewire is None else one.rewire(graph)
    # Layers draw their weights by torch's global generator, which is left as it was.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        first = torch.rand(graph.num_nodes, channels, dtype=torch.float64) if x is None else x
        trajectory = one.run(own, first, depth)
    quotient = trajectory.measure(Rayleigh(one.norm))
    trajectory.graph = graph
    series = {key: trajectory.measure(measure) for key, measure in MEASURES.items()}
    return Track(
        name,
        one.axis,
        series,
        verdict(trajectory, series["energy"], series["norm"]),
        verdict(trajectory, quotient, series["norm"]),
        own.num_edges,
        window,
    )
