"""Compiled fields are the fields: torch.compile sees one graph, of which it changes no number."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue
from neuralpde.fields.field import Field, State
from neuralpde.fields.registry import FIELDS, first_state
from neuralpde.operators import (
    Attention,
    Pattern,
    SparseOperator,
    gather_dot,
    multiply_transposed,
    products,
)
from neuralpde.operators.linear import Combination
from neuralpde.operators.tracing import gather_dot as traced_dot
from neuralpde.operators.tracing import multiply as traced_product

DOUBLE = torch.float64

# Bound fields hold views of their parameters. Dynamo looks at `.grad` of whatever it meets and
# keeps the warning about views from being shown, but not from becoming an error.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing compiled for one test is there in another."""
    yield
    torch.compiler.reset()


def compiled(call: Any) -> Any:
    return torch.compile(call, fullgraph=True, backend="aot_eager")


def parts(x: State) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def bound(name: str, graph: Graph) -> tuple[Field, State]:
    """The example of the registry, bound, and a state with gradients."""
    entry = FIELDS[name]
    channels = entry.channels or 3
    field = entry.make(channels).double().eval()
    start = torch.rand(graph.num_nodes, channels, dtype=DOUBLE)
    x = first_state(field, graph, start)
    found = field.bind(graph, x)
    leaves = tuple(part.detach().clone().requires_grad_() for part in parts(x))
    return found, leaves if isinstance(x, tuple) else leaves[0]


def slopes_and_gradients(
    call: Callable[[Tensor, Any], Any], field: Field, x: State, t: float
) -> list[Tensor | None]:
    """Of the field or of what it was compiled to, in the state and in all that the field learns."""
    slopes = parts(call(torch.tensor(t, dtype=DOUBLE), x))
    loss = sum((slope.abs() * (slope.abs() + 1)).sum() for slope in slopes)
    inputs = [*parts(x), *field.leaves()]
    return [*slopes, *torch.autograd.grad(loss, inputs, allow_unused=True)]


def assert_same(left: list[Tensor | None], right: list[Tensor | None]) -> None:
    assert len(left) == len(right)
    for one, two in zip(left, right, strict=True):
        assert (one is None) is (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", FIELDS)
def test_a_compiled_field_has_the_slopes_and_gradients_of_the_field(name: str) -> None:
    f, x = bound(name, catalogue.grid(3, 3))
    quick = compiled(f)
    for t in (0.0, 0.7):
        # What is compiled for one time serves all.
        with torch.compiler.set_stance("default" if t == 0.0 else "fail_on_recompile"):
            found = slopes_and_gradients(quick, f, x, t)
        assert_same(found, slopes_and_gradients(f, f, x, t))


@pytest.mark.parametrize("name", ["heat", "grand-nonlinear"])
def test_two_compilations_serve_bindings_to_graphs_of_any_size(name: str) -> None:
    found = []
    for graph in (catalogue.grid(3, 3), catalogue.star(6), catalogue.ring(9), catalogue.path(5)):
        f, x = bound(name, graph)
        found.append((compiled(f), f, x))
    for number, (quick, f, x) in enumerate((*found, *reversed(found))):
        with torch.compiler.set_stance("default" if number < 2 else "fail_on_recompile"):
            slopes = slopes_and_gradients(quick, f, x, 0.2)
        assert_same(slopes, slopes_and_gradients(f, f, x, 0.2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["wave", "grand-nonlinear"])
def test_so_does_a_field_compiled_to_machine_code(name: str) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.fail("torch.compile's own backend needs a C++ compiler")
    f, x = bound(name, catalogue.grid(3, 3))
    quick = torch.compile(f, fullgraph=True)
    both = (slopes_and_gradients(call, f, x, 0.2) for call in (quick, f))
    assert_same(*both)


def test_operators_of_every_make_compile() -> None:
    edges = torch.tensor([[0, 1, 2, 3, 3, 3], [1, 2, 0, 4, 5, 6]])
    edges, batch = torch.cat([edges, edges.flip(0)], 1), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    graph = Graph(edges, batch=batch).to(dtype=DOUBLE)
    L, P = graph.laplacian("comb"), graph.adjacency("row")
    scale = torch.tensor([2.0, 3.0], dtype=DOUBLE, requires_grad=True)
    mixed = Combination([(scale, L), (0.5, P)], 0.25)
    x = torch.randn(graph.num_nodes, 2, dtype=DOUBLE)

    def everything(x: Tensor) -> tuple[Tensor, ...]:
        deep = x[:, None, :].expand(-1, 3, -1)
        return mixed @ x, P @ deep, L @ torch.complex(x, 2 * x), scale[0] * (L @ x), P @ x[:, 0]

    for one, two in zip(compiled(everything)(x), everything(x), strict=True):
        torch.testing.assert_close(one, two)
    attend = Attention(2, 4, heads=2, kernel="distance", normalise="squareplus", over="sender")
    attend, pattern = attend.double(), graph.pattern
    weights = torch.rand(pattern.nnz, dtype=DOUBLE, requires_grad=True)

    def attended(x: Tensor) -> Tensor:
        return attend(pattern, x, weights=weights, batch=batch, num_graphs=2) @ x

    torch.testing.assert_close(compiled(attended)(x), attended(x))
    half = L.to(torch.bfloat16)
    y = compiled(lambda x: half @ x)(x.bfloat16())
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, half @ x.bfloat16())


def test_compiled_products_are_counted_and_find_the_transposed_order_once() -> None:
    pattern, _ = Pattern.from_edges(torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1]), 3)
    assert "T" not in vars(pattern)
    A = SparseOperator(pattern, torch.tensor([2.0, 3.0, 5.0], dtype=DOUBLE))
    values = A.values.clone().requires_grad_()
    x = torch.randn(A.num_nodes, 2, dtype=DOUBLE, requires_grad=True)
    quick = compiled(lambda v, x: SparseOperator(A.pattern, v) @ x)
    before = products.total
    y = quick(values, x)
    assert products.total == before + 1
    to_values, to_x = torch.autograd.grad(y.sum(), (values, x))
    assert products.total == before + 2
    assert "T" in vars(A.pattern)
    dense = A.to_dense()
    torch.testing.assert_close(to_x, dense.T @ torch.ones_like(x))
    torch.testing.assert_close(to_values, x.detach().sum(1)[A.pattern.col.long()])


def test_the_operations_of_a_traced_graph_are_what_torch_expects() -> None:
    row, col = torch.randint(0, 5, (2, 11))
    pattern = Pattern.from_edges(row, col, 5)[0]
    values = torch.randn(pattern.nnz, dtype=DOUBLE, requires_grad=True)
    g, x = (torch.randn(5, 2, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    sets = pattern.crow, pattern.col
    for transposed in (False, True):
        arguments = (*sets, values, x, transposed, False)
        torch.library.opcheck(traced_product, arguments)

        def call(v: Tensor, x: Tensor, t: bool = transposed) -> Tensor:
            return traced_product(*sets, v, x, t, False)

        assert torch.autograd.gradgradcheck(call, (values, x))
    torch.library.opcheck(traced_dot, (*sets, g, x))
    torch.testing.assert_close(traced_dot(*sets, g, x), gather_dot(pattern, g, x))
    back = traced_product(*sets, values, g, True, False)
    torch.testing.assert_close(back, multiply_transposed(pattern, values, g))


def test_index_sets_without_their_pattern_serve_as_well() -> None:
    pattern = Pattern.from_edges(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1]), 3)[0]
    values, x = torch.randn(3, dtype=DOUBLE), torch.randn(3, 2, dtype=DOUBLE)
    copied = pattern.crow.clone(), pattern.col.clone()
    for transposed in (False, True):
        found = traced_product(*copied, values, x, transposed, False)
        dense = pattern.csr(values).to_dense()
        torch.testing.assert_close(found, (dense.T if transposed else dense) @ x)
    assert Pattern.of(*copied) is not pattern
    assert Pattern.of(pattern.crow, pattern.col) is pattern
