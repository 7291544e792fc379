"""What goes wrong is said in words: who, when, why, with which numbers, and what to do."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralpde import Graph, SolveFailed, SolveInterrupted, Trajectory, catalogue, solve
from neuralpde.fields import Field, Heat, allen_cahn

Y0 = torch.ones(3, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def failed(*arguments: object, **how: object) -> tuple[Trajectory, str]:
    """The partial trajectory and the text, which are the same whether it raises or returns."""
    with pytest.raises(SolveFailed) as caught:
        solve(*arguments, **how)
    returned = solve(*arguments, raise_on_failure=False, **how)
    traj, text = caught.value.trajectory, str(caught.value)
    assert traj is not None
    assert returned.status == traj.status
    assert " ".join(returned.messages.values()) == text
    assert not returned.succeeded
    torch.testing.assert_close(returned.x, traj.x, equal_nan=True, rtol=0, atol=0)
    return traj, text


def rho(text: str) -> float:
    found = re.search(r"rho = ([\d.e+]+)\)", text)
    assert found is not None, text
    return float(found.group(1))


@pytest.mark.parametrize("solver", ["dopri5", "tsit5", "dopri8", "bosh3"])
def test_a_blow_up_is_found_where_it_is(solver: str) -> None:
    traj, text = failed(lambda t, x: x**2, Y0, [0.0, 0.5, 2.0], solver=solver, rtol=1e-6, atol=1e-9)
    assert traj.status == "step_too_small"
    assert float(traj.ended) == pytest.approx(1.0, abs=1e-4)
    assert re.search(r"the solve stopped at t=(1|1\.000\d*|0\.9999\d*) of 2", text)
    assert "below the spacing of numbers" in text
    assert "error ratio" in text
    assert "blows up" in text
    growth = re.search(r"grew ([\d.e+]+)-fold", text)
    assert growth is not None
    assert float(growth.group(1)) > 1e9
    assert f"{traj.stats.accepted} steps accepted, {traj.stats.rejected} rejected" in text
    torch.testing.assert_close(traj.x[1], torch.full_like(Y0, 2.0), rtol=1e-4, atol=0)
    assert traj.x[2].isnan().all()
    assert traj.final.isfinite().all()


def test_a_first_step_that_late_times_would_not_see_is_made_longer() -> None:
    # Hairer's first step is 1e-4 here, and the spacing of numbers 2e-3.
    late = [1e13, 1e13 + 16]
    traj = solve(lambda t, x: 1 - x, 0 * Y0, late, solver="trbdf2", grad="none")
    torch.testing.assert_close(traj.final, Y0, rtol=1e-3, atol=0)


@pytest.mark.parametrize("how", [{"solver": "dopri5"}, {"solver": "rk4", "steps": 7}])
@pytest.mark.parametrize("since", [0.0, 0.31])
def test_nan_from_the_field_is_told_apart(how: dict[str, object], since: float) -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        mask = torch.zeros(20, 1, dtype=torch.bool)
        mask[[7, 11]] = True
        return torch.where(mask & (t >= since), torch.log(-torch.ones_like(x)), -x)

    traj, text = failed(field, torch.ones(20, 1, dtype=torch.float64), [0.0, 0.1, 1.0], **how)
    assert traj.status == "not_finite"
    assert "field returned nan or inf" in text
    assert "in 2 of 20 nodes (first: node 7)" in text
    assert "although x was finite" in text
    found = re.search(r"inf at t=([\d.]+)", text)
    assert found is not None
    assert since - 1e-6 <= float(found.group(1)) <= since + 0.15
    assert torch.equal(traj.x[0], torch.ones(20, 1).double())
    assert traj.final.isfinite().all()


def test_divergence_of_a_fixed_grid_is_the_solvers_fault() -> None:
    traj, text = failed(lambda t, x: x**2, Y0, 2.0, solver="rk4", steps=40)
    assert traj.status == "not_finite"
    assert "overflowed within a fixed step of 0.05" in text
    assert "more steps" in text
    assert "tsit5" in text
    assert traj.final.isfinite().all()


def test_growth_on_a_fixed_grid_warns() -> None:
    graph, x0 = catalogue.star(30), normal(30, 1)
    with pytest.warns(UserWarning, match=r"grew .*-fold on this fixed grid.*stability"):
        solve(Heat(), x0, 4.0, graph, solver="euler", steps=32)
    solve(Heat(), x0, 4.0, graph, solver="euler", steps=64)


@pytest.mark.parametrize("solver", ["tsit5", "dopri5", "heun", "bosh3"])
def test_stiffness_is_diagnosed_with_its_numbers(solver: str) -> None:
    graph, x0 = catalogue.star(200), normal(200, 1)
    traj, text = failed(Heat(), x0, 1000.0, graph, solver=solver, max_steps=200, rtol=1e-3)
    assert traj.status == "max_steps"
    assert "all 200 steps are used" in text
    assert "limited by stability" in text
    assert "stiff" in text
    assert "solver='rkl2'" in text
    assert "'trbdf2'" in text
    assert "solver='exact'" in text
    assert rho(text) == pytest.approx(200.0, rel=0.2)
    if solver in ("tsit5", "dopri5"):
        # What the diagnosis evaluates is not the solve's.
        assert traj.stats.nfe == 2 + 6 * 200
    steps = re.search(r"last (\d+) steps h\*rho = ([\d.]+)", text)
    assert steps is not None
    assert int(steps.group(1)) > 50
    assert 1.2 < float(steps.group(2)) < 5
    more = re.search(r"about (\d+) more", text)
    assert more is not None
    true = float(traj.stats.accepted) * (1000 / float(traj.ended) - 1)
    assert int(more.group(1)) == pytest.approx(true, rel=0.3)


def test_accuracy_is_not_called_stiffness() -> None:
    traj, text = failed(
        lambda t, x: torch.cos(50 * t) * x, Y0, 1000.0, solver="dopri5", max_steps=300, rtol=1e-8
    )
    assert traj.status == "max_steps"
    assert "stiff" not in text
    assert "loosen rtol and atol" in text
    assert "max_steps" in text


def test_an_interrupt_is_a_keyboard_interrupt_with_a_trajectory() -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        if float(t) > 0.5:
            raise KeyboardInterrupt
        return -x

    with pytest.raises(KeyboardInterrupt) as caught:
        solve(field, Y0, 1.0, solver="tsit5")
    assert isinstance(caught.value, SolveInterrupted)
    assert caught.value.trajectory is not None
    assert caught.value.trajectory.status == "interrupted"
    assert 0 < float(caught.value.trajectory.ended) <= 0.5


EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
GRAPH = Graph(EDGES)
# torch.sin(t, x) would raise: none of these gets as far as calling the field.
PLAIN = (torch.sin, Y0, 1.0)
HEAT = (Heat(), torch.ones(3, 1), 1.0, GRAPH)
WRONG: dict[str, tuple[type[Exception], str, tuple[object, ...], dict[str, object]]] = {
    "not callable": (TypeError, "field is int; give a Field or a callable", (3, Y0, 1.0), {}),
    "integers": (TypeError, r"int64.*x0\.double", (torch.sin, torch.ones(3).long(), 1.0), {}),
    "no tensor": (TypeError, "x0 is float", (torch.sin, 1.0, 1.0), {}),
    "nothing": (ValueError, "empty tuple", (torch.sin, (), 1.0), {}),
    "mixed": (TypeError, "differ in dtype", (torch.sin, (Y0, Y0.float()), 1.0), {}),
    "nan": (
        ValueError, r"nan or inf in 1 of 3 rows \(first: row 2\)",
        (torch.sin, torch.tensor([0.0, 1.0, torch.nan]), 1.0), {},
    ),
    "rows": (
        ValueError, r"shape \(4, 1\) but the graph has 3 nodes.*num_nodes=",
        (Heat(), torch.ones(4, 1), 1.0, GRAPH), {},
    ),
    "0-d on a graph": (ValueError, "3 nodes", (Heat(), torch.tensor(1.0), 1.0, GRAPH), {}),
    "no graph": (ValueError, "Heat flows on a graph and got none", (Heat(), Y0[:, None], 1.0), {}),
    "one time": (ValueError, r"shape \(1,\).*pair", (torch.sin, Y0, [1.0]), {}),
    "3-d times": (ValueError, "save times", (torch.sin, Y0, torch.ones(2, 2, 2)), {}),
    "columns": (
        ValueError, "t has 2 columns for 1 graphs",
        (Heat(), torch.ones(3, 1), torch.ones(3, 2), GRAPH), {},
    ),
    "zigzag": (ValueError, "increase or decrease", (torch.sin, Y0, [0.0, 1.0, 0.5]), {}),
    "infinite": (ValueError, "steady state.*stop=", (torch.sin, Y0, torch.inf), {}),
    "complex time": (TypeError, "times are real", (torch.sin, Y0, torch.tensor(1j)), {}),
    "solver": (ValueError, "'tsit'; did you mean 'tsit5'", PLAIN, {"solver": "tsit"}),
    "solver type": (TypeError, "solver", PLAIN, {"solver": 5}),
    "norm": (ValueError, "did you mean 'sym'", (Heat("symm"), torch.ones(3, 1), 1.0, GRAPH), {}),
    "schedule": (ValueError, "cosine", PLAIN, {"schedule": "cosin", "steps": 3}),
    "schedule alone": (ValueError, "give steps too", PLAIN, {"schedule": "cosine"}),
    "steps and rtol": (ValueError, "give one", PLAIN, {"steps": 3, "rtol": 1e-3}),
    "steps and atol": (ValueError, "give one", PLAIN, {"steps": 3, "atol": 1e-3}),
    "no steps": (ValueError, "steps is 0", PLAIN, {"steps": 0}),
    "half a step": (ValueError, "whole number", PLAIN, {"steps": 2.5}),
    "max_steps": (ValueError, "at least 1", PLAIN, {"max_steps": 0}),
    "fixed method": (ValueError, "'rk4' takes fixed steps: give steps=n", PLAIN, {"solver": "rk4"}),
    "rtol": (ValueError, "rtol < 1", PLAIN, {"rtol": 1.5}),
    "both zero": (ValueError, "not both zero", PLAIN, {"rtol": 0.0, "atol": 0.0}),
    "negative": (ValueError, "atol >= 0", PLAIN, {"atol": -1.0}),
    "below float32": (
        ValueError, r"rtol=1e-08 is below what float32 can hold.*x0\.double",
        (torch.sin, Y0.float(), 1.0), {"rtol": 1e-8},
    ),
    "save": (ValueError, "unknown save 'ends'; did you mean 'end'", PLAIN, {"save": "ends"}),
    "grad": (ValueError, "unknown grad 'taped'; did you mean 'tape'", PLAIN, {"grad": "taped"}),
    "reversible": (ValueError, "exact solves", PLAIN, {"grad": "reversible"}),
    "adjoint": (ValueError, "torchdiffeq:<method>", PLAIN, {"grad": "adjoint"}),
    "error_scale": (
        ValueError, "did you mean 'deviation'", PLAIN, {"error_scale": "deviations"},
    ),
    "deviation": (ValueError, "needs a graph", PLAIN, {"error_scale": "deviation"}),
    "watch": (TypeError, "callables of a snapshot", PLAIN, {"watch": "energy"}),
    "exact": (ValueError, "needs a linear field", PLAIN, {"solver": "exact"}),
    "exact steps": (
        ValueError, "takes no steps", HEAT, {"solver": "exact", "steps": 3},
    ),
    "steps of a batch": (
        ValueError, "this batch has 2 graphs",
        (Heat(), torch.ones(6, 1), 1.0, Graph.union([GRAPH, GRAPH])), {"save": "steps"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arguments_are_refused_before_any_work(kind: str) -> None:
    error, words, arguments, how = WRONG[kind]
    with pytest.raises(error, match=words):
        solve(*arguments, **how)


def test_the_field_is_not_called_for_wrong_arguments() -> None:
    def field(t: Tensor, x: Tensor) -> Tensor:
        raise AssertionError("called")

    for how in ({"rtol": 2.0}, {"solver": "rk5"}, {"save": "x"}, {"steps": 2, "rtol": 1e-3}):
        with pytest.raises(ValueError, match=r"rtol|unknown"):
            solve(field, Y0, 1.0, **how)


def test_two_measures_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two measures of one name: same, same"):
        solve(torch.sin, Y0, 1.0, watch=[_named("same"), _named("same")])


def _named(name: str) -> object:
    def measure(shot: object) -> float:
        return 0.0

    measure.__name__ = name
    return measure


def test_tolerances_near_rounding_warn() -> None:
    with pytest.warns(UserWarning, match=r"near the rounding of float32.*x0\.double"):
        solve(lambda t, x: -x, Y0.float(), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Dropout(0.5), "dropout in training mode .*Dropout.*eval"),
        (nn.BatchNorm1d(2), "batch normalisation in training mode"),
    ],
)
def test_random_fields_are_refused_in_training_mode(layer: nn.Module, words: str) -> None:
    class Noisy(Field):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.layer(x)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Noisy()

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.inner.layer(x)

    for field in (Noisy().train(), Plain().train()):
        with pytest.raises(ValueError, match=words):
            solve(field, torch.ones(4, 2), 1.0)
        layer.eval()
        assert solve(field, torch.ones(4, 2), 1.0).succeeded
        layer.train()


def test_a_field_that_does_not_fit_its_state_is_named() -> None:
    class Odd(Field):
        def __init__(self, answer: object) -> None:
            super().__init__()
            self.answer = answer

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return self.answer(x)

    for answer, error, words in (
        (lambda x: x[:-1], ValueError, r"Odd returned shape \(2,\) for a state of shape \(3,\)"),
        (lambda x: x.float(), TypeError, r"Odd returned torch.float32 .*torch.float64"),
        (lambda x: 0.0, TypeError, "Odd returned float"),
        (lambda x: x.sum(), ValueError, "dx/dt has the shape of x"),
    ):
        for how in ({}, {"steps": 3}):
            with pytest.raises(error, match=words):
                solve(Odd(answer), Y0, 1.0, **how)
    with pytest.raises(ValueError, match="returned 3 parts for a state of 2"):
        solve(lambda t, x: (*x, x[0]), (Y0, Y0), 1.0)


def test_an_unbound_field_is_not_a_function() -> None:
    with pytest.raises(RuntimeError, match=r"Heat is not bound: call field\.bind\(graph, x0\)"):
        Heat()(torch.tensor(0.0), torch.ones(3, 1))
    with pytest.raises(ValueError, match="got none"):
        allen_cahn().bind(None, torch.ones(3, 1))


def test_times_per_graph_need_a_field_that_takes_them() -> None:
    class Clocked(Field):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return -x * t

    batch = Graph.union([GRAPH, GRAPH])
    times = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="batched_time = True"):
        solve(Clocked(), torch.ones(6, 1), times, batch)


def test_a_measure_of_the_wrong_shape_is_named() -> None:
    def many(shot: object) -> Tensor:
        return torch.zeros(3)

    with pytest.raises(ValueError, match=r"the measure 'many' returned shape \(3,\)"):
        solve(Heat(), torch.ones(3, 1), 1.0, GRAPH, solver="tsit5", watch=many)
    assert np.isnan(solve(Heat(), torch.ones(3, 1), 1.0, GRAPH, solver="tsit5").energy.rate())
