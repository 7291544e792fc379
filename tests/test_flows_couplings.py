"""Couplings against linear programming and closed forms."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from neuralpde.flows import (
    Coupling,
    EntropicTransport,
    Independent,
    OptimalTransport,
    eight_gaussians,
    moon_points,
    schroedinger_covariance,
    sinkhorn,
    square_distances,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cost(x0: Tensor, x1: Tensor) -> float:
    return float((x0 - x1).square().sum())


def program(C: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The least cost of a plan, by scipy's linear programming."""
    n, m = C.shape
    margins = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return float(linprog(C.ravel(), A_eq=margins, b_eq=np.concatenate([a, b])).fun)


@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_optimal_pairs_cost_the_least_of_all_permutations(seed: int, n: int) -> None:
    x0 = torch.randn(n, 2, 2, generator=seeded(seed), dtype=torch.float64)
    x1 = torch.randn(n, 2, 2, generator=seeded(seed + 1), dtype=torch.float64)
    y0, y1 = OptimalTransport()(x0, x1)
    assert torch.equal(y0, x0)
    least = min(cost(x0, x1[list(order)]) for order in permutations(range(n)))
    assert math.isclose(cost(y0, y1), least, rel_tol=1e-12)
    assert sorted(y1.flatten().tolist()) == sorted(x1.flatten().tolist())


def test_optimal_pairs_cost_what_linear_programming_finds() -> None:
    x0, x1 = eight_gaussians().sample(20, seeded(0)), moon_points(20, seeded(1))
    mass = np.ones(20) / 20
    least = program(square_distances(x0, x1).numpy(), mass, mass)
    assert math.isclose(cost(*OptimalTransport()(x0, x1)) / 20, least, rel_tol=1e-9)


def test_with_little_noise_the_entropic_plan_is_the_linear_program() -> None:
    x0, x1 = eight_gaussians().sample(8, seeded(0)), moon_points(12, seeded(1))
    C = square_distances(x0, x1)
    a = torch.rand(8, generator=seeded(2), dtype=torch.float64) + 0.1
    b = torch.rand(12, generator=seeded(3), dtype=torch.float64) + 0.1
    a, b = a / a.sum(), b / b.sum()
    least = program(C.numpy(), a.numpy(), b.numpy())
    plan = sinkhorn(C, 0.01, a, b)
    assert least <= float((plan * C).sum()) + 1e-9
    # The entropy of a plan is at most log(8 * 12), hence the gap at most that times 0.01.
    assert float((plan * C).sum()) - least < 0.01 * math.log(96)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), sigma=st.floats(0.1, 10.0), n=st.integers(1, 9))
def test_the_entropic_plan_has_its_margins_and_its_form(seed: int, sigma: float, n: int) -> None:
    g = seeded(seed)
    C = square_distances(
        3 * torch.randn(n, 2, generator=g, dtype=torch.float64),
        3 * torch.randn(7, 2, generator=g, dtype=torch.float64),
    )
    plan = sinkhorn(C, 2 * sigma**2)
    torch.testing.assert_close(
        plan.sum(1), torch.full((n,), 1 / n, dtype=torch.float64), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        plan.sum(0), torch.full((7,), 1 / 7, dtype=torch.float64), rtol=0, atol=1e-9
    )
    # log P + C / reg is a sum of a function of the row and one of the column, where P is not 0.
    if float(C.max()) / (2 * sigma**2) < 30:
        form = plan.log() + C / (2 * sigma**2)
        flat = form - form.mean(0) - form.mean(1, keepdim=True) + form.mean()
        assert float(flat.abs().max()) < 1e-9


@pytest.mark.parametrize(("s0", "s1", "sigma"), [(1.0, 1.0, 1.0), (0.5, 1.5, 0.7), (1.0, 2.0, 2.0)])
def test_normal_laws_have_the_covariance_of_the_schroedinger_bridge(
    s0: float, s1: float, sigma: float
) -> None:
    x, y = (torch.linspace(-7 * s, 7 * s, 141, dtype=torch.float64) for s in (s0, s1))
    plan = sinkhorn(
        square_distances(x[:, None], y[:, None]), 2 * sigma**2,
        torch.exp(-(x**2) / (2 * s0**2)), torch.exp(-(y**2) / (2 * s1**2)), tolerance=1e-11,
    )  # fmt: skip
    assert math.isclose(float(x @ plan @ y), schroedinger_covariance(s0, s1, sigma), rel_tol=1e-6)


def test_entropic_pairs_are_drawn_from_the_plan() -> None:
    x0 = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x1 = torch.tensor([[0.5], [2.0], [-1.0]], dtype=torch.float64)
    rows = 2 * sinkhorn(square_distances(x0, x1), 2.0)
    n, counts, g = 1000, torch.zeros(2, 3), seeded(0)
    for _ in range(n):
        y0, y1 = EntropicTransport(1.0)(x0, x1, g)
        assert torch.equal(y0, x0)
        counts += y1 == x1.T
    error = (rows * (1 - rows) / n).sqrt()
    assert float(((counts / n - rows) / error).abs().max()) < 4


def test_much_noise_makes_pairs_independent() -> None:
    C = square_distances(torch.randn(5, 2), torch.randn(6, 2))
    uniform = torch.full((5, 6), 1 / 30, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(C, 1e9), uniform, rtol=0, atol=1e-9)


def test_independent_pairs_are_shuffled_uniformly() -> None:
    n, g, x = 4000, seeded(1), torch.arange(3.0)
    places = torch.stack([Independent()(x, x, g)[1] for _ in range(n)])
    orders = torch.unique(places, dim=0, return_counts=True)[1]
    assert len(orders) == 6
    chi = float(((orders - n / 6) ** 2 / (n / 6)).sum())
    assert chi < 20.5  # 99.9 % of chi-square with 5 degrees of freedom


@pytest.mark.parametrize(
    "coupling", [Independent(), OptimalTransport(), EntropicTransport(0.5)], ids=repr
)
def test_a_coupling_belongs_to_its_generator_and_keeps_dtypes(coupling: Coupling) -> None:
    x0 = eight_gaussians().sample(16, seeded(0)).float()
    x1 = moon_points(16, seeded(1)).float()
    first, again = coupling(x0, x1, seeded(4)), coupling(x0, x1, seeded(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[1].dtype == torch.float32
    assert bool((first[1][:, None] == x1).all(-1).any(1).all())


def test_what_makes_no_pairs_is_refused() -> None:
    for coupling in (Independent(), OptimalTransport()):
        with pytest.raises(ValueError, match="one point each"):
            coupling(torch.zeros(2, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="OptimalTransport"):
        EntropicTransport(0.0)
    with pytest.raises(ValueError, match="more steps"):
        sinkhorn(torch.rand(9, 9), 1e-3, steps=1)
