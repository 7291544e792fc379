"""Implicit methods damp what grows fast, and would miss it: their steps have to be held back."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neuralpde import catalogue, solve
from neuralpde.fields import Heat, Reaction
from solvers.elimination import Elimination
from solvers.groups import Groups
from solvers.jacobian import Recorded
from solvers.krylov import gmres
from solvers.newton import Equations, Newton
from solvers.problems import VDP

F64 = torch.float64
LOOSE = {"solver": "trbdf2", "rtol": 1e-3, "atol": 1e-3, "grad": "none"}


def logistic(t: Tensor, x: Tensor) -> Tensor:
    """From 1e-6 next to the unstable state 0 it gets to the stable one, 1, in 0.02."""
    return 1000 * (x - x**3)


def drifting(t: Tensor, x: Tensor) -> Tensor:
    return logistic(t, x) + 0.1 * (x.roll(1, 0) - x)


@pytest.mark.parametrize("field", [logistic, drifting], ids=["by CG after a test", "by GMRES"])
@pytest.mark.parametrize("size", [1, 3, 150])
def test_a_jump_away_from_an_unstable_state_is_not_missed(
    field: Callable[[Tensor, Tensor], Tensor], size: int
) -> None:
    x0 = torch.full((size, 1), 1e-6, dtype=F64)
    traj = solve(field, x0, 1.0, **LOOSE)
    torch.testing.assert_close(traj.final, torch.ones_like(x0), rtol=1e-3, atol=0)
    assert traj.stats.nfe < 1000


def test_it_is_not_missed_where_the_jacobian_is_known_either() -> None:
    graph, x0 = catalogue.ring(150), torch.full((150, 1), 1e-6, dtype=F64)
    traj = solve(Heat() + Reaction([0.0, 1000.0, 0.0, -1000.0]), x0, 1.0, graph, **LOOSE)
    assert "conjugate gradients" in traj.stats.reason
    torch.testing.assert_close(traj.final, torch.ones_like(x0), rtol=1e-3, atol=0)


def test_fixed_steps_are_taken_as_asked() -> None:
    # y = x + 0.1 * 1000 (y - y^3) near 0 is x / (1 - 100).
    x0 = torch.full((1,), 1e-6, dtype=F64)
    end = solve(logistic, x0, 0.1, solver="implicit_euler", steps=1, grad="none").final
    torch.testing.assert_close(end, x0 / (1 - 100), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "copies", [1, pytest.param(60, marks=pytest.mark.slow)], ids=["by LU", "by GMRES"]
)
def test_relaxation_oscillations_jump_at_loose_tolerances(copies: int) -> None:
    # The second component is 1e-3 on the slow branch: atol does not look at it.
    x0 = VDP.start().expand(copies, 2)
    traj = solve(VDP.f, x0, VDP.t, solver="trbdf2", rtol=1e-2, atol=1e-2, grad="none")
    error = (traj.final - VDP.answer()).norm() / VDP.answer().expand_as(x0).norm()
    assert error < 100 * 1e-2 / 2


def newton(growth: float, resolving: bool) -> Newton:
    class Growth:
        linear = True

        def value(self, c: Tensor, y: Tensor) -> Tensor:
            return growth * y

        def linearised(self, c: Tensor, y: Tensor) -> Recorded:
            return Recorded(lambda y: growth * y, y, lambda: None)

    yes = torch.tensor([True])
    equations = Equations(
        Growth(), 0.5, torch.tensor(1e6, dtype=F64), Groups(), yes, 1.0, resolving=resolving
    )
    return Newton(equations, torch.full((1, 2), torch.inf, dtype=F64), yes)


@pytest.mark.parametrize("growth", [-50.0, 1.9, 2.1, 50.0])
def test_a_stage_fails_where_a_mode_grows_past_its_step(growth: float) -> None:
    one = torch.ones(1, 1, dtype=F64)
    strict, lax = newton(growth, True), newton(growth, False)
    end = strict.solve(1.0, one, one, one)
    assert bool(strict.lost) == (growth > 2)
    torch.testing.assert_close(lax.solve(1.0, one, one, one), one / (1 - 0.5 * growth))
    assert not lax.lost
    torch.testing.assert_close(end, one if growth > 2 else one / (1 - 0.5 * growth))


@pytest.mark.parametrize("size", [2, 5, 30])
def test_eigenvalues_with_negative_real_parts_are_found(size: int) -> None:
    normal = torch.Generator().manual_seed(size)
    graph = torch.arange(40).repeat_interleave(size)
    A = torch.randn(40, size, size, dtype=F64, generator=normal) / size**0.5
    # Some are cleared by their discs, some by their eigenvalues, others are negative.
    A += torch.linspace(0, 4, 40, dtype=F64)[:, None, None] * torch.eye(size, dtype=F64)
    lu = Elimination(
        lambda v: (A @ v.reshape(40, size, 1)).reshape(-1, 1),
        torch.zeros(40 * size, 1, dtype=F64),
        Groups(graph, 40),
        torch.ones(40, dtype=torch.bool),
    )
    wanted = torch.linalg.eigvals(A).real.amin(1) < 0
    assert 2 < int(wanted.sum()) < 38
    assert lu.negative.tolist() == wanted.tolist()


def test_rounding_of_a_conserved_quantity_is_no_growth() -> None:
    # Columns sum to zero, and s J is 1e14: its eigenvalue 0 is known to 1e-2.
    J = torch.tensor([[-0.04, 1e4, 1.0], [0.04, -2e4, -1.0], [0.0, 1e4, 0.0]], dtype=F64)
    A = torch.eye(3, dtype=F64) - 1e10 * J
    lu = Elimination(lambda v: A @ v, torch.zeros(3, 1, dtype=F64), Groups(), torch.tensor([True]))
    assert not lu.negative


def seen(A: Tensor, weight: Tensor | float = 1.0) -> list[bool]:
    b = torch.ones(len(A), 1, dtype=F64)
    found = gmres(lambda v: A @ v, b, torch.tensor([1e-3]), Groups(), weight=weight)
    assert found.reached.all()
    return [bool(projection.negative()) for projection in found.seen]


def test_gmres_sees_eigenvalues_with_negative_real_parts() -> None:
    spectrum = torch.linspace(1, 4, 150, dtype=F64)
    weight = torch.logspace(0, 4, 150, dtype=F64).unsqueeze(1)
    assert not any(seen(torch.diag(spectrum)))
    # Weights do not turn the spectrum.
    assert not any(seen(torch.diag(spectrum), weight))
    spectrum[3] = -2.0
    assert any(seen(torch.diag(spectrum)))
    assert any(seen(torch.diag(spectrum), weight))
    spiral = torch.diag(torch.linspace(1, 4, 150, dtype=F64))
    spiral[:2, :2] = torch.tensor([[-1.0, 3.0], [-3.0, -1.0]], dtype=F64)
    assert any(seen(spiral))
    spiral[:2, :2] = torch.tensor([[1.0, 3.0], [-3.0, 1.0]], dtype=F64)
    assert not any(seen(spiral))
