"""Weights that change in time: scipy on dense matrices, orders, exact pieces."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat, Varying
from neuralpde.testing import check_field
from tests.strategies import quietly

F64 = torch.float64
GRAPH = catalogue.barbell(3, 1)
TIMES = [0.0, 0.7, 1.5, 2.0]


def snapshots(count: int = 4, graph: Graph = GRAPH) -> Tensor:
    """Symmetric weights, some of them zero."""
    generator = torch.Generator().manual_seed(3)
    w = torch.rand(count, graph.edge_index.shape[1], dtype=F64, generator=generator)
    low, high = graph.edge_index.amin(0), graph.edge_index.amax(0)
    first = {
        (int(i), int(j)): k for k, (i, j) in reversed(list(enumerate(zip(low, high, strict=True))))
    }
    w = w[:, [first[int(i), int(j)] for i, j in zip(low, high, strict=True)]]
    return torch.where(w < 0.2, 0.0, 3 * w)


def normal(graph: Graph = GRAPH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(graph.num_nodes, 2, dtype=F64, generator=generator)


def dense(w: np.ndarray, norm: str, graph: Graph = GRAPH) -> np.ndarray:
    """L of one set of weights."""
    source, target = graph.edge_index.numpy()
    A = np.zeros((graph.num_nodes, graph.num_nodes))
    A[target, source] = w
    np.fill_diagonal(A, 0.0)
    degree = A.sum(1)
    L = np.diag(degree) - A
    return L if norm == "comb" else L / np.where(degree > 0, degree, 1.0)[:, None]


def by_scipy(weights: Tensor, norm: str, end: float) -> Tensor:
    """One run of DOP853 for each stretch between two times."""
    w, x = weights.numpy(), normal().numpy()
    for k, (a, b) in enumerate(pairwise(TIMES)):
        if a >= end:
            break

        def f(t: float, y: np.ndarray, k: int = k, a: float = a, b: float = b) -> np.ndarray:
            now = w[k] + (t - a) / (b - a) * (w[k + 1] - w[k])
            return -(dense(now, norm) @ y.reshape(7, 2)).ravel()

        found = solve_ivp(f, (a, min(b, end)), x.ravel(), "DOP853", rtol=1e-11, atol=1e-12)
        x = found.y[:, -1].reshape(7, 2)
    return torch.from_numpy(x)


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_interpolated_weights_agree_with_scipy(norm: str) -> None:
    weights = snapshots()
    found = solve(Varying(weights, TIMES, norm=norm), normal(), 1.8, GRAPH, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.final, by_scipy(weights, norm, 1.8), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4), ("trbdf2", 2)]
)
def test_methods_show_their_order_on_weights_that_change(solver: str, order: int) -> None:
    # Two snapshots: one straight line, and no kink inside.
    weights = snapshots(2)
    exact = solve(Varying(weights), normal(), 1.0, GRAPH, rtol=1e-12, atol=1e-13).final
    errors = [
        float(
            (
                solve(Varying(weights), normal(), 1.0, GRAPH, solver=solver, steps=n).final - exact
            ).norm()
        )
        for n in (20, 40)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_weights_stand_still_outside_their_times() -> None:
    weights = snapshots(2)
    field = Varying(weights, [1.0, 2.0]).bind(GRAPH, normal())
    for t, w in ((0.0, weights[0]), (1.0, weights[0]), (2.0, weights[1]), (9.0, weights[1])):
        slope = field(torch.tensor(t, dtype=F64), normal())
        torch.testing.assert_close(slope, -torch.from_numpy(dense(w.numpy(), "comb")) @ normal())


def test_equal_snapshots_are_heat() -> None:
    graph = catalogue.grid(3, 3)
    weights = graph.edge_weight.expand(2, -1)
    x = normal(graph)
    for norm in ("comb", "rw"):
        found = solve(Varying(weights, norm=norm), x, 2.0, graph, rtol=1e-9, atol=1e-10).final
        torch.testing.assert_close(
            found, solve(Heat(norm), x, 2.0, graph, rtol=1e-10).final, rtol=1e-7, atol=1e-7
        )


def test_pieces_of_constant_weights_are_solved_exactly() -> None:
    weights = snapshots()
    field = Varying(weights, TIMES, kind="constant")
    layers = field.layers(0.3, 2.4)
    traj = solve(layers, normal(), (0.3, 2.4), GRAPH, rtol=1e-10)
    assert "chebyshev" in traj.stats.solver
    x = normal()
    for w, length in zip(weights, (0.4, 0.8, 0.5, 0.4), strict=True):
        x = torch.linalg.matrix_exp(-length * torch.from_numpy(dense(w.numpy(), "comb"))) @ x
    torch.testing.assert_close(traj.final, x, rtol=1e-8, atol=1e-9)
    # The field itself jumps at the same times.
    bound = field.bind(GRAPH, normal())
    for t, w in ((0.3, weights[0]), (0.7, weights[1]), (1.6, weights[2]), (2.2, weights[3])):
        expected = -torch.from_numpy(dense(w.numpy(), "comb")) @ normal()
        torch.testing.assert_close(bound(torch.tensor(t, dtype=F64), normal()), expected)


def test_a_union_of_graphs_goes_from_one_to_the_other() -> None:
    one, two = catalogue.path(5), catalogue.star(5)
    graph, field = Varying.union([one, two], [0.0, 1.0])
    x = normal(graph)
    bound = field.bind(graph, x)
    L1, L2 = (g.laplacian(dtype=F64).to_dense() for g in (one, two))
    for t in (0.0, 0.25, 1.0):
        expected = -((1 - t) * L1 + t * L2) @ x
        torch.testing.assert_close(bound(torch.tensor(t, dtype=F64), x), expected)


def test_means_and_maxima_are_kept_while_weights_change() -> None:
    traj = solve(
        Varying(snapshots(), TIMES), normal(), torch.linspace(0, 2, 9), GRAPH, rtol=1e-9, atol=1e-10
    )
    torch.testing.assert_close(traj.x.mean(1), normal().mean(0).expand(9, 2), rtol=1e-8, atol=1e-9)
    assert (traj.x.amax(1).diff(dim=0) < 1e-8).all()


def test_self_loops_do_not_flow() -> None:
    graph = quietly(torch.tensor([[0, 1, 0], [1, 0, 0]]), 2)
    weights = torch.tensor([[9.0, 1.0, 1.0], [9.0, 2.0, 2.0]], dtype=F64)
    x = torch.tensor([[0.0], [1.0]], dtype=F64)
    for norm, expected in (("comb", 1.5), ("rw", 1.0)):
        slope = Varying(weights, norm=norm).bind(graph, x)(torch.tensor(0.5), x)
        assert slope.flatten().tolist() == pytest.approx([expected, -expected])


def test_learned_snapshots_get_the_gradient_of_differences() -> None:
    weights = nn.Parameter(snapshots(2) + 0.1)
    field = Varying(weights)

    def loss() -> Tensor:
        return solve(field, normal(), 1.0, GRAPH, solver="rk4", steps=10).final.pow(3).sum()

    (grad,) = torch.autograd.grad(loss(), weights)
    for place in ((0, 0), (1, 3)):
        with torch.no_grad():
            weights[place] += 1e-5
            above = loss()
            weights[place] -= 2e-5
            below = loss()
            weights[place] += 1e-5
        assert float(grad[place]) == pytest.approx(float(above - below) / 2e-5, rel=1e-5)


def drifting(graph: Graph) -> Tensor:
    degree = graph.edge_weight.new_zeros(graph.num_nodes)
    degree = degree.index_add(0, graph.edge_index[1], graph.edge_weight)
    return torch.stack([graph.edge_weight, graph.edge_weight / degree[graph.edge_index].sum(0)])


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_it_keeps_the_contract(norm: str) -> None:
    check_field(Varying(drifting, norm=norm), GRAPH)


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        Varying(snapshots(), kind="liner")
    with pytest.raises(ValueError, match="Known: comb, rw"):
        Varying(snapshots(), norm="sym")
    with pytest.raises(ValueError, match="rising"):
        Varying(snapshots(2), [1.0, 0.0])
    with pytest.raises(ValueError, match="4 snapshots of weights and 2 times"):
        Varying(snapshots(), [0.0, 1.0]).bind(GRAPH, normal())
    with pytest.raises(ValueError, match="both directions"):
        Varying(torch.ones(2, 3)).bind(GRAPH, normal())
    with pytest.raises(ValueError, match="not negative"):
        Varying(-torch.ones(2, 16)).bind(GRAPH, normal())
    with pytest.raises(ValueError, match='kind="constant"'):
        Varying(snapshots(), TIMES).layers(0.0, 1.0)
    with pytest.raises(ValueError, match="same nodes"):
        Varying.union([catalogue.path(3), catalogue.path(4)])
