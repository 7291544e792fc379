"""Attention as a sparse operator: scores at the entries of a pattern, normalised by groups."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from neuralpde.operators.graphs import Graphs
from neuralpde.operators.heads import project, split
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.product import WIDE, gather_dot
from neuralpde.operators.segments import Segments, softmax
from neuralpde.operators.sinkhorn import columns_hold, doubly_stochastic, is_symmetric
from neuralpde.operators.tags import Tags


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
        pearson     the same after the mean over its dims has been taken from each vector
        distance    s = c exp(-|q_i - k_j|^2 / 2 length^2),  c = 1

    and `g(s) = exp(s)` for "softmax", `g(s) = (s + sqrt(s^2 + 4)) / 2` for "squareplus". The sum
    goes over the entries of row `i` (`over="receiver"`: a weighted mean, which keeps constants), or
    of column `j` (`over="sender"`: keeps totals). The entries of a row depend on that row alone;
    squareplus, which changes when a number is added to all scores, gets them as they are, where
    the published GRAND code subtracts the largest of the whole graph.

    "sinkhorn" scales rows and columns of `w exp(s)` until the sums of both are 1, which needs
    patterns of a certain kind (see `doubly_stochastic`; with all self-loops, undirected ones will
    do). Means and totals are kept then. Where scores are symmetric to the bit (q and k the same
    tensor, weights of an undirected graph), so is the result, and it is tagged symmetric.

    The result is stochastic ("row" or "col") if every row (column) has an entry of positive weight;
    others stay zero and the tag None: take `pattern.with_diagonal()[0]` for graphs with such nodes.

    Args:
        pattern: entries; rows receive, columns send.
        q: queries, read at the receiver.
        k: keys, read at the sender.
        kernel: "scaled_dot", "cosine", "pearson" or "distance".
        normalise: "softmax", "squareplus" or "sinkhorn".
        over: "receiver" or "sender"; with "sinkhorn" both.
        heads: number of heads; divides `dims`.
        scale: the factor `c` of the scores; may be a tensor with gradient.
        length: length of the "distance" kernel; may be a tensor with gradient.
        weights: `w`, not negative; 1 everywhere by default.
        batch: graph of each node, sorted.
        num_graphs: number of graphs.

    Raises:
        ValueError: a name is unknown, `heads` does not divide `dims`, sizes do not fit, or no
            doubly stochastic matrix has these entries.

    References:
        B. Chamberlain et al., GRAND, ICML 2021, arXiv:2106.10934. M. Sander et al., Sinkformers,
        AISTATS 2022, arXiv:2110.11773 ("sinkhorn").

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), 2)
    >>> A = attention(pattern, torch.zeros(2, 4), torch.zeros(2, 4))
    >>> A.to_dense().tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    _check_name("kernel", kernel, KERNELS)
    _check_name("normalise", normalise, NORMALISERS)
    _check_name("over", over, GROUPS)
    _check_sizes(pattern, q, k, heads, weights)
    ends = split(q, heads), split(k, heads)
    values = _averaged(pattern, *ends, kernel, normalise, over, heads, scale, length, weights)
    graphs = Graphs(batch, num_graphs, q.device)
    ones = torch.ones(2, num_graphs, dtype=torch.float64, device=q.device)
    # A traced graph multiplies and asks for no facts, which would need numbers in the trace.
    asked = not torch.compiler.is_compiling()
    scaled = normalise == "sinkhorn"
    doubly = asked and scaled and columns_hold(pattern, values)
    by_row = over == "receiver" or scaled
    sums = ones if asked and (scaled or _is_complete(pattern, over, weights)) else None
    tags = Tags(
        torch.finfo(q.dtype).eps,
        symmetric=doubly and is_symmetric(pattern, values),
        nonnegative=True,
        rising=True,
        row_sum=sums if by_row else None,
        col_sum=sums if doubly or not by_row else None,
    )
    return SparseOperator.tagged(pattern, values, tags, graphs)


def _averaged(
    pattern: Pattern,
    q: Tensor,
    k: Tensor,
    kernel: str,
    normalise: str,
    over: str,
    heads: int,
    scale: float | Tensor | None,
    length: float | Tensor,
    weights: Tensor | None,
) -> Tensor:
    """The entries: heads are copies of the graph side by side, all of them done at once."""
    wide = WIDE.get(q.dtype, q.dtype)
    copies = pattern.copies(heads)
    group = GROUPS[over](copies)
    prior = None if weights is None else weights.to(wide).repeat(heads)
    scores = KERNELS[kernel](copies, q.to(wide), k.to(wide), scale, length)
    shares = NORMALISERS[normalise](scores, prior, group)
    mean = shares if heads == 1 else shares.view(heads, pattern.nnz).mean(0)
    return mean.to(q.dtype)


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
        kernel: "scaled_dot", "cosine", "pearson" or "distance".
        normalise: "softmax", "squareplus" or "sinkhorn".
        over: "receiver" or "sender"; with "sinkhorn" both.
        tied: whether keys are the queries, so that scores are symmetric.

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
        tied: bool = False,
    ) -> None:
        super().__init__()
        _check_name("kernel", kernel, KERNELS)
        _check_name("normalise", normalise, NORMALISERS)
        _check_name("over", over, GROUPS)
        _check_heads(dim, heads)
        self.heads, self.kernel, self.normalise, self.over = heads, kernel, normalise, over
        self.query = nn.Linear(channels, dim)
        self.key = None if tied else nn.Linear(channels, dim)
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
        q = self.query(x)
        return attention(
            pattern,
            q,
            q if self.key is None else self.key(x),
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

    def values(
        self,
        pattern: Pattern,
        x: Float[Tensor, "nodes channels"],
        weights: Float[Tensor, " nnz"] | None = None,
    ) -> Float[Tensor, " nnz"]:
        """Return the entries alone, for one product of which nothing need be known.

        >>> Attention(3, 4).values(Pattern.identity(2), torch.ones(2, 3)).tolist()
        [1.0, 1.0]
        """
        if self.key is None:
            q = k = split(self.query(x), self.heads)
        else:
            q, k = project(x, self.query, self.key, self.heads)
        return _averaged(
            pattern,
            q,
            k,
            self.kernel,
            self.normalise,
            self.over,
            self.heads,
            None if self.amplitude is None else self.amplitude**2,
            1.0 if self.length is None else self.length,
            weights,
        )

    def extra_repr(self) -> str:
        """Return the settings, for `print`."""
        names = ("heads", "kernel", "normalise", "over")
        found = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return found + (", tied" if self.key is None else "")


Factor = float | Tensor | None


def _scaled_dot(pattern: Pattern, q: Tensor, k: Tensor, scale: Factor, length: Factor) -> Tensor:
    factor = max(q.shape[1], 1) ** -0.5 if scale is None else scale
    return gather_dot(pattern, q, k) * factor


def _cosine(pattern: Pattern, q: Tensor, k: Tensor, scale: Factor, length: Factor) -> Tensor:
    scores = gather_dot(pattern, _directions(q), _directions(k))
    return scores if scale is None else scores * scale


def _pearson(pattern: Pattern, q: Tensor, k: Tensor, scale: Factor, length: Factor) -> Tensor:
    q, k = q - q.mean(1, keepdim=True), k - k.mean(1, keepdim=True)
    return _cosine(pattern, q, k, scale, length)


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


def _squareplus(scores: Tensor, prior: Tensor | None, group: Segments) -> Tensor:
    size = torch.where(scores >= 0, scores, -scores)
    large = 0.5 * (size + (size.square() + 4.0).sqrt())
    # g(-s) = 1 / g(s), which loses no digits where s + sqrt(s^2 + 4) cancels.
    parts = torch.where(scores >= 0, large, 1.0 / large)
    return group.shares(parts if prior is None else parts * prior)


def _sinkhorn(scores: Tensor, prior: Tensor | None, group: Segments) -> Tensor:
    if prior is not None:
        there = prior > 0
        scores = torch.where(there, scores + torch.where(there, prior, 1.0).log(), -torch.inf)
    assert group.pattern is not None
    return doubly_stochastic(group.pattern, scores)


KERNELS: dict[str, Callable[..., Tensor]] = {
    "scaled_dot": _scaled_dot,
    "cosine": _cosine,
    "pearson": _pearson,
    "distance": _distance,
}
NORMALISERS: dict[str, Callable[[Tensor, Tensor | None, Segments], Tensor]] = {
    "softmax": softmax,
    "squareplus": _squareplus,
    "sinkhorn": _sinkhorn,
}
GROUPS: dict[str, Callable[[Pattern], Segments]] = {
    "receiver": Segments.rows,
    "sender": Segments.columns,
}


def _is_complete(pattern: Pattern, over: str, weights: Tensor | None) -> bool:
    if weights is not None:
        return bool((GROUPS[over](pattern).sum(weights.detach()) > 0).all())
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
