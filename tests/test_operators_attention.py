"""Attention against dense formulas, locality, gradients, what makes it stochastic."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from neuralpde.operators import Attention, Pattern, attention

F64 = torch.float64
KERNELS = ["scaled_dot", "cosine", "distance"]
NORMALISERS = ["softmax", "squareplus"]


def sample(nodes: int = 6, seed: int = 0) -> Pattern:
    generator = torch.Generator().manual_seed(seed)
    row, col = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
    return Pattern.from_edges(row, col, nodes)[0].with_diagonal()[0]


def dense_attention(pattern, q, k, kernel, normalise, over, weights, length=1.0):
    q, k = q.numpy(), k.numpy()
    scores = q @ k.T
    if kernel == "scaled_dot":
        scores = scores / np.sqrt(q.shape[1])
    elif kernel == "cosine":
        scores = scores / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(k, axis=1)
    else:
        scores = np.exp(-((q[:, None] - k[None]) ** 2).sum(2) / (2 * length**2))
    g = np.exp(scores) if normalise == "softmax" else (scores + np.sqrt(scores**2 + 4)) / 2
    mask = np.zeros_like(scores)
    mask[pattern.row, pattern.col] = weights
    g = g * mask
    return g / g.sum(1 if over == "receiver" else 0, keepdims=True).repeat(1, 0)


@pytest.mark.parametrize("over", ["receiver", "sender"])
@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_is_the_dense_formula_averaged_over_heads(kernel, normalise, over):
    pattern = sample()
    q, k = torch.randn(2, 6, 6, dtype=F64)
    weights = torch.rand(pattern.nnz, dtype=F64) + 0.1
    ours = attention(
        pattern, q, k, kernel=kernel, normalise=normalise, over=over, heads=2, weights=weights
    )
    heads = [
        dense_attention(pattern, a, b, kernel, normalise, over, weights)
        for a, b in zip(q.chunk(2, 1), k.chunk(2, 1), strict=True)
    ]
    assert np.allclose(ours.to_dense(), sum(heads) / 2, rtol=0, atol=1e-14)
    side = {"receiver": "row", "sender": "col"}[over]
    assert ours.stochastic == ours.minus_identity().generator == side
    assert (ours.values > 0).all()
    sums = (ours if over == "receiver" else ours.T) @ torch.ones(6, dtype=F64)
    assert torch.allclose(sums, torch.ones(6, dtype=F64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("over", ["receiver", "sender"])
@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_is_differentiable_in_all_that_it_is_made_of(kernel, normalise, over):
    pattern = sample(4)
    inputs = [torch.randn(4, 4, dtype=F64) for _ in range(2)]
    inputs += [torch.tensor(0.8, dtype=F64), torch.tensor(1.3, dtype=F64)]
    inputs += [torch.rand(pattern.nnz, dtype=F64) + 0.1]

    def values(q, k, scale, length, weights):
        made = attention(
            pattern,
            q,
            k,
            kernel=kernel,
            normalise=normalise,
            over=over,
            heads=2,
            scale=scale,
            length=length,
            weights=weights,
        )
        return made.values

    needed = [t.requires_grad_() for t in inputs]
    assert gradcheck(values, needed)


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_a_row_depends_on_its_own_scores_only(normalise):
    pattern = sample()
    q, k = torch.randn(2, 6, 3, dtype=F64)
    before = attention(pattern, q, k, normalise=normalise).to_dense()
    q[0] += 50.0
    after = attention(pattern, q, k, normalise=normalise).to_dense()
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])


def test_squareplus_sees_scores_as_they_are():
    pattern = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), 2)[0]
    q, k = torch.ones(2, 1, dtype=F64), torch.tensor([[0.0], [1.5]], dtype=F64)
    # g(0) = 1 and g(1.5) = 2.
    values = attention(pattern, q, k, normalise="squareplus").values
    assert torch.allclose(values, torch.tensor([1 / 3, 2 / 3], dtype=F64), atol=1e-15)
    zero = torch.zeros(2, 1, dtype=F64, requires_grad=True)
    at_zero = attention(pattern, zero, torch.ones(2, 1, dtype=F64) * k, normalise="squareplus")
    assert gradcheck(lambda z: attention(pattern, z, k, normalise="squareplus").values, zero)
    assert at_zero.values.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_scores_neither_overflow_nor_lose_their_digits(normalise, size):
    pattern = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), 2)[0]
    q = torch.ones(2, 1, requires_grad=True)
    k = torch.tensor([[size], [2 * size]])
    A = attention(pattern, q, k, normalise=normalise, scale=1.0)
    ratio = {"softmax": (0.0 if size > 0 else 1.0), "squareplus": 1 / 3 if size > 0 else 2 / 3}
    assert A.values[0].item() == pytest.approx(ratio[normalise], rel=1e-5)
    A.values[0].backward()
    assert torch.isfinite(q.grad).all()


def test_nodes_without_entries_have_zero_rows_and_cost_the_tag():
    pattern = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 3)[0]
    x = torch.randn(3, 2, dtype=F64)
    for over in ("receiver", "sender"):
        A = attention(pattern, x, x, over=over)
        assert A.to_dense()[2].tolist() == A.to_dense()[:, 2].tolist() == [0.0] * 3
        assert A.stochastic is A.minus_identity().generator is None
        whole = attention(pattern.with_diagonal()[0], x, x, over=over)
        assert whole.stochastic == {"receiver": "row", "sender": "col"}[over]
    silent = attention(Pattern.identity(3), x, x, weights=torch.tensor([1.0, 0.0, 1.0]).double())
    assert silent.stochastic is None
    assert silent.values.tolist() == [1.0, 0.0, 1.0]


def test_relabelling_nodes_relabels_attention():
    pattern, order = sample(), torch.randperm(6)
    place = torch.argsort(order)
    q, k = torch.randn(2, 6, 4, dtype=F64)
    moved = Pattern.from_edges(place[pattern.row], place[pattern.col.long()], 6)[0]
    for kernel in KERNELS:
        dense = attention(pattern, q, k, kernel=kernel, heads=2).to_dense()
        ours = attention(moved, q[order], k[order], kernel=kernel, heads=2).to_dense()
        assert torch.allclose(ours, dense[order][:, order], rtol=0, atol=1e-14)


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_a_batch_attends_as_its_graphs_alone(normalise):
    one, two = sample(4, 1), sample(7, 2)
    q, k = torch.randn(2, 11, 4, dtype=F64)
    rows, cols = torch.cat([one.row, two.row + 4]), torch.cat([one.col, two.col + 4])
    batch = torch.tensor([0] * 4 + [1] * 7)
    union = Pattern.from_edges(rows, cols, 11)[0]
    A = attention(union, q, k, normalise=normalise, batch=batch, num_graphs=2)
    alone = [
        attention(pattern, q[nodes], k[nodes], normalise=normalise).values
        for pattern, nodes in ((one, slice(0, 4)), (two, slice(4, 11)))
    ]
    assert torch.allclose(A.values, torch.cat(alone), rtol=0, atol=1e-15)
    assert A.num_graphs == 2
    assert A.minus_identity().rate.shape == (2,)


def test_half_precision_scores_are_computed_in_single():
    pattern = sample()
    q, k = torch.randn(2, 6, 64).to(torch.bfloat16)
    ours = attention(pattern, q, k)
    assert ours.dtype == torch.bfloat16
    expected = attention(pattern, q.double(), k.double()).values
    assert torch.allclose(ours.values.double(), expected, rtol=2**-8, atol=0)


def test_zero_vectors_have_no_cosine_and_no_infinite_gradient():
    q = torch.zeros(2, 2, dtype=F64, requires_grad=True)
    pattern = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([0, 1]), 2)[0]
    A = attention(pattern, q, torch.eye(2, dtype=F64), kernel="cosine")
    assert A.values.tolist() == [0.5, 0.5]
    A.values[0].backward()
    assert q.grad.abs().max() < 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_layer_is_attention_of_its_linear_maps_and_all_of_it_learns(kernel):
    layer = Attention(3, 4, heads=2, kernel=kernel, over="sender").double()
    pattern, x = sample(), torch.randn(6, 3, dtype=F64)
    scale, length = (None, 1.0) if kernel != "distance" else (2.25, 0.5)
    if kernel == "distance":
        layer.amplitude.data.fill_(1.5)
        layer.length.data.fill_(0.5)
    q = x @ layer.query.weight.T + layer.query.bias
    k = x @ layer.key.weight.T + layer.key.bias
    expected = attention(
        pattern, q, k, kernel=kernel, heads=2, over="sender", scale=scale, length=length
    )
    A = layer(pattern, x)
    assert torch.allclose(A.values, expected.values, rtol=0, atol=1e-14)
    assert A.stochastic == "col"
    (A @ x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    assert len({tuple(row) for row in layer.query.weight.tolist()}) == 4
    assert f"kernel='{kernel}'" in repr(layer)


def test_unknown_names_and_sizes_are_refused():
    pattern, x = Pattern.identity(2), torch.ones(2, 4)
    for wrong in ({"kernel": "dot"}, {"normalise": "max"}, {"over": "row"}):
        with pytest.raises(ValueError, match="allowed: "):
            attention(pattern, x, x, **wrong)
        with pytest.raises(ValueError, match="allowed: "):
            Attention(4, 4, **wrong)
    with pytest.raises(ValueError, match="3 heads do not divide 4 dims"):
        attention(pattern, x, x, heads=3)
    with pytest.raises(ValueError, match="3 heads do not divide 4 dims"):
        Attention(4, 4, heads=3)
    with pytest.raises(ValueError, match=r"q and k are both \[2, dims\]"):
        attention(pattern, x, torch.ones(2, 3))
    with pytest.raises(ValueError, match="2 entries"):
        attention(pattern, x, x, weights=torch.ones(3))


@pytest.mark.parametrize("over", ["receiver", "sender"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_groups_with_scores_beyond_all_range_leave_the_others_as_they_are(over, dtype):
    group = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    ends = (group, torch.arange(7)) if over == "receiver" else (torch.arange(7), group)
    pattern, slot = Pattern.from_edges(*ends, 8)
    ones, scores = torch.ones(2, 8, 1, dtype=dtype)
    scores[:7, 0] = torch.tensor([0.5, 1.5, 3e3, 3e3 + 1, -3e3, -3e3 - 1, 7e3])

    def shares(scores):
        pair = (ones, scores) if over == "receiver" else (scores, ones)
        return attention(pattern, *pair, scale=1.0, over=over).values[slot]

    share = torch.tensor(1.0, dtype=F64).sigmoid()
    less, one = 1.0 - share, torch.tensor(1.0, dtype=F64)
    expected = torch.stack([less, share, less, share, share, less, one])
    found = shares(scores)
    assert torch.allclose(found.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=0)
    calm = torch.where(scores.abs() < 10, scores, 0.0)
    assert torch.equal(shares(calm)[:2], found[:2])


def test_softmax_is_differentiable_twice_in_both_directions():
    pattern = sample(4)
    q, k = (torch.randn(4, 4, dtype=F64, requires_grad=True) for _ in range(2))
    weights = torch.rand(pattern.nnz, dtype=F64) + 0.1
    for settings in ({}, {"weights": weights, "over": "sender"}):

        def values(q, k, s=settings):
            return attention(pattern, q, k, heads=2, **s).values

        assert gradcheck(values, (q, k), check_forward_ad=True)
        assert gradgradcheck(values, (q, k), check_fwd_over_rev=True)


def test_the_layer_gives_its_entries_alone_and_is_differentiable_twice():
    layer, pattern = Attention(3, 4, heads=2).double(), sample(4)
    x = torch.randn(4, 3, dtype=F64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def values(x, *parameters):
        named = dict(zip(names, parameters, strict=True))
        call = torch.func.functional_call
        return call(_Entries(layer), {f"layer.{n}": p for n, p in named.items()}, (pattern, x))

    assert torch.allclose(values(x, *parameters), layer(pattern, x).values, rtol=0, atol=1e-15)
    assert gradcheck(values, (x, *parameters), check_forward_ad=True)
    assert gradgradcheck(values, (x, *parameters))


class _Entries(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, pattern, x):
        return self.layer.values(pattern, x)
