"""Does it over-smooth? A verdict from the survey's definition, with room for doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.decay import LEAST, Decay, fit_decay
from solvers.series import Series
from solvers.trajectory import Trajectory

OUTCOMES = ("over-smooths", "smooths slowly", "does not smooth", "norm collapses", "undecided")

SMOOTHED = math.log(10)
"""Logarithm by which the relative energy must have fallen before anything is called smoothing."""

LASTING = 1.0
"""Logarithm by which it must still fall over the later half: what levels off is not smoothing."""

GOOD = 0.99
"""The R2 that a law must reach."""

STEADY, SLOWING = 0.8, 0.65
"""Ratios of the late to the early rate: above the first decay is exponential, below the second
algebraic (on the later half of the time since its origin, t^(-p) has 1/2)."""


BEND = 3.0
"""Standard errors by which a wandering curve must bend before its rate is said to slow down."""


@dataclass(frozen=True)
class Verdict:
    """What a trajectory does to differences between nodes.

    Attributes:
        outcome: "over-smooths" (relative energy falls exponentially), "smooths slowly" (by a
            power law), "does not smooth" (it does not fall, or levels off), "norm collapses" (the
            state falls exponentially and its shape stays), or "undecided".
        reason: Why, with the numbers.
        decay: The fitted laws of the relative energy, where it falls at all.
        norm: Those of the norm, where the verdict rests on them.

    >>> print(Verdict("undecided", "only 3 values lie above the floor, 6 are needed"))
    undecided: only 3 values lie above the floor, 6 are needed
    """

    outcome: str
    reason: str
    decay: Decay | None = None
    norm: Decay | None = None

    def __str__(self) -> str:
        """Outcome and reason."""
        return f"{self.outcome}: {self.reason}"


def verdict(
    trajectory: Trajectory, relative: Series | None = None, norm: Series | None = None
) -> Verdict:
    """Judge whether a trajectory over-smooths.

    A flow over-smooths when a node-similarity measure falls at least exponentially,
    mu(X(t)) <= C1 e^(-C2 t) with C2 > 0. The measure here is relative, mu^2 = tr(x'Lx) / |x|^2 in
    the field's own form: the bare energy also falls when only the norm does, and the form of
    another Laplacian has another kernel. Exponential is tested against algebraic decay over the
    later half; a rate that slows down by no more than the scatter of its increments explains, as
    that of a network with random layers may, is steady. Nothing is said where the data do not tell:
    too few values above the floor, scatter, or a rate that slows down without being a power law's.

    Args:
        trajectory: A trajectory of one graph, with its "rayleigh" and "norm".
        relative: Another relative measure to judge by, as `traj.measure(...)` gives it.
        norm: The norm that belongs to it.

    Raises:
        ValueError: For a trajectory without a graph, or of several.

    References:
        Rusch, Bronstein and Mishra, A survey on oversmoothing in graph neural networks, 2023,
        arXiv:2303.10993.

    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Heat
    >>> import torch
    >>> x0 = torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0]], dtype=torch.float64)
    >>> verdict(solve(Heat("sym"), x0, 20.0, catalogue.ring(5))).outcome
    'over-smooths'
    """
    if relative is None or norm is None:
        if trajectory.energy is None:
            raise ValueError("a verdict needs a graph: this trajectory was solved without one")
        relative, norm = trajectory["rayleigh"], trajectory["norm"]
    if relative.y.dim() > 1:
        raise ValueError(
            f"this trajectory holds {relative.y.shape[1]} graphs; judge one: solve it alone, or "
            "give verdict(trajectory, relative, norm) series of one graph"
        )
    good = relative.y.isfinite() & (relative.y > 0)
    y = relative.y[good]
    if len(y) < LEAST:
        return Verdict("undecided", f"only {len(y)} values lie above the floor, {LEAST} are needed")
    fallen = math.log(float(y[0] / y[-1]))
    if fallen < SMOOTHED:
        return _still(relative, norm, fallen)
    try:
        decay = fit_decay(Series(relative.t[good], y))
    except ValueError as error:
        return Verdict("undecided", str(error))
    if decay.drop < LASTING:
        levelled = f"it fell {math.exp(fallen):.3g}-fold and levels off at {float(y[-1]):.3g}"
        return Verdict("does not smooth", f"{levelled} ({decay})", decay)
    return _by_law(decay, fallen)


def _by_law(decay: Decay, fallen: float) -> Verdict:
    law = decay.law
    told = f"the relative energy fell {math.exp(fallen):.3g}-fold, as {decay}"
    if law.r2 < GOOD:
        return Verdict("undecided", f"neither law fits: {told}", decay)
    if decay.evidence >= 0 or decay.steadiness > STEADY or decay.slowing < BEND:
        return Verdict("over-smooths", told, decay)
    if decay.steadiness < SLOWING:
        return Verdict("smooths slowly", told, decay)
    slower = f"its rate falls to {decay.steadiness:.2g} of itself over the window"
    return Verdict("undecided", f"{slower}; solve for longer: {told}", decay)


def _still(relative: Series, norm: Series, fallen: float) -> Verdict:
    """The shape stays: is it the norm that goes?"""
    kept = f"the relative energy changed {math.exp(-fallen):.3g}-fold only"
    good = norm.y.isfinite() & (norm.y > 0)
    size = norm.y[good]
    if len(size) >= LEAST and float(size[0] / size[-1]) > math.exp(SMOOTHED):
        found = fit_decay(Series(norm.t[good], size))
        if found.drop > LASTING and found.exponential.r2 > GOOD:
            told = f"{kept}, while the norm fell {float(size[0] / size[-1]):.3g}-fold"
            return Verdict("norm collapses", told, norm=found)
    short = relative.y.isfinite().sum() < len(relative.y)
    return Verdict("undecided" if bool(short) else "does not smooth", kept)
