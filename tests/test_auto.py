"""What "auto" chooses, for which problem and why: a table."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import (
    GRAND,
    Diffusion,
    Field,
    Heat,
    Layers,
    Noise,
    Source,
    Wave,
    allen_cahn,
)
from neuralpde.operators import Pattern, SparseOperator
from solvers.noise import NoiseTerm
from solvers.stopping import WallTime

RING, STAR = catalogue.ring(6), catalogue.star(60)
LOOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turning(graph: Graph, x: Any) -> SparseOperator:
    """Neither self-adjoint nor a generator."""
    pattern, _ = Pattern.from_edges(torch.tensor([0, 1]), torch.tensor([1, 0]), graph.num_nodes)
    return SparseOperator(pattern, torch.tensor([1.0, -1.0], dtype=torch.float64))


class Pendulums(Field):
    """x'' = -L x - sin x - damping x'."""

    order = 2
    batched_time = True

    def __init__(self, damping: float) -> None:
        super().__init__()
        self.damping = damping

    def prepare(self, graph: Graph, x0: Any) -> None:
        self.L = graph.laplacian("comb")

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        return -(self.L @ x) - torch.sin(x)


def multiplicative(convention: str) -> Field:
    term = NoiseTerm(lambda t, x: 0.1 * x, additive=False, convention=convention)
    chosen = Heat()
    chosen.noise = term
    return chosen


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


@dataclass(frozen=True)
class Row:
    """A problem, and the solver and the words that the choice must come with."""

    name: str
    field: Any
    solver: str
    words: tuple[str, ...]
    how: dict[str, Any] = field(default_factory=dict)
    graph: Graph = RING
    T: Any = 1.0


STEPS = {"steps": 20}
TABLE = [
    Row("heat", Heat(), "chebyshev", ("the field is linear",)),
    Row("heat with inflow", Heat() + Source(1.0), "chebyshev", ("the field is linear",)),
    Row("random walk", Heat("rw"), "chebyshev", ("the field is linear",)),
    Row("frozen attention", GRAND(2).double(), "uniformisation", ("the field is linear",)),
    Row("watched steps", Heat(), "tsit5", ("save='steps' needs steps",), {"save": "steps"}),
    Row("deviations", Heat(), "tsit5", ("error_scale",), {"error_scale": "deviation"}),
    Row("turning", Diffusion(turning), "tsit5", ("neither self-adjoint nor a generator",)),
    Row("mild reaction", allen_cahn(0.1), "tsit5", ("nonlinear", "explicit of order 5")),
    Row("plain callable", decay, "tsit5", ("shows no structure",)),
    Row(
        "stiff reaction", allen_cahn(), "tsit5, rkl2",
        ("nonlinear", "limited by stability", "then rkl2 from t="), LOOSE, STAR, 9.0,
    ),
    Row(
        "stiff callable", lambda t, x: -300 * torch.sin(x), "tsit5, rkl2",
        ("shows no structure", "then rkl2 from t="), LOOSE, RING, 3.0,
    ),
    Row(
        "stopping heat", Heat(), "tsit5, rkl2", ("stop= needs steps", "then rkl2"),
        {**LOOSE, "stop": WallTime(60.0)}, STAR, 9.0,
    ),
    Row("grid of times", allen_cahn(), "heun", ("fixed steps asked for",), STEPS),
    Row("linear on a grid", Heat(), "heun", ("fixed steps asked for",), STEPS),
    Row("wave on a grid", Wave(), "leapfrog", ("second order", "symplectic"), STEPS),
    Row("damped on a grid", Wave(damping=0.5), "kick_drift_damp", ("damped",), STEPS),
    Row("pendulums", Pendulums(0.0), "leapfrog", ("symplectic",), STEPS),
    Row("damped pendulums", Pendulums(0.3), "kick_drift_damp", ("damping",), STEPS),
    Row("free wave", Wave(), "tsit5", ("without steps=", "order 5")),
    Row("additive noise", Heat() + Noise(0.1), "stochastic_heun", ("additive",), STEPS),
    Row("Ito noise", multiplicative("ito"), "euler_maruyama", ("Ito",), STEPS),
    Row("circle noise", multiplicative("stratonovich"), "stochastic_heun", ("Strat",), STEPS),
    Row("layers", Layers([Heat(), allen_cahn(0.1)]), "", ("linear", "nonlinear")),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_auto_chooses_by_structure_and_says_why(row: Row) -> None:
    x0: Any = normal(row.graph.num_nodes, 2)
    if getattr(row.field, "has_force", False):
        x0 = (x0, torch.zeros_like(x0))
    traj = solve(row.field, x0, row.T, row.graph, **row.how)
    if row.solver:
        assert traj.stats.solver == traj.settings["solver"] == row.solver
        assert traj.stats.reason.startswith("auto: ")
    for word in row.words:
        assert word in traj.stats.reason
    final = traj.final[0] if isinstance(traj.final, tuple) else traj.final
    assert bool(final.isfinite().all())


def test_what_auto_chooses_can_be_asked_for_by_name() -> None:
    graph, x0 = STAR, normal(60, 2)
    for chosen, how in ((Heat(), {}), (allen_cahn(0.01), {}), (allen_cahn(0.1), {"steps": 400})):
        auto = solve(chosen, x0, 1.0, graph, **how)
        named = solve(chosen, x0, 1.0, graph, solver=auto.stats.solver, **how)
        torch.testing.assert_close(auto.final, named.final, rtol=0, atol=0)
        assert "asked for by name" in named.stats.reason


def test_stochastic_fields_need_steps_and_are_told_so() -> None:
    with pytest.raises(ValueError, match=r"is stochastic.*give steps=n"):
        solve(Heat() + Noise(0.1), normal(6, 1), 1.0, RING)


def test_backward_diffusion_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backward|grows|growth"):
        solve(Heat(), normal(6, 1), (1.0, 0.0), RING)
