"""Bundle diffusion: exact heat kernels in frames, their limits, and Taylor's series beside them."""

import pytest
import torch
from torch import Tensor

from neuralpde import catalogue
from neuralpde.fields import BundleDiffusion, Heat
from neuralpde.fields.maps import Frames
from neuralpde.graph import Graph
from neuralpde.operators import products
from neuralpde.solve import solve
from neuralpde.testing import check_field
from tests.sheaves import F64


def field_of(channels: int = 2, stalk: int = 3, **settings: object) -> BundleDiffusion:
    return BundleDiffusion(channels, stalk, **settings).double()


def state(graph: Graph, channels: int = 2, stalk: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.num_nodes, stalk, channels, generator=generator, dtype=F64)


def framed(field: BundleDiffusion, x: Tensor) -> tuple[Tensor, Tensor]:
    """The frames of x, one bundle, and x seen in them."""
    Q = field.frames(x.flatten(1)).squeeze(1)
    return Q, Q @ x


def kernel(L: Tensor, t: float, y: Tensor) -> Tensor:
    return torch.einsum("uv,vab->uab", torch.linalg.matrix_exp(-t * L), y)


@pytest.mark.parametrize("norm", ["sym", "rw", "comb", "augmented"])
@pytest.mark.parametrize("t", [0.5, 10.0])
def test_it_is_the_heat_kernel_in_the_frames(norm: str, t: float) -> None:
    graph, field = catalogue.barbell(3, 1), field_of(norm=norm, rate=0.5)
    x = state(graph)
    with torch.no_grad():
        traj = solve(field, x, t, graph, rtol=1e-10)
        Q, y = framed(field, x)
        A = -field.bind(graph, x).operator.to_dense() * 2.0
    L = graph.laplacian(norm, dtype=F64).to_dense()
    expected = Q.mT @ kernel(L, 0.5 * t, y)
    assert traj.stats.solver == "chebyshev"
    torch.testing.assert_close(traj.final, expected, rtol=0, atol=1e-9)
    by_matrix = torch.linalg.matrix_exp(-0.5 * t * A) @ x.reshape(-1, 2)
    torch.testing.assert_close(by_matrix.view_as(x), expected, rtol=0, atol=1e-12)


def test_two_times_after_each_other_are_their_sum() -> None:
    graph, field = catalogue.barbell(3, 1), field_of()
    x = state(graph)
    with torch.no_grad():
        bound = field.bind(graph, x)
        half = solve(bound, x, 1.0, rtol=1e-11).final
        twice = solve(bound, half, 1.0, rtol=1e-11).final
        torch.testing.assert_close(twice, solve(bound, x, 2.0, rtol=1e-11).final, atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", ["rw", "comb"])
def test_the_limit_is_the_mean_in_the_frames(norm: str) -> None:
    graph, field = Graph.union([catalogue.barbell(3, 1), catalogue.star(5)]), field_of(norm=norm)
    x = state(graph)
    with torch.no_grad():
        final = solve(field, x, 2000.0, graph, rtol=1e-9).final
        Q, y = framed(field, x)
    weight = graph.degree if norm == "rw" else torch.ones(graph.num_nodes, dtype=F64)
    assert graph.batch is not None
    for k in range(2):
        mine = graph.batch == k
        mean = (weight[mine, None, None] * y[mine]).sum(0) / weight[mine].sum()
        torch.testing.assert_close(final[mine], Q[mine].mT @ mean, rtol=0, atol=1e-7)


def test_frames_of_the_identity_are_heat() -> None:
    graph, x = catalogue.grid(3, 3), state(catalogue.grid(3, 3))
    plain = field_of(frames=lambda x: torch.eye(3, dtype=F64).expand(len(x), 3, 3), norm="comb")
    found, heat = (solve(f, x, 1.0, graph, rtol=1e-10) for f in (plain, Heat()))
    torch.testing.assert_close(found.final, heat.final, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.energy.y, heat.energy.y)


def test_the_energy_is_that_of_the_state_in_the_frames() -> None:
    graph, field = catalogue.barbell(3, 1), field_of(norm="sym")
    x = state(graph)
    L = graph.laplacian("sym", dtype=F64).to_dense()
    with torch.no_grad():
        traj = solve(field, x, [0.0, 0.5, 5.0], graph, rtol=1e-10)
        _, y = framed(field, x)
    assert traj.energy.convention.startswith("bundle in sym")
    for t, value in zip(traj.energy.t, traj.energy.y, strict=True):
        z = kernel(L, float(t), y)
        expected = float(torch.einsum("uab,uv,vab->", z, L, z))
        assert float(value) == pytest.approx(expected, rel=1e-8)
    stepped = solve(field, x, 5.0, graph, solver="dopri5", rtol=1e-9, atol=1e-11).energy
    assert float(stepped.y[-1]) == pytest.approx(float(traj.energy.y[-1]), rel=1e-5)


def test_near_agreement_in_the_frames_float32_reads_the_energy_right() -> None:
    """The kernel is projected out in the frames, where nothing cancels."""
    graph, field = catalogue.grid(4, 4), BundleDiffusion(1, 2, norm="comb")
    with torch.no_grad():
        field.frames.network[0].weight.mul_(1e-3)
        small = 1e-4 * torch.randn(16, 2, 1)
        guess = torch.ones(16, 2, 1)
        Q = field.frames(guess.flatten(1)).squeeze(1)
        x = Q.mT @ (guess + small)
        bound = field.bind(graph, x)
        y = bound.operator.enter(x.flatten(1)).double()
        L = graph.laplacian(dtype=F64)
        expected = float((y * (L @ y)).sum())
        assert float(bound.form.parts(x).energy) == pytest.approx(expected, rel=1e-2)
        deviation = bound.form.deviation(x).double().norm()
        assert float(deviation) == pytest.approx(float((y - y.mean(0)).norm()), rel=1e-2)


def test_taylors_series_explodes_where_the_exact_solve_is_right_with_as_few_products() -> None:
    """Degree 8 at t = 10, as published code has it, against three times its products."""
    graph, field = catalogue.grid(8, 8), field_of(4, 2, norm="sym")
    x = state(graph, 4, 2)
    L = graph.laplacian("sym", dtype=F64).to_dense()
    with torch.no_grad():
        Q, y = framed(field, x)
        expected = Q.mT @ kernel(L, 10.0, y)
        before = products.total
        found = solve(field, x, 10.0, graph, rtol=1e-5)
        spent = products.total - before
    term = series = torch.eye(64, dtype=F64)
    for k in range(1, 9):
        term = term @ L * (-10.0 / k)
        series = series + term
    assert torch.linalg.matrix_norm(series, 2) > 1e4
    assert (found.final - expected).norm() < 1e-5 * x.norm()
    assert spent <= 3 * 8
    assert found.stats.operator_products == spent


def test_a_batch_gives_bit_for_bit_what_its_graphs_give() -> None:
    parts = [catalogue.ring(5), catalogue.star(6), catalogue.barbell(3, 1)]
    union = Graph.union(parts)
    xs = [state(graph, 24, 2, seed=k) for k, graph in enumerate(parts)]
    for bundles in (1, 4):
        field = field_of(24, 2, bundles=bundles)
        with torch.no_grad():
            whole = solve(field, torch.cat(xs), [0.0, 1.0, 3.0], union)
            split = whole.x.split([len(x) for x in xs], 1)
            for k, (graph, x) in enumerate(zip(parts, xs, strict=True)):
                alone = solve(field, x, [0.0, 1.0, 3.0], graph)
                assert torch.equal(alone.x, split[k])
                torch.testing.assert_close(whole.energy.y[[0, -1], k], alone.energy.y[[0, -1]])


def test_gradients_reach_the_frames_and_the_time() -> None:
    graph = catalogue.barbell(3, 1)
    field = field_of(rate=torch.nn.Parameter(torch.tensor(0.7, dtype=F64)))
    x = state(graph).requires_grad_()
    L = graph.laplacian("sym", dtype=F64).to_dense()

    def of(solution: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(solution.pow(3).sum(), (x, *field.parameters()))

    exact = of(solve(field, x, 2.0, graph, rtol=1e-11).final)
    Q, y = framed(field, x)
    decay = torch.linalg.matrix_exp(-2.0 * field.rate * L)
    expected = of(Q.mT @ torch.einsum("uv,vab->uab", decay, y))
    for one, other in zip(exact, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "settings", [{}, {"norm": "rw", "bundles": 2}, {"norm": "comb", "rate": 0.3}], ids=str
)
def test_it_keeps_the_contract_of_fields(settings: dict[str, object]) -> None:
    check_field(BundleDiffusion(4, 2, **settings), catalogue.barbell(3, 1))
    check_field(BundleDiffusion(2, 3, frames=Frames(6, 3, by="cayley")), catalogue.ring(4))


def test_refusals_name_what_is_allowed() -> None:
    graph = catalogue.ring(4)
    with pytest.raises(ValueError, match="do not share"):
        BundleDiffusion(3, bundles=2)
    with pytest.raises(ValueError, match=r"takes \[nodes, 3, 2\]"):
        field_of().bind(graph, torch.zeros(4, 2, dtype=F64))
    bad = field_of(frames=lambda x: 2 * torch.eye(3, dtype=F64).expand(len(x), 3, 3))
    with pytest.raises(ValueError, match="differs from I by 3"):
        bad.bind(graph, state(graph))
    with pytest.raises(ValueError, match="at least 2"):
        BundleDiffusion(3, 1)
