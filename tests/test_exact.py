"""Exact solves as a whole: batches, shapes, sources, saved times, and what is refused."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import products
from solvers.coefficients import degree_bound
from solvers.exact import propagate
from solvers.segments import START, UPDATE, Plan, restarts

DOUBLE, SINGLE = torch.float64, torch.float32


def random_graph(nodes: int, edges: int, seed: int) -> Graph:
    index = torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))
    index = index[:, index[0] != index[1]]
    return Graph(torch.cat([index, index.flip(0)], 1).unique(dim=1), nodes)


SIZES = [(7, 12), (50, 300), (1, 1), (33, 40), (5, 0), (90, 500)]
GRAPHS = [random_graph(*size, seed) for seed, size in enumerate(SIZES)]
BATCH = Graph.union(GRAPHS)
SCALES = torch.tensor([0.1, 1.0, 3.0, 10.0, 1.0, 40.0], dtype=DOUBLE)
OWN_TIMES = torch.tensor([0.0, 0.3, 1.0, 1.1, 1.2, 2.0], dtype=DOUBLE)[:, None] * SCALES


def matrix_exp(A: Tensor, t: float, x: Tensor, b: Tensor) -> Tensor:
    """The affine solution, from the exponential of the matrix extended by the source."""
    n, c = b.shape
    extended = torch.zeros(n + c, n + c, dtype=DOUBLE)
    extended[:n, :n], extended[:n, n:] = t * A, t * b
    flow = torch.linalg.matrix_exp(extended)
    return flow[:n, :n] @ x + flow[:n, n:]


@pytest.mark.parametrize("method", ["chebyshev", "uniformisation"])
@pytest.mark.parametrize(("dtype", "rtol"), [(SINGLE, 1e-3), (SINGLE, 1e-4), (DOUBLE, 1e-8)])
@pytest.mark.parametrize("channels", [1, 33])
@pytest.mark.parametrize("sourced", [False, True])
def test_a_batch_gives_bit_for_bit_what_its_graphs_give_alone(
    method: str, dtype: torch.dtype, rtol: float, channels: int, sourced: bool
) -> None:
    x0 = torch.randn(BATCH.num_nodes, channels, dtype=dtype)
    source = torch.randn_like(x0) if sourced else None
    for norm in ("comb", "rw"):
        for times in (OWN_TIMES, torch.tensor([0.0, 1.0, 9.0], dtype=DOUBLE)):
            A = -BATCH.laplacian(norm, dtype=DOUBLE)
            together = propagate(A, x0, times, rtol=rtol, source=source, method=method).x
            start = 0
            for i, graph in enumerate(GRAPHS):
                rows = slice(start, start + graph.num_nodes)
                alone = propagate(
                    -graph.laplacian(norm, dtype=DOUBLE),
                    x0[rows],
                    times[:, i] if times.dim() == 2 else times,
                    rtol=rtol,
                    source=None if source is None else source[rows],
                    method=method,
                ).x
                assert torch.equal(together[:, rows], alone)
                start = rows.stop


@pytest.mark.parametrize("method", ["chebyshev", "uniformisation"])
def test_sources_enter_exactly_and_the_tolerance_counts_where_the_state_is_small(
    method: str,
) -> None:
    graph = GRAPHS[1]
    A = -graph.laplacian("comb", dtype=DOUBLE)
    x0, b = torch.randn(2, 50, 2, dtype=DOUBLE).unbind()
    rough = A @ (A @ b)
    for state in (x0, 0 * x0, 1e-9 * x0):
        for source in (b, rough / rough.norm()):
            for t in (1e-3, 1.0, 20.0):
                times = torch.tensor([0.0, t], dtype=DOUBLE)
                found = propagate(A, state, times, rtol=1e-6, source=source, method=method)
                exact = matrix_exp(A.to_dense(), t, state, source)
                norm = torch.linalg.vector_norm if method == "chebyshev" else torch.amax
                off, size, start = (
                    norm(v.abs()).item() for v in (found.x[1] - exact, exact, state)
                )
                assert off <= 1e-6 * max(size, start)


def test_zero_states_stay_zero_and_time_zero_is_exact() -> None:
    A = -GRAPHS[0].laplacian("sym", dtype=DOUBLE)
    times = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=DOUBLE)
    zero = torch.zeros(7, 2, dtype=DOUBLE)
    assert (propagate(A, zero, times, rtol=1e-9, source=zero).x == 0).all()
    x0 = torch.randn(7, 2, dtype=SINGLE)
    for rtol in (1e-3, 1e-9):
        x = propagate(A, x0, times, rtol=rtol).x
        assert torch.equal(x[0], x0)
        assert torch.equal(x[1], x0)
        assert torch.equal(x[2], x[3])


@pytest.mark.parametrize("shape", [(), (2, 3), (0,), (1,)])
def test_any_trailing_shape_is_a_state(shape: tuple[int, ...]) -> None:
    A = -GRAPHS[0].laplacian("sym", dtype=DOUBLE)
    x0 = torch.randn(7, *shape, dtype=DOUBLE)
    times = torch.tensor([0.0, 0.5, 3.0], dtype=DOUBLE)
    x = propagate(A, x0, times, rtol=1e-10).x
    assert x.shape == (3, 7, *shape)
    flow = torch.linalg.matrix_exp(3.0 * A.to_dense())
    assert torch.allclose(x[2], torch.tensordot(flow, x0, 1), atol=1e-9)


def test_complex_states_are_two_real_ones() -> None:
    A = -GRAPHS[0].laplacian("rw", dtype=DOUBLE)
    x0 = torch.randn(7, 2, dtype=torch.complex128)
    times = torch.tensor([0.0, 2.0], dtype=DOUBLE)
    x = propagate(A, x0, times, rtol=1e-8, source=x0).x
    for part in ("real", "imag"):
        own = getattr(x0, part).contiguous()
        alone = propagate(A, own, times, rtol=1e-8, source=own).x
        assert torch.allclose(getattr(x, part), alone, rtol=1e-7, atol=1e-10)


def test_half_precision_states_are_cast() -> None:
    A = -GRAPHS[0].laplacian("sym", dtype=DOUBLE)
    x0 = torch.randn(7, 2, dtype=torch.bfloat16)
    times = torch.tensor([0.0, 2.0], dtype=DOUBLE)
    x = propagate(A, x0, times, rtol=1e-3).x
    assert x.dtype is torch.bfloat16
    assert torch.equal(x, propagate(A, x0.float(), times, rtol=1e-3).x.bfloat16())


def test_no_times_are_legal() -> None:
    A = -GRAPHS[0].laplacian("sym", dtype=DOUBLE)
    x0 = torch.randn(7, 2, dtype=DOUBLE)
    for times in (torch.zeros(0, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)):
        assert propagate(A, x0, times, rtol=1e-6).x.shape == (len(times), 7, 2)


def test_many_saved_times_cost_fewer_sums_and_keep_the_tolerance() -> None:
    A = -GRAPHS[1].laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(50, 3, dtype=DOUBLE)
    times = torch.linspace(0, 60, 121, dtype=DOUBLE)
    before = products.total
    found = propagate(A, x0, times, rtol=1e-8)
    assert products.total - before == found.products
    single = propagate(A, x0, times[[0, -1]], rtol=1e-8)
    assert found.degree < single.degree < found.products
    for t, x in zip(times.tolist(), found.x, strict=True):
        exact = torch.linalg.matrix_exp(t * A.to_dense()) @ x0
        assert (x - exact).norm() <= 1e-8 * x0.norm()


def test_restarts_are_the_cheapest_of_all_choices() -> None:
    reach = np.cumsum([0.0, 0.1, 30.0, 0.1, 0.1, 60.0, 5.0, 5.0])

    def cost(starts: tuple[int, ...]) -> float:
        total = 0.0
        for start, end in zip(starts, [*starts[1:], 7], strict=True):
            degrees = degree_bound(reach[start + 1 : end + 1] - reach[start], 1e-6)
            total += degrees[-1] + UPDATE * degrees.sum() + START
        return total

    choices = [(0, *more) for k in range(7) for more in combinations(range(1, 7), k)]
    assert cost(tuple(restarts(reach, 1e-6, 99))) == pytest.approx(min(map(cost, choices)))
    assert restarts(reach, 1e-6, 1) == [0]
    assert restarts(-reach, 1e-6, 99) == [0]


def test_a_plan_reaches_every_time_once() -> None:
    plan = Plan([[0, 2, 3], [], [0]], 6)
    assert not plan.shared
    for graph, takes_part in enumerate([True, False, True]):
        reached = [
            time
            for first, last in zip(plan.first[:, graph], plan.last[:, graph], strict=True)
            for time in range(first + 1, last + 1)
        ]
        assert reached == ([1, 2, 3, 4, 5] if takes_part else [])


TWO = torch.tensor([0.0, 1.0], dtype=DOUBLE)
X7 = torch.ones(7, 1, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("first axis", {"x0": torch.ones(8, 1)}),
        ("floating or complex", {"x0": torch.ones(7, 1, dtype=torch.int64)}),
        ("NaN or infinite", {"x0": X7 / 0}),
        ("NaN or infinite", {"source": X7 * torch.nan}),
        ("must be like x0", {"source": torch.ones(7, 2, dtype=DOUBLE)}),
        ("must be like x0", {"source": X7 * 1j}),
        ("the first is 0", {"times": TWO + 1}),
        ("finite offsets", {"times": TWO / 0}),
        ("for each of them", {"times": torch.zeros(2, 3)}),
        ("between 0 and 1", {"rtol": 0.0}),
        ("between 0 and 1", {"rtol": 1.5}),
        ("allowed: auto", {"method": "krylov"}),
        ("allowed: auto", {"grad": "adjoint"}),
        ("shorten the interval", {"times": TWO * 1e13, "rtol": 0.5}),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    words: str, changes: dict[str, object]
) -> None:
    A = -GRAPHS[0].laplacian("sym", dtype=DOUBLE)
    before = products.total
    with pytest.raises(ValueError, match=words):
        propagate(**{"A": A, "x0": X7, "times": TWO, "rtol": 1e-4} | changes)
    assert products.total == before


def test_operators_without_an_exact_solve_are_refused_with_the_mend() -> None:
    arcs = torch.tensor([[0, 1, 2, 0, 1], [1, 2, 0, 2, 0]])
    directed = Graph(arcs, 7)
    plain = directed.adjacency("none", dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"graph\.undirected"):
        propagate(plain, X7, TWO, rtol=1e-4)
    with pytest.raises(ValueError, match="uniformisation"):
        propagate(-directed.laplacian("rw", dtype=DOUBLE), X7, TWO, rtol=1e-4, method="chebyshev")
    sym = -GRAPHS[0].laplacian("sym", dtype=DOUBLE)
    with pytest.raises(ValueError, match="chebyshev"):
        propagate(sym, X7, TWO, rtol=1e-4, method="uniformisation")
