"""What every field of the registry must keep, whatever its equation."""

import copy
from pathlib import Path

import pytest
import torch
from strategies import quietly
from torch import Tensor

from neuralpde import catalogue, fields, solve
from neuralpde.fields.field import Field, State
from neuralpde.fields.registry import FIELDS, first_state
from neuralpde.graph import Graph
from neuralpde.testing import check_field

DOUBLE = torch.float64
PAGE = Path(__file__).resolve().parent.parent / "docs" / "fields.md"

WHY_NO_OPERATOR = {
    "grand-nonlinear": "attention follows the state",
    "transformer": "attention follows the state",
    "varying": "it changes in time",
    "wavelets": "nonlinear between two filters",
    "sheaf-nonlinear": "maps follow the state, and what they make passes an activation",
    "wave": "of second order: its linear force is `stiffness`",
    "graphcon": "of second order, and its force has an activation",
    "kuramoto": "phases pull by their sines",
    "g2": "what gates a state follows it: tau(x) A x is not linear",
    "langevin": "its drift is the gradient of any energy",
    "adgn": "an activation around all of it",
}
"""The fields that show solvers no A x, and why they cannot."""

names = pytest.mark.parametrize("name", FIELDS)


def made(name: str, channels: int = 2) -> Field:
    torch.manual_seed(1)
    entry = FIELDS[name]
    return entry.make(entry.channels or channels).double().eval()


def parts(x: State) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def start(field: Field, name: str, graph: Graph, channels: int = 2) -> State:
    generator = torch.Generator().manual_seed(2)
    shape = graph.num_nodes, FIELDS[name].channels or channels
    return first_state(field, graph, torch.rand(shape, dtype=DOUBLE, generator=generator))


def tangled() -> Graph:
    """Six nodes: weighted edges both ways, one listed twice, a loop, and an isolated node."""
    ways = torch.tensor([[0, 0, 1, 2, 3, 0], [1, 1, 2, 3, 0, 2]])
    loop = torch.tensor([[4], [4]])
    weight = torch.tensor([0.5, 0.25, 1.0, 2.0, 1.0, 0.5])
    edges = torch.cat([ways, ways.flip(0), loop], 1)
    return quietly(edges, 6, torch.cat([weight, weight, torch.ones(1)]).double())


@names
def test_a_field_keeps_the_contract(name: str) -> None:
    entry = FIELDS[name]
    field = made(name)
    check_field(field, tangled(), start(field, name, tangled()), smooth=entry.smooth)


@names
def test_a_copy_and_a_reloaded_state_dict_are_the_same_field(name: str) -> None:
    graph, field = catalogue.ring(5), made(name)
    x0, t = start(field, name, graph), torch.tensor(0.2, dtype=DOUBLE)
    expected = parts(field.bind(graph, x0)(t, x0))
    reloaded = FIELDS[name].make(FIELDS[name].channels or 2).double().eval()
    reloaded.load_state_dict(field.state_dict())
    for twin in (copy.deepcopy(field), reloaded):
        for got, wanted in zip(parts(twin.bind(graph, x0)(t, x0)), expected, strict=True):
            assert torch.equal(got, wanted)


@names
def test_weights_listed_twice_are_one_weight(name: str) -> None:
    once = catalogue.path(4)
    halves = torch.full((2 * once.edge_index.shape[1],), 0.5, dtype=DOUBLE)
    twice = Graph(once.edge_index.repeat(1, 2), 4, halves)
    field, t = made(name), torch.tensor(0.2, dtype=DOUBLE)
    x0 = start(field, name, once)
    slopes = [parts(field.bind(graph, x0)(t, x0)) for graph in (once, twice)]
    for one, two in zip(*slopes, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


def test_every_field_says_why_it_shows_no_operator() -> None:
    graph, hidden = catalogue.ring(5), set()
    for name in FIELDS:
        field = made(name)
        if field.bind(graph, start(field, name, graph)).operator is None:
            hidden.add(name)
    assert hidden == set(WHY_NO_OPERATOR)


@names
def test_the_example_solves_in_single_precision(name: str) -> None:
    entry, graph = FIELDS[name], catalogue.grid(4, 4)
    field = made(name).float()
    single = tuple(
        part.to(torch.complex64 if part.is_complex() else torch.float32)
        for part in parts(start(field, name, graph))
    )
    state = single if field.order == 2 else single[0]
    with torch.no_grad():
        steps = None if entry.steps is None else 20
        traj = solve(field, state, 0.05 * entry.end, graph, steps=steps)
    assert all(bool(part.isfinite().all()) for part in parts(traj.final))
    assert traj.succeeded


def test_names_lead_to_the_face() -> None:
    assert {entry.name for entry in FIELDS.values()} <= set(fields.__all__)


def test_the_page_lists_every_field() -> None:
    rows = [
        line.split(" | ")[0] for line in PAGE.read_text().splitlines() if line.startswith("| `")
    ]
    assert rows == [f"| `{name}`" for name in FIELDS]
