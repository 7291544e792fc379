"""Real torch_geometric layers as fields: formulas by hand, gradients through bindings."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, NNConv, SAGEConv
from torchdiffeq import odeint_adjoint

import neuralpde.fields.coupling
from neuralpde import catalogue
from neuralpde.fields import Coupling, Heat
from neuralpde.graph import Graph
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.strategies import dense


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def weighted() -> Graph:
    edges = torch.tensor([[0, 1, 1, 2, 2, 3, 0, 2], [1, 0, 2, 1, 3, 2, 2, 0]])
    return Graph(edges, edge_weight=torch.tensor([1.0, 1.0, 0.5, 0.5, 3.0, 3.0, 2.0, 2.0]))


def convs() -> list[nn.Module]:
    mlp = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    return [
        GCNConv(3, 3),
        GCNConv(3, 3, cached=True),
        GATConv(3, 3, heads=2, concat=False, negative_slope=1.0),
        SAGEConv(3, 3),
        GINConv(mlp, train_eps=True),
    ]


def names() -> list[str]:
    return ["gcn", "gcn_cached", "gat", "sage", "gin"]


def test_gcn_coupling_is_the_formula_with_edge_weights() -> None:
    graph, x, conv = weighted(), normal(4, 3), GCNConv(3, 3).double()
    A = dense(graph) + torch.eye(4)
    root = A.sum(1).rsqrt()
    expected = torch.relu(root[:, None] * A * root @ (x @ conv.lin.weight.T) + conv.bias)
    got = Coupling(conv, act=torch.relu, leak=0.3).bind(graph, x)(torch.tensor(0.0), x)
    torch.testing.assert_close(got, expected - 0.3 * x)


def test_edges_send_from_row_0_to_row_1() -> None:
    graph = Graph(torch.tensor([[0, 0, 1], [1, 2, 0]]))
    conv = SAGEConv(1, 1, root_weight=False, bias=False).double()
    nn.init.ones_(conv.lin_l.weight)
    x = torch.tensor([[7.0], [2.0], [0.0]], dtype=torch.float64)
    got = Coupling(conv, act=torch.nn.Identity(), leak=0.0).bind(graph, x)(torch.tensor(0.0), x)
    assert got.flatten().tolist() == [2.0, 7.0, 7.0]


@pytest.mark.parametrize("conv", convs(), ids=names())
def test_layers_keep_the_contract(conv: nn.Module) -> None:
    check_field(Coupling(conv, leak=nn.Parameter(torch.tensor(0.5))), catalogue.barbell(3, 1))


@pytest.mark.parametrize("conv", convs(), ids=names())
def test_every_parameter_gets_the_gradient_of_an_unrolled_loop(conv: nn.Module) -> None:
    graph, x = catalogue.star(5), normal(5, 3)
    conv = conv.double()
    by_hand = x
    for _ in range(4):
        by_hand = by_hand + 0.25 * (torch.tanh(conv(by_hand, graph.edge_index)) - by_hand)
    expected = torch.autograd.grad(by_hand.square().sum(), list(conv.parameters()))
    if hasattr(conv, "_cached_edge_index"):
        conv._cached_edge_index = None
    final = solve(Coupling(conv), x, 1.0, graph, solver="euler", steps=4).final
    got = torch.autograd.grad(final.square().sum(), list(conv.parameters()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    bound = Coupling(conv).bind(graph, x)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    unused = odeint_adjoint(
        bound, x, times, method="euler", options={"step_size": 0.25}, adjoint_params=bound.leaves()
    )
    assert all(p.grad is None for p in conv.parameters())
    unused[-1].square().sum().backward()
    assert all(p.grad is not None for p in conv.parameters())


def test_a_cached_layer_serves_two_graphs() -> None:
    conv = GCNConv(3, 3, cached=True).double()
    plain = GCNConv(3, 3).double()
    plain.load_state_dict(conv.state_dict())
    for graph in (catalogue.ring(4), catalogue.star(4)):
        x = normal(4, 3)
        got = solve(Coupling(conv), x, 1.0, graph).final
        torch.testing.assert_close(got, solve(Coupling(plain), x, 1.0, graph).final)
    assert conv._cached_edge_index is None


def test_edge_features_come_as_a_tensor_or_from_the_graph() -> None:
    graph, x = catalogue.ring(4), normal(4, 2)
    conv = NNConv(2, 2, nn.Linear(1, 4)).double()
    table = graph.edge_index.sum(0).double()[:, None]
    one = Coupling(conv, edge_attr=table).bind(graph, x)(torch.tensor(0.0), x)
    made = Coupling(conv, edge_attr=lambda g: g.edge_index.sum(0).double()[:, None])
    torch.testing.assert_close(one, made.bind(graph, x)(torch.tensor(0.0), x))
    torch.testing.assert_close(one, torch.tanh(conv(x, graph.edge_index, table)) - x)
    other = Coupling(conv, edge_attr=2 * table).bind(graph, x)(torch.tensor(0.0), x)
    assert not torch.allclose(one, other)


def test_it_adds_to_heat() -> None:
    graph, x, conv = catalogue.path(4), normal(4, 3), GCNConv(3, 3).double()
    both = (Heat(rate=2.0) + Coupling(conv)).bind(graph, x)
    t = torch.tensor(0.0)
    expected = Heat(rate=2.0).bind(graph, x)(t, x) + Coupling(conv).bind(graph, x)(t, x)
    torch.testing.assert_close(both(t, x), expected)


def test_layers_that_do_not_fit_are_refused_in_words() -> None:
    graph, x = catalogue.ring(4), torch.zeros(4, 3)
    with pytest.raises(ValueError, match="takes 5 channels and the state has 3"):
        Coupling(GCNConv(5, 3)).bind(graph, x)
    with pytest.raises(ValueError, match=r"\(4, 3\) to \(4, 8\).*out_channels"):
        Coupling(GCNConv(3, 8)).bind(graph, x)
    with pytest.raises(ValueError, match="heads, if they are concatenated"):
        Coupling(GATConv(3, 3, heads=2)).bind(graph, x)
    with pytest.raises(ValueError, match="takes no edge_attr"):
        Coupling(GCNConv(3, 3), edge_attr=torch.zeros(8, 1))
    with pytest.raises(ValueError, match="asks for edge_attr"):
        Coupling(NNEdge())
    with pytest.raises(ValueError, match="dropout in training mode"):
        solve(Coupling(GATConv(3, 3, dropout=0.5)), x, 1.0, graph)
    with pytest.warns(UserWarning, match="takes no edge_weight"):
        Coupling(SAGEConv(3, 3)).bind(weighted(), x)


class NNEdge(nn.Module):
    """Needs edge features."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return x


def test_fields_do_not_load_torch_geometric() -> None:
    assert "torch_geometric" not in inspect.getsource(neuralpde.fields.coupling).split('"""')[0]
    code = "import sys, neuralpde.fields; sys.exit('torch_geometric' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_an_affine_skip_is_added_to_what_the_neighbours_send() -> None:
    graph, x = weighted(), normal(4, 3)
    conv, skip = GCNConv(3, 3).double(), nn.Linear(3, 3).double()
    plain = Coupling(conv, act=torch.nn.Identity(), leak=0.5)
    added = Coupling(conv, act=torch.nn.Identity(), leak=0.5, skip=skip)
    t = torch.tensor(0.0, dtype=torch.float64)
    found = added.bind(graph, x)(t, x) - plain.bind(graph, x)(t, x)
    torch.testing.assert_close(found, x @ skip.weight.T + skip.bias)
    check_field(Coupling(GCNConv(3, 3), skip=nn.Linear(3, 3)), graph)
    with pytest.raises(ValueError, match=r"nn\.Linear\(3, 3\)"):
        Coupling(conv, skip=nn.Linear(4, 3).double()).bind(graph, x)
    with pytest.raises(ValueError, match=r"nn\.Linear\(3, 3\)"):
        Coupling(conv, skip=nn.Linear(3, 2).double()).bind(graph, x)
