"""Band-pass filters as Chebyshev series, and what they say of a state from its moments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import erfcinv
from torch import Tensor

from solvers.moments import ROUNDING


@dataclass(frozen=True, eq=False)
class FilterBank:
    """Smoothed indicators of bands, for each graph, with narrower and wider ones around them.

    With `y = cos(theta)` the affine image of an operator in [-1, 1], the indicator of a band in
    theta is convolved with a Gaussian: the coefficients get the factors `exp(-(k s)^2 / 2)`. At a
    distance of `reach` from its edges a filter is wrong by at most `leakage`.

    Attributes:
        filters: Coefficients, `[graphs, bands, moments]`.
        narrow: Those of bands that are narrower by `reach` at each edge.
        wide: Those of bands that are wider.
        leakage: Largest error of a filter outside the zones around its edges.

    >>> ends = torch.tensor([0.0]), torch.tensor([2.0])
    >>> bank = filter_bank(torch.tensor([[0.0, 1.0, 2.0]]), *ends, leakage=1e-6)
    >>> mu = torch.ones(bank.count, 1)  # all in the lower end, where every T_k is 1
    >>> bank(mu, 0.0)[0].round(decimals=5).abs().tolist()
    [[1.0, 0.0]]
    """

    filters: Float[Tensor, "graphs bands moments"]
    narrow: Float[Tensor, "graphs bands moments"]
    wide: Float[Tensor, "graphs bands moments"]
    leakage: float

    @property
    def count(self) -> int:
        """Number of moments that the filters need; half as many products."""
        return self.filters.shape[2]

    def __call__(
        self, moments: Float[Tensor, "moments graphs"], eps: float
    ) -> tuple[Float[Tensor, "graphs bands"], Float[Tensor, "graphs bands"]]:
        """The energies in the bands, and bounds of their errors.

        Args:
            moments: <x, T_k(y) x>.
            eps: Rounding of the moments.
        """
        value, least, most = (
            torch.einsum("gbk,kg->gb", c, moments.double())
            for c in (self.filters, self.narrow, self.wide)
        )
        total = moments[0].double().unsqueeze(1)
        order = torch.arange(self.count, dtype=torch.float64)
        rounding = ROUNDING * eps * (self.wide.abs() @ (order + 4.0) ** 1.5) * total
        slack = self.leakage * total + rounding
        low = (least - slack).clamp(min=0.0)
        high = torch.minimum(most + slack, total)
        return value, torch.maximum(value - low, high - value).clamp(min=0.0)


def filter_bank(
    edges: Float[Tensor, "graphs edges"],
    lo: Float[Tensor, " graphs"],
    hi: Float[Tensor, " graphs"],
    leakage: float,
    transition: float = 0.125,
) -> FilterBank:
    """Make the filters of bands, of the lowest degree that keeps the leakage.

    Half of it is what a Gaussian has beyond `reach`: that sets its width; the other half is what
    the cut at the degree leaves out.

    Args:
        edges: Where bands begin and end; the outer ones reach to the ends of the interval.
        lo: Lower ends of the interval that is mapped to [-1, 1].
        hi: Upper ends.
        leakage: Largest error of a filter outside the zones around its edges.
        transition: `reach` in mean bands, pi over their number.
    """
    half = (hi - lo) / 2
    y = 1.0 - (edges - lo[:, None]) / torch.where(half > 0, half, 1.0)[:, None]
    angle = torch.arccos(y.clamp(-1.0, 1.0)).double()
    angle[:, 0], angle[:, -1] = 0.0, torch.pi
    reach = transition * math.pi / (edges.shape[1] - 1)
    s = reach / (math.sqrt(2.0) * float(erfcinv(leakage / 2)))
    degree = _degree(s, leakage / 2)
    start, end = angle[:, :-1], angle[:, 1:]
    return FilterBank(
        _coefficients(start, end, degree, s, 0.0),
        _coefficients(start, end, degree, s, -reach),
        _coefficients(start, end, degree, s, reach),
        leakage,
    )


def _degree(s: float, tol: float) -> int:
    """The degree beyond which the coefficients of an indicator add up to less than `tol`."""
    # They are at most 4 / (pi k) exp(-(k s)^2 / 2); nothing is left long before 40 / s.
    k = torch.arange(1, math.ceil(40.0 / s), dtype=torch.float64)
    sizes = 4.0 / (math.pi * k) * torch.exp(-((k * s) ** 2) / 2)
    beyond = sizes.flip(0).cumsum(0).flip(0)
    return int((beyond > tol).sum())


def _coefficients(start: Tensor, end: Tensor, degree: int, s: float, wider: float) -> Tensor:
    """Of the smoothed indicators of [start - wider, end + wider], clipped to [0, pi]."""
    # The outer ends are those of the interval: there is nothing beyond, and nothing rises there.
    first, last = torch.zeros_like(start), torch.zeros_like(end)
    first[:, 1:], last[:, :-1] = wider, wider
    a = (start - first).clamp(0.0, torch.pi)
    b = (end + last).clamp(0.0, torch.pi)
    a = torch.minimum(a, b)
    k = torch.arange(1, degree + 1, dtype=torch.float64)
    waves = 2.0 * (torch.sin(k * b.unsqueeze(-1)) - torch.sin(k * a.unsqueeze(-1))) / (torch.pi * k)
    waves = waves * torch.exp(-((k * s) ** 2) / 2)
    return torch.cat([((b - a) / torch.pi).unsqueeze(-1), waves], dim=-1)
