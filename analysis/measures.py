"""Measures of one state: live through `watch`, on `(x, graph)`, or over a whole trajectory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from neuralpde.graph import Graph


class Shot(Protocol):
    """What `solve` shows to a measure."""

    @property
    def x(self) -> Any:
        """The state."""

    @property
    def graph(self) -> Graph | None:
        """The graph."""


class Measure(ABC):
    """A quantity of one state on a graph; subclasses define `value(x, graph)`.

    A measure is called with a snapshot by `solve(watch=...)`, or with a state and its graph. Of a
    tuple state it reads the first part. Values that rounding alone may have made are told by
    `floor(x, graph)`, where a subclass defines it: series leave them out.

    >>> class Largest(Measure):
    ...     name = "largest"
    ...     def value(self, x, graph):
    ...         return x.abs().amax()
    >>> Largest()(torch.tensor([[-2.0], [1.0]]), torch.tensor([[0, 1], [1, 0]])).item()
    2.0
    """

    name = "measure"

    def __call__(self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None) -> Tensor:
        """The value per graph `[graphs]`."""
        return self.value(*self._seen(x, graph))

    def reading(
        self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any = None
    ) -> tuple[Tensor, Tensor]:
        """The value per graph, and its absolute error by rounding."""
        state, where = self._seen(x, graph)
        value = torch.as_tensor(self.value(state, where))
        return value, self.floor(state, where, value)

    @abstractmethod
    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The quantity per graph."""

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """The absolute error that rounding leaves in the value; zero where it is small."""
        return torch.zeros_like(value)

    def _seen(self, x: Tensor | Shot | tuple[Tensor, ...], graph: Any) -> tuple[Tensor, Graph]:
        state, where = (x, graph) if isinstance(x, Tensor | tuple) else (x.x, x.graph)
        first = state[0] if isinstance(state, tuple) else state
        if where is None:
            raise ValueError(f"{self.name} is measured on a graph: call it with (x, graph)")
        return first, Graph.of(where).like(first)


def sizes(graph: Graph) -> Tensor:
    """Number of nodes of each graph, float64.

    >>> sizes(Graph(torch.tensor([[0, 1], [1, 0]]), 3)).tolist()
    [3.0]
    """

    def count() -> Tensor:
        if graph.batch is None:
            return torch.tensor([graph.num_nodes], dtype=torch.float64, device=graph.device)
        return torch.bincount(graph.batch, minlength=graph.num_graphs).double()

    # Counting asks the device, which no step should wait for.
    found: Tensor = graph.remember("sizes", count)
    return found
