"""Attention as a sparse operator: scores at the entries of a pattern, normalised by groups."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from neuralpde.operators.graphs import Graphs
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.product import WIDE, gather_dot
from neuralpde.operators.tags import Tags


@dataclass(frozen=True)
class _Group:
    """The entries that share a normalisation: those of one receiver, or those of one sender."""

    index: Tensor
    size: int

    def sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.size).index_add(0, self.index, values)

    def max(self, values: Tensor) -> Tensor:
        least = values.new_full((self.size,), -torch.inf)
        return least.scatter_reduce(0, self.index, values, "amax")


def attention(
    pattern: Pattern,
    q: Float[Tensor, "nodes dims"],
    k: Float[Tensor, "nodes dims"],
    *,
    kernel: str = "scaled_dot",
    normalise: str = "softmax",
    over: str = "receiver",
    heads: int = 1,
    scale: float | Tensor | None = None,
    length: float | Tensor = 1.0,
    weights: Float[Tensor, " nnz"] | None = None,
    batch: Int64[Tensor, " nodes"] | None = None,
    num_graphs: int = 1,
) -> SparseOperator:
    """Return the attention matrix, the mean over heads of `A_ij = w_ij g(s_ij) / sum w g(s)`.

    Scores of a receiver `i` and a sender `j`, for each head with `d` of the `heads * d` dims:

        scaled_dot  s = c <q_i, k_j>,  c = 1 / sqrt(d)
        cosine      s = c <q_i, k_j> / |q_i| |k_j|,  c = 1, and 0 where a vector is 0
        distance    s = c exp(-|q_i - k_j|^2 / 2 length^2),  c = 1

    and `g(s) = exp(s)` for "softmax", `g(s) = (s + sqrt(s^2 + 4)) / 2` for "squareplus". The sum
    goes over the entries of row `i` (`over="receiver"`: a weighted mean, which keeps constants), or
    of column `j` (`over="sender"`: keeps totals). The entries of a row depend on that row alone;
    squareplus, which changes when a number is added to all scores, gets them as they are, where
    the published GRAND code subtracts the largest of the whole graph.

    The result is stochastic ("row" or "col") if every row (column) has an entry of positive weight;
    others stay zero and the tag None: take `pattern.with_diagonal()[0]` for graphs with such nodes.

    Args:
        pattern: entries; rows receive, columns send.
        q: queries, read at the receiver.
        k: keys, read at the sender.
        kernel: "scaled_dot", "cosine" or "distance".
        normalise: "softmax" or "squareplus".
        over: "receiver" or "sender".
        heads: number of heads; divides `dims`.
        scale: the factor `c` of the scores; may be a tensor with gradient.
        length: length of the "distance" kernel; may be a tensor with gradient.
        weights: `w`, not negative; 1 everywhere by default.
        batch: graph of each node, sorted.
        num_graphs: number of graphs.

    Raises:
        ValueError: a name is unknown, `heads` does not divide `dims`, or sizes do not fit.

    References:
        B. Chamberlain et al., GRAND, ICML 2021, arXiv:2106.10934.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), 2)
    >>> A = attention(pattern, torch.zeros(2, 4), torch.zeros(2, 4))
    >>> A.to_dense().tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    _check_name("kernel", kernel, KERNELS)
    _check_name("normalise", normalise, NORMALISERS)
    _check_name("over", over, ("receiver", "sender"))
    _check_sizes(pattern, q, k, heads, weights)
    wide = WIDE.get(q.dtype, q.dtype)
    index = pattern.row if over == "receiver" else pattern.col.long()
    group = _Group(index, pattern.num_nodes)
    prior = None if weights is None else weights.to(wide)
    pairs = zip(q.to(wide).chunk(heads, 1), k.to(wide).chunk(heads, 1), strict=True)
    total = q.new_zeros(pattern.nnz, dtype=wide)
    for head_q, head_k in pairs:
        scores = KERNELS[kernel](pattern, head_q, head_k, scale, length)
        total = total + NORMALISERS[normalise](scores, prior, group)
    graphs = Graphs(batch, num_graphs, q.device)
    ones = torch.ones(2, num_graphs, dtype=torch.float64, device=q.device)
    sums = ones if _is_complete(pattern, over, weights, group) else None
    tags = Tags(
        torch.finfo(q.dtype).eps,
        nonnegative=True,
        rising=True,
        row_sum=sums if over == "receiver" else None,
        col_sum=sums if over == "sender" else None,
    )
    return SparseOperator.tagged(pattern, (total / heads).to(q.dtype), tags, graphs)


class Attention(nn.Module):
    """Attention with learned queries and keys: `(pattern, x) -> SparseOperator`.

    `q = W_q x + b_q` and `k = W_k x + b_k`, both initialised as `nn.Linear` is (the published GRAND
    code sets all weights to 1e-5, which makes the dims of a head copies of each other). With
    the "distance" kernel the scores are `amplitude^2 exp(-|q - k|^2 / 2 length^2)`, both learned,
    both starting at 1.

    Args:
        channels: channels of the state.
        dim: dims of queries and keys, all heads together.
        heads: number of heads; divides `dim`.
        kernel: "scaled_dot", "cosine" or "distance".
        normalise: "softmax" or "squareplus".
        over: "receiver" or "sender".

    Raises:
        ValueError: a name is unknown, or `heads` does not divide `dim`.

    >>> layer = Attention(3, 4, heads=2)
    >>> layer(Pattern.identity(2), torch.ones(2, 3)).to_dense().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        heads: int = 1,
        kernel: str = "scaled_dot",
        normalise: str = "softmax",
        over: str = "receiver",
    ) -> None:
        super().__init__()
        _check_name("kernel", kernel, KERNELS)
        _check_name("normalise", normalise, NORMALISERS)
        _check_name("over", over, ("receiver", "sender"))
        _check_heads(dim, heads)
        self.heads, self.kernel, self.normalise, self.over = heads, kernel, normalise, over
        self.query, self.key = nn.Linear(channels, dim), nn.Linear(channels, dim)
        learned = kernel == "distance"
        self.amplitude = nn.Parameter(torch.ones(())) if learned else None
        self.length = nn.Parameter(torch.ones(())) if learned else None

    def forward(
        self,
        pattern: Pattern,
        x: Float[Tensor, "nodes channels"],
        *,
        weights: Float[Tensor, " nnz"] | None = None,
        batch: Int64[Tensor, " nodes"] | None = None,
        num_graphs: int = 1,
    ) -> SparseOperator:
        """Return the attention operator of the state `x`; arguments as in `attention`."""
        return attention(
            pattern,
            self.query(x),
            self.key(x),
            kernel=self.kernel,
            normalise=self.normalise,
            over=self.over,
            heads=self.heads,
            scale=None if self.amplitude is None else self.amplitude**2,
            length=1.0 if self.length is None else self.length,
            weights=weights,
            batch=batch,
            num_graphs=num_graphs,
        )

    def extra_repr(self) -> str:
        """Return the settings, for `print`."""
        names = ("heads", "kernel", "normalise", "over")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


Factor = float | Tensor | None


def _scaled_dot(pattern: Pattern, q: Tensor, k: Tensor, scale: Factor, length: Factor) -> Tensor:
    factor = max(q.shape[1], 1) ** -0.5 if scale is None else scale
    return gather_dot(pattern, q, k) * factor


def _cosine(pattern: Pattern, q: Tensor, k: Tensor, scale: Factor, length: Factor) -> Tensor:
    scores = gather_dot(pattern, _directions(q), _directions(k))
    return scores if scale is None else scores * scale


def _distance(
    pattern: Pattern, q: Tensor, k: Tensor, scale: Factor, length: float | Tensor
) -> Tensor:
    q_square, k_square = q.square().sum(1), k.square().sum(1)
    squares = q_square[pattern.row] + k_square.index_select(0, pattern.col)
    apart = (squares - 2.0 * gather_dot(pattern, q, k)).clamp(min=0.0)
    scores = torch.exp(-apart / (2.0 * length**2))
    return scores if scale is None else scores * scale


def _directions(x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    # A zero vector has no direction; it stays zero instead of dividing by a tiny number.
    return x / torch.where(size > 0, size, 1.0)


def _softmax(scores: Tensor, prior: Tensor | None, group: _Group) -> Tensor:
    largest = group.max(scores.detach())
    return _shares(torch.exp(scores - largest[group.index]), prior, group)


def _squareplus(scores: Tensor, prior: Tensor | None, group: _Group) -> Tensor:
    size = torch.where(scores >= 0, scores, -scores)
    large = 0.5 * (size + (size.square() + 4.0).sqrt())
    # g(-s) = 1 / g(s), which loses no digits where s + sqrt(s^2 + 4) cancels.
    return _shares(torch.where(scores >= 0, large, 1.0 / large), prior, group)


def _shares(parts: Tensor, prior: Tensor | None, group: _Group) -> Tensor:
    parts = parts if prior is None else parts * prior
    total = group.sum(parts)
    return parts / torch.where(total > 0, total, 1.0)[group.index]


KERNELS: dict[str, Callable[..., Tensor]] = {
    "scaled_dot": _scaled_dot,
    "cosine": _cosine,
    "distance": _distance,
}
NORMALISERS: dict[str, Callable[[Tensor, Tensor | None, _Group], Tensor]] = {
    "softmax": _softmax,
    "squareplus": _squareplus,
}


def _is_complete(pattern: Pattern, over: str, weights: Tensor | None, group: _Group) -> bool:
    if weights is not None:
        return bool((group.sum(weights.detach()) > 0).all())
    return pattern.every_row if over == "receiver" else pattern.every_column


def _check_name(what: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ValueError(f"unknown {what} {name!r}; allowed: {', '.join(allowed)}")


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        raise ValueError(f"{heads} heads do not divide {dim} dims; choose dims = heads * d")


def _check_sizes(
    pattern: Pattern, q: Tensor, k: Tensor, heads: int, weights: Tensor | None
) -> None:
    for name, tensor in (("q", q), ("k", k)):
        if tensor.dim() != 2 or tensor.shape[0] != pattern.num_nodes or tensor.shape != q.shape:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)}; q and k are both [{pattern.num_nodes}, dims]"
            )
    _check_heads(q.shape[1], heads)
    if weights is not None and weights.shape != (pattern.nnz,):
        raise ValueError(
            f"weights are {tuple(weights.shape)}; the pattern has {pattern.nnz} entries"
        )
