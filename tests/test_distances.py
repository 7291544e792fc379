"""Distances between samples against sums by hand, closed forms and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from analysis.distances import median_bandwidths, mmd2, wasserstein


def normal(n: int, mean: float = 0.0, dims: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(n, dims, generator=generator, dtype=torch.float64)


def test_mmd_is_the_sum_over_pairs() -> None:
    x, y, bandwidths = normal(7), normal(5, 1.0, seed=1), (0.5, 2.0)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        square = float((a - b).square().sum())
        return float(np.mean([np.exp(-square / (2 * h * h)) for h in bandwidths]))

    own_x = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    own_y = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    both = np.mean([k(a, b) for a in x for b in y])
    assert mmd2(x, y, bandwidths) == pytest.approx(own_x + own_y - 2 * both, abs=1e-14)


def test_mmd_of_normal_laws_is_its_closed_form() -> None:
    # E k(x, y) of N(0, 1) and N(m, 1) is b / sqrt(b^2 + 2) exp(-m^2 / (2 (b^2 + 2))).
    b, m = 1.5, 1.0
    kernel = [b / np.sqrt(b * b + 2) * np.exp(-(d**2) / (2 * (b * b + 2))) for d in (0.0, m)]
    found = [mmd2(normal(1500, 0, 1, s), normal(1500, m, 1, 99 + s), [b]) for s in range(8)]
    error = np.std(found, ddof=1) / np.sqrt(8)
    assert abs(np.mean(found) - 2 * (kernel[0] - kernel[1])) < 3.5 * error


def test_mmd_of_one_law_is_zero_on_average_and_negative_at_times() -> None:
    found = np.array([mmd2(normal(60, seed=s), normal(60, seed=500 + s), [1.0]) for s in range(60)])
    assert abs(found.mean()) < 3.5 * found.std(ddof=1) / np.sqrt(60)
    assert (found < 0).any()


def test_rows_in_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(50), normal(30, 0.3, seed=1)
    whole = mmd2(x, y, [1.0])
    monkeypatch.setattr("analysis.distances.CHUNK", 7)
    assert mmd2(x, y, [1.0]) == pytest.approx(whole, abs=1e-14)


@pytest.mark.parametrize("order", [1, 2])
def test_wasserstein_is_the_linear_programme(order: int) -> None:
    n = 6
    x, y = normal(n), normal(n, 0.5, seed=1)
    cost = torch.cdist(x, y).pow(order).numpy()
    rows = np.kron(np.eye(n), np.ones(n))
    columns = np.kron(np.ones(n), np.eye(n))
    plan = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.ones(2 * n) / n)
    assert wasserstein(x, y, order) == pytest.approx(plan.fun ** (1 / order), rel=1e-9)


@given(st.floats(-5, 5), st.sampled_from([1, 2]), st.integers(1, 3))
def test_a_shift_costs_its_length(shift: float, order: int, dims: int) -> None:
    x = normal(9, dims=dims)
    moved = x.clone()
    moved[:, 0] += shift
    assert wasserstein(x, moved, order) == pytest.approx(abs(shift), abs=1e-9)


def test_one_dimension_agrees_with_the_assignment() -> None:
    x, y = normal(40, dims=1), normal(40, 1.0, dims=1, seed=1)
    flat = torch.cat([x, torch.zeros_like(x)], 1), torch.cat([y, torch.zeros_like(y)], 1)
    assert wasserstein(x, y) == pytest.approx(wasserstein(*flat), rel=1e-12)


def test_bandwidths_follow_the_units_of_the_reference() -> None:
    x = normal(100)
    assert np.allclose(median_bandwidths(10 * x), 10 * np.array(median_bandwidths(x)))
    assert mmd2(10 * x, 10 * x + 1, median_bandwidths(10 * x)) == pytest.approx(
        mmd2(x, x + 0.1, median_bandwidths(x)), abs=1e-12
    )


def test_what_cannot_be_compared_is_refused() -> None:
    x = normal(4)
    with pytest.raises(ValueError, match="median distance"):
        median_bandwidths(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="at least two each"):
        mmd2(x, x[:1], [1.0])
    with pytest.raises(ValueError, match="positive"):
        mmd2(x, x, [0.0])
    with pytest.raises(ValueError, match="equal sizes"):
        wasserstein(x, x[:2])
    with pytest.raises(ValueError, match="order=3"):
        wasserstein(x, x, 3)
