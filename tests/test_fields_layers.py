"""Piecewise fields: chains of solves against products of exponentials and single solves."""

import pytest
import torch
from torch import Tensor, nn

from neuralpde import catalogue
from neuralpde.fields import GRAND, Field, Heat, Layers, Reaction, Source, Wave, allen_cahn
from neuralpde.graph import Graph
from neuralpde.solve import solve
from solvers.failure import SolveFailed

TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def heat(graph: Graph, t: float, norm: str = "comb") -> Tensor:
    return torch.linalg.matrix_exp(-t * graph.laplacian(norm, dtype=torch.float64).to_dense())


def test_a_chain_of_linear_layers_is_a_product_of_exponentials() -> None:
    graph, x = catalogue.star(5), normal(5, 2)
    field = Layers([Heat(rate=2.0), Heat("rw"), Heat("sym")], [0.0, 0.25, 0.5, 1.0])
    times = torch.tensor([0.0, 0.5, 1.0, 1.5, 4.0])
    traj = solve(field, x, times, graph, rtol=1e-10)
    first, second = heat(graph, 2.0), heat(graph, 1.0, "rw")
    expected = [
        x,
        heat(graph, 1.0) @ x,
        first @ x,
        heat(graph, 0.5, "rw") @ first @ x,
        heat(graph, 2.0, "sym") @ second @ first @ x,
    ]
    torch.testing.assert_close(traj.x, torch.stack(expected), rtol=1e-8, atol=1e-9)
    assert traj.stats.solver == "chebyshev"
    assert traj.stats.reason.count("piece") == 3
    assert traj.status == "done"
    assert torch.equal(traj.t, times.double())
    torch.testing.assert_close(traj.at(1.25), heat(graph, 0.25, "rw") @ first @ x)


def test_every_piece_goes_its_own_way() -> None:
    graph, x = catalogue.ring(6), normal(6, 2)
    field = Layers([Heat(), allen_cahn(), Heat()])
    traj = solve(field, x, 3.0, graph, **TIGHT)
    assert traj.stats.solver == "chebyshev + tsit5"
    assert traj.stats.nfe > 0
    assert traj.stats.operator_products > traj.stats.nfe
    state = x
    for piece in field.pieces:
        state = solve(piece, state, 1.0, graph, **TIGHT).final
    torch.testing.assert_close(traj.final, state)


def test_two_equal_layers_are_one_solve() -> None:
    graph, x = catalogue.ring(6), 0.2 * normal(6, 2)
    reaction = allen_cahn(0.3)
    times = torch.linspace(1.0, -0.5, 6, dtype=torch.float64)
    one = solve(Reaction.allen_cahn(), x, times, graph, **TIGHT)
    two = solve(Layers([Reaction.allen_cahn()] * 2), x, times, graph, **TIGHT)
    torch.testing.assert_close(one.x, two.x, rtol=1e-7, atol=1e-8)
    kept = solve(Layers([reaction, reaction]), x, 2.0, graph, save="steps", **TIGHT)
    alone = solve(reaction, x, torch.tensor([0.0, 0.77, 1.31, 2.0]), graph, **TIGHT)
    assert 1.0 in kept.t
    assert (kept.t.diff() > 0).all()
    torch.testing.assert_close(kept.at(0.77), alone.x[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(kept.at(1.31), alone.x[2], rtol=1e-6, atol=1e-6)
    only = solve(Layers([reaction, reaction]), x, 2.0, graph, save="end", **TIGHT)
    torch.testing.assert_close(only.x[0], kept.final)


class Residual(Field):
    """One layer of a deep network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels).double()

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


def test_deep_networks_with_weights_per_layer_are_euler_chains() -> None:
    layers = [Residual(2) for _ in range(3)]
    x = normal(4, 2)
    traj = solve(Layers(layers), x, 3.0, solver="euler", steps=3)
    expected = x
    for layer in layers:
        expected = expected + torch.tanh(layer.linear(expected))
    torch.testing.assert_close(traj.final, expected)
    got = torch.autograd.grad(traj.final.square().sum(), layers[0].linear.weight)
    wanted = torch.autograd.grad(expected.square().sum(), layers[0].linear.weight)
    torch.testing.assert_close(got, wanted)
    assert traj.stats.accepted == 3


def test_attention_is_frozen_anew_in_every_layer() -> None:
    graph, x = catalogue.barbell(3), normal(6, 3)
    grand = GRAND(3, rate=1.0).double()
    got = solve(Layers([grand, grand]), x, 2.0, graph, rtol=1e-10).final
    middle = torch.linalg.matrix_exp(grand.bind(graph, x).operator.to_dense()) @ x
    final = torch.linalg.matrix_exp(grand.bind(graph, middle).operator.to_dense()) @ middle
    torch.testing.assert_close(got, final, rtol=1e-8, atol=1e-9)
    weight = grand.attention.query.weight
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), weight),
        torch.autograd.grad(final.square().sum(), weight),
        rtol=1e-6,
        atol=1e-8,
    )


def test_times_carry_gradients_through_the_chain() -> None:
    graph, x = catalogue.path(4), normal(4, 1)
    end = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    final = solve(Layers([Heat(rate=3.0), Heat()]), x, end, graph, rtol=1e-10).final
    (grad,) = torch.autograd.grad(final.square().sum(), end)
    L = graph.laplacian(dtype=torch.float64).to_dense()
    expected = heat(graph, 4.0) @ x
    slope = -2.0 * L @ expected
    assert grad.item() == pytest.approx((2 * expected * slope).sum().item(), rel=1e-6)


def test_series_run_through_and_count_boundaries_once() -> None:
    graph, x = catalogue.ring(6), normal(6, 2)

    def largest(shot: object) -> Tensor:
        return shot.x.abs().max()

    field = Layers([allen_cahn(0.1), allen_cahn(2.0)])
    traj = solve(field, x, 2.0, graph, watch=largest, **TIGHT)
    assert (traj["largest"].t.diff() > 0).all()
    assert (traj.energy.t.diff() > 0).all()
    assert traj.energy.t[-1] == 2.0
    assert traj.energy.y[-1].item() == pytest.approx(
        torch.einsum(
            "ic,ij,jc->", traj.final, graph.laplacian(dtype=torch.float64).to_dense(), traj.final
        ).item()
    )
    assert len(traj.energy.t) == traj.stats.accepted + 1


def test_exact_pieces_join_their_series_and_name_both_conventions() -> None:
    graph, x = catalogue.ring(5), normal(5, 2)
    field = Layers([Heat() + Source(1.0), Heat("sym") + Source(1.0)])
    traj = solve(field, x, torch.tensor([0.0, 0.5, 1.0, 2.0]), graph)
    assert traj.energy.t.tolist() == [0.0, 0.5, 1.0, 2.0]
    assert "comb" in traj.energy.convention
    assert "; then sym" in traj.energy.convention
    torch.testing.assert_close(traj["norm"].y[-1], traj.final.norm())


def test_graphs_of_a_batch_keep_their_own_times() -> None:
    ring, path = catalogue.ring(4), catalogue.path(3)
    x, field = normal(7, 2), Layers([Heat(rate=2.0), allen_cahn()])
    times = torch.tensor([[0.0, 0.0], [0.5, 3.0], [2.0, 4.0]], dtype=torch.float64)
    traj = solve(field, x, times, Graph.union([ring, path]), **TIGHT)
    for graph, rows, own in ((ring, slice(0, 4), times[:, 0]), (path, slice(4, 7), times[:, 1])):
        alone = solve(field, x[rows], own, graph, **TIGHT)
        torch.testing.assert_close(traj.x[:, rows], alone.x, rtol=1e-7, atol=1e-8)


def test_pairs_and_fixed_steps_go_through() -> None:
    graph, x = catalogue.ring(4), normal(4, 1)
    state = (x, 0 * x)
    field = Layers([Wave(), Wave(2.0)], [0.0, 0.3, 1.0])
    traj = solve(field, state, 1.0, graph, solver="rk4", steps=20)
    # 0.3 is a point of the grid, so the boundary adds no step.
    assert traj.stats.accepted == 20
    exact = solve(field, state, 1.0, graph, **TIGHT)
    torch.testing.assert_close(traj.final, exact.final, rtol=1e-4, atol=1e-4)


class Blast(Field):
    """Infinite after finite time."""

    batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x**2


def test_a_failure_in_the_middle_names_its_piece() -> None:
    x = torch.tensor([[4.0]], dtype=torch.float64)
    field = Layers([Heat(), Blast(), Heat()])
    times = torch.tensor([0.0, 0.5, 1.5, 3.0])
    graph = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=1)
    with pytest.raises(SolveFailed, match="in piece 1") as failure:
        solve(field, x, times, graph)
    traj = failure.value.trajectory
    assert traj.x[:2].isfinite().all()
    assert traj.x[2:].isnan().all()
    assert 1.0 < float(traj.ended) < 1.3


def test_a_failing_graph_does_not_stop_the_others() -> None:
    graph = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=2, batch=torch.tensor([0, 1]))
    x = torch.tensor([[4.0], [0.1]], dtype=torch.float64)
    settings = {"raise_on_failure": False, "rtol": 1e-8, "atol": 1e-9}
    times = torch.tensor([0.0, 0.1, 1.5, 2.0])
    for second, expected in ((Blast(), 0.1 / (1 - 0.1 * 2.0)), (Heat(), 0.1 / (1 - 0.1))):
        traj = solve(Layers([Blast(), second]), x, times, graph, **settings)
        assert traj.status[0] == "step_too_small"
        assert traj.status[1] == "done"
        assert traj.final[1].item() == pytest.approx(expected, rel=1e-6)
        assert traj.x[:, 0].isnan().flatten().tolist() == [False, False, True, True]
        assert traj.x[:, 1].isfinite().all()
    traj = solve(Layers([Blast(), Blast()]), x, times, graph, **settings)
    first, second = traj["norm"].t.unbind(1)
    assert first[~first.isnan()].max() == float(traj.ended[0])
    assert second[~second.isnan()].max() == 2.0
    assert (second[~second.isnan()].diff() > 0).all()


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Layers([])
    with pytest.raises(ValueError, match="3 rising fractions"):
        Layers([Heat(), Heat()], [0.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="orders"):
        Layers([Heat(), Wave()])
    with pytest.raises(ValueError, match="piece by piece"):
        Layers([Heat()]) + Heat()
    with pytest.raises(TypeError, match="call solve"):
        Layers([Heat()])(torch.tensor(0.0), torch.zeros(2, 1))
