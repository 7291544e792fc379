"""Linear systems by products: against dense solves, group by group, easy and nearly hopeless."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from solvers.elimination import Elimination
from solvers.groups import Groups
from solvers.jacobian import Recorded
from solvers.krylov import conjugate_gradients, gmres
from solvers.resolvent import Resolvent

F64 = torch.float64
SIZES = (3, 7, 1, 12)
BATCH = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def blocks(make: Callable[[int], Tensor]) -> Tensor:
    return torch.block_diag(*(make(n) for n in SIZES))


def positive(n: int) -> Tensor:
    half = normal(n, n, seed=n)
    return half @ half.T + torch.eye(n, dtype=F64)


def regular(n: int) -> Tensor:
    return normal(n, n, seed=n) + 4 * torch.eye(n, dtype=F64)


def tight(groups: int = 1, size: float = 1e-13) -> Tensor:
    return torch.full((groups,), size, dtype=F64)


def exact(A: Tensor, b: Tensor) -> Tensor:
    return torch.from_numpy(np.linalg.solve(A.numpy(), b.numpy()))


class Counted:
    """A matrix as a function that counts its calls."""

    def __init__(self, A: Tensor) -> None:
        self.A, self.calls = A, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.A @ x


@pytest.mark.parametrize("columns_apart", [False, True])
def test_conjugate_gradients_solve_every_group(columns_apart: bool) -> None:
    A, b = blocks(positive), normal(len(BATCH), 2)
    groups = Groups(BATCH, len(SIZES), separate=columns_apart)
    solved = conjugate_gradients(lambda x: A @ x, b, tight(4), groups)
    assert solved.reached.all()
    assert not solved.indefinite.any()
    torch.testing.assert_close(solved.x, exact(A, b), rtol=1e-10, atol=1e-11)


def test_conjugate_gradients_end_after_as_many_products_as_there_are_eigenvalues() -> None:
    Q, _ = torch.linalg.qr(normal(40, 40))
    values = torch.tensor([1.0, 5.0, 20.0], dtype=F64).repeat(14)[:40]
    product = Counted(Q @ torch.diag(values) @ Q.T)
    solved = conjugate_gradients(product, normal(40, 1), tight(size=1e-10), Groups())
    assert solved.products == product.calls == 3


def test_a_group_takes_the_steps_it_takes_alone() -> None:
    # Well conditioned, so that rounding does not grow in the recurrences.
    A = 5 * torch.eye(len(BATCH), dtype=F64) + blocks(positive) / 20
    b, weight = normal(len(BATCH), 2), 2 + normal(len(BATCH), 2, seed=9).tanh()
    loose = tight(4, 1e-3)
    together = conjugate_gradients(
        lambda x: A @ x, b, loose, Groups(BATCH, 4), weight=weight, preconditioner=weight
    )
    other = gmres(lambda x: A @ x, b, loose, Groups(BATCH, 4), weight=weight)
    for g in range(4):
        rows = g == BATCH
        own = A[rows][:, rows]
        alone = conjugate_gradients(
            lambda x, own=own: own @ x,
            b[rows],
            loose[:1],
            Groups(),
            weight=weight[rows],
            preconditioner=weight[rows],
        )
        torch.testing.assert_close(together.x[rows], alone.x, rtol=1e-12, atol=1e-13)
        alone = gmres(lambda x, own=own: own @ x, b[rows], loose[:1], Groups(), weight=weight[rows])
        torch.testing.assert_close(other.x[rows], alone.x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_the_residual_is_below_the_tolerance_in_its_weighted_norm(solve: Callable) -> None:
    A, b, weight = blocks(positive), normal(len(BATCH), 3), normal(len(BATCH), 3, seed=5).exp()
    tolerance = torch.tensor([1e-2, 1e-4, 1e-6, 1e-8], dtype=F64)
    solved = solve(lambda x: A @ x, b, tolerance, Groups(BATCH, 4), weight=weight)
    left = (b - A @ solved.x) * weight
    sizes = torch.stack([left[g == BATCH].square().mean().sqrt() for g in range(4)])
    assert (sizes <= 1.01 * tolerance).all()


def test_the_diagonal_tames_a_system_of_condition_1e12() -> None:
    scale = torch.logspace(-6, 6, 60, dtype=F64).unsqueeze(1)
    core = torch.eye(60, dtype=F64) + 0.005 * (normal(60, 60) + normal(60, 60).T)
    root = scale.sqrt()
    A = root * core * root.T
    b = scale * normal(60, 1, seed=2)
    tolerance = tight(size=1e-9)
    plain = conjugate_gradients(lambda x: A @ x, b, tolerance, Groups(), limit=300)
    tamed = conjugate_gradients(
        lambda x: A @ x, b, tolerance, Groups(), preconditioner=A.diagonal().unsqueeze(1)
    )
    assert not plain.reached.all()
    assert tamed.reached.all()
    assert tamed.products < 30
    torch.testing.assert_close(tamed.x, exact(A, b), rtol=1e-2, atol=1e-3)


def test_a_singular_but_consistent_system_is_solved() -> None:
    L = torch.diag(torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=F64))
    L -= torch.diag(torch.ones(3, dtype=F64), 1) + torch.diag(torch.ones(3, dtype=F64), -1)
    b = L @ normal(4, 1)
    solved = conjugate_gradients(lambda x: L @ x, b, tight(size=1e-12), Groups())
    torch.testing.assert_close(L @ solved.x, b, rtol=1e-10, atol=1e-11)
    assert abs(solved.x.sum()) < 1e-12


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_nothing_is_done_for_a_right_hand_side_of_zero(solve: Callable) -> None:
    product = Counted(torch.full((4, 4), torch.nan, dtype=F64))
    solved = solve(product, torch.zeros(4, 2, dtype=F64), tight(), Groups())
    assert product.calls == 0
    assert solved.reached.all()
    assert torch.equal(solved.x, torch.zeros(4, 2, dtype=F64))


def test_directions_of_negative_curvature_are_noticed_in_their_group_only() -> None:
    A = torch.block_diag(positive(3), -positive(3), positive(3))
    groups = Groups(torch.arange(3).repeat_interleave(3), 3)
    b = normal(9, 1)
    solved = conjugate_gradients(lambda x: A @ x, b, tight(3), groups)
    assert solved.indefinite.tolist() == [False, True, False]
    assert solved.reached.tolist() == [True, False, True]


def test_a_metric_makes_a_random_walk_self_adjoint() -> None:
    degree = torch.tensor([1.0, 3.0, 1.0, 1.0], dtype=F64)
    star = torch.zeros(4, 4, dtype=F64)
    star[1, [0, 2, 3]] = star[[0, 2, 3], 1] = 1.0
    A = torch.eye(4, dtype=F64) + 10 * (torch.eye(4, dtype=F64) - star / degree.unsqueeze(1))
    b = normal(4, 2)
    solved = conjugate_gradients(lambda x: A @ x, b, tight(), Groups(), metric=degree, limit=8)
    torch.testing.assert_close(solved.x, exact(A, b), rtol=1e-10, atol=1e-12)
    assert not conjugate_gradients(lambda x: A @ x, b, tight(), Groups(), limit=8).reached.all()


def test_gmres_solves_every_group() -> None:
    A, b = blocks(regular), normal(len(BATCH), 1)
    solved = gmres(lambda x: A @ x, b, tight(4, 1e-12), Groups(BATCH, 4))
    assert solved.reached.all()
    torch.testing.assert_close(solved.x, exact(A, b), rtol=1e-9, atol=1e-10)


def test_gmres_goes_on_after_a_restart() -> None:
    A = torch.diag(torch.linspace(1, 30, 80, dtype=F64)) + 0.3 * normal(80, 80) / 80**0.5
    b, product = normal(80, 1, seed=3), Counted(A)
    solved = gmres(product, b, tight(size=1e-9), Groups(), restart=20)
    assert solved.reached.all()
    assert solved.products == product.calls > 21
    torch.testing.assert_close(solved.x, exact(A, b), rtol=1e-6, atol=1e-7)


def test_gmres_is_not_slower_with_the_diagonal_as_preconditioner() -> None:
    diagonal = torch.logspace(0, 4, 80, dtype=F64).unsqueeze(1)
    A = torch.diag(diagonal[:, 0]) + normal(80, 80) / 80**0.5
    b = normal(80, 1, seed=3)
    plain = gmres(lambda x: A @ x, b, tight(size=1e-8), Groups())
    tamed = gmres(lambda x: A @ x, b, tight(size=1e-8), Groups(), preconditioner=diagonal)
    assert tamed.reached.all()
    assert 3 * tamed.products < plain.products
    torch.testing.assert_close(tamed.x, exact(A, b), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [5, 60])
def test_gmres_says_when_it_cannot(size: int) -> None:
    # A shift of 60 moves nothing towards the solution before the 60th product; 5 is singular.
    shift = torch.eye(size, dtype=F64).roll(1, 0)
    A = shift if size > 20 else torch.zeros(size, size, dtype=F64)
    b = torch.zeros(size, 1, dtype=F64)
    b[0] = 1.0
    solved = gmres(lambda x: A @ x, b, tight(size=1e-8), Groups())
    assert not solved.reached.any()
    assert solved.products <= 22
    assert solved.x.isfinite().all()
    assert float(solved.residual) == pytest.approx(float(b.square().mean().sqrt()), rel=1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_elimination_solves_graphs_of_different_sizes(transposed: bool) -> None:
    A = torch.block_diag(*(regular(2 * n) for n in SIZES))
    order = torch.arange(2 * len(BATCH)).view(-1, 2)
    b = normal(len(BATCH), 2)

    def product(x: Tensor) -> Tensor:
        matrix = A.T if transposed else A
        return (matrix @ x.reshape(-1)).view(-1, 2)

    chosen = torch.tensor([True, False, True, True])
    lu = Elimination(product, b, Groups(BATCH, 4), chosen, transposed=transposed)
    right = exact(A, b.reshape(-1))[order]
    found = lu.solve(b)
    rows = chosen[BATCH]
    torch.testing.assert_close(found[rows], right[rows], rtol=1e-10, atol=1e-11)
    assert not found[~rows].any()
    assert lu.regular.tolist() == chosen.tolist()


def test_elimination_says_which_graph_is_singular() -> None:
    A = torch.block_diag(regular(3), torch.zeros(2, 2, dtype=F64))
    groups = Groups(torch.tensor([0, 0, 0, 1, 1]), 2)
    lu = Elimination(lambda x: A @ x, normal(5, 1), groups, torch.tensor([True, True]))
    assert lu.regular.tolist() == [True, False]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [20, 130])
@pytest.mark.parametrize("even", [False, True])
def test_the_resolvent_finds_a_way(size: int, transposed: bool, even: bool) -> None:
    J = normal(size, size) / size**0.5 - 2 * torch.eye(size, dtype=F64)
    J = (J + J.T) / 2 if even else J
    jacobian = Recorded(lambda y: J @ y, normal(size, 1, seed=1), lambda: None)
    used: set[str] = set()
    resolvent = Resolvent(
        jacobian, 0.7, Groups(), torch.tensor([even]), transposed=transposed, used=used
    )
    b = normal(size, 1, seed=2)
    found = resolvent.solve(b, tight(size=1e-11))
    A = torch.eye(size, dtype=F64) - 0.7 * (J.T if transposed else J)
    assert found.reached.all()
    assert used == {"LU" if size == 20 else "conjugate gradients" if even else "GMRES"}
    torch.testing.assert_close(found.x, exact(A, b), rtol=1e-8, atol=1e-9)


def test_what_was_taken_for_symmetric_falls_back_to_gmres() -> None:
    J = normal(130, 130) / 130**0.5 - torch.eye(130, dtype=F64)
    jacobian = Recorded(lambda y: J @ y, normal(130, 1), lambda: None)
    resolvent = Resolvent(jacobian, 1.0, Groups(), torch.tensor([True]))
    b = normal(130, 1, seed=2)
    found = resolvent.solve(b, tight(size=1e-10))
    assert found.reached.all()
    assert not resolvent.symmetric.any()
    torch.testing.assert_close(
        found.x, exact(torch.eye(130, dtype=F64) - J, b), rtol=1e-7, atol=1e-8
    )


def test_indefinite_systems_fall_back_to_gmres() -> None:
    J = torch.diag(torch.linspace(-3, 0, 130, dtype=F64))
    J[-1, -1] = 3.0
    jacobian = Recorded(lambda y: J @ y, normal(130, 1), lambda: None)
    used: set[str] = set()
    resolvent = Resolvent(jacobian, 1.0, Groups(), torch.tensor([True]), used=used)
    b = torch.ones(130, 1, dtype=F64)
    b[-1] = 20.0
    found = resolvent.solve(b, tight(size=1e-8))
    assert used == {"conjugate gradients", "GMRES"}
    assert found.reached.all()
    torch.testing.assert_close(found.x, b / (1 - J.diagonal().unsqueeze(1)), rtol=1e-6, atol=1e-6)
