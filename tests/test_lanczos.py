"""Lanczos' method against dense exponentials: tolerances, products, save times, gradients."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modes import DOUBLE, EPS, GRAPHS, Modes, ends, preferential
from strategies import graphs, states
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Diffusion, Heat, Reaction, Source
from neuralpde.operators import SparseOperator, products
from solvers.exact import propagate


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
def test_the_tolerance_is_met_by_every_column(graph: str, norm: str) -> None:
    A = -GRAPHS[graph].laplacian(norm, dtype=DOUBLE)
    modes, nodes = Modes(A), A.num_nodes
    noise = torch.randn(nodes, 2, dtype=DOUBLE)
    kernel = modes.vectors[:, modes.values == 0].sum(1, keepdim=True) / modes.root
    x0 = torch.cat([noise, kernel + 1e-3 * noise[:, :1], torch.eye(nodes, dtype=DOUBLE)[:, :1]], 1)
    for t in (1e-8, 1.0, 40.0, 1e3):
        exact, reach = modes.at(t, x0), -t * A.spectrum()[0].item() / 2
        for rtol in (1e-3, 1e-6, 1e-10):
            if rtol > 20 * (reach + 20) * EPS:
                found = propagate(A, x0, ends(t), rtol=rtol, method="lanczos")
                assert modes.off(found.x[1], exact, x0) <= rtol


@pytest.mark.parametrize("t", [0.3, 30.0])
def test_scipy_agrees(t: float) -> None:
    A = -GRAPHS["preferential"].laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(150, 3, dtype=DOUBLE)
    exact = torch.from_numpy(scipy.linalg.expm(t * A.to_dense().numpy())) @ x0
    found = propagate(A, x0, ends(t), rtol=1e-9, method="lanczos")
    assert (found.x[1] - exact).norm() <= 1e-9 * x0.norm()


@pytest.mark.parametrize("t", [0.01, 1.0, 30.0, 1e3])
def test_the_smallest_possible_tolerance_is_met(t: float) -> None:
    # Where rounding, which the bound does not count, would show first.
    for name, norm in (("preferential", "comb"), ("lollipop", "comb"), ("path", "sym")):
        A = -GRAPHS[name].laplacian(norm, dtype=DOUBLE)
        modes, x0 = Modes(A), torch.randn(A.num_nodes, 2, dtype=DOUBLE)
        with pytest.raises(ValueError, match="smallest possible rtol") as refusal:
            propagate(A, x0, ends(t), rtol=1e-16, method="lanczos")
        least = float(str(refusal.value).split()[-1])
        found = propagate(A, x0, ends(t), rtol=least, method="lanczos")
        # The reference knows an eigenvalue to eps |A| only.
        assert modes.off(found.x[1], modes.at(t, x0), x0) <= 1.5 * least


def test_strong_decay_leaves_nothing_and_no_warning() -> None:
    A = (-catalogue.star(20).laplacian("comb", dtype=DOUBLE)).shifted(1.0, -300.0)
    x0 = torch.randn(20, 2, dtype=DOUBLE)
    x = propagate(A, x0, ends(0.01, 10.0), rtol=1e-9, method="lanczos").x
    assert torch.allclose(x[1], Modes(A).at(0.01, x0), rtol=0, atol=1e-9)
    assert x[2].abs().max() == 0


def test_growth_is_counted_in() -> None:
    B = catalogue.star(30).adjacency("none", dtype=DOUBLE)
    modes, x0 = Modes(B), torch.randn(30, 2, dtype=DOUBLE)
    for t in (1.0, 3.0, -3.0):
        for rtol in (1e-3, 1e-9):
            found = propagate(B, x0, ends(t), rtol=rtol, method="lanczos")
            assert modes.off(found.x[1], modes.at(t, x0), x0) <= rtol
    with pytest.raises(ValueError, match="backward diffusion"):
        propagate(
            -catalogue.star(5).laplacian("comb", dtype=DOUBLE),
            x0[:5],
            ends(-1.0),
            rtol=1e-3,
            method="lanczos",
        )


@pytest.mark.parametrize("t", [10.0, 100.0])
def test_fewer_products_than_chebyshev_where_hubs_cluster_the_spectrum(t: float) -> None:
    A = -preferential(400).laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(400, 4, dtype=DOUBLE)
    for rtol in (1e-3, 1e-6, 1e-9):
        before = products.total
        few = propagate(A, x0, ends(t), rtol=rtol, method="lanczos")
        assert few.products == products.total - before
        many = propagate(A, x0, ends(t), rtol=rtol, method="chebyshev")
        assert (1.6 if t < 50 else 3.5) * few.products < many.products
    star = -catalogue.star(300).laplacian("comb", dtype=DOUBLE)
    # Three eigenvalues are three products.
    assert (
        propagate(
            star, torch.randn(300, 2, dtype=DOUBLE), ends(t), rtol=1e-9, method="lanczos"
        ).products
        == 3
    )


def test_one_basis_gives_all_saved_times() -> None:
    A = -GRAPHS["preferential"].laplacian("sym", dtype=DOUBLE)
    modes, x0 = Modes(A), torch.randn(150, 2, dtype=DOUBLE)
    times = ends(1e-3, 1.0, 1.0, 7.0, 20.0)
    found = propagate(A, x0, times, rtol=1e-8, method="lanczos")
    assert found.products == propagate(A, x0, ends(20.0), rtol=1e-8, method="lanczos").products
    for t, x in zip(times.tolist(), found.x, strict=True):
        assert modes.off(x, modes.at(t, x0), x0) <= 1e-8


def test_beyond_a_hundred_vectors_a_new_basis_starts() -> None:
    A = -catalogue.path(200).laplacian("comb", dtype=DOUBLE)
    modes, x0 = Modes(A), torch.randn(200, 2, dtype=DOUBLE)
    times = ends(100.0, 700.0, 1500.0)
    found = propagate(A, x0, times, rtol=1e-7, method="lanczos")
    assert found.degree == 100
    assert found.products > 200
    assert "bases of up to 100 vectors" in found.reason
    for t, x in zip(times.tolist(), found.x, strict=True):
        assert modes.off(x, modes.at(t, x0), x0) <= 1e-7


@pytest.mark.parametrize("t", [1e-3, 1.0, 20.0, 400.0])
def test_sources_enter_through_the_slope(t: float) -> None:
    A = -GRAPHS["several"].laplacian("comb", dtype=DOUBLE)
    x0, b = torch.randn(2, 33, 2, dtype=DOUBLE).unbind()
    extended = np.zeros((35, 35))
    for state in (x0, 0 * x0, 1e-9 * x0):
        for source in (b, A @ b):
            extended[:33, :33], extended[:33, 33:] = A.to_dense().numpy(), source.numpy()
            flow = torch.from_numpy(scipy.linalg.expm(t * extended))
            exact = flow[:33, :33] @ state + flow[:33, 33:]
            found = propagate(A, state, ends(t), rtol=1e-7, source=source, method="lanczos")
            scale = torch.maximum(state.norm(dim=0), exact.norm(dim=0))
            assert ((found.x[1] - exact).norm(dim=0) <= 1e-7 * scale).all()


@settings(max_examples=25)
@given(st.data())
def test_a_batch_gives_what_its_graphs_give_alone(data: st.DataObject) -> None:
    parts = data.draw(st.lists(graphs(max_nodes=6), min_size=1, max_size=4))
    batch = Graph.union(parts)
    x0 = data.draw(states(batch))
    t = torch.tensor([[0.0], [0.5], [9.0]], dtype=DOUBLE) * torch.linspace(
        1, 3, batch.num_graphs, dtype=DOUBLE
    )
    for norm in ("comb", "rw"):
        A = -batch.laplacian(norm, dtype=DOUBLE)
        together = propagate(A, x0, t, rtol=1e-6, source=x0, method="lanczos").x
        start = 0
        for i, graph in enumerate(parts):
            rows = slice(start, start + graph.num_nodes)
            own = -graph.laplacian(norm, dtype=DOUBLE)
            alone = propagate(
                own, x0[rows], t[:, i], rtol=1e-6, source=x0[rows], method="lanczos"
            ).x
            # To rounding, which a batch adds up in another order, and to nothing else.
            assert torch.allclose(together[:, rows], alone, rtol=0, atol=1e-11)
            start = rows.stop


def test_columns_stop_on_their_own() -> None:
    A = -GRAPHS["preferential"].laplacian("comb", dtype=DOUBLE)
    x0 = torch.randn(150, 3, dtype=DOUBLE)
    x0[:, 1] = 0.0
    x0[:, 2] = 1.0
    together = propagate(A, x0, ends(10.0), rtol=1e-8, method="lanczos")
    for c in range(3):
        alone = propagate(A, x0[:, [c]], ends(10.0), rtol=1e-8, method="lanczos")
        assert torch.allclose(together.x[..., [c]], alone.x, rtol=0, atol=1e-12)
        assert (alone.products > 1) == (c == 0)
    assert (together.x[1, :, 1] == 0).all()


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_gradients_of_everything_are_exact(norm: str) -> None:
    A = -catalogue.lollipop(3, 3).laplacian(norm, dtype=DOUBLE)
    x, b = torch.randn(2, 6, 2, dtype=DOUBLE).unbind()
    t, rate = torch.tensor([0.4, 1.1, 5.0], dtype=DOUBLE), torch.tensor(0.7, dtype=DOUBLE)

    def run(rate: Tensor, x: Tensor, b: Tensor, t: Tensor) -> Tensor:
        moved = torch.cat([torch.zeros(1, dtype=DOUBLE), t])
        return propagate(A * rate, x, moved, rtol=1e-10, source=b, method="lanczos").x

    inputs = [v.clone().requires_grad_() for v in (rate, x, b, t)]
    assert torch.autograd.gradcheck(run, inputs, atol=1e-6)
    values = A.values.clone().requires_grad_()
    own, found = SparseOperator.tagged(A.pattern, values, A.tags, A.graphs), []
    for method in ("lanczos", "chebyshev"):
        y = propagate(own, x, ends(0.4, 2.0), rtol=1e-10, method=method).x
        found += torch.autograd.grad((y**2).sum(), values)
    assert torch.allclose(*found, rtol=1e-8)
    with pytest.raises(ValueError, match="grad='auto'"):
        propagate(A, x, ends(1.0), rtol=1e-6, method="lanczos", grad="tape")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_states_are_propagated_in_float64_and_cast(dtype: torch.dtype) -> None:
    graph = GRAPHS["preferential"]
    x0 = torch.randn(150, 2).to(dtype)
    A = -graph.laplacian("comb", dtype=DOUBLE)
    found = propagate(A, x0, ends(30.0), rtol=1e-6, method="lanczos")
    assert found.x.dtype is dtype
    exact = Modes(A).at(30.0, x0)
    allowed = 1e-6 * x0.double().norm() + torch.finfo(dtype).eps * exact.norm()
    assert (found.x[1].double() - exact).norm() <= allowed
    assert "in float64" in found.reason
    assert ("rounded to" in found.reason) == (dtype is torch.bfloat16)


def test_it_is_a_solver_by_name_and_says_what_its_tolerance_rests_on() -> None:
    graph = catalogue.lollipop(8, 8)
    x0 = torch.randn(16, 2, dtype=DOUBLE)
    traj = solve(Heat(), x0, [0.0, 1.0, 5.0], graph, solver="lanczos", rtol=1e-8)
    assert traj.stats.solver == "lanczos"
    assert "a-posteriori" in traj.stats.reason
    assert "rounding not counted" in traj.stats.reason
    modes = Modes(-graph.laplacian("comb", dtype=DOUBLE))
    assert modes.off(traj.final, modes.at(5.0, x0), x0) <= 1e-8
    assert modes.off(traj.at(3.3), modes.at(3.3, x0), x0) <= 1e-8
    driven = solve(Heat() + Source(x0), x0, 3.0, graph, solver="lanczos", rtol=1e-8)
    chebyshev = solve(Heat() + Source(x0), x0, 3.0, graph, solver="chebyshev", rtol=1e-10)
    assert torch.allclose(driven.final, chebyshev.final, rtol=1e-7)
    start = x0.clone().requires_grad_()
    final = solve(Heat(), start, 5.0, graph, solver="lanczos", rtol=1e-8).final
    (g,) = torch.autograd.grad(final, start, x0)
    assert modes.off(g, modes.at(5.0, x0), x0) <= 1e-7


def test_what_it_cannot_do_is_refused() -> None:
    graph, x0 = catalogue.path(4), torch.randn(4, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match="needs a linear field"):
        solve(Heat() + Reaction.allen_cahn(), x0, 1.0, graph, solver="lanczos")
    ring = Graph(torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), 3)
    with pytest.raises(ValueError, match=r"lanczos needs a self-adjoint.*uniformisation"):
        solve(Heat("rw"), x0[:3], 1.0, ring, solver="lanczos")
    with pytest.raises(ValueError, match="one way"):
        propagate(
            graph.adjacency("none", dtype=DOUBLE),
            x0,
            torch.tensor([0.0, 1.0, -1.0]),
            rtol=1e-3,
            method="lanczos",
        )
    with pytest.raises(ValueError, match="NaN or infinite"):
        propagate(-graph.laplacian(dtype=DOUBLE), x0 / 0, ends(1.0), rtol=1e-3, method="lanczos")


def test_states_without_anything_to_do_come_back() -> None:
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), 4)
    x0 = torch.randn(4, 2, dtype=DOUBLE)
    field = Diffusion(lambda graph, x0: -graph.laplacian("comb", dtype=DOUBLE))
    traj = solve(field, x0, 5.0, empty, solver="lanczos", rtol=1e-9)
    assert torch.allclose(traj.final, x0, rtol=4 * EPS)
    A = -empty.laplacian("comb", dtype=DOUBLE)
    assert propagate(A, x0[:, :0], ends(1.0), rtol=1e-9, method="lanczos").x.shape == (2, 4, 0)
    fast = propagate(A, x0, torch.zeros(3, dtype=DOUBLE), rtol=1e-9, method="lanczos")
    assert fast.products == 0
    assert math.isclose(fast.x.sum().item(), 3 * x0.sum().item())
