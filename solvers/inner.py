"""Inner products of states, a number for each graph, accumulated in double precision."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.lines import dots, lines
from solvers.rows import Rows


def inner(
    rows: Rows,
    x: Float[Tensor, "rows columns"],
    y: Float[Tensor, "rows columns"],
    metric: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, " graphs"]:
    """Return ``sum_i m_i <x_i, y_i>`` over the rows of each graph, in float64.

    Args:
        rows: how rows belong to graphs.
        x: real and contiguous.
        y: of the same shape and dtype; contiguous.
        metric: one weight per row, or None for ones.

    Example:
        >>> inner(Rows(), torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
        tensor([11.], dtype=torch.float64)
    """
    if metric is None and rows.batch is None:
        first = lines(x)
        return dots(first, first if y is x else lines(y)).sum(0, True, dtype=torch.float64)
    of_rows = torch.linalg.vecdot(x, y).double()
    return rows.sums((of_rows if metric is None else of_rows * metric.to(of_rows),))
