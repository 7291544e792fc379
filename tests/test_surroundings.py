"""Solves do not depend on what surrounds them, nor on what becomes of their first state."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, fields, solve
from neuralpde.fields import Field
from neuralpde.precision import own_precision

FIELDS: dict[str, Callable[[], Field]] = {
    "heat": lambda: fields.Heat("sym"),
    "attention": lambda: fields.GRAND(16, variant="nonlinear"),
    "frozen attention": lambda: fields.GRAND(16, variant="linear"),
}


@pytest.fixture
def graph() -> Graph:
    return catalogue.grid(9, 12)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(108, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FIELDS)
def test_autocast_changes_nothing(name: str, graph: Graph, x: Tensor) -> None:
    torch.manual_seed(0)
    field = FIELDS[name]()
    grads, runs = [], []
    for on in (False, True):
        start = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            runs.append(solve(field, start, 2.0, graph))
            assert runs[-1].energy is not None
            assert torch.is_autocast_enabled("cpu") is on
        grads += torch.autograd.grad(runs[-1].final.square().sum(), start)
    assert torch.equal(runs[0].final, runs[1].final)
    assert torch.equal(runs[0].energy.y, runs[1].energy.y)
    assert torch.equal(*grads)


def test_autocast_is_turned_off_for_tuples_and_left_alone_elsewhere() -> None:
    a = torch.ones(1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        with own_precision((a, a)):
            assert (a @ a).dtype is torch.float32
        with own_precision(torch.ones(1, device="meta")), own_precision(()), own_precision(3):
            pass
        assert (a @ a).dtype is torch.bfloat16


def test_a_field_may_turn_autocast_on(graph: Graph, x: Tensor) -> None:
    seen = []

    def f(t: Tensor, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            seen.append((x @ x.T).dtype)
        return -x

    with torch.autocast("cpu", torch.bfloat16):
        assert solve(f, x, 1.0, graph).final.dtype is torch.float32
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        *((name, solver) for name in FIELDS for solver in ("auto", "rkl2")),
        *(("heat", solver) for solver in ("dopri5", "implicit_euler", "lanczos")),
    ],
)
def test_the_default_device_is_not_that_of_a_solve(
    name: str, solver: str, graph: Graph, x: Tensor
) -> None:
    torch.manual_seed(0)
    field, start = FIELDS[name](), x.clone().requires_grad_()
    wanted = solve(field, start, 2.0, graph, solver=solver)
    # Whatever forgets the device of the state now lands where there are no numbers.
    with torch.device("meta"):
        again = Graph(graph.edge_index)
        found = solve(field, start, 2.0, again, solver=solver)
        (grad,) = torch.autograd.grad(found.final.square().sum(), start)
        energy, rate = found.energy, found.energy.rate()
        assert str(found)
    assert torch.equal(found.final, wanted.final)
    assert torch.equal(energy.y, wanted.energy.y)
    assert rate == pytest.approx(wanted.energy.rate(), nan_ok=True)
    assert torch.equal(grad, torch.autograd.grad(wanted.final.square().sum(), start)[0])


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_batches_stay_off_the_default_device(solver: str, graph: Graph, x: Tensor) -> None:
    pair, both = Graph.union([graph, catalogue.ring(9)]), torch.cat([x, x[:9]])
    heat = fields.Heat("rw")
    wanted = solve(heat, both, [0.0, 1.0, 2.0], pair, solver=solver)
    with torch.device("meta"):
        found = solve(heat, both, [0.0, 1.0, 2.0], pair, solver=solver)
        energy = found.energy
    assert torch.equal(found.x, wanted.x)
    assert torch.equal(energy.y, wanted.energy.y)


@pytest.mark.parametrize("save", [None, "end"])
def test_the_first_state_may_change_after_the_solve(
    save: str | None, graph: Graph, x: Tensor
) -> None:
    start = x.clone()
    run = solve(fields.Heat("sym"), start, 2.0, graph, save=save)
    wanted = solve(fields.Heat("sym"), x, 2.0, graph, save=save)
    start.zero_()
    assert torch.equal(run.x, wanted.x)
    assert torch.equal(run.energy.y, wanted.energy.y)
    assert torch.equal(run["norm"].y, wanted["norm"].y)
    assert torch.equal(run.at(1.0), wanted.at(1.0))


def test_what_is_read_late_notices_that_states_have_changed(graph: Graph, x: Tensor) -> None:
    run = solve(fields.Heat("sym"), x, 2.0, graph)
    run.final.zero_()
    for ask in (lambda: run.energy, lambda: run["norm"], lambda: run.at(1.0)):
        with pytest.raises(RuntimeError, match="changed in place after the solve"):
            ask()
    run = solve(fields.Heat("sym"), x, 2.0, graph)
    known = run.energy.y.clone()
    run.final.zero_()
    assert torch.equal(run.energy.y, known)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap, torch.func.jacfwd])
def test_transforms_are_refused_in_words(
    transform: Callable[..., Callable[[Tensor], Tensor]], graph: Graph, x: Tensor
) -> None:
    def end(x: Tensor) -> Tensor:
        return solve(fields.Heat("sym"), x, 2.0, graph).final.square().sum()

    with pytest.raises(TypeError, match=r"x0 comes from a transform.*torch\.autograd\.grad"):
        transform(end)(x)
