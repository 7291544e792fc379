"""The graphs that come with the package; `files/README.md` has their sources and licences."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from neuralpde.graph import Graph

# PyGSP joins the two crossings that have no road to the others by this one.
MISSING_ROAD = (348, 354)


def karate() -> Graph:
    """Return Zachary's karate club: 34 members, 78 friendships, unit weights.

    `neuralpde.data.load("karate")` also has the faction of each member.

    References:
        Zachary, Journal of Anthropological Research 33 (1977) 452-473.

    >>> karate()
    Graph(34 nodes, 78 undirected edges, 1 component)
    """
    return _both_ways(_read("karate")["edges"])


def factions() -> Int[Tensor, " 34"]:
    """Return whom each member of the karate club followed: 0 Mr. Hi, 1 the officer.

    >>> factions().sum().item()
    17
    """
    return _read("karate")["faction"].long()


def minnesota(connect: bool = True) -> Graph:
    """Return the roads of Minnesota; `pos` is longitude and latitude in degrees.

    Args:
        connect: as PyGSP does by default, make all weights 1 and add the road 348 - 354, which
            joins the two components. Without it, four weights are 2.

    References:
        PyGSP, `pygsp.graphs.Minnesota`; D. Gleich, MatlabBGL.

    >>> minnesota()
    Graph(2642 nodes, 3304 undirected edges, 1 component)
    >>> minnesota(connect=False)
    Graph(2642 nodes, 3303 undirected edges, 2 components)
    """
    stored = _read("minnesota")
    pos = stored["millidegrees"].double() / 1000
    if not connect:
        return _both_ways(stored["edges"], stored["weight"].double(), pos)
    return _both_ways(torch.cat([stored["edges"], torch.tensor(MISSING_ROAD)[:, None]], 1), pos=pos)


def _read(name: str) -> dict[str, Tensor]:
    with (
        as_file(files("neuralpde.data") / "files" / f"{name}.npz") as path,
        np.load(path) as stored,
    ):
        return {key: torch.from_numpy(stored[key]) for key in stored}


def _both_ways(edges: Tensor, weight: Tensor | None = None, pos: Tensor | None = None) -> Graph:
    edge_index = torch.cat([edges, edges.flip(0)], dim=1)
    return Graph(edge_index, edge_weight=None if weight is None else weight.repeat(2), pos=pos)
