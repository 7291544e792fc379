"""Events with every method: the root, and its gradient on the tape, replayed and undone."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralpde import catalogue, solve
from neuralpde.fields import Field, Heat, Noise, Reaction
from neuralpde.stopping import Event
from solvers import methods

GRAPH = catalogue.grid(3, 4)
STEPPERS = {name: methods.stepper(name) for name in methods.names()}
OSCILLATORS = [name for name, one in STEPPERS.items() if one.parts]
STOCHASTIC = [name for name, one in STEPPERS.items() if one.stochastic]
OTHERS = [name for name in STEPPERS if name not in OSCILLATORS + STOCHASTIC]


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def paces(name: str) -> list[dict[str, Any]]:
    adaptive = [{"rtol": 1e-3, "atol": 1e-5}] if STEPPERS[name].adaptive else []
    return [*adaptive, {"steps": 40}]


CASES = [(name, pace) for name in OTHERS for pace in paces(name)]


@pytest.mark.parametrize(("name", "pace"), CASES)
def test_every_method_ends_at_the_root(name: str, pace: dict[str, Any]) -> None:
    found = [slopes(solver=name, grad=grad, **pace) for grad in ("tape", "replay")]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    # The root moves as the exact solution's does, to the accuracy of the method.
    loose = 0.3 if STEPPERS[name].order == 1 else 0.05
    for ours, theirs in zip(found[0], exact(), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < loose


def slopes(**options: Any) -> tuple[Tensor, ...]:
    """What x0, the rate of the flow and the parameter of the event do to the time and the state."""
    x0 = normal(12, 2).requires_grad_()
    share = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    size = x0.detach().square().mean()
    event = Event(lambda t, x: x.square().mean() - share * size)
    field = Heat(rate=rate) + Reaction([0.0, 0.2, 0.0, -0.5])
    traj = solve(field, x0, 2.0, GRAPH, stop=event, **options)
    assert traj.status == "stopped (event)"
    assert abs(float(traj.final.detach().square().mean() - share.detach() * size)) < 1e-14
    return torch.autograd.grad(traj.ended + traj.final.sin().sum(), (x0, rate, share))


@cache
def exact() -> tuple[Tensor, ...]:
    """By a method of order 8."""
    return slopes(solver="dopri8", rtol=1e-11, atol=1e-13)


class Springs(Field):
    """x'' = -k x - a v on every node by itself."""

    order = 2

    def __init__(self, damping: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(4.0, dtype=torch.float64))
        self.damping = damping

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return -self.k * x


@pytest.mark.parametrize("name", OSCILLATORS)
@pytest.mark.parametrize("grad", ["tape", "replay", "reversible"])
def test_oscillators_meet_their_events(name: str, grad: str) -> None:
    # Undamped from (1, 0): cos(2 t) is zero at pi/4, where the speed is -2 = -sqrt(k).
    field, graph = Springs(0.0), catalogue.path(3)
    start = (torch.ones(3, 1).double().requires_grad_(), torch.zeros(3, 1).double())
    event = Event(lambda t, x: x[0].sum())
    traj = solve(field, start, 3.0, graph, solver=name, steps=3000, stop=event, grad=grad)
    assert float(traj.ended.detach()) == pytest.approx(math.pi / 4, rel=2e-3)
    assert abs(float(traj.final[0].detach().sum())) < 1e-13
    (slope,) = torch.autograd.grad(traj.ended, field.k, retain_graph=True)
    assert float(slope) == pytest.approx(-math.pi / 4 / 8, rel=1e-2)
    found = torch.autograd.grad(traj.final[1].sum(), (start[0], field.k))
    # v = -x0 sqrt(k) there, for all nodes.
    assert found[0].flatten().tolist() == pytest.approx([-2.0] * 3, rel=1e-2)
    assert float(found[1]) == pytest.approx(-3 / 4, rel=1e-2)
    assert traj.stats.gradient == grad


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_is_not_cut(name: str) -> None:
    """Inside a step nobody knows the noise: the graph ends at the end of it."""
    x0 = torch.ones(12, 1).double().requires_grad_()
    generator = torch.Generator().manual_seed(3)
    event = Event(lambda t, x: x.mean() - 0.5)
    field = Reaction([0.0, -1.0]) + Noise(0.01)
    traj = solve(
        field, x0, 4.0, GRAPH, solver=name, steps=64, stop=event, generator=generator, save="steps"
    )
    assert traj.status == "stopped (event)"
    assert float(traj.ended) * 16 == round(float(traj.ended) * 16)
    means = traj.x.detach().mean((1, 2))
    assert means[-1] <= 0.5 < means[-2]
    assert not traj.ended.requires_grad
