"""GRAND against dense exponentials, its invariants, and the bugs of the published code."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from neuralpde import catalogue
from neuralpde.fields import GRAND, Field
from neuralpde.graph import Graph
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.strategies import graphs

KERNELS = ("scaled_dot", "cosine", "distance")


def field_of(**settings: object) -> GRAND:
    return GRAND(3, attention_dim=4, heads=2, **settings).double()


def state(graph: Graph, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.num_nodes, 3, dtype=torch.float64, generator=generator)


def by_hand(field: GRAND, graph: Graph, x: Tensor) -> Tensor:
    """The attention matrix entry by entry, loops of weight 1, softmax over the receiver."""
    q, k = field.attention.query(x), field.attention.key(x)
    n = graph.num_nodes
    weight = torch.eye(n, dtype=torch.float64)
    for (j, i), w in zip(graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True):
        weight[i, j] += w
    total = torch.zeros(n, n, dtype=torch.float64)
    for qh, kh in zip(q.chunk(2, 1), k.chunk(2, 1), strict=True):
        e = weight * torch.exp(qh @ kh.T / 2**0.5)
        total = total + e / e.sum(1, keepdim=True)
    return total / 2


def stationary(A: Tensor) -> Tensor:
    """pi with pi^T A = pi^T."""
    values, vectors = torch.linalg.eig(A.T)
    return vectors[:, values.real.argmax()].real


def test_linear_is_the_exponential_of_attention_minus_identity() -> None:
    graph, field = catalogue.barbell(3, 1), field_of()
    x = state(graph)
    a = torch.sigmoid(field.alpha)
    expected = torch.linalg.matrix_exp(2.0 * a * (by_hand(field, graph, x) - torch.eye(7))) @ x
    traj = solve(field, x, 2.0, graph, rtol=1e-10)
    assert traj.stats.solver == "uniformisation"
    torch.testing.assert_close(traj.final, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=15)
@given(graphs(min_nodes=2, directed=True), st.sampled_from(KERNELS), st.floats(0.0, 2.0))
def test_constants_stay_constant_on_any_graph(graph: Graph, kernel: str, loops: float) -> None:
    for variant in ("linear", "nonlinear", "mixed"):
        field = field_of(kernel=kernel, variant=variant, self_loops=loops)
        x = torch.full((graph.num_nodes, 3), 2.5, dtype=torch.float64)
        slope = field.bind(graph, x)(torch.tensor(0.0), x)
        assert slope.abs().max() < 1e-13


@pytest.mark.parametrize("variant", ["linear", "nonlinear", "mixed"])
def test_maxima_never_rise_and_minima_never_fall(variant: str) -> None:
    graph = catalogue.star(6)
    x = state(graph)
    traj = solve(field_of(variant=variant), x, torch.linspace(0, 8, 9), graph, rtol=1e-8)
    assert (traj.x.amax(1).diff(dim=0) < 1e-7).all()
    assert (traj.x.amin(1).diff(dim=0) > -1e-7).all()


def test_the_stationary_mean_is_conserved() -> None:
    graph, field = catalogue.barbell(3, 1), field_of()
    x = state(graph)
    with torch.no_grad():
        pi = stationary(by_hand(field, graph, x))
        final = solve(field, x, 30.0, graph, rtol=1e-10).final
    torch.testing.assert_close(pi @ final, pi @ x)


@pytest.mark.parametrize("variant", ["linear", "nonlinear", "mixed"])
def test_normalised_over_the_sender_totals_are_conserved(variant: str) -> None:
    graph = catalogue.star(6)
    x = torch.ones(graph.num_nodes, 3, dtype=torch.float64)
    final = solve(field_of(variant=variant, over="sender"), x, 5.0, graph, rtol=1e-9).final
    torch.testing.assert_close(final.sum(0), x.sum(0))
    assert final.max() > 1.5  # and the maximum principle is lost


def test_a_source_makes_the_stationary_mean_grow_linearly() -> None:
    graph, field = catalogue.ring(5), field_of(source=True)
    with torch.no_grad():
        field.beta.fill_(0.3)
        x = state(graph)
        pi = stationary(by_hand(field, graph, x))
        final = solve(field, x, 100.0, graph, rtol=1e-10).final
    torch.testing.assert_close(pi @ final, (1 + 0.3 * 100.0) * (pi @ x), rtol=1e-8, atol=1e-8)


def test_alpha_only_rescales_time() -> None:
    graph = catalogue.ring(5)
    x, slow, fast = state(graph), field_of(rate=0.25), field_of(rate=1.0)
    fast.load_state_dict(slow.state_dict())
    one = solve(slow, x, 4.0, graph, rtol=1e-10).final
    torch.testing.assert_close(one, solve(fast, x, 1.0, graph, rtol=1e-10).final)


def test_mixed_interpolates_between_attention_and_the_random_walk() -> None:
    graph, field = catalogue.path(4), field_of(variant="mixed", rate=1.0)
    x = state(graph)
    with torch.no_grad():
        field.gamma.fill_(50.0)
        walk = solve(field, x, 1.0, graph, rtol=1e-10).final
        field.gamma.fill_(-50.0)
        attention = field.bind(graph, x).operator.to_dense()
    expected = graph.to(dtype=torch.float64).adjacency("row", self_loops=1.0).to_dense()
    torch.testing.assert_close(walk, torch.linalg.matrix_exp(expected - torch.eye(4)) @ x)
    torch.testing.assert_close(attention, by_hand(field, graph, x).detach() - torch.eye(4))


def test_nodes_with_nothing_to_attend_to_stand_still() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
    x = state(graph)
    bound = field_of(self_loops=0.0).bind(graph, x)
    assert bound.operator.generator == "row"
    assert (bound(torch.tensor(0.0), x)[2] == 0).all()


def test_the_published_quirks_are_switched_by_paper() -> None:
    graph, x = catalogue.star(4), torch.ones(4, 3, requires_grad=True)
    field = GRAND(3, attention_dim=4, source=True, paper=True)
    assert (field.attention.query.weight == 1e-5).all()
    assert (field.attention.key.weight == 1e-5).all()
    bound = field.bind(graph, x)
    assert bound.operator.generator == "col"
    (through_source,) = torch.autograd.grad(bound.source.sum(), x, allow_unused=True)
    assert through_source is None
    assert GRAND(3, paper=True, over="receiver").over == "receiver"


def test_the_source_passes_gradients_by_default() -> None:
    graph, field = catalogue.ring(4), field_of(source=True)
    with torch.no_grad():
        field.beta.fill_(0.7)
    x = state(graph).requires_grad_()
    (grad,) = torch.autograd.grad(field.bind(graph, x).source.sum(), x)
    torch.testing.assert_close(grad, torch.full_like(x, 0.7))


def loss_gradients(field: GRAND, graph: Graph, how: str) -> list[Tensor]:
    x = state(graph).requires_grad_()
    bound = field.bind(graph, x)
    t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    tight = {"rtol": 1e-10, "atol": 1e-11, "method": "dopri5"}
    if how == "adjoint":
        final = odeint_adjoint(bound, x, t, adjoint_params=bound.leaves(), **tight)[-1]
    elif how == "published":
        # What odeint_adjoint does by itself: it differentiates func.parameters().
        final = odeint_adjoint(bound, x, t, adjoint_params=tuple(bound.parameters()), **tight)[-1]
    elif how == "direct":
        final = odeint(bound, x, t, **tight)[-1]
    else:
        final = solve(field, x, 2.0, graph, rtol=1e-10).final
    loss = (final**3).sum()
    wanted = [x, field.attention.query.weight, field.alpha, field.beta]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True)]


def test_adjoints_keep_the_gradient_of_frozen_attention() -> None:
    graph, field = catalogue.barbell(3), field_of(source=True)
    with torch.no_grad():
        field.beta.fill_(0.4)
    direct = loss_gradients(field, graph, "direct")
    assert all((grad.abs().max() > 1e-3) for grad in direct)
    for how in ("adjoint", "exact"):
        for got, expected in zip(loss_gradients(field, graph, how), direct, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
    # Only leaves() can give it: the parameters of the bound field alone lose all of it.
    assert (loss_gradients(field, graph, "published")[1] == 0).all()


class Twice(Field):
    """A parameter read directly and through what was frozen from it, beside x0 itself."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("row") * self.p.sigmoid()
        self.x0 = x0 * self.p

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.A @ x - self.p * x + 0.1 * self.x0


def test_nothing_is_counted_twice_in_an_adjoint() -> None:
    graph, field = catalogue.ring(4), Twice()
    grads = []
    for solver in (odeint, odeint_adjoint):
        x = state(graph).requires_grad_()
        bound = field.bind(graph, x)
        extra = {} if solver is odeint else {"adjoint_params": bound.leaves()}
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        final = solver(bound, x, t, rtol=1e-10, atol=1e-11, **extra)[-1]
        grads.append(torch.autograd.grad((final**3).sum(), [x, field.p]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("variant", ["linear", "nonlinear", "mixed"])
@pytest.mark.parametrize("over", ["receiver", "sender"])
def test_it_keeps_the_contract(variant: str, over: str) -> None:
    field = GRAND(3, attention_dim=4, heads=2, variant=variant, over=over, source=True)
    check_field(field, catalogue.barbell(3, 1))


def test_wrong_arguments_are_refused_in_words() -> None:
    graph = catalogue.ring(4)
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        GRAND(3, variant="liner")
    with pytest.raises(ValueError, match="not negative"):
        GRAND(3, self_loops=-1.0)
    with pytest.raises(ValueError, match=r"takes \[nodes, 3\]"):
        GRAND(3).bind(graph, torch.zeros(4, 2))
    with pytest.raises(TypeError, match=r"field.to\(torch.float64\)"):
        GRAND(3).bind(graph, torch.zeros(4, 3, dtype=torch.float64))
