"""Sheaf diffusion against dense exponentials and formulas, with its own energy."""

import copy

import pytest
import torch
from torch import Tensor, nn

from neuralpde import catalogue
from neuralpde.fields import Heat, Reaction, SheafDiffusion, Source
from neuralpde.fields.maps import Restrictions
from neuralpde.graph import Graph
from neuralpde.operators import sheaf_laplacian
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.sheaves import F64, coboundary

KINDS = ("diagonal", "general", "householder", "cayley", "exponential")


def field_of(channels: int = 2, stalk: int = 3, **settings: object) -> SheafDiffusion:
    return SheafDiffusion(channels, stalk, **settings).double()


def state(graph: Graph, channels: int = 2, stalk: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.num_nodes, stalk, channels, generator=generator, dtype=F64)


def rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_a_linear_layer_on_both_ends(kind: str) -> None:
    graph = catalogue.barbell(3, 1)
    maps, x = Restrictions(4, 3, kind).double(), torch.randn(7, 4, dtype=F64)
    found = maps(graph, x)
    sender, receiver = graph.edge_index
    layer = nn.Linear(8, len(maps.bias)).double()
    layer.weight, layer.bias = maps.weight, maps.bias
    numbers = torch.tanh(layer(torch.cat([x[receiver], x[sender]], 1)))
    if kind == "diagonal":
        torch.testing.assert_close(found, numbers)
    elif kind == "general":
        torch.testing.assert_close(found, numbers.view(-1, 3, 3))
    else:
        eye = torch.eye(3, dtype=F64).expand_as(found)
        torch.testing.assert_close(found @ found.mT, eye, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["diagonal", "general", "householder"])
def test_fixed_components_are_those_of_the_graph(kind: str) -> None:
    graph = catalogue.barbell(3, 1)
    maps = Restrictions(4, 4, kind, low_pass=True, high_pass=True).double()
    found = maps(graph, torch.randn(7, 4, dtype=F64))
    L = sheaf_laplacian(graph, found, orthogonal=maps.orthogonal).to_dense().view(7, 4, 7, 4)
    torch.testing.assert_close(L[:, 2, :, 2], graph.laplacian(dtype=F64).to_dense())
    A = graph.adjacency(dtype=F64).to_dense()
    torch.testing.assert_close(L[:, 3, :, 3], torch.diag(A.sum(1)) + A)
    assert (L[:, :2, :, 2:] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["augmented", "comb"])
def test_linear_is_the_exponential_of_the_laplacian(kind: str, norm: str) -> None:
    graph, field = catalogue.barbell(3, 1), field_of(kind=kind, norm=norm, rate=0.5)
    x = state(graph)
    maps = field.maps(graph, x.flatten(1))
    L = sheaf_laplacian(graph, maps, norm).to_dense()
    if norm == "comb":
        P = coboundary(graph, maps.detach())
        torch.testing.assert_close(L, P.T @ P)
    traj = solve(field, x, 2.0, graph, rtol=1e-10)
    assert traj.stats.solver == "chebyshev"
    expected = torch.linalg.matrix_exp(-0.5 * 2.0 * L) @ rows(x)
    torch.testing.assert_close(rows(traj.final), expected, rtol=0, atol=1e-9)


def test_gradients_of_exact_solves_reach_the_maps() -> None:
    graph, field = catalogue.barbell(3, 1), field_of(kind="general")
    x = state(graph).requires_grad_()

    def of(solution: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(solution.square().sum(), (x, *field.maps.parameters()))

    exact = of(rows(solve(field, x, 1.5, graph, rtol=1e-10).final))
    L = sheaf_laplacian(graph, field.maps(graph, x.flatten(1)), "augmented").to_dense()
    expected = of(torch.linalg.matrix_exp(-1.5 * L) @ rows(x))
    for one, other in zip(exact, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_the_energy_is_the_sum_over_the_edges_and_falls() -> None:
    graph, field = catalogue.grid(4, 4), field_of(kind="general", norm="comb")
    x = state(graph)
    with torch.no_grad():
        traj = solve(field, x, torch.linspace(0, 2, 5), graph, rtol=1e-9)
        P = coboundary(graph, field.maps(graph, x.flatten(1)))
        L = P.T @ P
    energy = traj.energy
    assert energy.convention.startswith("sheaf, comb")
    assert len(energy.t) == 5 + 64 - 2
    for t, y in zip(energy.t, energy.y, strict=True):
        edges = P @ torch.linalg.matrix_exp(-float(t) * L) @ rows(x)
        assert float(y) == pytest.approx(float(edges.square().sum()), rel=1e-8)
    assert (energy.y.diff() < 0).all()
    stepped = solve(field, x, 2.0, graph, solver="tsit5", rtol=1e-9, atol=1e-11).energy
    assert float(stepped.y[-1]) == pytest.approx(float(energy.y[-1]), rel=1e-6)
    again = solve(field, x.float().double(), 2.0, graph)
    assert again["norm"].y[0] == pytest.approx(float(x.norm()), rel=1e-6)


def test_flat_sheaves_keep_their_sections_and_generic_ones_forget() -> None:
    """With one frame per node the limit is a section; with free rotations on cycles it is 0."""
    graph, x = catalogue.ring(5), state(catalogue.ring(5), stalk=2)
    generic = field_of(stalk=2, norm="sym")
    with torch.no_grad():
        generic.maps.weight.mul_(3.0)
        assert solve(generic, x, 4000.0, graph, rtol=1e-6).final.abs().max() < 1e-3
        tree = catalogue.tree(2)
        y = state(tree, stalk=2)
        traj = solve(field_of(stalk=2, norm="comb"), y, 400.0, tree, rtol=1e-8)
    assert traj.final.norm() > 0.1
    assert float(traj.energy.y[0]) > 1.0
    assert float(traj["norm"].y[-1]) == pytest.approx(float(traj.final.norm()), rel=1e-6)


@pytest.mark.parametrize("variant", ["frozen", "nonlinear"])
@pytest.mark.parametrize("paper", [False, True])
def test_with_weights_it_is_the_formula(variant: str, paper: bool) -> None:
    graph = catalogue.barbell(3, 1)
    field = field_of(kind="general", variant=variant, paper=paper, rate=2.0)
    with torch.no_grad():
        field.left.add_(0.3 * torch.randn(3, 3, dtype=F64))
    x, other = state(graph), state(graph, seed=1)
    bound = field.bind(graph, x)
    at = x if variant == "frozen" else other
    L = sheaf_laplacian(graph, field.maps(graph, at.flatten(1)), "augmented").to_dense()
    mixed = torch.kron(torch.eye(7, dtype=F64), field.left) @ rows(other) @ field.right
    elu = nn.functional.elu
    expected = 2.0 * (elu(-L @ mixed) if paper else -elu(L @ mixed))
    torch.testing.assert_close(rows(bound(torch.tensor(0.0), other)), expected)


def test_weights_start_at_the_identity_and_orthogonal() -> None:
    field = field_of(4, variant="nonlinear")
    assert torch.equal(field.left, torch.eye(3, dtype=F64))
    eye = torch.eye(4, dtype=F64)
    torch.testing.assert_close(field.right @ field.right.T, eye, rtol=0, atol=1e-6)


def test_the_energy_of_moving_maps_is_measured_in_them() -> None:
    graph, field = (
        catalogue.barbell(3, 1),
        field_of(variant="nonlinear", norm="comb", kind="general"),
    )
    with torch.no_grad():
        traj = solve(field, state(graph), 0.5, graph, solver="heun", steps=4, save="steps")
        for x, y in zip(traj.x, traj.energy.y, strict=True):
            P = coboundary(graph, field.maps(graph, x.flatten(1)))
            assert float(y) == pytest.approx(float((P @ rows(x)).square().sum()), rel=1e-9)


def test_a_batch_gives_bit_for_bit_what_its_graphs_give() -> None:
    parts = [catalogue.ring(5), catalogue.star(6), catalogue.barbell(3, 1)]
    union, rate = Graph.union(parts), torch.tensor([1.0, 0.5, 2.0])
    xs = [state(graph, 12, seed=k) for k, graph in enumerate(parts)]
    for kind in ("diagonal", "general", "householder"):
        field = field_of(12, kind=kind)
        with torch.no_grad():
            field.rate = rate
            whole = solve(field, torch.cat(xs), [0.0, 1.0, 3.0], union)
            split = whole.x.split([len(x) for x in xs], 1)
            for k, (graph, x) in enumerate(zip(parts, xs, strict=True)):
                field.rate = float(rate[k])
                alone = solve(field, x, [0.0, 1.0, 3.0], graph)
                assert torch.equal(alone.x, split[k])
                torch.testing.assert_close(whole.energy.y[[0, -1], k], alone.energy.y[[0, -1]])


@pytest.mark.parametrize("solver", ["ars222", "etdrk2", "trbdf2", "rkl2"])
def test_stiff_solvers_take_sheaves_with_reactions(solver: str) -> None:
    graph = Graph.union([catalogue.ring(5), catalogue.star(6)])
    field = field_of(2, 2, norm="comb") + Reaction([0.0, 0.5, 0.0, -0.5]) + Source(0.1)
    x = state(graph, 2, 2)
    with torch.no_grad():
        reference = solve(field, x, 0.5, graph, solver="tsit5", rtol=1e-8, atol=1e-10).final
        found = solve(field, x, 0.5, graph, solver=solver, rtol=1e-5, atol=1e-7).final
    torch.testing.assert_close(found, reference, rtol=0, atol=3e-4)


def test_heat_adds_to_a_sheaf_component_by_component() -> None:
    graph, x = catalogue.ring(5), state(catalogue.ring(5))
    field = field_of(kind="general", norm="comb")
    with torch.no_grad():
        traj = solve(field + Heat(), x, 1.0, graph, rtol=1e-9)
        P = coboundary(graph, field.maps(graph, x.flatten(1)))
    L = graph.laplacian(dtype=F64).to_dense()
    A = P.T @ P + torch.kron(L, torch.eye(3, dtype=F64))
    torch.testing.assert_close(
        rows(traj.final), torch.linalg.matrix_exp(-A) @ rows(x), rtol=0, atol=1e-8
    )
    assert traj.energy.convention.startswith("sheaf")


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "general", "norm": "comb"},
        {"kind": "householder", "low_pass": True, "high_pass": True},
        {"kind": "diagonal", "variant": "frozen", "act": torch.tanh},
        {"kind": "cayley", "norm": "sym", "variant": "nonlinear", "act": torch.tanh},
        {"kind": "general", "variant": "nonlinear", "act": torch.tanh, "paper": True},
    ],
    ids=lambda settings: "-".join(map(str, list(settings.values())[:2])),
)
def test_it_keeps_the_contract_of_fields(settings: dict[str, object]) -> None:
    check_field(SheafDiffusion(1, 3, **settings), catalogue.ring(4), t=0.5)


def test_with_elu_it_keeps_the_contract_up_to_kinks() -> None:
    check_field(SheafDiffusion(1, 2, variant="nonlinear"), catalogue.path(3), t=0.5, smooth=False)


def test_presets_are_the_published_settings() -> None:
    published = {
        "Texas": (20, 3, "householder", 0),
        "Wisconsin": (32, 3, "householder", 2),
        "Cornell": (16, 4, "diagonal", 1),
        "Chameleon": (32, 4, "diagonal", 1),
        "Squirrel": (32, 3, "householder", 1),
    }
    for name, (channels, learned, kind, fixed) in published.items():
        field = SheafDiffusion(**SheafDiffusion.preset(name))
        assert (field.channels, field.maps.learned, field.maps.kind) == (channels, learned, kind)
        assert field.stalk == learned + fixed
        assert field.variant == "nonlinear"
    with pytest.raises(ValueError, match="did you mean 'Texas'"):
        SheafDiffusion.preset("texas")


def test_copies_and_states_round_trip() -> None:
    graph, field = catalogue.ring(4), field_of(variant="nonlinear")
    x, other = state(graph), field_of(variant="nonlinear")
    other.load_state_dict(field.state_dict())
    for twin in (other, copy.deepcopy(field)):
        found = twin.bind(graph, x)(torch.tensor(0.0), x)
        torch.testing.assert_close(found, field.bind(graph, x)(torch.tensor(0.0), x))


def test_refusals_name_what_is_allowed() -> None:
    graph, field = catalogue.ring(4), field_of()
    with pytest.raises(ValueError, match=r"takes \[nodes, 3, 2\]"):
        field.bind(graph, torch.zeros(4, 2, dtype=F64))
    with pytest.raises(TypeError, match=r"field.to"):
        field.bind(graph, torch.zeros(4, 3, 2))
    with pytest.raises(ValueError, match="did you mean 'nonlinear'"):
        SheafDiffusion(2, variant="nonlinar")
    with pytest.raises(ValueError, match="did you mean 'general'"):
        SheafDiffusion(2, kind="generel")
    with pytest.raises(ValueError, match="no room"):
        SheafDiffusion(2, 2, low_pass=True, high_pass=True)
