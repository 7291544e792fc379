"""The first layer of a network, for features that are mostly zero."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

DENSE = 0.2
"""Share of entries that are not zero from which a plain product is as quick."""


class SparseInput(nn.Module):
    """Dropout and a linear layer, `x -> linear(dropout(x))`, that pass over the zeros of x.

    Dropout leaves zeros as they are, so only the other entries are drawn for, and multiplied: words
    in a text are a few per cent or less, and then this is ten times as quick. What stands where is
    found once for a tensor and kept until that is changed or another one comes. Features that need
    gradients, and dense ones, take the plain way.

    Args:
        linear: A layer with `weight` `[outputs, inputs]` and `bias`, which may be None.
        dropout: Probability of an entry to be dropped.

    >>> layer = SparseInput(nn.Linear(100, 1, bias=False)).eval()
    >>> x = torch.zeros(2, 100).index_fill(1, torch.tensor([7]), 2.0)
    >>> torch.equal(layer(x), x @ layer.linear.weight.T)
    True
    """

    def __init__(self, linear: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear: Any = linear
        self.dropout = nn.Dropout(dropout)
        self._kept: tuple[Any, ...] | None = None

    def forward(self, x: Float[Tensor, "nodes inputs"]) -> Float[Tensor, "nodes outputs"]:
        """The layer of the features that dropout leaves."""
        found = None if x.requires_grad or x.dim() != 2 else self._entries(x)
        if found is None:
            plain: Tensor = self.linear(self.dropout(x))
            return plain
        starts, columns, values = found
        out = nn.functional.embedding_bag(
            columns,
            self.linear.weight.T,
            starts,
            mode="sum",
            per_sample_weights=self.dropout(values),
            include_last_offset=True,
        )
        return out if self.linear.bias is None else out + self.linear.bias

    def _entries(self, x: Tensor) -> tuple[Tensor, ...] | None:
        if x.is_inference():
            return None
        kept = self._kept
        if kept is None or kept[0]() is not x or kept[1] != x._version:
            found = None
            if int(torch.count_nonzero(x)) < DENSE * x.numel():
                rows, columns = x.nonzero(as_tuple=True)
                counts = torch.bincount(rows, minlength=len(x))
                starts = nn.functional.pad(counts.cumsum(0), (1, 0))
                found = starts, columns, x[rows, columns]
            self._kept = kept = weakref.ref(x), x._version, found
        entries: tuple[Tensor, ...] | None = kept[2]
        return entries

    def __getstate__(self) -> dict[str, Any]:
        """Without what was found about features, which are no part of the layer."""
        return {**self.__dict__, "_kept": None}
