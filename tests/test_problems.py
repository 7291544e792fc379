"""Problems with known answers: the answers hold, by other means than those that gave them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from neuralpde.catalogue import problems as graphs
from neuralpde.catalogue.problems import GraphProblem
from solvers import problems
from solvers.problems import DETEST, ODE, Oscillator

F64 = torch.float64
OFFERED = {name: getattr(problems, name) for name in problems.__all__}
ODES = {p.name: p for p in (*DETEST, *OFFERED.values()) if isinstance(p, ODE)}
OSCILLATORS = {p.name: p for p in OFFERED.values() if isinstance(p, Oscillator)}
CLOSED = {name: p for name, p in {**ODES, **OSCILLATORS}.items() if p.solution is not None}
LISTED = {name: p for name, p in {**ODES, **OSCILLATORS}.items() if p.solution is None}
STIFF = {name: p for name, p in ODES.items() if p.stiffness}


def slope(problem: ODE | Oscillator, t: float, x: np.ndarray) -> np.ndarray:
    """dx/dt as numbers; positions before velocities."""
    time, state = torch.tensor(t, dtype=F64), torch.from_numpy(np.array(x))
    if isinstance(problem, ODE):
        return problem.f(time, state).numpy()
    return torch.cat(problem.f(time, tuple(state.chunk(2)))).numpy()


def first(problem: ODE | Oscillator) -> np.ndarray:
    start = problem.start()
    return (start if isinstance(start, torch.Tensor) else torch.cat(start)).numpy()


def last(problem: ODE | Oscillator) -> np.ndarray:
    answer = problem.answer()
    return (answer if isinstance(answer, torch.Tensor) else torch.cat(answer)).numpy()


@pytest.mark.parametrize("problem", CLOSED.values(), ids=list(CLOSED))
def test_a_closed_form_starts_right_and_follows_its_slope(problem: ODE | Oscillator) -> None:
    assert problem.solution is not None
    t0, t1 = problem.t
    np.testing.assert_allclose(problem.solution(t0), first(problem), rtol=1e-14, atol=1e-15)
    for t in np.linspace(t0, t1, 7)[1:-1]:
        # The derivative to order 6, from six points.
        h, weights = 1e-2, np.array([-1, 9, -45, 45, -9, 1]) / 60
        around = [problem.solution(t + k * h) for k in (-3, -2, -1, 1, 2, 3)]
        rise = weights @ np.array(around) / h
        now = slope(problem, float(t), np.array(problem.solution(float(t))))
        np.testing.assert_allclose(rise, now, rtol=1e-7, atol=1e-9)


def by_radau(problem: ODE | Oscillator, rtol: float) -> np.ndarray:
    small = getattr(problem, "small", 0.0) or 1.0
    found = solve_ivp(
        lambda t, x: slope(problem, t, x),
        problem.t,
        first(problem),
        method="Radau",
        rtol=rtol,
        atol=rtol * small * 1e-2,
    )
    assert found.success
    return found.y[:, -1]


@pytest.mark.parametrize("problem", LISTED.values(), ids=list(LISTED))
def test_listed_end_values_are_those_of_scipy(problem: ODE | Oscillator) -> None:
    # Problems with jumps multiply errors by a thousand and more.
    np.testing.assert_allclose(by_radau(problem, 1e-7), last(problem), rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("problem", LISTED.values(), ids=list(LISTED))
def test_listed_end_values_are_those_of_scipy_to_ten_digits(problem: ODE | Oscillator) -> None:
    np.testing.assert_allclose(by_radau(problem, 1e-12), last(problem), rtol=1e-9)


@pytest.mark.parametrize("problem", STIFF.values(), ids=list(STIFF))
def test_stiff_problems_are_stiff(problem: ODE) -> None:
    """Somewhere on the way the fastest rate is over a hundred times what the time span asks for."""
    path = solve_ivp(
        lambda t, x: slope(problem, t, x),
        problem.t,
        first(problem),
        method="LSODA",
        rtol=1e-5,
        atol=1e-6 * problem.small,
    )
    rates = []
    for t, x in zip(path.t[:: len(path.t) // 20], path.y.T[:: len(path.t) // 20], strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda y, t=t: problem.f(torch.tensor(t, dtype=F64), y), torch.from_numpy(x.copy())
        )
        rates.append(torch.linalg.eigvals(jacobian).real.min().item())
    assert -min(rates) * (problem.t[1] - problem.t[0]) > 1e4


def test_an_error_is_relative_to_every_entry() -> None:
    right = problems.ROBER.answer()
    wrong = right.clone()
    wrong[1] *= 1.5
    # The second entry lies just below what counts as zero.
    assert problems.ROBER.error(wrong) == pytest.approx(0.5 * 0.8333360770334713, rel=1e-9)
    assert problems.ROBER.error(right) == 0.0


def test_a_problem_without_an_answer_says_so() -> None:
    bare = ODE("bare", lambda t, x: x, (1.0,), (0.0, 1.0), None, "")
    with pytest.raises(ValueError, match="bare has neither"):
        bare.answer()
    swing = Oscillator("bare", lambda t, x: -x, 0.0, (1.0,), (0.0,), (0.0, 1.0), None, "")
    with pytest.raises(ValueError, match="bare has neither"):
        swing.answer()


def test_the_covariance_of_a_graph_process_follows_lyapunovs_equation() -> None:
    process, t, h = graphs.ornstein_uhlenbeck(sigma=0.8), 0.7, 1e-3
    L = process.graph.laplacian("comb").to_dense().double()
    C = process.covariance(t)
    rise = (process.covariance(t + h) - process.covariance(t - h)) / (2 * h)
    noise = 0.64 * torch.eye(len(L), dtype=F64)
    torch.testing.assert_close(rise, noise - L @ C - C @ L, rtol=0, atol=1e-5)
    fall = (process.mean(t + h) - process.mean(t - h)) / (2 * h)
    torch.testing.assert_close(fall, -L @ process.mean(t), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [graphs.heat, graphs.wave, lambda: graphs.wave(damping=0.4)],
    ids=["heat", "wave", "damped"],
)
def test_closed_forms_on_graphs_are_dop853s(make: Callable[[], GraphProblem]) -> None:
    problem = make()
    assert replace(problem, solution=None).error(problem.answer()) < 1e-11


@pytest.mark.parametrize("make", [graphs.allen_cahn, graphs.tanh_diffusion, graphs.grand])
def test_answers_without_a_closed_form_are_those_of_radau(make: Callable[[], GraphProblem]) -> None:
    problem = make()
    bound = problem.field.bind(problem.graph, problem.x0)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(y.copy()).view_as(problem.x0)
        with torch.no_grad():
            return bound(torch.tensor(t, dtype=F64), x).flatten().numpy()

    first = problem.x0.flatten().numpy()
    found = solve_ivp(slope, problem.t, first, method="Radau", rtol=1e-8, atol=1e-10)
    x = torch.from_numpy(found.y[:, -1].copy()).view_as(problem.x0)
    assert problem.error(x) < 1e-6
