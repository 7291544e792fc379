"""The border of a solve: what t may be, dtypes, settings, and which way it is sent."""

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import GRAND, Diffusion, Heat, Source, allen_cahn
from neuralpde.operators import Pattern, SparseOperator

RING = catalogue.ring(6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


@pytest.mark.parametrize(
    ("t", "times"),
    [
        (2, [0.0, 2.0]),
        (2.5, [0.0, 2.5]),
        (-1.0, [0.0, -1.0]),
        (torch.tensor(3), [0.0, 3.0]),
        ((1, 2), [1.0, 2.0]),
        ([2.0, 1.0, 0.5], [2.0, 1.0, 0.5]),
        (range(3), [0.0, 1.0, 2.0]),
        (torch.tensor([0.0, 0.1], dtype=torch.float32), [0.0, float(torch.tensor(0.1))]),
        (torch.linspace(0, 1, 3).numpy(), [0.0, 0.5, 1.0]),
    ],
)
def test_times_come_in_many_forms(t: object, times: list[float]) -> None:
    traj = solve(decay, torch.ones(2, dtype=torch.float64), t, rtol=1e-8, atol=1e-9)
    assert traj.t.dtype == torch.float64
    assert traj.t.tolist() == pytest.approx(times, abs=1e-15)
    want = torch.exp(-(traj.t - traj.t[0]))
    torch.testing.assert_close(traj.x[:, 0], want, rtol=1e-6, atol=0)


def test_columns_of_times_belong_to_graphs() -> None:
    batch = Graph.union([RING, RING])
    t = torch.tensor([[0.0, 1.0], [1.0, 3.0]])
    assert solve(Heat(), normal(12, 1), t, batch).t.shape == (2, 2)
    one = solve(Heat(), normal(6, 1), t[:, :1], RING, solver="tsit5")
    plain = solve(Heat(), normal(6, 1), 1.0, RING, solver="tsit5")
    torch.testing.assert_close(one.final, plain.final)


def test_dtype_follows_the_state() -> None:
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        for solver in ("auto", "tsit5"):
            traj = solve(Heat(), normal(6, 1).to(dtype), 1.0, RING, solver=solver)
            assert traj.x.dtype == dtype
            assert traj.settings["dtype"] == str(dtype).removeprefix("torch.")


def test_weights_are_normalised_before_they_are_cast() -> None:
    weight = torch.tensor([1e8, 1e8, 1.0, 1.0], dtype=torch.float64)
    graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), edge_weight=weight)
    x = torch.tensor([[0.0], [0.0], [1.0]])
    traj = solve(Heat("sym"), x, 1.0, graph, rtol=1e-5)
    L = graph.laplacian("sym", dtype=torch.float64).to_dense()
    want = torch.linalg.matrix_exp(-L) @ x.double()
    torch.testing.assert_close(traj.final.double(), want, rtol=1e-5, atol=1e-6)


def skew(graph: Graph, x: Tensor) -> SparseOperator:
    """Turning, neither self-adjoint nor a generator."""
    pattern, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), graph.num_nodes)
    return SparseOperator(pattern, torch.tensor([1.0, -1.0], dtype=torch.float64)).to(x.dtype)


@pytest.mark.parametrize(
    ("field", "how", "solver", "words"),
    [
        (Heat(), {}, "chebyshev", "linear"),
        (Heat() + Source(1.0), {}, "chebyshev", "linear"),
        (GRAND(2), {}, "uniformisation", "linear"),
        (Heat(), {"solver": "exact"}, "chebyshev", "by name"),
        (Heat(), {"solver": "uniformisation"}, "uniformisation", "by name"),
        (allen_cahn(), {}, "tsit5", "nonlinear"),
        (Heat(), {"save": "steps"}, "tsit5", "save='steps' needs steps"),
        (Heat(), {"error_scale": "deviation"}, "tsit5", "error_scale"),
        (Heat(), {"steps": 40}, "heun", "fixed steps"),
        (Diffusion(skew), {}, "tsit5", "neither self-adjoint nor a generator"),
        (decay, {}, "tsit5", "plain callable shows no structure"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_auto_chooses_by_structure_and_says_why(
    field: object, how: dict[str, object], solver: str, words: str
) -> None:
    graph = catalogue.path(2) if isinstance(field, Diffusion) else RING
    traj = solve(field, normal(graph.num_nodes, 2).float(), 1.0, graph, **how)
    assert traj.stats.solver == traj.settings["solver"] == solver
    assert words in traj.stats.reason


def test_exact_and_stepped_solves_agree() -> None:
    x = normal(6, 2)
    for field in (Heat("sym", 0.4), Heat() + Source(normal(6, 2, seed=3)), GRAND(2).double()):
        exact = solve(field, x, [0.0, 1.0, 3.0], RING, rtol=1e-10)
        steps = solve(field, x, [0.0, 1.0, 3.0], RING, solver="dopri8", rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(exact.x, steps.x, rtol=1e-7, atol=1e-8)


def test_backward_diffusion_is_refused_unless_asked_for_by_name() -> None:
    x = normal(6, 1)
    with pytest.raises(ValueError, match=r"backward|growth|grows"):
        solve(Heat(), x, (1.0, 0.0), RING)
    there = solve(Heat(), x, 0.5, RING, rtol=1e-10).final
    back = solve(Heat(), there, (0.5, 0.0), RING, solver="dopri5", rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(back.final, x, rtol=1e-6, atol=1e-7)


def test_settings_repeat_the_solve() -> None:
    traj = solve(Heat(), normal(6, 1), 1.0, RING, schedule="cosine", steps=7)
    assert traj.settings["steps"] == 7
    assert "Cosine" in traj.settings["schedule"]
    assert traj.settings["field"] == "Heat"
