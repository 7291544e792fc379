"""What a field promises: binding is pure, leaves are the frontier, sums merge."""

import math

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND, Diffusion, Field, Heat, Reaction, Source, Sum, allen_cahn
from neuralpde.operators import SparseOperator

GRAPH = catalogue.barbell(4, 1)
BATCH = Graph.union([catalogue.path(3), catalogue.star(5)])
ZERO = torch.tensor(0.0, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Twice(Field):
    """A parameter read in prepare and in rest, beside a module that two attributes share."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(2, 2, seed=5))
        self.first = nn.Linear(2, 2).double()
        self.second = self.first
        self.scale = nn.Parameter(torch.tensor(0.3).double())
        self.unused = nn.Parameter(torch.tensor(1.0).double())

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("row")
        self.frozen = torch.sigmoid(x0 @ self.weight)
        self.held = {"gate": [self.frozen * self.scale]}

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        gate, mixed = self.held["gate"][0], torch.tanh(self.A @ (x @ self.weight))
        return gate * mixed * self.first(x) - self.second(x) * torch.cos(t) * self.scale


class Learned(nn.Module):
    """Edge values from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(normal(2, seed=4))

    def forward(self, graph: Graph, x0: Tensor) -> SparseOperator:
        score = torch.sigmoid((x0 @ self.theta)[graph.edge_index].sum(0))
        return SparseOperator(graph.pattern, score, batch=graph.batch, num_graphs=graph.num_graphs)


@pytest.mark.parametrize(
    "field", [Twice(), GRAND(2).double(), allen_cahn(), Heat(rate=nn.Parameter(torch.tensor(0.5)))]
)
def test_binding_leaves_the_field_as_it_was(field: Field) -> None:
    before = {name: value.clone() for name, value in field.state_dict().items()}
    kept = dict(vars(field))
    x, y = normal(9, 2), normal(8, 2, seed=1)
    one = field.bind(GRAPH, x)
    first = one(ZERO, x)
    other = field.bind(BATCH, y)
    other(ZERO, y)
    assert torch.equal(one(ZERO, x), first)
    assert torch.equal(field.bind(GRAPH, x)(ZERO, x), first)
    assert vars(field).keys() == kept.keys()
    assert all(vars(field)[name] is value for name, value in kept.items())
    assert before.keys() == field.state_dict().keys()
    for name, value in field.state_dict().items():
        assert torch.equal(value, before[name])
    assert not field.is_bound
    assert one.is_bound
    assert field.operator is None


def test_leaves_are_the_frontier_each_once() -> None:
    field, x0 = Twice(), normal(9, 2).requires_grad_()
    bound = field.bind(GRAPH, x0)
    leaves = bound.leaves()
    assert len({id(leaf) for leaf in leaves}) == len(leaves)
    out = bound(ZERO, x0.detach()).sum()
    found = torch.autograd.grad(out, leaves, allow_unused=True)
    # None of them is upstream of another: each reaches the output by its own way.
    for k, leaf in enumerate(leaves):
        upstream = torch.autograd.grad(
            leaf.sum(), [other for j, other in enumerate(leaves) if j != k], allow_unused=True,
            retain_graph=True,
        )  # fmt: skip
        assert all(one is None for one in upstream)
    # The weight, the shared layer's two, the gate, the scale, and those that nothing reads.
    used = [one for one in found if one is not None]
    assert len(used) == 5
    assert all(one.abs().sum() > 0 for one in used)


@pytest.mark.parametrize(
    "field",
    [
        Twice(),
        GRAND(2).double(),
        Diffusion(Learned()),
        Sum(Diffusion(Learned()), Reaction.allen_cahn(nn.Parameter(torch.tensor(0.4).double()))),
    ],
    ids=["twice", "grand", "learned edges", "sum"],
)
def test_the_adjoint_over_the_leaves_is_the_gradient(field: Field) -> None:
    parameters = tuple(field.parameters())
    found = []
    for adjoint in (False, True):
        x0 = normal(9, 2).requires_grad_()
        t = torch.tensor([0.0, 1.5], dtype=torch.float64)
        if adjoint:
            bound = field.bind(GRAPH, x0)
            final = torchdiffeq.odeint_adjoint(
                bound, x0, t, rtol=1e-9, atol=1e-11, method="dopri5", adjoint_params=bound.leaves()
            )[-1]
        else:
            final = solve(
                field, x0, t, GRAPH, solver="dopri8", rtol=1e-10, atol=1e-12, grad="tape"
            ).final
        found.append(torch.autograd.grad((final**2).sum(), (x0, *parameters), allow_unused=True))
    for one, other in zip(*found, strict=True):
        one, other = (torch.zeros((), dtype=x0.dtype) if g is None else g for g in (one, other))
        torch.testing.assert_close(one, other.expand_as(one), rtol=1e-5, atol=1e-7)


def test_a_bound_field_is_torchdiffeqs_function() -> None:
    x0, t = normal(9, 2), torch.tensor([0.0, 0.7, 2.0], dtype=torch.float64)
    bound = Twice().bind(GRAPH, x0)
    theirs = torchdiffeq.odeint(bound, x0, t, rtol=1e-9, atol=1e-10)
    ours = solve(bound, x0, t, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.x, theirs, rtol=1e-6, atol=1e-7)


def test_sums_merge_operators_and_sources_and_stay_linear() -> None:
    x = normal(9, 2)
    inflow = normal(9, 2, seed=7)
    field = (Heat("comb", 0.5) + Heat("rw", 2.0)) + (Source(inflow) + Source(3.0))
    assert len(field.parts) == 4
    bound = field.bind(GRAPH, x)
    assert bound.affine
    graph = GRAPH.to(dtype=torch.float64)
    L = 0.5 * graph.laplacian("comb").to_dense() + 2.0 * graph.laplacian("rw").to_dense()
    torch.testing.assert_close(bound.operator.to_dense(), -L)
    torch.testing.assert_close(bound.source, inflow + 3.0)
    torch.testing.assert_close(bound(ZERO, x), -L @ x + inflow + 3.0)
    big = torch.zeros(10, 10).double()
    both = solve(Heat() + Source(2.0), x[:, :1], 1.3, GRAPH, rtol=1e-9)
    assert both.stats.solver == "chebyshev"
    big[:9, :9] = -graph.laplacian().to_dense()
    big[:9, 9] = 2.0
    want = torch.linalg.matrix_exp(1.3 * big) @ torch.cat([x[:, :1], torch.ones(1, 1).double()])
    torch.testing.assert_close(both.final, want[:9], rtol=1e-7, atol=1e-8)


def test_sums_add_rests_and_keep_what_belongs_to_all() -> None:
    x = normal(9, 2).tanh()
    field = Heat("sym", 0.5) + Reaction.allen_cahn() + Twice()
    bound = field.bind(GRAPH, x)
    L = GRAPH.to(dtype=torch.float64).laplacian("sym")
    own = field.parts[2].bind(GRAPH, x)(ZERO, x)
    torch.testing.assert_close(bound(ZERO, x), -0.5 * (L @ x) + x - x**3 + own)
    assert not bound.affine
    assert bound.norm == "sym"
    assert not bound.batched_time
    assert (Heat() + Reaction.fisher()).bind(GRAPH, x).batched_time
    names = {name for name, _ in field.named_parameters()}
    assert names == {f"terms.2.{name}" for name, _ in Twice().named_parameters()}


class Both(Field):
    """A linear part beside a rest."""

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.operator = -graph.laplacian()
        self.source = x0

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x.sin()


def test_a_term_with_a_rest_gives_its_linear_part_once() -> None:
    x = normal(9, 2)
    L = GRAPH.to(dtype=torch.float64).laplacian()
    bound = Sum(Both(), Heat(), Source(2.0)).bind(GRAPH, x)
    torch.testing.assert_close(bound(ZERO, x), -2 * (L @ x) + x + 2.0 + x.sin())


def test_a_merged_operator_is_one_leaf() -> None:
    theta = nn.Parameter(torch.tensor(0.5).double())
    bound = Sum(Heat(rate=theta), Heat("rw")).bind(GRAPH, normal(9, 2))
    (found,) = torch.autograd.grad((bound(ZERO, normal(9, 2)) ** 2).sum(), theta)
    assert float(found) != 0
    values = [leaf for leaf in bound.leaves() if leaf.numel() > 1]
    assert len(values) == len(bound.operator.tensors) == 1


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_a_learned_rate_has_the_gradient_of_the_closed_form(solver: str) -> None:
    x0 = normal(9, 2)
    L = GRAPH.to(dtype=torch.float64).laplacian().to_dense()
    rate = nn.Parameter(torch.tensor(0.6).double())
    final = solve(Heat(rate=rate), x0, 1.4, GRAPH, solver=solver, rtol=1e-9, atol=1e-10).final
    (found,) = torch.autograd.grad((final**2).sum(), rate)
    values, vectors = torch.linalg.eigh(L)
    modes = (vectors.T @ x0).square().sum(1)
    want = float((modes * -2 * 1.4 * values * torch.exp(-2 * 1.4 * 0.6 * values)).sum())
    assert float(found) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("solver", ["auto", "tsit5"])
def test_rates_belong_to_graphs(solver: str) -> None:
    x0, rates = normal(8, 2), torch.tensor([0.3, 2.0], dtype=torch.float64)
    learned = nn.Parameter(rates.clone())
    traj = solve(Heat(rate=learned), x0, 1.0, BATCH, solver=solver, rtol=1e-8, atol=1e-9)
    for g, graph in enumerate((catalogue.path(3), catalogue.star(5))):
        rows = BATCH.batch == g
        L = graph.to(dtype=torch.float64).laplacian().to_dense()
        want = torch.linalg.matrix_exp(-float(rates[g]) * L) @ x0[rows]
        torch.testing.assert_close(traj.final[rows].detach(), want, rtol=1e-6, atol=1e-7)
        total = traj.final[rows].sum() + (traj.final[rows] ** 2).sum()
        (found,) = torch.autograd.grad(total, learned, retain_graph=True)
        assert float(found[1 - g]) == 0
        slope = -(2 * want * (L @ want)).sum() - (L @ want).sum()
        assert float(found[g]) == pytest.approx(float(slope), rel=1e-4)
    with pytest.raises(ValueError, match="3 values of rate for 2 graphs"):
        solve(Heat(rate=torch.ones(3)), x0, 1.0, BATCH)


def test_diffusion_follows_the_operator_it_is_given() -> None:
    x0 = normal(9, 2)
    field = Diffusion(lambda graph, x: graph.adjacency("sym") - graph.laplacian("sym"), "sym")
    traj = solve(field, x0, 0.7, GRAPH, rtol=1e-9)
    graph = GRAPH.to(dtype=torch.float64)
    A = graph.adjacency("sym").to_dense() - graph.laplacian("sym").to_dense()
    want = torch.linalg.matrix_exp(0.7 * A) @ x0
    torch.testing.assert_close(traj.final, want, rtol=1e-7, atol=1e-8)
    assert traj.energy.convention.startswith("sym")


def test_sources_may_be_learned_and_scale_the_first_state() -> None:
    strength = nn.Parameter(torch.tensor(0.7).double())
    x0 = normal(9, 2).requires_grad_()
    bound = Source(strength, of_x0=True).bind(None, x0)
    torch.testing.assert_close(bound(ZERO, x0), strength * x0)
    final = solve(Heat() + Source(strength, of_x0=True), x0, 1.0, GRAPH, rtol=1e-9).final
    found = torch.autograd.grad(final.sum(), (x0, strength))
    # The total mass obeys m' = strength m0.
    torch.testing.assert_close(found[0], torch.full_like(x0, 1.7), rtol=1e-6, atol=1e-7)
    assert float(found[1]) == pytest.approx(x0.sum().item(), rel=1e-6, abs=1e-7)


def test_a_rest_that_overrides_nothing_says_so() -> None:
    class Empty(Field):
        pass

    with pytest.raises(TypeError, match=r"Empty gives nothing: set self\.operator"):
        Empty().bind(None, normal(3, 1))(ZERO, normal(3, 1))


def test_a_field_may_define_forward_itself() -> None:
    class Own(Field):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return -x

    final = solve(Own(), torch.ones(3, 1).double(), 1.0, rtol=1e-8, atol=1e-9).final
    torch.testing.assert_close(final, torch.full_like(final, math.exp(-1)), rtol=1e-6, atol=0)


def test_the_graph_follows_the_state_and_fields_show_their_arguments() -> None:
    bound = Heat("sym", 2.0).bind(GRAPH, normal(9, 1).float())
    assert bound.operator.dtype == torch.float32
    assert bound.graph.dtype == torch.float32
    assert repr(Heat("sym", 2.0)) == "Heat(norm='sym', rate=2.0)"
