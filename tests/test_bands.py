"""Band energies: exact sums, Chebyshev filters against them, live and afterwards."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from analysis import BandEnergy, spectrum
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat, Wave, allen_cahn
from tests.strategies import batches

NORMS = ["comb", "sym", "rw", "augmented"]
SPACINGS = ["eigenvalues", "modes"]
F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def mixed() -> Graph:
    nothing = Graph(torch.zeros(2, 0).long(), 3)
    return Graph.union([catalogue.star(9), catalogue.path(30), catalogue.grid(6, 7), nothing])


def totals(x: Tensor, graph: Graph, norm: str) -> Tensor:
    metric = graph.laplacian(norm, dtype=F64).metric
    rows = x.square().sum(1) * (1.0 if metric is None else metric)
    labels = torch.zeros(len(x)).long() if graph.batch is None else graph.batch
    return torch.zeros(graph.num_graphs, dtype=F64).index_add(0, labels, rows)


@settings(max_examples=8)
@given(batches())
def test_bands_add_up_to_the_squared_norm(graph: Graph) -> None:
    x = normal(graph.num_nodes, 2)
    for norm in NORMS:
        for measure in (BandEnergy(5, norm), BandEnergy(3, norm, "modes"),
                        BandEnergy(5, norm, method="chebyshev")):  # fmt: skip
            bands = measure(x, graph)
            assert bands.shape == (graph.num_graphs, measure.count)
            expected = totals(x, graph, norm)
            torch.testing.assert_close(bands.sum(1), expected, rtol=1e-10, atol=1e-10)
            shares = BandEnergy(measure.bands, norm, measure.spacing, relative=True)(x, graph)
            torch.testing.assert_close(shares.sum(1), torch.ones_like(expected))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_exact_bands_are_sums_over_their_modes(norm: str, spacing: str) -> None:
    graph, measure = mixed(), BandEnergy(6, norm, spacing)
    x, modes = normal(graph.num_nodes, 2), spectrum(graph, norm)
    edges, power, found = measure.edges(graph), modes.power(x), measure(x, graph)
    for g in range(4):
        own = modes.batch == g
        values = modes.eigenvalues[own]
        for j in range(6):
            low, high = edges[g, j] - 1e-8, edges[g, j + 1] - 1e-8
            inside = (values >= low) & ((values < high) | (j == 5))
            if g < 3:  # the graph without edges has only the kernel, which is the first band's
                torch.testing.assert_close(found[g, j], power[own][inside].sum())
    torch.testing.assert_close(found[3, 1:], torch.zeros(5, dtype=F64))


def test_bands_of_modes_hold_equally_many() -> None:
    for graph in (catalogue.path(64), catalogue.grid(8, 9)):
        measure = BandEnergy(8, spacing="modes")
        every = spectrum(graph).inverse(torch.eye(graph.num_nodes, dtype=F64))
        counts = torch.stack([measure(column[:, None], graph)[0] for column in every.T]).sum(0)
        assert (counts - graph.num_nodes / 8).abs().max() <= 2
        torch.testing.assert_close(counts, counts.round())
        inner = measure.edges(graph)[0, 1:-1, None]
        assert (inner - spectrum(graph).eigenvalues).abs().min() > 1e-6


@pytest.mark.parametrize("method", ["exact", "chebyshev"])
def test_eigenvectors_land_in_their_band(method: str) -> None:
    graph, n = catalogue.path(40), 40
    measure = BandEnergy(8, method=method)
    edges = measure.edges(graph)[0]
    # At least an eighth of a mean band away from every edge, in the angle.
    top = float(graph.laplacian(dtype=F64).spectrum()[1])
    angle = torch.arccos(1 - 2 * edges[1:-1] / top)
    for k in range(n):
        value = 2 - 2 * math.cos(math.pi * k / n)
        mode = torch.cos(math.pi * k / n * (torch.arange(n).double() + 0.5))[:, None]
        mode = mode / mode.norm()
        at = math.acos(1 - 2 * value / top)
        if float((angle - at).abs().min()) < math.pi / 64:
            continue
        band = int((edges[1:-1] < value).sum())
        found = measure(mode, graph)[0]
        tol = 1e-12 if method == "exact" else measure.leakage
        assert abs(float(found[band]) - 1) <= tol
        others = torch.cat([found[:band], found[band + 1 :]])
        assert others.abs().max() <= tol


def test_an_eigenvalue_on_an_edge_is_the_upper_bands_with_all_its_modes() -> None:
    graph, measure = catalogue.hypercube(4), BandEnergy(4)  # 0, 2, 4, 6, 8; edges the same
    x = spectrum(graph).inverse(torch.ones(16, 1, dtype=F64))
    torch.testing.assert_close(measure(x, graph)[0], torch.tensor([1.0, 4, 6, 5]).double())
    own = BandEnergy((0.0, 2.0, 7.0, 7.5))(x, graph)[0]
    torch.testing.assert_close(own, torch.tensor([1.0, 14, 1]).double())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("leakage", [1e-1, 1e-3, 1e-8])
def test_filters_agree_with_exact_bands_to_their_stated_error(norm: str, leakage: float) -> None:
    graph = mixed()
    x = normal(graph.num_nodes, 3)
    for spacing in SPACINGS:
        exact = BandEnergy(6, norm, spacing)(x, graph)
        filters = BandEnergy(6, norm, spacing, method="chebyshev", leakage=leakage)
        found, error = filters.reading(x, graph)
        assert ((found - exact).abs() <= error + 1e-10).all()


def test_a_small_leakage_is_reached_where_no_mode_is_near_an_edge() -> None:
    # Eigenvalues 0, 2, 4, 6, 8 in the middle of bands, in lambda and well within in the angle.
    graph, edges = catalogue.hypercube(4), (0.0, 1.0, 3.0, 5.0, 7.0, 8.0)
    x = normal(16, 2)
    exact = BandEnergy(edges)(x, graph)
    for leakage in (1e-2, 1e-6, 1e-11):
        found, error = BandEnergy(edges, method="chebyshev", leakage=leakage).reading(x, graph)
        total = float(x.square().sum())
        assert (found - exact).abs().max() <= leakage * total + 1e-12
        assert (found - exact).abs().max() <= error.max() <= 3 * leakage * total + 1e-11


def test_the_degree_follows_from_bands_and_leakage() -> None:
    graph = catalogue.path(9)
    counts = [
        BandEnergy(bands, leakage=leakage)._bank(graph).count
        for bands, leakage in ((4, 1e-3), (8, 1e-3), (8, 1e-6), (16, 1e-6))
    ]
    assert counts == [117, 232, 493, 985]
    for bands, leakage, width in ((8, 1e-3, 0.125), (5, 1e-6, 0.125), (8, 1e-3, 0.02)):
        products = BandEnergy(bands, leakage=leakage, transition=width)._bank(graph).count / 2
        expected = bands * math.log(2 / leakage) / (4 * width)
        assert products == pytest.approx(expected, rel=0.1)


def test_narrow_transitions_have_smaller_errors() -> None:
    # Eigenvalues of a path are evenly spread in the angle: zones hold what they are wide.
    graph, x = catalogue.path(1000), normal(1000, 1)
    exact = BandEnergy(4)(x, graph)
    sizes = []
    for width in (0.32, 0.08, 0.02):
        found, error = BandEnergy(4, method="chebyshev", transition=width).reading(x, graph)
        assert ((found - exact).abs() <= error).all()
        assert ((found - exact).abs() * 50 > error).any()
        sizes.append(float(error.sum()))
    assert sizes[0] / sizes[1] == pytest.approx(4.0, rel=0.4)
    assert sizes[1] / sizes[2] == pytest.approx(4.0, rel=0.4)


def test_single_precision_near_consensus_keeps_what_is_in_the_bands() -> None:
    graph = catalogue.grid(8, 8)
    noise = normal(64, 1)
    x = (1.0 + 1e-5 * noise).float()
    exact = BandEnergy(4)(x.double(), graph)
    # Leakage is relative to what is outside the kernel.
    for leakage in (1e-2, 1e-6):
        found, error = BandEnergy(4, method="chebyshev", leakage=leakage).reading(x, graph)
        assert ((found - exact).abs()[:, 1:] <= error[:, 1:] + 1e-3 * exact[:, 1:]).all()
        assert (error[:, 1:] < exact[:, 1:]).all()


@pytest.mark.parametrize("method", ["exact", "chebyshev"])
def test_random_combinations_stand_for_many_channels(method: str) -> None:
    graph, x = catalogue.grid(7, 9), normal(63, 200)
    whole = BandEnergy(4)(x, graph)
    found = torch.stack(
        [BandEnergy(4, method=method, probes=8, seed=seed)(x, graph) for seed in range(60)]
    )
    spread = (found - whole).square().mean(0).sqrt() / whole
    assert spread.max() < (2 / 8) ** 0.5
    # 480 combinations in all.
    assert ((found.mean(0) - whole).abs() / whole).max() < (0.12 if method == "exact" else 0.2)
    measure = BandEnergy(4, method=method, probes=8, seed=3)
    value, error = measure.reading(x, graph)
    assert torch.equal(value, found[3])
    assert (error >= 0.5 * value).all()


def test_large_graphs_take_filters_with_edges_of_their_own() -> None:
    graph = catalogue.torus(60, 60)
    known = catalogue.eigenvalues("torus", 60, 60)
    x = normal(3600, 1)
    for spacing in SPACINGS:
        measure = BandEnergy(4, spacing=spacing)
        edges = measure.edges(graph)[0]
        assert edges[0] == 0
        assert float(edges[-1]) == pytest.approx(8.0, rel=1e-8)
        found, error = measure.reading(x, graph)
        # x is white: bands hold as much as they have modes, to the scatter of its squares.
        inside = (known >= edges[:-1, None]) & (known < edges[1:, None])
        expected = inside.sum(1).double()
        assert ((found[0] - expected).abs() <= error[0] + 4 * (2 * expected) ** 0.5).all()
        assert float(found.sum()) == pytest.approx(float(x.square().sum()), rel=1e-10)
    shares = BandEnergy(4, spacing="modes").edges(graph)[0, 1:-1]
    torch.testing.assert_close(
        shares, known.quantile(torch.tensor([0.25, 0.5, 0.75]).double()), rtol=0.05, atol=0
    )


def test_batches_give_what_their_graphs_give() -> None:
    single = [catalogue.star(9), catalogue.path(30), catalogue.grid(6, 7)]
    batch, x = Graph.union(single), normal(81, 2)
    for measure in (BandEnergy(5), BandEnergy(5, "rw", "modes"),
                    BandEnergy(5, "sym", method="chebyshev")):  # fmt: skip
        parts = [
            measure(own, graph)[0] for own, graph in zip(x.split([9, 30, 42]), single, strict=True)
        ]
        torch.testing.assert_close(measure(x, batch), torch.stack(parts), rtol=1e-9, atol=1e-10)


def test_bands_are_watched_live_and_read_afterwards_alike() -> None:
    graph, x0 = catalogue.grid(5, 5), normal(25, 2)
    measure = BandEnergy(4)
    traj = solve(allen_cahn(), x0, 2.0, graph, save="steps", watch=[measure])
    live, after = traj["bands"], traj.measure(measure)
    assert live.y.shape == (len(traj.t), 4)
    torch.testing.assert_close(live.y, after.y, rtol=1e-12, atol=0, equal_nan=True)
    torch.testing.assert_close(live.t, after.t)
    norm = torch.stack([x.square().sum() for x in traj.x])
    torch.testing.assert_close(live.y.sum(1), norm)
    torch.testing.assert_close(live.part(2).y, live.y[:, 2])
    assert "4 curves" in str(live)
    with pytest.raises(ValueError, match=r"one number at each time; read \.y"):
        live.part(0).part(0)
    plain = solve(allen_cahn(), x0, 2.0, graph)
    assert torch.equal(plain.final, traj.final)
    assert plain.stats.nfe == traj.stats.nfe


def test_bands_of_a_batch_are_series_of_graphs_and_bands() -> None:
    batch = Graph.union([catalogue.ring(6), catalogue.path(5)])
    x0 = normal(11, 1)
    traj = solve(Heat(), x0, [0.0, 1.0, 2.0], batch, watch=[BandEnergy(3)])
    live, after = traj["bands"], traj.measure(BandEnergy(3))
    assert live.y.shape == after.y.shape == (3, 2, 3)
    assert live.t.shape == after.t.shape == (3, 2)
    torch.testing.assert_close(live.y, after.y, equal_nan=True)
    assert live.rate().shape == live.integral().shape == (2, 3)
    assert live.rate(0.0)[1, 2] == live.part(2).rate(0.0)[1]
    own = solve(allen_cahn(), x0, 1.0, batch, watch=[BandEnergy(3)])["bands"]
    assert own.y.shape[1:] == (2, 3)
    # The ring has no eigenvalue in its second band: that its value is 0 is known to rounding.
    torch.testing.assert_close(own.y[0].nan_to_num(), BandEnergy(3)(x0, batch))


def test_rates_of_bands_are_those_of_heat() -> None:
    graph = catalogue.complete(6)
    t = torch.linspace(0, 0.6, 13, dtype=F64)
    traj = solve(Heat(), normal(6, 1), t, graph, rtol=1e-12)
    bands = traj.measure(BandEnergy(2))
    assert bands.part(1).rate() == pytest.approx(-12.0, rel=1e-6)
    assert bands.rate()[1] == bands.part(1).rate()
    assert float(bands.rate()[0]) == pytest.approx(0.0, abs=1e-9)
    start = float(bands.y[0, 1])
    assert bands.integral()[1] == pytest.approx(start * (1 - math.exp(-7.2)) / 12, rel=1e-6)


def test_what_rounding_made_is_left_out() -> None:
    for graph in (catalogue.grid(6, 6), catalogue.star(300), catalogue.barbell(40, 20)):
        for norm, dtype in (("comb", torch.float32), ("comb", F64), ("sym", F64)):
            flat = graph.degree.sqrt() if norm == "sym" else torch.ones(graph.num_nodes)
            x0 = 0.7 * flat[:, None].to(dtype)
            traj = solve(Heat(norm), x0, [0.0, 1.0], graph, watch=[BandEnergy(4, norm)])
            assert traj["bands"].y[0, 1:].isnan().all()
            assert traj["bands"].y[:, 0].isfinite().all()


def test_tuples_and_gradients() -> None:
    graph, x = catalogue.ring(7), normal(7, 2).requires_grad_()
    measure = BandEnergy(3)
    assert torch.equal(measure((x, 2 * x), graph), measure(x, graph))
    assert torch.autograd.gradcheck(lambda y: measure(y, graph), (x,))
    traj = solve(Wave(), (x.detach(), 0 * x.detach()), 1.0, graph, watch=[measure])
    assert traj["bands"].y.shape[1] == 3


def test_measures_of_bands_are_values_and_refuse_nonsense() -> None:
    assert BandEnergy(4) == BandEnergy(4) != BandEnergy(5)
    assert hash(BandEnergy((0.0, 1.0, 2.0))) == hash(BandEnergy((0.0, 1.0, 2.0)))
    assert BandEnergy(4, "sym", "modes", relative=True).convention == (
        "sym: |x|^2 / |x|^2 in 4 bands of modes"
    )
    for wrong in (1, (0.0, 1.0), (0.0, 2.0, 1.0), (-1.0, 0.0, 1.0)):
        with pytest.raises(ValueError, match="give 2 or more"):
            BandEnergy(wrong)
    for option in ({"norm": "som"}, {"spacing": "mode"}, {"method": "exac"}):
        with pytest.raises(ValueError, match="did you mean"):
            BandEnergy(**option)
    with pytest.raises(ValueError, match="a share between"):
        BandEnergy(leakage=0.5)
    with pytest.raises(ValueError, match="is between 1e-3"):
        BandEnergy(transition=0.0)
    with pytest.raises(ValueError, match="fewer than 3 say nothing"):
        BandEnergy(probes=2)
    with pytest.raises(ValueError, match="too large"):
        BandEnergy(method="exact")(torch.zeros(3001, 1), catalogue.path(3001))
