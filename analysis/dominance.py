"""Which frequencies win: low- and high-frequency dominance of linear flows, and of trajectories."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex128, Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

from analysis.ends import Extremes, extremes
from analysis.energies import Rayleigh
from neuralpde.graph import Graph
from neuralpde.operators import Operator
from solvers.series import Series
from solvers.trajectory import Trajectory

ENOUGH = 0.99
"""Share of the squared norm that one end of the spectrum must hold to dominate a trajectory."""

Nodes = Float[Tensor, "nodes nodes"] | Float[Tensor, " nodes"] | Complex128[Tensor, " nodes"]
Channels = (
    Float[Tensor, "channels channels"]
    | Float[Tensor, " channels"]
    | Complex128[Tensor, " channels"]
)
"""A matrix, or its eigenvalues."""


@dataclass(frozen=True)
class Dominance:
    """What a linear flow x' = A x W tends to, x / |x| as t grows.

    Attributes:
        outcome: "low": the rightmost eigenvalue of A wins, "high": the leftmost one, "other": one
            between, "undecided": two differ by less than rounding, or A has one eigenvalue only.
        low: Growth rate of the fastest mode with the rightmost eigenvalue of A.
        high: The same with the leftmost.
        other: The same with those between; minus infinity where none is known.
        resolution: What rounding leaves of the differences of rates.
        threshold: The ratio of -min w to max w, w the eigenvalues of W, above which high
            frequencies win where all are real and time is continuous: max a / -min a.
        pair: Eigenvalues (a, w) of the fastest mode.
        rank: Rank of x / |x| in the limit; None when undecided.
        inputs: Whether all nodes converge to the same state (for "sym" up to the root of the
            degree): everything but the rightmost eigenvalue decays. None when undecided.
        angles: Whether the directions of neighbours converge to each other (MAD to 0). None when
            undecided.

    >>> found = dominance(torch.tensor([1.0, -0.5]), torch.tensor([1.0, -3.0]))
    >>> found.outcome, found.high, found.threshold
    ('high', 1.5, 2.0)
    """

    outcome: str
    low: float
    high: float
    other: float
    resolution: float
    threshold: float
    pair: tuple[complex, complex]
    rank: int | None
    inputs: bool | None
    angles: bool | None

    @property
    def margin(self) -> float:
        """The rate at which the dominating modes leave the next group behind."""
        first, second = sorted((self.low, self.high, self.other), reverse=True)[:2]
        return first - second

    def __str__(self) -> str:
        """Outcome and rates."""
        rates = f"rates low {self.low:.4g}, high {self.high:.4g}"
        between = f", between {self.other:.4g}" if math.isfinite(self.other) else ""
        return f"{self.outcome}: {rates}{between}, resolved to {self.resolution:.1g}"


def dominance(
    nodes: Graph | Operator | Nodes, channels: Channels, step: float | None = None
) -> Dominance:
    """Tell which frequencies dominate x' = A x W, or the residual steps x + step A x W.

    The modes of diagonalisable A and W have the factors `e^(t a w)`, or `(1 + step a w)^k`, with a
    and w their eigenvalues: the largest `Re(a w)`, or `|1 + step a w|`, wins, from almost every
    state. Rates are `Re(a w)` and `log |1 + step a w| / step`. With `A = I - L_sym` and W symmetric
    the flow is low-frequency dominant when `max w > -min w (rho - 1)`, rho the largest eigenvalue
    of L_sym, and high-frequency dominant when it is less (where min w < 0 < max w).

    For attention, A stochastic by rows: with "low" directions converge to each other; nodes
    converge to one state when all other modes decay; the rank tends to that of the fastest modes
    together, generically the largest number of them no two of which share a or w. These are
    derived here for constant A and W; the three notions are those of Dovonon et al. "angles" takes
    the entries of A to be nonnegative, as in adjacencies and attention.

    Args:
        nodes: A: an operator, a matrix, its eigenvalues, or a graph for its "sym" adjacency.
        channels: W, multiplied from the right: a matrix, or its eigenvalues.
        step: Length of the residual step; None for continuous time.

    Raises:
        ValueError: For a batch of graphs, or a step that is not positive.

    References:
        F. Di Giovanni, J. Rowbottom, B. Chamberlain, T. Markovich, M. Bronstein, TMLR 2023,
        arXiv:2206.10991 (low- and high-frequency dominance); G. Dovonon, M. Bronstein, M. Kusner,
        2024, arXiv:2401.04301 (inputs, angles, rank).

    >>> from neuralpde import catalogue
    >>> ring = catalogue.ring(5)  # rho = 1.809: the threshold is 1 / 0.809 = 1.236
    >>> [dominance(ring, torch.tensor([1.0, w])).outcome for w in (-1.2, -1.3)]
    ['low', 'high']
    """
    if step is not None and not step > 0:
        raise ValueError(f"step is {step}; give a positive number, or None for continuous time")
    A = _spectrum(nodes)
    W = _spectrum(channels)
    a, w = A.values.cpu().numpy(), W.values.cpu().numpy()
    products = np.outer(a, w)
    noise = A.error * np.abs(w).max() + W.error * np.abs(a).max()
    if step is None:
        rates = products.real
    else:
        moduli = np.abs(1.0 + step * products)
        noise /= max(float(moduli.max()), 1e-300)
        with np.errstate(divide="ignore"):
            rates = np.log(moduli) / step
    resolution = float(max(noise, 8 * np.finfo(np.float64).eps * np.abs(products).max()))
    right = a.real >= a.real.max() - max(A.error, 1e-12 * np.abs(a).max())
    left = a.real <= a.real.min() + max(A.error, 1e-12 * np.abs(a).max())
    low, high, other = (
        float(rates[rows].max(initial=-np.inf)) for rows in (right, left, ~(right | left))
    )
    outcome = _outcome(low, high, other, resolution)
    decided = outcome != "undecided"
    rest = float(rates[~right].max(initial=-np.inf))
    best = np.unravel_index(np.argmax(rates), rates.shape)
    negative = -a.real.min()
    return Dominance(
        outcome,
        low,
        high,
        other,
        resolution,
        float(a.real.max() / negative) if negative > 0 else math.inf,
        (complex(a[best[0]]), complex(w[best[1]])),
        _rank(rates >= rates.max() - resolution) if decided else None,
        None if abs(rest) <= resolution else rest < 0,
        outcome == "low" if decided else None,
    )


def _spectrum(given: Graph | Operator | Tensor) -> Extremes:
    if isinstance(given, Graph):
        return extremes(given.adjacency("sym", dtype=torch.float64))
    if isinstance(given, Tensor) and given.dim() == 1:
        values = given.detach().to(torch.complex128)
        return Extremes(values, 8 * torch.finfo(given.dtype).eps * float(values.abs().max()), True)
    return extremes(given)


def _outcome(low: float, high: float, other: float, resolution: float) -> str:
    (best, name), (second, _) = sorted(
        ((low, "low"), (high, "high"), (other, "other")), reverse=True
    )[:2]
    return "undecided" if not best - second > resolution else name


def _rank(fastest: np.ndarray) -> int:
    """Generic rank of a sum of u_a c_aw v_w^T over some pairs: the most that share neither."""
    matched = maximum_bipartite_matching(csr_array(fastest.astype(np.int8)), perm_type="column")
    return int((matched >= 0).sum())


@dataclass(frozen=True, eq=False)
class Tendency:
    """Which end of the spectrum a trajectory has come to.

    Attributes:
        outcome: "low", "high" or "undecided".
        low: A lower bound of the share of |x|^2 in the kernel of L at the last time.
        high: A lower bound of the share in the eigenspace of the largest eigenvalue.
        quotient: The Rayleigh quotient along time.

    >>> Tendency("low", 0.999, 0.0, Series(torch.zeros(1), torch.zeros(1))).outcome
    'low'
    """

    outcome: str
    low: float
    high: float
    quotient: Series


def tendency(trajectory: Trajectory, norm: str = "sym") -> Tendency:
    """Tell low- from high-frequency dominance by a trajectory's Rayleigh quotient, of any field.

    With R = tr(x'Lx) / |x|^2 at the last saved time, at least `1 - R / lambda_2` of |x|^2 lies in
    the kernel, and at least `1 - (rho - R) / (rho - lambda_below)` in the eigenspace of the largest
    eigenvalue rho. One of them must be 0.99 or more, and R must not have moved away from it over
    the later half; otherwise nothing is said.

    Args:
        trajectory: A trajectory of one graph with saved states.
        norm: "sym", the one of the definition, "comb", "rw" or "augmented".

    Raises:
        ValueError: Without a graph, or for a batch.

    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Heat
    >>> x0 = torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0]], dtype=torch.float64)
    >>> tendency(solve(Heat("sym"), x0, [0.0, 5.0, 10.0], catalogue.ring(5))).outcome
    'low'
    """
    if trajectory.graph is None or trajectory.graph.num_graphs > 1:
        raise ValueError("a tendency is that of one graph: solve with a graph, and each by itself")
    found = trajectory.measure(Rayleigh(norm))
    L = trajectory.graph.laplacian(norm, dtype=torch.float64)
    values = extremes(L).values.real.sort().values
    top = float(values[-1])
    apart = 1e-9 * top
    above, below = values[values > apart], values[values < top - apart]
    # A value below its floor is NaN: rounding alone could have made it.
    last, before = (
        float(torch.where(found.y.isnan(), found.floor, found.y)[k])
        for k in (-1, len(found.y) // 2)
    )
    low = 1.0 - last / float(above[0]) if len(above) else 1.0
    high = 1.0 - (top - last) / (top - float(below[-1])) if len(below) else 0.0
    low, high = max(low, 0.0), max(high, 0.0)
    outcome = "undecided"
    if low >= ENOUGH and last <= before + apart:
        outcome = "low"
    elif high >= ENOUGH and last >= before - apart:
        outcome = "high"
    return Tendency(outcome, low, high, found)
