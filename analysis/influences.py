"""Influence against distance: how far what a node knows at first gets in some time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analysis.sensitivities import Sensitivity, checked_sources
from neuralpde.graph import Graph

CHUNK = 1 << 24
"""Distances that are found at a time."""


@dataclass(frozen=True)
class Profile:
    """Influence of some sources on the nodes at each distance from them, along time.

    Attributes:
        t: Times.
        hops: Distances 0, 1, 2, ... that occur.
        value: The mean of |J_ij(t)| over sources j and nodes i at that distance.
        share: What part of a source's influence sum_i |J_ij(t)| is there, averaged over sources;
            rows sum to 1.
        radius: The mean distance sum_h h share_h: how wide influence spreads.
        nodes: How many nodes are there, averaged over sources.

    >>> one = torch.ones(1, 2, dtype=torch.float64)
    >>> print(Profile(torch.zeros(1), torch.arange(2), one, one / 2, one[:, 0] / 2, one[0]))
    influence at 1 time up to 1 hop, mean distance 0.5 at last
    """

    t: Tensor
    hops: Int[Tensor, " hops"]
    value: Float[Tensor, "times hops"]
    share: Float[Tensor, "times hops"]
    radius: Float[Tensor, " times"]
    nodes: Float[Tensor, " hops"]

    def __str__(self) -> str:
        """Sizes, and the mean distance."""
        times, far = len(self.radius), int(self.hops[-1])
        return (
            f"influence at {times} time{'s' if times != 1 else ''} up to {far} "
            f"hop{'s' if far != 1 else ''}, mean distance {float(self.radius[-1]):.3g} at last"
        )


def hop_distances(graph: Any, sources: Any = None) -> Int[Tensor, "sources nodes"]:
    """Numbers of edges on the shortest way from sources to all nodes; -1 where there is none.

    Edges are followed from sender to receiver; weights play no part.

    Args:
        graph: A graph.
        sources: From where; all nodes by default.

    Raises:
        ValueError: For nodes that do not exist.

    >>> from neuralpde import catalogue
    >>> hop_distances(catalogue.path(4), [1]).tolist()
    [[1, 0, 1, 2]]
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    where = Graph.of(graph)
    starts = checked_sources(sources, where.num_nodes)
    source, target = where.edge_index.cpu().numpy()
    shape = (where.num_nodes, where.num_nodes)
    edges = csr_array((np.ones(len(source)), (source, target)), shape)
    size = max(1, CHUNK // max(1, where.num_nodes))
    found = []
    for some in starts.split(size):
        away = dijkstra(edges, unweighted=True, indices=some.numpy())
        found.append(torch.from_numpy(np.where(np.isinf(away), -1, away)).long())
    return torch.cat(found)


def influence_profile(found: Sensitivity, graph: Any) -> Profile:
    """Influence by the distance from its source, at all times.

    Args:
        found: Sensitivities to some sources.
        graph: The graph that distances are those of; also another one than that of the flow, such
            as the one before rewiring.

    Raises:
        ValueError: For a graph of other size.

    References:
        Towards quantifying long-range interactions in graph machine learning, 2025,
        arXiv:2503.09008, section 4 (influence by hops, and the mean distance).

    >>> from neuralpde import catalogue
    >>> from analysis import sensitivity
    >>> from neuralpde.fields import Heat
    >>> path, x0 = catalogue.path(3), torch.zeros(3, 1, dtype=torch.float64)
    >>> found = influence_profile(sensitivity(Heat(), x0, 50.0, path, sources=[0]), path)
    >>> [[round(entry, 6) for entry in row] for row in found.share.tolist()]
    [[1.0, 0.0, 0.0], [0.333333, 0.333333, 0.333333]]
    """
    where = Graph.of(graph)
    _check_size(found, where)
    away = hop_distances(where, found.sources)
    far = int(away.max())
    value = found.value.new_zeros(len(found.value), far + 1)
    share, nodes = torch.zeros_like(value), value.new_zeros(far + 1)
    total = found.value.sum(2, keepdim=True)
    for ring, J, all_of_it in zip(away, found.value.unbind(1), total.unbind(1), strict=True):
        here = ring >= 0
        place = torch.where(here, ring, 0)
        sums = J.new_zeros(len(J), far + 1).index_add(1, place, J * here)
        value, nodes = value + sums, nodes + torch.bincount(ring[here], minlength=far + 1)
        share = share + torch.where(all_of_it > 0, sums / all_of_it, torch.nan)
    hops = torch.arange(far + 1)
    share = share / len(away)
    return Profile(
        found.t, hops, value / nodes.clamp(min=1), share, share @ hops.double(), nodes / len(away)
    )


def influence(found: Sensitivity) -> Float[Tensor, "times sources nodes"]:
    """Normalised influence I_ij = |J_ij| / sum_k |J_ik|: what part of node i comes from source j.

    It sums to 1 over the sources, and is NaN for a node that depends on none.

    Args:
        found: Sensitivities to all nodes.

    Raises:
        ValueError: When some nodes are no sources.

    References:
        Xu et al., Representation learning on graphs with jumping knowledge networks, ICML 2018,
        arXiv:1806.03536.

    >>> J = torch.tensor([[[3.0, 0.0], [1.0, 2.0]]])
    >>> every = torch.arange(2)
    >>> influence(Sensitivity(torch.zeros(1), every, J, 0 * J, "fro", "by hand")).tolist()
    [[[0.75, 0.0], [0.25, 1.0]]]
    """
    nodes = found.value.shape[2]
    if len(found.sources) < nodes:
        raise ValueError(
            f"{len(found.sources)} of {nodes} nodes are sources, and influence compares all of "
            "them: leave out sources, or use influence_profile, which looks from the sources"
        )
    return found.value / found.value.sum(1, keepdim=True)


def receptive_field(found: Sensitivity, graph: Any) -> Float[Tensor, "times nodes"]:
    """The mean distance from which a node is influenced, sum_j hops(j, i) I_ij.

    Arguments and errors are those of `influence` and `influence_profile`. Sources from which there
    is no way have no influence.

    References:
        Towards quantifying long-range interactions in graph machine learning, 2025,
        arXiv:2503.09008, section 4.

    >>> from neuralpde import catalogue
    >>> J = torch.tensor([[[3.0, 0.0], [1.0, 2.0]]]).double()
    >>> found = Sensitivity(torch.zeros(1), torch.arange(2), J, 0 * J, "fro", "by hand")
    >>> receptive_field(found, catalogue.path(2)).tolist()
    [[0.25, 0.0]]
    """
    where = Graph.of(graph)
    _check_size(found, where)
    away = hop_distances(where, found.sources).clamp(min=0)
    return (influence(found) * away).sum(1)


def arrival_times(found: Sensitivity, tolerance: float = 1e-3) -> Float[Tensor, "sources nodes"]:
    """When influence arrives: the first time at which |J_ij(t)| exceeds a tolerance.

    Between the times that are known |J| is taken for exponential. Infinite where it never does, the
    first time where it does from the start.

    Args:
        found: Sensitivities at times that resolve the arrival.
        tolerance: The threshold, positive.

    Raises:
        ValueError: For a tolerance that is not positive, and graphs with times of their own.

    >>> J = torch.tensor([[[1.0, 1e-4, 0.0]], [[1.0, 1e-2, 0.0]]], dtype=torch.float64)
    >>> t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    >>> arrival_times(Sensitivity(t, torch.tensor([0]), J, 0 * J, "fro", "by hand")).tolist()
    [[0.0, 1.0, inf]]
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; give a positive threshold of |J|")
    if found.t.dim() > 1:
        raise ValueError("graphs have times of their own here; read their arrivals one by one")
    over = found.value > tolerance
    first = over.to(torch.int8).argmax(0)
    before = (first - 1).clamp(min=0)
    low, high = (found.value.gather(0, k[None])[0] for k in (before, first))
    # What was exactly zero before is no exponential: it arrives at the later time.
    part = (tolerance / low).log() / (high / low).log()
    part = torch.where((low > 0) & (first > 0), part, 1.0)
    t = found.t[before] + part * (found.t[first] - found.t[before])
    return torch.where(over.any(0), t, torch.inf)


def _check_size(found: Sensitivity, graph: Graph) -> None:
    nodes = found.value.shape[2]
    if nodes != graph.num_nodes:
        raise ValueError(
            f"the sensitivity is that of {nodes} nodes and the graph has {graph.num_nodes}"
        )
