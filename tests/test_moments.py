"""Energies from Chebyshev moments against eigenvalues, and the floor they come with."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import SparseOperator, products
from solvers.exact import propagate
from solvers.moments import energy_curve

DOUBLE, SINGLE = torch.float64, torch.float32


def lollipop(clique: int = 12, tail: int = 20) -> Graph:
    edges = [(i, j) for i in range(clique) for j in range(i)]
    edges += [(i, i + 1) for i in range(clique - 1, clique + tail - 1)]
    index = torch.tensor(edges).T
    return Graph(torch.cat([index, index.flip(0)], 1), clique + tail + 1)


def centred(L: SparseOperator, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The state without its part in the kernel; eigenvalues, and squared parts along them."""
    root = (torch.ones(L.num_nodes, dtype=DOUBLE) if L.metric is None else L.metric).sqrt()[:, None]
    symmetric = root * L.to_dense() / root.T
    values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
    parts = vectors.T @ (root * x)
    parts[values.abs() < 1e-10] = 0.0
    return vectors @ parts / root, values, parts.square().sum(1)


def energies(times: np.ndarray, values: Tensor, squares: Tensor) -> np.ndarray:
    decay = np.exp(-2 * times[:, None] * values.numpy())
    return decay @ (values * squares).numpy()


@pytest.mark.parametrize("norm", ["comb", "sym", "rw", "augmented"])
@pytest.mark.parametrize("end", [1e-3, 1.0, 50.0, 1e3])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_energies_are_right_to_their_floor(norm: str, end: float, dtype: torch.dtype) -> None:
    L = lollipop().laplacian(norm, dtype=DOUBLE)
    rough = torch.randn(33, 5, dtype=DOUBLE)
    for x in (rough, torch.linalg.matrix_power(torch.eye(33) - L.to_dense() / 14, 30) @ rough):
        x = centred(L, x)[0].to(dtype)
        _, values, squares = centred(L, x.double())
        size = L.spectrum()[1].item() * squares.sum().item()
        times = np.linspace(0, end, 17)
        exact = energies(times, values, squares)
        for tol in (1e-4, 1e-7, 1e-12):
            found, floor = energy_curve(L, x, times, metric=L.metric, tol=tol)
            assert found.shape == floor.shape == (17, 1)
            assert (np.abs(found[:, 0] - exact) <= floor[:, 0]).all()
            # The floor is no cheap excuse: tolerance plus a few roundings.
            assert floor.max() <= (1.5 * tol + 100 * torch.finfo(dtype).eps) * size


def test_half_the_products_of_the_degree_suffice() -> None:
    L = lollipop().laplacian("sym", dtype=DOUBLE)
    x, values, squares = centred(L, torch.randn(33, 5, dtype=DOUBLE))
    before = products.total
    found, _ = energy_curve(L, x, np.linspace(0, 18.3, 65), tol=1e-5)
    took = products.total - before
    assert took <= 13
    assert took < propagate(-L, x, torch.tensor([0.0, 18.3]), rtol=1e-4).products
    exact = energies(np.linspace(0, 18.3, 65), values, squares)
    assert np.allclose(found[:, 0], exact, atol=2e-5 * squares.sum().item())


def test_every_graph_of_a_batch_has_its_own_curve() -> None:
    graphs = [lollipop(), lollipop(4, 3), Graph(torch.zeros(2, 0, dtype=torch.int64), 3)]
    L = Graph.union(graphs).laplacian("rw", dtype=DOUBLE)
    x = torch.randn(L.num_nodes, 2, dtype=DOUBLE)
    times = np.linspace(0, 1, 6)[:, None] * np.array([1.0, 9.0, 2.0])
    found, floor = energy_curve(L, x, times, metric=L.metric, tol=1e-9)
    start = 0
    for i, graph in enumerate(graphs):
        own = graph.laplacian("rw", dtype=DOUBLE)
        rows = slice(start, start + graph.num_nodes)
        alone, below = energy_curve(own, x[rows], times[:, i], metric=own.metric, tol=1e-9)
        assert np.allclose(found[:, i], alone[:, 0], rtol=1e-9, atol=floor[:, i].max())
        assert np.allclose(floor[:, i], below[:, 0], rtol=0.5)
        start = rows.stop
    assert (found[:, 2] == 0).all()


def test_complex_states_and_any_trailing_shape_are_sums_over_their_parts() -> None:
    L = lollipop().laplacian("sym", dtype=DOUBLE)
    times = np.array([0.0, 2.0])
    x = torch.randn(33, 2, 3, dtype=torch.complex128)
    parts = [energy_curve(L, part.contiguous(), times)[0] for part in (x.real, x.imag)]
    assert np.allclose(energy_curve(L, x, times)[0], parts[0] + parts[1], rtol=1e-10)
    flat = [
        energy_curve(L, x.real[:, i, j].contiguous(), times)[0] for i in (0, 1) for j in range(3)
    ]
    assert np.allclose(sum(flat), parts[0], rtol=1e-10)


def test_what_does_not_fit_is_refused() -> None:
    L = lollipop().laplacian("sym", dtype=DOUBLE)
    x = torch.randn(33, 2, dtype=DOUBLE)
    with pytest.raises(ValueError, match="not negative"):
        energy_curve(L, x, np.array([-1.0]))
    with pytest.raises(ValueError, match="do not fit"):
        energy_curve(L, x[:5], np.array([1.0]))
    with pytest.raises(ValueError, match="do not fit"):
        energy_curve(L, x, np.zeros((2, 3)))
    arcs = Graph(torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), 33).laplacian("comb", dtype=DOUBLE)
    with pytest.raises(ValueError, match="self-adjoint"):
        energy_curve(arcs, x, np.array([1.0]))
