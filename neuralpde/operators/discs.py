"""Bounds of a spectrum from the rows and columns of a matrix: norms, and Gershgorin's discs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.operators.graphs import Graphs
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.tags import ROUNDING, Enclosure

PerGraph = Float[Tensor, " graphs"]


def norms(
    pattern: Pattern, values: Tensor, graphs: Graphs, symmetric: bool
) -> tuple[PerGraph, PerGraph]:
    """Return upper bounds of the largest row sum and column sum of moduli, per graph.

    Args:
        pattern: where the entries are.
        values: the entries.
        graphs: which graph each node belongs to.
        symmetric: whether rows tell about columns.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), 2)
    >>> one = Graphs(None, 1, torch.device("cpu"))
    >>> rows, columns = norms(pattern, torch.tensor([1.0, -2.0]), one, False)
    >>> round(rows.item(), 9), round(columns.item(), 9)
    (3.0, 2.0)
    """
    slack = 1.0 + longest(pattern) * torch.finfo(torch.float64).eps
    rows, columns = _sums(pattern, values, symmetric)
    return graphs.reduced(rows, "amax") * slack, graphs.reduced(columns, "amax") * slack


def gershgorin(
    pattern: Pattern, values: Tensor, centre: Tensor, graphs: Graphs, symmetric: bool
) -> Enclosure:
    """Return an interval that holds the spectrum of a matrix whose spectrum is real.

    Of every disc only its trace on the line counts; rows and columns each give an interval.

    Args:
        pattern: where the entries are.
        values: the entries.
        centre: the diagonal.
        graphs: which graph each node belongs to.
        symmetric: whether rows tell about columns.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> one = Graphs(None, 1, torch.device("cpu"))
    >>> found = gershgorin(pattern, torch.ones(2), torch.zeros(2).double(), one, True)
    >>> round(found.lo.item(), 9), round(found.hi.item(), 9)
    (-1.0, 1.0)
    """
    ends = []
    for sums in _sums(pattern, values, symmetric):
        radius = sums - centre.abs()
        low, high = centre - radius, centre + radius
        ends.append((graphs.reduced(low, "amin"), graphs.reduced(high, "amax")))
    lo, hi = torch.maximum(ends[0][0], ends[1][0]), torch.minimum(ends[0][1], ends[1][1])
    slack = (longest(pattern) + ROUNDING) * torch.finfo(torch.float64).eps
    size = torch.minimum(*norms(pattern, values, graphs, symmetric))
    return Enclosure(lo, hi, size).widened(slack)


def longest(pattern: Pattern) -> int:
    """Return the number of entries of the fullest row or column."""
    return max(pattern.longest_row, pattern.T.longest_row)


def _sums(pattern: Pattern, values: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    size = values.detach().double().abs()
    blank = size.new_zeros(pattern.num_nodes)
    rows = blank.index_add(0, pattern.row, size)
    return rows, rows if symmetric else blank.index_add(0, pattern.col, size)
