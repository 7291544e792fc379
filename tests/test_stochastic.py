"""Stochastic fields: laws and orders against closed forms, one path for all grids, gradients."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from neuralpde import Graph, solve
from neuralpde.catalogue import path, ring
from neuralpde.fields import Field, Heat, Layers, Noise, Pinned, Reaction
from solvers.brownian import Brownian
from solvers.failure import SolveFailed
from solvers.schedules import Points
from solvers.stochastic import EulerMaruyama, StochasticHeun

STEPPERS = {"euler_maruyama": EulerMaruyama, "stochastic_heun": StochasticHeun}
NODES = 9
EDGES = torch.tensor([[0, 1, 2, 3, 1, 3, 4, 6], [1, 2, 3, 0, 3, 4, 5, 7]])
# A cycle with a chord and a tail, a pair, and an isolated node: three eigenvalues 0.
GRAPH = Graph(torch.cat([EDGES, EDGES.flip(0)], 1), num_nodes=NODES)
GROWTH, SPREAD = 0.7, 0.6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


class Growth(Field):
    """dX = m X dt + s X dW, the geometric Brownian motion, as a field of one's own."""

    convention = "ito"

    def __init__(self, rate: float = GROWTH, spread: float = SPREAD) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))
        self.spread = nn.Parameter(torch.tensor(spread, dtype=torch.float64))

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.rate * x

    def noise(self, t: Tensor, x: Tensor) -> Tensor:
        return self.spread * x


class Own(Field):
    """Decay, with whatever noise it is given."""

    def __init__(self, noise: object) -> None:
        super().__init__()
        self.noise = noise

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -x


class Pull(Field):
    """A drift that is neither linear nor autonomous."""

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.sin(3 * t) - 2 * torch.sin(x)


def stratonovich_growth() -> Field:
    return Reaction([0.0, GROWTH]) + Noise(lambda t, x: SPREAD * x, convention="stratonovich")


def slope(steps: np.ndarray, errors: list[float]) -> float:
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


# --- laws -----------------------------------------------------------------------------------


def test_heat_with_noise_is_the_graph_ornstein_uhlenbeck_process() -> None:
    paths, T, s = 20_000, 1.0, 0.5
    lam, U = torch.linalg.eigh(GRAPH.laplacian().to_dense().double())
    lam = torch.where(lam < 1e-12, 0.0, lam)
    safe = torch.where(lam > 0, lam, 1.0)
    var = s**2 * torch.where(lam > 0, -torch.expm1(-2 * lam * T) / (2 * safe), T)
    C = U @ torch.diag(var) @ U.T
    x0 = torch.linspace(-1.0, 1.0, NODES, dtype=torch.float64)
    mean = U @ (torch.exp(-lam * T) * (U.T @ x0))
    start = x0[:, None].repeat(1, paths)
    traj = solve(Heat() + Noise(s), start, T, GRAPH, steps=32, generator=seeded(0))
    assert traj.stats.solver == "stochastic_heun"
    off = traj.final - mean[:, None]
    S = off @ off.T / paths
    # All 45 entries at once: N/2 tr((C^-1 S - 1)^2) is chi-square, here within 3 sigma; and the
    # worst of them, with the bound for one of 45.
    ratio = torch.linalg.solve(C, S) - torch.eye(NODES, dtype=torch.float64)
    entries = NODES * (NODES + 1) // 2
    level = 2 * stats.norm.sf(3)
    covariance = stats.chi2(entries).cdf(0.5 * paths * float(torch.trace(ratio @ ratio)))
    assert level / 2 < covariance < 1 - level / 2
    errors = ((C.square() + torch.outer(C.diag(), C.diag())) / paths).sqrt()
    assert float(((S - C) / errors).abs().max()) < stats.norm.isf(level / 2 / entries)
    m = off.mean(1)
    assert stats.chi2(NODES).sf(paths * float(m @ torch.linalg.solve(C, m))) > level


def test_an_operator_spreads_noise_over_the_nodes() -> None:
    paths, s = 20_000, 0.5
    graph = path(4)
    field = Noise(s, lambda graph, x0: graph.adjacency())
    x0 = torch.zeros(4, paths, dtype=torch.float64)
    X = solve(field, x0, 2.0, graph, solver="euler_maruyama", steps=2, generator=seeded(1)).final
    A = graph.adjacency().to_dense().double()
    C = 2.0 * s**2 * A @ A.T
    # The adjacency of a path of even length is regular, and so is C.
    ratio = torch.linalg.solve(C, X @ X.T / paths) - torch.eye(4, dtype=torch.float64)
    assert 1e-3 < stats.chi2(10).cdf(0.5 * paths * float(torch.trace(ratio @ ratio))) < 1 - 1e-3


def test_stochastic_heun_averages_the_noise_of_both_ends_of_a_step() -> None:
    W, x0 = Brownian(1, (3,)), torch.zeros(3, dtype=torch.float64)
    for noise in (Noise(lambda t: 1 + t, additive=True), Noise(lambda t, x: (1 + t).expand_as(x))):
        noise.convention = "stratonovich"
        x = solve(noise, x0, (0.5, 0.75), solver=StochasticHeun(1), steps=1).final
        torch.testing.assert_close(x, 1.625 * W.increment(0.5, 0.75), rtol=1e-14, atol=1e-14)


def test_independent_noises_add_their_squares() -> None:
    x0 = ones(2, 3)
    column = torch.tensor([[0.3], [0.4]], dtype=torch.float64)
    both = solve(Noise(0.6) + Noise(column) + Noise(0.0), x0, 1.0, solver=EulerMaruyama(3), steps=2)
    one = solve(Noise((0.36 + column**2).sqrt()), x0, 1.0, solver=EulerMaruyama(3), steps=2)
    torch.testing.assert_close(both.final, one.final, rtol=1e-14, atol=1e-14)
    field = Growth() + Noise(0.8)
    mixed = solve(field, 2 * x0, 0.5, solver=EulerMaruyama(3), steps=1).final
    by_hand = 2 + 0.5 * GROWTH * 2 + math.hypot(2 * SPREAD, 0.8) * Brownian(3, (2, 3))(0.5)
    torch.testing.assert_close(mixed, by_hand, rtol=1e-14, atol=1e-14)


# --- orders ---------------------------------------------------------------------------------


def test_euler_maruyama_has_strong_order_one_half_and_weak_order_one() -> None:
    paths, steps = 10_000, np.array([16, 32, 64, 128, 256])
    W = Brownian(7, (1, paths))(1.0)
    exact = torch.exp((GROWTH - SPREAD**2 / 2) + SPREAD * W)
    strong, weak = [], []
    with torch.no_grad():
        for n in steps:
            x = solve(Growth(), ones(1, paths), 1.0, solver=EulerMaruyama(7), steps=int(n)).final
            strong.append(float((x - exact).square().mean().sqrt()))
            # The exact solution on the same path is the control variate.
            weak.append(abs(float((x - exact).mean())))
    assert abs(slope(steps, strong) - 0.5) < 0.1, strong
    assert abs(slope(steps, weak) - 1.0) < 0.15, weak
    # Its own mean is (1 + m h)^n.
    bias = math.exp(GROWTH) - (1 + GROWTH / steps[0]) ** steps[0]
    assert weak[0] == pytest.approx(bias, rel=0.1)


def test_stochastic_heun_has_strong_order_one_for_noise_entry_by_entry() -> None:
    paths, steps = 2_000, np.array([8, 16, 32, 64, 128])
    exact = torch.exp(GROWTH + SPREAD * Brownian(7, (1, paths))(1.0))
    errors = []
    for n in steps:
        solver = StochasticHeun(7)
        x = solve(stratonovich_growth(), ones(1, paths), 1.0, solver=solver, steps=int(n)).final
        errors.append(float((x - exact).square().mean().sqrt()))
    assert abs(slope(steps, errors) - 1.0) < 0.1, errors


@pytest.mark.parametrize("name", STEPPERS)
def test_additive_noise_has_strong_order_one(name: str) -> None:
    paths, steps = 500, np.array([4, 8, 16, 32, 64])
    # g(t) depends on time, so that it matters where it is evaluated.
    field = Pull() + Noise(lambda t: 0.5 + t, additive=True)
    x0 = ones(1, paths)
    fine = solve(field, x0, 1.0, path(1), solver=StochasticHeun(3), steps=1024).final
    errors = []
    for n in steps:
        x = solve(field, x0, 1.0, path(1), solver=STEPPERS[name](3), steps=int(n)).final
        errors.append(float((x - fine).square().mean().sqrt()))
    assert abs(slope(steps, errors) - 1.0) < 0.15, errors


def test_without_noise_the_steps_are_euler_and_heun() -> None:
    x0 = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
    for name, plain in (("euler_maruyama", "euler"), ("stochastic_heun", "heun")):
        noisy = solve(Pull() + Noise(0.0), x0, 1.0, path(4), solver=name, steps=7)
        quiet = solve(Pull(), x0, 1.0, path(4), solver=plain, steps=7)
        torch.testing.assert_close(noisy.final, quiet.final, rtol=1e-14, atol=1e-14)
        assert noisy.stats.nfe == quiet.stats.nfe


# --- one path for all grids -----------------------------------------------------------------


@pytest.mark.parametrize("name", STEPPERS)
def test_grids_and_schedules_follow_the_same_path(name: str) -> None:
    # Pure Brownian motion: the end is W(T) itself, on whichever grid.
    x0 = torch.zeros(5, 2, dtype=torch.float64)
    W = Brownian(9, (5, 2))
    grids = [{"steps": n, "schedule": s} for n in (1, 10, 30) for s in ("uniform", "cosine")]
    for grid in grids:
        traj = solve(Noise(1.0), x0, (0.3, 4.6), solver=STEPPERS[name](9), **grid)
        torch.testing.assert_close(traj.final, W.increment(0.3, 4.6), rtol=0, atol=1e-14)
    saved = solve(Noise(1.0), x0, torch.tensor([0.0, 0.1, 0.77, 2.0]), solver=name, steps=6)
    again = Brownian(int(saved.stats.reason.split("seed=")[1].rstrip(")")), (5, 2))
    for t, x in zip(saved.t, saved.x, strict=True):
        torch.testing.assert_close(x, again(float(t)), rtol=0, atol=1e-14)


def test_points_of_a_grid_are_met_exactly_where_rounding_misses_them() -> None:
    points = Points((0.0, 0.3, 0.999, 0.99993, 1.0))
    traj = solve(
        Noise(1.0), ones(3), (1000.7, 0.01), solver=EulerMaruyama(2), schedule=points, save="steps"
    )
    W = Brownian(2, (3,))
    missed = 0
    for k in range(4):
        start, end = float(traj.t[k]), float(traj.t[k + 1])
        missed += start + (end - start) != end
        step = traj.x[k + 1] - traj.x[k]
        torch.testing.assert_close(step, W.increment(start, end), rtol=0, atol=1e-12)
    # t + h is another number than the next time, and would have another value.
    assert missed


def test_a_solve_that_is_resumed_goes_on_along_its_path() -> None:
    x0, field = ones(NODES, 2), Heat() + Noise(0.5)
    whole = solve(field, x0, 2.0, GRAPH, solver=EulerMaruyama(4), steps=40)
    half = solve(field, x0, 1.0, GRAPH, solver=EulerMaruyama(4), steps=20)
    rest = solve(field, half.final, (1.0, 2.0), GRAPH, solver=EulerMaruyama(4), steps=20)
    torch.testing.assert_close(rest.final, whole.final, rtol=1e-12, atol=1e-12)


def test_falling_time_retraces_the_path_of_stratonovich_equations() -> None:
    field, x0 = stratonovich_growth(), ones(1, 4)
    gaps = []
    for n in (50, 200):
        there = solve(field, x0, 1.0, solver=StochasticHeun(6), steps=n).final
        back = solve(field, there, (1.0, 0.0), solver=StochasticHeun(6), steps=n).final
        gaps.append(float((back - x0).abs().max()))
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 2


def test_seeds_are_drawn_once_from_the_generator() -> None:
    def end(rng: torch.Generator | None, name: str = "euler_maruyama") -> Tensor:
        return solve(Noise(1.0), ones(3), 1.0, solver=name, steps=2, generator=rng).final

    rng = seeded(5)
    first, second = end(rng), end(rng)
    assert not torch.equal(first, second)
    assert torch.equal(first, end(seeded(5)))
    torch.testing.assert_close(first, end(seeded(5), "stochastic_heun"), rtol=0, atol=1e-15)
    after = seeded(5)
    torch.randint(2**63 - 1, (), generator=after)
    torch.randint(2**63 - 1, (), generator=after)
    assert torch.equal(rng.get_state(), after.get_state())
    torch.manual_seed(3)
    default = end(None)
    torch.manual_seed(3)
    assert torch.equal(default, end(None))


# --- batches --------------------------------------------------------------------------------


def batch() -> tuple[Graph, list[Graph]]:
    alone = [ring(3), path(4), ring(5)]
    edges, first = [], 0
    for graph in alone:
        edges.append(graph.edge_index + first)
        first += graph.num_nodes
    sizes = torch.tensor([g.num_nodes for g in alone])
    return Graph(torch.cat(edges, 1), batch=torch.arange(3).repeat_interleave(sizes)), alone


@pytest.mark.parametrize("times", ["shared", "own"])
def test_with_seeds_of_their_own_graphs_give_what_they_give_alone(times: str) -> None:
    together, alone = batch()
    x0, field = torch.randn(12, 2, dtype=torch.float64), Heat() + Noise(0.4)
    t = torch.tensor([[0.0] * 3, [1.0] * 3 if times == "shared" else [1.0, 0.3, 2.0]])
    traj = solve(field, x0, t.double(), together, solver=EulerMaruyama([8, 2, 5]), steps=10)
    for g, (graph, seed) in enumerate(zip(alone, (8, 2, 5), strict=True)):
        rows = together.batch == g
        one = solve(field, x0[rows], t[:, g].double(), graph, solver=EulerMaruyama(seed), steps=10)
        torch.testing.assert_close(traj.final[rows], one.final, rtol=1e-13, atol=1e-13)


def test_with_one_seed_graphs_have_different_noise() -> None:
    graph = Graph(torch.empty(2, 0, dtype=torch.int64), 4, batch=torch.tensor([0, 0, 1, 1]))
    x = solve(Noise(1.0), torch.zeros(4), 1.0, graph, solver="euler_maruyama", steps=1).final
    assert not torch.equal(x[:2], x[2:])
    t = torch.tensor([[0.0, 0.0], [1.0, 0.7]], dtype=torch.float64)
    x = solve(Noise(1.0), torch.zeros(4), t, graph, solver=EulerMaruyama(6), steps=1).final
    assert torch.equal(x[:2], Brownian(6, (2,))(1.0).float())
    assert torch.equal(x[2:], Brownian(6, (2,), graph=1)(0.7).float())


def test_a_graph_that_fails_leaves_the_others_on_their_path() -> None:
    together, _ = batch()

    class Burst(Field):
        batched_time = True

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.where(torch.arange(len(x))[:, None] < 3, 1e200 * x**3, 0.0 * x)

    x0 = ones(12, 1)
    solver = EulerMaruyama([1, 2, 3])
    with pytest.raises(SolveFailed, match="graph 0 stopped") as caught:
        solve(Burst() + Noise(0.5), x0, 1.0, together, solver=solver, steps=4)
    final = caught.value.trajectory.final
    own = 1 + 0.5 * Brownian([2, 3], (9, 1), nodes=[4, 5])(1.0)
    torch.testing.assert_close(final[3:], own, rtol=1e-14, atol=1e-14)


# --- gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_pathwise_gradients_are_those_of_the_scheme_and_of_the_closed_form(grad: str) -> None:
    field, x0 = Growth(), ones(1, 3).requires_grad_()
    n, T = 64, 1.0
    x = solve(field, x0, T, solver=EulerMaruyama(5), steps=n, grad=grad, max_steps=200).final
    rate, spread, start = torch.autograd.grad(x.sum(), (field.rate, field.spread, x0))
    # The scheme is a product of factors 1 + m h + s dW; differentiate it by hand.
    W = Brownian(5, (1, 3))
    h = T / n
    dW = torch.stack([W.increment(k * h, (k + 1) * h) for k in range(n)])
    factors = 1 + GROWTH * h + SPREAD * dW
    end = factors.prod(0)
    torch.testing.assert_close(start, end, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rate, (end * (h / factors).sum(0)).sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(spread, (end * (dW / factors).sum(0)).sum(), rtol=1e-12, atol=0)


def test_gradients_converge_to_those_of_the_exact_path() -> None:
    field = stratonovich_growth()
    x0 = ones(1, 50).requires_grad_()
    x = solve(field, x0, 1.0, solver=StochasticHeun(5), steps=512, grad="replay").final
    (found,) = torch.autograd.grad(x.sum(), x0)
    exact = torch.exp(GROWTH + SPREAD * Brownian(5, (1, 50))(1.0))
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0)


@pytest.mark.parametrize("name", STEPPERS)
def test_replayed_gradients_equal_taped_ones_also_of_the_noise(name: str) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.3, 0.7], dtype=torch.float64))

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.weight * (0.5 + torch.tanh(x) + t)

    rate = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
    convention = "ito" if name == "euler_maruyama" else "stratonovich"
    field = Heat(rate=rate) + Noise(Wide(), convention=convention) + Noise(nn.Parameter(ones(2)))
    found = []
    for grad in ("tape", "replay"):
        x0 = ones(NODES, 2).requires_grad_()
        solver = STEPPERS[name](seed=1)
        times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
        traj = solve(field, x0, times, GRAPH, solver=solver, steps=40, grad=grad)
        assert traj.stats.gradient == grad
        found.append(torch.autograd.grad(traj.x.square().sum(), (x0, *field.parameters())))
    assert len(found[0]) == 4
    for taped, replayed in zip(*found, strict=True):
        torch.testing.assert_close(replayed, taped, rtol=1e-11, atol=1e-11)
        assert taped.abs().max() > 0


def test_noise_that_is_no_noise_has_a_finite_gradient() -> None:
    still = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    x = solve(Noise(still) + Noise(0.0), ones(3), 1.0, solver="euler_maruyama", steps=2).final
    (found,) = torch.autograd.grad(x.sum(), still)
    assert found.isfinite()


# --- what is refused ------------------------------------------------------------------------

DETERMINISTIC = ("euler", "heun", "tsit5", "dopri5", "exact", "chebyshev", "rkl2", "trbdf2")


@pytest.mark.parametrize("solver", [*DETERMINISTIC, "torchdiffeq:dopri5", "scipy:RK45"])
@pytest.mark.parametrize("steps", [None, 4])
def test_deterministic_solvers_refuse_to_leave_out_noise(solver: str, steps: int | None) -> None:
    with pytest.raises(ValueError, match=r"is stochastic, and solver .* would leave out its noise"):
        solve(Heat() + Noise(0.3), ones(NODES, 1), 1.0, GRAPH, solver=solver, steps=steps)


def test_noise_is_seen_wherever_a_field_declares_it() -> None:
    class Hidden(Field):
        """Noise in a field with a forward of its own."""

        noise = 0.3

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return -x

    fields = [Hidden(), Growth(), Pinned(Heat() + Noise(0.3), [0]), Layers([Heat() + Noise(1.0)])]
    for field in fields:
        with pytest.raises(ValueError, match="is stochastic"):
            solve(field, ones(NODES, 1), 1.0, GRAPH)
        traj = solve(field, ones(NODES, 1), 1.0, GRAPH, steps=4)
        assert traj.stats.solver in STEPPERS
    bound = (Heat() + Noise(0.3)).bind(GRAPH, ones(NODES, 1))
    with pytest.raises(ValueError, match="is stochastic"):
        solve(bound, ones(NODES, 1), 1.0)


def test_auto_follows_the_convention_of_the_noise() -> None:
    for field, name in (
        (Heat() + Noise(0.3), "stochastic_heun"),
        (stratonovich_growth(), "stochastic_heun"),
        (Growth(), "euler_maruyama"),
    ):
        assert solve(field, ones(NODES, 1), 1.0, GRAPH, steps=2).stats.solver == name
        with pytest.raises(ValueError, match="give steps=n"):
            solve(field, ones(NODES, 1), 1.0, GRAPH)


def test_each_method_refuses_the_other_convention() -> None:
    with pytest.raises(ValueError, match="converges to the Stratonovich solution"):
        solve(Growth(), ones(1, 1), 1.0, solver="stochastic_heun", steps=4)
    with pytest.raises(ValueError, match="converges to the Ito solution"):
        solve(stratonovich_growth(), ones(1, 1), 1.0, solver="euler_maruyama", steps=4)


@pytest.mark.parametrize("name", STEPPERS)
def test_stochastic_solvers_say_what_they_need(name: str) -> None:
    with pytest.raises(ValueError, match="declares no noise"):
        solve(Heat(), ones(NODES, 1), 1.0, GRAPH, solver=name, steps=4)
    with pytest.raises(ValueError, match="takes fixed steps"):
        solve(Noise(1.0), ones(3), 1.0, solver=name)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="no derivative in time"):
        solve(Noise(1.0), ones(3), t, solver=name, steps=4)
    with pytest.raises(ValueError, match="2 seeds for 1 graphs"):
        solve(Noise(1.0), ones(3), 1.0, solver=STEPPERS[name]([1, 2]), steps=4)
    with pytest.raises(TypeError, match="noise of Noise is real"):
        solve(Noise(1.0), ones(3) + 0j, 1.0, solver=name, steps=4)


def test_noise_that_does_not_fit_is_refused_before_any_work() -> None:
    x0 = ones(NODES, 2)
    with pytest.raises(ValueError, match=r"shape \(3,\) does not broadcast against .* \(9, 2\)"):
        (Heat() + Noise(torch.ones(3))).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"shape \(1, 9, 2\) does not broadcast"):
        Noise(torch.ones(1, NODES, 2)).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"1 part\(s\) of a state of 2"):
        Noise(1.0).bind(None, (x0, x0))
    with pytest.raises(ValueError, match="scale is nan"):
        Noise(math.nan)
    with pytest.raises(ValueError, match=r"convention 'itoh'.*'ito'"):
        Noise(1.0, convention="itoh")
    with pytest.raises(TypeError, match=r"its operator is torch\.float32"):
        Own(GRAPH.adjacency()).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"operator on 4 nodes.*state of 9"):
        Noise(operator=path(4).adjacency()).bind(GRAPH, x0)


def test_noises_that_cannot_be_one_are_refused_where_they_are_added() -> None:
    A = GRAPH.adjacency()
    with pytest.raises(ValueError, match="adds up with no other noise"):
        Noise(1.0, A) + Noise(0.5)
    with pytest.raises(ValueError, match="one noise is Ito and the other Stratonovich"):
        Noise(torch.sin, convention="stratonovich") + Growth()
    with pytest.raises(ValueError, match="with a number for a scale"):
        Noise(torch.ones(NODES, 1), A)


def test_a_function_must_not_hide_what_it_differentiates() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    field = Heat() + Noise(lambda t, x: theta * x)
    for grad in ("auto", "replay"):
        with pytest.raises(ValueError, match="tensors that require grad and that the field does"):
            solve(field, ones(NODES, 1), 1.0, GRAPH, solver="euler_maruyama", steps=4, grad=grad)
    x = solve(field, ones(NODES, 1), 1.0, GRAPH, solver="euler_maruyama", steps=4, grad="tape")
    assert torch.autograd.grad(x.final.sum(), theta)[0] != 0


# --- fields ---------------------------------------------------------------------------------


def test_noise_may_be_a_parameter_a_module_an_operator_or_a_tuple() -> None:
    class Half(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return 0.5 * torch.ones_like(x)

    x0 = ones(NODES, 2)
    W = Brownian(1, (NODES, 2))(0.25)
    A = GRAPH.adjacency().to(torch.float64)
    cases = [
        (nn.Parameter(torch.tensor(0.5, dtype=torch.float64)), 0.5 * W),
        (Half(), 0.5 * W),
        (A, A.to_dense() @ W),
        (0.5, 0.5 * W),
    ]
    for noise, kick in cases:
        x = solve(Own(noise), x0, 0.25, GRAPH, solver=EulerMaruyama(1), steps=1).final
        torch.testing.assert_close(x, 0.75 * x0 + kick, rtol=1e-6, atol=1e-6)


def test_parts_of_a_state_have_noise_of_their_own() -> None:
    class Langevin(Field):
        """dx = v dt, dv = -v dt + 0.5 dW."""

        noise = (0.0, 0.5)

        def rest(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return x[1], -x[1]

    x0 = (ones(3), 2 * ones(3))
    x, v = solve(Langevin(), x0, 0.5, path(3), solver=EulerMaruyama(4), steps=1).final
    assert torch.equal(x, 2 * ones(3))
    kick = 0.5 * Brownian(4, (3,), part=1)(0.5)
    torch.testing.assert_close(v, 1 + kick, rtol=1e-14, atol=1e-14)


def test_pinned_nodes_feel_no_noise() -> None:
    x0 = ones(NODES, 2)
    for noise in (Noise(0.5), Noise(lambda t, x: 0.5 * x)):
        field = Pinned(Heat() + noise, [0, 4])
        x = solve(field, x0, 1.0, GRAPH, solver=EulerMaruyama(3), steps=8).final
        assert torch.equal(x[[0, 4]], x0[[0, 4]])
        assert (x[[1, 2, 3, 5, 8]] != 1).all()


def test_the_drift_of_a_stochastic_field_is_the_field_without_its_noise() -> None:
    x0 = torch.randn(NODES, 2, dtype=torch.float64)
    zero = torch.tensor(0.0)
    drift = (Heat() + Noise(1.0)).bind(GRAPH, x0)
    assert torch.equal(drift(zero, x0), Heat().bind(GRAPH, x0)(zero, x0))
    assert torch.equal(Noise(1.0).bind(None, x0)(zero, x0), 0 * x0)
    assert Heat().noise is None
    assert (Heat() + Reaction([1.0])).noise is None


def test_single_precision_rounds_the_increments_and_no_more() -> None:
    x0 = torch.zeros(4)
    x = solve(Noise(1.0), x0, 1.0, solver=EulerMaruyama(2), steps=1).final
    assert x.dtype == torch.float32
    assert torch.equal(x, Brownian(2, (4,))(1.0).float())
