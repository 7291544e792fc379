"""A time per channel: exponentials channel by channel, and the implicit layer of the paper."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import AnisotropicDiffusion, Heat
from neuralpde.testing import check_field
from tests.strategies import graphs, quietly

F64 = torch.float64
TAU = torch.tensor([0.0, 0.4, 3.0], dtype=F64)


def normal(graph: Graph) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(graph.num_nodes, 3, dtype=F64, generator=generator)


@settings(max_examples=15)
@given(graphs(min_nodes=2))
def test_every_channel_diffuses_for_its_own_time(graph: Graph) -> None:
    x = normal(graph)
    traj = solve(AnisotropicDiffusion(3, tau=TAU), x, 1.0, graph, rtol=1e-11)
    assert traj.stats.solver == "chebyshev"
    L = graph.laplacian("rw", dtype=F64).to_dense()
    for k, tau in enumerate(TAU):
        expected = torch.linalg.matrix_exp(-tau * L) @ x[:, k]
        torch.testing.assert_close(traj.final[:, k], expected, rtol=1e-8, atol=1e-9)


def test_directed_graphs_go_by_uniformisation() -> None:
    graph = quietly(torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]]), 3)
    x = normal(graph)
    traj = solve(AnisotropicDiffusion(3, tau=TAU), x, 1.0, graph, rtol=1e-11)
    assert traj.stats.solver == "uniformisation"
    L = graph.laplacian("rw", dtype=F64).to_dense()
    expected = torch.linalg.matrix_exp(-3.0 * L) @ x[:, 2]
    torch.testing.assert_close(traj.final[:, 2], expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=10)
@given(graphs(min_nodes=2, connected=True))
def test_the_implicit_layer_is_one_step_of_implicit_euler(graph: Graph) -> None:
    # (D + tau L)^-1 D x, by a dense solve for every channel.
    x = normal(graph)
    step = solve(
        AnisotropicDiffusion(3, tau=TAU), x, 1.0, graph, solver="implicit_euler", steps=1
    ).final
    L = graph.laplacian(dtype=F64).to_dense()
    D = torch.diag(L.diagonal())
    layer = [torch.linalg.solve(D + tau * L, D @ x[:, k]) for k, tau in enumerate(TAU)]
    torch.testing.assert_close(step, torch.stack(layer, 1), rtol=1e-6, atol=1e-7)


def test_means_weighted_by_degree_are_kept_and_ranges_shrink() -> None:
    graph = catalogue.barbell(4, 1)
    x, degree = normal(graph), graph.laplacian(dtype=F64).diagonal()
    traj = solve(AnisotropicDiffusion(3, tau=TAU), x, torch.linspace(0, 6, 7), graph, rtol=1e-10)
    means = torch.einsum("n,snc->sc", degree / degree.sum(), traj.x)
    torch.testing.assert_close(means, means[:1].expand_as(means), rtol=1e-8, atol=1e-9)
    ranges = traj.x.amax(1) - traj.x.amin(1)
    assert (ranges.diff(dim=0) <= 1e-9).all()
    torch.testing.assert_close(traj.x[-1][:, 0], x[:, 0])


def test_equal_times_are_heat() -> None:
    graph = catalogue.grid(3, 3)
    x = normal(graph)
    tau = torch.full((3,), 1.7, dtype=F64)
    one = solve(AnisotropicDiffusion(3, norm="comb", tau=tau), x, 1.0, graph, rtol=1e-11).final
    torch.testing.assert_close(one, solve(Heat(rate=1.7), x, 1.0, graph, rtol=1e-11).final)


def test_times_are_learned_and_start_at_one() -> None:
    graph, field = catalogue.grid(3, 3), AnisotropicDiffusion(3).double()
    torch.testing.assert_close(field.tau.detach(), torch.ones(3, dtype=F64), rtol=1e-6, atol=1e-7)
    x = normal(graph)
    L = graph.laplacian("rw", dtype=F64).to_dense()
    final = solve(field, x, 1.0, graph, rtol=1e-11).final
    (grad,) = torch.autograd.grad(final.sum(0).sum() + (final**2).sum(), field.theta)
    exact = torch.linalg.matrix_exp(-L) @ x
    slope = -(L @ exact) * torch.sigmoid(field.theta.detach())
    torch.testing.assert_close(grad, ((1 + 2 * exact) * slope).sum(0), rtol=1e-6, atol=1e-8)
    given = AnisotropicDiffusion(3, tau=nn.Parameter(TAU.clone()))
    assert [name for name, _ in given.named_parameters()] == ["given"]


@pytest.mark.parametrize("norm", ["rw", "comb", "sym", "augmented"])
def test_it_keeps_the_contract(norm: str) -> None:
    check_field(AnisotropicDiffusion(3, norm=norm), catalogue.barbell(3, 1))


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="give 3 times"):
        AnisotropicDiffusion(3, tau=torch.ones(2))
    with pytest.raises(ValueError, match="none negative"):
        AnisotropicDiffusion(2, tau=torch.tensor([1.0, -1.0]))
    graph = catalogue.path(4)
    with pytest.raises(ValueError, match=r"real state \[nodes, 3\]"):
        AnisotropicDiffusion(3).bind(graph, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"real state \[nodes, 3\]"):
        AnisotropicDiffusion(3).bind(graph, torch.zeros(4, 3, dtype=torch.complex64))
