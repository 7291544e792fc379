"""Steps of small states outside autograd, whose stage sums are products of one matrix."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import solve
from solvers.explicit import SMALL, ExplicitRungeKutta
from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.stepper import Accuracy
from solvers.tableaus import TABLEAUS, Tableau

F64 = torch.float64
LONG = ("dopri5", "tsit5", "dopri8")
every_long = pytest.mark.parametrize("name", LONG)


def begun(name: str, x: State, *, differentiated: bool = False) -> ExplicitRungeKutta:
    flow = Flow(lambda t, x: x, Rows(), x[0])
    accuracy = Accuracy(1e-4, 1e-6, differentiated=differentiated)
    return ExplicitRungeKutta(TABLEAUS[name]).begin(flow, Rows(), accuracy)


def by_hand(tableau: Tableau, f, h: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
    """The step as its formulas say, in numpy's double precision."""
    ks = []
    for row, c in zip(tableau.a, tableau.c, strict=True):
        ks.append(f(float(c), x + h * sum(float(w) * k for w, k in zip(row, ks, strict=False))))

    def total(weights) -> np.ndarray:
        return h * sum(float(w) * k for w, k in zip(weights, ks, strict=True))

    lost = [b - e for b, e in zip(tableau.b, tableau.b_hat, strict=True)]
    found = {"x": x + total(tableau.b), "error": total(lost)}
    return found | ({} if tableau.mid is None else {"mid": x + total(tableau.mid)})


@every_long
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (4, 3, 2)])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("own", [False, True], ids=["one h", "h per row"])
@torch.no_grad()
def test_a_step_is_what_its_formulas_say(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, own: bool
) -> None:
    x = (torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype))
    rows = shape[:1] if own else ()
    h = 0.1 + 0.2 * torch.rand(rows, dtype=F64)
    column = h.reshape(-1, *[1] * (len(shape) - 1)) if rows else h
    method = begun(name, x)

    def f(c: float, x: State) -> State:
        return torch.sin(x[1] + c), x[0] * x[1].real

    def g(c: float, x: np.ndarray) -> np.ndarray:
        return np.stack([np.sin(x[1] + c), x[0] * x[1].real])

    for _ in range(2):
        # The second step finds the numbers of the first in its memory.
        slope = f(0.0, x)
        step = method.step(f, column if own else float(h), x, slope, mid=True)
        stacked = torch.stack(x).numpy()
        want = by_hand(TABLEAUS[name], g, column.numpy(), stacked)
        for part, value in want.items():
            got = torch.stack(getattr(step, part)).numpy()
            np.testing.assert_allclose(got, value, rtol=1e-12, atol=1e-13, err_msg=part)
        x = step.x
    assert method._matrix is not None


@every_long
@torch.no_grad()
def test_fields_may_use_their_memory_again(name: str) -> None:
    x, room = (torch.randn(6, 2, dtype=F64),), torch.empty(6, 2, dtype=F64)

    def again(c: float, x: State) -> State:
        return (torch.mul(x[0], -1.5, out=room),)

    def fresh(c: float, x: np.ndarray) -> np.ndarray:
        return -1.5 * x

    step = begun(name, x).step(again, 0.3, x, (-1.5 * x[0],))
    want = by_hand(TABLEAUS[name], fresh, np.array(0.3), x[0].numpy())
    np.testing.assert_allclose(step.x[0].numpy(), want["x"], rtol=1e-13)


@every_long
@torch.no_grad()
def test_states_stay_what_the_field_saw(name: str) -> None:
    x, seen = (torch.randn(3, dtype=F64),), []

    def itself(c: float, x: State) -> State:
        seen.append((x[0], x[0].clone()))
        return x

    method = begun(name, x)
    first = method.step(itself, 0.3, x, x)
    new = first.x[0].clone()
    method.step(itself, 0.3, first.x, first.x)
    assert torch.equal(first.x[0], new)
    assert all(torch.equal(state, copy) for state, copy in seen)


@pytest.mark.parametrize("name", ["heun", "rk4", "bosh3", *LONG])
@torch.no_grad()
def test_steps_for_gradients_and_of_large_states_are_sums_term_by_term(name: str) -> None:
    plain = ExplicitRungeKutta(TABLEAUS[name])

    def f(c: float, x: State) -> State:
        return (torch.tanh(x[0].flip(0)),)

    for entries, differentiated in ((40, True), (SMALL + 1, False)):
        x = (torch.randn(entries, dtype=F64),)
        step = begun(name, x, differentiated=differentiated).step(f, 0.2, x, f(0.0, x))
        assert torch.equal(step.x[0], plain.step(f, 0.2, x, f(0.0, x)).x[0])


@every_long
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_both_ways_of_summing_take_the_same_steps(name: str, dtype: torch.dtype) -> None:
    x, weight = torch.randn(20, 3, dtype=dtype), torch.ones((), dtype=dtype, requires_grad=True)
    t = [0.0, 0.7, 3.0]

    def field(t: Tensor, x: Tensor) -> Tensor:
        return weight * torch.tanh(2 * x.roll(1, 0)) - x

    summed = solve(field, x, t, solver=name, grad="tape")
    with torch.no_grad():
        multiplied = solve(field, x, t, solver=name)
    # In single precision rounding is part of the estimated error, most of all of order 8.
    if dtype is F64:
        assert multiplied.stats.nfe == summed.stats.nfe
        assert multiplied.stats.accepted == summed.stats.accepted
    close = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(multiplied.x, summed.x, rtol=close, atol=close)
