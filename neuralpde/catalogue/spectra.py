"""Laplacian eigenvalues known in closed form.

References:
    Brouwer and Haemers, Spectra of Graphs, Springer 2012, sections 1.4 (families) and 1.4.6
    (Cartesian products: eigenvalues of the combinatorial Laplacian add).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.failure import unknown_name


def eigenvalues(family: str, *sizes: int, norm: str = "comb") -> Float[Tensor, " nodes"]:
    """Return the exact Laplacian eigenvalues of `catalogue.<family>(*sizes)`, ascending, float64.

    The combinatorial ones are known for path, ring, grid, torus, complete, star, bipartite,
    hypercube and the barbell without inner bridge nodes; the normalised ones ("sym", and "rw",
    which has the same) for all of them but grid and barbell.

    Args:
        family: name of the function in `neuralpde.catalogue`.
        sizes: its arguments.
        norm: "comb", "sym" or "rw".

    Raises:
        ValueError: no closed form is known here.

    >>> eigenvalues("star", 4).tolist()
    [0.0, 1.0, 1.0, 4.0]
    """
    known = {"comb": COMBINATORIAL, "sym": NORMALISED, "rw": NORMALISED}
    if norm not in known:
        raise unknown_name("norm", norm, known)
    if family not in known[norm]:
        raise unknown_name(f"closed-form {norm} spectrum", family, known[norm])
    return known[norm][family](*sizes).sort().values


def _multiset(*counted: tuple[float, int]) -> Tensor:
    return torch.tensor(
        [value for value, count in counted for _ in range(count)], dtype=torch.float64
    )


def _path(nodes: int) -> Tensor:
    # 4 sin^2 instead of 2 - 2 cos keeps the small eigenvalues to full relative precision.
    return 4 * (torch.arange(nodes, dtype=torch.float64) * (math.pi / (2 * nodes))).sin() ** 2


def _ring(nodes: int) -> Tensor:
    return 4 * (torch.arange(nodes, dtype=torch.float64) * (math.pi / nodes)).sin() ** 2


def _product(first: Tensor, second: Tensor) -> Tensor:
    return (first[:, None] + second).flatten()


def _complete(nodes: int) -> Tensor:
    return _multiset((0.0, 1), (float(nodes), nodes - 1))


def _star(nodes: int) -> Tensor:
    return _multiset((0.0, 1), (1.0, nodes - 2), (float(nodes), 1))


def _bipartite(left: int, right: int) -> Tensor:
    inner = ((float(left), right - 1), (float(right), left - 1))
    return _multiset((0.0, 1), *inner, (float(left + right), 1))


def _hypercube(dimension: int) -> Tensor:
    return _multiset(*((2.0 * k, math.comb(dimension, k)) for k in range(dimension + 1)))


def _barbell(clique: int, bridge: int = 0) -> Tensor:
    if bridge:
        raise ValueError(
            f"no closed form for a barbell with {bridge} inner bridge nodes; only for 0"
        )
    # Antisymmetric vectors, constant on each clique but for the bridge's ends, solve
    # z^2 - (k + 2) z + 2 = 0; the symmetric ones give 0 and k.
    top = 0.5 * (clique + 2 + math.sqrt((clique + 2) ** 2 - 8))
    return _multiset((0.0, 1), (2 / top, 1), (float(clique), 2 * clique - 3), (top, 1))


def _normalised_path(nodes: int) -> Tensor:
    steps = max(nodes - 1, 1)
    return 2 * (torch.arange(nodes, dtype=torch.float64) * (math.pi / (2 * steps))).sin() ** 2


def _normalised_complete(nodes: int) -> Tensor:
    return _complete(nodes) / max(nodes - 1, 1)


def _normalised_bipartite(left: int, right: int) -> Tensor:
    return _multiset((0.0, 1), (1.0, left + right - 2), (2.0, 1))


COMBINATORIAL: dict[str, Callable[..., Tensor]] = {
    "path": _path,
    "ring": _ring,
    "grid": lambda rows, columns: _product(_path(rows), _path(columns)),
    "torus": lambda rows, columns: _product(_ring(rows), _ring(columns)),
    "complete": _complete,
    "star": _star,
    "bipartite": _bipartite,
    "hypercube": _hypercube,
    "barbell": _barbell,
}

NORMALISED: dict[str, Callable[..., Tensor]] = {
    "path": _normalised_path,
    "ring": lambda nodes: _ring(nodes) / 2,
    "torus": lambda rows, columns: _product(_ring(rows), _ring(columns)) / 4,
    "complete": _normalised_complete,
    "star": lambda nodes: _normalised_bipartite(1, nodes - 1),
    "bipartite": _normalised_bipartite,
    "hypercube": lambda dimension: _hypercube(dimension) / dimension,
}
