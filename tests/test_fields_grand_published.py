"""Bugs of published code as regressions, published settings, and doubly stochastic GRAND."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND, AnisotropicDiffusion, TransformerFlow, WaveletFilters
from neuralpde.fields.field import Field
from neuralpde.operators import Attention
from neuralpde.testing import check_field

F64 = torch.float64


def state(graph: Graph, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(graph.num_nodes, channels, dtype=F64, generator=generator)


def sinkhorn(channels: int = 3, **settings: object) -> GRAND:
    return GRAND(channels, attention_dim=4, heads=2, normalise="sinkhorn", **settings).double()


@pytest.mark.parametrize("variant", ["linear", "mixed"])
def test_frozen_attention_is_computed_once_whatever_the_adjoint_does(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cached operator that is rebuilt from x(T) in the backward pass has a wrong gradient.
    calls = []
    original = Attention.forward

    def counted(self: Attention, *arguments: object, **options: object) -> object:
        calls.append(1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Attention, "forward", counted)
    graph, field = catalogue.barbell(3, 1), GRAND(3, attention_dim=4, variant=variant).double()
    t, grads = torch.tensor([0.0, 1.5], dtype=F64), []
    wanted = [field.attention.query.weight, field.alpha]
    for how in (odeint, odeint_adjoint):
        calls.clear()
        x = state(graph).requires_grad_()
        bound = field.bind(graph, x)
        extra = {} if how is odeint else {"adjoint_params": bound.leaves()}
        final = how(bound, x, t, rtol=1e-10, atol=1e-11, **extra)[-1]
        grads.append(torch.autograd.grad((final**3).sum(), [x, *wanted]))
        assert len(calls) == 1
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-8)


def test_the_adjoint_of_parameters_that_only_built_the_operator_is_not_counted_twice() -> None:
    # Handing builder and built operator to an adjoint doubles the gradient; a bound field holds
    # only the operator.
    graph, field = catalogue.barbell(3, 1), GRAND(3, attention_dim=4, source=True).double()
    bound = field.bind(graph, state(graph))
    assert list(bound.parameters()) == []
    assert {tuple(leaf.shape) for leaf in bound.leaves()} == {(23,), (7, 3)}


@pytest.mark.parametrize(
    "field",
    [
        GRAND(3, kernel="distance", source=True, variant="mixed"),
        GRAND(3, normalise="sinkhorn", tied=True, variant="nonlinear"),
        TransformerFlow(3, heads=2),
        AnisotropicDiffusion(3),
        WaveletFilters(3),
    ],
    ids=lambda field: type(field).__name__,
)
def test_parameters_survive_a_move_to_another_device_or_dtype(field: Field) -> None:
    # nn.Parameter(...).to(device) is a plain tensor, and lists of modules are no modules.
    names = [name for name, _ in field.named_parameters()]
    assert names
    for moved in (copy.deepcopy(field).to("meta"), copy.deepcopy(field).double()):
        assert [name for name, _ in moved.named_parameters()] == names
        assert all(isinstance(p, nn.Parameter) for p in moved.parameters())
        assert {p.device.type for p in moved.parameters()} <= {"meta", "cpu"}
    graph = catalogue.ring(5)
    twice = copy.deepcopy(field).double()
    with torch.no_grad():
        for p in twice.parameters():
            p.add_(0.1 * torch.randn_like(p))
    solve(twice, state(graph), 1.0, graph, rtol=1e-6).final.pow(3).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in twice.parameters())


@pytest.mark.parametrize("name", GRAND.PRESETS)
def test_published_settings_build_the_published_field(name: str) -> None:
    arguments, time = GRAND.preset(name)
    field = GRAND(**arguments)
    assert field.paper
    assert 3 < time < 19
    sender = name in ("Cora", "Citeseer", "CoauthorCS")
    assert field.over == ("sender" if sender else "receiver")
    assert (field.beta is not None) == (name in ("Cora", "Citeseer", "Pubmed"))
    graph = catalogue.ring(5)
    x = torch.rand(5, field.channels)
    assert field.bind(graph, x).operator.generator == ("col" if sender else "row")
    arguments["heads"] = 0
    assert GRAND.preset(name)[0]["heads"] > 0


def test_an_unknown_data_set_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'Cora'"):
        GRAND.preset("cora")


@pytest.mark.parametrize("variant", ["linear", "nonlinear"])
def test_doubly_stochastic_attention_keeps_means_and_maxima(variant: str) -> None:
    graph = catalogue.star(6)
    x = state(graph)
    traj = solve(sinkhorn(variant=variant), x, torch.linspace(0, 8, 9), graph, rtol=1e-9)
    torch.testing.assert_close(traj.x.mean(1), x.mean(0).expand(9, 3), rtol=1e-7, atol=1e-8)
    assert (traj.x.amax(1).diff(dim=0) < 1e-7).all()
    assert (traj.x.amin(1).diff(dim=0) > -1e-7).all()


def test_tied_keys_make_the_frozen_flow_symmetric_and_solved_by_chebyshev() -> None:
    graph, x = catalogue.barbell(4, 1), state(catalogue.barbell(4, 1))
    traj = solve(sinkhorn(tied=True), x, 3.0, graph, rtol=1e-10)
    assert traj.stats.solver == "chebyshev"
    assert solve(sinkhorn(), x, 3.0, graph).stats.solver == "uniformisation"


@pytest.mark.parametrize(
    "variant", ["linear", pytest.param("nonlinear", marks=pytest.mark.slow), "mixed"]
)
@pytest.mark.parametrize("tied", [False, True])
def test_doubly_stochastic_attention_keeps_the_contract(variant: str, tied: bool) -> None:
    check_field(sinkhorn(variant=variant, tied=tied, source=True), catalogue.barbell(3, 1))


def transport(x: Tensor, mask: Tensor) -> Tensor:
    """The minimum over u, v of sum_ij exp(<x_i, x_j> / sqrt(d) + u_i + v_j) - sum u - sum v."""
    scores = torch.where(mask > 0, x @ x.T / x.shape[1] ** 0.5, -torch.inf)
    u = v = torch.zeros(len(x), dtype=F64)
    for _ in range(3000):
        u = -torch.logsumexp(scores + v, 1)
        v = -torch.logsumexp(scores + u[:, None], 0)
    return len(x) - u.sum() - v.sum()


@pytest.mark.parametrize("graph", [catalogue.complete(5), catalogue.barbell(3, 1)])
def test_symmetric_doubly_stochastic_attention_is_a_gradient_flow(graph: Graph) -> None:
    # With q = k = x: f = P(x) x - x = -grad (|x|^2 / 2 - sqrt(d) / 2 transport(x)).
    field = GRAND(
        3, attention_dim=3, normalise="sinkhorn", tied=True, rate=1.0, variant="nonlinear"
    ).double()
    with torch.no_grad():
        field.attention.query.weight.copy_(torch.eye(3))
        field.attention.query.bias.zero_()
    mask = torch.eye(graph.num_nodes) + graph.adjacency("none").to_dense()
    x = (0.5 * state(graph)).requires_grad_()
    energy = x.square().sum() / 2 - 3**0.5 / 2 * transport(x, mask)
    (slope,) = torch.autograd.grad(energy, x)
    found = field.bind(graph, x)(torch.tensor(0.0), x)
    torch.testing.assert_close(found, -slope, rtol=1e-7, atol=1e-8)


def test_the_jacobian_at_consensus_is_attention_minus_identity() -> None:
    graph = catalogue.barbell(3, 1)
    field = GRAND(2, attention_dim=4, rate=1.0, variant="nonlinear").double()
    c = torch.tensor([[0.3, -1.2]], dtype=F64).expand(7, 2).contiguous()
    bound = field.bind(graph, c)
    J = torch.autograd.functional.jacobian(lambda x: bound(torch.tensor(0.0), x), c)
    # All scores agree, so that A(c) is the walk with self-loops.
    walk = graph.to(dtype=F64).adjacency("row", self_loops=1.0).minus_identity().to_dense()
    expected = torch.einsum("ij,ab->iajb", walk, torch.eye(2, dtype=F64))
    torch.testing.assert_close(J, expected, rtol=1e-10, atol=1e-12)


def test_attention_has_row_sums_of_one_wherever_the_state_is() -> None:
    graph = catalogue.barbell(3, 1)
    for normalise in ("softmax", "squareplus", "sinkhorn"):
        for kernel in ("scaled_dot", "cosine", "pearson", "distance"):
            field = GRAND(3, attention_dim=4, kernel=kernel, normalise=normalise).double()
            A = field.bind(graph, 3 * state(graph)).operator.to_dense().detach()
            assert A.sum(1).abs().max() < 1e-12
