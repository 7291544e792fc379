"""The spectral radius: against eigenvalues, from the structure, and looked at seldom."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND, Field, Heat, allen_cahn
from neuralpde.fields.structure import structure
from solvers.flow import Flow
from solvers.radius import REFRESH, Radius, enclosure
from solvers.rows import Rows
from solvers.spectrum import Jacobian, outer_eigenvalues, ritz, scattered, spectral_radius

F64 = torch.float64
ZERO = np.zeros(1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def attached(nodes: int) -> Graph:
    """Preferential attachment: hubs, and a largest eigenvalue far from the others."""
    generator = torch.Generator().manual_seed(3)
    ends, pairs = [0, 1], [(0, 1)]
    for node in range(2, nodes):
        other = ends[int(torch.randint(len(ends), (), generator=generator))]
        pairs.append((node, other))
        ends += [node, other]
    edges = torch.tensor(pairs).T
    return Graph(torch.cat([edges, edges.flip(0)], 1), nodes)


def flowing(field: Any, graph: Graph, x: Tensor) -> Flow:
    """The field as the solvers see it, with its structure."""
    bound = field.bind(graph, x)
    known = structure(bound, "the field", packed=False)
    rows = Rows(graph.batch, graph.num_graphs)
    return Flow(lambda t, y: (bound(t, y[0]),), rows, x, known)


def eigenvalues(field: Any, graph: Graph, x: Tensor) -> np.ndarray:
    """All of them, of the dense Jacobian by automatic differentiation."""
    bound = field.bind(graph, x)
    J = torch.autograd.functional.jacobian(lambda y: bound(torch.tensor(0.0), y), x)
    found: np.ndarray = np.linalg.eigvals(J.detach().reshape(x.numel(), -1).numpy())
    return found


class Saturating(Field):
    """dx/dt = -L tanh(x): nonlinear and not symmetric, with a real spectrum."""

    batched_time = True

    def prepare(self, graph: Graph, x0: Any) -> None:
        self.L = graph.laplacian("comb")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -(self.L @ torch.tanh(x))


GRAPHS = {
    "path": catalogue.path(60),
    "ring": catalogue.ring(61),
    "grid": catalogue.grid(8, 8),
    "star": catalogue.star(70),
    "complete": catalogue.complete(20),
    "hubs": attached(150),
    "two parts": Graph.union([catalogue.star(20), catalogue.path(20)]),
}
FIELDS = {
    "heat": Heat(),
    "allen-cahn": allen_cahn(),
    "strong reaction": allen_cahn(1.0, 40.0),
    "normalised": allen_cahn(1.0, 1.0, "sym"),
    "saturating": Saturating(),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("kind", FIELDS)
def test_the_radius_is_right_within_a_third(kind: str, name: str) -> None:
    graph, field = GRAPHS[name], FIELDS[kind]
    if name == "two parts":
        graph = Graph(graph.edge_index, graph.num_nodes)
    x = normal(graph.num_nodes, 1)
    true = float(np.abs(eigenvalues(field, graph, x)).max())
    flow = flowing(field, graph, x)
    # Steps so long that an estimate pays, and so short that the bound is taken.
    for h in (1e3 / true, 1.0 / true):
        radius = Radius(flow)
        radius.update(ZERO, np.array([h]), (x,), flow(ZERO, (x,)))
        found = float(radius.radius[0])
        assert found > 0.99 * true
        # A bound adds the reaction to the largest eigenvalue, which is at most twice too much, and
        # the first rough estimate is generous.
        tight = h * true > 1.1 and kind != "strong reaction"
        assert found < (1.35 if tight else 2.1) * true
        assert radius.spent <= 14


def test_attention_fields_show_their_imaginary_parts() -> None:
    graph, x = attached(40), normal(40, 3)
    torch.manual_seed(0)
    field = GRAND(3, variant="nonlinear", rate=1.0).double()
    with torch.no_grad():
        field.attention.query.weight.mul_(20.0)
    dense = eigenvalues(field, graph, x)
    flow = flowing(field, graph, x)
    with torch.no_grad():
        jacobian = Jacobian(flow, ZERO, (x,), flow(ZERO, (x,)))
        found = ritz(jacobian, scattered(Rows(), (x,)), 100, close=1e-4)
    assert found.radius[0] == pytest.approx(np.abs(dense).max(), rel=1e-3)
    few = outer_eigenvalues(flow, ZERO, (x,), Rows(), 12)
    assert few.radius[0] == pytest.approx(np.abs(dense).max(), rel=0.2)


def test_arnoldi_finds_all_eigenvalues_of_a_small_matrix() -> None:
    A = torch.tensor([[0.0, 5.0, 0.0], [-5.0, -1.0, 0.0], [0.0, 1.0, -2.0]], dtype=F64)
    x = (normal(3),)
    flow = Flow(lambda t, y: (A @ y[0] + 1.0,), Rows(), A)
    jacobian = Jacobian(flow, ZERO, x, flow(ZERO, x))
    found = ritz(jacobian, scattered(Rows(), x), 3, close=0.0)
    wanted = np.linalg.eigvals(A.numpy())
    wanted = np.sort_complex(wanted.real + 1j * np.abs(wanted.imag))
    np.testing.assert_allclose(np.sort_complex(found.values[0]), wanted, atol=1e-5)
    assert found.oblique[0] == pytest.approx(np.abs(wanted.imag).max(), abs=1e-5)
    assert found.radius[0] == pytest.approx(5.0, abs=1e-5)


@pytest.mark.parametrize("norm", ["comb", "rw", "sym"])
def test_the_structure_encloses_the_spectrum(norm: str) -> None:
    graph, x = attached(50), normal(50, 2)
    for rate in (1.0, 30.0):
        field = allen_cahn(0.7, rate, norm)
        ends = enclosure(flowing(field, graph, x), ZERO, (x,))
        assert ends is not None
        dense = eigenvalues(field, graph, x)
        assert np.abs(dense.imag).max() < 1e-9
        assert ends[0][0] <= dense.real.min() + 1e-6
        assert dense.real.max() <= ends[1][0] + 1e-6


def test_fields_that_hide_their_structure_are_not_enclosed() -> None:
    x = normal(70, 1)
    assert enclosure(flowing(Saturating(), GRAPHS["star"], x), ZERO, (x,)) is None
    heat = flowing(Heat(), GRAPHS["star"], x)
    assert enclosure(heat, ZERO, (x + 0j,)) is None
    assert enclosure(heat, ZERO, (x, x)) is None


def test_each_graph_of_a_batch_gets_what_it_gets_alone() -> None:
    graphs = [GRAPHS["star"], GRAPHS["ring"], GRAPHS["hubs"]]
    states = [normal(g.num_nodes, 2, seed=k) for k, g in enumerate(graphs)]
    batch, x = Graph.union(graphs), torch.cat(states)
    flow, t = flowing(Saturating(), batch, x), np.zeros(3)
    together = Radius(flow)
    together.update(t, np.full(3, 0.1), (x,), flow(t, (x,)))
    for g, (graph, state) in enumerate(zip(graphs, states, strict=True)):
        own = flowing(Saturating(), graph, state)
        alone = Radius(own)
        alone.update(ZERO, np.array([0.1]), (state,), own(ZERO, (state,)))
        assert together.radius[g] == pytest.approx(alone.radius[0], rel=1e-6)


class Counting:
    """Radii of dx/dt = -rate x with rates that may change: many of 1, one of 3."""

    def __init__(self) -> None:
        self.rate = torch.ones(1000, dtype=F64)
        self.rate[0] = 3.0
        self.x = (torch.ones_like(self.rate),)
        self.flow = Flow(lambda t, y: (-self.rate * y[0],), Rows(), self.rate)
        self.radius = Radius(self.flow)

    def step(self, *, accepted: bool = True, error: int = 0) -> int:
        """The evaluations that an update before a step costs; errors are in one entry."""
        before = self.flow.nfe
        self.radius.update(ZERO, np.array([0.1]), self.x, (-self.rate * self.x[0],))
        wrong = torch.zeros_like(self.rate)
        wrong[error] = 7.0
        self.radius.judged(np.array([accepted]), np.array([True]), (wrong,))
        return self.flow.nfe - before


def test_estimates_are_refreshed_after_25_steps_and_after_rejections() -> None:
    solve_ = Counting()
    costs = [solve_.step() for _ in range(2 * REFRESH + 1)]
    assert [k for k, cost in enumerate(costs) if cost] == [0, REFRESH, 2 * REFRESH]
    assert costs[0] <= 12
    assert costs[REFRESH] <= 3, "a later estimate starts where the last one ended"
    assert solve_.step(accepted=False) == 0
    again = solve_.step()
    assert 0 < again <= 3
    assert solve_.radius.spent == sum(costs) + again
    assert solve_.radius.radius[0] == pytest.approx(3, rel=0.1)


def test_a_direction_that_wakes_up_is_found() -> None:
    """Parts that know nothing of each other: the last estimate lay in another one."""
    solve_ = Counting()
    for _ in range(REFRESH):
        solve_.step()
    solve_.rate[-1] = 100.0
    solve_.step()
    assert solve_.radius.radius[0] == pytest.approx(100, rel=0.15)


def test_a_rejected_error_shows_what_exploded() -> None:
    solve_ = Counting()
    solve_.step()
    solve_.rate[-1] = 100.0
    solve_.step(accepted=False, error=-1)
    assert solve_.step() == 2
    assert solve_.radius.radius[0] == pytest.approx(100, rel=0.15)


def test_a_given_radius_is_taken_as_it_is() -> None:
    flow = Flow(lambda t, y: (torch.full_like(y[0], torch.nan),), Rows(), torch.ones(1))
    radius = Radius(flow, 5.0)
    x = (torch.ones(1),)
    radius.update(ZERO, np.ones(1), x, x)
    assert (radius.radius.tolist(), flow.nfe) == ([5.0], 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_estimates_do_no_harm(name: str) -> None:
    """No step of a long solve explodes: rejections stay few, and energy falls."""
    graph = GRAPHS[name]
    x0 = normal(graph.num_nodes, 1)
    traj = solve(Saturating(), x0, 60.0, graph, solver="rkl2", rtol=1e-3, atol=1e-4)
    rejected, accepted = np.sum(traj.stats.rejected), np.sum(traj.stats.accepted)
    assert rejected <= 2 + 0.1 * accepted
    for g in range(graph.num_graphs):
        energy = traj.energy.y if graph.num_graphs == 1 else traj.energy.y[:, g]
        energy = energy[~energy.isnan()]
        assert (energy.diff() <= 1e-6 * energy[0]).all()


def test_the_radius_of_a_state_at_rest_is_that_of_the_linearisation() -> None:
    flow = Flow(lambda t, y: (-3.0 * torch.sin(y[0]),), Rows(), torch.ones(4))
    x = (torch.zeros(4, dtype=F64),)
    assert spectral_radius(flow, ZERO, x, Rows())[0] == pytest.approx(3.0, rel=1e-6)
