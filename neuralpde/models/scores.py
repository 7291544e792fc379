"""How well scores tell classes apart."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def accuracy(out: Float[Tensor, "nodes classes"], y: Int[Tensor, " nodes"]) -> float:
    """Share of nodes whose largest score is that of their class.

    Raises:
        ValueError: For no nodes.

    >>> import torch
    >>> accuracy(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
    0.5
    """
    if not len(y):
        raise ValueError("no nodes to score")
    return float((out.argmax(1) == y).double().mean())


def roc_auc(out: Float[Tensor, "nodes 2"], y: Int[Tensor, " nodes"]) -> float:
    """Area under the ROC curve: how probably a node of class 1 scores above one of class 0.

    Ties count half. Scores are `out[:, 1] - out[:, 0]`.

    Raises:
        ValueError: For other than two classes, or when one of them is absent.

    >>> import torch
    >>> roc_auc(torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1, 1]))
    0.75
    """
    if out.shape[1] != 2:
        raise ValueError(f"ROC AUC compares two classes; out has {out.shape[1]} columns")
    up, down = int((y == 1).sum()), int((y == 0).sum())
    if not (up and down):
        raise ValueError(f"ROC AUC needs both classes; there are {down} and {up} nodes of them")
    scores = out[:, 1].double() - out[:, 0].double()
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    # The mean rank of equal scores.
    rank = (last - (counts.double() - 1) / 2)[place]
    return float((rank[y == 1].sum() - up * (up + 1) / 2) / (up * down))


SCORES = {"accuracy": accuracy, "auc": roc_auc}
"""Scores by name; larger is better."""
