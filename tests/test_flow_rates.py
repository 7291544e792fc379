"""Entropy rates of Gaussian bridges: autograd of entropies, expectations, limits, identities."""

import math

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.flows import BridgeRates, BrownianBridge

T = torch.linspace(0.01, 0.99, 37, dtype=torch.float64)
BRIDGES = [
    BridgeRates(),
    BridgeRates(0.3, 2.0, 0.7, 0.0),
    BridgeRates(1.5, 0.4, 1.3, -0.5),
    BridgeRates(1.0, 1.0, 0.2, 0.9),
]


def joint(bridge: BridgeRates, t: Tensor) -> Tensor:
    """The covariance of (x0, x1, x_t) for one number, built from the path's definition."""
    ends = torch.tensor([[bridge.s0**2, bridge.c], [bridge.c, bridge.s1**2]], dtype=torch.float64)
    mix = torch.stack([1 - t, t])
    across = ends @ mix
    variance = mix @ across + bridge.sigma**2 * t * (1 - t)
    top = torch.cat([ends, across[:, None]], 1)
    return torch.cat([top, torch.cat([across, variance[None]])[None]])


def entropy(cov: Tensor, of: list[int], given_: list[int]) -> Tensor:
    """H(of | given), of a Gaussian law."""
    whole = cov[of + given_][:, of + given_].logdet()
    rest = cov[given_][:, given_].logdet() if given_ else torch.zeros((), dtype=torch.float64)
    return (whole - rest + len(of) * math.log(2 * math.pi * math.e)) / 2


def slopes(bridge: BridgeRates, quantity, dim: int) -> Tensor:
    """d/dt of a quantity of the joint law, by autograd."""
    found = []
    for t in T:
        at = t.clone().requires_grad_()
        found.append(torch.autograd.grad(quantity(joint(bridge, at)), at)[0])
    return dim * torch.stack(found)


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("conditional", lambda cov: entropy(cov, [2], [0, 1])),
        ("marginal", lambda cov: entropy(cov, [2], [])),
        ("condmarg", lambda cov: entropy(cov, [2], [0, 1]) - entropy(cov, [2], [])),
        ("exchange", lambda cov: entropy(cov, [0], [2]) - entropy(cov, [1], [2])),
        ("learned", lambda cov: -entropy(cov, [1], [2])),
    ],
)
def test_rates_are_slopes_of_entropies(bridge: BridgeRates, name: str, quantity) -> None:
    wanted = slopes(bridge, quantity, 3)
    scale = (1 / (T * (1 - T))).numpy()
    error = (getattr(bridge, name)(T, 3) - wanted).numpy() / scale
    np.testing.assert_allclose(error, 0, atol=1e-11)


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_information_is_what_the_state_tells_of_its_ends(bridge: BridgeRates) -> None:
    wanted = [entropy(c, [2], []) - entropy(c, [2], [0, 1]) for c in (joint(bridge, t) for t in T)]
    np.testing.assert_allclose(bridge.information(T, 1), wanted, rtol=1e-9)
    low, high = 0.02, 0.7
    area, _ = scipy.integrate.quad(
        lambda t: bridge.condmarg(torch.tensor([t], dtype=torch.float64)).item(), low, high
    )
    ends = bridge.information(torch.tensor([low, high], dtype=torch.float64))
    np.testing.assert_allclose(area, float(ends[0] - ends[1]), rtol=1e-8)


@pytest.mark.parametrize("bridge", [*BRIDGES, BridgeRates(1.0, 0.5, 0.0, 0.2)], ids=str)
def test_the_loss_is_the_variance_that_the_state_leaves(bridge: BridgeRates) -> None:
    # u = x1 - x0 + (1 - 2t) / (2t (1 - t)) sigma sqrt(t (1 - t)) z against x_t, in (x0, x1, z).
    law = torch.eye(3, dtype=torch.float64)
    law[:2, :2] = joint(bridge, T[0])[:2, :2]
    for t in T:
        spread = bridge.sigma * (t * (1 - t)).sqrt()
        state = torch.stack([1 - t, t, spread])
        u = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64)
        u[2] = bridge.sigma * (1 - 2 * t) / (2 * (t * (1 - t)).sqrt())
        left = u @ law @ u - (u @ law @ state) ** 2 / (state @ law @ state)
        np.testing.assert_allclose(bridge.loss(t[None], 2).item(), 2 * left.item(), rtol=1e-10)


@given(
    s0=st.floats(0.2, 5.0),
    s1=st.floats(0.2, 5.0),
    sigma=st.floats(0.1, 3.0),
    rho=st.floats(-0.9, 0.9),
)
@settings(max_examples=40)
def test_the_rate_vanishes_where_the_ends_weigh_alike(s0, s1, sigma, rho) -> None:
    bridge = BridgeRates(s0, s1, sigma, rho * s0 * s1)
    turn = s0 / (s0 + s1)
    around = torch.tensor([0.99 * turn, turn, turn + 0.01 * (1 - turn)], dtype=torch.float64)
    before, at, after = bridge.condmarg(around).tolist()
    assert before > 0 > after
    assert abs(at) < 1e-12 * before + 1e-12


def test_the_covariance_of_the_ends_enters_through_the_variance_alone() -> None:
    for c in (-0.5, 0.3):
        some, none = BridgeRates(0.8, 1.4, 0.6, c), BridgeRates(0.8, 1.4, 0.6, 0.0)
        ratio = some.condmarg(T) / none.condmarg(T)
        np.testing.assert_allclose(ratio, none.variance(T) / some.variance(T), rtol=1e-12)
        # 2 c + sigma^2 is one number.
        other = BridgeRates(0.8, 1.4, math.sqrt(0.36 + 2 * c + 1.0), -0.5)
        np.testing.assert_allclose(other.condmarg(T), some.condmarg(T), rtol=1e-12)


def test_the_conditional_rate_is_the_bridges_own_and_odd() -> None:
    quarter = torch.tensor([0.25], dtype=torch.float64)
    assert BridgeRates().conditional(quarter, 6).item() == pytest.approx(8.0, rel=1e-14)
    rate = BridgeRates(0.3, 3.0, 0.4, 0.1).conditional(T, 5)
    np.testing.assert_allclose(rate, BrownianBridge(2.0).entropy_rate(T, 5), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(rate, 5 * (1 - 2 * T) / (2 * T * (1 - T)), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(rate.flip(0), -rate, rtol=1e-11, atol=1e-11)


def test_symmetric_bridges_have_odd_rates() -> None:
    bridge = BridgeRates(0.7, 0.7, 0.4, 0.1)
    np.testing.assert_allclose(bridge.condmarg(T).flip(0), -bridge.condmarg(T), 1e-10, 1e-10)
    np.testing.assert_allclose(bridge.loss(T).flip(0), bridge.loss(T), rtol=1e-10)


def test_unit_noise_exchanges_by_the_logit() -> None:
    np.testing.assert_allclose(BridgeRates().exchange(T, 4), 2 / (T * (1 - T)), rtol=1e-12)


def test_exchange_never_vanishes_and_is_heavy_at_the_ends() -> None:
    for bridge in BRIDGES:
        rate = bridge.exchange(T)
        assert (rate > 0).all()
        ends = torch.tensor([1e-8, 1 - 1e-8], dtype=torch.float64)
        np.testing.assert_allclose(bridge.exchange(ends), 0.5e8, rtol=1e-5)
        np.testing.assert_allclose(bridge.condmarg(ends), [0.5e8, -0.5e8], rtol=1e-5)


def test_straight_paths_have_the_closed_loss() -> None:
    c = 0.4
    flow = BridgeRates(1.0, c, sigma=0.0)
    wanted = c**2 / (c**2 * T**2 + (1 - T) ** 2)
    np.testing.assert_allclose(flow.loss(T), wanted, rtol=1e-12)
    np.testing.assert_allclose(BridgeRates(sigma=0.0).loss(T), 1 / (1 - 2 * T + 2 * T**2), 1e-12)
    # What the state tells of the target, at the rate t / (1 - t) times the loss.
    np.testing.assert_allclose(flow.learned(T), T / (1 - T) * wanted, rtol=1e-11)


def test_rescaled_entropic_time_is_the_loss() -> None:
    # Rescaled entropic time weighs d/dt H(x1 | x_t) by the noise level s = (1 - t) / t.
    c, t = 0.7, T.clone().requires_grad_()
    level = (1 - t) / t
    left = 0.5 * (c**2 * level**2 / (c**2 + level**2)).log()  # H(x1 | x1 + s z), but for a constant
    (slope,) = torch.autograd.grad(left.sum(), t)
    np.testing.assert_allclose(-slope * level.detach(), BridgeRates(1, c, 0.0).loss(T), rtol=1e-11)


def test_the_budget_is_the_positive_part() -> None:
    for bridge in BRIDGES:
        both = bridge.conditional(T).abs() - bridge.marginal(T).abs()
        np.testing.assert_allclose(bridge.budget(T), np.maximum(both.numpy(), 0), atol=1e-13)
    assert (BridgeRates().budget(T) > 0).any()
    assert (BridgeRates(0.3, 2.0).budget(T) == 0).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0.0,), "must be positive"), ((1.0, 1.0, -1.0), "0 or more"), ((1, 1, 1, 1.5), "s0 s1 = 1")],
)
def test_laws_that_are_none_are_refused(arguments, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BridgeRates(*arguments)
