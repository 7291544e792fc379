"""Verdicts on flows whose fate is known."""

import pytest
import torch
from torch import Tensor, nn

from analysis import Dirichlet, Rayleigh, verdict
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Heat, Wave, allen_cahn
from solvers.series import Series
from solvers.trajectory import Trajectory

GRID = catalogue.grid(5, 5)


def normal(channels: int = 3, seed: int = 0, nodes: int = 25) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(nodes, channels, dtype=torch.float64, generator=generator)


class Turning(Field):
    """x' = x (W - W^T) - decay x: channels turn into each other, node by node."""

    batched_time = True

    def __init__(self, channels: int, decay: float = 0.0) -> None:
        super().__init__()
        self.W, self.decay = nn.Parameter(torch.randn(channels, channels).double()), decay

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x @ (self.W - self.W.T) - self.decay * x


class Gate(Field):
    """Two nodes whose difference falls like e' = -2 e^(p+1)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        apart = x.flip(0) - x
        return apart.abs() ** self.p * apart


@pytest.mark.parametrize("norm", ["comb", "rw", "sym", "augmented"])
def test_heat_over_smooths_in_its_own_form(norm: str) -> None:
    found = verdict(solve(Heat(norm), normal(), 60.0, GRID))
    assert found.outcome == "over-smooths", found
    assert found.decay is not None
    gap = torch.linalg.eigvals(GRID.laplacian(norm, dtype=torch.float64).to_dense()).real.sort()[0]
    assert found.decay.exponential.rate == pytest.approx(2 * float(gap[1]), rel=0.05)


def test_pure_decay_of_the_norm_is_no_smoothing() -> None:
    traj = solve(lambda t, x: -x, normal(), 30.0, GRID, error_scale="deviation", save="steps")
    assert traj.energy.y[-1] < 1e-20 * traj.energy.y[0]
    found = verdict(traj)
    assert found.outcome == "norm collapses", found
    assert found.norm is not None
    assert found.norm.exponential.rate == pytest.approx(1.0, rel=1e-3)


def test_sym_heat_in_the_combinatorial_form_does_not_smooth() -> None:
    times = torch.linspace(0, 60, 61, dtype=torch.float64)
    graph = catalogue.star(12)
    traj = solve(Heat("sym"), normal(nodes=12), times, graph)
    relative = traj.measure(Rayleigh("comb"))
    assert verdict(traj, relative, traj["norm"]).outcome == "does not smooth"
    assert verdict(traj).outcome == "over-smooths"


@pytest.mark.parametrize("seed", range(20))
def test_networks_that_turn_features_do_not_smooth(seed: int) -> None:
    torch.manual_seed(seed)
    decay = 0.5 * (seed % 2)
    traj = solve(
        Turning(4, decay), normal(4, seed), 20.0, GRID, error_scale="deviation", save="steps"
    )
    assert verdict(traj).outcome == ("norm collapses" if decay else "does not smooth")


def test_waves_and_phases_do_not_smooth() -> None:
    x = normal()
    wave = solve(Wave(), (x, torch.zeros_like(x)), 30.0, GRID, save="steps")
    assert verdict(wave).outcome == "does not smooth"
    phases = solve(allen_cahn(0.05), 0.1 * x, 60.0, GRID, save="steps")
    assert verdict(phases).outcome == "does not smooth"


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_a_gate_smooths_by_a_power_law(p: float) -> None:
    pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    x0 = torch.tensor([[1.5], [0.5]], dtype=torch.float64)
    traj = solve(Gate(p), x0, 2000.0, pair, error_scale="deviation", save="steps", rtol=1e-7)
    found = verdict(traj)
    assert found.outcome == "smooths slowly", found
    # The square of e(t) = (e0^-p + 2 p t)^(-1/p).
    assert found.decay is not None
    assert found.decay.power.rate == pytest.approx(2 / p, rel=2e-2)
    assert found.decay.power.origin == pytest.approx(-1 / (2 * p), abs=20.0)


def test_scatter_and_short_windows_are_left_undecided() -> None:
    t = torch.linspace(0, 5, 60, dtype=torch.float64)
    noise = torch.randn(60, generator=torch.Generator().manual_seed(1)).double()
    traj, one = Trajectory(t, torch.zeros(60, 1, 1)), Series(t, torch.ones(60))
    scattered = Series(t, torch.exp(-t + 0.8 * noise))
    assert verdict(traj, scattered, one).outcome == "undecided"
    few = Series(t, torch.exp(-9 * t), floor=torch.full_like(t, 5e-2))
    assert verdict(traj, few, one).outcome == "undecided"


def test_what_levels_off_does_not_smooth() -> None:
    t = torch.linspace(0, 20, 80, dtype=torch.float64)
    traj, one = Trajectory(t, torch.zeros(80, 1, 1)), Series(t, torch.ones(80))
    found = verdict(traj, Series(t, torch.exp(-t) + 1e-3), one)
    assert found.outcome == "does not smooth"
    assert "levels off" in found.reason


def test_several_graphs_and_none_are_refused_in_words() -> None:
    both = Graph.union([GRID, GRID])
    with pytest.raises(ValueError, match="2 graphs"):
        verdict(solve(Heat(), normal(nodes=50), 1.0, both))
    with pytest.raises(ValueError, match="needs a graph"):
        verdict(solve(lambda t, x: -x, normal(), 1.0))


def test_a_measure_of_ones_own_can_be_judged() -> None:
    times = torch.linspace(0, 60, 61, dtype=torch.float64)
    traj = solve(Heat(), normal(), times, GRID)
    assert verdict(traj, traj.measure(Dirichlet()), traj["norm"]).outcome == "over-smooths"


@pytest.mark.parametrize(
    ("shift", "power", "outcome"),
    [(1.0, 2.0, "smooths slowly"), (50.0, 8.0, "undecided"), (900.0, 40.0, "over-smooths")],
)
def test_how_much_the_rate_slows_down_decides(shift: float, power: float, outcome: str) -> None:
    # On the later half, 50 to 100, rates fall to (50 + shift) / (100 + shift): 0.50, 0.67, 0.95.
    t = torch.linspace(0, 100, 201, dtype=torch.float64)
    traj, one = Trajectory(t, torch.zeros(201, 1, 1)), Series(t, torch.ones(201))
    assert verdict(traj, Series(t, (t + shift) ** -power), one).outcome == outcome


@pytest.mark.parametrize("seed", range(20))
def test_rates_that_wander_are_no_power_law(seed: int) -> None:
    # The energy of a network with random layers: log y is a random walk with drift.
    generator = torch.Generator().manual_seed(seed)
    steps = 0.7 + 0.3 * torch.randn(128, dtype=torch.float64, generator=generator)
    y = torch.exp(-torch.cat([torch.zeros(1), steps.cumsum(0)]))
    t = torch.arange(129, dtype=torch.float64)
    traj, one = Trajectory(t, torch.zeros(129, 1, 1)), Series(t, torch.ones(129))
    found = verdict(traj, Series(t, y), one)
    assert found.outcome == "over-smooths", found
    assert found.decay is not None
    off = abs(found.decay.exponential.rate - 0.7)
    assert off < 4 * found.decay.wander
    assert found.decay.wander == pytest.approx(0.3 / 8, rel=0.4)
    slower = verdict(traj, Series(4 * t, y), one).decay
    assert slower is not None
    assert slower.wander == pytest.approx(found.decay.wander / 4)
    assert slower.slowing == pytest.approx(found.decay.slowing, rel=1e-3, abs=1e-3)


def test_a_power_law_that_wanders_a_little_is_still_slow() -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(1, 130, dtype=torch.float64)
    walk = 0.002 * torch.randn(129, dtype=torch.float64, generator=generator).cumsum(0)
    traj, one = Trajectory(t, torch.zeros(129, 1, 1)), Series(t, torch.ones(129))
    found = verdict(traj, Series(t, torch.exp(walk) * t**-2.0), one)
    assert found.outcome == "smooths slowly", found
