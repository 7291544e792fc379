"""Uniformisation against mpmath and closed forms; maximum principles to the bit."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import SparseOperator
from solvers.exact import propagate
from solvers.uniformisation import Uniformisation

DOUBLE, SINGLE = torch.float64, torch.float32
EPS = torch.finfo(DOUBLE).eps
# Node 4 only listens, nodes 5 and 6 form a component of their own, 7 is isolated.
ARCS = torch.tensor([[0, 1, 2, 0, 3, 1, 3, 5, 6], [1, 2, 0, 3, 1, 4, 4, 6, 5]])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0, 4.0, 0.25], dtype=DOUBLE)


def directed(leaves: int = 0) -> Graph:
    """A directed graph with weights; with leaves, node 0 listens to that many more."""
    more = torch.stack([torch.arange(8, 8 + leaves), torch.zeros(leaves, dtype=torch.int64)])
    weights = torch.cat([WEIGHTS, torch.ones(leaves, dtype=DOUBLE)])
    return Graph(torch.cat([ARCS, more], 1), 8 + leaves, weights)


def ends(t: float) -> Tensor:
    return torch.tensor([0.0, t], dtype=DOUBLE)


def exact(A: SparseOperator, t: float, x: Tensor) -> Tensor:
    with mpmath.workdps(60):
        flow = mpmath.expm(mpmath.matrix((t * A.to_dense()).tolist()))
        return torch.tensor((flow * mpmath.matrix(x.tolist())).tolist(), dtype=DOUBLE)


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts the states that autograd keeps."""

    def __init__(self, shape: torch.Size) -> None:
        self.count = 0

        def pack(tensor: Tensor) -> Tensor:
            self.count += tensor.shape == shape
            return tensor

        super().__init__(pack, lambda tensor: tensor)


def rebuilt(like: SparseOperator, values: Tensor) -> SparseOperator:
    return SparseOperator.tagged(like.pattern, values, like.tags, like.graphs)


@pytest.mark.parametrize("norm", ["comb", "rw"])
@pytest.mark.parametrize("t", [1e-8, 1.0, 40.0, 1e3])
def test_the_tolerance_is_a_guarantee_on_directed_graphs(norm: str, t: float) -> None:
    A = -directed().laplacian(norm, dtype=DOUBLE)
    noise = torch.randn(8, 2, dtype=DOUBLE)
    q = t * A.rate.item()
    for x0 in (noise, 1 + 1e-3 * noise):
        reference = exact(A, t, x0)
        scale = max(x0.abs().max().item(), reference.abs().max().item())
        for rtol in (1e-3, 1e-6, 1e-10, 1e-12):
            if rtol >= 4 * (q + 20) * EPS:
                found = propagate(A, x0, ends(t), rtol=rtol)
                assert found.method == "uniformisation"
                assert "max-norm" in found.reason
                assert (found.x[1] - reference).abs().max() <= rtol * scale
        for rtol in (1e-3, 1e-5):
            single = propagate(A, x0.float(), ends(t), rtol=rtol).x[1].double()
            off = single - exact(A, t, x0.float().double()) if t > 1 else single - reference
            assert off.abs().max() <= (rtol + 1e-7) * scale


def test_a_hub_with_many_senders_keeps_the_tolerance() -> None:
    # Leaves do not change; the hub relaxes to their mean at the rate of its degree.
    n, t = 200, 5.0
    arcs = torch.stack([torch.arange(1, n + 1), torch.zeros(n, dtype=torch.int64)])
    arcs = torch.cat([arcs, torch.tensor([[0], [1]])], 1)
    weights = torch.ones(n + 1, dtype=DOUBLE)
    weights[-1] = 1e-300
    A = -Graph(arcs, n + 1, weights).laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(n + 1, 3, dtype=DOUBLE)
    mean = x0[1:].mean(0)
    rtol = 4.1 * (n * t + 20) * EPS
    found = propagate(A, x0, ends(t), rtol=rtol).x[1]
    reference = torch.cat([(mean + math.exp(-n * t) * (x0[0] - mean))[None], x0[1:]])
    assert (found - reference).abs().max() <= rtol * x0.abs().max()


@settings(max_examples=12)
@given(st.integers(0, 2**16), st.sampled_from([SINGLE, DOUBLE]), st.floats(0.0, 100.0))
def test_maximum_principles_hold_to_the_bit(seed: int, dtype: torch.dtype, t: float) -> None:
    A = -directed(30).laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(38, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    x0[:, 1] = 0.1
    x = propagate(A, x0, torch.tensor([0.0, t / 3, t], dtype=DOUBLE), rtol=1e-3).x
    assert (x.amin(1) >= x0.amin(0)).all()
    assert (x.amax(1) <= x0.amax(0)).all()
    assert torch.equal(x[:, :, 1], x0[:, 1].expand(3, -1))


def test_what_is_confined_was_off_by_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    A = -directed(30).laplacian("comb", dtype=DOUBLE)
    x0 = torch.rand(38, 2, dtype=DOUBLE)
    kept = propagate(A, x0, ends(50.0), rtol=1e-9).x
    monkeypatch.setattr(Uniformisation, "confine", lambda self, x, y: None)
    free = propagate(A, x0, ends(50.0), rtol=1e-9).x
    assert (kept - free).abs().max() <= 1e-12


def test_long_times_need_no_splitting() -> None:
    # One arc: the receiver relaxes to the sender; q = 3e4.
    A = -directed().laplacian("rw", dtype=DOUBLE)
    x0 = torch.randn(8, 1, dtype=DOUBLE)
    found = propagate(A, x0, ends(3e4), rtol=1e-8)
    assert 3e4 < found.degree < 3.2e4
    assert torch.allclose(found.x[1, 5:7], x0[5:7].mean().expand(2, 1), rtol=1e-8)
    assert torch.allclose(found.x[1, 7], x0[7], rtol=1e-12)


def test_columns_conserve_mass_in_the_1_norm() -> None:
    A = (-directed().laplacian("comb", dtype=DOUBLE)).T
    assert A.generator == "col"
    x0 = torch.rand(8, 2, dtype=DOUBLE)
    found = propagate(A, x0, ends(3.0), rtol=1e-11)
    assert "1-norm" in found.reason
    off = (found.x[1] - exact(A, 3.0, x0)).abs().sum()
    assert off <= 1e-11 * x0.abs().sum()
    assert torch.allclose(found.x[1].sum(0), x0.sum(0), rtol=1e-13)
    assert (found.x >= 0).all()


def test_stochastic_operators_are_exponentiated_as_they_are() -> None:
    P = directed().adjacency("row", self_loops=1.0, dtype=DOUBLE)
    assert P.stochastic == "row"
    x0, b = torch.randn(2, 8, 2, dtype=DOUBLE).unbind()
    for t in (1e-3, 2.0, 9.0):
        found = propagate(P, x0, ends(t), rtol=1e-9, source=b).x[1]
        extended = torch.zeros(10, 10, dtype=DOUBLE)
        extended[:8, :8], extended[:8, 8:] = t * P.to_dense(), t * b
        flow = torch.linalg.matrix_exp(extended)
        reference = flow[:8, :8] @ x0 + flow[:8, 8:]
        assert (found - reference).abs().max() <= 1e-9 * max(reference.abs().max(), x0.abs().max())


def test_it_agrees_with_chebyshev_where_both_apply() -> None:
    graph = directed().undirected()
    A = -graph.laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(8, 3, dtype=DOUBLE)
    times = torch.tensor([0.0, 0.1, 4.0], dtype=DOUBLE)
    one, other = (
        propagate(A, x0, times, rtol=1e-11, method=method)
        for method in ("chebyshev", "uniformisation")
    )
    assert torch.allclose(one.x, other.x, atol=1e-10)
    assert propagate(A, x0, times, rtol=1e-11).method == "chebyshev"


def test_backward_time_is_refused() -> None:
    A = -directed().laplacian("rw", dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"backward diffusion.*explicit method"):
        propagate(A, torch.ones(8, 1), torch.tensor([0.0, -1.0]), rtol=1e-4)


@pytest.mark.parametrize("grad", ["auto", "tape"])
@pytest.mark.parametrize("kind", ["generator", "stochastic"])
def test_gradients_of_everything_are_exact(grad: str, kind: str) -> None:
    graph = directed()
    A = (
        -graph.laplacian("rw", dtype=DOUBLE)
        if kind == "generator"
        else graph.adjacency("row", self_loops=1.0, dtype=DOUBLE)
    )
    x, b = torch.randn(2, 8, 1, dtype=DOUBLE, requires_grad=True).unbind()
    t = torch.tensor([0.4, 1.1, 5.0], dtype=DOUBLE, requires_grad=True)

    def solve(values: Tensor, x: Tensor, b: Tensor, t: Tensor) -> Tensor:
        times = torch.cat([torch.zeros(1, dtype=DOUBLE), t])
        if kind == "generator":
            # Rows go on summing to zero, as the tag says.
            sums = torch.zeros(8, dtype=DOUBLE).index_add(0, A.pattern.row, values)
            values = values.index_add(0, A.pattern.diagonal, -sums)
        return propagate(rebuilt(A, values), x, times, rtol=1e-10, source=b, grad=grad).x

    inputs = (A.values.detach().requires_grad_(), x.detach().requires_grad_(), b, t)
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-6, fast_mode=grad == "tape")
    if grad == "tape":
        assert torch.autograd.gradgradcheck(solve, inputs, atol=1e-4, fast_mode=True)


def test_gradients_keep_about_the_root_of_the_degree_in_states() -> None:
    A = -directed(30).laplacian("comb", dtype=DOUBLE)
    x0, gradients, kept, degree = torch.randn(38, 2, dtype=DOUBLE), [], [], 0
    for grad in ("tape", "auto"):
        values = A.values.detach().requires_grad_()
        saved = Saved(x0.shape)
        with saved:
            found = propagate(rebuilt(A, values), x0, ends(9.0), rtol=1e-6, grad=grad)
        (gradient,) = torch.autograd.grad((found.x[1] ** 2).sum(), values)
        gradients.append(gradient)
        kept.append(saved.count)
        degree = found.degree
    assert degree > 300
    assert kept[1] <= math.sqrt(degree) + 2 < kept[0] / 10
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-12)


def test_gradients_in_a_batch_are_those_of_its_graphs() -> None:
    graphs = [directed(), directed(5), Graph(torch.zeros(2, 0, dtype=torch.int64), 2)]
    batch = Graph.union(graphs)
    A = -batch.laplacian("comb", dtype=DOUBLE)
    values = A.values.detach().requires_grad_()
    x0 = torch.randn(batch.num_nodes, 2, dtype=DOUBLE)
    times = np.array([[0.0, 0.0, 0.0], [1.0, 3.0, 9.0]])
    x = propagate(rebuilt(A, values), x0, torch.as_tensor(times), rtol=1e-9).x
    (together,) = torch.autograd.grad((x[1] ** 2).sum(), values)
    nodes = entries = 0
    for i, graph in enumerate(graphs):
        own = -graph.laplacian("comb", dtype=DOUBLE)
        v = own.values.detach().requires_grad_()
        rows = slice(nodes, nodes + graph.num_nodes)
        alone = propagate(
            rebuilt(own, v),
            x0[rows],
            torch.as_tensor(times[:, i]),
            rtol=1e-9,
            method="uniformisation",
        ).x
        (gradient,) = torch.autograd.grad((alone[1] ** 2).sum(), v)
        assert torch.allclose(together[entries : entries + len(v)], gradient, rtol=1e-9, atol=1e-12)
        nodes, entries = rows.stop, entries + len(v)
