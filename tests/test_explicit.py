"""Explicit Runge-Kutta steps: evaluations, memory, gradients, shapes, precision."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchdiffeq._impl.dopri5 import _DORMAND_PRINCE_SHAMPINE_TABLEAU
from torchdiffeq._impl.rk_common import _runge_kutta_step

from solvers.explicit import ExplicitRungeKutta, Step, combine
from solvers.rows import Rows, State
from solvers.tableaus import TABLEAUS

F64 = torch.float64
METHODS = {name: ExplicitRungeKutta(tableau) for name, tableau in TABLEAUS.items()}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


def growth(t: float, x: State) -> State:
    return (x[0] * math.cos(t),)


def one_step(method: ExplicitRungeKutta, h: float, x: float, *, mid: bool = False) -> Step:
    state = (torch.tensor(x, dtype=F64),)
    fx = growth(0.3, state)
    return method.step(lambda c, y: growth(0.3 + c * h, y), h, state, fx, mid=mid)


def test_a_step_of_dopri5_is_torchdiffeqs() -> None:
    x = torch.randn(5, 3, dtype=F64, generator=torch.manual_seed(1))
    t, h = torch.tensor(0.3, dtype=F64), torch.tensor(0.2, dtype=F64)

    def field(t: Tensor | float, y: Tensor, perturb: object = None) -> Tensor:
        return torch.tanh(y.roll(1, 0) * 2 - y + t)

    fx = field(0.3, x)
    new, slope, error, _ = _runge_kutta_step(
        field, x, fx, t, h, t + h, _DORMAND_PRINCE_SHAMPINE_TABLEAU
    )
    step = METHODS["dopri5"].step(lambda c, y: (field(0.3 + c * 0.2, y[0]),), 0.2, (x,), (fx,))
    assert step.error is not None
    assert step.f is not None
    torch.testing.assert_close(step.x[0], new, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(step.f[0], slope, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(step.error[0], error, rtol=1e-9, atol=1e-17)


@every_method
def test_the_field_is_evaluated_once_at_every_node_after_the_first(
    method: ExplicitRungeKutta,
) -> None:
    seen = []

    def field(c: float, x: State) -> State:
        seen.append((c, x[0].item()))
        return (torch.ones_like(x[0]),)

    x = (torch.tensor(5.0, dtype=F64),)
    step = method.step(field, 0.5, x, (torch.ones((), dtype=F64),))
    nodes = [float(c) for c in TABLEAUS[method.name].c[1:]]
    assert [c for c, _ in seen] == nodes
    assert len(seen) == method.stages - 1
    assert [at for _, at in seen] == pytest.approx([5 + 0.5 * c for c in nodes], rel=1e-14)
    assert step.x[0].item() == pytest.approx(5.5, rel=1e-14)
    assert (step.f is not None) == method.fsal == TABLEAUS[method.name].fsal


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "tsit5"])
def test_the_last_stage_is_the_field_at_the_new_point(name: str) -> None:
    step = one_step(METHODS[name], 0.5, 2.0)
    assert step.f is not None
    assert step.f[0].item() == pytest.approx(step.x[0].item() * math.cos(0.8), rel=1e-15)


@every_method
def test_only_what_was_asked_for_is_computed(method: ExplicitRungeKutta) -> None:
    x = (torch.ones(2),)
    step = method.step(lambda c, y: y, 0.1, x, x, error=False)
    assert (step.error, step.mid) == (None, None)
    step = method.step(lambda c, y: y, 0.1, x, x, mid=True)
    assert (step.error is not None) == method.adaptive
    assert (step.mid is not None) == (method.dense_order == 4)


@pytest.mark.parametrize("taped", [False, True])
@every_method
def test_steps_write_to_no_tensor_of_the_field_and_share_none(
    method: ExplicitRungeKutta, taped: bool
) -> None:
    source, x = (torch.full((3,), 2.0),), (torch.ones(3),)
    returned: list[State] = []

    def itself(c: float, y: State) -> State:
        returned.append(y)
        return y

    with torch.set_grad_enabled(taped):
        constant = method.step(lambda c, y: source, 0.1, x, source, mid=True)
        exponential = method.step(itself, 0.1, x, x, mid=True)
    assert source[0].tolist() == [2.0] * 3
    assert x[0].tolist() == [1.0] * 3
    foreign = {id(source[0]), id(x[0])} | {id(y[0]) for y in returned[: method.stages - 2]}
    pointers = {source[0].data_ptr(), x[0].data_ptr()}
    for step in (constant, exponential):
        for part in (step.x, step.error, step.mid):
            assert part is None or id(part[0]) not in foreign
            assert part is None or part[0].data_ptr() not in pointers
    torch.testing.assert_close(constant.x[0], torch.full((3,), 1.2))
    # Every stage is still what the field saw: x + c h x to first order.
    for c, y in zip(TABLEAUS[method.name].c[1:], returned, strict=True):
        assert y[0][0].item() == pytest.approx(math.exp(0.1 * float(c)), abs=6e-3)


class Passes(TorchDispatchMode):
    """Counts the operations that write something of this many entries."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries, self.count = entries, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += result.numel() == self.entries
        return result


@every_method
def test_a_step_takes_one_pass_per_coefficient(method: ExplicitRungeKutta) -> None:
    tableau, x, k = TABLEAUS[method.name], (torch.ones(4, 2),), (torch.full((4, 2), 0.5),)
    rows = list(tableau.a[1:]) + ([] if method.fsal else [tableau.b])
    wanted = sum(weight != 0 for row in rows for weight in row)
    if tableau.b_hat is not None:
        wanted += sum(b != e for b, e in zip(tableau.b, tableau.b_hat, strict=True))
    for h in (0.1, torch.full((4, 1), 0.1)):
        with torch.no_grad(), Passes(8) as passes:
            method.step(lambda c, y: k, h, x, k)
        assert passes.count == wanted


@pytest.mark.parametrize("name", ["heun", "dopri5", "dopri8"])
def test_steps_are_twice_differentiable(name: str) -> None:
    method = METHODS[name]
    generator = torch.manual_seed(0)
    x, v, w = (torch.randn(2, 2, dtype=F64, generator=generator) * 0.5 for _ in range(3))
    h = torch.tensor(0.3, dtype=F64)

    def advance(x: Tensor, v: Tensor, w: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        def field(c: float, y: State) -> State:
            return (y[1] @ w, torch.tanh(y[0]) * (1 + c * h))

        step = method.step(field, h, (x, v), field(0.0, (x, v)), mid=True)
        assert step.error is not None
        return (*step.x, *step.error, *(step.mid or ()))

    inputs = [value.requires_grad_() for value in (x, v, w, h)]
    assert torch.autograd.gradcheck(advance, inputs)
    with_rows = [*inputs[:3], torch.tensor([[0.3], [0.1]], dtype=F64, requires_grad=True)]
    assert torch.autograd.gradcheck(advance, with_rows)
    assert torch.autograd.gradgradcheck(lambda x, v, w, h: advance(x, v, w, h)[0], inputs)


def test_the_tape_changes_no_bit_of_the_result() -> None:
    x = (torch.randn(7, 3, generator=torch.manual_seed(2)),)

    def field(c: float, y: State) -> State:
        return (torch.tanh(y[0].roll(1, 0)),)

    for h in (0.1, torch.full((7, 1), 0.1)):
        with torch.no_grad():
            plain = METHODS["dopri5"].step(field, h, x, field(0.0, x))
        leaf = (x[0].clone().requires_grad_(),)
        taped = METHODS["dopri5"].step(field, h, leaf, field(0.0, leaf))
        assert plain.error is not None
        assert taped.error is not None
        assert torch.equal(plain.x[0], taped.x[0])
        assert torch.equal(plain.error[0], taped.error[0])


def test_steps_go_through_functional_transforms() -> None:
    def advance(x: Tensor) -> Tensor:
        return (
            METHODS["tsit5"]
            .step(lambda c, y: (torch.sin(y[0]) * (1 + c),), 0.2, (x,), (torch.sin(x),))
            .x[0]
        )

    xs = torch.linspace(-1, 1, 5, dtype=F64)
    alone = torch.stack([advance(x) for x in xs])
    torch.testing.assert_close(torch.func.vmap(advance)(xs), alone, rtol=1e-15, atol=0)
    _, forward = torch.func.jvp(advance, (xs,), (torch.ones_like(xs),))
    leaf = xs.clone().requires_grad_()
    (backward,) = torch.autograd.grad(advance(leaf).sum(), leaf)
    torch.testing.assert_close(forward, backward, rtol=1e-14, atol=0)


@every_method
def test_a_step_per_row_equals_separate_steps(method: ExplicitRungeKutta) -> None:
    generator = torch.manual_seed(4)
    x = (
        torch.randn(3, 2, dtype=F64, generator=generator),
        torch.randn(3, dtype=F64, generator=generator),
        torch.randn(3, 2, 2, dtype=torch.complex128, generator=generator),
    )

    def field(c: float, y: State) -> State:
        return (torch.sin(y[0]) + c, y[1] * y[0][:, 0], 1j * y[2])

    sizes = np.array([0.3, -0.1, 0.7])
    h = Rows(torch.arange(3), 3).spread(sizes, x[0])
    assert isinstance(h, Tensor)
    together = method.step(field, h, x, field(0.0, x))
    for row, size in enumerate(sizes.tolist()):
        mine = tuple(part[row : row + 1] for part in x)
        alone = method.step(field, size, mine, field(0.0, mine))
        for got, wanted in zip(together.x, alone.x, strict=True):
            torch.testing.assert_close(got[row : row + 1], wanted, rtol=1e-14, atol=1e-15)
        for got, wanted in zip(together.error or (), alone.error or (), strict=True):
            torch.testing.assert_close(got[row : row + 1], wanted, rtol=1e-12, atol=1e-15)


@every_method
def test_a_complex_rotation_is_a_real_one_in_two_parts(method: ExplicitRungeKutta) -> None:
    z = (torch.tensor([1 + 2j, -0.5j], dtype=torch.complex128),)
    pair = (z[0].real.clone(), z[0].imag.clone())
    turned = method.step(lambda c, y: (1j * y[0],), 0.4, z, (1j * z[0],))
    apart = method.step(lambda c, y: (-y[1], y[0]), 0.4, pair, (-pair[1], pair[0]))
    torch.testing.assert_close(turned.x[0], torch.complex(*apart.x), rtol=1e-14, atol=1e-16)
    if turned.error is not None and apart.error is not None:
        torch.testing.assert_close(
            turned.error[0], torch.complex(*apart.error), rtol=1e-10, atol=1e-15
        )


@every_method
def test_single_precision_rounds_the_state_once_per_step(method: ExplicitRungeKutta) -> None:
    x = (1 + torch.rand(1000, generator=torch.manual_seed(5)),)
    exact = (x[0].double(),)
    single = method.step(lambda c, y: (torch.sin(y[0]),), 1e-3, x, (torch.sin(x[0]),))
    double = method.step(lambda c, y: (torch.sin(y[0]),), 1e-3, exact, (torch.sin(exact[0]),))
    assert single.x[0].dtype == torch.float32
    half_an_ulp = torch.finfo(torch.float32).eps / 2
    assert (single.x[0].double() - double.x[0]).abs().max() < 1.02 * half_an_ulp


def test_constants_stay_constant() -> None:
    x = (torch.full((4,), 1 / 3),)
    for method in METHODS.values():
        step = method.step(lambda c, y: (torch.zeros_like(y[0]),), 0.7, x, (torch.zeros(4),))
        assert torch.equal(step.x[0], x[0])


@pytest.mark.parametrize("taped", [False, True])
def test_combine_is_its_formula_for_every_kind_of_step(taped: bool) -> None:
    generator = torch.manual_seed(6)
    x, *ks = ((torch.randn(3, 2, dtype=F64, generator=generator),) for _ in range(5))
    weights = (0.0, 1e-310, -2.0, 0.25)
    total = sum(w * k[0] for w, k in zip(weights, ks, strict=True))
    for h in (0.5, torch.tensor(0.5, dtype=F64), torch.tensor([[0.1], [-2.0], [0.0]], dtype=F64)):
        with torch.set_grad_enabled(taped):
            torch.testing.assert_close(combine(x, h, weights, ks)[0], x[0] + h * total)
            torch.testing.assert_close(combine(None, h, weights, ks)[0], h * total)
            torch.testing.assert_close(combine(x, h, (3.0,), ks[:1])[0], x[0] + 3 * h * ks[0][0])


def test_terms_of_weight_zero_are_not_touched() -> None:
    nan = (torch.tensor(math.nan),)
    one = (torch.tensor(1.0),)
    assert combine(one, 0.5, (0.0, 4.0), (nan, one))[0].item() == 3.0
