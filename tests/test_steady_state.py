"""Steady states and their implicit gradients: closed forms, differences, and what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, SolveFailed, catalogue, solve, steady_state
from neuralpde.fields import Field, Heat, Layers, Reaction, Source
from solvers.equilibrium import Balance, inverse
from solvers.groups import Groups
from solvers.jacobian import Recorded


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def stable(n: int, skew: float, seed: int = 1) -> Tensor:
    """A matrix whose symmetric part is negative definite."""
    m = normal(n, n, seed=seed)
    return -(m @ m.T) / n - torch.eye(n, dtype=torch.float64) + skew * (m - m.T)


@pytest.mark.parametrize("skew", [0.0, 0.5])
def test_affine_fields_have_their_closed_form(skew: float) -> None:
    A, b = stable(7, skew).requires_grad_(), normal(7, 3).requires_grad_()
    weight = normal(7, 3, seed=5)
    traj = steady_state(lambda t, x: A @ x + b, torch.zeros(7, 3, dtype=torch.float64))
    exact = -torch.linalg.solve(A, b)
    torch.testing.assert_close(traj.final, exact, rtol=1e-12, atol=1e-12)
    assert traj.stats.gradient == "implicit"
    found = torch.autograd.grad((traj.final * weight).sum(), (A, b))
    known = torch.autograd.grad((exact * weight).sum(), (A, b))
    for ours, theirs in zip(found, known, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_network_game_plays_its_best_responses() -> None:
    """x_i = b_i + delta sum_j A_ij x_j: Ballester, Calvo-Armengol, Zenou (Econometrica 2006)."""
    graph = catalogue.barbell(5)
    A = graph.adjacency().to_dense().double()

    class Play(Field):
        def __init__(self) -> None:
            super().__init__()
            self.delta = nn.Parameter(torch.tensor(0.12, dtype=torch.float64))
            self.b = nn.Parameter(1.0 + 0.1 * normal(10, 1))

        def prepare(self, graph: Graph, x0: Tensor) -> None:
            self.A = graph.adjacency()

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.b + self.delta * (self.A @ x) - x

    play = Play()
    traj = steady_state(play, torch.zeros(10, 1).double(), graph)
    exact = torch.linalg.solve(torch.eye(10).double() - play.delta * A, play.b)
    torch.testing.assert_close(traj.final, exact, rtol=1e-12, atol=1e-12)
    wanted = (play.delta, play.b)
    found = torch.autograd.grad(traj.final.square().sum(), wanted)
    known = torch.autograd.grad(exact.square().sum(), wanted)
    for ours, theirs in zip(found, known, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class Bistable(Field):
    """u' = -k L u + u - u^3 + s, or with growth of the Fisher kind."""

    def __init__(self, source: Tensor, fisher: bool) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))
        self.source_ = nn.Parameter(source)
        self.fisher = fisher

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.L = graph.laplacian()

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        growth = x * (1 - x) if self.fisher else x - x**3
        return growth + self.source_ - self.k * (self.L @ x)


@pytest.mark.parametrize("fisher", [True, False])
def test_reactions_with_a_source_agree_with_differences(fisher: bool) -> None:
    graph, x0 = catalogue.ring(6), 0.5 + 0.3 * normal(6, 1).abs()
    field = Bistable(0.1 * normal(6, 1, seed=2), fisher)
    weight = normal(6, 1, seed=3)

    def value() -> Tensor:
        return (steady_state(field, x0, graph).final * weight).sum()

    found = torch.autograd.grad(value(), (field.k, field.source_))
    for one, ours in zip((field.k, field.source_), found, strict=True):
        for k in range(one.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    one.view(-1)[k] += sign * 1e-5
                    ends.append(float(value()))
                    one.view(-1)[k] -= sign * 1e-5
            difference = (ends[0] - ends[1]) / 2e-5
            assert float(ours.view(-1)[k]) == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_it_is_where_the_flow_goes() -> None:
    # u' = u - u^3 on two nodes that do not see each other: the sign decides.
    graph = Graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=2)
    field = Reaction([0.0, 1.0, 0.0, -1.0])
    x0 = torch.tensor([[0.05], [-0.3]], dtype=torch.float64)
    traj = steady_state(field, x0, graph)
    assert traj.final.flatten().tolist() == pytest.approx([1.0, -1.0], rel=1e-13)
    assert traj.status == "stopped (steady state)"
    assert traj.x[0].equal(x0)
    assert "newton" in traj.stats.solver


def test_a_state_that_is_there_already_stays() -> None:
    A, b = stable(5, 0.3), normal(5)
    exact = -torch.linalg.solve(A, b)
    traj = steady_state(lambda t, x: A @ x + b, exact)
    torch.testing.assert_close(traj.final, exact, rtol=1e-13, atol=1e-13)
    near = steady_state(lambda t, x: A @ x + b, exact + 1e-5 * normal(5, seed=4))
    torch.testing.assert_close(near.final, exact, rtol=1e-13, atol=1e-13)
    assert near.stats.accepted <= 4


def test_graphs_of_a_batch_are_systems_of_their_own() -> None:
    graphs = [catalogue.ring(5), catalogue.star(9), catalogue.path(1)]
    batch = Graph.union(graphs)
    x0, source = 0.5 + normal(15, 1).abs(), 0.1 * normal(15, 1, seed=2)
    field = Bistable(source, fisher=True)
    whole = steady_state(field, x0, batch)
    found = torch.autograd.grad(whole.final.square().sum(), field.source_)[0]
    start = 0
    for graph in graphs:
        own = slice(start, start + graph.num_nodes)
        part = Bistable(source[own], fisher=True)
        alone = steady_state(part, x0[own], graph)
        torch.testing.assert_close(whole.final[own], alone.final, rtol=1e-11, atol=1e-12)
        (known,) = torch.autograd.grad(alone.final.square().sum(), part.source_)
        torch.testing.assert_close(found[own], known, rtol=1e-9, atol=1e-11)
        start += graph.num_nodes


def test_tuples_and_what_is_prepared_from_the_start() -> None:
    """A damped spring is at rest where it pulls no more, wherever that was frozen from x0."""

    class Spring(Field):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

        def prepare(self, graph: Graph, x0: tuple[Tensor, Tensor]) -> None:
            self.anchor = 2.0 * x0[0]

        def rest(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return x[1], 6.0 - self.k * (x[0] - self.anchor) - 1.5 * x[1]

    spring = Spring()
    start = normal(3, 1).requires_grad_()
    traj = steady_state(spring, (start, torch.zeros(3, 1).double()), catalogue.path(3))
    position, speed = traj.final
    torch.testing.assert_close(position, 2 * start + 6 / spring.k, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(speed, torch.zeros_like(speed), rtol=0, atol=1e-11)
    found = torch.autograd.grad(position.sum(), (start, spring.k))
    torch.testing.assert_close(found[0], torch.full_like(start, 2.0), rtol=1e-10, atol=0)
    assert float(found[1]) == pytest.approx(-3 * 6 / 9, rel=1e-10)


def test_single_precision_is_polished_to_its_own_rounding() -> None:
    A, b = stable(6, 0.4).float(), normal(6).float()
    traj = steady_state(lambda t, x: A @ x + b, torch.zeros(6))
    exact = -torch.linalg.solve(A.double(), b.double())
    torch.testing.assert_close(traj.final.double(), exact, rtol=1e-5, atol=1e-6)
    assert traj.final.dtype == torch.float32


def test_implicit_and_followed_gradients_agree() -> None:
    """The gradient through a long solve tends to the implicit one."""
    graph, x0 = catalogue.grid(3, 3), torch.full((9, 1), 0.5, dtype=torch.float64)
    field = Bistable(0.1 * normal(9, 1, seed=2), fisher=True)
    implicit = torch.autograd.grad(steady_state(field, x0, graph).final.sum(), field.source_)[0]
    traj = solve(field, x0, 60.0, graph, solver="dopri5", rtol=1e-9, atol=1e-11)
    followed = torch.autograd.grad(traj.final.sum(), field.source_)[0]
    torch.testing.assert_close(implicit, followed, rtol=1e-7, atol=1e-9)


# ---- what is refused


def test_kernels_are_refused_with_the_way_out() -> None:
    graph, x0 = catalogue.grid(4, 4), normal(16, 1)
    for field in (Heat(), Heat("rw"), Heat() + Source(normal(16, 1) * 0)):
        with pytest.raises(ValueError, match=r"singular Jacobian.*Follow the flow.*Pinned"):
            steady_state(field, x0, graph)
    batch = Graph.union([catalogue.path(3), catalogue.path(3)])
    mass = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)[:, None]

    class Leak(Field):
        def prepare(self, graph: Graph, x0: Tensor) -> None:
            self.L = graph.laplacian()

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -(self.L @ x) - mass * x

    with pytest.raises(ValueError, match="graph 1 has a singular Jacobian"):
        steady_state(Leak(), normal(6, 1), batch)


def test_saddles_are_refused() -> None:
    # On the stable manifold of the saddle: the flow gets there and stays, by symmetry only.
    def saddle(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([-x[0], 2 * x[1]])

    with pytest.raises(ValueError, match="direction that grows"):
        steady_state(saddle, torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_what_never_rests_is_refused() -> None:
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    x0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    with pytest.raises(SolveFailed, match="not at rest by t=9") as caught:
        steady_state(lambda t, x: turn @ x, x0, horizon=9.0)
    assert caught.value.trajectory.status == "done"
    with pytest.raises(SolveFailed, match="blows up"):
        steady_state(lambda t, x: x * x, x0.abs() + 1)
    with pytest.raises(ValueError, match="changes with time"):
        steady_state(lambda t, x: torch.cos(t) - x, x0)
    with pytest.raises(ValueError, match="piecewise in time"):
        steady_state(Layers([Heat(), Heat()]), normal(4, 1), catalogue.path(4))


def test_what_rounding_does_not_allow_is_no_success() -> None:
    A, b = stable(7, 0.5), normal(7)
    with pytest.raises(SolveFailed, match="below what its rounding allows") as caught:
        steady_state(lambda t, x: A @ x + b, torch.zeros(7).double(), tolerance=1e-30)
    assert caught.value.trajectory.status == "newton_failed"


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    b = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    traj = steady_state(lambda t, x: b - x * x, torch.ones(1).double())
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(traj.final.sum(), b, create_graph=True)
    with torch.no_grad():
        assert not steady_state(lambda t, x: b - x * x, torch.ones(1).double()).final.requires_grad


# ---- the linear algebra


@pytest.mark.parametrize("skew", [0.0, 0.7])
@pytest.mark.parametrize("transposed", [False, True])
def test_jacobians_are_inverted(skew: float, transposed: bool) -> None:
    A, b = stable(40, skew), normal(40, 2)
    J = Recorded(lambda x: A @ x, torch.zeros(40, 2).double(), lambda: None)
    found = inverse(J, b, torch.tensor([1e-12]), Groups(), transposed=transposed)
    assert found.reached.all()
    exact = torch.linalg.solve(A.T if transposed else A, b)
    torch.testing.assert_close(found.x, exact, rtol=1e-9, atol=1e-10)


def test_newton_halves_its_steps_until_they_help() -> None:
    # atan: a full step from 3 overshoots and diverges.
    def f(x: Tensor) -> Tensor:
        return -torch.atan(x)

    balance = Balance(f, lambda x: Recorded(f, x, lambda: None), Groups())
    found = balance.polished(torch.tensor([[3.0]], dtype=torch.float64), 1e-12)
    assert abs(float(found.x)) < 1e-12 or math.isclose(float(found.residual), 0, abs_tol=1e-12)
    options: dict[str, Any] = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(found.x, torch.zeros(1, 1).double(), **options)
