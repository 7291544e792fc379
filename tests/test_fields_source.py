"""Sources: what they do to the mean, and what centring takes out."""

import pytest
import torch
from torch import Tensor

from neuralpde import catalogue, solve
from neuralpde.fields import GRAND, Heat, Source
from neuralpde.graph import Graph
from neuralpde.testing import check_field
from tests.strategies import quietly

F64 = torch.float64
GRAPH = catalogue.barbell(3, 1)
NORMS = ("comb", "rw", "sym", "augmented")


def state(nodes: int = 7) -> Tensor:
    return torch.randn(nodes, 2, dtype=F64)


def kernel(graph: Graph, norm: str) -> Tensor:
    """Left null vector of L."""
    L = graph.to(dtype=F64).laplacian(norm).to_dense()
    values, vectors = torch.linalg.eig(L.T)
    return vectors[:, values.real.abs().argmin()].real


@pytest.mark.parametrize("norm", NORMS)
def test_a_source_makes_the_stationary_mean_grow_linearly(norm: str) -> None:
    x, pi = state(), kernel(GRAPH, norm)
    final = solve(Heat(norm) + Source(0.3, of_x0=True), x, 100.0, GRAPH, rtol=1e-10).final
    torch.testing.assert_close(pi @ final, (1 + 30.0) * (pi @ x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("norm", NORMS)
def test_a_centred_source_keeps_features_bounded(norm: str) -> None:
    x, pi = state(), kernel(GRAPH, norm)
    field = Heat(norm) + Source(0.3, of_x0=True, centred=norm)
    times = torch.tensor([0.0, 4e2, 8e2], dtype=F64)
    early, late = solve(field, x, times, GRAPH, rtol=1e-9).x[1:]
    torch.testing.assert_close(pi @ late, pi @ x, rtol=1e-6, atol=1e-6)
    # A steady state L x = source, which no longer moves and is not constant.
    torch.testing.assert_close(late, early, rtol=1e-5, atol=1e-5)
    L = GRAPH.to(dtype=F64).laplacian(norm).to_dense()
    bound = field.bind(GRAPH, x)
    torch.testing.assert_close(L @ late, bound.source, rtol=1e-5, atol=1e-5)
    assert (L @ late).abs().max() > 1e-2


def test_each_component_of_each_graph_is_centred_by_itself() -> None:
    pair = Graph(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), num_nodes=5)
    union = Graph.union([pair, catalogue.star(4)])
    x = state(9)
    for norm in ("comb", "rw"):
        source = Source(2.0, of_x0=True, centred=norm).bind(union, x).source
        degree = torch.tensor([1.0, 1, 1, 1, 1, 3, 1, 1, 1], dtype=F64)[:, None]
        mass = degree if norm == "rw" else torch.ones_like(degree)
        for part in ([0, 1], [2, 3], [4], [5, 6, 7, 8]):
            mean = (mass[part] * x[part]).sum(0) / mass[part].sum()
            torch.testing.assert_close(source[part], 2.0 * (x[part] - mean))


def test_any_stationary_distribution_may_be_given() -> None:
    x, field = state(), GRAND(2, rate=1.0).double()
    with torch.no_grad():
        A = field.bind(GRAPH, x).operator.to_dense()
        values, vectors = torch.linalg.eig(A.T)
        pi = vectors[:, values.real.abs().argmin()].real.abs()
        both = field + Source(0.5, of_x0=True, centred=pi)
        final = solve(both, x, 200.0, GRAPH, rtol=1e-9).final
    torch.testing.assert_close(pi @ final, pi @ x, rtol=1e-7, atol=1e-7)


def test_weights_are_shares_of_each_graph() -> None:
    union = Graph.union([catalogue.path(2), catalogue.path(2)])
    x = torch.tensor([[1.0], [3.0], [5.0], [9.0]], dtype=F64)
    weights = torch.tensor([1.0, 3.0, 10.0, 10.0])
    source = Source(1.0, of_x0=True, centred=weights).bind(union, x).source
    assert source.flatten().tolist() == [-1.5, 0.5, -2.0, 2.0]


@pytest.mark.parametrize("centred", [None, "comb", "rw", "sym"])
def test_it_keeps_the_contract(centred: str | None) -> None:
    strength = torch.nn.Parameter(torch.tensor([0.3, -0.5, 1.0]))
    check_field(Heat("rw") + Source(strength, of_x0=True, centred=centred), GRAPH)


def test_centring_needs_a_graph_and_a_stationary_distribution() -> None:
    x = state(3)
    with pytest.raises(ValueError, match="flows on a graph"):
        Source(centred="comb").bind(None, x)
    with pytest.raises(ValueError, match="pass it as weights"):
        Source(centred="rw").bind(quietly(torch.tensor([[0, 1], [1, 2]])), x)
    with pytest.raises(ValueError, match="one weight per node"):
        Source(centred=torch.ones(2)).bind(catalogue.path(3), x)
    with pytest.raises(ValueError, match="add up to zero"):
        Source(centred=torch.zeros(3)).bind(catalogue.path(3), x)
    with pytest.raises(ValueError, match="unknown norm"):
        Source(centred="row").bind(catalogue.path(3), x)
