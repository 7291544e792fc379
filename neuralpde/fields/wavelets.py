"""Spectral graph wavelets: a learned bank of filters, and a flow along it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Series
from solvers.failure import unknown_name
from solvers.interpolant import Interpolant, interpolant

INTERVAL = (0.0, 2.0)
"""Where the eigenvalues of a symmetrically normalised Laplacian are, on any graph."""

CUTS = ("smooth", "sharp")


class FilterBank(nn.Module):
    """One low pass and several wavelets as functions of an eigenvalue in [0, 2], all learned.

        h(lambda)     = sum_k a_k (1 - T_(2k-1)(lambda - 1)) / 2
        g(s_j lambda) = sum_k b_k (1 - T_2k(u_j - 1)) / 2,  u_j = 2 tanh(s_j lambda / 2)

    a and b are softmaxes, so that values lie in [0, 1], `h(0) = 1` and `g(0) = 0` (admissible);
    `s_j = reach sigmoid(.)`. The argument of g has to stay in [0, 2]: "smooth" bends `s_j lambda`
    towards 2, where g is 0 again; "sharp" cuts it off there, `u_j = min(s_j lambda, 2)`, as the
    published code does. That has no jump either, but a kink at `2 / s_j`, which polynomials of
    degree d follow to about 1 / d: give a `tol` of 1e-2 or more with it. With `reach <= 1` nothing
    is cut off, and the filters are polynomials of degree `2 order`. The published sum starts with
    T_0, which adds nothing.

    `tight` divides all filters by the root of the sum of their squares, so that
    `|x|^2 = sum_j |B_j x|^2`. Where all of them vanish that is impossible: "sharp" filters with all
    `s_j >= 1` do at lambda = 2, and an error says so.

    Args:
        scales: Number of wavelets.
        order: Number of terms of h and of g.
        reach: Largest possible s_j; small ones look at high frequencies.
        tight: Whether the bank is a tight frame.
        cut: "smooth" or "sharp".
        tol: Largest error of the polynomials that stand for the filters.

    Raises:
        ValueError: For no scales or terms, an unknown cut, a reach that is not positive.

    References:
        N. Liu et al., WaveGC, 2024; code at liun-online/WaveGC, whose coefficients come from a
        transformer over eigenvalues. D. Hammond et al., Wavelets on graphs via spectral graph
        theory, 2011, arXiv:0912.3848, for polynomials instead of an eigendecomposition.

    >>> bank = FilterBank(scales=2, order=3)
    >>> bank.response(torch.tensor([0.0]))[:, 0].tolist()
    [1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        scales: int = 3,
        order: int = 3,
        *,
        reach: float = 2.0,
        tight: bool = False,
        cut: str = "smooth",
        tol: float = 1e-6,
    ) -> None:
        super().__init__()
        if scales < 1 or order < 1 or not reach > 0:
            raise ValueError(
                f"scales={scales}, order={order}, reach={reach}: give at least one wavelet and one "
                "term, and a positive reach"
            )
        if cut not in CUTS:
            raise unknown_name("cut", cut, CUTS)
        self.scales, self.order, self.reach, self.tight = scales, order, float(reach), tight
        self.cut, self.tol = cut, tol
        self.a, self.b = nn.Parameter(torch.zeros(order)), nn.Parameter(torch.zeros(order))
        # Spread over the possible scales: high frequencies first.
        self.s = nn.Parameter(torch.linspace(-2.0, 2.0, scales) if scales > 1 else torch.zeros(1))

    @property
    def bands(self) -> int:
        """Number of filters: the low pass and the wavelets."""
        return self.scales + 1

    def response(self, eigenvalues: Float[Tensor, " points"]) -> Float[Tensor, "bands points"]:
        """The filters at some eigenvalues, float64: h first, then the wavelets in their order."""
        at = eigenvalues.double()
        low = _mixed(self.a, _chebyshev(at - 1.0, 2 * self.order - 1)[1::2])
        moved = self.reach * self.s.double().sigmoid().unsqueeze(1) * at
        inside = 2.0 * torch.tanh(moved / 2) if self.cut == "smooth" else moved.clamp(max=2.0)
        high = _mixed(self.b, _chebyshev(inside - 1.0, 2 * self.order)[2::2])
        filters = torch.cat([low.unsqueeze(0), high])
        if not self.tight:
            return filters
        size = filters.square().sum(0)
        least = float(size.detach().min()) if size.numel() else 1.0
        if not least > 1e-12:
            raise ValueError(
                f"the squares of the filters add up to {least:.2g} somewhere in [0, 2], and no "
                "tight frame can be made of them; use cut='smooth', a smaller reach, or tight=False"
            )
        return filters / size.sqrt()

    def polynomials(self) -> Interpolant:
        """The filters as Chebyshev series on [0, 2], with the bound of their error."""
        return interpolant(self.response, *INTERVAL, tol=self.tol)

    def extra_repr(self) -> str:
        """The settings."""
        names = ("scales", "order", "reach", "tight", "cut", "tol")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class WaveletFilters(Field):
    """The flow along a bank of wavelets, dx/dt = sum_j B_j act(B_j x Theta_j) - x.

    `B_j = g_j(L)`, L the symmetrically normalised Laplacian, applied as polynomials of L: a slope
    takes twice their degree in products, and no eigendecomposition. The paper has no ODE: its layer
    concatenates `y_j = B_j act(B_j x Theta_j)` and mixes channels by a further matrix. Adding the
    bands up and subtracting x makes a flow of it that stands still for a tight frame with
    `Theta_j = I` and without `act`; an Euler step of length 1 is the sum of the bands. The paper's
    optional normalisation of the rows of B_j, which would need all of them, is left out.

    Args:
        channels: Channels of the state `[nodes, channels]`.
        bank: The filters; `FilterBank()` by default.
        act: A function of every entry.

    Raises:
        ValueError: At bind, for a state of other shape.

    References:
        N. Liu et al., WaveGC, 2024; code at liun-online/WaveGC.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> field = WaveletFilters(1, FilterBank(tight=True), act=lambda x: x)
    >>> _ = nn.init.ones_(field.theta)
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> field.bind(graph, x)(torch.tensor(0.0), x).abs().max().item() < 1e-5
    True
    """

    batched_time = True
    norm = "sym"

    def __init__(
        self,
        channels: int,
        bank: FilterBank | None = None,
        act: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__()
        self.channels, self.act = channels, act
        self.bank = FilterBank() if bank is None else bank
        weights = torch.empty(self.bank.bands, channels, channels)
        for weight in weights:
            nn.init.orthogonal_(weight)
        self.theta = nn.Parameter(weights)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Turn the filters into coefficients, and the Laplacian into a series."""
        if not isinstance(x0, Tensor) or x0.dim() != 2 or x0.shape[1] != self.channels:
            shape = tuple(x0.shape) if isinstance(x0, Tensor) else "a tuple"
            raise ValueError(f"x0 is {shape}; this WaveletFilters takes [nodes, {self.channels}]")
        self.coefficients = self.bank.polynomials().coefficients.to(x0)
        self.series = Series(graph.laplacian("sym"), INTERVAL)
        # The coefficients stand for the parameters of the bank.
        del self._modules["bank"]

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """Take the state apart, act on the bands, and put them together."""
        bands = self.series.analysis(self.coefficients, x)
        return self.series.synthesis(self.coefficients, self.act(bands @ self.theta)) - x


def _chebyshev(y: Tensor, order: int) -> Float[Tensor, "degrees ..."]:
    """T_0, ..., T_order at y; 1 and -1 at the ends to the bit, unlike cosines."""
    terms = [torch.ones_like(y), y]
    for _ in range(order - 1):
        terms.append(2.0 * y * terms[-1] - terms[-2])
    return torch.stack(terms)


def _mixed(logits: Float[Tensor, " terms"], terms: Float[Tensor, "terms ..."]) -> Tensor:
    """Sum softmax(logits)_k (1 - T_k) / 2."""
    total: Tensor = torch.tensordot(logits.double().softmax(0), (1.0 - terms) / 2, 1)
    return total
