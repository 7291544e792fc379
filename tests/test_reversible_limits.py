"""Where steps are undone and where not: memory, growth of errors, refusals, what auto does."""

import gc
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.timing import peak_memory
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field, Pinned, Wave
from solvers.flow import Flow
from solvers.methods import stepper
from solvers.pace import Fixed
from solvers.reversible import WayBack, allowed_growth
from solvers.rows import Rows, State
from solvers.structure import Structure
from tests.swinging import Coupled, every_scheme, everything, gradients, normal


class DampedWave:
    """A wave in single precision with damping T = 5, its speed and damping learned."""

    def __init__(self, nodes: int, channels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.graph = catalogue.random_pairs(nodes, 5 * nodes, generator=generator)
        self.x0 = tuple(torch.randn(nodes, channels, generator=generator) for _ in range(2))
        self.megabytes = sum(part.numel() * part.element_size() for part in self.x0) / 2**20

    def gradient(self, steps: int, grad: str) -> tuple[Tensor, ...]:
        """By x0, v0, speed and damping."""
        speed, damping = (nn.Parameter(torch.tensor(value)) for value in (1.0, 0.5))
        state = tuple(part.clone().requires_grad_() for part in self.x0)
        field, how = Wave(speed, "sym", damping=damping), {"solver": "kick_drift_damp"}
        traj = solve(field, state, 10.0, self.graph, steps=steps, grad=grad, **how)
        assert traj.stats.gradient == grad
        total = traj.final[0].square().sum() + traj.final[1].sin().sum()
        return torch.autograd.grad(total, (*state, speed, damping))

    def held(self, steps: int, grad: str) -> float:
        """How many states fit into what a solve and its gradient hold at their peak."""
        # What the graph keeps for itself is not part of it, nor is what an earlier call frees.
        self.gradient(20, grad)
        gc.collect()
        return peak_memory(lambda: self.gradient(steps, grad)) / self.megabytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps() -> None:
    wave = DampedWave(500, 32)
    few, many = wave.held(40, "reversible"), wave.held(160, "reversible")
    assert many < 1.05 * few
    assert many < 20 < wave.held(160, "replay")


@pytest.mark.slow
def test_a_thousand_steps_on_twenty_thousand_nodes_hold_less_than_twenty_states() -> None:
    wave = DampedWave(20_000, 8)
    assert wave.held(1_000, "reversible") < 20
    undone, taped = (wave.gradient(1_000, grad) for grad in ("reversible", "tape"))
    for ours, right in zip(undone, taped, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - right).norm() < 1e-3 * right.norm()


@pytest.mark.parametrize("growth", [5.0, 10.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("stiffness", "share", "factor"), [(0.0, 1.0, 300.0), (1.0, 0.5, 3.0)])
@every_scheme
def test_errors_grow_on_the_way_back_as_damping_has_it(
    name: str, stiffness: float, share: float, factor: float, dtype: torch.dtype, growth: float
) -> None:
    # Around a forced rest an oscillation fades by e^(-damping T / 2), and rounding comes back so
    # much larger. Under a constant push the first velocity fades by e^(-damping T), and the
    # 1 / (damping h) = 100 roundings of a velocity that no longer changes have one sign.
    damping, h = 0.5, 0.02
    steps, method, size = round(growth / (damping * h)), stepper(name), np.array([h])
    known = Structure(force=lambda t, x: 1.0 - stiffness * x, damping=damping)
    flow = Flow(
        lambda t, s: (s[1], 1.0 - stiffness * s[0] - damping * s[1]),
        Rows(),
        torch.ones((), dtype=dtype),
        known,
    )
    x = start = tuple(normal(200, seed=s).to(dtype) for s in (1, 2))
    for n in range(steps):
        f = flow.stages(np.array([n * h]), size)
        x = method.step(f, h, x, flow(f.t, x)).x
    for n in reversed(range(steps)):
        x = method.inverse(flow.stages(np.array([n * h]), size), h, x)
    error = float((torch.cat(x) - torch.cat(start)).norm() / torch.cat(start).norm())
    assert 0.1 < error / (math.exp(share * growth) * torch.finfo(dtype).eps) < factor


def test_the_allowed_growth_costs_the_same_share_of_the_digits() -> None:
    left = [
        math.log(math.exp(allowed_growth(dtype)) * torch.finfo(dtype).eps)
        / math.log(torch.finfo(dtype).eps)
        for dtype in (torch.float32, torch.float64)
    ]
    assert left[0] == pytest.approx(left[1]) == pytest.approx(0.686, abs=1e-3)


@every_scheme
def test_states_are_kept_where_damping_is_strong(name: str) -> None:
    def kept(damping: float, T: float, steps: int, dtype: torch.dtype) -> list[int]:
        grid = Fixed(np.linspace(0.0, T, steps + 1)[:, None])
        return sorted(WayBack.plan(stepper(name), damping, grid, dtype).kept)

    assert kept(0.1, 49.0, 1000, torch.float32) == [0]
    assert kept(0.0, 1e6, 10, torch.float32) == [0]
    assert kept(-0.1, 500.0, 1000, torch.float32) == [0]
    assert kept(0.1, 110.0, 1000, torch.float64) == [0]
    long = kept(0.1, 200.0, 1000, torch.float32)
    # Every 5 / damping = 50 time units, or a little earlier where a scheme damps more than that.
    assert len(long) == (4 if name in ("kick_drift_damp", "symplectic_euler") else 5)
    assert 0.98 * 250 < long[1] <= 250
    # From damping h = 1/2 on states are kept whatever the length.
    assert len(kept(0.6, 9.0, 9, torch.float32)) > 1
    grid = Fixed(np.array([[0.0, 0.0], [1.0, 3.0], [2.0, 3.0]]))
    assert WayBack.plan(stepper(name), 0.3, grid, torch.float32).kept == {0}


@every_scheme
@pytest.mark.parametrize("length", [4.5, 9.5, 24.0])
def test_gradients_in_single_precision_are_right_to_a_thousandth(name: str, length: float) -> None:
    graph, how = catalogue.ring(8), {"solver": name, "steps": round(8 * length)}
    damping = 1.0
    exact = gradients("tape", graph, length / damping, everything, Coupled(damping), **how)
    undone = gradients(
        "reversible",
        graph,
        length / damping,
        everything,
        Coupled(damping),
        torch.float32,
        **how,
    )
    for ours, right in zip(undone[0], exact[0], strict=True):
        assert ours.dtype == torch.float32
        assert (ours - right).norm() < 1e-3 * torch.stack([g.norm() for g in exact[0]]).max()


def test_what_cannot_be_undone_is_refused_before_any_work() -> None:
    class Untouchable(Coupled):
        def force(self, t: Tensor, x: Tensor) -> Tensor:
            raise AssertionError("the force was evaluated")

    graph, x = catalogue.ring(4), normal(4, 2)

    def refused(text: str, field: Field, **how: object) -> None:
        with pytest.raises(ValueError, match=text):
            solve(field, (x, x), 10.0, graph, grad="reversible", **how)

    class Published(Untouchable):
        def prepare(self, graph: Graph, x0: State) -> None:
            super().prepare(graph, x0)
            self.damping = 1.0

    how = {"solver": "graphcon", "steps": 10}
    refused(r"damping h reaches 1, and 'graphcon' leaves 0 of it.*nothing that", Published(), **how)
    refused(r"'graphcon' leaves .*e-\d+ of it.*too little that", Untouchable(1 - 1e-9), **how)
    how["solver"] = "kick_drift_damp"
    refused(r"leaves 0\.368 of it.*too little.*grad='replay'", Published(), **how)
    refused(r"'heun' cannot: it is for 'leapfrog'", Untouchable(), solver="heun", steps=10)
    refused(r"'tsit5' cannot", Untouchable(), solver="tsit5")
    how = {"solver": "leapfrog", "steps": 50, "save": "steps"}
    refused(r"save='steps' keeps every state", Untouchable(), **how)


def test_auto_undoes_what_is_stable_for_certain() -> None:
    graph = catalogue.barbell(4)

    def chosen(field: Field, T: float = 10.0, steps: int = 100, **how: object) -> str:
        state = tuple(normal(graph.num_nodes, 2, seed=s).requires_grad_() for s in (1, 2))
        how = {"solver": "leapfrog"} | how
        return solve(field, state, T, graph, steps=steps, **how).stats.gradient

    assert chosen(Wave()) == chosen(Wave(damping=0.3)) == "reversible"
    assert chosen(Wave(damping=1.2), solver="graphcon") == "reversible"
    assert chosen(Pinned(Wave(damping=0.1), []), solver="kick_drift_damp") == "reversible"
    assert chosen(Wave(), steps=30) == "tape"
    assert chosen(Wave(), solver="heun") == "replay"
    # Nonlinear; too strongly damped; close to the stability limit; growing.
    assert chosen(Coupled()) == "replay"
    assert chosen(Wave(damping=7.0)) == "replay"
    assert chosen(Wave(8.0, "sym"), T=17.2) == "replay"
    assert chosen(Wave(damping=-0.1)) == "replay"

    class Saddles(Field):
        order, damping, batched_time = 2, 0.0, True

        def prepare(self, graph: Graph, x0: State) -> None:
            self.stiffness = graph.adjacency("sym")

        def force(self, t: Tensor, x: Tensor) -> Tensor:
            return self.stiffness @ x

    class Kinks(Wave):
        def force(self, t: Tensor, x: Tensor) -> Tensor:
            return super().force(t, x) - x.sin()

    assert chosen(Kinks()) == chosen(Saddles()) == "replay"
