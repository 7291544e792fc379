"""A schedule of how many times there are to be where: quantiles of a density."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from solvers.schedules.closed_forms import LogitUniform
from solvers.schedules.schedule import Grid, Named, closed, fractions

Array = Float[np.ndarray, " points"]


class _Cells(NamedTuple):
    """A density that is straight between edges, and the mass before each edge."""

    edges: Array
    start: Array
    stop: Array
    before: Array


@dataclass(frozen=True)
class Density(Named):
    """Quantiles of a density on [0, 1] that is known at nodes.

    Made in this order: the rates are tempered, ``r -> r^p`` (after ``r -> log(1 + r)`` if so
    asked); joined by straight lines, and held constant before the first node and after the last;
    divided by their integral; mixed with the uniform density, ``(1 - mix) r + mix``. The times are
    its quantiles i / n, exact for that density. Therefore no step is longer than 1 / (mix n), and
    none shorter than 1 / (n max r), r the mixed density.

    Tempering with ``p = 1 / (order + 1)`` shares the local error of a method equally if the rate
    is proportional to it; p = 1 shares the rate itself. Mixing repairs the one giant step that a
    rate with a zero would make.

    Args:
        nodes: where the rate is known: strictly increasing in [0, 1].
        rates: the rate there; not negative, so hand over the modulus of a signed one. Its unit
            does not matter, unless `log1p`.
        p: the power, positive.
        mix: fraction of the uniform density, from 0 to 1.
        log1p: whether the logarithm of 1 + r is taken first. It depends on the unit of the rate:
            nats per unit of time flatten the more the larger the state is.
        cut: whether nothing is placed before the first node and after the last, in place of
            holding the rate there; the uniform part reaches the ends all the same.
        provenance: where the rates came from, as plain data; it plays no part in the grid.

    Raises:
        ValueError: for nodes or rates that make no density.

    Example:
        >>> rising = Density((0.0, 1.0), (0.0, 1.0))  # density 2 t, mass t^2
        >>> rising.grid(4).round(4).tolist()
        [0.0, 0.5, 0.7071, 0.866, 1.0]
        >>> Density((0.0, 1.0), (0.0, 1.0), mix=0.5).density(np.array([0.0, 1.0])).tolist()
        [0.5, 1.5]
    """

    nodes: Sequence[float]
    rates: Sequence[float]
    p: float = 1.0
    mix: float = 0.0
    log1p: bool = False
    cut: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)
    name: ClassVar[str] = "density"

    def __post_init__(self) -> None:
        """Freeze the numbers, and refuse those that make no density."""
        object.__setattr__(self, "nodes", tuple(float(node) for node in self.nodes))
        object.__setattr__(self, "rates", tuple(float(rate) for rate in self.rates))
        object.__setattr__(self, "provenance", dict(self.provenance))
        nodes, rates = np.array(self.nodes), np.array(self.rates)
        if len(nodes) < 2 or len(nodes) != len(rates):
            raise ValueError(f"{len(nodes)} nodes, {len(rates)} rates; give two or more of each")
        if not ((np.diff(nodes) > 0).all() and nodes[0] >= 0 and nodes[-1] <= 1):
            raise ValueError(f"nodes must increase strictly inside [0, 1], got {nodes}")
        if not np.isfinite(rates).all():
            bad = nodes[~np.isfinite(rates)]
            raise ValueError(
                f"the rate is not finite at {bad}; where it is infinite, cut those nodes off"
            )
        if not ((rates >= 0).all() and rates.max() > 0):
            raise ValueError(
                f"rates must be 0 or more, and not all 0; they reach from {rates.min():g} to "
                f"{rates.max():g}: hand over the modulus of a signed rate"
            )
        if not 0 < self.p < np.inf or not 0 <= self.mix <= 1:
            raise ValueError(f"p={self.p}, mix={self.mix}: p must be positive, and mix from 0 to 1")

    @classmethod
    def of(
        cls,
        rate: Callable[[Array], Array],
        *,
        eps: float = 1e-3,
        nodes: int = 49,
        p: float = 1.0,
        mix: float = 0.0,
        log1p: bool = False,
        cut: bool = False,
    ) -> Self:
        """Read a density off a function, at nodes that are equally spaced in log(t / (1 - t)).

        Args:
            rate: takes an array of times in [eps, 1 - eps].
            eps: the first node.
            nodes: how many.
            p: see the class.
            mix: see the class.
            log1p: see the class.
            cut: see the class.

        Example:
            >>> Density.of(lambda t: 1 / np.sqrt(t * (1 - t)), eps=1e-8, nodes=999).grid(
            ...     4
            ... ).round(3).tolist()  # the cosine schedule
            [0.0, 0.146, 0.5, 0.854, 1.0]
        """
        at = LogitUniform(eps).at(fractions(nodes - 1))
        rates = np.broadcast_to(rate(at), at.shape)
        return cls(tuple(at), tuple(rates), p=p, mix=mix, log1p=log1p, cut=cut)

    @property
    def evaluations(self) -> int:
        """How many evaluations of a model it took to make, by its provenance."""
        return int(self.provenance.get("evaluations", 0))

    def grid(self, n: int) -> Grid:
        """Place ``n + 1`` times; see :class:`Schedule`."""
        edges, start, stop, before = self._cells()
        level = fractions(n)[1:-1]
        cell = np.clip(np.searchsorted(before, level, side="right") - 1, 0, len(start) - 1)
        rest, width = level - before[cell], edges[cell + 1] - edges[cell]
        slope = (stop[cell] - start[cell]) / width
        # The root of start y + slope y^2 / 2 = rest that does not cancel.
        root = np.sqrt(np.maximum(start[cell] ** 2 + 2 * slope * rest, 0.0))
        inside = np.zeros_like(rest)
        np.divide(2 * rest, start[cell] + root, out=inside, where=rest > 0)
        return closed(edges[cell] + np.minimum(inside, width))

    def density(self, t: Array) -> Array:
        """The density at times in [0, 1]; its integral is 1.

        Args:
            t: the times.
        """
        edges, start, stop, _ = self._cells()
        cell, inside = self._find(edges, t)
        part = inside / (edges[cell + 1] - edges[cell])
        return np.asarray(start[cell] * (1 - part) + stop[cell] * part)

    def cdf(self, t: Array) -> Array:
        """The fraction of the steps that is taken before times in [0, 1].

        Args:
            t: the times.
        """
        edges, start, stop, before = self._cells()
        cell, inside = self._find(edges, t)
        slope = (stop[cell] - start[cell]) / (edges[cell + 1] - edges[cell])
        return np.asarray(before[cell] + inside * (start[cell] + slope * inside / 2))

    def reverse(self) -> Density:
        """The mirrored density."""
        nodes, rates = (tuple(reversed(one)) for one in (self.nodes, self.rates))
        return dataclasses.replace(self, nodes=tuple(1 - node for node in nodes), rates=rates)

    @staticmethod
    def _find(edges: Array, t: Array) -> tuple[Any, Array]:
        t = np.asarray(t, dtype=np.float64)
        if not ((t >= 0) & (t <= 1)).all():
            raise ValueError(f"times must lie in [0, 1], got {t}")
        cell = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, len(edges) - 2)
        return cell, t - edges[cell]

    def _cells(self) -> _Cells:
        edges, rates = np.array(self.nodes), np.array(self.rates)
        if self.log1p:
            rates = np.log1p(rates)
        # Divided by the largest first, so that no power overflows.
        rates = (rates / rates.max()) ** self.p
        start, stop = rates[:-1], rates[1:]
        if edges[0] > 0:
            first = [0.0 if self.cut else rates[0]]
            edges = np.concatenate([[0.0], edges])
            start, stop = np.concatenate([first, start]), np.concatenate([first, stop])
        if edges[-1] < 1:
            last = [0.0 if self.cut else rates[-1]]
            edges = np.concatenate([edges, [1.0]])
            start, stop = np.concatenate([start, last]), np.concatenate([stop, last])
        width = np.diff(edges)
        total = (width * (start + stop) / 2).sum()
        start, stop = (one / total * (1 - self.mix) + self.mix for one in (start, stop))
        before = np.concatenate([[0.0], np.cumsum(width * (start + stop) / 2)])
        return _Cells(edges, start, stop, before)
