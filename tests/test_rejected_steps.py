"""What a rejected step must not leave behind."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Field


@pytest.mark.parametrize(
    "options", [{"solver": "dopri5", "rtol": 1e-2}, {"solver": "heun", "steps": 6}]
)
@pytest.mark.parametrize("own_steps", [True, False])
def test_what_overflows_in_a_rejected_step_spoils_no_gradient(
    options: dict[str, Any], own_steps: bool
) -> None:
    class Torricelli(Field):
        """x' = -k sqrt(x): sqrt(x(t)) = sqrt(x0) - k t / 2, and nan below zero."""

        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor(1.0).double())
            self.batched_time = own_steps

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -self.k * torch.sqrt(x)

    batch, found, end = Graph.union([catalogue.path(1)] * 2), [], 1.98
    x0 = torch.tensor([[100.0], [1.0]], dtype=torch.float64, requires_grad=True)
    for grad in ("tape", "replay"):
        field = Torricelli()
        traj = solve(field, x0, end, batch, grad=grad, raise_on_failure=False, **options)
        assert traj.status[0] == "done"
        found.append(torch.autograd.grad(traj.final.sum(), (x0, field.k), retain_graph=True))
        (rate,) = torch.autograd.grad(traj.final[0].sum(), field.k)
        assert float(rate) == pytest.approx(-end * (10 - end / 2), rel=1e-3)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("own_steps", [True, False])
@pytest.mark.parametrize("solver", ["euler", "rk4", "heun"])
def test_a_graph_that_has_failed_spoils_no_gradient_of_the_others(
    solver: str, own_steps: bool
) -> None:
    class Runaway(Field):
        """x' = a x^2 sqrt(8 - x), and nan above 8: a step lands there, and the next one fails."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(0.1).double())
            self.batched_time = own_steps

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.a * x**2 * torch.sqrt(8 - x)

    how: dict[str, Any] = {"solver": solver, "steps": 6, "raise_on_failure": False}
    batch, x0 = Graph.union([catalogue.path(1)] * 2), torch.tensor([[0.1], [5.0]]).double()
    alone = Runaway()
    end = solve(alone, x0[:1], 3.0, catalogue.path(1), **how).final
    (wanted,) = torch.autograd.grad(end.sum(), alone.a)
    for grad in ("tape", "replay"):
        field, start = Runaway(), x0.clone().requires_grad_()
        traj = solve(field, start, 3.0, batch, grad=grad, **how)
        assert traj.status == ("done", "not_finite")
        assert traj.final.isfinite().all()
        found, back = torch.autograd.grad(traj.final[0].sum(), (field.a, start))
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
        assert back[0].isfinite().all()
        assert back[1].tolist() == [0.0]
