"""Every script explains itself and, in its smallest form, leaves behind what it promises."""

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
FOUND = sorted(path.name for path in SCRIPTS.glob("*.py"))


def one(out: Path, pattern: str) -> Path:
    """The only file below `out` that matches."""
    files = list(out.rglob(pattern))
    assert len(files) == 1, f"expected one {pattern}, found {files}"
    return files[0]


def numbers(column: str, rows: list[dict[str, str]]) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


def assert_picture(path: Path) -> None:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 10_000, "an empty figure"


def assert_heat_run(out: Path) -> None:
    """Heat on 6 x 6 nodes from t = 0 to 1: finite states, a falling energy, settings, a figure."""
    with np.load(one(out, "*.npz"), allow_pickle=False) as saved:
        states = [saved[name] for name in saved.files if 36 in saved[name].shape]
    assert any(state.ndim >= 2 and state.shape[0] >= 2 for state in states), "no states over time"
    assert all(np.isfinite(state).all() for state in states)

    with one(out, "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (energy,) = (name for name in rows[0] if "energy" in name or "dirichlet" in name)
    values = numbers(energy, rows)
    assert len(values) >= 5
    assert all(0 <= later <= earlier * (1 + 1e-9) for earlier, later in pairwise(values))
    assert values[-1] < 0.9 * values[0], "heat did not spread"
    times = numbers("t", rows)
    assert times == sorted(times)
    assert (times[0], times[-1]) == (0.0, 1.0)

    settings = json.loads(one(out, "*.json").read_text())
    assert "grid:6x6" in json.dumps(settings)
    assert_picture(one(out, "*.png"))


def assert_benchmark_run(out: Path) -> None:
    """A table as csv and the same rows as markdown, with finite positive times."""
    with one(out, "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    times = [name for name in rows[0] if "second" in name or "ms" in name or "time" in name]
    assert times, f"no column of times among {list(rows[0])}"
    for name in times:
        assert all(math.isfinite(value) and value > 0 for value in numbers(name, rows))
    lines = [line for line in one(out, "*.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2  # header and rule


def assert_work_precision_run(out: Path) -> None:
    """Every solver gets nearer with a finer tolerance, by more work; tables, figures, a verdict."""
    assert_benchmark_run(out)
    with one(out, "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["problem"] for row in rows} == {"heat", "forced Allen-Cahn", "GRAND", "wave"}
    for first, second in pairwise(rows):
        if all(first[name] == second[name] for name in ("problem", "graph", "solver")):
            assert float(second["error"]) < 0.5 * float(first["error"])
            assert int(second["products"]) > int(first["products"])
    for name in ("products", "seconds"):
        assert_picture(one(out, f"{name}_*.png"))
    assert one(out, "*.txt").read_text().startswith("Where peers are ahead:")


def assert_bridge_run(out: Path) -> None:
    """Simulated moments near the closed forms, in standard errors, and a figure."""
    with one(out, "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert all(abs(distance) < 4 for distance in numbers("distance", rows))
    assert_picture(one(out, "*.png"))


def assert_grid_run(out: Path) -> None:
    """Finite errors of every grid, smaller on the cosine grid than on equal steps."""
    with one(out, "*.csv").open(newline="") as file:
        (end, along) = csv.DictReader(file)
    for row in (end, along):
        assert 0 < float(row["cosine"]) < float(row["uniform"]) < 10
        assert 0 < float(row["own tempered"]) < 10


def assert_study(out: Path) -> None:
    """Every schedule with both solvers and every seed; the noise row; tables and figures."""
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    schedules = {row["schedule"] for row in rows}
    assert {"uniform", "cosine", "entropic", "literal", "uniform again"} <= schedules
    assert len(rows) == 2 * 2 * len(schedules)
    assert {float(row["evaluations"]) for row in rows} == {6.0}
    fitting = {row["schedule"]: float(row["fitting"]) for row in rows}
    assert fitting["cosine"] == 0 < fitting["entropic"]
    assert "uniform again" in (out / "paired-mmd2.md").read_text()
    for name in ("grids", "rates", "mmd2-heun", "mmd2-stochastic_heun"):
        assert_picture(out / f"{name}.png")


def assert_flow_run(out: Path) -> None:
    """Both samplers end near the target: W2 is 2.7 from the source, 0.3 between its samples."""
    with one(out, "*.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["solver"] for row in rows] == ["heun", "stochastic_heun"]
    assert all(0 < distance < 1.5 for distance in numbers("w2", rows))
    assert json.loads(one(out, "*.json").read_text())["pair"] == "8gaussians-moons"
    assert one(out, "network.pt").stat().st_size > 1000
    assert_picture(one(out, "points.png"))


def assert_page_of_fields(out: Path) -> None:
    """The page is the one in docs/, which was made of the registry as it is."""
    page = one(out, "fields.md").read_text()
    assert page == (ROOT / "docs" / "fields.md").read_text(), "run scripts/list_fields.py"


def assert_tracks(out: Path) -> None:
    """A verdict for each field, the layers with falling energies, two figures."""
    with one(out, "verdicts.csv").open(newline="") as file:
        verdicts = {row["field"]: row for row in csv.DictReader(file)}
    assert set(verdicts) == {"gcn", "grand", "gcn+source", "gcn+fosr"}
    assert verdicts["grand"]["by shape"] == "over-smooths"
    assert verdicts["gcn+source"]["by energy"] == "does not smooth"
    with one(out, "layers.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["field"] == "gcn"]
    assert [int(row["layer"]) for row in rows] == [0, 1, 2, 4, 8, 16, 32]
    values = numbers("energy", rows)
    assert all(later < earlier for earlier, later in pairwise(values))
    assert "sbm:2x20x0.3x0.05" in one(out, "settings.json").read_text()
    for name in ("survey.png", "panels.png"):
        assert_picture(out / name)


def assert_two_energies(out: Path) -> None:
    """Both energies fall in the ratio of the degree on a torus, and part on karate."""
    with one(out, "energies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ratios = {
        name: numbers("ratio", [row for row in rows if row["graph"] == name])
        for name in ("karate", "torus:7x9")
    }
    assert all(math.isclose(ratio, 4.0, rel_tol=1e-6) for ratio in ratios["torus:7x9"])
    assert ratios["karate"][-1] > 100 * ratios["karate"][0]
    assert_picture(one(out, "*.png"))


def assert_trials(out: Path) -> None:
    """Two models and two seeds, with what is needed to repeat them; a table, weights, pictures."""
    with one(out, "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("grand", "gcn") for seed in "01"
    ]
    assert all(0.5 <= value <= 1.0 for value in numbers("test", rows))
    assert all("train_nodes.py" in row["command"] for row in rows)
    assert all(json.loads(row["settings"])["training"]["epochs"] == 40 for row in rows)
    assert "| Karate | random | grand | 1 | 2 |" in one(out, "table.md").read_text()
    assert len(list(out.glob("*.safetensors"))) == 4
    for seed in "01":
        assert_picture(out / f"Karate-grand-{seed}-energy.png")


def assert_depths(out: Path) -> None:
    """Eight readings of each model, beginning where the decoder knows nothing; two figures."""
    with one(out, "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["grand"] * 8 + ["g2"] * 8
    assert numbers("depth", rows[:8]) == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0]
    roughness = numbers("rayleigh", rows[:8])
    assert roughness == sorted(roughness, reverse=True), "diffusion smooths"
    assert all(0.0 <= value <= 1.0 for value in numbers("accuracy", rows))
    for width in ("column", "page"):
        assert_picture(out / f"horizon-{width}.png")


def assert_recovery(out: Path) -> None:
    """Weights nearer to the truth than the start was, explained to the noise; a map."""
    result = json.loads(one(out, "recovery.json").read_text())["result"]
    assert result["error"] < 0.05 < 0.2 < result["error of unit weights"]
    assert math.isclose(result["misfit"], result["expected misfit"], rel_tol=0.05)
    assert_picture(one(out, "recovery.png"))


@dataclass(frozen=True)
class Smallest:
    """A script's cheapest command line and what must lie in its folder afterwards."""

    arguments: tuple[str, ...]
    check: Callable[[Path], None]


SMALLEST = {
    "solve_graph_pde.py": Smallest(("--graph", "grid:6x6", "--t", "1"), assert_heat_run),
    "benchmark.py": Smallest(("--smoke",), assert_benchmark_run),
    "benchmark_bundles.py": Smallest(("--smoke",), assert_benchmark_run),
    "benchmark_fields.py": Smallest((), assert_benchmark_run),
    "benchmark_energy.py": Smallest(("--smoke",), assert_benchmark_run),
    "benchmark_influence.py": Smallest(("--smoke",), assert_benchmark_run),
    "benchmark_stiff.py": Smallest(("--smoke",), assert_benchmark_run),
    "benchmark_peers.py": Smallest(("--smoke",), assert_benchmark_run),
    "benchmark_training.py": Smallest(("--rounds", "2", "--warm", "5"), assert_benchmark_run),
    "benchmark_products.py": Smallest(("--smoke",), assert_benchmark_run),
    "bridge_grids.py": Smallest(("--smoke",), assert_grid_run),
    "compare_energies.py": Smallest((), assert_two_energies),
    "compare_schedules.py": Smallest(
        (
            "--problem",
            "gaussian-8gaussians",
            "--seeds",
            "2",
            "--samples",
            "64",
            "--steps",
            "3",
        ),
        assert_study,
    ),
    "laplacian_bridge.py": Smallest(("--smoke",), assert_bridge_run),
    "list_fields.py": Smallest((), assert_page_of_fields),
    "recover_diffusivity.py": Smallest(("--graph", "grid:10x10"), assert_recovery),
    "track_energy.py": Smallest(
        (
            "--graph",
            "sbm:2x20x0.3x0.05",
            "--depth",
            "32",
            "--channels",
            "16",
            "--fields",
            "gcn,grand,gcn+source,gcn+fosr",
        ),
        assert_tracks,
    ),
    "study_depth.py": Smallest(("--models", "grand,g2", "--epochs", "20"), assert_depths),
    "train_nodes.py": Smallest(
        (
            *("--model", "grand,gcn", "--seeds", "2", "--set", "epochs=40"),
            *("--save", "--energy", "--quiet"),
        ),
        assert_trials,
    ),
    "train_flow.py": Smallest((), assert_flow_run),
    "work_precision.py": Smallest(("--quick",), assert_work_precision_run),
}


def run(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_python(str(SCRIPTS / name), *arguments, cwd=cwd)


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The checkout is importable also where nothing is installed, as under `python -m pytest`.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_table_lists_every_script() -> None:
    assert not SCRIPTS.is_dir() or set(SMALLEST) == set(FOUND)


EXPLAIN = """
import contextlib, io, json, runpy, sys
told = {}
for path in sys.argv[1:]:
    sys.argv, said, code = [path, "--help"], io.StringIO(), None
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            code = end.code
    told[path] = code, said.getvalue()
print(json.dumps(told))
"""


@pytest.mark.slow
def test_scripts_explain_themselves(tmp_path: Path) -> None:
    # One process for all of them: importing torch takes longer than the help.
    paths = [str(SCRIPTS / name) for name in FOUND]
    done = run_python("-c", EXPLAIN, *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path, (code, said) in json.loads(done.stdout).items():
        assert code == 0, path
        assert "usage:" in said, path
        assert "--out" in said, path
    assert not list(tmp_path.iterdir()), "--help wrote files"


@pytest.mark.slow  # all of them; .ci/run does it with the wheel
@pytest.mark.parametrize("name", FOUND)
def test_script_runs_in_its_smallest_form(name: str, tmp_path: Path) -> None:
    smallest = SMALLEST[name]
    out = tmp_path / "out"
    done = run(name, *smallest.arguments, "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it says nothing about what it did"
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "it wrote outside --out"
    smallest.check(out)
