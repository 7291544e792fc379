"""Graphs by the names that scripts take: families with their sizes, embedded and benchmark sets."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path

from neuralpde.catalogue import families
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
        name: A family with its sizes ("grid:40x40", "ring:100"), "minnesota", "karate", or a
            benchmark set ("Cora"); see `neuralpde.data.load`.
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
    if family not in FAMILIES:
        raise unknown_name("family of graphs", family, FAMILIES)
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
