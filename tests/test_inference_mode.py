"""What a graph keeps while nobody differentiates serves those who do later."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, fields, odeint, solve
from neuralpde.energies import DirichletForm, dirichlet_energy
from neuralpde.fields import Field
from neuralpde.operators import Pattern, SparseOperator
from solvers.lasting import lasting

FIELDS: dict[str, Callable[[], Field]] = {
    "heat": lambda: fields.Heat("sym"),
    "walk": lambda: fields.Heat("rw"),
    "attention": lambda: fields.GRAND(32, variant="nonlinear").eval(),
    "frozen attention": lambda: fields.GRAND(32, variant="linear").eval(),
    "reaction": lambda: fields.Heat("comb") + fields.Reaction((0.0, 1.0, 0.0, -1.0)),
}


@pytest.fixture
def graph() -> Graph:
    return catalogue.grid(20, 15)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(300, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FIELDS)
def test_a_solve_in_inference_mode_is_followed_by_any_other(
    name: str, graph: Graph, x: Tensor
) -> None:
    torch.manual_seed(0)
    field = FIELDS[name]()
    with torch.inference_mode():
        inside = solve(field, x, 2.0, graph)
        energy = inside.energy.y
    with torch.no_grad():
        outside = solve(field, x, 2.0, graph)
    assert torch.equal(inside.final, outside.final)
    torch.testing.assert_close(energy, outside.energy.y, rtol=1e-12, atol=0, equal_nan=True)
    start = x.clone().requires_grad_()
    solve(field, start, 2.0, graph).final.square().sum().backward()
    assert start.grad is not None
    assert start.grad.norm() > 0


def test_an_energy_first_read_in_inference_mode_is_no_hindrance(graph: Graph, x: Tensor) -> None:
    run = solve(fields.Heat("sym"), x, 2.0, graph)
    with torch.inference_mode():
        read = run.energy.y, run["dirichlet"].y, run.at(1.0)
    again = solve(fields.Heat("sym"), x, 2.0, graph)
    assert torch.equal(read[0], again.energy.y)
    assert torch.equal(read[1], again["dirichlet"].y)
    assert torch.equal(read[2], again.at(1.0))


@pytest.mark.parametrize("norm", ["rw", "sym"])
@pytest.mark.parametrize("made", ["inside", "outside"])
def test_operators_used_in_inference_mode_are_differentiated_later(
    norm: str, made: str, graph: Graph, x: Tensor
) -> None:
    if made == "outside":
        graph.like(x).laplacian(norm)
    with torch.inference_mode():
        L = graph.like(x).laplacian(norm)
        products = [L @ x, L.T @ x, (L * 2.0) @ x, L.shifted(2.0, 1.0) @ x]
        L.spectrum()
    L = graph.like(x).laplacian(norm)
    start = x.clone().requires_grad_()
    for known, A in zip(products, (L, L.T, L * 2.0, L.shifted(2.0, 1.0)), strict=True):
        product = A @ start
        assert torch.equal(product.detach(), known)
        (grad,) = torch.autograd.grad(product.sum(), start)
        torch.testing.assert_close(grad, A.T @ torch.ones_like(x))
    values = L.values.clone().requires_grad_()
    A = SparseOperator(L.pattern, values)
    (A @ start + A.T @ start).square().sum().backward()
    assert values.grad is not None


def test_patterns_first_used_in_inference_mode_serve_gradients() -> None:
    pattern, _ = Pattern.from_edges(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), 3)
    values, x = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0], [10.0], [100.0]])
    with torch.inference_mode():
        known = SparseOperator(pattern, values).T @ x
        copies = pattern.copies(2)
    values.requires_grad_()
    found = SparseOperator(pattern, values).T @ x
    assert torch.equal(found.detach(), known)
    (grad,) = torch.autograd.grad(found.sum(), values)
    assert grad.tolist() == [1.0, 1.0, 10.0]
    assert pattern.copies(2) is copies
    assert not copies.row.is_inference()
    assert not copies.crow.is_inference()


def test_what_a_users_field_keeps_lasts(x: Tensor) -> None:
    kept: list[Tensor] = []

    def f(t: Tensor, x: Tensor) -> Tensor:
        if not kept:
            kept.append(torch.empty_like(x))
        return kept[0].copy_(x).neg()

    with torch.inference_mode():
        known = solve(f, x, 1.0).final
    with torch.no_grad():
        assert torch.equal(solve(f, x, 1.0).final, known)


def test_forms_used_in_inference_mode_are_used_later(graph: Graph, x: Tensor) -> None:
    with torch.inference_mode():
        known = dirichlet_energy(x, graph)
        parts = DirichletForm.of(graph.like(x), "sym").parts(x)
    assert torch.equal(dirichlet_energy(x, graph), known)
    assert torch.equal(DirichletForm.of(graph.like(x), "sym").parts(x).energy, parts.energy)
    start = x.clone().requires_grad_()
    dirichlet_energy(start, graph).sum().backward()
    torch.testing.assert_close(
        start.grad, 2 * (graph.like(x).laplacian("comb") @ x), atol=1e-4, rtol=1e-4
    )


def test_a_graph_made_in_inference_mode_can_be_solved_on_later(x: Tensor) -> None:
    with torch.inference_mode():
        graph = catalogue.grid(20, 15)
        known = solve(fields.Heat("sym"), x, 2.0, graph).final
    start = x.clone().requires_grad_()
    found = solve(fields.Heat("sym"), start, 2.0, graph).final
    assert torch.equal(found.detach(), known)
    found.sum().backward()


def test_odeint_runs_in_inference_mode_and_after_it(graph: Graph, x: Tensor) -> None:
    A = graph.like(x).adjacency("row")
    times = torch.tensor([0.0, 1.0])
    with torch.inference_mode():
        known = odeint(lambda t, x: A @ x - x, x, times)
    start = x.clone().requires_grad_()
    found = odeint(lambda t, x: A @ x - x, start, times)
    assert torch.equal(found.detach(), known)
    found.sum().backward()


def test_lasting_tensors_are_ordinary_ones() -> None:
    weight = torch.ones(1, requires_grad=True)
    with torch.inference_mode(), lasting():
        made = weight * 2.0
        assert not torch.is_inference_mode_enabled()
    assert not made.is_inference()
    assert not made.requires_grad
    with lasting():
        assert (weight * 2.0).requires_grad
