"""Flat vector bundles: an operator of a graph, seen in the frames of its nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from neuralpde.operators.graphs import Scalar
from neuralpde.operators.linear import Operator
from neuralpde.operators.tags import Tags


class BundleOperator(Operator):
    """`A = O^T (L (x) I) O`: into the frames, a graph's operator on every component, and back.

    With `O_v` orthogonal at every node, `f(A) = O^T (f(L) (x) I) O` for every function, the
    exponential among them. Solvers therefore work with L, in the frames. It acts on states
    `[nodes, stalk, channels]`, or the same memory as `[nodes, stalk * channels]`; with several
    bundles, each has frames of its own and an equal share of the channels.

    Args:
        frames: `[nodes, stalk, stalk]` or `[nodes, bundles, stalk, stalk]`, orthogonal.
        operator: L, on nodes; multiples, shifts and spectrum are its own.

    Raises:
        ValueError: frames do not fit the operator's nodes, or L acts on stalks itself.
        TypeError: their dtypes differ.

    References:
        Bamberger et al., Bundle Neural Networks for message diffusion on graphs, 2024,
        arXiv:2405.15540.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> both, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> swap = SparseOperator(both, torch.ones(2), symmetric=True)
    >>> A = BundleOperator(torch.tensor([[[1.0]], [[-1.0]]]), swap)
    >>> (A @ torch.tensor([[[3.0]], [[5.0]]])).flatten().tolist()
    [-5.0, -3.0]
    """

    def __init__(self, frames: Float[Tensor, "nodes *bundles d d"], operator: Operator) -> None:
        fits = frames.dim() in (3, 4) and frames.shape[-1] == frames.shape[-2] > 0
        if operator.stalk != 1 or not fits or frames.shape[0] != operator.num_nodes:
            raise ValueError(
                f"frames are {tuple(frames.shape)} and the operator is {operator!r}; give an "
                f"operator on nodes and frames [{operator.num_nodes}, stalk, stalk] or "
                f"[{operator.num_nodes}, bundles, stalk, stalk]"
            )
        if frames.dtype != operator.dtype:
            raise TypeError(
                f"frames are {frames.dtype} and the operator is {operator.dtype}: use "
                f"operator.to({frames.dtype})"
            )
        known = operator.tags
        tags = Tags(
            known.eps,
            symmetric=known.symmetric,
            psd=known.psd,
            metric=known.metric,
            enclosure=known.enclosure,
            multiple=known.multiple,
        )
        super().__init__(operator.num_nodes, operator.dtype, tags, operator.graphs)
        self.frames, self._core, self.stalk = frames, operator, frames.shape[-1]

    @property
    def core(self) -> Operator:
        """The operator of the graph, on states in the frames."""
        return self._core

    def _stacked(self) -> Tensor:
        return self.frames if self.frames.dim() == 4 else self.frames.unsqueeze(1)

    def enter(self, x: Float[Tensor, "nodes columns"]) -> Float[Tensor, "nodes some"]:
        """Return `O x`: components in the frames."""
        frames, width = self._stacked(), math.prod(x.shape[1:])
        share = self.stalk * frames.shape[1]
        if x.dim() < 2 or x.shape[0] != self.num_nodes or width % share:
            raise ValueError(
                f"state is {tuple(x.shape)}; the operator acts on [{self.num_nodes} nodes, stalk "
                f"of {self.stalk}, a multiple of {frames.shape[1]} channels]"
            )
        return framed(frames, x)

    def leave(self, y: Float[Tensor, "*times nodes some"]) -> Float[Tensor, "*times nodes columns"]:
        """Return `O^T y`: components as they were."""
        return unframed(self._stacked(), y)

    def _flat(self, x: Tensor) -> Tensor:
        real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
        return real.reshape(x.shape[0], math.prod(real.shape[1:])) if x.dim() > 1 else real

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        y = self.leave(self._core @ self.enter(self._flat(x)))
        if x.is_complex():
            return torch.view_as_complex(y.reshape(*x.shape, 2))
        return y.reshape(x.shape)

    @property
    def T(self) -> BundleOperator:
        """The transposed operator."""
        return self._like(self._core.T)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The frames, then the tensors of the graph's operator."""
        return (self.frames, *self._core.tensors)

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x> / d` each of `tensors`, without a graph of its own."""
        with torch.no_grad():
            g, x = self._flat(g), self._flat(x)
            h, y = self.enter(g), self.enter(x)
            # <O g, L O x> with O at the left, and at the right.
            of_frames = self._pairs(self._core @ y, g) + self._pairs(self._core.T @ h, x)
            return (of_frames.reshape(self.frames.shape), *self._core.gradients(h, y))

    def _pairs(self, framed: Tensor, x: Tensor) -> Tensor:
        bundles = self._stacked().shape[1]
        ours = framed.reshape(self.num_nodes, bundles, self.stalk, -1)
        return ours @ x.reshape(self.num_nodes, self.stalk, bundles, -1).permute(0, 2, 3, 1)

    def fresh(self) -> BundleOperator:
        """Return the operator on views of its tensors: new nodes of the autograd graph."""
        return BundleOperator(self.frames.view_as(self.frames), self._core.fresh())

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> BundleOperator:
        """Return the operator in another dtype or on another device; itself if it is there."""
        core = self._core.to(dtype, device)
        if core is self._core:
            return self
        return BundleOperator(self.frames.to(core.device, core.dtype), core)

    def diagonal(self) -> Float[Tensor, "nodes stalk"]:
        """Return the diagonal entries, those of L: its blocks are multiples of the identity."""
        return self._core.diagonal().unsqueeze(1).expand(-1, self.stalk)

    @property
    def rate(self) -> Float[Tensor, " graphs"]:
        """Largest negated diagonal entry of each graph, float64 and at least 0."""
        return self._core.rate

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        # A block w Q has rows of moduli up to sqrt(stalk) w.
        rows, columns = self._core.norms()
        return math.sqrt(self.stalk) * rows, math.sqrt(self.stalk) * columns

    def spectrum(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return the enclosure of the spectrum of L, which is the same but for multiplicities."""
        return self._core.spectrum()

    def shifted(self, scale: Scalar, shift: Scalar) -> BundleOperator:
        """Return `scale A + shift I`."""
        return self._like(self._core.shifted(scale, shift))

    def to_dense(self) -> Float[Tensor, "rows rows"]:
        """Return the matrix on `nodes x stalk` rows of one bundle, differentiable."""
        if self._stacked().shape[1] > 1:
            raise ValueError("several bundles act on different channels: there is no one matrix")
        n, d = self.num_nodes, self.stalk
        one = torch.eye(n * d, dtype=self.dtype, device=self.device)
        return (self @ one.view(n, d, n * d)).reshape(n * d, n * d)

    def __mul__(self, scale: Scalar) -> BundleOperator:
        return self._like(self._core * scale)

    def __add__(self, other: Operator) -> Operator:
        if other.stalk != 1 and getattr(other, "frames", None) is self.frames:
            return self._like(self._core + other.core)
        raise ValueError(
            f"{self!r} and {other!r} do not add: operators of a bundle add to those in the same "
            "frames"
        )

    def _like(self, core: Operator) -> BundleOperator:
        return BundleOperator(self.frames, core)


def framed(
    frames: Float[Tensor, "nodes bundles d d"], x: Float[Tensor, "nodes columns"]
) -> Float[Tensor, "nodes some"]:
    """Return `O x` for rows `[nodes, stalk * channels]`: each bundle's components side by side.

    >>> swap = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    >>> framed(swap, torch.tensor([[3.0, 5.0]])).tolist()
    [[5.0, 3.0]]
    """
    bundles, stalk = frames.shape[-3:-1]
    each = x.reshape(len(x), stalk, bundles, math.prod(x.shape[1:]) // (stalk * bundles))
    return torch.stack(_turned(frames, each.unbind(1)), 2).flatten(1)


def unframed(
    frames: Float[Tensor, "nodes bundles d d"], y: Float[Tensor, "*times nodes some"]
) -> Float[Tensor, "*times nodes columns"]:
    """Return `O^T y`: what `framed` made, as it was.

    >>> turn = torch.tensor([[[[0.0, 1.0], [-1.0, 0.0]]]])
    >>> unframed(turn, framed(turn, torch.tensor([[3.0, 5.0]]))).tolist()
    [[3.0, 5.0]]
    """
    bundles, stalk = frames.shape[-3:-1]
    each = y.reshape(*y.shape[:-1], bundles, stalk, y.shape[-1] // (stalk * bundles))
    return torch.stack(_turned(frames.mT, each.unbind(-2)), -3).flatten(-3)


def _turned(frames: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    # Entry by entry over long vectors: many products of tiny matrices take several times as long.
    return [
        reduce(add, (o.unsqueeze(-1) * x for o, x in zip(row.unbind(-1), parts, strict=True)))
        for row in frames.unbind(-2)
    ]
