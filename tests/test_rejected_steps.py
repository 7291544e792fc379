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
