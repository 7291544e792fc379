"""Pinned nodes against harmonic extensions by scipy, dense exponentials and moving boundaries."""

import pytest
import torch
from hypothesis import given, settings
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from neuralpde import catalogue
from neuralpde.fields import GRAND, Field, Heat, Layers, Pinned, Source, Wave, allen_cahn
from neuralpde.graph import Graph
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.strategies import graphs


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def masked_flow(A: Tensor, x: Tensor, pinned: list[int], t: float, source: Tensor) -> Tensor:
    """x' = A x + source with the pinned rows struck out, by one matrix exponential."""
    A, source = A.clone(), source.clone()
    A[pinned], source[pinned] = 0.0, 0.0
    n, c = x.shape
    big = torch.cat([torch.cat([A, source], 1), torch.zeros(c, n + c, dtype=A.dtype)])
    state = torch.cat([x, torch.eye(c, dtype=A.dtype)])
    return (torch.linalg.matrix_exp(t * big) @ state)[:n]


@pytest.mark.parametrize("norm", ["comb", "rw", "sym"])
def test_the_steady_state_is_the_harmonic_extension(norm: str) -> None:
    graph, nodes = catalogue.grid(4, 5), torch.tensor([0, 7, 19])
    values = normal(3, 2)
    field = Pinned(Heat(norm), nodes, values)
    final = solve(field, field.start(normal(20, 2)), 400.0, graph, rtol=1e-9).final
    L = graph.laplacian(norm, dtype=torch.float64).to_scipy().tocsr()
    free = [i for i in range(20) if i not in nodes.tolist()]
    expected = spsolve(L[free][:, free].tocsc(), -L[free][:, nodes.tolist()] @ values.numpy())
    torch.testing.assert_close(final[free], torch.from_numpy(expected), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(final[nodes], values, rtol=1e-12, atol=1e-13)


@settings(max_examples=12)
@given(graphs(min_nodes=3))
def test_linear_fields_stay_exact_and_symmetric(graph: Graph) -> None:
    x, source = normal(graph.num_nodes, 2), normal(graph.num_nodes, 2, seed=1)
    field = Pinned(Heat(rate=0.7) + Source(source), [0, 2])
    bound = field.bind(graph, x)
    assert bound.affine
    assert bound.operator.symmetric
    dense = bound.operator.to_dense()
    torch.testing.assert_close(dense, dense.T)
    lo, hi = bound.operator.spectrum()
    values = torch.linalg.eigvalsh(dense)
    assert lo[0] <= values.min() + 1e-12
    assert hi[0] >= values.max() - 1e-12
    traj = solve(field, x, 1.3, graph, rtol=1e-9)
    assert traj.stats.solver == "chebyshev"
    L = graph.laplacian(dtype=torch.float64).to_dense()
    expected = masked_flow(-0.7 * L, x, [0, 2], 1.3, source)
    torch.testing.assert_close(traj.final, expected, rtol=1e-7, atol=1e-7)


@settings(max_examples=12)
@given(graphs(min_nodes=3, directed=True, connected=True))
def test_directed_heat_becomes_an_absorbed_walk(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    field = Pinned(Heat(), [1])
    bound = field.bind(graph, x)
    assert bound.operator.generator == "row" or bound.operator.symmetric
    traj = solve(field, x, 0.9, graph, rtol=1e-9)
    assert traj.stats.solver in ("uniformisation", "chebyshev")
    L = graph.laplacian(dtype=torch.float64).to_dense()
    expected = masked_flow(-L, x, [1], 0.9, torch.zeros_like(x))
    torch.testing.assert_close(traj.final, expected, rtol=1e-7, atol=1e-7)


def test_frozen_attention_is_pinned_exactly_by_rows_and_in_steps_by_columns() -> None:
    graph, x = catalogue.barbell(3, 1), normal(7, 3)
    for over, solver in (("receiver", "uniformisation"), ("sender", "tsit5")):
        inner = GRAND(3, over=over).double()
        traj = solve(Pinned(inner, [0, 6]), x, 2.0, graph, rtol=1e-9)
        assert traj.stats.solver == solver
        A = inner.bind(graph, x).operator.to_dense().detach()
        expected = masked_flow(A, x, [0, 6], 2.0, torch.zeros_like(x))
        torch.testing.assert_close(traj.final.detach(), expected, rtol=1e-5, atol=1e-5)


def test_a_moving_boundary_leads_its_neighbours() -> None:
    # One free node between two leaders: x' = 2 sin t - 2 x.
    graph, field = catalogue.path(3), Pinned(Heat(), [0, 2], torch.sin)
    x0 = field.start(torch.ones(3, 1, dtype=torch.float64))
    t = torch.linspace(0, 3, 7, dtype=torch.float64)
    traj = solve(field, x0, t, graph, rtol=1e-10, atol=1e-11)
    inside = (4 * torch.sin(t) - 2 * torch.cos(t)) / 5 + 1.4 * torch.exp(-2 * t)
    torch.testing.assert_close(traj.x[:, 1, 0], inside, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(traj.x[:, 0, 0], torch.sin(t), rtol=1e-8, atol=1e-9)


class Tide(nn.Module):
    """A learned boundary."""

    def __init__(self) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, t: Tensor) -> Tensor:
        return self.height * torch.cos(t)


def test_gradients_reach_learned_boundaries() -> None:
    graph, tide = catalogue.path(4), Tide()
    height = tide.height

    def final(field: Pinned) -> Tensor:
        x0 = field.start(torch.ones(4, 1, dtype=torch.float64))
        return solve(field, x0, 1.0, graph, rtol=1e-9, atol=1e-10).final.sum()

    constant = nn.Parameter(torch.tensor([[0.3]], dtype=torch.float64))
    for field, parameter in (
        (Pinned(Heat(), [0], tide), height),
        (Pinned(allen_cahn(), [0], tide), height),
        (Pinned(Heat(), [0], constant), constant),
        (Pinned(allen_cahn(), [0], constant), constant),
    ):
        (grad,) = torch.autograd.grad(final(field), parameter)
        with torch.no_grad():
            parameter += 1e-5
            up = final(field)
            parameter -= 2e-5
            down = final(field)
            parameter += 1e-5
        assert grad.item() == pytest.approx(((up - down) / 2e-5).item(), rel=1e-5)
        assert abs(grad.item()) > 0.1


def test_nonlinear_and_second_order_fields_are_held_too() -> None:
    graph, x = catalogue.ring(5), normal(5, 2)
    final = solve(Pinned(allen_cahn(), [1, 3]), x, 2.0, graph).final
    assert torch.equal(final[[1, 3]], x[[1, 3]])
    assert (final[0] != x[0]).all()
    position, _ = solve(Pinned(Wave(), [0]), (x, 0 * x), 1.0, graph).final
    assert torch.equal(position[0], x[0])


def test_a_mask_names_the_same_nodes() -> None:
    mask = torch.tensor([False, True, False, True])
    assert Pinned(Heat(), mask).nodes.tolist() == [1, 3]


@pytest.mark.parametrize(
    "field",
    [
        Pinned(Heat(rate=nn.Parameter(torch.tensor(0.5))), [0, 4], torch.tensor([[1.0], [2.0]])),
        Pinned(GRAND(3), [2]),
        Pinned(allen_cahn(), [0, 1]),
        Pinned(Heat(), [0, 1], torch.sin),
        Pinned(Wave(), [3]),
    ],
    ids=["heat", "grand", "allen_cahn", "moving", "wave"],
)
def test_it_keeps_the_contract(field: Field) -> None:
    check_field(field, catalogue.barbell(3))


def test_wrong_arguments_are_refused_in_words() -> None:
    graph, x = catalogue.ring(4), torch.zeros(4, 1)
    with pytest.raises(ValueError, match=r"pinned\.start\(x0\)"):
        solve(Pinned(Heat(), [1], 5.0), x, 1.0, graph)
    with pytest.raises(ValueError, match="node 7 is pinned and the graph has 4"):
        Pinned(Heat(), [7]).bind(graph, x)
    with pytest.raises(ValueError, match="once"):
        Pinned(Heat(), [1, 1])
    with pytest.raises(ValueError, match="first-order"):
        Pinned(Wave(), [1], torch.sin)
    with pytest.raises(ValueError, match="piece by piece"):
        Pinned(Layers([Heat()]), [1])
