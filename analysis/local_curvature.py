"""Balanced Forman curvature that follows a graph whose edges come and go."""

from __future__ import annotations

from collections.abc import Iterable

from neuralpde.graph import Graph

Edge = tuple[int, int]


class LocalCurvature:
    """The curvature of every edge of a simple undirected graph, kept right under changes.

    The curvature of an edge depends on the neighbours of its ends and on theirs: a change at (k, m)
    touches only edges with an end next to k or m. Those are counted again, nothing else.

    Args:
        graph: Where it starts; weights and self-loops play no part.

    >>> from neuralpde import catalogue
    >>> local = LocalCurvature(catalogue.ring(5))
    >>> local.add(0, 2)
    >>> local.least(), round(local.of[(0, 1)], 6)
    ((0, 4), 0.833333)
    """

    def __init__(self, graph: Graph) -> None:
        self.near: list[set[int]] = [set() for _ in range(graph.num_nodes)]
        for i, j in graph.edge_index.T.tolist():
            if i != j:
                self.near[i].add(j)
                self.near[j].add(i)
        self.of: dict[Edge, float] = {}
        self._count((i, j) for i, ends in enumerate(self.near) for j in ends if i < j)

    def least(self) -> Edge:
        """The edge of least curvature."""
        return min(self.of, key=self.of.__getitem__)

    def most(self) -> Edge:
        """The edge of largest curvature."""
        return max(self.of, key=self.of.__getitem__)

    def add(self, k: int, m: int) -> None:
        """Join two nodes."""
        self._join(k, m)
        self._count(self._around(k, m))

    def remove(self, k: int, m: int) -> None:
        """Part two nodes."""
        touched = self._around(k, m)
        self._part(k, m)
        del self.of[_sorted(k, m)]
        self._count(edge for edge in touched if edge != _sorted(k, m))

    def gains(self, i: int, j: int) -> dict[Edge, float]:
        """What the curvature of (i, j) gains from each edge between its neighbourhoods."""
        before, found = self.of[_sorted(i, j)], {}
        for k in sorted(self.near[i] | {i}):
            for m in sorted(self.near[j] | {j}):
                pair = _sorted(k, m)
                if k != m and m not in self.near[k] and pair not in found:
                    self._join(k, m)
                    found[pair] = self.at(i, j) - before
                    self._part(k, m)
        return found

    def at(self, i: int, j: int) -> float:
        """The curvature of one edge as the graph is now, by its definition."""
        at_i, at_j = self.near[i], self.near[j]
        small, large = sorted((len(at_i), len(at_j)))
        if small <= 1:
            return 0.0
        both = at_i & at_j
        only_i, only_j = at_i - both - {j}, at_j - both - {i}
        ways = [len(self.near[k] & only_j) for k in only_i]
        ways += [len(self.near[k] & only_i) for k in only_j]
        value = 2 / len(at_i) + 2 / len(at_j) - 2 + (2 / large + 1 / small) * len(both)
        squares, most = sum(count > 0 for count in ways), max(ways, default=0)
        return value + (squares / (most * large) if most else 0.0)

    def _around(self, k: int, m: int) -> set[Edge]:
        ends = self.near[k] | self.near[m] | {k, m}
        return {_sorted(i, j) for i in ends for j in self.near[i]}

    def _count(self, edges: Iterable[Edge]) -> None:
        for i, j in edges:
            self.of[(i, j)] = self.at(i, j)

    def _join(self, k: int, m: int) -> None:
        self.near[k].add(m)
        self.near[m].add(k)

    def _part(self, k: int, m: int) -> None:
        self.near[k].discard(m)
        self.near[m].discard(k)


def _sorted(i: int, j: int) -> Edge:
    return (i, j) if i < j else (j, i)
