"""Measures against energies and dense matrices: live, on a state, and along a trajectory."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import analysis
from analysis import Dirichlet, Measure, Norm, Rayleigh
from neuralpde import Graph, catalogue, dirichlet_energy, solve
from neuralpde.fields import Heat, Wave, allen_cahn
from tests.strategies import batches

NORMS = ["comb", "rw", "sym", "augmented"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15)
@given(batches())
def test_measures_of_a_state_are_per_graph(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    labels = torch.zeros(len(x)).long() if graph.batch is None else graph.batch
    square = torch.zeros(graph.num_graphs).double().index_add(0, labels, x.square().sum(1))
    torch.testing.assert_close(Norm()(x, graph), square.sqrt())
    for norm in NORMS:
        L = graph.laplacian("comb" if norm == "rw" else norm, dtype=torch.float64).to_dense()
        each = (x * (L @ x)).sum(1)
        energy = torch.zeros_like(square).index_add(0, labels, each)
        torch.testing.assert_close(Dirichlet(norm)(x, graph), energy, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(dirichlet_energy(x, graph, norm), energy, rtol=1e-9, atol=1e-10)
        if norm != "rw":
            torch.testing.assert_close(
                Rayleigh(norm)(x, graph), energy / square, rtol=1e-9, atol=1e-10
            )


def test_the_random_walk_quotient_is_between_its_eigenvalues() -> None:
    graph = catalogue.star(8)
    L = graph.laplacian("rw", dtype=torch.float64).to_dense()
    values, vectors = torch.linalg.eig(L)
    for value, vector in zip(values.real, vectors.real.T, strict=True):
        found = Rayleigh("rw")(vector[:, None].contiguous(), graph)
        assert float(found) == pytest.approx(float(value), abs=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_live_afterwards_and_own_energies_agree(norm: str) -> None:
    graph, x0 = catalogue.grid(4, 5), normal(20, 2)
    traj = solve(
        Heat(norm), x0, 1.0, graph, solver="tsit5", save="steps",
        watch=[Dirichlet(norm), Rayleigh(norm), Norm()],
    )  # fmt: skip
    live = traj["dirichlet"]
    torch.testing.assert_close(live.t, traj.t)
    torch.testing.assert_close(live.y, traj.measure(Dirichlet(norm)).y, rtol=1e-12, atol=0)
    torch.testing.assert_close(live.y, traj.energy.y, rtol=1e-8, atol=0)
    torch.testing.assert_close(traj["rayleigh quotient"].y, traj["rayleigh"].y, rtol=1e-8, atol=0)
    assert live.convention == traj.energy.convention
    plain = torch.stack([x.norm() for x in traj.x])
    torch.testing.assert_close(traj["frobenius"].y, plain, rtol=1e-12, atol=0)
    if norm != "rw":
        torch.testing.assert_close(traj["norm"].y, plain, rtol=1e-12, atol=0)


def test_measures_watch_batches_and_exact_solves() -> None:
    batch = Graph.union([catalogue.path(4), catalogue.star(6)])
    x0 = normal(10, 1)
    steps = solve(allen_cahn(), x0, 1.0, batch, watch=Dirichlet("sym"))["dirichlet"]
    assert steps.y.shape[1] == 2
    torch.testing.assert_close(steps.y[0], Dirichlet("sym")(x0, batch))
    exact = solve(Heat(), x0, [0.0, 0.5, 1.0], batch, watch=Norm())
    assert exact["frobenius"].y.shape == (3, 2)
    torch.testing.assert_close(exact["frobenius"].y[1], Norm()(exact.x[1], batch))


def test_a_tuple_is_measured_by_its_first_part() -> None:
    graph, x = catalogue.ring(5), normal(5, 1)
    assert torch.equal(Norm()((x, 5 * x), graph), Norm()(x, graph))
    traj = solve(Wave(), (x, 0 * x), 1.0, graph, watch=Dirichlet())
    torch.testing.assert_close(traj["dirichlet"].y, traj.energy.y)


def test_a_measure_is_a_value_and_says_what_it_measures() -> None:
    assert Dirichlet("sym") == Dirichlet("sym") != Dirichlet()
    assert len({Dirichlet(norm).convention for norm in NORMS}) == 4
    assert "sym" in Rayleigh("sym").convention
    with pytest.raises(AttributeError):
        Dirichlet().norm = "rw"
    for kind in (Dirichlet, Rayleigh):
        with pytest.raises(ValueError, match="unknown norm 'som'; did you mean"):
            kind("som")
    with pytest.raises(ValueError, match=r"call it with \(x, graph\)"):
        Norm()(torch.ones(3, 1))
    assert torch.isnan(Rayleigh()(torch.zeros(4, 1), catalogue.path(4)))


def test_own_measures_need_a_value_only() -> None:
    class Mass(Measure):
        name = "mass"

        def value(self, x: Tensor, graph: Graph) -> Tensor:
            return x.sum()

    graph, x0 = catalogue.grid(3, 3), normal(9, 1)
    mass = solve(Heat(), x0, 2.0, graph, solver="tsit5", watch=Mass())["mass"]
    torch.testing.assert_close(mass.y, x0.sum().expand_as(mass.y))
    assert analysis.dirichlet_energy is dirichlet_energy
