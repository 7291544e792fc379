"""Implicit tableaus: order conditions exactly in Q(sqrt 2), and what they do at infinity."""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
import torch

from solvers.flow import Flow
from solvers.implicit import DiagonallyImplicit
from solvers.implicit_tableaus import IMPLICIT_TABLEAUS, ImplicitTableau, Surd
from solvers.rows import Rows
from solvers.stepper import Accuracy

F64 = torch.float64
every = pytest.mark.parametrize("tableau", IMPLICIT_TABLEAUS.values(), ids=list(IMPLICIT_TABLEAUS))
ZERO = Surd()


def q(*fraction: int) -> Surd:
    return Surd(Fraction(*fraction))


def total(terms: list[Surd]) -> Surd:
    return sum(terms, start=ZERO)


def conditions(tableau: ImplicitTableau, b: tuple[Surd, ...]) -> list[list[tuple[Surd, Surd]]]:
    """Both sides of the conditions of orders 1, 2 and 3."""
    n, c = len(b), tableau.c
    a = [[*row, *[ZERO] * (n - len(row))] for row in tableau.a]
    ac = [total([a[i][j] * c[j] for j in range(n)]) for i in range(n)]
    return [
        [(total(list(b)), q(1))],
        [(total([b[i] * c[i] for i in range(n)]), q(1, 2))],
        [
            (total([b[i] * c[i] * c[i] for i in range(n)]), q(1, 3)),
            (total([b[i] * ac[i] for i in range(n)]), q(1, 6)),
        ],
    ]


def order(tableau: ImplicitTableau, b: tuple[Surd, ...]) -> int:
    found = 0
    for p, pairs in enumerate(conditions(tableau, b), start=1):
        if any(left != right for left, right in pairs):
            break
        found = p
    return found


def test_surds_are_a_field() -> None:
    one, other = Surd(Fraction(1, 3), Fraction(-2)), Surd(Fraction(5), Fraction(7, 4))
    for got, wanted in (
        (one + other, float(one) + float(other)),
        (one - other, float(one) - float(other)),
        (one * other, float(one) * float(other)),
        (one / other, float(one) / float(other)),
    ):
        assert float(got) == pytest.approx(wanted, rel=1e-15)
    assert one / other * other == one
    assert float(Surd(Fraction(0), Fraction(1))) == sqrt(2)


@every
def test_orders_are_exactly_those_claimed(tableau: ImplicitTableau) -> None:
    assert order(tableau, tableau.b) == tableau.order
    if tableau.b_hat is not None:
        assert order(tableau, tableau.b_hat) == tableau.embedded_order


@every
def test_rows_sum_to_the_nodes_and_one_matrix_serves_all_stages(tableau: ImplicitTableau) -> None:
    assert [total(list(row)) for row in tableau.a] == list(tableau.c)
    assert tableau.a[0] == (ZERO,)
    assert {row[-1] for row in tableau.a[1:]} == {tableau.d}
    # Stiffly accurate: the last stage is the solution.
    assert tableau.c[-1] == q(1)
    assert tableau.b == tableau.a[-1]


def amplified(tableau: ImplicitTableau, z: float) -> tuple[float, float]:
    """One step of y' = z y of length 1 from 1, and its error estimate."""
    x = (torch.ones(1, dtype=F64),)
    flow = Flow(lambda t, x: (z * x[0],), Rows(), x[0])
    stepper = DiagonallyImplicit(tableau).begin(flow, Rows(), Accuracy(1e-12, 0.0))
    f = flow.stages(np.zeros(1), np.ones(1))
    step = stepper.step(f, 1.0, x, flow(np.zeros(1), x), plan=stepper.plan(f, x, None))
    return step.x[0].item(), step.error[0].item() if step.error is not None else 0.0


def stability(tableau: ImplicitTableau, z: float, b: tuple[Surd, ...] | None = None) -> float:
    """R(z) = 1 + z b (I - z A)^-1 1."""
    n = len(tableau.c)
    A = np.zeros((n, n))
    for i, row in enumerate(tableau.a):
        A[i, : i + 1] = [float(w) for w in row]
    weights = np.array([float(w) for w in b or tableau.b])
    return float(1 + z * weights @ np.linalg.solve(np.eye(n) - z * A, np.ones(n)))


@every
@pytest.mark.parametrize("z", [-0.1, -3.0, -200.0, 0.5])
def test_a_step_multiplies_by_the_stability_function(tableau: ImplicitTableau, z: float) -> None:
    new, error = amplified(tableau, z)
    assert new == pytest.approx(stability(tableau, z), rel=1e-12)
    if tableau.b_hat is not None:
        raw = stability(tableau, z) - stability(tableau, z, tableau.b_hat)
        assert error == pytest.approx(raw / (1 - z * float(tableau.d)), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "limit"), [("implicit_euler", 0.0), ("trbdf2", 0.0), ("crank_nicolson", -1.0)]
)
def test_what_is_infinitely_stiff_is_damped_or_turned(name: str, limit: float) -> None:
    new, error = amplified(IMPLICIT_TABLEAUS[name], -1e10)
    assert new == pytest.approx(limit, abs=1e-8)
    # Without the filter the estimate would be of the size of z.
    assert abs(error) < 2.0
