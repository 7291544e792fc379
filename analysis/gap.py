"""The spectral gap of a graph, and the cut that it points to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import eye_array
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor

from neuralpde.graph import Graph

SMALL = 500
"""Nodes up to which the whole spectrum is computed."""


@dataclass(frozen=True)
class Cut:
    """A cut of a graph in two.

    Attributes:
        conductance: Weight of the cut edges over the smaller of the two volumes.
        inside: Which nodes are on one side.

    >>> Cut(0.5, torch.tensor([True, False])).conductance
    0.5
    """

    conductance: float
    inside: Bool[Tensor, " nodes"]


def spectral_gap(graph: Any, norm: str = "sym") -> float:
    """The smallest eigenvalue of L beyond the first, lambda_2: 0 for a disconnected graph.

    Heat flow tends to its limit like e^(-lambda_2 t), and its Dirichlet energy twice as fast. By
    Lanczos' method beyond 500 nodes.

    Args:
        graph: An undirected graph of at least two nodes.
        norm: "sym" ("rw" has the same spectrum), "comb" or "augmented".

    Raises:
        ValueError: For a directed graph, and a single node.

    >>> from neuralpde import catalogue
    >>> round(spectral_gap(catalogue.complete(5), "comb"), 9)
    5.0
    """
    return float(_second(_checked(graph), norm)[0])


def fiedler_vector(graph: Any, norm: str = "sym") -> Float[Tensor, " nodes"]:
    """The eigenvector of the spectral gap, of length 1; its sign is that of its largest entry.

    Arguments and errors are those of `spectral_gap`. Where the gap is a multiple eigenvalue the
    vector is one of many.

    >>> from neuralpde import catalogue
    >>> (fiedler_vector(catalogue.path(3), "comb") * 2**0.5).abs().round(decimals=6).tolist()
    [1.0, 0.0, 1.0]
    """
    return torch.from_numpy(_second(_checked(graph), norm)[1])


def cheeger_sweep(graph: Any) -> Cut:
    """The best cut along the Fiedler vector: an upper bound of the graph's conductance h.

    Cheeger's inequality encloses it, lambda_2 / 2 <= h <= conductance <= sqrt(2 lambda_2), with
    lambda_2 that of "sym".

    Raises:
        ValueError: For a directed graph, a single node, and a graph without edges.

    References:
        Chung, Spectral Graph Theory, 1997, section 2.

    >>> from neuralpde import catalogue
    >>> round(cheeger_sweep(catalogue.barbell(4)).conductance * 13, 9)
    1.0
    """
    where = _checked(graph)
    degree = where.degree.double().cpu().numpy()
    if not degree.any():
        raise ValueError("a graph without edges has no cut; its conductance is not defined")
    vector = _second(where, "sym")[1] / np.sqrt(np.where(degree > 0, degree, 1.0))
    order = np.argsort(vector, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    source, target = (place[end] for end in where.edge_index.cpu().numpy())
    weight = where.edge_weight.cpu().numpy()
    # An edge is cut by all prefixes that hold one end of it and not the other.
    low, high = np.minimum(source, target), np.maximum(source, target)
    change = np.zeros(len(order) + 1)
    np.add.at(change, low, weight / 2)
    np.add.at(change, high, -weight / 2)
    cut, volume = np.cumsum(change)[:-1], np.cumsum(degree[order])
    smaller = np.minimum(volume, volume[-1] - volume)
    with np.errstate(divide="ignore", invalid="ignore"):
        conductance = np.where(smaller > 0, cut / smaller, np.inf)
    best = int(np.argmin(conductance))
    inside = torch.zeros(len(order), dtype=torch.bool)
    inside[torch.from_numpy(order[: best + 1])] = True
    return Cut(max(float(conductance[best]), 0.0), inside)


def _checked(graph: Any) -> Graph:
    where = Graph.of(graph)
    if where.directed:
        raise ValueError(
            "the spectral gap is that of an undirected graph; use graph.undirected(reduce='max')"
        )
    if where.num_nodes < 2:
        raise ValueError(f"a graph of {where.num_nodes} nodes has no second eigenvalue")
    return where


def _second(graph: Graph, norm: str) -> tuple[float, np.ndarray]:
    """The second smallest eigenvalue and its vector."""
    name = "sym" if norm == "rw" else norm
    L = graph.laplacian(name, dtype=torch.float64)
    if graph.num_nodes <= SMALL:
        values, vectors = torch.linalg.eigh(L.to_dense())
        value, vector = float(values[1]), vectors[:, 1].numpy()
    else:
        value, vector = _by_lanczos(L.to_scipy(), float(L.spectrum()[1].max()))
    vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
    return max(value, 0.0), vector


def _by_lanczos(L: Any, top: float) -> tuple[float, np.ndarray]:
    start = np.random.default_rng(0).standard_normal(L.shape[0])
    # Inverting near zero finds the smallest ones at once; the shift keeps the matrix regular.
    shift = -1e-6 * top
    try:
        values, vectors = eigsh(L, k=2, sigma=shift, which="LM", v0=start)
    except (RuntimeError, ArpackNoConvergence):
        flipped = top * eye_array(L.shape[0]) - L
        values, vectors = eigsh(flipped, k=2, which="LA", v0=start, maxiter=10_000)
        values = top - values
    order = np.argsort(values)
    return float(values[order[1]]), vectors[:, order[1]]
