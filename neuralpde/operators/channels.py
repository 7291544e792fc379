"""An operator on nodes that acts on every channel with a strength of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.operators.linear import Operator
from neuralpde.operators.tags import ROUNDING, Enclosure, Tags


class ChannelScaled(Operator):
    """The map `x -> A x diag(s)` of states `[nodes, channels]`, with `s >= 0`.

    It is `A (x) diag(s)` on the nodes times channels: eigenvalues are `s_k lambda`, so that the
    enclosure of A is stretched by the largest and the smallest `s_k`. What is known of A is kept:
    symmetry, its metric, its sign, and that it generates a walk. `diagonal` and `rate` are those of
    the fastest channel; in `to_dense` channels run faster than nodes.

    Args:
        A: an operator that treats all channels alike.
        scales: `[channels]`, not negative; may require gradients.

    Raises:
        ValueError: scales are negative or no vector, or A treats channels differently already.
        TypeError: their dtypes differ.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> path, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
    >>> L = SparseOperator(path, torch.tensor([1.0, -1.0, -1.0, 1.0]), symmetric=True)
    >>> A = ChannelScaled(L, torch.tensor([1.0, 10.0]))
    >>> (A @ torch.tensor([[1.0, 1.0], [0.0, 0.0]])).tolist(), round(A.spectrum()[1].item(), 4)
    ([[1.0, 10.0], [-1.0, -10.0]], 20.0)
    """

    def __init__(self, A: Operator, scales: Float[Tensor, " channels"]) -> None:
        if scales.dim() != 1 or not bool((scales >= 0).all()):
            raise ValueError(
                f"scales are {scales.tolist()}; give one number for each channel, none negative"
            )
        if not A.separate:
            raise ValueError(f"{A!r} treats channels differently already; multiply the scales")
        if scales.dtype != A.dtype:
            raise TypeError(f"A is {A.dtype} and scales are {scales.dtype}: use A.to(scales.dtype)")
        self.A, self.scales = A, scales
        self._most, self._least = _ends(scales)
        super().__init__(A.num_nodes, A.dtype, self._tags(), A.graphs)

    def _tags(self) -> Tags:
        tags, most = self.A.tags, self._most
        enclosure = tags.enclosure
        if tags.self_adjoint:
            lo, hi = self.A.spectrum()
            norm = torch.minimum(*self.A.norms()) * most
            ends = torch.stack([lo * most, lo * self._least, hi * most, hi * self._least])
            enclosure = Enclosure(ends.amin(0), ends.amax(0), norm).widened(ROUNDING * tags.eps)
        # Sums of rows differ between channels, unless they are zero.
        sums = (tags.row_sum, tags.col_sum) if tags.generator else (None, None)
        return replace(
            tags,
            enclosure=enclosure,
            multiple=None,
            row_sum=None if sums[0] is None else sums[0] * most,
            col_sum=None if sums[1] is None else sums[1] * most,
            channels=len(self.scales),
        )

    def _scaled(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-1] != len(self.scales):
            raise ValueError(
                f"state is {tuple(x.shape)}; this operator takes [nodes, {len(self.scales)}], a "
                "channel for each scale"
            )
        return x * self.scales

    def __matmul__(self, x: Float[Tensor, "nodes channels"]) -> Float[Tensor, "nodes channels"]:
        return self._scaled(self.A @ x)

    @property
    def T(self) -> ChannelScaled:
        """The transposed operator."""
        return ChannelScaled(self.A.T, self.scales)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of A, and the scales."""
        return (*self.A.tensors, self.scales)

    def gradients(
        self, g: Float[Tensor, "nodes channels"], x: Float[Tensor, "nodes channels"]
    ) -> tuple[Tensor, ...]:
        """Return `d <g, A x diag(s)> / d` each of `tensors`."""
        with torch.no_grad():
            of_scales = (g * (self.A @ x)).sum(0)
            return (*self.A.gradients(self._scaled(g), x), of_scales)

    def fresh(self) -> ChannelScaled:
        """Return the operator on views of its tensors."""
        return ChannelScaled(self.A.fresh(), self.scales.view_as(self.scales))

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> ChannelScaled:
        """Return the operator in another dtype or on another device; itself if it is there."""
        A, scales = self.A.to(dtype, device), self.scales.to(device or self.device, dtype)
        return self if A is self.A and scales is self.scales else ChannelScaled(A, scales)

    def addmm_(
        self,
        y: Float[Tensor, "nodes channels"],
        x: Float[Tensor, "nodes channels"],
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> Float[Tensor, "nodes channels"]:
        """Set `y <- beta y + alpha A x diag(s)` in place; see `Operator.addmm_`."""
        with torch.no_grad():
            scales = self._scaled(x.new_full((1, x.shape[-1]), alpha))
            if beta == 0.0:
                return self.A.addmm_(y, x).mul_(scales)
            return y.mul_(beta).addcmul_(self.A @ x, scales)

    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries of the fastest channel, without gradients."""
        return self.A.diagonal() * self._most

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        rows, columns = self.A.norms()
        factor = self._most * (1.0 + ROUNDING * self.tags.eps)
        return rows * factor, columns * factor

    def to_dense(self) -> Float[Tensor, "rows rows"]:
        """Return the matrix that acts on `x.flatten()`."""
        return torch.kron(self.A.to_dense(), torch.diag(self.scales))


def _ends(scales: Tensor) -> tuple[float, float]:
    known = scales.detach().double()
    return (float(known.max()), float(known.min())) if len(known) else (0.0, 0.0)
