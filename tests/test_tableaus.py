"""Every tableau against its order conditions, its stability polynomial and its peers."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement

import mpmath
import numpy as np
import pytest
from scipy.integrate import RK23, RK45
from torchdiffeq._impl import adaptive_heun, bosh3, dopri5, dopri8

from solvers.tableaus import TABLEAUS, Tableau

Tree = tuple["Tree", ...]

# Largest residual of an order condition: 0 for exact fractions; tsit5 is stored to 40 decimals,
# Prince and Dormand published fractions good to about 17 digits.
RESIDUAL = dict.fromkeys(TABLEAUS, 0.0) | {"tsit5": 1e-38, "dopri8": 2e-17}

every_tableau = pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=list(TABLEAUS))
embedded = pytest.mark.parametrize(
    "tableau",
    [t for t in TABLEAUS.values() if t.b_hat is not None],
    ids=[t.name for t in TABLEAUS.values() if t.b_hat is not None],
)


@cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with this many nodes, a tree being the sorted tuple of its branches."""
    return tuple(_forests(order - 1, order - 1))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        for count in range(nodes // size, 0, -1):
            for rest in _forests(nodes - size * count, size - 1):
                for branches in combinations_with_replacement(rooted_trees(size), count):
                    yield (*branches, *rest)


def size(tree: Tree) -> int:
    return 1 + sum(size(branch) for branch in tree)


def density(tree: Tree) -> int:
    product = size(tree)
    for branch in tree:
        product *= density(branch)
    return product


def number(fraction: Fraction, name: str) -> object:
    return mpmath.mpf(fraction.numerator) / fraction.denominator if RESIDUAL[name] else fraction


@cache
def elementary_weights(name: str, tree: Tree) -> tuple:
    """The elementary weight of each stage: a product over branches of A times theirs."""
    a = [[number(entry, name) for entry in row] for row in TABLEAUS[name].a]
    weights = [number(Fraction(1), name)] * len(a)
    for branch in tree:
        inner = elementary_weights(name, branch)
        weights = [
            w * sum((x * y for x, y in zip(row, inner, strict=False)), start=0 * w)
            for w, row in zip(weights, a, strict=True)
        ]
    return tuple(weights)


def residual(tableau: Tableau, weights: Sequence[Fraction], order: int, theta: Fraction) -> float:
    """The largest violation of the conditions of exactly this order, for the state at theta h."""
    worst = 0.0
    for tree in rooted_trees(order):
        wanted = number(theta**order / density(tree), tableau.name)
        stages = elementary_weights(tableau.name, tree)
        got = sum(number(w, tableau.name) * s for w, s in zip(weights, stages, strict=True))
        worst = max(worst, abs(float(got - wanted)))
    return worst


@pytest.fixture(autouse=True)
def fifty_digits() -> Iterator[None]:
    with mpmath.workdps(50):
        yield


def test_there_are_as_many_rooted_trees_as_cayley_counted() -> None:
    assert [len(rooted_trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert all(len(set(rooted_trees(n))) == len(rooted_trees(n)) for n in range(1, 9))
    assert all(size(tree) == 8 for tree in rooted_trees(8))


@every_tableau
def test_rows_sum_to_the_nodes(tableau: Tableau) -> None:
    gaps = [abs(sum(row) - c) for row, c in zip(tableau.a, tableau.c, strict=True)]
    assert float(max(gaps)) <= RESIDUAL[tableau.name]
    assert [len(row) for row in tableau.a] == list(range(len(tableau.c)))
    assert len(tableau.b) == len(tableau.c)


@every_tableau
def test_weights_have_the_claimed_order_and_no_more(tableau: Tableau) -> None:
    whole = Fraction(1)
    for order in range(1, tableau.order + 1):
        assert residual(tableau, tableau.b, order, whole) <= RESIDUAL[tableau.name]
    assert residual(tableau, tableau.b, tableau.order + 1, whole) > 1e-7


@embedded
def test_embedded_weights_have_the_claimed_order_and_no_more(tableau: Tableau) -> None:
    assert tableau.b_hat is not None
    whole = Fraction(1)
    for order in range(1, tableau.embedded_order + 1):
        assert residual(tableau, tableau.b_hat, order, whole) <= RESIDUAL[tableau.name]
    assert residual(tableau, tableau.b_hat, tableau.embedded_order + 1, whole) > 1e-7
    assert tableau.error_order == tableau.embedded_order + 1


@pytest.mark.parametrize("name", ["dopri5", "tsit5"])
def test_mid_weights_have_order_four(name: str) -> None:
    tableau = TABLEAUS[name]
    assert tableau.mid is not None
    for order in range(1, 5):
        assert residual(tableau, tableau.mid, order, Fraction(1, 2)) <= RESIDUAL[name]
    assert residual(tableau, tableau.mid, 5, Fraction(1, 2)) > 1e-7


@every_tableau
def test_the_stability_interval_ends_where_the_polynomial_leaves_the_unit_disc(
    tableau: Tableau,
) -> None:
    stages = [Fraction(1)] * len(tableau.c)
    coefficients = [Fraction(1)]
    for _ in tableau.c:
        coefficients.append(sum(b * s for b, s in zip(tableau.b, stages, strict=True)))
        stages = [
            sum((a * s for a, s in zip(row, stages, strict=False)), start=Fraction(0))
            for row in tableau.a
        ]
    growth = np.polynomial.Polynomial([float(c) for c in coefficients])
    end = tableau.stability
    assert abs(growth(-np.linspace(0, end * (1 - 1e-12), 4001))).max() <= 1 + 1e-13
    assert abs(growth(-end)) == pytest.approx(1, abs=1e-12)
    assert abs(growth(-end * (1 + 1e-6))) > 1


def test_methods_that_end_on_the_new_point_are_known() -> None:
    assert {name for name, t in TABLEAUS.items() if t.fsal} == {"bosh3", "dopri5", "tsit5"}
    assert TABLEAUS["dopri5"].a[-1] == TABLEAUS["dopri5"].b[:-1]


@pytest.mark.parametrize(
    ("name", "peer", "sign"),
    [
        ("heun", adaptive_heun._ADAPTIVE_HEUN_TABLEAU, -1),
        ("bosh3", bosh3._BOGACKI_SHAMPINE_TABLEAU, 1),
        ("dopri5", dopri5._DORMAND_PRINCE_SHAMPINE_TABLEAU, 1),
        ("dopri8", dopri8._DOPRI8_TABLEAU, 1),
    ],
)
def test_coefficients_are_those_of_torchdiffeq(name: str, peer: tuple, sign: int) -> None:
    tableau = TABLEAUS[name]
    alpha, beta, solution, error = peer
    stages = len(tableau.c)
    assert tableau.b_hat is not None
    gaps = [float(b - e) for b, e in zip(tableau.b, tableau.b_hat, strict=True)]
    np.testing.assert_allclose(gaps, sign * error.numpy()[:stages], rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.float64(tableau.b), solution.numpy()[:stages], rtol=1e-15)
    for ours, theirs in zip(tableau.a[1:], beta, strict=False):
        np.testing.assert_allclose(np.float64(ours), theirs.numpy()[: len(ours)], rtol=1e-15)
    np.testing.assert_allclose(np.float64(tableau.c[1:]), alpha.numpy()[: stages - 1], rtol=1e-15)


def test_mid_weights_of_dopri5_are_those_of_torchdiffeq() -> None:
    mid = np.float64(TABLEAUS["dopri5"].mid)
    np.testing.assert_allclose(mid, dopri5.DPS_C_MID.numpy(), rtol=1e-15)


@pytest.mark.parametrize(("name", "peer"), [("bosh3", RK23), ("dopri5", RK45)])
def test_coefficients_are_those_of_scipy(name: str, peer: type) -> None:
    tableau = TABLEAUS[name]
    lower = np.zeros(peer.A.shape)
    for i, row in enumerate(tableau.a[: len(lower)]):
        lower[i, :i] = np.float64(row[: len(lower)])
    np.testing.assert_allclose(lower, peer.A[:, : len(lower)], rtol=1e-15)
    np.testing.assert_allclose(np.float64(tableau.b[:-1]), peer.B, rtol=1e-15)


def test_the_error_estimate_of_dopri5_is_two_thirds_of_the_published_one() -> None:
    tableau = TABLEAUS["dopri5"]
    assert tableau.b_hat is not None
    gaps = [float(b - e) for b, e in zip(tableau.b, tableau.b_hat, strict=True)]
    np.testing.assert_allclose(gaps, -2 / 3 * RK45.E, rtol=1e-12, atol=1e-17)
