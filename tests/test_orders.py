"""The order of every method with fixed steps, observed over four halvings.

Three problems each: one that does not depend on time, one that does (a wrong node shows only
there), and forced Allen-Cahn on a graph. Answers are closed forms or DOP853's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from kinds import IMPLICIT, KIND, adaptive, registered
from torch import Tensor

from neuralpde import catalogue, solve
from neuralpde.catalogue import problems as graphs
from neuralpde.catalogue.problems import GraphProblem
from neuralpde.fields import Field, Heat, Reaction
from solvers import methods, problems
from solvers.flow import Flow
from solvers.problems import DETEST, ODE, Oscillator
from solvers.rows import Rows
from solvers.stepper import Accuracy, Step
from solvers.tableaus import TABLEAUS

F64 = torch.float64
HALVINGS = 4


class Springs(Field):
    """The oscillator of a problem without a graph."""

    order = 2

    def __init__(self, problem: Oscillator) -> None:
        super().__init__()
        self.problem, self.damping = problem, problem.damping

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return self.problem.force(t, x)


class Wells(Field):
    """x'' = -L x + x - x^3 + 0.3 sin 3t - damping x'."""

    order = 2

    def __init__(self, damping: float = 0.0) -> None:
        super().__init__()
        self.damping = damping

    def prepare(self, graph: Any, x0: Any) -> None:
        self.L = graph.laplacian("comb")

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return x - x**3 + 0.3 * torch.sin(3 * t) - self.L @ x


class Season(Field):
    """x' = c(node) x cos t, which does not commute with diffusion."""

    pointwise = True

    def prepare(self, graph: Any, x0: Tensor) -> None:
        self.c = 1.0 + x0

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.c * x * torch.cos(t)


@dataclass(frozen=True)
class Case:
    """A problem and how far wrong an answer of n steps is."""

    name: str
    error: Callable[[str, int], float]


def plain(problem: ODE) -> Case:
    def error(method: str, steps: int) -> float:
        traj = solve(problem.f, problem.start(), problem.t, solver=method, steps=steps)
        return float((traj.final - problem.answer()).norm() / problem.answer().norm())

    return Case(problem.name, error)


def springs(problem: Oscillator) -> Case:
    def error(method: str, steps: int) -> float:
        traj = solve(Springs(problem), problem.start(), problem.t, solver=method, steps=steps)
        return problem.error(traj.final)

    return Case(problem.name, error)


def on_a_graph(problem: GraphProblem) -> Case:
    def error(method: str, steps: int) -> float:
        traj = solve(
            problem.field, problem.x0, problem.t, problem.graph, solver=method, steps=steps
        )
        return problem.error(traj.final)

    return Case(problem.name, error)


@cache
def cases() -> dict[str, tuple[Case, ...]]:
    rigid = next(p for p in DETEST if p.name == "B5")
    rigid = replace(rigid, name="rigid body", t=(0.0, 4.0))
    season = ODE(
        "season",
        lambda t, x: 2 * x * torch.cos(t),
        (1.0,),
        (0.0, 2.0),
        None,
        "",
        lambda t: (math.exp(2 * math.sin(t)),),
    )
    still, seen = graphs.allen_cahn(forced=False), graphs.allen_cahn()
    graph, x0 = still.graph, still.x0
    # Diffusion damps the leading terms of high orders away before four halvings are over.
    strong = Heat(rate=0.2) + Reaction.allen_cahn(3.0) + graphs.Forcing(2.0, 3.0)
    gentle = Heat(rate=0.2) + Reaction.allen_cahn() + graphs.Forcing(0.3, 6.0)
    strong_case = GraphProblem("strongly forced Allen-Cahn", strong, graph, x0, (0.0, 0.5))
    gentle_case = GraphProblem("gently coupled Allen-Cahn", gentle, graph, x0, (0.0, 2.0))
    pair = (x0, 0.5 * x0.flip(0))
    wells = [
        GraphProblem(f"{kind} wells", Wells(alpha), graph, pair, (0.0, 2.0))
        for kind, alpha in (("forced", 0.0), ("damped forced", 0.5))
    ]
    return {
        "any": (plain(rigid), plain(season), on_a_graph(seen)),
        "order 5": (plain(rigid), plain(season), on_a_graph(strong_case)),
        "order 8": (plain(rigid), plain(season), on_a_graph(gentle_case)),
        "split": (
            on_a_graph(still),
            on_a_graph(GraphProblem("season", Heat() + Season(), graph, x0, (0.0, 2.0))),
            on_a_graph(seen),
        ),
        "force": (springs(problems.HARMONIC), springs(problems.DRIVEN), on_a_graph(wells[0])),
        "damped": (springs(problems.DAMPED), springs(problems.DUFFING), on_a_graph(wells[1])),
    }


# The fewest steps of a window: there the leading term rules, and four halvings do not reach
# rounding.
FEWEST = {1: 40, 2: 20, 3: 20, 4: 20, 5: 20, 8: 2}
EXCEPTIONS = {
    # A step of these costs a few products more.
    **{
        (method, name): 20 if method == "implicit_euler" else 10
        for method in IMPLICIT
        for name in ("rigid body", "season", "forced Allen-Cahn")
    },
    ("dopri8", "rigid body"): 3,
    ("dopri5", "strongly forced Allen-Cahn"): 4,
    ("tsit5", "strongly forced Allen-Cahn"): 16,
}
# Where the leading term is so small that the next one is seen too.
FASTER = {("tsit5", "strongly forced Allen-Cahn"): 0.35}


def window(method: str, case: Case) -> list[int]:
    fewest = EXCEPTIONS.get((method, case.name), FEWEST[methods.stepper(method).order])
    return [fewest * 2**k for k in range(HALVINGS + 1)]


def slope(errors: list[float], steps: list[float]) -> float:
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def assert_order(method: str, case: Case) -> None:
    steps, order = window(method, case), methods.stepper(method).order
    errors = [case.error(method, n) for n in steps]
    found = slope(errors, steps)
    told = ", ".join(f"{n}: {e:.2e}" for n, e in zip(steps, errors, strict=True))
    above = FASTER.get((method, case.name), 0.15)
    assert order - 0.15 <= found <= order + above, (
        f"{method} shows order {found:.2f} on {case.name}, not {order}; errors by steps {told}"
    )


def test_every_registered_method_is_sorted_by_kind() -> None:
    assert set(methods.names()) <= set(KIND)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("method", registered("any"))
def test_methods_for_any_field(method: str, which: int) -> None:
    order = methods.stepper(method).order
    assert_order(method, cases()["any" if order < 5 else f"order {order}"][which])


@pytest.mark.parametrize("method", TABLEAUS)
def test_explicit_methods_on_pairs(method: str) -> None:
    assert_order(method, cases()["damped"][1])


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("method", registered("split"))
def test_methods_that_split(method: str, which: int) -> None:
    assert_order(method, cases()["split"][which])


@pytest.mark.parametrize("damping", ["force", "damped"])
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("method", registered("force"))
def test_methods_for_oscillators(method: str, which: int, damping: str) -> None:
    assert_order(method, cases()[damping][which])


class Swing(Field):
    """x' = x cos t."""

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x * torch.cos(t)


def swing() -> GraphProblem:
    x0 = torch.full((2, 1), 2.0, dtype=F64)
    return GraphProblem("swing", Swing(), catalogue.path(2), x0, (0.0, 1.0))


def one_step(method: str, h: float, problem: GraphProblem, *, mid: bool = False) -> Step:
    """One step of a method from its own first state at time 0.3."""
    from neuralpde.fields.structure import structure

    field = problem.field.bind(problem.graph, problem.x0)
    flow = Flow(
        lambda t, x: (field(t, x[0]),), Rows(), problem.x0, structure(field, "it", packed=False)
    )
    stepper = methods.stepper(method).begin(flow, Rows(), Accuracy(1e-12, 1e-12))
    t, x = np.array([0.3]), (problem.x0,)
    f, fx = flow.stages(t, np.array([h])), flow(t, x)
    return stepper.step(f, h, x, fx, error=True, mid=mid, plan=stepper.plan(f, x, fx))


@pytest.mark.parametrize("method", adaptive("any", "split"))
def test_the_error_estimate_shrinks_with_its_own_order(method: str) -> None:
    problem, sizes = graphs.allen_cahn(), [0.02, 0.01, 0.005]
    if methods.stepper(method).order == 8:
        problem, sizes = swing(), [0.4, 0.3, 0.2]
    estimates = []
    for h in sizes:
        error = one_step(method, h, problem).error
        assert error is not None
        estimates.append(float(error[0].norm()))
    found = -slope(estimates, sizes)
    assert found == pytest.approx(methods.stepper(method).error_order, abs=0.35), estimates


@pytest.mark.parametrize("method", [name for name, tableau in TABLEAUS.items() if tableau.mid])
def test_mid_is_the_state_half_way_to_order_four(method: str) -> None:
    sizes, errors = [0.1, 0.05, 0.025], []
    for h in sizes:
        mid = one_step(method, h, swing(), mid=True).mid
        assert mid is not None
        exact = 2 * math.exp(math.sin(0.3 + h / 2) - math.sin(0.3))
        errors.append(abs(mid[0][0].item() - exact))
    assert -slope(errors, sizes) == pytest.approx(5, abs=0.25)
