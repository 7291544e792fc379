"""torchdiffeq's functions on our solvers."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from neuralpde.catalogue import ring
from neuralpde.fields import Heat
from neuralpde.odeint import odeint, odeint_adjoint
from solvers.failure import SolveFailed

ROOT = Path(__file__).resolve().parent.parent
TIMES = torch.linspace(1.0, 2.0, 5, dtype=torch.float64)
OWN = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
THEIRS = ("fehlberg2", "heun3", "scipy_solver", "explicit_adams", "implicit_adams", "fixed_adams")


class Constant(nn.Module):
    """dy/dt = a + (y - (a t + b))^5: torchdiffeq's first test problem, y = a t + b."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.a + (y - (self.a * t + self.b)) ** 5

    def exact(self, t: Tensor) -> Tensor:
        return (self.a * t + self.b)[:, None]


class Sine(nn.Module):
    """dy/dt = 2 y / t + t^4 sin 2t - t^2 + 4 t^3: torchdiffeq's second."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return 2 * y / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3

    def exact(self, t: Tensor) -> Tensor:
        y = -0.5 * t**4 * torch.cos(2 * t) + 0.5 * t**3 * torch.sin(2 * t)
        y = y + 0.25 * t**2 * torch.cos(2 * t) - t**3 + 2 * t**4
        return (y + (math.pi - 0.25) * t**2)[:, None]


class Linear(nn.Module):
    """dy/dt = A y, A antisymmetric but for its diagonal: torchdiffeq's third."""

    def __init__(self) -> None:
        super().__init__()
        U = torch.tensor([[0.1, 0.4, -0.3], [0.2, 0.0, 0.5], [-0.6, 0.1, 0.3]], dtype=torch.float64)
        self.A = nn.Parameter(2 * U - (U + U.T))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ self.A.to(y.dtype).T

    def exact(self, t: Tensor) -> Tensor:
        ones = torch.ones(3, dtype=torch.float64)
        return torch.stack([torch.linalg.matrix_exp(self.A * s) @ ones for s in t])


PROBLEMS = (Constant, Sine, Linear)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", OWN)
@pytest.mark.parametrize("backward", [False, True])
def test_torchdiffeqs_test_problems_are_solved(
    problem: type[nn.Module], method: str, backward: bool
) -> None:
    f, t = problem(), TIMES.flip(0) if backward else TIMES
    tolerances = {"rtol": 1e-6, "atol": 1e-8}
    exact = f.exact(t).detach()
    with torch.no_grad():
        y = odeint(f, exact[0], t, method=method, **tolerances)
        theirs = torchdiffeq.odeint(f, exact[0], t, method=method, **tolerances)
    torch.testing.assert_close(y, exact, rtol=1e-5, atol=1e-5)
    ours, rounding = (y - exact).abs().max(), 1e-13
    assert ours <= (theirs - exact).abs().max() + rounding


@pytest.mark.parametrize("problem", PROBLEMS)
def test_single_precision_is_as_accurate_as_it_can_be(problem: type[nn.Module]) -> None:
    f = problem()
    exact = f.exact(TIMES).detach().float()
    with torch.no_grad():
        y = odeint(f.float(), exact[0], TIMES.float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, exact, rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2"])
@pytest.mark.parametrize("options", [None, {"step_size": 0.05}])
@pytest.mark.parametrize("backward", [False, True])
def test_fixed_methods_take_torchdiffeqs_steps(
    method: str, options: dict | None, backward: bool
) -> None:
    f, t = Linear(), TIMES.flip(0) if backward else TIMES
    y0 = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    ours = odeint(f, y0, t, method=method, options=options)
    theirs = torchdiffeq.odeint(f, y0, t, method=method, options=options)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_rk4_is_the_classical_rule() -> None:
    y0, t = torch.tensor([1.0]).double(), torch.tensor([0.0, 0.5]).double()

    def f(t: Tensor, y: Tensor) -> Tensor:
        return t * y * y

    h, y = 0.5, 1.0
    k1, k2 = 0.0, 0.25 * y * y
    k3 = 0.25 * (y + h / 2 * k2) ** 2
    k4 = 0.5 * (y + h * k3) ** 2
    expected = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    assert odeint(f, y0, t, method="rk4")[-1].item() == pytest.approx(expected, rel=1e-15)


def test_a_constructed_grid_is_followed() -> None:
    times: list[float] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        times.append(float(t))
        return -y

    grid = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)
    options = {"grid_constructor": lambda f, y, t: grid}
    odeint(f, torch.ones(1).double(), grid[[0, -1]], method="euler", options=options)
    np.testing.assert_allclose(times, [0.0, 0.1, 0.4], rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="must begin and end as t does"):
        odeint(f, torch.ones(1), torch.tensor([0.0, 2.0]), method="euler", options=options)


@pytest.mark.parametrize("method", THEIRS)
def test_every_other_method_runs_by_its_name(method: str) -> None:
    f, t = Linear(), torch.linspace(0, 1, 41, dtype=torch.float64)
    y0 = torch.ones(3, dtype=torch.float64)
    with torch.no_grad():
        y = odeint(f, y0, t, method=method, rtol=1e-6, atol=1e-8)
        exact = torch.linalg.matrix_exp(f.A) @ y0
    torch.testing.assert_close(y[-1], exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
def test_tuples_go_in_and_come_out(interface: object) -> None:
    class Turn(nn.Module):
        def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return y[1], -y[0]

    start = (torch.ones(2, 1).double(), torch.zeros(2, 1).double())
    y = interface(Turn(), start, TIMES - 1)
    assert isinstance(y, tuple)
    for part, exact in zip(y, (torch.cos(TIMES - 1), -torch.sin(TIMES - 1)), strict=True):
        torch.testing.assert_close(
            part, exact.view(-1, 1, 1).expand(-1, 2, 1), rtol=1e-6, atol=1e-6
        )
    alone = interface(Turn(), start, TIMES[:1])
    assert [part.shape for part in alone] == [(1, 2, 1), (1, 2, 1)]


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "rk4"])
def test_gradients_of_start_times_and_parameters_pass_gradcheck(
    interface: object, method: str
) -> None:
    f = Linear()
    grid = {"options": {"step_size": 0.02}} if method == "rk4" else {"rtol": 1e-10, "atol": 1e-12}

    def solution(y0: Tensor, t: Tensor, A: Tensor) -> Tensor:
        def func(t: Tensor, y: Tensor) -> Tensor:
            return torch.sin(t) * (y @ A.T)

        extra = {"adjoint_params": (A,)} if interface is odeint_adjoint else {}
        return interface(func, y0, t, method=method, **grid, **extra)

    y0 = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.2, 0.7, 1.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        solution, (y0, t, f.A.detach().requires_grad_()), eps=1e-5, atol=1e-4, rtol=1e-4
    )


def test_replayed_gradients_are_those_of_the_tape() -> None:
    found = []
    for interface in (odeint, odeint_adjoint):
        f = Constant()
        y0 = torch.tensor([3.1], dtype=torch.float64, requires_grad=True)
        (interface(f, y0, TIMES) ** 2).sum().backward()
        found.append((y0.grad, f.a.grad, f.b.grad))
    for taped, replayed in zip(*found, strict=True):
        torch.testing.assert_close(replayed, taped, rtol=1e-12, atol=1e-13)


def test_a_bound_fields_leaves_receive_gradients() -> None:
    graph, rate = ring(5), nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    x0 = torch.randn(5, 1, dtype=torch.float64)
    t = torch.tensor([0.0, 0.8], dtype=torch.float64)
    bound = Heat(rate=rate).bind(graph, x0)
    odeint_adjoint(bound, x0, t)[-1].square().sum().backward()
    L = graph.laplacian("comb").to_dense().double()
    final = torch.linalg.matrix_exp(-0.56 * L) @ x0
    expected = (2 * final * (-0.8 * L @ final)).sum()
    torch.testing.assert_close(rate.grad, expected, rtol=1e-5, atol=1e-7)


def test_odeint_differentiates_tensors_that_nobody_declared() -> None:
    hidden = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    class Closure(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -hidden * y

    t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    for method in ("dopri5", "fehlberg2"):
        y = odeint(Closure(), torch.ones(1).double(), t, method=method)
        (grad,) = torch.autograd.grad(y[-1].sum(), hidden)
        assert grad.item() == pytest.approx(-2 * math.exp(-1), rel=1e-4)


def test_a_breakdown_says_where() -> None:
    t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    with pytest.raises(SolveFailed, match=r"t=1\b.*blows up"):
        odeint(lambda t, y: y * y, torch.ones(1).double(), t)
    with pytest.raises(SolveFailed, match="all 3 steps are used"):
        odeint(lambda t, y: -y, torch.ones(1).double(), t, options={"max_num_steps": 3})


ARGUMENTS = [
    ({"method": "dopri6"}, r"unknown method 'dopri6'; did you mean 'dopri"),
    ({"options": {"max_num_step": 3}}, r"did you mean 'max_num_steps'\? supported are max_num_st"),
    ({"method": "rk4", "options": {"stepsize": 1}}, r"did you mean 'step_size'"),
    ({"options": {"norm": torch.linalg.norm}}, r"unknown option 'norm' for method 'dopri5'"),
    ({"options": {"step_size": 0.1}}, r"supported are max_num_steps"),
    ({"method": "rk4", "options": {"step_size": -0.1}}, r"give a positive number"),
    ({"rtol": (1e-3, 1e-4)}, r"rtol has several entries"),
    ({"t": torch.zeros(2, 2)}, r"give times \[T\]"),
]


@pytest.mark.parametrize(("asked", "text"), ARGUMENTS)
def test_arguments_without_effect_are_refused(asked: dict, text: str) -> None:
    given = {"t": torch.tensor([0.0, 1.0]), **asked}
    with pytest.raises(ValueError, match=text):
        odeint(lambda t, y: -y, torch.ones(1), **given)


def test_arguments_of_an_adjoint_equation_are_refused() -> None:
    t = torch.tensor([0.0, 1.0])
    for name, value in (
        ("adjoint_rtol", 1e-3),
        ("adjoint_atol", 1e-3),
        ("adjoint_method", "rk4"),
        ("adjoint_options", {"norm": "seminorm"}),
    ):
        with pytest.raises(ValueError, match=f"{name} would control the solve of an adjoint"):
            odeint_adjoint(nn.Identity(), torch.ones(1), t, **{name: value})
    with pytest.raises(ValueError, match="give adjoint_params"):
        odeint_adjoint(lambda t, y: -y, torch.ones(1), t)
    with pytest.raises(ValueError, match="replays the steps of our own solvers"):
        odeint_adjoint(Sine(), torch.ones(1), t + 1, method="heun3")

    class Called(Sine):
        def callback_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
            """Never called."""

    with pytest.raises(ValueError, match="callback_step, which would never be called"):
        odeint(Called(), torch.ones(1), t + 1)


def test_importing_odeint_does_not_load_torchdiffeq() -> None:
    code = "import sys, neuralpde.odeint, neuralpde.peers; print('torchdiffeq' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
