"""Gradients by the implicit function theorem: against dense computations and differences."""

import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND, Diffusion, Field, Reaction
from neuralpde.operators import SparseOperator
from solvers.implicit import DiagonallyImplicit
from solvers.implicit_tableaus import IMPLICIT_TABLEAUS

F64 = torch.float64
NAMES = tuple(IMPLICIT_TABLEAUS)
every = pytest.mark.parametrize("name", NAMES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def exactly(name: str) -> DiagonallyImplicit:
    """The method with stages solved to rounding, so that differences can be trusted."""
    return DiagonallyImplicit(IMPLICIT_TABLEAUS[name], exact=1e-14)


KINDS = ("symmetric", "metric", "none")
METRIC = torch.tensor([1.0, 2.0, 3.0, 1.5, 0.7, 1.0, 2.5], dtype=F64)


def operator(graph: Graph, values: Tensor, kind: str) -> SparseOperator:
    """W - I with free, symmetric or self-adjoint W on the edges."""
    row, col = graph.pattern.row, graph.pattern.col.long()
    if kind == "none":
        return SparseOperator(graph.pattern, values).shifted(1.0, -1.0)
    twin = torch.argsort(torch.argsort(col * graph.num_nodes + row))
    even = values + values[torch.argsort(twin)]
    if kind == "symmetric":
        return SparseOperator(graph.pattern, even, symmetric=True).shifted(1.0, -1.0)
    metric = METRIC[: graph.num_nodes]
    return SparseOperator(graph.pattern, even / metric[row], metric=metric).shifted(1.0, -1.0)


class Reacting(Field):
    """(W - 1) x + k (x - x^3) + tanh(x W') cos t: a weight per edge, a rate, a matrix."""

    batched_time = True

    def __init__(self, edges: Tensor, weight: Tensor, rate: Tensor, kind: str) -> None:
        super().__init__()
        self.edges, self.weight, self.rate, self.kind = edges, weight, rate, kind
        self.pointwise = not weight.requires_grad

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.operator = operator(graph, self.edges, self.kind)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        out = self.rate * (x - x**3)
        return out if self.pointwise else out + torch.tanh(x @ self.weight) * torch.cos(t)


@pytest.mark.parametrize("kind", KINDS)
def test_the_operators_of_these_tests_are_what_they_say(kind: str) -> None:
    graph = catalogue.barbell(3, 1)
    A = operator(graph, normal(graph.pattern.nnz), kind)
    dense, weight = A.to_dense(), METRIC if kind == "metric" else torch.ones(7, dtype=F64)
    weighted = weight.unsqueeze(1) * dense
    assert A.self_adjoint == torch.allclose(weighted, weighted.T) == (kind != "none")


@every
@pytest.mark.parametrize("pointwise", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("grad", ["tape", pytest.param("replay", marks=pytest.mark.slow)])
def test_gradients_are_those_of_differences(name: str, pointwise: bool, grad: str) -> None:
    path = catalogue.path(3)

    def final(x0: Tensor, edges: Tensor, weight: Tensor, rate: Tensor) -> Tensor:
        field = Reacting(edges, weight, rate, "symmetric")
        return solve(field, x0, 1.5, path, solver=exactly(name), steps=3, grad=grad).final

    inputs = (normal(3, 2), normal(4, seed=1) / 4, normal(2, 2, seed=2), normal(1, seed=3).exp())
    inputs = tuple(part.requires_grad_() for part in inputs)
    if pointwise:
        inputs[2].requires_grad_(False)
    assert torch.autograd.gradcheck(final, inputs, eps=1e-6, atol=1e-8, rtol=1e-7)


def dense_solution(name: str, A: Tensor, x: Tensor, h: float, steps: int) -> Tensor:
    """The method for x' = A x by dense solves, differentiated by torch through all of them."""
    tableau = IMPLICIT_TABLEAUS[name]
    system = torch.eye(len(A), dtype=F64) - h * float(tableau.d) * A
    for _ in range(steps):
        ks = [A @ x]
        for row in tableau.a[1:]:
            right = x + h * sum(float(w) * k for w, k in zip(row, ks, strict=False))
            y = torch.linalg.solve(system, right)
            ks.append(A @ y)
        x = y
    return x


@every
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_dense_solves(name: str, kind: str) -> None:
    graph = catalogue.barbell(3, 1)
    pull, first, edges = normal(7, 2, seed=5), normal(7, 2), normal(graph.pattern.nnz, seed=4) / 3
    found = []
    for dense in (True, False):
        x0, values = first.clone().requires_grad_(), edges.clone().requires_grad_()
        if dense:
            end = dense_solution(name, operator(graph, values, kind).to_dense(), x0, 0.5, 4)
        else:
            field = Diffusion(lambda graph, x0, w=values: operator(graph, w, kind))
            end = solve(field, x0, 2.0, graph, solver=exactly(name), steps=4).final
        found.append(torch.autograd.grad((pull * end).sum(), (x0, values)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


class Coupled(nn.Module):
    """A large field without structure: adjoint systems go by GMRES."""

    def __init__(self, size: int, even: bool) -> None:
        super().__init__()
        W = normal(size, size) / size**0.5
        self.weight = nn.Parameter((W + W.T) / 2 if even else W)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.weight @ x - 2 * x - x**3


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("how", [{"steps": 3}, {"rtol": 1e-3}], ids=["fixed", "adaptive"])
def test_tape_and_replay_agree_without_structure(even: bool, how: dict) -> None:
    found = []
    for grad in ("tape", "replay"):
        field, x0 = Coupled(110, even), normal(110, 1).requires_grad_()
        traj = solve(field, x0, 1.0, solver="trbdf2", grad=grad, **how)
        found.append(torch.autograd.grad(traj.final.square().sum(), (x0, field.weight)))
    for a, b in zip(*found, strict=True):
        assert a.abs().max() > 1e-2
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_gradients_through_attention_are_those_of_differences() -> None:
    graph = catalogue.ring(6)
    torch.manual_seed(0)
    field = GRAND(2, attention_dim=2, variant="nonlinear").double()
    x0, direction = normal(6, 2), normal(2, 2, seed=1)
    weight = field.attention.query.weight

    def end() -> Tensor:
        how = {"solver": exactly("trbdf2"), "steps": 4}
        return solve(field, x0, 3.0, graph, **how).final.square().sum()

    (g,) = torch.autograd.grad(end(), weight)
    ends = []
    with torch.no_grad():
        for shift in (1e-4, -2e-4):
            weight.add_(shift * direction)
            ends.append(end().item())
    differences = (ends[0] - ends[1]) / 2e-4
    assert float((g * direction).sum()) == pytest.approx(differences, rel=1e-6)


def test_a_graph_that_has_failed_does_not_spoil_the_gradients_of_others() -> None:
    class Blowing(Field):
        batched_time = True

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return x**2

    batch = Graph.union([catalogue.path(2), catalogue.path(2)])
    x0 = torch.tensor([[0.1], [0.2], [1.0], [2.0]], dtype=F64).requires_grad_()
    how = {"solver": "trbdf2", "rtol": 1e-4, "raise_on_failure": False, "max_steps": 80}
    for grad in ("tape", "replay"):
        traj = solve(Blowing(), x0, 2.0, batch, grad=grad, **how)
        (g,) = torch.autograd.grad(traj.final[:2].sum(), x0)
        torch.testing.assert_close(g[:2], 1 / (1 - 2 * x0[:2].detach()) ** 2, rtol=5e-3, atol=0)
        assert not g[2:].any()


def test_complex_states_have_gradients() -> None:
    rate = torch.tensor([-1.0 + 2.0j, -0.5 + 1.0j], dtype=torch.complex128, requires_grad=True)

    def final(x0: Tensor, rate: Tensor) -> Tensor:
        def field(t: Tensor, x: Tensor) -> Tensor:
            return rate * x - x * x.abs() ** 2 / 5 + x.conj() / 3

        return solve(field, x0, 1.0, solver=exactly("trbdf2"), steps=3, grad="tape").final

    x0 = torch.complex(normal(2), normal(2, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(final, (x0, rate), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_without_anything_to_differentiate_nothing_requires_a_gradient() -> None:
    traj = solve(lambda t, x: -x, torch.ones(2, dtype=F64), 1.0, solver="trbdf2", steps=2)
    assert not traj.final.requires_grad


def test_a_second_derivative_is_refused() -> None:
    x0 = normal(3, 1).abs().requires_grad_()
    end = solve(Reaction.fisher(), x0, 1.0, solver="trbdf2", steps=2, grad="tape").final
    (g,) = torch.autograd.grad(end.sum(), x0, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(g.sum(), x0)
