"""Directional averages and derivatives, and the eigenvector that they follow by default."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.linalg import eigh

from neuralpde import Graph, catalogue
from neuralpde.operators import directional, fiedler
from tests.strategies import dense, graphs, quietly


@settings(max_examples=20)
@given(graphs(loops=True))
def test_matrices_are_the_normalised_differences(graph: Graph) -> None:
    phi = torch.randn(graph.num_nodes, dtype=torch.float64)
    there = (dense(graph) > 0).double()
    F = there * (phi[None, :] - phi[:, None])
    size = F.abs().sum(1, keepdim=True)
    F = F / torch.where(size > 0, size, 1.0)
    average, derivative = directional(graph, "average", phi), directional(graph, "derivative", phi)
    torch.testing.assert_close(average.to_dense(), F.abs())
    torch.testing.assert_close(derivative.to_dense(), F - torch.diag(F.sum(1)))
    assert average.stochastic == ("row" if (size > 0).all() else None)
    assert (derivative @ torch.ones(graph.num_nodes, dtype=torch.float64)).abs().max() < 1e-14
    torch.testing.assert_close(directional(graph, "average", -phi).to_dense(), F.abs())
    torch.testing.assert_close(
        directional(graph, "derivative", -phi).to_dense(), -derivative.to_dense()
    )


def test_the_derivative_of_a_line_along_itself_is_its_slope() -> None:
    # At an inner node of a path F is (-1/2, 1/2): half the difference of the neighbours.
    B = directional(catalogue.path(5), "derivative", torch.arange(5.0))
    x = torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0], dtype=torch.float64)
    assert (B @ x)[1:-1].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("graph", [catalogue.barbell(5, 3), catalogue.path(200)])
def test_fiedler_is_the_second_generalised_eigenvector(graph: Graph) -> None:
    # 200 nodes go by Lanczos.
    L = graph.laplacian(dtype=torch.float64).to_dense().numpy()
    D = np.diag(L.diagonal())
    expected = eigh(L, D)[1][:, 1]
    found = fiedler(graph).numpy()
    assert abs(found @ D @ found - 1) < 1e-10
    assert abs(abs(found @ D @ expected) - 1) < 1e-10


def test_every_component_has_its_own_and_lonely_nodes_none() -> None:
    one, two = catalogue.barbell(3, 1), catalogue.path(4)
    union = Graph.union([one, Graph(torch.zeros(2, 0).long(), 1), two])
    found = fiedler(union)
    torch.testing.assert_close(found[:7].abs(), fiedler(one).abs())
    assert found[7] == 0
    torch.testing.assert_close(found[8:].abs(), fiedler(two).abs())


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="allowed: average, derivative"):
        directional(catalogue.path(3), "mean")
    with pytest.raises(ValueError, match="function on 3 nodes"):
        directional(catalogue.path(3), phi=torch.ones(2))
    with pytest.raises(ValueError, match="undirected first"):
        fiedler(quietly(torch.tensor([[0, 1], [1, 2]]), 3))
