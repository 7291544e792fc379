"""Couplings: which point of the source goes with which point of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

Ends = tuple[Tensor, Tensor]


class Coupling(Protocol):
    """Pairs up two batches of points."""

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Ends:
        """The points in pairs, x0 in its order."""


def square_distances(
    x0: Float[Tensor, "sources ..."], x1: Float[Tensor, "targets ..."]
) -> Float[Tensor, "sources targets"]:
    """The cost |x0_i - x1_j|^2 of every pair, float64, over all numbers of a point.

    >>> square_distances(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])).tolist()
    [[9.0], [4.0]]
    """
    first, last = x0.detach().double().flatten(1), x1.detach().double().flatten(1)
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(first, last, compute_mode=exact).square()


@dataclass(frozen=True)
class Independent:
    """Pairs at random: targets are shuffled, whatever order they came in.

    >>> x0, x1 = Independent()(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    >>> sorted(x1.tolist())
    [1.0, 2.0, 3.0]
    """

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Ends:
        """Shuffle the targets."""
        _check_sizes(x0, x1)
        return x0, x1[torch.randperm(len(x1), generator=generator).to(x1.device)]


@dataclass(frozen=True)
class OptimalTransport:
    """The pairs of least total squared distance, exactly; cubic in the number of points.

    References:
        Pooladian et al., Multisample flow matching, ICML 2023, arXiv:2304.14772; Tong et al., TMLR
        2024, arXiv:2302.00482; the assignment is scipy's (Crouse, IEEE Trans. Aerosp. Electron.
        Syst. 52 (2016), 1679).

    >>> x0, x1 = OptimalTransport()(torch.tensor([0.0, 1.0]), torch.tensor([5.0, 4.0]))
    >>> x1.tolist()
    [4.0, 5.0]
    """

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Ends:
        """Permute the targets; nothing is random."""
        from scipy.optimize import linear_sum_assignment

        _check_sizes(x0, x1)
        cost = square_distances(x0.reshape(len(x0), -1), x1.reshape(len(x1), -1))
        _, columns = linear_sum_assignment(cost.cpu().numpy())
        return x0, x1[torch.from_numpy(columns).to(x1.device)]


@dataclass(frozen=True)
class EntropicTransport:
    """Entropic optimal transport, the static Schroedinger bridge of noise sigma.

    The plan is the minimum of `<P, |x - y|^2> - 2 sigma^2 H(P)` over all with uniform margins; a
    target is drawn for every source from its row, so that targets may come twice.

    Args:
        sigma: Of the Brownian motion, positive: the regularisation is 2 sigma^2.
        tolerance: Sum of the errors of the margins.
        steps: Most iterations.

    Raises:
        ValueError: Without noise; where the plan is not found.

    References:
        Cuturi, Sinkhorn distances, NeurIPS 2013, arXiv:1306.0895; Tong et al., AISTATS 2024,
        arXiv:2307.03672.

    >>> coupling = EntropicTransport(sigma=0.1)
    >>> x0, x1 = coupling(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [4.0]]))
    >>> x1.flatten().tolist()
    [4.0, 5.0]
    """

    sigma: float
    tolerance: float = 1e-6
    steps: int = 100

    def __post_init__(self) -> None:
        """Refuse noise that is none."""
        if not self.sigma > 0:
            raise ValueError(f"sigma={self.sigma}: without noise it is OptimalTransport()")

    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Ends:
        """Draw a target for every source."""
        cost = square_distances(x0.reshape(len(x0), -1), x1.reshape(len(x1), -1))
        plan = sinkhorn(cost, 2 * self.sigma**2, tolerance=self.tolerance, steps=self.steps)
        return x0, x1[torch.multinomial(plan, 1, generator=generator)[:, 0]]


def sinkhorn(
    cost: Float[Tensor, "sources targets"],
    regularisation: float,
    source: Float[Tensor, " sources"] | None = None,
    target: Float[Tensor, " targets"] | None = None,
    *,
    tolerance: float = 1e-9,
    steps: int = 100,
) -> Float[Tensor, "sources targets"]:
    """The plan `P_ij = exp((f_i + g_j - cost_ij) / regularisation)` with the given margins.

    Newton's method on the logarithms, float64, from the solution with more regularisation: where
    it is small, Sinkhorn's iteration alone takes of the order of max(cost) / regularisation sweeps.

    Args:
        cost: Of every pair.
        regularisation: Positive.
        source: Masses of the rows; equal by default. They are normalised.
        target: Masses of the columns.
        tolerance: Sum over the rows of the errors of their masses; columns are exact.
        steps: Most iterations.

    Raises:
        ValueError: Where it does not converge.

    >>> sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 1e6).round(decimals=4).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    cost = cost.double()
    rows, columns = _logarithms(source, cost, 0), _logarithms(target, cost, 1)
    # What is strong smoothing first, and less of it step by step, starts the last one near its end.
    level, f = max(regularisation, float(cost.max() - cost.min())), torch.zeros_like(rows)
    while level > regularisation:
        f, _, _ = _ascend(-cost / level, rows, columns, f, WARM, WARM_TOLERANCE)
        lower = max(level / 2, regularisation)
        f, level = f * (level / lower), lower
    f, plan, error = _ascend(-cost / regularisation, rows, columns, f, steps, tolerance)
    if not error <= tolerance:
        raise ValueError(
            f"after {steps} steps the masses are off by {error:.1e} > {tolerance:.1e}: give a "
            "larger regularisation (or sigma), a larger tolerance, or more steps"
        )
    return plan


WARM, WARM_TOLERANCE = 20, 1e-2
"""Most steps at each level of smoothing before the last, and how near they have to come."""


def _ascend(
    scores: Tensor, rows: Tensor, columns: Tensor, f: Tensor, steps: int, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """Rows' potentials, plan and error of the rows; columns are exact.

    Steps of Newton on the concave `<rows, f> + <columns, g(f)>`, whose slope is the error of the
    rows' masses, with as much damping as there is error; where one does not climb, a sweep of
    Sinkhorn's iteration, which always does.
    """
    mass, shares = rows.exp(), columns.exp()
    plan, value = _plan(scores, rows, columns, f)
    error = float("inf")
    for _ in range(steps):
        slope = mass - plan.sum(1)
        error = float(slope.abs().sum())
        if error <= tolerance:
            break
        curvature = torch.diag(plan.sum(1) + min(error, 1.0) * mass) - (plan / shares) @ plan.T
        ahead = f + torch.linalg.solve(curvature, slope)
        there = _plan(scores, rows, columns, ahead)
        if not bool(there[1] >= value):
            ahead = f + rows - plan.sum(1).log()
            there = _plan(scores, rows, columns, ahead)
        f, (plan, value) = ahead, there
    return f, plan, error


def _plan(scores: Tensor, rows: Tensor, columns: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """The plan with exact columns, and the dual value."""
    g = columns - torch.logsumexp(scores + f[:, None], 0)
    return (scores + f[:, None] + g).exp(), rows.exp() @ f + columns.exp() @ g


def _logarithms(masses: Tensor | None, cost: Tensor, axis: int) -> Tensor:
    n = cost.shape[axis]
    masses = cost.new_ones(n) if masses is None else masses.to(cost)
    return (masses / masses.sum()).log()


def _check_sizes(x0: Tensor, x1: Tensor) -> None:
    if x0.shape != x1.shape:
        raise ValueError(
            f"x0 is {tuple(x0.shape)} and x1 is {tuple(x1.shape)}: one point each makes a pair"
        )
