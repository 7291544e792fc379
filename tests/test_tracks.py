"""The survey as a call: a reference run to its printed digits, and verdicts on what is known."""

import math

import numpy as np
import pytest
import torch

from analysis import Track, balanced_forman, candidate, spectral_gap, track
from analysis.tracks import MEASURES
from neuralpde import Graph, catalogue

GRID = catalogue.grid(10, 10)
LAYERS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
DIGITS = 0.02
"""Of log10: two digits. Other seeds scatter by one in 100 layers."""

# A run that is not this code: x uniform by manual_seed(0), then layer after layer of
# torch_geometric drawn in single precision and converted, ReLU behind each.
GCN = {
    "energy": (3.76e1, 2.06, 3.7e-1, 2.3e-2, 1.5e-3, 2.1e-6, 9.4e-12, 1.4e-21, 4.4e-42),
    "MAD": (0.873, 0.123, 4.2e-2, 8.2e-3, 9.1e-4, 4.5e-4, 4.0e-5, 1.1e-5),
    "rayleigh": (0.881, 0.130, 0.0467, 0.0132, 5.94e-3, 5.62e-3, 5.13e-3, 5.14e-3, 5.14e-3),
    "rayleigh augmented": (
        0.191, 0.0282, 9.8e-3, 2.1e-3, 3.0e-4, 1.5e-4, 2.1e-5, 3.2e-6, 2.9e-6,
    ),
    "rank": (42.0, 15.1, 9.0, 4.1, 2.0, 1.6, 1.15, 1.07, 1.05),
}  # fmt: skip
ENERGIES = {
    "gat": (3.76e1, 2.26, 3.6e-1, 1.7e-2, 2.5e-4, 4.6e-7, 3.7e-13, 1.8e-23, 1.7e-46),
    "sage": (3.76e1, 8.24, 1.49, 7.5e-2, 3.6e-4, 8.8e-9, 4.8e-17, 9.6e-33, 5.7e-66),
    "graphcon": (37.6, 39.9, 5.07, 42.8, 18.6, 92.2, 1.3e3, 4e6, 4.4e13),
    "g2": (37.6, 36.9, 36.2, 35.0, 32.4, 28.8, 23.1, 16.8, 11.0),
}


def assert_curve(one: Track, measure: str, expected: tuple[float, ...]) -> None:
    y = one.series[measure].y
    for k, value in zip(LAYERS, expected, strict=False):
        assert math.log10(float(y[k]) / value) == pytest.approx(0, abs=DIGITS), (measure, k)


@pytest.fixture(scope="module")
def gcn() -> Track:
    return track(["gcn"], GRID, 128, window=(5, 59))[0]


def test_the_reference_network_is_reproduced_to_its_digits(gcn: Track) -> None:
    for measure, expected in GCN.items():
        assert_curve(gcn, measure, expected)
    assert gcn.decay is not None
    assert gcn.decay.exponential.rate == pytest.approx(0.72, abs=0.005)


def test_the_survey_says_over_smooths_and_the_norm_explains_it(gcn: Track) -> None:
    assert gcn.absolute.outcome == "over-smooths"
    fallen, by_norm = gcn.decades
    assert fallen == pytest.approx(42.9, abs=0.05)
    assert by_norm == pytest.approx(40.7, abs=0.05)
    # What is left is the Rayleigh quotient of the limit (D + I)^(1/2) 1.
    limit = (torch.bincount(GRID.edge_index[0]) + 1).double().sqrt()
    source, target = GRID.edge_index
    quotient = (limit[source] - limit[target]).square().sum() / 2 / limit.square().sum()
    assert float(quotient) == pytest.approx(5.1254e-3, rel=1e-4)
    assert float(gcn.series["rayleigh"].y[-1]) == pytest.approx(float(quotient), rel=5e-3)
    assert gcn.shape.outcome != "over-smooths"


def test_linear_smoothing_explains_a_tenth_of_the_slope(gcn: Track) -> None:
    A = torch.zeros(100, 100).double().index_put(tuple(GRID.edge_index), torch.tensor(1.0).double())
    A = A + torch.eye(100)
    P = A / A.sum(1).sqrt()[:, None] / A.sum(1).sqrt()
    second = float(torch.linalg.eigvalsh(P)[-2])
    assert second == pytest.approx(0.97785, abs=1e-5)
    assert gcn.decay is not None
    assert -2 * math.log(second) < 0.1 * gcn.decay.exponential.rate


@pytest.mark.slow
@pytest.mark.parametrize("name", ENERGIES)
def test_the_other_reference_curves_are_reproduced(name: str) -> None:
    (one,) = track([name], GRID, 128, window=(5, 59))
    assert_curve(one, "energy", ENERGIES[name])
    rates = {"gat": 0.83, "sage": 1.20}
    if name in rates:
        assert one.decay is not None
        assert one.decay.exponential.rate == pytest.approx(rates[name], abs=0.01)
        assert one.absolute.outcome == "over-smooths"
    else:
        assert one.absolute.outcome == one.shape.outcome == "does not smooth"


@pytest.mark.parametrize("name", ["graphcon", "g2", "graff", "wave"])
def test_what_keeps_differences_is_said_not_to_smooth(name: str) -> None:
    (one,) = track([name], catalogue.grid(5, 5), 48, channels=16)
    assert one.absolute.outcome == "does not smooth", one.absolute
    assert one.shape.outcome == "does not smooth", one.shape


@pytest.mark.parametrize("name", ["heat", "grand"])
def test_diffusion_over_smooths_by_both_measures(name: str) -> None:
    (one,) = track([name], catalogue.grid(4, 4), 32, channels=8)
    assert one.absolute.outcome == one.shape.outcome == "over-smooths", (one.absolute, one.shape)
    fallen, by_norm = one.decades
    assert by_norm < 0.5 < fallen / 10


@pytest.mark.parametrize("name", ["gcn", "gat", "sage"])
@pytest.mark.parametrize("seed", range(3))
def test_random_networks_are_never_said_to_keep_their_energy(name: str, seed: int) -> None:
    # Their rates wander from layer to layer; that is no power law, and no end of the decay.
    (one,) = track([name], catalogue.grid(5, 5), 48, channels=32, seed=seed)
    assert one.absolute.outcome in ("over-smooths", "undecided"), one.absolute
    fallen, by_norm = one.decades
    assert by_norm > 0.7 * fallen > 7


def test_remedies_keep_what_the_plain_network_loses() -> None:
    names = ["gcn", "gcn+residual", "gcn+source", "gcn+gating"]
    plain, *cured = track(names, catalogue.grid(5, 5), 48, channels=16)
    lost = plain.series["energy"].y[-1]
    for one in cured:
        assert float(one.series["energy"].y[-1]) > 1e6 * float(lost), one.name
        assert one.absolute.outcome == "does not smooth", one.absolute
    for one in cured:
        assert torch.equal(one.series["energy"].y[:1], plain.series["energy"].y[:1])


@pytest.mark.parametrize("way", ["sdrf", "fosr"])
def test_rewired_graphs_smooth_faster_and_are_measured_on_the_old_edges(way: str) -> None:
    graph = catalogue.barbell(6)
    plain, rewired = track(["heat", f"heat+{way}"], graph, 24, channels=4)
    assert (plain.edges, rewired.edges) == (31, 34)
    assert float(rewired.series["energy"].y[0]) == float(plain.series["energy"].y[0])
    known = rewired.series["energy"].y.isfinite() & plain.series["energy"].y.isfinite()
    last = int(known.nonzero()[-1])
    fallen = [float(one.series["energy"].y[last]) for one in (rewired, plain)]
    assert fallen[0] < 0.5 * fallen[1]


def test_the_spectral_way_opens_the_gap_and_the_curved_one_lifts_the_worst_edge() -> None:
    ways = [candidate(f"gcn+{way}").rewire for way in ("fosr", "sdrf")]
    assert None not in ways
    spectral, curved = (way(catalogue.grid(5, 5)) for way in ways if way is not None)
    assert spectral_gap(spectral) > 1.05 * spectral_gap(catalogue.grid(5, 5))
    assert spectral_gap(spectral) > 1.1 * spectral_gap(curved)
    spectral, curved = (way(catalogue.barbell(6)) for way in ways if way is not None)
    worst = [float(balanced_forman(one).min()) for one in (catalogue.barbell(6), curved)]
    assert worst[1] > worst[0] + 0.2


def test_a_window_bounds_the_fit_of_rates() -> None:
    (early,) = track(["heat"], catalogue.grid(4, 4), 24, channels=2, window=(0, 8))
    (late,) = track(["heat"], catalogue.grid(4, 4), 24, channels=2)
    assert early.decay is not None
    assert late.decay is not None
    assert (early.decay.start, early.decay.end) == (0, 8)
    assert early.decay.exponential.rate > 1.05 * late.decay.exponential.rate


def test_heat_on_a_ring_decays_at_twice_its_gap() -> None:
    (one,) = track(["heat"], catalogue.ring(7), 24, channels=2)
    assert one.decay is not None
    assert one.decay.exponential.rate == pytest.approx(
        2 * (2 - 2 * math.cos(2 * math.pi / 7)), rel=1e-3
    )


def test_tables_hold_layers_of_powers_of_two_and_the_last() -> None:
    (one,) = track(["gcn"], catalogue.ring(6), 12, channels=4)
    assert [row["layer"] for row in one.rows()] == [0, 1, 2, 4, 8, 12]
    assert set(one.rows()[0]) == {"field", "layer", *MEASURES}
    row = one.row()
    assert row["edges"] == 6
    assert row["decades"] == pytest.approx(math.log10(row["E first"] / row["E last"]))
    survey, comb = one.series["energy"].y, one.series["comb"].y
    torch.testing.assert_close(survey, comb * 2 / 6)


def test_runs_are_repeated_by_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (track(["sage"], GRID, 3, channels=4, seed=5)[0] for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.series["energy"].y, two.series["energy"].y)
    other = track(["sage"], GRID, 3, channels=4, seed=6)[0]
    assert not torch.equal(one.series["energy"].y, other.series["energy"].y)


def test_weights_of_edges_play_no_part_and_states_can_be_given() -> None:
    ring = catalogue.ring(6)
    heavy = Graph(ring.edge_index, 6, edge_weight=torch.full((12,), 3.0))
    x = torch.from_numpy(np.linspace(0, 1, 12).reshape(6, 2))
    plain, weighted = (track(["heat", "gcn"], graph, 6, x=x) for graph in (ring, heavy))
    for one, two in zip(plain, weighted, strict=True):
        assert torch.equal(one.series["norm"].y, two.series["norm"].y)
        assert float(one.series["norm"].y[0]) == pytest.approx(float(x.norm()))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gcm", "gcn"), ("gcn+residul", "residual"), ("heat+gating", "cannot be had"),
        ("gcn+sdrf+fosr", "one way"), ("gcn+gating+source", "cannot be had"),
    ],
)  # fmt: skip
def test_unknown_names_and_remedies_are_refused_before_anything_runs(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        candidate(name)
    with pytest.raises(ValueError, match=says):
        track(["gcn", name], GRID)
