"""Numbers that belong to the graphs of a batch: spread over nodes, gathered from nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsFloat

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Scalar = float | Tensor
"""A number, a 0-d tensor, or one number for each graph of a batch, `[num_graphs]`."""


@dataclass(frozen=True, eq=False)
class Graphs:
    """Which graph each node belongs to.

    Args:
        batch: graph of each node, sorted, or None for one graph.
        num_graphs: number of graphs.
        device: where the numbers are.

    Raises:
        ValueError: several graphs, but no `batch`.
    """

    batch: Int64[Tensor, " nodes"] | None
    num_graphs: int
    device: torch.device

    def __post_init__(self) -> None:
        if self.num_graphs > 1 and self.batch is None:
            raise ValueError(f"{self.num_graphs} graphs need batch=, the graph of each node")
        if self.num_graphs == 1:
            object.__setattr__(self, "batch", None)

    def same_as(self, other: Graphs) -> bool:
        """Whether both put every node into the same graph.

        >>> one = Graphs(None, 1, torch.device("cpu"))
        >>> one.same_as(Graphs(torch.tensor([0, 1]), 2, torch.device("cpu")))
        False
        """
        if self.batch is None or other.batch is None:
            return self.batch is other.batch
        same = self.num_graphs == other.num_graphs
        return same and (self.batch is other.batch or torch.equal(self.batch, other.batch))

    def numbers(self, scalar: Scalar) -> Float[Tensor, " graphs"]:
        """Return a scalar as one float64 number for each graph, without gradient.

        Raises:
            TypeError: it is no real number.
            ValueError: it is neither one number nor one for each graph.

        >>> Graphs(torch.tensor([0, 1]), 2, torch.device("cpu")).numbers(3.0).tolist()
        [3.0, 3.0]
        """
        if isinstance(scalar, Tensor):
            if scalar.is_complex() or scalar.shape not in ((), (self.num_graphs,)):
                raise ValueError(
                    f"a factor of an operator is a real number or one for each graph "
                    f"([{self.num_graphs}]), got {scalar.dtype} of shape {tuple(scalar.shape)}"
                )
            return scalar.detach().to(self.device, torch.float64).expand(self.num_graphs)
        if not isinstance(scalar, SupportsFloat):
            raise TypeError(
                f"operators are multiplied with real numbers, not with {type(scalar).__name__}; "
                "for a complex factor multiply the product: 1j * (A @ x)"
            )
        number = torch.tensor(float(scalar), dtype=torch.float64, device=self.device)
        return number.expand(self.num_graphs)

    def spread(self, scalar: Scalar, dtype: torch.dtype) -> float | Tensor:
        """Return a scalar as it multiplies node values: a number, or one for each node.

        >>> graphs = Graphs(torch.tensor([0, 0, 1]), 2, torch.device("cpu"))
        >>> graphs.spread(torch.tensor([1.0, 2.0]), torch.float64).tolist()
        [1.0, 1.0, 2.0]
        """
        if not isinstance(scalar, Tensor):
            return float(scalar)
        scalar = scalar.to(self.device, dtype)
        return scalar.reshape(()) if self.batch is None or not scalar.dim() else scalar[self.batch]

    def reduced(self, values: Float[Tensor, " nodes"], how: str) -> Float[Tensor, " graphs"]:
        """Return the "amax", "amin" or "sum" over each graph; 0 for a graph without nodes.

        >>> graphs = Graphs(torch.tensor([0, 0, 2]), 3, torch.device("cpu"))
        >>> graphs.reduced(torch.tensor([1.0, 3.0, 2.0]), "amax").tolist()
        [3.0, 0.0, 2.0]
        """
        index = torch.zeros_like(values, dtype=torch.int64) if self.batch is None else self.batch
        zeros = values.new_zeros(self.num_graphs)
        return zeros.scatter_reduce(0, index, values, how, include_self=False)
