"""Attention with a matrix of channels: against dense formulas, its spectrum, its gradient flow."""

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import TransformerFlow
from neuralpde.testing import check_field

F64 = torch.float64


def of(**settings: object) -> TransformerFlow:
    return TransformerFlow(3, attention_dim=4, **settings).double()


def normal(graph: Graph, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.num_nodes, 3, dtype=F64, generator=generator)


def dense(field: TransformerFlow, graph: Graph, x: Tensor) -> list[Tensor]:
    """Every head's matrix: softmax over the neighbours and the node itself."""
    mask = torch.eye(graph.num_nodes, dtype=F64) + graph.to(dtype=F64).adjacency().to_dense()
    found = []
    for head in field.attention:
        scores = head.query(x) @ head.key(x).T / head.query.out_features**0.5
        parts = mask * scores.exp()
        found.append(parts / parts.sum(1, keepdim=True))
    return found


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("variant", ["linear", "nonlinear"])
def test_slopes_are_the_sum_over_heads_of_attention_state_and_channels(
    heads: int, variant: str
) -> None:
    graph = catalogue.barbell(3, 1)
    field, x0, x = of(heads=heads, variant=variant), normal(graph), normal(graph, 1)
    found = field.bind(graph, x0)(torch.tensor(0.0), x)
    matrices = dense(field, graph, x0 if variant == "linear" else x)
    expected = sum(A @ x @ H for A, H in zip(matrices, field.H, strict=True))
    torch.testing.assert_close(found, expected)


def test_one_head_of_a_complete_graph_is_the_attention_of_torch() -> None:
    graph = catalogue.complete(5)
    field, x = of(self_loops=1.0), normal(graph)
    head = field.attention[0]
    values = torch.nn.functional.scaled_dot_product_attention(
        head.query(x), head.key(x), field.value(x)
    )
    found = field.bind(graph, x)(torch.tensor(0.0), x)
    torch.testing.assert_close(found, field.out(values))


def test_a_frozen_euler_step_has_the_spectrum_one_plus_products() -> None:
    graph = catalogue.barbell(3, 1)
    field, x0 = of(variant="linear"), normal(graph)
    with torch.no_grad():
        bound = field.bind(graph, x0)
        units = torch.eye(21, dtype=F64).view(21, 7, 3)
        step = torch.stack([(u + bound(torch.tensor(0.0), u)).flatten() for u in units], 1)
        of_nodes = torch.linalg.eigvals(dense(field, graph, x0)[0])
        of_channels = torch.linalg.eigvals(field.H[0])
    expected = (1 + of_nodes[:, None] * of_channels).flatten()
    found = torch.linalg.eigvals(step)
    # As sets: each has its nearest.
    gaps = (found[:, None] - expected[None, :]).abs()
    assert gaps.amin(0).max() < 1e-7
    assert gaps.amin(1).max() < 1e-7


def test_the_frozen_flow_is_the_exponential_of_the_kronecker_product() -> None:
    graph = catalogue.barbell(3, 1)
    field, x = of(heads=2, variant="linear"), normal(graph)
    with torch.no_grad():
        pairs = zip(dense(field, graph, x), field.H, strict=True)
        K = sum(torch.kron(A, H.T.contiguous()) for A, H in pairs)
        expected = torch.linalg.matrix_exp(1.5 * K) @ x.flatten()
        found = solve(field, x, 1.5, graph, rtol=1e-9, atol=1e-10).final
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-7, atol=1e-8)


def transport(x: Tensor, W: Tensor, mask: Tensor) -> Tensor:
    q = x @ W
    scores = torch.where(mask > 0, q @ q.T / W.shape[1] ** 0.5, -torch.inf)
    u = v = torch.zeros(len(x), dtype=F64)
    for _ in range(3000):
        u = -torch.logsumexp(scores + v, 1)
        v = -torch.logsumexp(scores + u[:, None], 0)
    return len(x) - u.sum() - v.sum()


def test_tied_doubly_stochastic_attention_climbs_a_gradient() -> None:
    # P x W W^T = sqrt(d) / 2 grad of the transport value.
    graph = catalogue.barbell(3, 1)
    field = of(normalise="sinkhorn", tied=True)
    with torch.no_grad():
        W = field.attention[0].query.weight.T.clone()
        field.attention[0].query.bias.zero_()
        field.value.weight.copy_(W.T)
        field.out.weight.copy_(W)
    x = normal(graph).requires_grad_()
    mask = torch.eye(7) + graph.adjacency().to_dense()
    (expected,) = torch.autograd.grad(transport(x, W, mask), x)
    found = field.bind(graph, x)(torch.tensor(0.0), x)
    torch.testing.assert_close(found, expected * W.shape[1] ** 0.5 / 2, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("variant", ["linear", "nonlinear"])
@pytest.mark.parametrize("heads", [1, 2])
def test_it_keeps_the_contract(variant: str, heads: int) -> None:
    check_field(of(variant=variant, heads=heads), catalogue.barbell(3, 1))


def test_frozen_heads_leave_their_queries_behind() -> None:
    # An adjoint would count them beside the entries that they built.
    graph = catalogue.barbell(3, 1)
    shapes = [
        leaf.shape for leaf in of(variant="linear", heads=2).bind(graph, normal(graph)).leaves()
    ]
    assert sorted(map(tuple, shapes)) == [(3, 3), (3, 3), (23,), (23,)]


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        TransformerFlow(3, variant="liner")
    with pytest.raises(ValueError, match="3 heads do not divide 16 dims"):
        TransformerFlow(3, heads=3)
    with pytest.raises(ValueError, match="not negative"):
        TransformerFlow(3, self_loops=-1.0)
    with pytest.raises(ValueError, match=r"takes \[nodes, 3\]"):
        TransformerFlow(3).bind(catalogue.path(4), torch.zeros(4, 2))
