"""Routes over torchdiffeq and scipy: their numbers in our trajectories, and gradients."""

import numpy as np
import pytest
import scipy.integrate
import torch
import torchdiffeq
from torch import Tensor, nn

from neuralpde.catalogue import path, ring
from neuralpde.fields import Field, Heat
from neuralpde.graph import Graph
from neuralpde.solve import solve
from solvers.torchdiffeq_adapter import Method, names

GRAPH = ring(6)
TIMES = torch.linspace(0.0, 1.5, 4, dtype=torch.float64)
SCIPY = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")
ADAPTIVE = [name for name in names() if not Method(name).fixed]
FIXED = [name for name in names() if Method(name).fixed]
ONE = torch.ones(3, dtype=torch.float64)


class Reaction(Field):
    """tanh(A x) W - x + sin t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.2], [0.3, 0.4]], dtype=torch.float64))

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("row")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.A @ x) @ self.weight - x + torch.sin(t)


def signal(nodes: int = 6, channels: int = 2) -> Tensor:
    return torch.randn(nodes, channels, dtype=torch.float64)


def square(t: Tensor, x: Tensor) -> Tensor:
    return x * x


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_methods_give_torchdiffeqs_numbers_bit_for_bit(name: str) -> None:
    x0 = signal()
    traj = solve(Reaction(), x0, TIMES, GRAPH, solver=f"torchdiffeq:{name}", grad="none")
    bound = Reaction().bind(GRAPH, x0)
    with torch.no_grad():
        direct = torchdiffeq.odeint(bound, x0, TIMES, rtol=1e-4, atol=1e-6, method=name)
    assert torch.equal(traj.x, direct)
    assert traj.stats.solver == f"torchdiffeq:{name}"
    assert traj.status == "done"


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_fixed_methods_give_torchdiffeqs_numbers_bit_for_bit(name: str, sign: float) -> None:
    x0, t = signal(), sign * TIMES
    traj = solve(Reaction(), x0, t, GRAPH, solver=f"torchdiffeq:{name}", steps=60)
    grid = sign * torch.from_numpy(np.arange(61) / 60 * 1.5)
    grid[[20, 40]] = t[1:3]
    direct = torchdiffeq.odeint(
        Reaction().bind(GRAPH, x0),
        x0,
        t,
        rtol=1e-4,
        atol=1e-6,
        method=name,
        options={"grid_constructor": lambda f, y, s: grid},
    )
    assert torch.equal(traj.x, direct)
    assert traj.stats.accepted == 60


def test_a_schedule_places_exactly_its_points() -> None:
    seen: list[float] = []

    def field(t: Tensor, x: Tensor) -> Tensor:
        seen.append(float(t))
        return -x

    solve(field, ONE, 2.0, solver="torchdiffeq:euler", steps=8, schedule="cosine", grad="none")
    np.testing.assert_allclose(
        seen, 2.0 * np.sin(np.pi / 2 * np.arange(8) / 8) ** 2, rtol=0, atol=1e-15
    )


def test_unequal_steps_are_refused_by_adams_methods() -> None:
    with pytest.raises(ValueError, match="takes its steps to be equal"):
        solve(
            lambda t, x: -x,
            ONE,
            2.0,
            solver="torchdiffeq:explicit_adams",
            steps=8,
            schedule="cosine",
        )


def test_a_bound_field_goes_unchanged_into_torchdiffeq() -> None:
    x0 = signal()
    bound = Heat().bind(GRAPH, x0)
    theirs = torchdiffeq.odeint(bound, x0, TIMES, rtol=1e-10, atol=1e-12)
    exact = torch.stack(
        [torch.linalg.matrix_exp(bound.operator.to_dense() * t) @ x0 for t in TIMES]
    )
    torch.testing.assert_close(theirs, exact, rtol=1e-8, atol=1e-9)
    ours = solve(Heat(), x0, TIMES, GRAPH, solver="dopri5", rtol=1e-10, atol=1e-12).x
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_counts_are_the_fields_own() -> None:
    calls = 0

    def field(t: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -x

    traj = solve(field, ONE, 1.0, solver="torchdiffeq:dopri5", grad="none")
    assert traj.stats.nfe == calls
    assert calls == 2 + 6 * (traj.stats.accepted + traj.stats.rejected)


def test_energy_and_measures_are_taken_at_the_saved_times() -> None:
    x0 = signal()

    def largest(shot: object) -> Tensor:
        return shot.x.abs().max()

    traj = solve(Heat(), x0, TIMES, GRAPH, solver="torchdiffeq:dopri5", watch=largest)
    L = GRAPH.laplacian("comb").to_dense().double()
    expected = torch.stack([torch.trace(x.T @ L @ x) for x in traj.x])
    torch.testing.assert_close(traj.energy.y, expected)
    torch.testing.assert_close(traj["largest"].y, traj.x.abs().flatten(1).amax(1))
    assert "saved times" in traj.stats.reason


def test_tuples_complex_states_and_backward_time_pass() -> None:
    def turn(t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[1], -x[0]

    start = (torch.tensor([1.0]).double(), torch.tensor([0.0]).double())
    cosine = torch.stack([torch.cos(TIMES), -torch.sin(TIMES)])
    for name in ("torchdiffeq:dopri5", "scipy:DOP853"):
        traj = solve(turn, start, TIMES, solver=name, rtol=1e-9, atol=1e-10)
        assert isinstance(traj.x, tuple)
        torch.testing.assert_close(torch.cat(traj.x, 1).T, cosine, rtol=0, atol=1e-7)
        wave = solve(
            lambda t, x: -1j * x,
            torch.ones(2, dtype=torch.complex128),
            -TIMES,
            solver=name,
            rtol=1e-9,
            atol=1e-10,
        )
        exact = torch.exp(1j * TIMES)[:, None].expand(-1, 2)
        torch.testing.assert_close(wave.x, exact, rtol=0, atol=1e-7)


def test_repeated_and_equal_times_need_no_steps() -> None:
    t = torch.tensor([0.0, 1.0, 1.0]).double()
    for name in ("torchdiffeq:dopri5", "scipy:RK45"):
        traj = solve(lambda t, x: -x, ONE, t, solver=name)
        assert torch.equal(traj.x[1], traj.x[2])
        still = solve(lambda t, x: -x, ONE, (1.0, 1.0), solver=name)
        assert torch.equal(still.x, torch.stack([ONE, ONE]))


def test_a_batch_is_as_accurate_as_its_hardest_graph_alone() -> None:
    # Diluted among 40 quiet graphs, the error of the one with a signal would be 6 times larger.
    graphs = [path(3) for _ in range(41)]
    x0 = torch.zeros(123, 1, dtype=torch.float64)
    x0[:3] = torch.tensor([[1.0], [-2.0], [1.0]])
    batch = Graph.union(graphs)
    alone = solve(Heat(), x0[:3], 2.0, graphs[0], solver="torchdiffeq:dopri5")
    together = solve(Heat(), x0, 2.0, batch, solver="torchdiffeq:dopri5")
    torch.testing.assert_close(together.final[:3], alone.final, rtol=1e-10, atol=1e-13)
    assert together.stats.accepted == (alone.stats.accepted,) * 41
    assert "largest RMS of a graph" in together.stats.reason
    assert together.energy.y.shape == (2, 41)


@pytest.mark.parametrize("solver", ["torchdiffeq:dopri5", "torchdiffeq:rk4"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_adjoint_gradients_agree_with_taped_ones(solver: str, sign: float) -> None:
    x0 = signal()
    weight = torch.linspace(-1, 1, 4 * 12, dtype=torch.float64).view(4, 6, 2)
    found = []
    for grad in ("tape", "adjoint"):
        field, start = Reaction(), x0.clone().requires_grad_()
        t = (sign * TIMES).requires_grad_()
        asked = {"steps": 120} if solver.endswith("rk4") else {"rtol": 1e-9, "atol": 1e-10}
        traj = solve(field, start, t, GRAPH, solver=solver, grad=grad, **asked)
        assert traj.stats.gradient == grad
        assert ("caution" in traj.stats.reason) == (grad == "adjoint")
        (traj.x * weight).sum().backward()
        found.append((start.grad, field.weight.grad, t.grad))
    for taped, adjoint in zip(*found, strict=True):
        torch.testing.assert_close(adjoint, taped, rtol=1e-5, atol=1e-6)


def test_gradients_of_start_and_times_are_those_of_the_closed_form() -> None:
    x0 = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    for asked in (
        {"solver": "torchdiffeq:dopri5", "rtol": 1e-9, "atol": 1e-12},
        {"solver": "torchdiffeq:rk4", "steps": 200},
    ):
        t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64, requires_grad=True)
        x = solve(lambda t, x: -3 * x, x0, t, **asked).x
        for k, expected in (
            (1, (6 * np.exp(-1.2), -6 * np.exp(-1.2), 0.0)),
            (2, (6 * np.exp(-3.0), 0.0, -6 * np.exp(-3.0))),
        ):
            by_t, by_x = torch.autograd.grad(x[k].sum(), (t, x0), retain_graph=True)
            np.testing.assert_allclose(by_t.numpy(), expected, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(by_x.item(), np.exp(-3 * t[k].item()), rtol=1e-6)


def test_gradient_modes_of_others_are_refused() -> None:
    for grad in ("replay", "reversible"):
        with pytest.raises(ValueError, match="torchdiffeq offers 'tape' and 'adjoint'"):
            solve(square, ONE, 0.5, solver="torchdiffeq:dopri5", grad=grad)
    hidden = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="plain function"):
        solve(lambda t, x: -hidden * x, ONE, 0.5, solver="torchdiffeq:dopri5", grad="adjoint")
    for solver in ("scipy:RK45", "torchdiffeq:scipy_solver"):
        with pytest.raises(ValueError, match=r"no gradient"):
            solve(lambda t, x: -hidden * x, ONE, 0.5, solver=solver)
        with torch.no_grad():
            assert solve(lambda t, x: -hidden * x, ONE, 0.5, solver=solver).status == "done"
    with pytest.raises(ValueError, match="torchdiffeq's adjoint is for real states"):
        solve(
            lambda t, x: 1j * x,
            torch.ones(1, dtype=torch.complex128, requires_grad=True),
            1.0,
            solver="torchdiffeq:dopri5",
            grad="adjoint",
        )


@pytest.mark.parametrize("name", SCIPY)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scipy_gives_the_numbers_of_solve_ivp(name: str, sign: float) -> None:
    x0, t = signal(), sign * TIMES
    bound = Reaction().bind(GRAPH, x0)

    def flat(s: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return (
                bound(torch.tensor(s, dtype=torch.float64), torch.from_numpy(y).view(6, 2))
                .flatten()
                .numpy()
            )

    expected = scipy.integrate.solve_ivp(
        flat, (0.0, sign * 1.5), x0.flatten().numpy(), name, t.numpy(), rtol=1e-4, atol=1e-6
    )
    traj = solve(Reaction(), x0, t, GRAPH, solver=f"scipy:{name}", grad="none")
    np.testing.assert_allclose(traj.x.reshape(4, -1).T, expected.y, rtol=1e-11, atol=1e-13)
    # scipy leaves out Jacobians by differences, and counts the interpolant at the end of DOP853.
    jacobians = expected.njev * x0.numel() if name in ("Radau", "BDF") else 0
    jacobians += name == "BDF"
    assert expected.nfev - 3 <= traj.stats.nfe <= expected.nfev + jacobians
    assert ("njev" in traj.stats.reason) == (name in ("Radau", "BDF"))


@pytest.mark.parametrize("name", SCIPY)
def test_scipy_follows_a_stiff_closed_form(name: str) -> None:
    x0 = torch.tensor([2.0], dtype=torch.float32)
    traj = solve(
        lambda t, x: -50 * (x - torch.cos(t)), x0, 1.5, solver=f"scipy:{name}", rtol=1e-5, atol=1e-7
    )
    a = 50.0
    particular = (a * a * np.cos(1.5) + a * np.sin(1.5)) / (a * a + 1)
    exact = particular + (2 - a * a / (a * a + 1)) * np.exp(-a * 1.5)
    assert traj.final.dtype == torch.float32
    assert traj.final.item() == pytest.approx(exact, rel=2e-4)


def test_batches_share_scipys_step() -> None:
    batch = Graph.union([path(2), path(3)])
    x0 = signal(5, 1)
    traj = solve(Heat(), x0, 1.0, batch, solver="scipy:DOP853", rtol=1e-9, atol=1e-11)
    exact = torch.linalg.matrix_exp(-batch.laplacian("comb").to_dense().double()) @ x0
    torch.testing.assert_close(traj.final, exact, rtol=1e-7, atol=1e-8)
    assert traj.status == ("done", "done")
    assert "one step shared" in traj.stats.reason
