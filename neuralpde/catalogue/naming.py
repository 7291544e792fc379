"""Graphs by the names that scripts take: families with their sizes, embedded and benchmark sets."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import torch

from neuralpde.catalogue import families
from neuralpde.catalogue.samples import sbm
from neuralpde.data import Benchmark, load
from neuralpde.graph import Graph
from solvers.failure import unknown_name

FAMILIES: dict[str, Callable[..., Graph]] = {
    "path": families.path,
    "ring": families.ring,
    "grid": families.grid,
    "torus": families.torus,
    "complete": families.complete,
    "star": families.star,
    "bipartite": families.bipartite,
    "hypercube": families.hypercube,
    "barbell": families.barbell,
    "lollipop": families.lollipop,
    "tree": families.tree,
}


def named(name: str, root: str | Path | None = None) -> Benchmark:
    """The graph of a name, with features, labels and splits where it has them.

    Args:
        name: A family with its sizes ("grid:40x40", "ring:100"), a stochastic block model
            ("sbm:3x40x0.2x0.01": 3 blocks of 40 nodes, joined with probability 0.2 inside a block
            and 0.01 between blocks; always the same draw), "minnesota", "karate", or a benchmark
            set ("Cora"); see `neuralpde.data.load`.
        root: Folder of the benchmark sets, in torch_geometric's layout.

    Raises:
        ValueError: For an unknown name, with the nearest one, and sizes that a family does not
            take.
        FileNotFoundError: For a set whose files are not below `root`.

    >>> named("grid:2x3").graph.num_nodes
    6
    """
    family, colon, sizes = name.partition(":")
    if not colon:
        return load(name, root=root)
    if family == "sbm":
        return _blocks(name, sizes.split("x"))
    if family not in FAMILIES:
        raise unknown_name("family of graphs", family, (*FAMILIES, "sbm"))
    make = FAMILIES[family]
    numbers = sizes.split("x")
    wanted = [one for one in signature(make).parameters.values() if one.default is one.empty]
    fits = len(wanted) <= len(numbers) <= len(signature(make).parameters)
    if not fits or not all(number.isdecimal() for number in numbers):
        raise ValueError(
            f"{name!r} names no graph: {family} takes {', '.join(signature(make).parameters)} as "
            "whole numbers with x between them, as in 'grid:40x40'"
        )
    return Benchmark(name, make(*map(int, numbers)))


def _blocks(name: str, numbers: list[str]) -> Benchmark:
    """A stochastic block model with blocks of one size, and its blocks as labels."""
    try:
        count, size = (int(number) for number in numbers[:2])
        inside, outside = (float(number) for number in numbers[2:])
    except ValueError:
        raise ValueError(
            f"{name!r} names no graph: sbm takes blocks, nodes per block and two probabilities, as "
            "in 'sbm:3x40x0.2x0.01'"
        ) from None
    p = [[inside if a == b else outside for b in range(count)] for a in range(count)]
    graph = sbm([size] * count, p, generator=torch.Generator().manual_seed(0))
    return Benchmark(name, graph, y=torch.arange(count).repeat_interleave(size))
