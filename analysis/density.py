"""The density of states of a graph: how many eigenvalues lie where, without computing any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.graph import Graph
from solvers.moments import moments

FINE = 4096
"""Points on which a share is looked up for its eigenvalue."""


@dataclass(frozen=True, eq=False)
class Density:
    """How the eigenvalues of each graph are distributed, smoothed by Jackson's kernel.

    Attributes:
        moments: The mean of T_k over the eigenvalues, k = 0, ..., `[moments, graphs]`.
        lo: Lower end of the interval that is mapped to [-1, 1], one for each graph.
        hi: Upper end.

    >>> one = Density(np.ones((40, 1)), np.zeros(1), np.ones(1))  # all eigenvalues are 0
    >>> one.cumulative(torch.tensor([0.5])).round(decimals=3).item()
    1.0
    """

    moments: Float[np.ndarray, "moments graphs"]
    lo: Float[np.ndarray, " graphs"]
    hi: Float[np.ndarray, " graphs"]

    @property
    def resolution(self) -> Float[np.ndarray, " graphs"]:
        """Standard deviation of the kernel in the middle of the interval; less at its ends."""
        width: np.ndarray = (self.hi - self.lo) / 2 * (math.pi / (len(self.moments) + 1))
        return width

    def __call__(self, eigenvalue: Float[Tensor, " points"]) -> Float[Tensor, "points graphs"]:
        """The density, whose integral over an interval is the share of eigenvalues inside."""
        angle = self._angle(eigenvalue.double().numpy()[:, None])
        terms = np.cos(np.arange(len(self.moments))[:, None, None] * angle)
        terms[1:] *= 2.0
        sine = np.maximum(np.sin(angle), 1e-12) * np.pi * self._half
        return torch.from_numpy(np.einsum("kg,kpg->pg", self._damped(), terms) / sine)

    def cumulative(self, eigenvalue: Float[Tensor, " points"]) -> Float[Tensor, "points graphs"]:
        """The share of the eigenvalues that lie below."""
        angle = self._angle(eigenvalue.double().numpy()[:, None])
        return torch.from_numpy(self._below(angle))

    def quantiles(self, shares: Float[Tensor, " shares"]) -> Float[Tensor, "shares graphs"]:
        """The eigenvalues below which given shares of all lie."""
        grid = np.linspace(0.0, np.pi, FINE)[:, None].repeat(len(self.lo), axis=1)
        # The kernel is positive, so that only rounding makes the share fall.
        below = np.maximum.accumulate(self._below(grid))
        wanted = shares.double().numpy()
        angles = [np.interp(wanted, curve, grid[:, 0]) for curve in below.T]
        return torch.from_numpy(self.lo + self._half * (1.0 - np.cos(np.stack(angles, axis=1))))

    @property
    def _half(self) -> np.ndarray:
        half: np.ndarray = (self.hi - self.lo) / 2
        return half

    def _angle(self, eigenvalue: np.ndarray) -> np.ndarray:
        safe = np.where(self._half > 0, self._half, 1.0)
        angle: np.ndarray = np.arccos(np.clip(1.0 - (eigenvalue - self.lo) / safe, -1.0, 1.0))
        return angle

    def _below(self, angle: np.ndarray) -> np.ndarray:
        order = np.arange(1, len(self.moments))[:, None, None]
        waves = 2.0 * np.sin(order * angle) / order
        total = np.einsum("kg,kpg->pg", self._damped()[1:], waves)
        below: np.ndarray = np.clip((angle + total) / np.pi, 0.0, 1.0)
        return below

    def _damped(self) -> np.ndarray:
        damped: np.ndarray = self.moments * jackson(len(self.moments))[:, None]
        return damped


def density_of_states(
    graph: Any,
    norm: str = "comb",
    *,
    count: int = 256,
    probes: int = 16,
    generator: torch.Generator | None = None,
) -> Density:
    """The distribution of the eigenvalues of a graph's Laplacian, by the kernel polynomial method.

    Traces of Chebyshev polynomials are estimated from random signs, `count / 2` products on
    `probes` channels; a share is wrong by about `1 / sqrt(n probes)`, and eigenvalues are smeared
    by `resolution`.

    Args:
        graph: An undirected graph, or what stands for one.
        norm: "comb", "sym", "rw" or "augmented".
        count: Number of moments.
        probes: Number of random vectors.
        generator: Source of randomness.

    Raises:
        ValueError: For a directed graph, an unknown norm, or counts below 2 and 1.

    References:
        A. Weisse, G. Wellein, A. Alvermann, H. Fehske, The kernel polynomial method, Rev. Mod.
        Phys. 78 (2006), 275, arXiv:cond-mat/0504627.

    >>> from neuralpde import catalogue
    >>> found = density_of_states(catalogue.hypercube(8), generator=torch.Generator())
    >>> found.cumulative(torch.tensor([9.0])).item() > 0.6  # 1 + 8 + 28 + 56 + 70 of 256
    True
    """
    if count < 2 or probes < 1:
        raise ValueError(f"count={count}, probes={probes}: give 2 moments and 1 probe at least")
    where = Graph.of(graph)
    L = where.laplacian(norm, dtype=torch.float64)
    signs = torch.randint(0, 2, (where.num_nodes, probes), generator=generator).to(where.device)
    z = 2.0 * signs.double() - 1.0
    # In the metric, so that expectations are traces.
    z = z if L.metric is None else z / L.metric.double().sqrt().unsqueeze(1)
    found = moments(L, z, count, metric=L.metric)
    lo, hi = (end.cpu().numpy() for end in L.spectrum())
    return Density(found / found[:1], lo, hi)


def jackson(count: int) -> Float[np.ndarray, " count"]:
    """Jackson's factors g_k: multiplied with a Chebyshev series they make its kernel positive.

    >>> jackson(2).round(3).tolist()
    [1.0, 0.5]
    """
    k, steps = np.arange(count), count + 1
    angle = np.pi * k / steps
    factors: np.ndarray = (
        (steps - k) * np.cos(angle) + np.sin(angle) / math.tan(math.pi / steps)
    ) / steps
    return factors
