"""The energy along a solve against eigendecompositions of the true solution."""

import math

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, Series, Trajectory, catalogue, solve, stopping
from neuralpde.fields import Diffusion, Field, Heat, Source, Wave, allen_cahn
from neuralpde.tracking import EnergyTrack

NORMS = ["comb", "rw", "sym", "augmented"]
BATCH = Graph.union([catalogue.path(6), catalogue.star(9), catalogue.ring(5), catalogue.path(1)])
FAMILY = {
    "grid": catalogue.grid(5, 6),
    "star": catalogue.star(20),
    "barbell": catalogue.barbell(5, 2),
    "components": Graph(torch.tensor([[0, 1, 1, 2, 4, 5], [1, 0, 2, 1, 5, 4]]), 7),
    "weighted": Graph(
        torch.tensor([[0, 1, 1, 2, 0, 2], [1, 0, 2, 1, 2, 0]]),
        edge_weight=torch.tensor([3.0, 3.0, 0.1, 0.1, 1.0, 1.0]),
    ),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def true_energy(graph: Graph, x0: Tensor, norm: str, times: Tensor, rate: float = 1.0) -> Tensor:
    """tr(x'Lx) along x' = -rate L x by an eigendecomposition; rw through D^(1/2) x."""
    graph = graph.to(dtype=torch.float64)
    L = graph.laplacian("sym" if norm == "rw" else norm).to_dense()
    values, vectors = torch.linalg.eigh(L)
    root = torch.where(graph.degree > 0, graph.degree, 1.0).sqrt()[:, None]
    y0 = x0.double() * root if norm == "rw" else x0.double()
    modes = (vectors.T @ y0).square().sum(1)
    return ((-2 * rate * times[:, None] * values).exp() * values * modes).sum(1)


def check(series: Series, want: Tensor, few_percent: float) -> None:
    """Right within the floor plus some percent, and never shown when far from right."""
    shown = ~series.y.isnan()
    assert shown.any()
    error = (series.y - want).abs()[shown]
    assert (error <= 1.01 * series.floor[shown] + few_percent * want[shown]).all()
    above = shown & (series.y > 3 * series.floor)
    assert ((series.y - want).abs()[above] <= 0.3 * want[above]).all()
    assert (series.y[shown] >= 0).all()
    hidden = ~shown
    assert (want[hidden] <= 3 * series.floor[hidden] + 1e-300).all()


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_solves_know_the_whole_curve(kind: str, norm: str, dtype: torch.dtype) -> None:
    graph, times = FAMILY[kind], [0.0, 0.1, 1.0, 7.0]
    x0 = normal(graph.num_nodes, 3).to(dtype)
    traj = solve(Heat(norm, 0.7), x0, times, graph)
    assert traj.stats.solver == "chebyshev"
    before = traj.stats.operator_products
    energy = traj.energy
    assert traj.stats.operator_products > before
    assert set(times) <= set(energy.t.tolist())
    assert len(energy.t) >= 64
    assert (energy.t.diff() > 0).all()
    want = true_energy(graph, x0, norm, energy.t, 0.7)
    error = (energy.y - want).abs()
    shown = ~energy.y.isnan()
    assert (error[shown] <= energy.floor[shown] + 1e-6 * want[shown]).all()
    assert shown.float().mean() > 0.5 if dtype == torch.float64 else shown.float().mean() > 0.2
    assert energy.y[0] == pytest.approx(float(want[0]), rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("solver", ["dopri5", "tsit5"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_energies_of_steps_are_those_of_the_true_solution(
    norm: str, solver: str, dtype: torch.dtype
) -> None:
    for kind in FAMILY:
        graph, x0 = FAMILY[kind], normal(FAMILY[kind].num_nodes, 3).to(dtype)
        traj = solve(Heat(norm), x0, 12.0, graph, solver=solver)
        assert len(traj.energy.t) == traj.stats.accepted + 1
        check(traj.energy, true_energy(graph, x0, norm, traj.energy.t), 0.03)


@pytest.mark.parametrize("norm", NORMS)
def test_the_known_slope_and_the_product_give_one_energy(norm: str) -> None:
    graph, x0 = FAMILY["weighted"], normal(3, 2)
    free = solve(Heat(norm, 1.3), x0, 2.0, graph, solver="dopri5")
    paid = solve(
        Diffusion(lambda g, x: g.laplacian(norm) * -1.3, norm), x0, 2.0, graph, solver="dopri5"
    )
    torch.testing.assert_close(free.energy.t, paid.energy.t, rtol=1e-12, atol=0)
    torch.testing.assert_close(free.energy.y, paid.energy.y, rtol=1e-8, atol=0, equal_nan=True)
    assert free.energy.convention == paid.energy.convention


def test_the_known_slope_costs_no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []
    series = EnergyTrack.series

    def counting(self: EnergyTrack, *arguments: object) -> dict[str, Series]:
        spent.append(self.products)
        return series(self, *arguments)

    monkeypatch.setattr(EnergyTrack, "series", counting)
    graph, x0 = FAMILY["grid"], normal(30, 1)
    for state, field, each in ((x0, Heat(), 0), (x0.float(), Heat(), 1), (x0, allen_cahn(), 1)):
        traj = solve(field, state, 1.0, graph, solver="dopri5")
        assert spent.pop() == each * (traj.stats.accepted + 1)
        assert traj.stats.operator_products == traj.stats.nfe


@pytest.mark.parametrize(
    ("graph", "gap"),
    [
        (catalogue.grid(10, 10), 4 * math.sin(math.pi / 20) ** 2),
        (catalogue.ring(30), 4 * math.sin(math.pi / 30) ** 2),
        (catalogue.star(20), 1.0),
    ],
    ids=["grid", "ring", "star"],
)
@pytest.mark.parametrize("solver", ["tsit5", "dopri5"])
def test_rates_stay_right_down_to_consensus(graph: Graph, gap: float, solver: str) -> None:
    x0, end = 5.0 + normal(graph.num_nodes, 2), 17.0 / gap
    traj = solve(Heat(), x0, end, graph, solver=solver, error_scale="deviation", max_steps=100_000)
    energy = traj.energy
    assert energy.y[-1] / energy.y[0] < 1e-12
    assert not energy.y.isnan().any()
    # Windows in which the second eigenvalue has won, the last one ending at 1e-12.
    levels = energy.y / energy.y[0]
    last = float(energy.t[int((levels > 1e-12).nonzero()[-1])])
    for start in (0.4, 0.6, 0.8):
        window = start * last, (start + 0.2) * last
        assert energy.rate(*window) == pytest.approx(-2 * gap, rel=0.01)


def test_the_deviation_scale_listens_to_rtol() -> None:
    graph, x0 = catalogue.ring(30), 5.0 + normal(30, 2)
    counts = [
        solve(
            Heat(), x0, 3.0, graph, solver="tsit5", error_scale="deviation", rtol=r, atol=1e-9
        ).stats.accepted
        for r in (1e-7, 1e-2)
    ]
    assert counts[0] > 3 * counts[1]


def test_the_plain_scale_hides_what_it_cannot_know() -> None:
    graph, x0 = catalogue.grid(10, 10), normal(100, 1)
    traj = solve(Heat(), x0, 150.0, graph, solver="dopri5")
    want = true_energy(graph, x0, "comb", traj.energy.t)
    assert want[-1] < 1e-9 * want[0]
    assert traj.energy.y[-1].isnan()
    assert traj.energy.y[~traj.energy.y.isnan()].min() < 1e-9 * want[0]
    check(traj.energy, want, 0.03)
    sharp = solve(Heat(), x0, 150.0, graph, solver="dopri5", error_scale="deviation")
    assert float(sharp.energy.y[-1]) == pytest.approx(
        float(true_energy(graph, x0, "comb", sharp.energy.t)[-1]), rel=0.05
    )


@pytest.mark.parametrize("how", [{}, {"solver": "tsit5"}, {"solver": "rk4", "steps": 12}])
@pytest.mark.parametrize("norm", ["comb", "rw"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constants_have_no_energy(how: dict[str, object], norm: str, dtype: torch.dtype) -> None:
    graph = FAMILY["grid"]
    traj = solve(Heat(norm), torch.full((30, 2), 7.3, dtype=dtype), 2.0, graph, **how)
    energy = traj.energy
    assert (energy.y.isnan() | (energy.y == 0)).all()
    torch.testing.assert_close(traj.final, torch.full_like(traj.final, 7.3), rtol=1e-4, atol=0)


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
@pytest.mark.parametrize("norm", NORMS)
def test_batches_have_an_energy_for_each_graph(solver: str, norm: str) -> None:
    x0 = normal(BATCH.num_nodes, 2)
    energy = solve(Heat(norm), x0, 3.0, BATCH, solver=solver).energy
    assert energy.y.shape == energy.t.shape == energy.floor.shape
    assert energy.y.shape[1] == 4
    for g, graph in enumerate([catalogue.path(6), catalogue.star(9), catalogue.ring(5)]):
        alive = ~energy.t[:, g].isnan()
        one = Series(energy.t[alive, g], energy.y[alive, g], "", energy.floor[alive, g])
        check(one, true_energy(graph, x0[BATCH.batch == g], norm, one.t), 0.03)
        if solver == "tsit5":
            assert energy.y[~alive, g].isnan().all()
    lone = energy.y[:, 3]
    assert (lone.isnan() | (lone == 0) | (lone <= energy.floor[:, 3])).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("solver", ["auto", "dopri5"])
def test_norm_and_rayleigh_stand_beside_the_energy(norm: str, solver: str) -> None:
    graph, x0 = FAMILY["weighted"].to(dtype=torch.float64), normal(3, 2)
    traj = solve(Heat(norm), x0, [0.0, 0.4, 0.9], graph, solver=solver, rtol=1e-9, atol=1e-10)
    metric = graph.degree[:, None] if norm == "rw" else torch.ones(3, 1).double()
    for t, x in zip(traj.t.tolist(), traj.x, strict=True):
        size = float((metric * x**2).sum())
        if solver == "auto" or t in (0.0, 0.9):
            (at,) = (traj["norm"].t == t).nonzero()[0].tolist()
            assert float(traj["norm"].y[at]) == pytest.approx(math.sqrt(size), rel=1e-6)
            quotient = float(true_energy(graph, x0, norm, torch.tensor([t]).double())) / size
            assert float(traj["rayleigh"].y[at]) == pytest.approx(quotient, rel=1e-5)


@pytest.mark.parametrize("norm", ["comb", "rw"])
@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_directed_diffusion_has_the_energy_of_its_arcs(norm: str, solver: str) -> None:
    arcs = torch.tensor([[0, 1, 2, 0, 1], [1, 2, 0, 2, 0]])
    graph, x0 = Graph(arcs), normal(3, 2)
    traj = solve(Heat(norm), x0, [0.0, 0.5, 1.0], graph, solver=solver, rtol=1e-8)
    L = graph.laplacian(norm, dtype=torch.float64).to_dense()
    for t, found in zip(traj.energy.t.tolist(), traj.energy.y.tolist(), strict=True):
        x = torch.linalg.matrix_exp(-t * L) @ x0
        want = float((x[arcs[0]] - x[arcs[1]]).square().sum()) / 2
        assert found == pytest.approx(want, rel=1e-5)
    assert "energy" in str(traj)


def test_a_node_measure_weights_the_flow_and_not_the_energy() -> None:
    ring, x0 = catalogue.ring(4).to(dtype=torch.float64), normal(4, 1)
    mass = torch.tensor([1.0, 5.0, 0.5, 2.0], dtype=torch.float64)
    L = ring.laplacian().to_dense()
    for solver in ("auto", "dopri5"):
        graph = Graph(ring.edge_index, node_weight=mass)
        energy = solve(Heat(), x0, 2.0, graph, solver=solver, rtol=1e-8, atol=1e-10).energy
        for t, found in zip(energy.t.tolist(), energy.y.tolist(), strict=True):
            x = torch.linalg.matrix_exp(-t * L / mass[:, None]) @ x0
            assert found == pytest.approx(float((x * (L @ x)).sum()), rel=1e-4)


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_saving_the_end_keeps_the_energy_of_the_whole_way(solver: str) -> None:
    graph, x0 = FAMILY["grid"], normal(30, 2)
    energy = solve(Heat(), x0, [0.0, 0.3, 1.0], graph, solver=solver, save="end").energy
    assert energy.t[0] == 0.0
    assert energy.t[-1] == 1.0
    assert len(energy.t) > 5
    check(energy, true_energy(graph, x0, "comb", energy.t), 0.03)


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_a_flow_at_rest_keeps_its_energy(solver: str) -> None:
    batch = Graph.union([catalogue.ring(4)] * 2)
    energy = solve(
        Heat(rate=torch.tensor([1.0, 0.0])), normal(8, 1), 1.0, batch, solver=solver
    ).energy
    still = energy.y[:, 1][~energy.t[:, 1].isnan()]
    torch.testing.assert_close(still, still[:1].expand_as(still))
    assert energy.y[-1, 0] != energy.y[0, 0]


def test_each_field_has_its_own_form() -> None:
    graph, x0 = FAMILY["grid"], normal(30, 2)
    for norm in NORMS:
        convention = solve(Heat(norm), x0, 1.0, graph).energy.convention
        assert convention.startswith("comb" if norm == "rw" else norm)
    assert solve(lambda t, x: -x, x0, 1.0, graph).energy.convention.startswith("comb")
    assert solve(Heat("sym") + Source(1.0), x0, 1.0, graph).energy.convention.startswith("sym")
    plain = solve(Heat("sym"), x0, [0.0, 0.5, 1.0], graph)["dirichlet"]
    assert plain.convention.startswith("comb")
    L = graph.laplacian(dtype=torch.float64)
    assert float(plain.y[0]) == pytest.approx(float((x0 * (L @ x0)).sum()), rel=1e-12)
    assert plain.t.tolist() == [0.0, 0.5, 1.0]


def test_sources_and_waves_are_measured_on_their_states() -> None:
    graph, x0 = FAMILY["grid"].to(dtype=torch.float64), normal(30, 2)
    L = graph.laplacian()
    inflow = Source(normal(30, 2, seed=8))
    affine: Trajectory = solve(Heat() + inflow, x0, [0.0, 0.5, 1.0], graph)
    want = [float((x * (L @ x)).sum()) for x in affine.x]
    assert affine.energy.y.tolist() == pytest.approx(want, rel=1e-9)
    assert affine.energy.t.tolist() == [0.0, 0.5, 1.0]
    wave = solve(Wave(), (x0, 0 * x0), 1.0, graph, save="steps")
    want = [float((x * (L @ x)).sum()) for x in wave.x[0]]
    assert wave.energy.y.tolist() == pytest.approx(want, rel=1e-9)


def test_complex_states_have_a_real_energy() -> None:
    graph = FAMILY["grid"].to(dtype=torch.float64)
    z = torch.complex(normal(30, 1), normal(30, 1, seed=1))
    for solver in ("auto", "tsit5"):
        energy = solve(Heat(), z, 1.0, graph, solver=solver).energy
        both = sum(true_energy(graph, part, "comb", energy.t) for part in (z.real, z.imag))
        torch.testing.assert_close(energy.y, both, rtol=1e-3, atol=1e-9)


class Silent(Field):
    """x' = -x, no word about a form."""

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -x


def test_without_a_graph_there_is_no_energy() -> None:
    traj = solve(Silent(), normal(4, 1), 1.0)
    assert traj.energy is None
    assert "energy" not in traj


@pytest.mark.parametrize("solver", ["exact", "tsit5", "rk4", "torchdiffeq:dopri5", "scipy:RK45"])
def test_who_watches_nothing_gets_the_same_states_and_no_energy(solver: str) -> None:
    graph = catalogue.grid(4, 5)
    x0 = normal(20, 3)
    how = {"solver": solver, "steps": 10 if solver == "rk4" else None}
    silent, watched = (solve(Heat(), x0, 1.0, graph, watch=w, **how) for w in (None, ()))
    assert torch.equal(silent.final, watched.final)
    assert silent.stats.nfe == watched.stats.nfe
    assert silent.energy is None
    assert "rayleigh" not in silent
    assert "energy" in watched


def test_a_stop_by_energy_needs_no_watching() -> None:
    graph = catalogue.grid(4, 5)
    x0 = normal(20, 3)
    how = {"solver": "tsit5", "stop": stopping.EnergyBelow(0.1)}
    one, other = (solve(Heat(), x0, 50.0, graph, watch=w, **how) for w in (None, ()))
    assert torch.equal(one.final, other.final)
    assert one.status == other.status != "done"
