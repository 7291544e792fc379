"""Anti-symmetric networks: eigenvalues, norms, Euler's threshold, and torch_geometric's layer."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, catalogue
from neuralpde.fields import AntiSymmetricDGN, Heat, Wave
from neuralpde.solve import solve
from neuralpde.testing import check_field

NOW = torch.tensor(0.0, dtype=torch.float64)


class Nothing(nn.Module):
    """Neighbours that say nothing."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return torch.zeros_like(x)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def alone(channels: int, gamma: float, act: object = torch.tanh) -> AntiSymmetricDGN:
    """A field without neighbours, its weights of size one."""
    field = AntiSymmetricDGN(channels, Nothing(), gamma, act).double()
    nn.init.normal_(field.weight)
    return field


@pytest.mark.parametrize("act", [torch.tanh, torch.nn.functional.softplus, torch.atan])
def test_without_neighbours_and_gamma_all_eigenvalues_are_imaginary(act: object) -> None:
    graph, x = catalogue.path(1), 0.5 * normal(1, 6)
    field = alone(6, 0.0, act)
    nn.init.normal_(field.bias)
    bound = field.bind(graph, x)
    J = torch.autograd.functional.jacobian(lambda x: bound(NOW, x), x)[0, :, 0, :]
    values = torch.linalg.eigvals(J)
    assert values.imag.abs().max() > 0.1
    assert values.real.abs().max() < 1e-13


@pytest.mark.parametrize("gamma", [0.0, 0.3, -0.2])
def test_without_activation_norms_fall_at_twice_gamma(gamma: float) -> None:
    graph, x = catalogue.ring(5), normal(5, 4)
    field = alone(4, gamma, lambda x: x)
    times = torch.linspace(0, 3, 7, dtype=torch.float64)
    traj = solve(field, x, times, graph, rtol=1e-10, atol=1e-12)
    size = traj.x.square().sum((1, 2))
    torch.testing.assert_close(size, size[0] * torch.exp(-2 * gamma * times), rtol=1e-7, atol=0)
    exact = torch.linalg.matrix_exp(3.0 * (field.weight - field.weight.T - gamma * torch.eye(4)))
    torch.testing.assert_close(traj.final, x @ exact.T.detach(), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("epsilon", "gamma", "stable"),
    [(0.1, 0.47, True), (0.1, 0.45, False), (1.0, 1.0, False), (1.0, 0.1, False)],
)
def test_euler_is_stable_where_the_disc_says(epsilon: float, gamma: float, stable: bool) -> None:
    # For eigenvalues +-3 i the threshold of epsilon = 0.1 is 10 - sqrt(91) = 0.461.
    assert (abs(1 + epsilon * (3j - gamma)) <= 1) is stable
    field = alone(2, gamma, lambda x: x)
    field.weight.data = torch.tensor([[0.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    x = normal(1, 2)
    graph = catalogue.path(1)
    with torch.no_grad():
        final = solve(field, x, 10 * epsilon, graph, solver="euler", steps=10).final
    grown = abs(1 + epsilon * (3j - gamma)) ** 10
    assert float(final.norm() / x.norm()) == pytest.approx(grown, rel=1e-6)


@pytest.mark.filterwarnings("ignore:euler:UserWarning")
@pytest.mark.parametrize("weighted", [False, True])
def test_steps_of_euler_are_torch_geometrics_layer(weighted: bool) -> None:
    from torch_geometric.nn import AntiSymmetricConv

    graph = catalogue.lollipop(4, 3)
    if weighted:
        edges = graph.edge_index
        graph = Graph(edges, edge_weight=(edges[0] + edges[1] + 1).double())
    x, epsilon = normal(7, 5), 0.2
    theirs = AntiSymmetricConv(5, num_iters=3, epsilon=epsilon, gamma=0.3).double()
    nn.init.normal_(theirs.bias)
    own = AntiSymmetricDGN(5, gamma=0.3).double()
    with torch.no_grad():
        own.weight.copy_(theirs.W)
        own.bias.copy_(theirs.bias)
        own.coupling.weight.copy_(theirs.phi.lin.weight)
        expected = theirs(x, graph.edge_index, graph.edge_weight)
        for field in (own, AntiSymmetricDGN(5, theirs.phi, gamma=0.3).double()):
            field.weight, field.bias = own.weight, own.bias
            found = solve(field, x, 3 * epsilon, graph, solver="euler", steps=3).final
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_neighbours_enter_through_the_chosen_coupling() -> None:
    graph, x = catalogue.star(4), normal(4, 3)
    field = AntiSymmetricDGN(3, Heat(), 0.2, bias=False).double()
    W = field.weight.detach() - field.weight.detach().T - 0.2 * torch.eye(3)
    A = graph.adjacency(dtype=torch.float64).to_dense()
    expected = torch.tanh(x @ W.T + A @ x - A.sum(1, keepdim=True) * x)
    torch.testing.assert_close(field.bind(graph, x)(NOW, x).detach(), expected)


@pytest.mark.parametrize("learned", [False, True])
def test_it_keeps_the_contract(learned: bool) -> None:
    gamma = nn.Parameter(torch.tensor(0.2)) if learned else 0.2
    check_field(AntiSymmetricDGN(3, gamma=gamma), catalogue.barbell(3))


def test_what_is_wrong_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="first order"):
        AntiSymmetricDGN(3, Wave())
    with pytest.raises(ValueError, match=r"takes \[nodes, 3\]"):
        AntiSymmetricDGN(3).bind(catalogue.ring(4), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="finite"):
        AntiSymmetricDGN(3, gamma=math.nan)
