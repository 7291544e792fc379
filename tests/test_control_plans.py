"""What a method plans for a step is there again when gradients take the step again."""

import torch
from stubs import TOL, Scripted
from torch import Tensor

from neuralpde import solve
from neuralpde.fields import Field


def test_gradients_take_the_accepted_steps_again_with_their_plans() -> None:
    class Growing(Field):
        def __init__(self) -> None:
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.rate * x

    found = []
    for grad in ("tape", "replay"):
        stub, growing = Scripted(0.5, 4.0, 0.5, 1e3, 0.3), Growing()
        traj = solve(
            growing, torch.ones(2).double(), 2.0, solver=stub, rtol=1e-12, atol=TOL, grad=grad
        )
        tried, passed = len(stub.log.plans), [row[0] for row in stub.log.judged]
        assert stub.log.plans == list(range(tried))
        found.append(torch.autograd.grad(traj.final.sum(), growing.rate)[0])
        again = stub.log.plans[tried:]
        if grad == "tape":
            assert again == []
        else:
            # Stretch by stretch from the last to the first, each forward; nothing rejected.
            assert sorted(again) == [k for k in range(tried) if passed[k]]
            assert stub.log.asked.count("plan") == tried
    assert passed.count(False) == 2
    torch.testing.assert_close(*found, rtol=1e-13, atol=0)
