"""Symmetric channel matrices: learned in parametrisations whose signs are known."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from solvers.failure import unknown_name

STYLES = ("sum", "prod", "neg_prod", "diag", "diag_dom")


class SymmetricWeights(nn.Module):
    """A learned symmetric matrix W on channels, called without arguments.

        sum        (M + M^T) / 2
        prod       M M^T                     eigenvalues >= 0
        neg_prod   -M M^T                    eigenvalues <= 0
        diag       diag(r), returned as the vector r
        diag_dom   S + diag(q_k sum_l |S_kl| + r_k),  S = (M + M^T) / 2 with a zero diagonal

    All are symmetric to the bit. M starts uniform in +-1 / sqrt(channels), as `nn.Linear` does, q
    and r uniform in [-1, 1]. With |q_k| > 1 and r = 0 diag_dom is diagonally dominant, so that the
    signs of q are those of the eigenvalues.

    Args:
        channels: Rows and columns of W.
        style: "sum", "prod", "neg_prod", "diag" or "diag_dom".

    Raises:
        ValueError: For an unknown style.

    References:
        F. Di Giovanni et al., Understanding convolution on graphs via energies, TMLR 2023,
        arXiv:2206.10991.

    >>> W = SymmetricWeights(3, "neg_prod")()
    >>> torch.equal(W, W.T), bool((torch.linalg.eigvalsh(W) < 1e-6).all())
    (True, True)
    """

    def __init__(self, channels: int, style: str = "sum") -> None:
        super().__init__()
        if style not in STYLES:
            raise unknown_name("style of weights", style, STYLES)
        self.channels, self.style = channels, style

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        self.matrix = None if style == "diag" else uniform(channels**-0.5, channels, channels)
        self.offset = uniform(1.0, channels) if style in ("diag", "diag_dom") else None
        self.dominance = uniform(1.0, channels) if style == "diag_dom" else None

    def forward(self) -> Float[Tensor, "channels channels"] | Float[Tensor, " channels"]:
        """W, or its diagonal."""
        M, offset = self.matrix, self.offset
        if M is None:
            assert offset is not None
            # A new tensor: whoever keeps W does not keep the parameter.
            return 1.0 * offset
        if self.style in ("prod", "neg_prod"):
            product = M @ M.T
            # Products of matrices may be symmetric to rounding only.
            half = 0.5 if self.style == "prod" else -0.5
            return half * (product + product.T)
        W = (M + M.T) / 2
        if self.dominance is None or offset is None:
            return W
        W = W - torch.diag(W.diagonal())
        return W + torch.diag(self.dominance * W.abs().sum(1) + offset)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, style={self.style!r}"
