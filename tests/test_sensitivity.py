"""Sensitivities against closed heat kernels, matrix exponentials and finite differences."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analysis import Sensitivity, sensitivity
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import (
    GRAFF,
    GRAND,
    AllenCahn,
    AntiSymmetricDGN,
    GradientGating,
    GraphCON,
    Heat,
    Kuramoto,
    Langevin,
    Layers,
    Noise,
    OrnsteinUhlenbeck,
    Schroedinger,
    SheafDiffusion,
    Wave,
)
from neuralpde.fields.field import Field
from neuralpde.fields.langevin import DoubleWell
from tests.strategies import graphs

TIMES = [0.0, 0.2, 0.7, 1.5]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def double(make: Callable[[], Field]) -> Field:
    torch.manual_seed(0)
    return make().double()


def kernel(found: Sensitivity) -> Tensor:
    """K_t(i, j) as [times, i, j]."""
    return found.value.transpose(1, 2)


def complete(n: int, t: float) -> Tensor:
    one, fast = torch.eye(n, dtype=torch.float64), math.exp(-n * t)
    return fast * one + (1 - fast) / n


def ring(n: int, t: float) -> Tensor:
    k, j = torch.arange(n).double(), torch.arange(n).double()
    waves = torch.exp(-t * (2 - 2 * torch.cos(2 * math.pi * j / n)))
    row = (waves * torch.cos(2 * math.pi * j * k[:, None] / n)).mean(1)
    return row[(torch.arange(n)[:, None] - torch.arange(n)) % n]


def path(n: int, t: float) -> Tensor:
    j, p = torch.arange(1, n).double(), torch.arange(n).double() + 0.5
    modes = torch.cos(math.pi * j * p[:, None] / n)
    decay = torch.exp(-t * (2 - 2 * torch.cos(math.pi * j / n)))
    return 1 / n + 2 / n * (modes * decay) @ modes.T


def star(n: int, t: float) -> Tensor:
    fast, slow = math.exp(-n * t), math.exp(-t)
    K = torch.full((n, n), 1 / n - slow / (n - 1) + fast / (n * (n - 1)), dtype=torch.float64)
    K += slow * torch.eye(n, dtype=torch.float64)
    K[0], K[:, 0] = (1 - fast) / n, (1 - fast) / n
    K[0, 0] = 1 / n + (n - 1) / n * fast
    return K


def hypercube(d: int, t: float) -> Tensor:
    a, b = (1 + math.exp(-2 * t)) / 2, (1 - math.exp(-2 * t)) / 2
    apart = torch.tensor([[(i ^ j).bit_count() for j in range(2**d)] for i in range(2**d)])
    apart = apart.double()
    return a ** (d - apart) * b**apart


KERNELS = {
    "complete": (catalogue.complete(6), lambda t: complete(6, t)),
    "ring": (catalogue.ring(7), lambda t: ring(7, t)),
    "path": (catalogue.path(6), lambda t: path(6, t)),
    "star": (catalogue.star(6), lambda t: star(6, t)),
    "hypercube": (catalogue.hypercube(3), lambda t: hypercube(3, t)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_heat_flow_has_the_closed_kernel(name: str) -> None:
    graph, expected = KERNELS[name]
    found = sensitivity(Heat(), normal(graph.num_nodes, 1), TIMES, graph)
    for t, K in zip(TIMES, kernel(found), strict=True):
        torch.testing.assert_close(K, expected(t).double(), rtol=0, atol=1e-9)
    assert found.t.tolist() == TIMES
    assert not found.error.any()
    assert "columns" in found.method


@pytest.mark.parametrize("name", KERNELS)
def test_the_variational_equation_has_the_closed_kernel(name: str) -> None:
    """A plain function shows no structure: x and its tangents are solved as one system."""
    graph, expected = KERNELS[name]
    L = graph.laplacian("comb", dtype=torch.float64)
    found = sensitivity(lambda t, x: -(L @ x), normal(graph.num_nodes, 1), TIMES, graph)
    for t, K in zip(TIMES, kernel(found), strict=True):
        torch.testing.assert_close(K, expected(t).double(), rtol=0, atol=1e-7)
    assert "along" in found.method


def test_at_the_start_every_node_depends_on_itself_alone() -> None:
    graph = catalogue.star(4)
    for norm, unit in (("fro", math.sqrt(3)), ("spectral", 1.0), ("l1", 3.0)):
        for field in (Heat(), double(lambda: GRAND(3, variant="nonlinear"))):
            found = sensitivity(field, normal(4, 3), 0.1, graph, norm=norm, steps=1)
            torch.testing.assert_close(found.value[0], unit * torch.eye(4).double())


def differences(
    field: Field, x0: Tensor | tuple[Tensor, ...], graph: Graph, j: int, t: list[float]
) -> Tensor:
    """Blocks dx_i(t)/dx_j(0) of the first part, [times, nodes, out, in], from other solves."""
    parts = x0 if isinstance(x0, tuple) else (x0,)
    h, columns = 1e-4, []
    for c in range(parts[0][0].numel()):
        ends = []
        for sign in (1, -1):
            moved = parts[0].clone()
            moved[j].view(-1)[c] += sign * h
            start = (moved, *parts[1:]) if isinstance(x0, tuple) else moved
            with torch.no_grad():
                x = solve(field, start, t, graph, rtol=1e-11, atol=1e-13).x
            ends.append((x[0] if isinstance(x, tuple) else x).flatten(2))
        columns.append((ends[0] - ends[1]) / (2 * h))
    return torch.stack(columns, -1)


FIELDS: dict[str, tuple[Callable[[], Field], str, int]] = {
    "allen-cahn": (AllenCahn, "channels being independent", 2),
    "attention from x0": (lambda: GRAND(2, source=True), "along", 2),
    "attention from x": (lambda: GRAND(2, variant="nonlinear"), "along", 2),
    "doubly stochastic": (lambda: GRAND(2, normalise="sinkhorn", tied=True), "along", 2),
    "gated": (lambda: GradientGating(Heat("rw")), "along", 2),
    "rotations": (lambda: AntiSymmetricDGN(2), "along", 2),
    "phases": (lambda: Kuramoto(lambda graph, x0: x0, coupling=2.0), "along", 1),
    "mixed channels": (lambda: GRAFF(2), "tangents of the linear", 2),
    "layers": (lambda: Layers([GRAND(2), AllenCahn()]), "along", 2),
}


@pytest.mark.parametrize("name", FIELDS)
def test_it_is_what_finite_differences_of_solves_say(name: str) -> None:
    make, method, channels = FIELDS[name]
    field, graph, t = double(make), catalogue.barbell(3), [0.0, 0.4, 0.9]
    x0 = normal(6, channels)
    found = sensitivity(field, x0, t, graph, sources=[2, 4], norm="fro")
    assert method in found.method
    for k, j in enumerate((2, 4)):
        J = differences(field, x0, graph, j, t)
        expected = torch.linalg.matrix_norm(J)
        torch.testing.assert_close(found.value[:, k], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["fro", "spectral", "l1"])
@pytest.mark.parametrize("kind", ["attention", "mixed", "entries", "alike", "sheaf"])
def test_norms_are_those_of_the_blocks(name: str, kind: str) -> None:
    make = {
        "attention": lambda: GRAND(3, variant="nonlinear"),
        "mixed": lambda: GRAFF(3),
        "entries": AllenCahn,
        "alike": Heat,
        "sheaf": lambda: SheafDiffusion(3, 2),
    }[kind]
    field, graph = double(make), catalogue.path(4)
    x0 = normal(4, 2, 3) if kind == "sheaf" else normal(4, 3)
    if kind == "sheaf":
        # Bound, its maps are fixed: one column for each dim of a stalk is enough.
        field = field.bind(graph, x0)
    found = sensitivity(field, x0, 0.8, graph, sources=[1], norm=name)
    J = differences(field, x0, graph, 1, [0.0, 0.8])[-1]
    expected = {
        "fro": J.square().sum((1, 2)).sqrt(),
        "spectral": torch.linalg.svdvals(J)[:, 0],
        "l1": J.abs().sum((1, 2)),
    }[name]
    torch.testing.assert_close(found.value[-1, 0], expected, rtol=0, atol=1e-7)
    if kind in ("alike", "sheaf"):
        assert "columns" in found.method


def test_a_bound_field_keeps_what_it_prepared() -> None:
    field, graph, x0 = double(lambda: GRAND(2)), catalogue.path(4), normal(4, 2)
    bound = field.bind(graph, x0)
    held = sensitivity(bound, x0, 1.0, sources=[0], norm="spectral")
    K = torch.linalg.matrix_exp(bound.operator.to_dense())
    torch.testing.assert_close(held.value[-1, 0], K[:, 0].detach().abs(), rtol=0, atol=1e-8)
    whole = sensitivity(field, x0, 1.0, graph, sources=[0], norm="spectral")
    assert float((whole.value - held.value).abs().max()) > 1e-2


def test_fixed_steps_give_the_derivative_of_the_discrete_solution() -> None:
    """One RK4 step of h of x' = -L x multiplies with 1 + z + z^2/2 + z^3/6 + z^4/24, z = -h L."""
    graph = catalogue.ring(6)
    L = graph.laplacian("comb", dtype=torch.float64)
    z, one = -0.5 * L.to_dense(), torch.eye(6).double()
    step = one + z @ (one + z @ (one + z @ (one + z / 4) / 3) / 2)
    for field in (lambda t, x: -(L @ x), Heat()):
        found = sensitivity(field, normal(6, 1), 1.0, graph, solver="rk4", steps=2)
        torch.testing.assert_close(kernel(found)[-1], (step @ step).abs(), rtol=0, atol=1e-14)


def test_more_steps_of_rk4_tend_to_the_exponential_with_order_four() -> None:
    graph = catalogue.path(5)
    L = graph.laplacian("comb", dtype=torch.float64)
    exact, errors = torch.linalg.matrix_exp(-L.to_dense()), []
    for steps in (16, 32, 64):
        found = sensitivity(
            lambda t, x: -(L @ x), normal(5, 1), 1.0, graph, solver="rk4", steps=steps
        )
        errors.append(float((kernel(found)[-1] - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("field", [Heat(), AllenCahn()], ids=["heat", "allen-cahn"])
def test_the_slope_at_small_times_is_the_distance(field: Field) -> None:
    t = torch.tensor([0.0, 5e-3, 1e-2, 2e-2], dtype=torch.float64)
    found = sensitivity(
        field, normal(6, 1), t, catalogue.path(6), sources=[0], rtol=3e-14, atol=1e-19
    )
    slopes = found.value[1:, 0].log2().diff(dim=0)
    # The rest is of first order in t, so that two slopes tell its limit.
    slope = 2 * slopes[0] - slopes[1]
    torch.testing.assert_close(slope[1:], torch.arange(1.0, 6.0).double(), rtol=0, atol=2e-2)


def test_waves_are_read_and_disturbed_in_any_part() -> None:
    """x(t) = cos(t sqrt(L)) x0 + L^(-1/2) sin(t sqrt(L)) v0."""
    graph, t = catalogue.path(5), 1.3
    values, U = torch.linalg.eigh(graph.laplacian("comb", dtype=torch.float64).to_dense())
    w = values.clamp(min=0).sqrt()
    late = torch.where(w > 1e-6, torch.sin(t * w) / w.clamp(min=1e-6), t)
    expected = {
        (0, 0): torch.cos(t * w),
        (0, 1): late,
        (1, 0): -w * torch.sin(t * w),
        (1, 1): torch.cos(t * w),
    }
    state = normal(5, 2), normal(5, 2, seed=1)
    for (read, moved), modes in expected.items():
        found = sensitivity(Wave(), state, t, graph, part=(read, moved), norm="spectral")
        K = U @ torch.diag(modes) @ U.T
        torch.testing.assert_close(kernel(found)[-1], K.abs(), rtol=0, atol=1e-7)
        assert "columns" in found.method


def test_oscillators_are_followed_along_their_solution() -> None:
    field = double(lambda: GraphCON(2, act=torch.tanh, stiffness=1.5, damping=0.1))
    graph, state = catalogue.ring(5), (normal(5, 2), normal(5, 2, seed=1))
    found = sensitivity(field, state, [0.0, 0.8], graph, sources=[3])
    expected = torch.linalg.matrix_norm(differences(field, state, graph, 3, [0.0, 0.8]))
    torch.testing.assert_close(found.value[:, 0], expected, rtol=0, atol=1e-7)


def test_complex_flows_have_moduli() -> None:
    graph = catalogue.path(4)
    x0 = torch.complex(normal(4, 1), normal(4, 1, seed=1))
    found = sensitivity(Schroedinger(), x0, 0.9, graph)
    L = graph.laplacian("comb", dtype=torch.float64).to_dense()
    K = torch.linalg.matrix_exp(-0.9j * L)
    torch.testing.assert_close(kernel(found)[-1], K.abs(), rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="complex"):
        sensitivity(lambda t, x: x.conj(), x0, 1.0, graph)


@settings(max_examples=15)
@given(graph=graphs(min_nodes=2, max_nodes=6), seed=st.integers(0, 100))
def test_the_derivatives_add_up_to_that_of_a_shift(graph: Graph, seed: int) -> None:
    """Heat: constants stay constant, so the kernel is positive and its rows sum to 1."""
    found = sensitivity(Heat(), normal(graph.num_nodes, 1, seed=seed), [0.0, 0.5, 3.0], graph)
    torch.testing.assert_close(found.value.sum(1), torch.ones(3, graph.num_nodes).double())


def test_a_batch_gives_what_its_graphs_give() -> None:
    parts = [catalogue.path(4), catalogue.ring(5)]
    batch, x0 = Graph.union(parts), normal(9, 2)
    fixed: dict[str, Any] = {"solver": "rk4", "steps": 4}
    attention = double(lambda: GRAND(2, variant="nonlinear"))
    for field, options in ((Heat(), {}), (AllenCahn(), {}), (attention, fixed)):
        found = sensitivity(field, x0, TIMES, batch, sources=[1, 6], **options)
        alone = [
            sensitivity(field, x, TIMES, graph, sources=[j], **options)
            for x, graph, j in ((x0[:4], parts[0], 1), (x0[4:], parts[1], 2))
        ]
        torch.testing.assert_close(found.value[:, 0, :4], alone[0].value[:, 0], rtol=0, atol=1e-7)
        torch.testing.assert_close(found.value[:, 1, 4:], alone[1].value[:, 0], rtol=0, atol=1e-7)
        assert not found.value[:, 0, 4:].any()
        assert not found.value[:, 1, :4].any()


def test_graphs_may_have_times_of_their_own() -> None:
    batch, t = (
        Graph.union([catalogue.path(3), catalogue.path(3)]),
        torch.tensor([[0.0, 0.0], [1, 2]]),
    )
    found = sensitivity(Heat(), normal(6, 1), t, batch, sources=[0, 3])
    assert found.t.shape == (2, 2)
    for g, late in enumerate((1.0, 2.0)):
        K = path(3, late)[:, 0].double()
        torch.testing.assert_close(found.value[1, g, 3 * g : 3 * g + 3], K, rtol=0, atol=1e-8)


@pytest.mark.slow
def test_sources_taken_in_turn_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x0, field = catalogue.ring(6), normal(6, 2), AllenCahn()
    together = sensitivity(field, x0, 1.0, graph, sources=[5, 0, 3])
    monkeypatch.setattr("analysis.sensitivities.NUMBERS", 1)
    apart = sensitivity(field, x0, 1.0, graph, sources=[5, 0, 3])
    torch.testing.assert_close(apart.value, together.value, rtol=0, atol=1e-7)
    assert apart.sources.tolist() == [5, 0, 3]


def test_single_precision_stays_single_inside_and_comes_out_double() -> None:
    x0 = normal(4, 2).float()
    for field in (Heat(), AllenCahn()):
        found = sensitivity(field, x0, 1.0, catalogue.path(4), rtol=1e-5, atol=1e-6)
        assert found.value.dtype is torch.float64
        exact = sensitivity(field, x0.double(), 1.0, catalogue.path(4))
        torch.testing.assert_close(found.value, exact.value, rtol=0, atol=2e-5)


def test_noise_that_is_additive_does_not_matter_to_a_linear_flow() -> None:
    graph, x0 = catalogue.path(4), normal(4, 1)
    field = OrnsteinUhlenbeck(scale=0.3, pull=0.5, rate=1.0)
    found = sensitivity(field, x0, 1.0, graph)
    torch.testing.assert_close(
        kernel(found)[-1], math.exp(-0.5) * path(4, 1.0).double(), rtol=0, atol=1e-8
    )
    for noisy in (Langevin(DoubleWell(0.5, 2.0), temperature=0.1), AllenCahn() + Noise(0.1)):
        with pytest.raises(ValueError, match="stochastic"):
            sensitivity(noisy, x0, 1.0, graph)
