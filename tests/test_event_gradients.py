"""Gradients of event times and of the states there: closed forms, differences, tape and replay."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Field, Layers
from neuralpde.stopping import Event, SteadyState

TIGHT: dict[str, Any] = {"solver": "dopri5", "rtol": 1e-10, "atol": 1e-12}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Ball(nn.Module):
    """x'' = -g: height h0 + v0 t - g t^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(9.81, dtype=torch.float64))

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[1], -self.g.expand_as(x[1])


class Floor(nn.Module):
    """The event: the ball is as high as the floor, which rises with time."""

    def __init__(self, height: float, rise: float = 0.0) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.tensor(height, dtype=torch.float64))
        self.rise = nn.Parameter(torch.tensor(rise, dtype=torch.float64))

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> Tensor:
        return x[0] - self.height - self.rise * t


@pytest.mark.parametrize("grad", ["tape", "replay"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "tsit5"},
        {"solver": "dopri8"},
        {"solver": "rk4", "steps": 7},
        {"solver": "midpoint", "steps": 5},
    ],
)
def test_a_ball_lands_with_its_closed_form(grad: str, options: dict[str, Any]) -> None:
    ball, floor = Ball(), Floor(0.25, 0.5)
    h0, v0 = number(2.0), number(3.0)
    stop = Event(floor, direction=-1)
    traj = solve(ball, (h0[None], v0[None]), [0.0, 0.2, 4.0], stop=stop, grad=grad, **options)
    # h0 + v0 t - g t^2 / 2 = height + rise t.
    closing = v0 - floor.rise
    root = torch.sqrt(closing**2 + 2 * ball.g * (h0 - floor.height))
    when = (closing + root) / ball.g
    ended, (height, speed) = traj.ended, traj.final
    assert abs(float(ended.detach()) - float(when.detach())) < 1e-14
    inputs = (h0, v0, ball.g, floor.height, floor.rise)
    for ours, exact in (
        (ended, when),
        (speed[0], v0 - ball.g * when),
        (height[0], floor.height + floor.rise * when),
        (traj.x[0][1, 0], h0 + 0.2 * v0 - 0.02 * ball.g),
    ):
        found = torch.autograd.grad(ours, inputs, retain_graph=True, allow_unused=True)
        known = torch.autograd.grad(exact, inputs, retain_graph=True, allow_unused=True)
        for mine, right in zip(found, known, strict=True):
            mine, right = (torch.zeros(()) if g is None else g for g in (mine, right))
            assert float(mine) == pytest.approx(float(right), rel=1e-12, abs=1e-13)


class Swirl(Field):
    """A nonlinear field with a parameter, which also reads the time of each node."""

    def __init__(self, own_clocks: bool = True) -> None:
        super().__init__()
        self.w = nn.Parameter(normal(2, 2, seed=7))
        self.batched_time = own_clocks

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.w) * (1.0 + 0.3 * torch.cos(2 * t)) + 0.5


class Level(nn.Module):
    """Mean of a graph's entries above a level of its own, drifting in time."""

    def __init__(self, batch: Tensor, graphs: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.linspace(0.4, 0.8, graphs, dtype=torch.float64))
        self.batch, self.graphs = batch, graphs

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        total = torch.zeros(self.graphs, dtype=x.dtype).index_add(0, self.batch, x.mean(1))
        count = torch.bincount(self.batch, minlength=self.graphs)
        return total / count - self.level + 0.05 * torch.sin(t)


def differences(f: Callable[[], Tensor], inputs: list[Tensor], h: float = 1e-5) -> list[Tensor]:
    """Central differences of a scalar."""
    found = []
    for one in inputs:
        out = torch.zeros_like(one)
        for k in range(one.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    one.view(-1)[k] += sign * h
                    ends.append(float(f()))
                    one.view(-1)[k] -= sign * h
            out.view(-1)[k] = (ends[0] - ends[1]) / (2 * h)
        found.append(out)
    return found


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("options", [{**TIGHT, "rtol": 1e-8}, {"solver": "rk4", "steps": 90}])
def test_batches_agree_with_differences(own: bool, options: dict[str, Any]) -> None:
    batch = Graph.union([catalogue.path(2), catalogue.path(1), catalogue.path(3)])
    event = Level(batch.batch, 3)
    x0, weight = (normal(6, 2, seed=3) * 0.1).requires_grad_(), normal(6, 2, seed=4)

    field = Swirl(own)

    def outcome(grad: str) -> Tensor:
        traj = solve(field, x0, [0.0, 0.4, 9.0], batch, stop=Event(event), grad=grad, **options)
        assert set(traj.status) == {"stopped (event)"}
        kinds = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        return (traj.final * weight).sum() + (kinds * traj.ended).sum() + traj.x[1].square().sum()

    inputs = [x0, field.w, event.level]
    found = [torch.autograd.grad(outcome(grad), inputs) for grad in ("tape", "replay")]
    for mine, again in zip(*found, strict=True):
        torch.testing.assert_close(mine, again, rtol=1e-11, atol=1e-13)
    leaves = [x0.detach(), field.w.detach(), event.level.detach()]
    for mine, right in zip(found[0], differences(lambda: outcome("none"), leaves), strict=True):
        torch.testing.assert_close(mine, right, rtol=2e-6, atol=2e-7)


def test_a_field_as_event_gets_gradients() -> None:
    """It is bound to the graph, like the field that flows."""

    class Share(Field):
        def __init__(self) -> None:
            super().__init__()
            self.share = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def prepare(self, graph: Graph, x0: Tensor) -> None:
            self.A, self.start = graph.adjacency("row"), x0.detach()

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return (self.A @ x).mean() - self.share * (self.A @ self.start).mean()

    class Fading(Field):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -2.0 * x

    share = Share()
    x0 = normal(5, 1).abs()
    traj = solve(Fading(), x0, 9.0, catalogue.ring(5), stop=Event(share), **TIGHT)
    # e^(-2 t) = share.
    assert float(traj.ended.detach()) == pytest.approx(-math.log(0.3) / 2, rel=1e-9)
    traj.ended.backward()
    assert float(share.share.grad) == pytest.approx(-1 / (2 * 0.3), rel=1e-9)


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_saved_time_in_the_last_digit_before_the_event(shift: int) -> None:
    # x = x0 e^(k t) meets 2 at log(2)/k; SciMLSensitivity issue 1447: 7 % off there.
    k, x0 = number(0.7), number(1.0)
    near = math.log(2) / 0.7
    near += shift * np.spacing(near)

    def field(t: Tensor, x: Tensor) -> Tensor:
        return k * x

    event = Event(lambda t, x: x[0] - 2.0)
    traj = solve(field, x0[None], [0.0, near, 3.0], stop=event, **TIGHT)
    (slope,) = torch.autograd.grad(traj.ended, k, retain_graph=True)
    assert float(slope) == pytest.approx(-math.log(2) / 0.49, rel=1e-9)
    (held,) = torch.autograd.grad(traj.final.sum(), k, retain_graph=True)
    assert float(held) == pytest.approx(0.0, abs=1e-9)
    if not traj.x[1].isnan().any():
        # A saved state is one at a fixed time.
        (fixed,) = torch.autograd.grad(traj.x[1].sum(), k)
        assert float(fixed) == pytest.approx(2.0 * near, rel=1e-9)


@pytest.mark.parametrize("end", [5.0, -5.0])
def test_the_start_may_move(end: float) -> None:
    # x' = x from x0 at t0: x = 3 at t0 + log 3 forwards; backwards x = 1/3 at t0 - log 3.
    t0, x0 = number(0.5), number(1.0)
    level = 3.0 if end > 0 else 1 / 3
    times = torch.stack([t0, torch.tensor(end, dtype=torch.float64, requires_grad=True)])
    event = Event(lambda t, x: x[0] - level + 0 * t)
    traj = solve(lambda t, x: x + 0 * t, x0[None], times, stop=event, **TIGHT)
    sign = math.copysign(1.0, end)
    assert float(traj.ended.detach()) == pytest.approx(0.5 + sign * math.log(3), rel=1e-9)
    found = torch.autograd.grad(traj.ended, (t0, x0), retain_graph=True)
    assert [float(g) for g in found] == pytest.approx([1.0, -1.0], rel=1e-8)
    held = torch.autograd.grad(traj.final.sum(), (t0, x0, times), retain_graph=True)
    assert [float(g) for g in held[:2]] == pytest.approx([0.0, 0.0], abs=1e-8)
    assert float(held[2][1]) == 0.0
    # The end was not reached: nothing depends on it.
    (first,) = torch.autograd.grad(traj.x[0].sum(), times)
    assert float(first[1]) == 0.0


def test_bounces_follow_one_another() -> None:
    ball, floor = Ball(), Floor(0.0)
    h0 = number(1.25)
    state, t = (h0[None], torch.zeros(1, dtype=torch.float64)), torch.tensor(0.0).double()
    for _ in range(3):
        times = torch.stack([t, t.detach() + 9.0])
        traj = solve(ball, state, times, solver="tsit5", stop=Event(floor, direction=-1))
        height, speed = traj.final
        t, state = traj.ended, (height, -0.5 * speed)
    # Falls for s = sqrt(2 h0 / g), then flies for 2 s/2 and 2 s/4: 2.5 s in all.
    fall = math.sqrt(2 * 1.25 / 9.81)
    assert float(t.detach()) == pytest.approx(2.5 * fall, rel=1e-13)
    slopes = torch.autograd.grad(t, (h0, ball.g))
    assert float(slopes[0]) == pytest.approx(2.5 * fall / (2 * 1.25), rel=1e-11)
    assert float(slopes[1]) == pytest.approx(-2.5 * fall / (2 * 9.81), rel=1e-11)


def test_only_what_an_event_ended_moves_with_its_time() -> None:
    batch = Graph.union([catalogue.path(1)] * 3)

    class Fade(Field):
        batched_time = True

        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor([3.0, 1.0, 1e-3], dtype=torch.float64))

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -self.k[:, None] * x

    field, level = Fade(), number(0.5)
    x0 = torch.tensor([[0.4], [1.0], [1.0]], dtype=torch.float64)
    stop = (Event(lambda t, x: x[:, 0] - level), SteadyState(1e-2, 1))
    traj = solve(field, x0, 4.0, batch, stop=stop, **TIGHT)
    assert traj.status == ("stopped (steady state)", "stopped (event)", "done")
    for g, when in ((0, 0.0), (1, -math.log(2)), (2, 0.0)):
        (rate,) = torch.autograd.grad(traj.ended[g], field.k, retain_graph=True)
        assert rate.tolist() == pytest.approx([when * (k == g) for k in range(3)], abs=1e-8)
    (held,) = torch.autograd.grad(traj.final[:, 0].sum(), field.k, retain_graph=True)
    exact = [-float(traj.ended[g].detach() * traj.final[g].detach()) for g in (0, 2)]
    assert held.tolist() == pytest.approx([exact[0], 0.0, exact[1]], abs=1e-7)
    (moved,) = torch.autograd.grad(traj.final[:, 0].sum(), level)
    assert float(moved) == pytest.approx(1.0, rel=1e-9)


def grazed() -> tuple[Trajectory, Tensor]:
    """x = t; g = (t - 1)^3 crosses with slope zero."""
    level = number(1.0)
    event = Event(lambda t, x: (x[0] - level) ** 3)
    traj = solve(
        lambda t, x: torch.ones_like(x), torch.zeros(1).double(), 2.7, solver="tsit5", stop=event
    )
    return traj, level


def test_a_grazed_event_has_no_gradient() -> None:
    traj, _ = grazed()
    assert float(traj.ended.detach()) == pytest.approx(1.0, abs=1e-4)
    for value in (traj.ended, traj.final.sum()):
        with pytest.raises(ValueError, match=r"at t=(1|0\.9999\S*|1\.0000\S*) is only grazed"):
            value.backward(retain_graph=True)
    traj.x[0].sum()  # what was saved before is untouched


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    k = number(0.7)
    traj = solve(
        lambda t, x: k * x, torch.ones(1).double(), 3.0, stop=Event(lambda t, x: x[0] - 2), **TIGHT
    )
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(traj.ended, k, create_graph=True)


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    ball, floor = Ball(), Floor(0.0)
    state = (torch.ones(1).double(), torch.zeros(1).double())
    traj = solve(ball, state, 9.0, stop=Event(floor), grad="none", solver="tsit5")
    assert not traj.ended.requires_grad
    with torch.no_grad():
        traj = solve(ball, state, 9.0, stop=Event(floor), solver="tsit5")
    assert not traj.final[0].requires_grad
    # The event's own parameters are enough to make one.
    ball.requires_grad_(False)
    traj = solve(ball, state, 9.0, stop=Event(floor), solver="tsit5")
    traj.ended.backward()
    assert float(floor.height.grad) == pytest.approx(-1 / math.sqrt(2 * 9.81), rel=1e-12)


def test_events_inside_a_piece_pass_gradients_through_all_pieces() -> None:
    class Grow(Field):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.rate * x

    pieces = [Grow(0.3), Grow(0.8)]
    graph, x0 = catalogue.path(1), torch.ones(1, 1).double()
    traj = solve(Layers(pieces), x0, 4.0, graph, stop=Event(lambda t, x: x[0, 0] - 3.0), **TIGHT)
    # 0.3 * 2 + 0.8 (t - 2) = log 3.
    when = 2 + (math.log(3) - 0.6) / 0.8
    assert float(traj.ended.detach()) == pytest.approx(when, rel=1e-9)
    found = torch.autograd.grad(traj.ended, [piece.rate for piece in pieces])
    assert [float(g) for g in found] == pytest.approx([-2 / 0.8, -(when - 2) / 0.8], rel=1e-8)


def test_complex_states_have_events_too() -> None:
    # z' = (i w - a) z: |z|^2 = e^(-2 a t) is 1/4 at log(2)/a, arg z = w log(2)/a.
    a, w = number(0.5), number(2.0)

    def field(t: Tensor, z: Tensor) -> Tensor:
        return torch.complex(-a, w) * z

    z0 = torch.ones(1, dtype=torch.complex128)
    traj = solve(field, z0, 9.0, stop=Event(lambda t, z: z.abs().square() - 0.25), **TIGHT)
    assert float(traj.ended.detach()) == pytest.approx(math.log(2) / 0.5, rel=1e-9)
    (slope,) = torch.autograd.grad(traj.ended, a, retain_graph=True)
    assert float(slope) == pytest.approx(-math.log(2) / 0.25, rel=1e-8)
    (turned,) = torch.autograd.grad(traj.final.angle().sum(), a)
    assert float(turned) == pytest.approx(-2.0 * math.log(2) / 0.25, rel=1e-8)
