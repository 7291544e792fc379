"""Comparisons: pairing, noise rows, resuming, failures; and the study that comes out."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.comparison import Run, compare
from analysis.problems import FieldProblem
from analysis.study import Study
from neuralpde import catalogue, solve
from neuralpde.fields import AllenCahn, Heat
from solvers.failure import SolveFailed
from solvers.schedules import Grid


@dataclass
class Noisy:
    """An error made of the seed's own noise and of the schedule's effect."""

    name: str = "noisy"
    replica: int = 0
    calls: list[Run] = field(default_factory=list)
    fails: int = -1

    def run(self, run: Run) -> dict[str, float]:
        self.calls.append(run)
        if run.seed == self.fails:
            raise SolveFailed(None, "it was told to")
        noise = np.random.default_rng(run.seed).normal(10.0, 1.0)
        gain = 0.0 if run.schedule is None else 0.1 * (run.schedule.grid(4)[1] < 0.2)
        return {"error": noise - gain, "evaluations": 2.0 * (run.steps or 7)}


def test_shared_seeds_show_what_noise_would_hide() -> None:
    study = compare(Noisy(), schedules=["uniform", "cosine"], steps=[4], seeds=8)
    cosine, again = study.paired("error").rows
    assert cosine["gain"] == pytest.approx(0.01, rel=0.1)
    assert cosine["t"] < 1e-6
    assert cosine["pairs"] == 8
    assert again["schedule"] == "uniform again"
    assert again["t"] > 0.01
    assert abs(again["gain"]) > cosine["gain"]


def test_fresh_seeds_are_nobody_elses() -> None:
    problem = Noisy()
    compare(problem, schedules=["uniform", "cosine"], steps=[4], seeds=[3, 9, 5])
    own = {run.seed for run in problem.calls if run.seed in (3, 9, 5)}
    fresh = [run.seed for run in problem.calls if run.seed not in own]
    assert own == {3, 5, 9}
    assert sorted(fresh) == [10, 11, 12]


def test_a_study_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    file, first, second = tmp_path / "study.jsonl", Noisy(), Noisy()
    arguments = {"schedules": ["uniform", "cosine"], "steps": [2, 4], "seeds": 2}
    whole = compare(first, store=file, **arguments)
    lines = file.read_text().splitlines()
    # Three results and half a line are left.
    file.write_text("\n".join(lines[:4]) + "\n" + lines[4][:30])
    resumed = compare(second, store=file, **arguments)
    assert len(second.calls) == len(first.calls) - 3
    assert resumed.rows == whole.rows
    third = Noisy()
    assert compare(third, store=file, **arguments).rows == whole.rows
    assert not third.calls


def test_a_file_of_another_study_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.jsonl"
    compare(Noisy(), schedules=["uniform"], steps=[2], seeds=2, store=file)
    with pytest.raises(ValueError, match="other schedules"):
        compare(Noisy(), schedules=["cosine"], steps=[2], seeds=2, store=file)


def test_results_do_not_depend_on_the_executor() -> None:
    arguments = {"schedules": ["uniform", "power"], "steps": [3], "rtols": [1e-2], "seeds": 3}
    with ThreadPoolExecutor(2) as executor:
        parallel = compare(Noisy(), executor=executor, **arguments)
    assert parallel.rows == compare(Noisy(), **arguments).rows


def test_failures_are_rows_and_leave_their_pairs() -> None:
    study = compare(Noisy(fails=1), schedules=["uniform", "cosine"], steps=[4], seeds=4)
    failed = [row for row in study.rows if "failed" in row]
    assert len(failed) == 2
    assert failed[0]["failed"] == "it was told to"
    cosine = study.paired("error").rows[0]
    assert cosine["pairs"] == 3
    assert study.table().rows[0]["failed"] == 1


def test_replicas_are_paired_with_themselves() -> None:
    problems = [Noisy(replica=0), Noisy(replica=1)]
    study = compare(problems, schedules=["uniform", "cosine"], steps=[4], seeds=3)
    assert study.paired("error").rows[0]["pairs"] == 6
    with pytest.raises(ValueError, match="different replicas"):
        compare([Noisy(), Noisy()], schedules=["uniform"], steps=[4])


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    compare(
        Noisy(),
        schedules=["uniform"],
        steps=[4],
        seeds=2,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(k, 4) for k in range(1, 5)]


def test_holm_counts_the_candidates_and_not_the_noise_row() -> None:
    def rows(name: str, shift: float) -> list[dict[str, object]]:
        rng = np.random.default_rng(0)
        other = np.random.default_rng(len(name))
        common = {"problem": "p", "solver": "s", "control": 1, "replica": 0, "schedule": name}
        return [
            common | {"seed": k, "error": rng.normal() + shift + 0.1 * other.normal()}
            for k in range(6)
        ]

    few = Study(rows("base", 0) + rows("one", 0.05) + rows("base again", 0.4), "base")
    more = Study([*few.rows, *rows("other!", 0.2)], "base")
    alone = {row["schedule"]: row["t"] for row in few.paired("error").rows}
    beside = {row["schedule"]: row["t"] for row in more.paired("error").rows}
    assert beside["base again"] == alone["base again"]
    assert beside["one"] == pytest.approx(min(1.0, max(alone["one"], 2 * beside["other!"] / 2)))


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(Noisy(), schedules=["uniform"])
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        compare(Noisy(), schedules=["cosin"], steps=[2])
    with pytest.raises(ValueError, match="have a meaning"):
        compare(Noisy(), schedules={"adaptive": "uniform"}, steps=[2])
    study = compare(Noisy(), schedules=["uniform"], steps=[2], seeds=2)
    with pytest.raises(ValueError, match="unknown metric"):
        study.paired("eror")
    with pytest.raises(ValueError, match="unknown schedule"):
        study.paired("error", "unifrm")


def test_everything_is_written(tmp_path: Path) -> None:
    study = compare(Noisy(), schedules=["uniform", "cosine"], steps=[2, 4], seeds=2)
    study.save(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names >= {"rows.csv", "table.csv", "table.md", "paired-error.csv", "paired-error.md"}
    assert "uniform again" in (tmp_path / "paired-error.md").read_text()
    assert json.loads(json.dumps(list(study.rows))) == list(study.rows)


def state(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(16, 2, generator=generator, dtype=torch.float64)


def test_errors_of_graph_fields_fall_with_their_order() -> None:
    problem = FieldProblem(AllenCahn(), catalogue.grid(4, 4), state, 1.0)
    study = compare(
        problem, schedules=["uniform"], solvers=["euler", "heun"], steps=[80, 160], seeds=2
    )
    errors = {(r["solver"], r["control"]): r["state error"] for r in study.table().rows[::2]}
    assert np.log2(errors["euler", 80] / errors["euler", 160]) == pytest.approx(1, abs=0.15)
    assert np.log2(errors["heun", 80] / errors["heun", 160]) == pytest.approx(2, abs=0.25)


def test_errors_of_heat_are_those_of_the_exponential() -> None:
    graph = catalogue.grid(4, 4)
    found = FieldProblem(Heat(), graph, state, 1.0).run(Run("rk4", None, 6, None, 1))
    L = graph.laplacian("comb", dtype=torch.float64).to_dense()
    exact = torch.linalg.matrix_exp(-L) @ state(1)
    rk4 = solve(lambda t, x: -L @ x, state(1), 1.0, solver="rk4", steps=6).final
    assert found["state error"] == pytest.approx(float((rk4 - exact).norm() / exact.norm()), 1e-5)
    energy = [float(torch.einsum("ic,ij,jc->", x, L, x)) for x in (rk4, exact)]
    assert found["energy error"] == pytest.approx(abs(energy[0] / energy[1] - 1), rel=1e-4)


def test_step_control_stands_beside_grids() -> None:
    problem = FieldProblem(AllenCahn(), catalogue.grid(4, 4), state, 2.0)
    study = compare(
        problem,
        schedules=["uniform"],
        solvers=["dopri5"],
        steps=[8],
        rtols=[1e-3, 1e-6],
        seeds=2,
    )
    rows = {(r["schedule"], r["control"]): r for r in study.table().rows}
    loose, tight = rows["adaptive", "rtol 0.001"], rows["adaptive", "rtol 1e-06"]
    assert tight["state error"] < 1e-2 * loose["state error"]
    assert tight["evaluations"] > loose["evaluations"]
    ax = study.plot("state error", problem="AllenCahn", solver="dopri5")
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"uniform", "adaptive"}


class Fitted:
    """A schedule that cost something."""

    evaluations = 49

    def grid(self, n: int) -> Grid:
        return np.linspace(0.0, 1.0, n + 1)


def test_what_a_schedule_cost_stands_in_its_own_column() -> None:
    grids = {"uniform": "uniform", "fitted": Fitted()}
    rows = compare(Noisy(), schedules=grids, steps=[4], seeds=2).table().rows
    assert [(row["schedule"], row["fitting"], row["evaluations"]) for row in rows] == [
        ("uniform", 0, 8),
        ("fitted", 49, 8),
        ("uniform again", 0, 8),
    ]


def test_energies_below_their_floor_are_no_errors() -> None:
    flat = FieldProblem(Heat(), catalogue.grid(4, 4), lambda seed: torch.ones(16, 1).double(), 1.0)
    found = flat.run(Run("rk4", None, 10, None, 0))
    assert "energy error" not in found
    assert found["state error"] < 1e-12
