"""Whether paired differences are more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paired:
    """A paired comparison of a candidate with a baseline, seed by seed.

    Attributes:
        pairs: number of pairs.
        baseline: mean of the baseline.
        candidate: mean of the candidate.
        gain: (baseline - candidate) / baseline of the means; positive where errors fall.
        low: lower end of the 95 % interval of the gain, from paired differences.
        high: its upper end.
        t: two-sided p-value of the paired t test.
        wilcoxon: two-sided p-value of the signed-rank test.

    >>> round(compare_pairs([2.0, 4.0, 6.0], [1.0, 2.0, 2.0]).gain, 3)
    0.583
    """

    pairs: int
    baseline: float
    candidate: float
    gain: float
    low: float
    high: float
    t: float
    wilcoxon: float


def compare_pairs(baseline: Sequence[float], candidate: Sequence[float]) -> Paired:
    """Compare two series of errors that share their seeds.

    The interval divides that of the mean difference by the baseline's mean, which is taken as
    known. p-values are 1 where all differences are zero, and NaN with fewer than two pairs.

    Args:
        baseline: errors of the baseline.
        candidate: errors of the candidate under the same seeds.

    Raises:
        ValueError: for series of different lengths, empty ones, or values that are not finite.

    References:
        Student, Biometrika 6 (1908), 1; Wilcoxon, Biometrics Bulletin 1 (1945), 80.

    >>> found = compare_pairs([1.0, 1.0], [1.0, 1.0])
    >>> found.gain, found.t, found.wilcoxon
    (0.0, 1.0, 1.0)
    """
    a, b = np.asarray(baseline, float), np.asarray(candidate, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"{a.size} and {b.size} values; give one pair for each seed")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("some values are not finite: leave out their seeds in both series")
    from scipy import stats

    difference, mean = a - b, float(a.mean())
    scale = mean if mean else math.nan
    t = wilcoxon = half = math.nan
    if len(a) > 1:
        error = float(difference.std(ddof=1)) / math.sqrt(len(a))
        half = error * float(stats.t.ppf(0.975, len(a) - 1))
        same = not difference.any()
        wilcoxon = 1.0 if same else float(stats.wilcoxon(difference, zero_method="zsplit").pvalue)
        if error:
            t = 2 * float(stats.t.sf(abs(float(difference.mean())) / error, len(a) - 1))
        else:
            t = 1.0 if same else 0.0
    gain = float(difference.mean()) / scale
    width = half / abs(scale)
    return Paired(len(a), mean, float(b.mean()), gain, gain - width, gain + width, t, wilcoxon)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for how many tests were made, by Holm's step-down rule.

    The k-th smallest of m is multiplied by m - k + 1, and none is smaller than the one before.

    Raises:
        ValueError: for values outside [0, 1].

    References:
        Holm, Scandinavian Journal of Statistics 6 (1979), 65.

    >>> [round(p, 9) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values are {list(p_values)}; they lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
