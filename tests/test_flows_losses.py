"""Losses against the closed forms that they must come down to."""

import math

import pytest
import torch
from torch import Tensor

from neuralpde.catalogue import path as path_graph
from neuralpde.catalogue import ring
from neuralpde.flows import (
    MLP,
    BrownianBridge,
    CosinePath,
    EndWeight,
    GaussianFlow,
    Isotropic,
    Learned,
    Linear,
    Sample,
    bridge_loss,
    draw_times,
    flow_loss,
    score_loss,
)
from neuralpde.graph import Graph


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(path: Isotropic, t: float, c: float, n: int = 200_000) -> Sample:
    g = seeded(0)
    x0, x1 = (torch.randn(n, 1, generator=g, dtype=torch.float64) for _ in range(2))
    return path.sample(x0, c * x1, t, g)


def terms(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_the_flow_loss_of_the_exact_field_is_the_variance_of_the_velocity(t: float) -> None:
    c = 1.7
    at = drawn(Linear(), t, c)
    v = GaussianFlow(0.0, 1.0, 0.0, c, Linear()).velocity(at.t, at.x)
    mean, error = terms((v - at.u).square())
    D2 = c**2 / (c**2 * t**2 + (1 - t) ** 2)
    assert math.isclose(float(flow_loss(v, at)), mean, rel_tol=1e-12)
    assert abs(mean - D2) < 4 * error


@pytest.mark.parametrize("t", [0.05, 0.6])
def test_on_a_bridge_the_exact_heads_leave_what_no_network_can_take_away(t: float) -> None:
    c, sigma = 1.7, 0.8
    path = BrownianBridge(sigma)
    flow, at = GaussianFlow(0.0, 1.0, 0.0, c, path), drawn(path, t, c)
    v, score = flow.both(at.t, at.x)
    # s0^2 + s1^2 + (1 - 2t)^2 sigma^2 / 4t(1 - t) - V'^2 / 4V
    V = (1 - t) ** 2 + c**2 * t**2 + sigma**2 * t * (1 - t)
    dV = -2 * (1 - t) + 2 * c**2 * t + sigma**2 * (1 - 2 * t)
    D2 = 1 + c**2 + (1 - 2 * t) ** 2 * sigma**2 / (4 * t * (1 - t)) - dV**2 / (4 * V)
    mean, error = terms((v - at.u).square())
    assert abs(mean - D2) < 4 * error
    # E|s score + z|^2 = 1 - s^2 / V
    s = sigma * math.sqrt(t * (1 - t))
    assert at.noise is not None
    mean, error = terms((s * score + at.noise).square())
    assert abs(mean - (1 - s**2 / V)) < 4 * error
    assert math.isclose(float(score_loss(s * score, at)), mean, rel_tol=1e-12)
    both = bridge_loss((v, s * score), at, balance=3.0)
    torch.testing.assert_close(both, flow_loss(v, at) + 3 * score_loss(s * score, at))


def test_the_exact_heads_are_the_minimum() -> None:
    path, t = BrownianBridge(0.8), 0.3
    flow, at = GaussianFlow(0.0, 1.0, 0.0, 1.7, path), drawn(path, t, 1.7, 50_000)
    v, score = flow.both(at.t, at.x)
    heads = torch.stack([v, 0.8 * math.sqrt(t * (1 - t)) * score]).requires_grad_()
    bridge_loss((heads[0], heads[1]), at).backward()
    slope = heads.grad
    assert slope is not None
    # The slope vanishes along every function of x: here along 1, x and x^2.
    for probe in (torch.ones_like(at.x), at.x, at.x.square()):
        for one in slope:
            weighed = one * probe
            error = float(weighed.std()) * math.sqrt(len(weighed))
            assert abs(float(weighed.sum())) < 4 * error


def test_every_graph_counts_the_same_whatever_its_size() -> None:
    graph = Graph.union([path_graph(2), ring(7), path_graph(4)])
    assert graph.batch is not None
    errors = torch.tensor([1.0, 5.0, 2.0])[graph.batch]
    at = Linear().sample(torch.zeros(13, 3), torch.zeros(13, 3), 0.5)
    predicted = errors[:, None].expand(13, 3)
    loss = flow_loss(predicted, at, batch=graph.batch)
    assert math.isclose(float(loss), (1 + 25 + 4) / 3, rel_tol=1e-6)
    by_nodes = flow_loss(predicted, at)
    assert math.isclose(float(by_nodes), (2 * 1 + 7 * 25 + 4 * 4) / 13, rel_tol=1e-6)
    # Graph by graph, and then the mean.
    alone = [flow_loss(predicted[graph.batch == g], Sample(*(
        None if part is None else part if part.dim() == 0 else part[graph.batch == g]
        for part in at))) for g in range(3)]  # fmt: skip
    torch.testing.assert_close(loss, torch.stack(alone).mean())
    gap = torch.tensor([0, 0, 2])  # graph 1 has no nodes
    at = Linear().sample(torch.zeros(3, 1), torch.zeros(3, 1), 0.5)
    assert flow_loss(torch.tensor([[1.0], [1.0], [3.0]]), at, batch=gap).item() == 5.0


def test_weights_even_out_the_ends_and_keep_the_minimum() -> None:
    sigma, t = 0.7, torch.tensor([1e-3, 0.2, 0.5, 0.9], dtype=torch.float64)
    expected = 1 / (1 + (1 - 2 * t) ** 2 * sigma**2 / (4 * t * (1 - t)))
    torch.testing.assert_close(EndWeight(BrownianBridge(sigma))(t), expected)
    assert EndWeight(Linear(0.3))(t).tolist() == [1.0] * 4
    at = Linear().sample(torch.zeros(4, 2), torch.zeros(4, 2), t)
    predicted = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None].expand(4, 2)
    loss = flow_loss(predicted, at, weight=t)
    assert math.isclose(float(loss), float((t * predicted[:, 0] ** 2).mean()), rel_tol=1e-6)
    torch.testing.assert_close(loss, flow_loss(predicted, at, weight=t[:, None]))


@pytest.mark.parametrize("path", [Linear(), BrownianBridge(1.0, cut=0.1), CosinePath()], ids=repr)
def test_times_are_uniform_between_the_ends(path: Isotropic) -> None:
    low, high = path.ends
    t = draw_times(path, 20_000, seeded(0), torch.float64)
    u = (t - low) / (high - low)
    assert bool(((u >= 0) & (u <= 1)).all())
    gap = (u.sort().values - torch.linspace(0, 1, 20_000, dtype=torch.float64)).abs().max()
    assert float(gap) < 1.95 / math.sqrt(20_000)  # Kolmogorov's, 99.9 %
    path.sample(torch.zeros(20_000, 1), torch.zeros(20_000, 1), t)


def test_a_path_without_noise_teaches_no_score() -> None:
    at = Linear().sample(torch.zeros(2, 1), torch.zeros(2, 1), 0.5)
    with pytest.raises(ValueError, match="no noise"):
        score_loss(at.x, at)
    with pytest.raises(ValueError, match="no noise"):
        Learned(MLP(1, heads=2), Linear())


def test_training_finds_velocity_and_score_of_normal_laws() -> None:
    torch.manual_seed(0)
    path, g = BrownianBridge(1.0, cut=0.05), seeded(0)
    exact = GaussianFlow(0.0, 1.0, 2.0, 0.5, path)
    model = Learned(MLP(1, heads=2, width=32, depth=2), path)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    weight, first = EndWeight(path), 0.0
    for step in range(400):
        adam.param_groups[0]["lr"] = 1e-2 if step < 300 else 1e-3
        x0 = torch.randn(256, 1, generator=g)
        x1 = 2 + 0.5 * torch.randn(256, 1, generator=g)
        t = draw_times(path, 256, g)
        at = path.sample(x0, x1, t, g)
        loss = bridge_loss(model.heads(at.t, at.x), at, weight=weight(t))
        adam.zero_grad()
        loss.backward()
        adam.step()
        first = first or loss.item()
    with torch.no_grad():
        t = torch.tensor(0.5)
        x = torch.linspace(0.0, 2.0, 9)[:, None]
        found, right = model.both(t, x), exact.both(t, x)
        for one, other in zip(found, right, strict=True):
            assert float((one - other).abs().max()) < 0.35
            assert float((one - other).square().mean() / other.var()) < 0.05
    assert loss.item() < first
