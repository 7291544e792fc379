"""Every way to a gradient gives the same one, on every field and every method that offers it.

Recorded (the tape), replayed, reversible and implicit gradients of one grid agree to 1e-9, and with
differences of the discrete solution; torchdiffeq's adjoint, which differentiates the equation and
not the steps, stands beside them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from kinds import registered
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.catalogue.problems import Forcing
from neuralpde.fields import (
    GRAND,
    BundleDiffusion,
    Coupling,
    Diffusion,
    Field,
    Heat,
    Layers,
    Noise,
    Pinned,
    Reaction,
    SheafDiffusion,
    Source,
    Wave,
    allen_cahn,
    fisher,
)
from neuralpde.fields.registry import FIELDS as REGISTRY
from neuralpde.fields.registry import Entry
from neuralpde.operators import Attention, SparseOperator
from solvers import methods

F64 = torch.float64
GRAPH = catalogue.barbell(3, 1)
NODES, STEPS, END = 7, 4, 0.6


def number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=F64))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


class Convolution(nn.Module):
    """D^-1 W x K with a learned K."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(0.7 * normal(2, 2, seed=3))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        sender, receiver = edge_index
        total = torch.zeros_like(x).index_add(0, receiver, edge_weight[:, None] * x[sender])
        degree = x.new_zeros(len(x)).index_add(0, receiver, edge_weight)
        return (total / degree[:, None]) @ self.kernel


class Attending(nn.Module):
    """Minus the Laplacian of attention along the edges, from the first state."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(2, 4).double()

    def forward(self, graph: Graph, x0: Tensor) -> Any:
        return self.attention(graph.pattern, x0, weights=graph.weight).shifted(1.0, -1.0)


class Edges(nn.Module):
    """A symmetric matrix with a learned number on every edge, minus 2."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(0.3 * normal(8, seed=4))

    def forward(self, graph: Graph, x0: Tensor) -> Any:
        ends = torch.stack([graph.pattern.row, graph.pattern.col.long()]).sort(0).values
        edge = (ends[0] * graph.num_nodes + ends[1]).unique(return_inverse=True)[1]
        values = self.logits.exp()[edge] / 3
        return SparseOperator(graph.pattern, values, symmetric=True).shifted(1.0, -2.0)


class Spring(Field):
    """x'' = -k sin(L x) + 0.3 sin 3t - damping x'."""

    order = 2

    def __init__(self) -> None:
        super().__init__()
        self.k, self.damping = number(1.2), number(0.3)

    def prepare(self, graph: Graph, x0: Any) -> None:
        self.L = graph.laplacian("comb")

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return 0.3 * torch.sin(3 * t) - self.k * torch.sin(self.L @ x)


@dataclass(frozen=True)
class Case:
    """A field with parameters, and what it shows of itself."""

    make: Callable[[], Field]
    kinds: tuple[str, ...] = ("any",)
    pair: bool = False
    exact: bool = False


SPLIT = ("any", "split")
FIELDS = {
    "Heat": Case(lambda: Heat(rate=number(0.7)), exact=True),
    "Heat sym": Case(lambda: Heat("sym", number(0.7)), exact=True),
    "Diffusion": Case(lambda: Diffusion(Attending()), exact=True),
    "Diffusion edges": Case(lambda: Diffusion(Edges()) + Reaction.allen_cahn(number(0.5)), SPLIT),
    "Source": Case(lambda: Heat() + Source(number(0.5), of_x0=True), exact=True),
    "Reaction": Case(
        lambda: (
            Heat("rw")
            + Reaction(nn.Parameter(torch.tensor([0.1, 1.0, -0.3, -1.0], dtype=F64)), number(0.8))
            + Forcing()
        ),
        SPLIT,
    ),
    "allen_cahn": Case(lambda: allen_cahn(number(0.6), number(1.3)), SPLIT),
    "fisher": Case(lambda: fisher(number(0.6), number(0.9)), SPLIT),
    "Coupling": Case(lambda: Coupling(Convolution(), leak=number(0.8))),
    "GRAND linear": Case(lambda: GRAND(2, attention_dim=4, source=True).double(), exact=True),
    "GRAND mixed": Case(lambda: GRAND(2, attention_dim=4, variant="mixed").double(), exact=True),
    "GRAND": Case(lambda: GRAND(2, attention_dim=4, variant="nonlinear").double()),
    "SheafDiffusion linear": Case(lambda: SheafDiffusion(2, 2).double(), exact=True),
    "SheafDiffusion": Case(
        lambda: SheafDiffusion(
            2, 2, kind="general", variant="nonlinear", act=torch.tanh, rate=number(0.7)
        ).double()
    ),
    "BundleDiffusion": Case(lambda: BundleDiffusion(2, rate=number(0.8)).double(), exact=True),
    "Pinned": Case(lambda: Pinned(allen_cahn(number(0.6)), [0, 4]), SPLIT),
    "Layers": Case(lambda: Layers([allen_cahn(number(0.6)), Coupling(Convolution())])),
    "Wave": Case(lambda: Wave(number(0.9), damping=number(0.4)), ("any", "force"), pair=True),
    "Spring": Case(Spring, ("any", "force"), pair=True),
    "Noise": Case(lambda: allen_cahn(number(0.6)) + Noise(number(0.3)), ("noise",)),
}
WRITTEN = set(FIELDS)


def registered_case(entry: Entry) -> Case:
    """The example of a field, with what it shows of itself."""
    make = partial(lambda: entry.make(entry.channels or 2).double())
    if entry.steps is not None:
        return Case(make, ("noise",))
    pair = make().order == 2
    return Case(make, ("any", "force") if pair else ("any",), pair=pair)


# The complex one has a test of its own in tests/test_fields_schroedinger.py.
FIELDS |= {
    f"{entry.name} as {name}": registered_case(entry)
    for name, entry in REGISTRY.items()
    if name != "schroedinger"
}


def pairs(*kinds: str) -> list[tuple[str, str]]:
    """Methods of these kinds with the fields they can take."""
    return [
        (method, name)
        for kind in kinds
        for method in registered(kind)
        for name, case in FIELDS.items()
        if kind in case.kinds
    ]


@cache
def inputs(name: str) -> tuple[Field, tuple[Tensor, ...]]:
    """The field, and the first state and the parameters to differentiate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = FIELDS[name].make()
    stalk = () if made.stalk is None else (made.stalk,)
    x0 = 0.8 * normal(NODES, *stalk, 2).tanh()
    states = (x0, 0.5 * x0.flip(0)) if FIELDS[name].pair else (x0,)
    learned = [p for p in made.parameters() if p.requires_grad]
    return made, tuple(t.requires_grad_() for t in (*states, *learned))


def loss(name: str, **how: Any) -> Tensor:
    """A number made of all that a solve saves, which treats no entry like another."""
    made, tensors = inputs(name)
    count = 2 if FIELDS[name].pair else 1
    states = tensors[:count]
    if "noise" in FIELDS[name].kinds:
        how["generator"] = torch.Generator().manual_seed(3)
    times = torch.tensor([0.0, 0.4, 1.0], dtype=F64) * END
    traj = solve(made, states if FIELDS[name].pair else states[0], times, GRAPH, **how)
    parts = traj.x if isinstance(traj.x, tuple) else (traj.x,)
    flat = torch.cat([part.flatten() for part in parts])
    total: Tensor = (torch.cos(torch.arange(len(flat), dtype=F64)) * flat.sin()).sum()
    return total


def gradient(name: str, **how: Any) -> Tensor:
    """All gradients in one vector."""
    tensors = inputs(name)[1]
    found = torch.autograd.grad(loss(name, **how), tensors, allow_unused=True)
    assert sum(g is not None for g in found) >= len(tensors) - 1
    return torch.cat(
        [
            (torch.zeros_like(x) if g is None else g).flatten()
            for x, g in zip(tensors, found, strict=True)
        ]
    )


def by_differences(name: str, direction: Tensor, **how: Any) -> float:
    """The derivative of the loss along a direction, to order 4."""
    tensors = inputs(name)[1]
    start = [x.detach().clone() for x in tensors]
    pieces = direction.split([x.numel() for x in tensors])
    values = []
    with torch.no_grad():
        for k in (-2, -1, 1, 2):
            for x, first, piece in zip(tensors, start, pieces, strict=True):
                x.copy_(first + k * 1e-3 * piece.view_as(x))
            values.append(float(loss(name, **how)))
        for x, first in zip(tensors, start, strict=True):
            x.copy_(first)
    a, b, c, d = values
    return (a - 8 * b + 8 * c - d) / 12e-3


def assert_same(one: Tensor, other: Tensor, rtol: float = 1e-9) -> None:
    assert one.abs().max() > 1e-2
    torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(one.abs().max()))


# Each method on some fields, each field by some methods; the rest is slow.
CORE_METHODS = ("tsit5", "rkl2", "trbdf2")
CORE_FIELDS = ("Reaction", "Wave", "Spring", "Noise")


def core(method: str, name: str) -> bool:
    """Whether a pair is tried each time; examples of the registry by one method each."""
    if name in WRITTEN:
        return method in CORE_METHODS or name in CORE_FIELDS
    return method in ("tsit5", "leapfrog", "stochastic_heun")


def table(found: list[tuple[str, str]], core: Callable[[str, str], bool]) -> Any:
    marks = {True: (), False: (pytest.mark.slow,)}
    params = [pytest.param(*pair, marks=marks[core(*pair)]) for pair in found]
    return pytest.mark.parametrize(("method", "name"), params)


def test_every_field_stands_in_the_table() -> None:
    listed = {word for name in FIELDS for word in name.split()}
    assert {entry.name for entry in REGISTRY.values()} - {"Schroedinger"} <= listed


@table(
    pairs("any", "split", "force", "noise"),
    core,
)
def test_replayed_gradients_are_the_recorded_ones(method: str, name: str) -> None:
    how = {"solver": method, "steps": STEPS}
    taped = gradient(name, **how, grad="tape")
    assert_same(taped, gradient(name, **how, grad="replay"))
    direction = normal(len(taped), seed=7)
    direction = direction / direction.norm()
    found = by_differences(name, direction, **how)
    # Stages of implicit methods are exact to 1e-10.
    assert float(direction @ taped) == pytest.approx(found, rel=2e-6, abs=1e-7)


@table(
    [pair for pair in pairs("any", "split") if methods.stepper(pair[0]).adaptive],
    lambda method, name: name == "Reaction",
)
def test_replayed_gradients_are_the_recorded_ones_with_steps_of_their_own(
    method: str, name: str
) -> None:
    how = {"solver": method, "rtol": 1e-3}
    assert_same(gradient(name, **how, grad="tape"), gradient(name, **how, grad="replay"))


@pytest.mark.parametrize(
    ("method", "name"),
    [pair for pair in pairs("force") if methods.stepper(pair[0]).reversible],
)
def test_reversible_gradients_are_the_recorded_ones(method: str, name: str) -> None:
    how = {"solver": method, "steps": 40}
    assert_same(gradient(name, **how, grad="tape"), gradient(name, **how, grad="reversible"))


@pytest.mark.parametrize("name", [name for name, case in FIELDS.items() if case.exact])
def test_reversible_gradients_of_exact_solves_are_the_recorded_ones(name: str) -> None:
    how = {"solver": "exact", "rtol": 1e-12}
    assert_same(gradient(name, **how, grad="tape"), gradient(name, **how, grad="reversible"))


@pytest.mark.parametrize("name", [name for name in FIELDS if "any" in FIELDS[name].kinds])
def test_torchdiffeqs_adjoint_comes_near(name: str) -> None:
    # The adjoint differentiates the equation, ours the steps: they meet as steps shrink.
    taped = gradient(name, solver="tsit5", rtol=1e-9, atol=1e-11, grad="replay")
    adjoint = gradient(name, solver="torchdiffeq:dopri5", rtol=1e-9, atol=1e-11, grad="adjoint")
    assert_same(taped, adjoint, 1e-6)


def test_torchdiffeqs_adjoint_comes_with_a_caution() -> None:
    traj = solve(
        Heat(), normal(3, 1).requires_grad_(), 1.0, catalogue.path(3),
        solver="torchdiffeq:dopri5", grad="adjoint",
    )  # fmt: skip
    assert "caution: gradients of the continuous adjoint are inexact" in traj.stats.reason


def test_the_adjoint_invents_what_diffusion_has_forgotten() -> None:
    """Backwards in time heat amplifies errors by e^(lambda T): the caution is no empty one."""
    graph, end, rate = catalogue.complete(12), 2.0, number(1.0)
    start, weights = normal(12, 1), normal(12, 1, seed=1)

    def slope(**how: Any) -> float:
        final = solve(Heat(rate=rate), start, end, graph, rtol=1e-5, atol=1e-7, **how).final
        return float(torch.autograd.grad((weights * final).sum(), rate)[0])

    # On x - mean the Laplacian of the complete graph is 12.
    right = -12 * end * math.exp(-12 * end) * float((weights * (start - start.mean())).sum())
    errors = [
        abs(slope(**how) - right)
        for how in (
            {"solver": "exact", "grad": "reversible"},
            {"solver": "tsit5", "grad": "replay"},
            {"solver": "torchdiffeq:dopri5", "grad": "adjoint"},
        )
    ]
    assert errors[2] > 1e3 * abs(right)
    assert max(errors[:2]) < errors[2] / 5, errors
