"""Gates: what opens them, what they keep, and how slowly neighbours agree (G2)."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.nn import SAGEConv

from neuralpde import catalogue, solve
from neuralpde.fields import Coupling, Gated, GradientGating, Heat, Layers, Noise, Reaction, Wave
from neuralpde.graph import Graph
from neuralpde.operators import disagreement
from neuralpde.testing import check_field
from tests.strategies import dense, graphs, quietly, states

F64 = torch.float64
T = torch.tensor(0.0, dtype=F64)


def by_hand(W: Tensor, y: Tensor, p: float) -> Tensor:
    """Sum of w_ij |y_j - y_i|^p entry by entry, 0^p = 0."""
    d = (y[None] - y[:, None]).abs()
    return torch.einsum("ij,ijk->ik", W, torch.where(d > 0, d**p, 0.0))


@settings(max_examples=40)
@given(graphs(directed=True), st.sampled_from([0.3, 1.0, 2.0, 2.5, 3.0]), st.integers(0, 99))
def test_disagreements_are_sums_over_senders(graph: Graph, p: float, seed: int) -> None:
    y = torch.randn(graph.num_nodes, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    found = disagreement(graph.pattern, graph.edge_weight, y, p)
    torch.testing.assert_close(found, by_hand(dense(graph), y, p))


def test_pieces_of_the_edge_list_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, y = catalogue.barbell(4, 2), torch.randn(10, 3, dtype=F64, requires_grad=True)
    results = []
    for chunk in (1 << 20, 7):
        monkeypatch.setattr(sys.modules[disagreement.__module__], "CHUNK", chunk)
        found = disagreement(graph.pattern, graph.edge_weight, y, 2.5)
        results.append((found, *torch.autograd.grad(found.pow(2).sum(), y)))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 2.5, 4.0])
def test_disagreements_are_differentiable_twice_both_ways(p: float) -> None:
    graph = quietly(torch.tensor([[0, 1, 2, 0, 3], [1, 0, 0, 2, 2]]))
    # Neighbours apart: there are no kinks.
    y = torch.tensor([[0.0, 3.0], [1.5, 1.0], [-1.0, -2.0], [0.7, 4.0]], dtype=F64)
    y.requires_grad_()

    def act(y: Tensor) -> Tensor:
        return disagreement(graph.pattern, graph.edge_weight, y, p)

    assert gradcheck(act, (y,), check_forward_ad=True)
    assert gradgradcheck(act, (y,))
    assert gradgradcheck(
        lambda y: torch.autograd.grad(act(y).pow(2).sum(), y, create_graph=True), y
    )


def test_where_neighbours_agree_gradients_are_finite() -> None:
    graph, y = catalogue.path(3), torch.ones(3, 1, dtype=F64, requires_grad=True)
    for p in (0.5, 1.0, 2.0, 2.5):
        (g,) = torch.autograd.grad(
            disagreement(graph.pattern, graph.edge_weight, y, p).sum(), y, create_graph=True
        )
        assert not bool(g.any())
        (h,) = torch.autograd.grad(g.sum(), y)
        assert bool(h.isfinite().all())


def test_near_consensus_no_digits_cancel() -> None:
    # Multiplied out, |y_j - y_i|^2 of 1 and 1 + 1e-6 in single precision would be noise.
    y = torch.tensor([[1.0], [1.0 + 2.0**-20]])
    graph = catalogue.path(2)
    found = disagreement(graph.pattern, graph.edge_weight.float(), y, 2.0)
    assert found.flatten().tolist() == [2.0**-40, 2.0**-40]


@settings(max_examples=30)
@given(st.data(), graphs(directed=True), st.sampled_from(["sum", "mean"]))
def test_rates_lie_in_the_unit_interval(data: st.DataObject, graph: Graph, aggregate: str) -> None:
    x = data.draw(states(graph))
    tau = GradientGating(Heat("rw"), 2.0, aggregate).bind(graph, x).tau(T, x)
    assert tau.min() >= 0.0
    assert tau.max() <= 1.0


def test_rates_vanish_exactly_where_all_neighbours_agree() -> None:
    graph = catalogue.path(5)
    # F is the identity here, so that y = x.
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0], [3.0, 2.0], [3.0, 2.0]], dtype=F64)
    tau = GradientGating(Reaction([0.0])).bind(graph, x).tau(T, x)
    agree = torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1], [1, 1]], dtype=torch.bool)
    assert torch.equal(tau == 0.0, agree)


def test_nodes_without_neighbours_stand_still_and_loops_are_none() -> None:
    graph = Graph(torch.tensor([[0, 1, 2], [1, 0, 2]]), num_nodes=4)
    x = torch.randn(4, 2, dtype=F64)
    for aggregate in ("sum", "mean"):
        bound = GradientGating(Reaction([1.0]), 2.0, aggregate).bind(graph, x)
        assert bool((bound(T, x)[2:] == 0.0).all())
        assert bool((bound(T, x)[:2] != 0.0).all())


def test_a_loop_makes_no_neighbour_of_the_mean() -> None:
    bare = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    looped = torch.cat([bare, torch.tensor([[1], [1]])], dim=1)
    x, field = torch.randn(3, 2, dtype=F64), GradientGating(Reaction([0.0]), 2.0, "mean")
    rates = [field.bind(Graph(edges), x).tau(T, x) for edges in (bare, looped)]
    torch.testing.assert_close(*rates)


def test_the_mean_is_the_sum_over_the_number_of_neighbours() -> None:
    graph, x = catalogue.star(5), torch.randn(5, 2, dtype=F64)
    gates = {name: GradientGating(Heat("rw"), 2.0, name) for name in ("sum", "mean")}
    rates = {name: torch.atanh(gate.bind(graph, x).tau(T, x)) for name, gate in gates.items()}
    degree = torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0], dtype=F64)[:, None]
    torch.testing.assert_close(rates["sum"], degree * rates["mean"])


def test_gates_look_at_senders_as_convolutions_do() -> None:
    # Only node 1 receives: node 0 has nobody to disagree with.
    graph = quietly(torch.tensor([[0], [1]]))
    x = torch.tensor([[1.0], [3.0]], dtype=F64)
    slope = GradientGating(Heat("rw")).bind(graph, x)(T, x)
    # F^ = F: y_1 is the value that arrives, y_0 its own (nothing arrives).
    assert slope[0] == 0.0
    y = torch.tensor([1.0, 1.0])
    assert slope[1] == math.tanh(float(y[0] - y[1]) ** 2) * -2.0
    apart = GradientGating(Heat("rw"), gate=Reaction([0.0])).bind(graph, x)(T, x)
    torch.testing.assert_close(apart[1, 0], torch.tanh(torch.tensor(4.0, dtype=F64)) * -2.0)


def test_a_gated_field_is_the_rate_times_the_field() -> None:
    graph, x = catalogue.ring(5), torch.randn(5, 2, dtype=F64)
    rate = nn.Parameter(torch.tensor([0.5, 2.0], dtype=F64))

    class PerChannel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = rate

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.rate * x.square()

    bound = Gated(Heat("rw"), PerChannel()).bind(graph, x)
    L = graph.to(dtype=F64).laplacian("rw").to_dense()
    torch.testing.assert_close(bound(T, x), -rate * x.square() * (L @ x))
    assert bound.operator is None
    assert rate in set(Gated(Heat("rw"), PerChannel()).parameters())


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_boxes_that_the_convolution_keeps_are_kept(aggregate: str) -> None:
    # F averages (rows sum to one) and sigma is the identity: [-1, 1] is mapped to itself.
    graph = catalogue.barbell(4, 2)
    x = 2 * torch.rand(10, 4, dtype=F64) - 1
    field = GradientGating(Heat("rw"), 2.5, aggregate)
    found = solve(field, x, torch.linspace(0, 20, 11), graph, rtol=1e-8, atol=1e-9).x
    assert (found.amax(1).diff(dim=0) <= 1e-8).all()
    assert (found.amin(1).diff(dim=0) >= -1e-8).all()
    # One Euler step of size one is the published layer: between x and sigma(F(x)), entry by entry.
    layer = solve(field, x, 1.0, graph, solver="euler", steps=1).final
    target = graph.to(dtype=F64).adjacency("row") @ x
    assert (layer >= torch.minimum(x, target)).all()
    assert (layer <= torch.maximum(x, target)).all()


def test_one_euler_step_of_the_mean_is_the_published_layer() -> None:
    graph, x = catalogue.barbell(3, 1), torch.randn(7, 4, dtype=F64)
    conv = SAGEConv(4, 4).double()
    field = GradientGating(Coupling(conv, act=torch.relu), 2.5, "mean")
    found = solve(field, x, 1.0, graph, solver="euler", steps=1).final
    with torch.no_grad():
        y = torch.relu(conv(x, graph.edge_index))
        send, receive = graph.edge_index
        total = torch.zeros_like(x).index_add(0, receive, (y[send] - y[receive]).abs() ** 2.5)
        tau = torch.tanh(total / torch.bincount(receive)[:, None])
    torch.testing.assert_close(found, (1 - tau) * x + tau * y)


@pytest.mark.parametrize(("p", "end"), [(2.0, 400.0), (1.0, 100.0), (3.0, 2000.0)])
def test_two_nodes_agree_algebraically_not_exponentially(p: float, end: float) -> None:
    # e' = -2 tanh(e^p) e for F the average over neighbours: e(t) ~ (2 p t)^(-1/p).
    x = torch.tensor([[0.5], [-0.5]], dtype=F64)
    field = GradientGating(Heat("rw"), p)
    final = solve(field, x, end, catalogue.path(2), rtol=1e-9, atol=1e-12).final
    distance = float(final[0] - final[1])
    assert distance == pytest.approx((2 * p * end) ** (-1 / p), rel=2e-2)
    if p == 2.0:
        assert round(distance, 5) == 0.02499


def test_without_gates_they_agree_exponentially() -> None:
    x = torch.tensor([[0.5], [-0.5]], dtype=F64)
    final = solve(Heat("rw"), x, 5.0, catalogue.path(2), rtol=1e-11).final
    assert float(final[0] - final[1]) == pytest.approx(math.exp(-10.0), rel=1e-5)


def test_with_small_exponents_the_gates_are_open() -> None:
    graph, x = catalogue.ring(6), torch.randn(6, 2, dtype=F64)
    open_ = GradientGating(Heat("rw"), 1e-9, "mean").bind(graph, x)(T, x)
    ungated = Heat("rw").bind(graph, x)(T, x)
    torch.testing.assert_close(open_, math.tanh(1.0) * ungated, rtol=1e-6, atol=1e-8)
    summed = GradientGating(Heat("rw"), 1e-9).bind(graph, x)(T, x)
    torch.testing.assert_close(summed, math.tanh(2.0) * ungated, rtol=1e-6, atol=1e-8)


def test_constants_are_fixed_where_the_convolution_keeps_them() -> None:
    graph, x = catalogue.star(5), torch.full((5, 2), 3.7, dtype=F64)
    assert not bool(GradientGating(Heat("rw")).bind(graph, x)(T, x).any())


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_it_keeps_the_contract(aggregate: str) -> None:
    own = GradientGating(Coupling(SAGEConv(3, 3), act=torch.tanh), 2.0, aggregate)
    check_field(own, catalogue.barbell(3, 1))
    other = Coupling(SAGEConv(3, 3), act=torch.tanh, leak=nn.Parameter(torch.tensor(0.5)))
    check_field(GradientGating(Heat("rw"), 2.5, aggregate, other), catalogue.star(4))


def test_gates_of_every_kind_keep_the_contract() -> None:
    check_field(Gated(Heat("rw"), Coupling(SAGEConv(3, 3), leak=0.0)), catalogue.ring(4))
    check_field(GradientGating(Heat("rw"), 1.0), catalogue.ring(4), smooth=False)


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        GradientGating(Heat(), 0.0)
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        GradientGating(Heat(), aggregate="means")
    for field in (Wave(), Layers([Heat()])):
        with pytest.raises(ValueError, match="first-order fields"):
            GradientGating(field)
    with pytest.raises(ValueError, match="add the noise outside"):
        Gated(Heat() + Noise(), lambda t, x: x)
    graph = catalogue.path(3)
    with pytest.raises(ValueError, match="3 nodes and 4 entries"):
        disagreement(graph.pattern, graph.edge_weight, torch.ones(2, 1), 2.0)
    with pytest.raises(ValueError, match="positive and finite"):
        disagreement(graph.pattern, graph.edge_weight, torch.ones(3, 1), -1.0)
    with pytest.raises(TypeError, match="real floating"):
        disagreement(graph.pattern, graph.edge_weight, torch.ones(3, 1) * 1j, 2.0)
