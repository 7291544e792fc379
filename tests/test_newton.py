"""Newton's iteration and the Jacobians it works with: against closed forms and dense matrices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.nn import GATv2Conv, GCNConv

from neuralpde import catalogue
from neuralpde.operators.product import products
from solvers.groups import Groups
from solvers.jacobian import Jacobian, Recorded, Split, looks_symmetric, twice_differentiable
from solvers.newton import Equations, Newton

F64 = torch.float64
THREE = Groups(torch.tensor([0, 0, 1, 2, 2]), 3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def full(f: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """The Jacobian, entry by entry."""
    return torch.autograd.functional.jacobian(f, y).reshape(y.numel(), y.numel())


def assert_jacobian(J: Jacobian, f: Callable[[Tensor], Tensor], y: Tensor) -> None:
    v, g, dense = normal(*y.shape, seed=7), normal(*y.shape, seed=8), full(f, y)
    torch.testing.assert_close(J.value, f(y).detach())
    torch.testing.assert_close(J.times(v).reshape(-1), dense @ v.reshape(-1))
    torch.testing.assert_close(J.transposed(g).reshape(-1), dense.T @ g.reshape(-1))


class Counter:
    def __init__(self) -> None:
        self.total = 0

    def __call__(self) -> None:
        self.total += 1


@pytest.mark.parametrize("conv", [GCNConv, GATv2Conv])
def test_products_with_the_jacobian_of_a_layer_are_right(conv: Any) -> None:
    graph = catalogue.barbell(3, 1)
    layer = conv(2, 2).double()

    def f(y: Tensor) -> Tensor:
        return torch.tanh(layer(y, graph.edge_index)) - y**3

    y = normal(graph.num_nodes, 2)
    assert_jacobian(Recorded(f, y, Counter()), f, y)


def test_a_product_with_the_jacobian_costs_one_sparse_product() -> None:
    A = catalogue.barbell(4, 2).adjacency("row").to(F64)
    count = Counter()
    J = Recorded(lambda y: torch.tanh(A @ y), normal(10, 2), count)
    J.times(normal(10, 2))
    before, counted = products.total, count.total
    J.times(normal(10, 2, seed=1))
    J.transposed(normal(10, 2, seed=1))
    assert products.total - before == count.total - counted == 2
    # The evaluation, the second recording, three products.
    assert count.total == 5


def test_an_operator_with_a_pointwise_rest_needs_no_recording() -> None:
    graph = catalogue.star(5)
    A = graph.laplacian("rw").to(F64) * -2.0
    source, y = normal(5, 2, seed=3), normal(5, 2)

    def rest(y: Tensor) -> Tensor:
        return y - y**3

    J = Split(A, source, rest, y, Counter())
    assert_jacobian(J, lambda y: A @ y + source + rest(y), y)
    dense = full(lambda y: A @ y + rest(y), y)
    torch.testing.assert_close(J.diagonal.reshape(-1), dense.diagonal())
    assert J.symmetric
    assert J.metric is not None


class Once(torch.autograd.Function):
    """-y^3, which can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return -(y**3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return -3 * y**2 * g


@pytest.mark.parametrize("f", [Once.apply, lambda y: torch.from_numpy(-(y.detach().numpy() ** 3))])
def test_differences_stand_in_where_there_is_no_second_derivative(f: Any) -> None:
    y = torch.tensor([[1.0], [2.0], [1e-3], [-3e4], [1e5]], dtype=F64)
    assert not twice_differentiable(Recorded(f, y, Counter(), THREE), THREE)
    J = Recorded(f, y, Counter(), THREE, differences=True)
    v = torch.tensor([[1.0], [1.0], [1e-9], [1.0], [1e-3]], dtype=F64)
    torch.testing.assert_close(J.times(v), -3 * y**2 * v, rtol=1e-4, atol=1e-8)


def test_a_part_that_is_differentiable_once_is_found_out() -> None:
    # Torch returns the other part alone.
    y = normal(5, 1)
    assert not twice_differentiable(
        Recorded(lambda y: y.sin() + Once.apply(y), y, Counter()), THREE
    )
    assert twice_differentiable(Recorded(lambda y: y.sin() - y**3, y, Counter()), THREE)


def test_symmetry_is_seen_graph_by_graph() -> None:
    J = torch.block_diag(normal(2, 2), normal(1, 1), torch.eye(2, dtype=F64))
    looked = looks_symmetric(Recorded(lambda y: J @ y, normal(5, 3), Counter(), THREE), THREE)
    assert looked.tolist() == [False, True, True]


class Roots:
    """f(c, y) = -k y^3, so that a stage is y + s k y^3 = right."""

    linear = False

    def __init__(self, stiffness: Tensor) -> None:
        self.k, self.evaluations, self.jacobians = stiffness, 0, 0

    def value(self, c: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        return -self.k * y**3

    def linearised(self, c: Tensor, y: Tensor) -> Jacobian:
        self.jacobians += 1
        return Recorded(lambda y: -self.k * y**3, y, Counter(), THREE)


def newton(
    field: Any,
    weight: float = 1e10,
    seen: float = torch.inf,
    moving: tuple[bool, ...] = (True,) * 3,
) -> Newton:
    known = torch.full((3, 2), seen, dtype=F64)
    moves = torch.tensor(moving)
    equations = Equations(field, 1.0, torch.tensor(weight, dtype=F64), THREE, moves, 1.0)
    return Newton(equations, known, torch.tensor([True] * 3))


STIFFNESS = torch.tensor([1.0, 1.0, 50.0, 0.0, 0.0], dtype=F64).unsqueeze(1)
TARGET = torch.tensor([[0.5], [0.8], [1.2], [0.3], [2.0]], dtype=F64)
RIGHT = TARGET + STIFFNESS * TARGET**3
GUESS = 2 * TARGET


def test_every_graph_finds_its_root() -> None:
    field = Roots(STIFFNESS)
    found = newton(field).solve(1.0, RIGHT, 2 * TARGET, torch.zeros_like(RIGHT))
    torch.testing.assert_close(found, TARGET, rtol=0, atol=2e-10)


def test_graphs_that_are_done_stand_still() -> None:
    loose = newton(Roots(STIFFNESS), weight=1e2).solve(1.0, RIGHT, GUESS, GUESS)
    for g, rows in enumerate([[0, 1], [2], [3, 4]]):
        alone = tuple(k == g for k in range(3))
        solo = newton(Roots(STIFFNESS), 1e2, moving=alone).solve(1.0, RIGHT, GUESS, GUESS)
        torch.testing.assert_close(loose[rows], solo[rows], rtol=1e-14, atol=1e-15)
        others = [k for k in range(5) if k not in rows]
        assert torch.equal(solo[others], GUESS[others])
    # The tolerance is 1e-2, the error left is an estimate.
    assert 1e-5 < (loose - TARGET).abs().max() < 3e-2


def test_a_linear_stage_takes_one_iteration() -> None:
    class Linear(Roots):
        linear = True

        def linearised(self, c: Tensor, y: Tensor) -> Jacobian:
            self.jacobians += 1
            return Recorded(lambda y: -self.k * y, y, Counter(), THREE)

    field = Linear(STIFFNESS)
    found = newton(field).solve(1.0, RIGHT, 0 * RIGHT, 0 * RIGHT)
    torch.testing.assert_close(found, RIGHT / (1 + STIFFNESS))
    assert (field.jacobians, field.evaluations) == (1, 0)


def test_a_contraction_known_from_before_saves_the_check() -> None:
    near = TARGET * (1 + 1e-4)
    new, known = Roots(STIFFNESS), Roots(STIFFNESS)
    newton(new, weight=1e4).solve(1.0, RIGHT, near, near)
    newton(known, weight=1e4, seen=1e-5).solve(1.0, RIGHT, near, near)
    assert (known.jacobians, known.evaluations) == (1, 0)
    assert (new.jacobians, new.evaluations) == (1, 1)


def test_a_jacobian_that_is_of_no_use_any_more_is_replaced() -> None:
    field = Roots(STIFFNESS)
    iteration = newton(field)
    iteration.solve(0.5, RIGHT, TARGET, TARGET)
    assert field.jacobians == 1
    far = 8 * TARGET + STIFFNESS * (8 * TARGET) ** 3
    found = iteration.solve(1.0, far, 6 * TARGET, 6 * TARGET)
    torch.testing.assert_close(found, 8 * TARGET, rtol=0, atol=2e-10)
    assert field.jacobians > 1


class Kink(Roots):
    """f = -sign(y) sqrt|y| k: Newton jumps to and fro around the root."""

    def value(self, c: Tensor, y: Tensor) -> Tensor:
        return self.of(y)

    def of(self, y: Tensor) -> Tensor:
        return -self.k * y.sign() * (y.abs() + 1e-30).sqrt()

    def linearised(self, c: Tensor, y: Tensor) -> Jacobian:
        # The wrong sign, as of a field whose derivative is wrong.
        right = Recorded(self.of, y, Counter(), THREE)
        wrong = Recorded(lambda y: -self.of(y), y, Counter(), THREE)
        wrong.value = right.value
        return wrong


def test_a_graph_that_does_not_converge_is_named_and_spares_the_others() -> None:
    field = Kink(STIFFNESS)
    safe = torch.full_like(RIGHT, 7.0)
    iteration = newton(field)
    found = iteration.solve(1.0, RIGHT, RIGHT, safe)
    assert iteration.unsolved.tolist() == [True, True, False]
    assert not iteration.unsolvable.any()
    assert "Newton's iteration did not converge (contraction" in iteration.text
    assert torch.equal(found[:3], safe[:3])
    torch.testing.assert_close(found[3:], RIGHT[3:])


def test_a_field_that_is_not_finite_on_the_way_is_told_apart() -> None:
    class Blind(Roots):
        def linearised(self, c: Tensor, y: Tensor) -> Jacobian:
            hole = torch.where(self.k > 10, torch.nan, 0.0)
            return Recorded(lambda y: -self.k * y**3 + hole, y, Counter(), THREE)

    iteration = newton(Blind(STIFFNESS))
    found = iteration.solve(1.0, RIGHT, RIGHT, 0 * RIGHT)
    assert iteration.unsolved.tolist() == [False, True, False]
    assert "not finite" in iteration.text
    torch.testing.assert_close(found[[0, 1, 3, 4]], TARGET[[0, 1, 3, 4]])


def test_a_singular_system_is_told_apart() -> None:
    class Wall(Roots):
        linear = True

        def linearised(self, c: Tensor, y: Tensor) -> Jacobian:
            return Recorded(lambda y: torch.where(self.k > 10, y, 0 * y), y, Counter(), THREE)

    iteration = newton(Wall(STIFFNESS))
    iteration.solve(1.0, RIGHT, 0 * RIGHT, 0 * RIGHT)
    assert iteration.unsolvable.tolist() == [False, True, False]
    assert "linear system" in iteration.text


def test_an_error_loses_its_stiff_part() -> None:
    iteration = newton(Roots(STIFFNESS))
    y = iteration.solve(1.0, RIGHT, TARGET, TARGET)
    torch.testing.assert_close(
        iteration.filtered(torch.ones_like(y)), 1 / (1 + 3 * STIFFNESS * TARGET**2)
    )
