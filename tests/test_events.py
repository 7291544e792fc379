"""Event times: closed forms, gradients, and events that cannot be had."""

import math

import numpy as np
import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from neuralpde.odeint import odeint, odeint_adjoint, odeint_event
from solvers.failure import SolveFailed


class Spin(nn.Module):
    """dy/dt = A y, A antisymmetric."""

    def __init__(self) -> None:
        super().__init__()
        rows = [[0.0, 0.2, 0.3], [-0.2, 0.0, 0.4], [-0.3, -0.4, 0.0]]
        self.A = nn.Parameter(torch.tensor(rows, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ self.A.T


class Ball(nn.Module):
    """A ball thrown upwards: height h0 + v0 t - g t^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(9.81, dtype=torch.float64))
        self.floor = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[1], -self.g.expand_as(y[1])

    def event(self, t: Tensor, y: tuple[Tensor, Tensor]) -> Tensor:
        return y[0] - self.floor


HEUN = pytest.param("adaptive_heun", marks=pytest.mark.slow)


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
@pytest.mark.parametrize("method", [None, "tsit5", "dopri8", "bosh3", HEUN])
def test_a_ball_lands_when_the_closed_form_says(interface: object, method: str | None) -> None:
    ball = Ball()
    h0 = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    v0 = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    t0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    when, (height, speed) = odeint_event(
        ball, (h0, v0), t0, event_fn=ball.event, method=method, odeint_interface=interface
    )
    variables = (h0, v0, t0, ball.g, ball.floor)
    root = torch.sqrt(v0**2 + 2 * ball.g * (h0 - ball.floor))
    exact = (t0 + (v0 + root) / ball.g).squeeze()
    assert abs(when.item() - exact.item()) < 1e-13
    assert height[0].equal(h0)
    assert speed[0].equal(v0)
    torch.testing.assert_close(height[1], ball.floor.view(1), rtol=0, atol=1e-13)
    torch.testing.assert_close(speed[1], -root, rtol=1e-12, atol=0)
    for ours, theirs in ((when, exact), (speed[1], -root)):
        found = torch.autograd.grad(ours, variables, retain_graph=True, allow_unused=True)
        known = torch.autograd.grad(theirs, variables, retain_graph=True, allow_unused=True)
        for mine, right in zip(found, known, strict=True):
            right = torch.zeros_like(mine) if right is None else right
            torch.testing.assert_close(mine, right, rtol=1e-9, atol=1e-10)
    # At the event the height is the floor, whatever else changes.
    found = torch.autograd.grad(height[1], variables)
    expected = [torch.zeros_like(v) for v in variables[:4]] + [torch.ones_like(ball.floor)]
    torch.testing.assert_close(list(found), expected, rtol=0, atol=1e-9)


def test_bounces_can_be_chained() -> None:
    ball = Ball()
    state = (torch.tensor([1.25]).double(), torch.tensor([0.0]).double())
    t, bounces = torch.tensor(0.0, dtype=torch.float64), []
    for _ in range(3):
        t, (height, speed) = odeint_event(ball, state, t, event_fn=ball.event)
        # The ball starts where the event function is zero, to rounding.
        state = (height[1].detach() + 1e-12, -0.5 * speed[1])
        bounces.append(t)
    fall = math.sqrt(2 / 9.81)
    expected = [fall, 2 * fall, 2.5 * fall]
    np.testing.assert_allclose([b.item() for b in bounces], expected, rtol=1e-9)
    bounces[-1].backward()
    assert ball.g.grad.item() == pytest.approx(-2.5 * fall / (2 * 9.81), rel=1e-6)


def test_events_are_found_backwards_and_from_zero() -> None:
    t0, y0 = torch.tensor(2.0, dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)
    rate = torch.ones(1, dtype=torch.float64)
    when, y = odeint_event(
        lambda t, y: rate, y0, t0, event_fn=lambda t, y: y + 3, reverse_time=True
    )
    assert when.item() == pytest.approx(-1.0, abs=1e-12)
    assert y.shape == (2, 1)
    # cos starts at y = 0 = event: its first zero after that is pi.
    start = (torch.zeros(1).double(), torch.ones(1).double())
    when, _ = odeint_event(
        lambda t, y: (y[1], -y[0]),
        start,
        torch.tensor(0.0).double(),
        event_fn=lambda t, y: y[0],
        rtol=1e-10,
        atol=1e-12,
    )
    assert when.item() == pytest.approx(math.pi, abs=1e-8)


def test_the_first_of_several_events_counts() -> None:
    def event(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[0] - 5.0, 1.5 - t, y[0] - 1.25])

    y0, t0 = torch.zeros(1).double(), torch.tensor(0.0).double()
    when, y = odeint_event(lambda t, y: 1 + 0 * y, y0, t0, event_fn=event)
    assert when.item() == pytest.approx(1.25, abs=1e-14)
    direct, same = odeint(
        lambda t, y: 1 + 0 * y, y0, torch.tensor([0.0, 1.0]).double(), event_fn=event
    )
    assert direct.equal(when)
    assert same.equal(y)


def test_event_times_are_those_of_torchdiffeq() -> None:
    f, t0 = Spin(), torch.tensor(0.0, dtype=torch.float64)
    y0 = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    found = []
    for library in (odeint_event, torchdiffeq.odeint_event):
        extra = {"odeint_interface": torchdiffeq.odeint} if library is not odeint_event else {}
        f.zero_grad()
        y0.grad = None
        when, y = library(
            f, y0, t0, event_fn=lambda t, y: y[1] + 0.5, rtol=1e-10, atol=1e-12, **extra
        )
        (when + y[-1].sum()).backward()
        found.append((when.detach(), y[-1].detach(), y0.grad.clone(), f.A.grad.clone()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_events_that_never_come_or_only_graze_are_errors() -> None:
    t0, y0 = torch.tensor(0.0).double(), torch.tensor([1.0], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="event_fn did not change sign"):
        odeint_event(
            lambda t, y: torch.cos(t) + 0 * y,
            y0,
            t0,
            event_fn=lambda t, y: y + 9,
            options={"max_num_steps": 50},
        )
    with pytest.raises(SolveFailed, match="blows up"):
        odeint_event(lambda t, y: y * y, y0, t0, event_fn=lambda t, y: 2 - t)
    level = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def flat(t: Tensor, y: Tensor) -> Tensor:
        return (t - level) ** 3

    when, _ = odeint_event(lambda t, y: 0.1 * torch.cos(9 * t) + 0 * y, y0, t0, event_fn=flat)
    with pytest.raises(ValueError, match="only grazed"):
        when.backward()
    with torch.no_grad():
        when, _ = odeint_event(lambda t, y: torch.cos(9 * t) + 0 * y, y0, t0, event_fn=flat)
    assert when.item() == pytest.approx(1.0, abs=1e-5)


def test_event_arguments_are_checked() -> None:
    t0, y0 = torch.tensor(0.0).double(), torch.tensor([1.0], dtype=torch.float64)

    def event(t: Tensor, y: Tensor) -> Tensor:
        return y - 2

    with pytest.raises(ValueError, match="has none; use 'dopri5'"):
        odeint_event(lambda t, y: y, y0, t0, event_fn=event, method="rk4")
    with pytest.raises(ValueError, match="another library's solver"):
        odeint_event(lambda t, y: y, y0, t0, event_fn=event, odeint_interface=torchdiffeq.odeint)
    with pytest.raises(ValueError, match="leave it out"):
        odeint_event(lambda t, y: y, y0, t0, event_fn=event, adjoint_params=())
    with pytest.raises(ValueError, match="for events"):
        odeint(lambda t, y: y, y0, torch.zeros(3), event_fn=event)
