"""How implicit solves fail, and fields that offer fewer derivatives."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuralpde import SolveFailed, solve

F64 = torch.float64
every = pytest.mark.parametrize("solver", ["trbdf2", "implicit_euler", "crank_nicolson"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@every
def test_newton_that_fails_on_a_grid_says_so(solver: str) -> None:
    x0 = torch.tensor([1.0], dtype=F64)
    with torch.no_grad(), pytest.raises(SolveFailed) as caught:
        solve(lambda t, x: 5 * x**2 + 1, x0, 4.0, solver=solver, steps=4)
    assert caught.value.trajectory.status == "newton_failed"
    text = str(caught.value)
    for part in (
        "Newton's iteration did not converge (contraction",
        "in a step of 1",
        "more steps",
    ):
        assert part in text
    assert "t=0 of 4" in text


def test_a_singular_system_says_so() -> None:
    x0 = torch.tensor([1.0, 2.0], dtype=F64)
    with torch.no_grad(), pytest.raises(SolveFailed, match=r"linear system of a stage.*more steps"):
        solve(lambda t, x: 4.0 * x, x0, 1.0, solver="implicit_euler", steps=4)


class OnceOnly(torch.autograd.Function):
    """-x^3, which torch differentiates once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return -(x**3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -3 * x**2 * g


def test_fields_that_cannot_be_differentiated_twice_are_solved_and_named() -> None:
    weights = normal(120, 120) / 120**0.5

    def field(t: Tensor, x: Tensor) -> Tensor:
        return 5 * OnceOnly.apply(x) + weights @ x - 2 * x

    x0 = normal(120, 1)
    with torch.no_grad():
        traj = solve(field, x0, 3.0, solver="trbdf2", rtol=1e-5)
        other = solve(field, x0, 3.0, solver="dopri5", rtol=1e-8)
    assert "differences of the field" in traj.stats.reason
    torch.testing.assert_close(traj.final, other.final, rtol=1e-3, atol=1e-5)
