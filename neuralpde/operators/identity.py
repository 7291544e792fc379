"""The identity on the nodes of a graph."""

from __future__ import annotations

import torch

from neuralpde.operators.linear import Operator
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.tags import Tags


def identity(like: Operator) -> SparseOperator:
    """Return the identity on the nodes of `like`, in its dtype and on its device.

    >>> A = SparseOperator(Pattern.identity(2), torch.tensor([1.0, 2.0]))
    >>> (A - identity(A)).values.tolist()
    [0.0, 1.0]
    """
    ones = torch.ones(like.num_nodes, dtype=like.dtype, device=like.device)
    tags = Tags.identity(torch.finfo(like.dtype).eps, like.num_graphs, like.device)
    pattern = Pattern.identity(like.num_nodes, like.device)
    return SparseOperator.tagged(pattern, ones, tags, like.graphs)
