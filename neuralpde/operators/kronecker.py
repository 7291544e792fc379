"""Operators that mix channels as well as nodes: x -> A x W."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from neuralpde.operators.graphs import Graphs
from neuralpde.operators.linear import Operator
from neuralpde.operators.tags import ROUNDING, Enclosure, Tags

Weights = Float[Tensor, "channels channels"] | Float[Tensor, " channels"]

SLACK = 8.0 * torch.finfo(torch.float64).eps
"""Error of computed eigenvalues of a symmetric matrix per row, relative to its norm, with room."""


class Kronecker(Operator):
    """The map `x -> A x W` of states `[nodes, ..., channels]`, on rows `x_i -> sum_j A_ij x_j W`.

    Its matrix on `x.flatten()` is the Kronecker product of A and W^T. With A self-adjoint and W
    symmetric (looked up in its entries) it is self-adjoint, and its eigenvalues are the products of
    theirs: their enclosures are multiplied, W's eigenvalues being computed in float64.

    `diagonal()`, one number per node as the solvers' preconditioners read it, is the average over
    the channels, `A_ii tr(W) / channels`; `to_dense()` has the entries.

    Args:
        nodes: A, an operator on nodes that treats channels alike.
        channels: W; a vector stands for a diagonal matrix. It may require gradients.

    Raises:
        ValueError: W is no square matrix and no vector, or A mixes channels itself.
        TypeError: their dtypes differ.

    References:
        R. Horn, C. Johnson, Topics in Matrix Analysis, 1991, theorem 4.2.12, for the spectrum.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> swap, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> A = SparseOperator(swap, torch.ones(2), symmetric=True)
    >>> K = Kronecker(A, torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    >>> (K @ torch.tensor([[1.0, 3.0], [5.0, 7.0]])).tolist(), round(K.spectrum()[1].item(), 5)
    ([[14.0, 10.0], [6.0, 2.0]], 2.0)
    """

    def __init__(self, nodes: Operator, channels: Weights) -> None:
        W = channels
        if W.dim() not in (1, 2) or W.shape[0] != W.shape[-1]:
            raise ValueError(
                f"W is {tuple(W.shape)}; channels are mixed by a matrix [channels, channels], or "
                "multiplied by a vector [channels]"
            )
        if not nodes.separate:
            raise ValueError(f"{nodes!r} mixes channels already; multiply the two matrices instead")
        if W.dtype != nodes.dtype:
            raise TypeError(f"A is {nodes.dtype} and W is {W.dtype}: use A.to({W.dtype})")
        self._hold(nodes, nodes, W)

    @classmethod
    def identity(cls, like: Operator, channels: Weights) -> Kronecker:
        """Return `x -> x W` on the nodes of `like`, self-adjoint wherever `like` may be.

        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> A = SparseOperator(Pattern.identity(1), torch.ones(1), symmetric=True)
        >>> (Kronecker.identity(A, torch.tensor([2.0, 5.0])) @ torch.ones(1, 2)).tolist()
        [[2.0, 5.0]]
        """
        self = cls.__new__(cls)
        self._hold(None, like, channels)
        return self

    def _hold(self, nodes: Operator | None, like: Operator, W: Tensor) -> None:
        self.nodes, self.like, self.channels = nodes, like, W
        tags = _identity(like.tags, like.graphs) if nodes is None else nodes.tags
        if tags.self_adjoint and tags.enclosure is None and nodes is not None:
            lo, hi = nodes.spectrum()
            tags = replace(tags, enclosure=Enclosure(lo, hi, torch.minimum(*nodes.norms())))
        super().__init__(like.num_nodes, like.dtype, _mixed(tags, W.detach()), like.graphs)

    def _mix(self, x: Tensor, W: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-1] != W.shape[0]:
            raise ValueError(
                f"state is {tuple(x.shape)}; this operator mixes the {W.shape[0]} channels of "
                f"states [nodes, ..., {W.shape[0]}]"
            )
        W = W.to(x.dtype)
        return x * W if W.dim() == 1 else x @ W

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        return self._mix(x if self.nodes is None else self.nodes @ x, self.channels)

    @property
    def T(self) -> Kronecker:
        """The transposed operator, `x -> A^T x W^T`."""
        return self._like(None if self.nodes is None else self.nodes.T, _turned(self.channels))

    def _like(self, nodes: Operator | None, W: Tensor) -> Kronecker:
        return Kronecker.identity(self.like, W) if nodes is None else Kronecker(nodes, W)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of A, and W."""
        return (*(() if self.nodes is None else self.nodes.tensors), self.channels)

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x W> / d` each of `tensors`."""
        with torch.no_grad():
            W = self.channels.detach()
            found: tuple[Tensor, ...] = ()
            if self.nodes is not None:
                found = self.nodes.gradients(self._mix(g, _turned(W)), x)
                x = self.nodes @ x
            left, right = x.reshape(-1, len(W)), g.conj().reshape(-1, len(W))
            pairing = (left * right).sum(0) if W.dim() == 1 else left.T @ right
            return (*found, (pairing.real if pairing.is_complex() else pairing).to(W.dtype))

    def fresh(self) -> Kronecker:
        """Return the operator on views of its tensors."""
        nodes = None if self.nodes is None else self.nodes.fresh()
        return self._like(nodes, self.channels.view_as(self.channels))

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Kronecker:
        """Return the operator in another dtype or on another device; itself if it is there."""
        W = self.channels.to(device or self.device, dtype or self.dtype)
        if W is self.channels:
            return self
        if self.nodes is None:
            return Kronecker.identity(self.like.to(dtype, device), W)
        return Kronecker(self.nodes.to(dtype, device), W)

    def addmm_(
        self,
        y: Float[Tensor, "nodes channels"],
        x: Float[Tensor, "nodes channels"],
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> Float[Tensor, "nodes channels"]:
        """Set `y <- beta y + alpha A x W` in place, outside autograd; see `Operator.addmm_`."""
        W = self.channels
        if W.dim() == 1 or y.dim() != 2:
            return super().addmm_(y, x, alpha, beta)
        with torch.no_grad():
            inner = x if self.nodes is None else self.nodes @ x
            return torch.addmm(y, inner, W, beta=beta, alpha=alpha, out=y)

    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries of each node, averaged over the channels."""
        W = self.channels.detach()
        mean = (W if W.dim() == 1 else W.diagonal()).mean()
        ones = torch.ones(self.num_nodes, dtype=self.dtype, device=self.device)
        return mean * (ones if self.nodes is None else self.nodes.diagonal())

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        ones = torch.ones(self.num_graphs, dtype=torch.float64, device=self.device)
        rows, columns = (ones, ones) if self.nodes is None else self.nodes.norms()
        # Rows of the whole matrix run over the columns of W.
        received, sent = sums(self.channels.detach())
        return rows * sent, columns * received


def sums(W: Weights) -> tuple[float, float]:
    """Return upper bounds of the largest row sum and column sum of moduli of a channel matrix.

    >>> [round(total, 5) for total in sums(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))]
    [3.0, 5.0]
    """
    moduli = W.double().abs()
    if W.dim() == 1:
        top = float(moduli.max()) if len(W) else 0.0
        return top, top
    slack = 1.0 + len(W) * torch.finfo(torch.float64).eps
    rows, columns = (float(moduli.sum(axis).max()) if len(W) else 0.0 for axis in (1, 0))
    return rows * slack, columns * slack


def extremes(W: Weights) -> tuple[float, float] | None:
    """Return an interval that holds the eigenvalues of a channel matrix; None if not symmetric.

    >>> lo, hi = extremes(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    >>> round(lo, 5), round(hi, 5)
    (-2.0, 2.0)
    """
    if not len(W):
        return 0.0, 0.0
    if W.dim() == 1:
        return float(W.min()), float(W.max())
    if not torch.equal(W, W.mT) or not bool(W.isfinite().all()):
        return None
    found = torch.linalg.eigvalsh(W.double())
    slack = SLACK * len(W) * float(found.abs().max())
    return float(found[0]) - slack, float(found[-1]) + slack


def _turned(W: Tensor) -> Tensor:
    return W if W.dim() == 1 else W.mT


def _mixed(tags: Tags, W: Tensor) -> Tags:
    ends, size = extremes(W), min(sums(W))
    known = Tags(tags.eps, channels=len(W))
    if ends is None or not tags.self_adjoint or tags.enclosure is None:
        return known
    lo, hi, norm = tags.enclosure
    corners = torch.stack([end * w for end in (lo, hi) for w in ends])
    enclosure = Enclosure(corners.amin(0), corners.amax(0), norm * size)
    rounding = ROUNDING * tags.eps
    return replace(
        known,
        symmetric=tags.symmetric,
        metric=tags.metric,
        psd=tags.psd and ends[0] >= -(rounding + SLACK * len(W)) * size,
        enclosure=enclosure.widened(rounding),
    )


def _identity(like: Tags, graphs: Graphs) -> Tags:
    tags = Tags.identity(like.eps, graphs.num_graphs, graphs.device)
    # Where `like` is self-adjoint in a metric, so is this, and sums of the two stay so.
    return tags if like.metric is None else replace(tags, symmetric=False, metric=like.metric)
