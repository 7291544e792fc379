"""Paired tests against scipy and textbook values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.significance import compare_pairs, holm


def test_p_values_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.2, 12), rng.normal(0.9, 0.2, 12)
    found = compare_pairs(list(a), list(b))
    assert found.t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-10)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low / a.mean(), rel=1e-9)
    assert found.high == pytest.approx(interval.high / a.mean(), rel=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        shared = 100 + rng.normal(0, 0.01, 8)
        found = compare_pairs(list(shared), list(shared - 10 - rng.normal(0, 1, 8)))
        held += found.low < 0.1 < found.high
    assert abs(held / 400 - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / 400)


def test_shared_noise_cancels_in_pairs() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(10, 3, 10)
    found = compare_pairs(list(shared), list(shared * 0.99))
    apart = compare_pairs(list(shared), list(rng.permutation(shared) * 0.99))
    assert found.t < 1e-3 < apart.t
    assert found.gain == pytest.approx(0.01)


def test_a_constant_difference_is_certain_and_none_is_nothing() -> None:
    assert compare_pairs([2.0, 3.0], [1.0, 2.0]).t == 0.0
    assert np.isnan(compare_pairs([2.0], [1.0]).t)
    assert compare_pairs([2.0, 1.0], [2.0, 1.0]).wilcoxon == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_the_values_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert all(a <= min(1.0, len(p) * b) + 1e-15 for a, b in zip(adjusted, p, strict=True))
    ranked = np.array(adjusted)[np.argsort(p, kind="stable")]
    assert (np.diff(ranked) >= 0).all()


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])


def test_bad_series_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 values"):
        compare_pairs([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        compare_pairs([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="lie in"):
        holm([0.5, 1.5])
