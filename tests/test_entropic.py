"""Entropic schedules: estimates against closed forms, what they cost, and the recipe."""

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde.flows import (
    BridgeRates,
    BrownianBridge,
    Entropic,
    Isotropic,
    Mixture,
    MixtureFlow,
    Pilot,
)
from neuralpde.flows.paths import Coefficients
from solvers.schedules import BridgeEntropy, Cosine, Uniform, from_json

BRIDGES = [BridgeRates(), BridgeRates(0.5, 1.5, 0.7, 0.2), BridgeRates(1.2, 0.6, 1.0, -0.3)]
AWAY = [0.003, 0.02, 0.1, 0.25, 0.39, 0.61, 0.75, 0.9, 0.98, 0.997]


@dataclass(frozen=True)
class Straight(Isotropic):
    """A path without noise."""

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, 0 * t, -one, one, 0 * t)

    @property
    def noisy(self) -> bool:
        return False


def ends(bridge: BridgeRates, points: int, dim: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian pairs of the bridge's covariance."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, points, dim, generator=generator, dtype=torch.float64)
    lean = bridge.c / bridge.s0
    rest = math.sqrt(bridge.s1**2 - lean**2)
    return bridge.s0 * a, lean * a + rest * b


def oracle(bridge: BridgeRates):
    """The exact velocity and score of a Gaussian bridge, from its variance by autograd."""

    def variance(t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = t.detach().clone().requires_grad_()
            value = bridge.variance(at)
            (slope,) = torch.autograd.grad(value, at)
        return value.detach(), slope

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        value, slope = variance(t)
        return slope / (2 * value) * x

    def score(t: Tensor, x: Tensor) -> Tensor:
        return -x / variance(t)[0]

    return velocity, score


def truth(bridge: BridgeRates, name: str, t: float, dim: int) -> float:
    return getattr(bridge, name)(torch.tensor([t], dtype=torch.float64), dim).item()


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_divergences_of_linear_fields_are_exact(bridge: BridgeRates) -> None:
    pilot = Pilot(BrownianBridge(bridge.sigma), *ends(bridge, 7, 2), oracle(bridge)[0])
    wide = Pilot(BrownianBridge(bridge.sigma), *ends(bridge, 7, 24), oracle(bridge)[0])
    for t in AWAY:
        wanted = truth(bridge, "condmarg", t, 1)
        for batch, dim, pulls in ((pilot, 2, 2), (wide, 24, 1)):
            before = batch.products
            found = batch.hutchinson(t)
            assert found.rate == pytest.approx(dim * wanted, rel=1e-9, abs=1e-9)
            assert found.error < 1e-9
            assert batch.products - before == pulls


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_losses_are_found_within_their_standard_error(bridge: BridgeRates) -> None:
    pilot = Pilot(BrownianBridge(bridge.sigma), *ends(bridge, 4000, 2), *oracle(bridge))
    for t in (*AWAY, 0.5):
        loss = pilot.loss(t)
        assert abs(loss.rate - truth(bridge, "loss", t, 2)) < 4 * loss.error


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
@pytest.mark.parametrize("name", ["hutchinson", "covariance"])
def test_estimates_are_within_three_percent_with_512_pairs(bridge: BridgeRates, name: str) -> None:
    pilot = Pilot(BrownianBridge(bridge.sigma), *ends(bridge, 512, 2), *oracle(bridge))
    for t in (*AWAY, 0.5):
        assert getattr(pilot, name)(t).rate == pytest.approx(
            truth(bridge, "condmarg", t, 2), rel=0.03, abs=1e-9
        )


TWO = Mixture(torch.tensor([[-2.0, 0.0], [2.0, 0.5]]), 0.3, torch.tensor([0.4, 0.6]))
THREE = Mixture(torch.tensor([[0.0, 2.0], [1.0, -2.0], [-1.0, -1.0]]), 0.5)


def clusters() -> MixtureFlow:
    """Two clusters to three: nothing Gaussian about it."""
    return MixtureFlow(TWO, THREE, BrownianBridge(0.8))


def cluster_pairs(points: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return TWO.sample(points, generator), THREE.sample(points, generator)


@pytest.mark.parametrize("points", [30, 300])
def test_standard_errors_are_those_of_repeated_pilots(points: int) -> None:
    flow = clusters()
    many = Pilot(flow.path, *cluster_pairs(100_000, 1))
    for t in (0.02, 0.3, 0.6):
        found = [
            Pilot(flow.path, *cluster_pairs(points, seed), flow.velocity, flow.score).covariance(t)
            for seed in range(100)
        ]
        rates = np.array([one.rate for one in found])
        x = flow.path.sample(many.x0, many.x1, t, torch.Generator().manual_seed(2)).x
        wanted = many.conditional(t).rate - flow.divergence(torch.tensor(t), x).mean().item()
        assert abs(rates.mean() - wanted) < 4 * rates.std() / math.sqrt(100)
        assert np.mean([one.error for one in found]) == pytest.approx(rates.std(), rel=0.25)


def test_a_wrong_score_alone_does_no_harm() -> None:
    flow, pairs = clusters(), cluster_pairs(20_000, 3)
    honest = Pilot(flow.path, *pairs, flow.velocity, flow.score).covariance(0.1)
    wrong = Pilot(flow.path, *pairs, flow.velocity, lambda t, x: 0 * x).covariance(0.1)
    assert abs(wrong.rate - honest.rate) < 4 * wrong.error


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
@pytest.mark.parametrize("rate", ["condmarg", "budget", "conditional", "loss"])
def test_fitted_schedules_are_those_of_the_closed_form(bridge: BridgeRates, rate: str) -> None:
    path = BrownianBridge(bridge.sigma)
    velocity, score = oracle(bridge)
    recipe = Entropic(rate)
    closed = recipe.closed(bridge, 2, path.ends)
    for estimator in ("hutchinson", "covariance"):
        chosen = dataclasses.replace(recipe, estimator=estimator)
        fitted = chosen.fit(path, *ends(bridge, 4000, 2), velocity, score)
        # Where the rate vanishes times are free to move: what counts is the part of the steps.
        np.testing.assert_allclose(closed.cdf(fitted.grid(10)), np.arange(11) / 10, atol=0.01)


def test_closed_schedules_without_tempering_are_the_quantiles() -> None:
    bridge = BridgeRates(0.5, 1.5, 0.7, 0.2)
    fine = dataclasses.replace(Entropic.literal(), nodes=4001)
    wanted = BridgeEntropy(0.5, 1.5, 0.7, 0.2, eps=0.02).grid(10)
    np.testing.assert_allclose(fine.closed(bridge).grid(10), wanted, atol=1e-5)
    coarse = Entropic.literal().closed(bridge).grid(10)
    np.testing.assert_allclose(coarse, wanted, atol=5e-3)


def test_the_root_of_exchange_is_the_cosine_schedule() -> None:
    fine = Entropic("exchange", p=0.5, mix=0.0, eps=1e-10, nodes=4001)
    np.testing.assert_allclose(fine.closed(BridgeRates(), 7).grid(16), Cosine().grid(16), atol=2e-5)
    np.testing.assert_allclose(Entropic().of(torch.ones_like).grid(9), Uniform().grid(9), 1e-12)


def test_schedules_live_on_the_paths_interval() -> None:
    path = BrownianBridge(1.0, cut=0.1)
    made = Entropic("conditional", p=1.0, mix=0.0).fit(path, *ends(BRIDGES[0], 5))
    assert (made.nodes[0], made.nodes[-1]) == (0.0, 1.0)
    times = 0.1 + 0.8 * made.grid(8)
    wanted = 2 * np.log(0.5) - np.log(0.09)  # |H'| = |d log(t (1 - t)) / 2 dt|, half on each side
    gone = np.log(times * (1 - times)) - np.log(0.09)
    np.testing.assert_allclose(gone[:5], wanted * np.arange(5) / 4, atol=2e-3)
    wide = Entropic("conditional", eps=0.2).fit(path, *ends(BRIDGES[0], 5))
    np.testing.assert_allclose((wide.nodes[0], wide.nodes[-1]), (0.125, 0.875), rtol=1e-12)


def test_the_power_follows_the_solver() -> None:
    powers = {
        name: Entropic(solver=name).power
        for name in ("euler", "heun", "rk4", "euler_maruyama", "stochastic_heun")
    }
    assert powers == {
        "euler": 1 / 2,
        "heun": 1 / 3,
        "rk4": 1 / 5,
        "euler_maruyama": 1 / 2,
        "stochastic_heun": 1 / 2,
    }
    assert Entropic(log1p=True).power == 1.0
    assert Entropic(p=0.7, solver="rk4").power == 0.7
    made = Entropic(log1p=True, mix=0.0).closed(BridgeRates(), 2)
    assert (made.p, made.log1p) == (1.0, True)


def test_the_literal_recipe_is_raw() -> None:
    literal = Entropic.literal()
    assert (literal.power, literal.mix, literal.eps, literal.cut) == (1.0, 0.0, 0.02, True)
    step = np.diff(literal.closed(BridgeRates()).grid(10)).max()
    assert step > 0.3
    assert np.diff(Entropic().closed(BridgeRates()).grid(10)).max() <= 1 / (0.25 * 10)


class Counted(nn.Module):
    """A small network that counts its calls and the points in them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.net = nn.Sequential(nn.Linear(3, 16), nn.SELU(), nn.Linear(16, 2)).double()

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(torch.cat([x, t.to(x).expand(len(x), 1)], 1))


@pytest.mark.parametrize(
    ("estimator", "per_node", "products"), [("hutchinson", 1, 2), ("covariance", 2, 0)]
)
def test_what_a_fit_costs_is_counted_and_below_200_evaluations(
    estimator: str, per_node: int, products: int
) -> None:
    velocity, score = Counted(), Counted()
    made = Entropic(estimator=estimator).fit(
        BrownianBridge(1.0), *ends(BRIDGES[0], 32, 2), velocity, score
    )
    assert velocity.calls + score.calls == 49 * per_node
    assert made.provenance["products"] == 49 * products
    assert made.evaluations == 49 * (per_node + products) < 200
    assert all(parameter.grad is None for parameter in velocity.parameters())


def test_fitted_schedules_are_plain_data_and_repeat() -> None:
    velocity = Counted()
    batch = ends(BRIDGES[0], 32, 2)
    first, second = (
        Entropic().fit(
            BrownianBridge(1.0), *batch, velocity, generator=torch.Generator().manual_seed(3)
        )
        for _ in range(2)
    )
    assert first == second
    again = from_json(first.to_json())
    assert again == first
    assert again.grid(11).tolist() == first.grid(11).tolist()
    assert first.provenance["estimator"] == "hutchinson"
    assert (first.provenance["rate"], first.provenance["ends"]) == ("condmarg", [0.001, 0.999])


def test_probes_agree_with_the_exact_trace_on_average() -> None:
    torch.manual_seed(0)
    net, path = Counted(), BrownianBridge(1.0)
    x0, x1 = ends(BRIDGES[0], 64, 2)
    exact = Pilot(path, x0, x1, net, generator=torch.Generator().manual_seed(1)).hutchinson(0.3)
    # One state of 64 points is too large for exact traces.
    many = Pilot(
        path, x0, x1, net, states=32, probes=400, generator=torch.Generator().manual_seed(1)
    )
    found = many.hutchinson(0.3)
    assert many.dim == 4
    assert found.rate == pytest.approx(2 * exact.rate, rel=0.01)
    few = Pilot(path, x0, x1, net, probes=300, generator=torch.Generator().manual_seed(1))
    assert few.hutchinson(0.3).rate == pytest.approx(exact.rate, rel=0.01)
    assert few.products == 300


def test_states_of_coupled_points_are_told_from_points() -> None:
    # Every second point adds its left neighbour: the coupling is no part of the trace.
    shear = torch.eye(6, dtype=torch.float64)
    for i, j in itertools.pairwise(range(6)):
        shear[j, i] = 5.0 * (j % 2)
    x0, x1 = ends(BRIDGES[0], 6, 1)
    pilot = Pilot(BrownianBridge(1.0), x0, x1, lambda t, x: 2 * shear @ x, states=3, probes=2000)
    conditional = pilot.conditional(0.4).rate
    assert conditional == pytest.approx(truth(BRIDGES[0], "conditional", 0.4, 2))
    assert pilot.hutchinson(0.4).rate - conditional == pytest.approx(-4.0, abs=0.3)


def test_velocities_that_ignore_the_state_have_no_divergence() -> None:
    path, batch = BrownianBridge(1.0), ends(BRIDGES[0], 5, 2)
    for still in (lambda t, x: torch.ones_like(x), lambda t, x: nn.Parameter(torch.ones_like(x))):
        pilot = Pilot(path, *batch, still)
        with torch.no_grad():
            assert pilot.hutchinson(0.2).rate == pytest.approx(pilot.conditional(0.2).rate)


def test_single_precision_states_keep_it() -> None:
    velocity, score = oracle(BRIDGES[0])
    x0, x1 = (one.float() for one in ends(BRIDGES[0], 2000, 2))
    pilot = Pilot(BrownianBridge(1.0), x0, x1, velocity, score)
    for name in ("hutchinson", "covariance"):
        found = getattr(pilot, name)(0.1).rate
        assert found == pytest.approx(truth(BRIDGES[0], "condmarg", 0.1, 2), rel=0.05)


def test_paths_without_noise_follow_their_loss() -> None:
    flow = BridgeRates(1.0, 0.5, 0.0)
    velocity, _ = oracle(flow)
    made = Entropic("loss", p=1.0, mix=0.0).fit(Straight(), *ends(flow, 20_000), velocity)
    q = np.arange(11) / 10
    s, c = np.sin(np.pi / 2 * q), np.cos(np.pi / 2 * q)
    np.testing.assert_allclose(made.grid(10), s / (s + 0.5 * c), atol=0.01)
    with pytest.raises(ValueError, match='use rate="loss"'):
        Entropic().fit(Straight(), *ends(flow, 8), velocity)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Entropic("condmarginal"), "did you mean 'condmarg'"),
        (lambda: Entropic(estimator="skilling"), "unknown estimator"),
        (lambda: Entropic(p="half"), "unknown p 'half'"),
        (lambda: Entropic(nodes=1), "two nodes or more"),
        (lambda: Entropic(eps=0.0), "between 0 and 1/2"),
        (lambda: Entropic().times((0.9, 0.1)), "interval in"),
        (lambda: Entropic(eps=0.3).times((0.0, 0.2)), "leaves nothing"),
        (lambda: Entropic(solver="hune"), "did you mean 'heun'"),
        (lambda: Entropic("exchange").fit(BrownianBridge(), *ends(BRIDGES[0], 3)), "closed form"),
        (lambda: Entropic().fit(BrownianBridge(), *ends(BRIDGES[0], 3)), "needs a velocity"),
        (
            lambda: Entropic(estimator="covariance").fit(
                BrownianBridge(), *ends(BRIDGES[0], 3), lambda t, x: x
            ),
            "needs a score",
        ),
        (lambda: Pilot(BrownianBridge(), *ends(BRIDGES[0], 5), states=2), "make no 2 states"),
        (lambda: Pilot(BrownianBridge(), *ends(BRIDGES[0], 5), probes=0), "one or more"),
    ],
)
def test_what_is_missing_or_unknown_is_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
