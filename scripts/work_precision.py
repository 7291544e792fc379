"""Work against precision: what an error costs, by our solvers, torchdiffeq's and scipy's.

    python scripts/work_precision.py           # four problems on three graphs: minutes
    python scripts/work_precision.py --quick   # one small graph, two tolerances: seconds

Every solver runs at a ladder of tolerances (rtol = atol) or of fixed steps, all on the same fields
in float64. Work is sparse products, and the least time of a few runs; errors are relative to closed
forms or DOP853 at 3e-14. Written to runs/work_precision: points, figures, and where peers lead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, expm_multiply
from torch_geometric.utils import barabasi_albert_graph

from analysis.fronts import ahead
from analysis.plots import BLUE, COLUMN, GREEN, GREY, ORANGE, STYLE
from analysis.tables import Table
from neuralpde import Graph, catalogue, data, solve
from neuralpde.catalogue import problems
from neuralpde.catalogue.problems import GraphProblem

Row = dict[str, Any]
MEASURES = {"products": "sparse products", "seconds": "seconds"}
DIFFUSION = ("auto", "rkl2", "tsit5", "dopri8", "trbdf2", "torchdiffeq:dopri5", "scipy:DOP853")
SOLVERS = {
    "heat": ("auto", "rkl2", "tsit5", "torchdiffeq:dopri5", "scipy:expm_multiply"),
    "forced Allen-Cahn": (*DIFFUSION, "etdrk2"),
    "GRAND": DIFFUSION,
    "wave": ("auto", "tsit5", "dopri8", "leapfrog", "torchdiffeq:dopri5", "scipy:DOP853"),
}
LOOKS: dict[str, dict[str, Any]] = {
    "auto": {"color": "k", "marker": "o", "ms": 6, "mfc": "none", "mew": 0.7, "ls": "none"},
    "rkl2": {"color": ORANGE, "marker": "^"},
    "tsit5": {"color": BLUE, "marker": "s"},
    "dopri8": {"color": "#56B4E9", "marker": "D"},
    "trbdf2": {"color": "#E69F00", "marker": "v"},
    "etdrk2": {"color": "#CC79A7", "marker": "P"},
    "leapfrog": {"color": GREEN, "marker": "p"},
    "torchdiffeq:dopri5": {"color": GREY, "marker": "x", "ls": "--"},
    "scipy:DOP853": {"color": GREY, "marker": "+", "ls": ":"},
    "scipy:expm_multiply": {"color": GREY, "marker": "*", "ls": "none", "ms": 5},
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="one small graph, two tolerances")
    parser.add_argument("--out", type=Path, default=Path("runs/work_precision"))
    return parser.parse_args(arguments)


def graphs(quick: bool) -> dict[str, Graph]:
    """A club, roads, and a graph with hubs."""
    if quick:
        return {"grid": catalogue.grid(6, 6)}
    torch.manual_seed(0)
    hubs = Graph(barabasi_albert_graph(1000, 2), 1000)
    return {"karate": data.karate(), "Minnesota": data.minnesota(), "hubs": hubs}


def ladder(problem: GraphProblem, solver: str, quick: bool) -> list[Row]:
    """How precisely a solver is asked to work, from coarse to fine."""
    if solver == "leapfrog":
        # Twice the fewest steps that are stable, h sqrt(lambda) < 2.
        fewest = int(problem.t[1] * float(problem.graph.laplacian().spectrum()[1].max()) ** 0.5) + 1
        return [{"steps": fewest * 4**k} for k in range(2 if quick else 5)]
    if solver == "scipy:expm_multiply":
        return [{}]
    # Errors of methods of order 2 fall slowly; exact ones cost little at any tolerance.
    finest = 6 if solver in ("rkl2", "trbdf2", "etdrk2") else 9
    finest = 12 if (problem.name, solver) == ("heat", "auto") else finest
    tolerances = [10.0**-k for k in ((2, 5) if quick else range(2, finest + 1))]
    return [{"rtol": tol, "atol": tol} for tol in tolerances]


def attempt(problem: GraphProblem, solver: str, how: Row) -> tuple[Any, int, str]:
    """The state at the end (None: it failed), the products it took, and who computed it."""
    if solver == "scipy:expm_multiply":
        return *by_scipy(problem), solver
    how = {"solver": solver, "max_steps": 100_000, "grad": "none", **how, "raise_on_failure": False}
    traj = solve(problem.field, problem.x0, problem.t, problem.graph, **how)
    found, stats = traj.final if traj.succeeded else None, traj.stats
    return found, stats.operator_products, stats.solver


def by_scipy(problem: GraphProblem) -> tuple[Any, int]:
    """Heat flow by scipy, and its products."""
    matrix, count = problem.graph.laplacian("comb", dtype=torch.float64).to_scipy(), [0]

    def product(x: np.ndarray) -> Any:
        count[0] += 1
        return -problem.t[1] * (matrix @ x)

    A = LinearOperator(matrix.shape, product, product, product, np.float64, product)
    x = expm_multiply(A, problem.x0.numpy(), traceA=-problem.t[1] * matrix.trace())
    return torch.from_numpy(x), count[0]


def measure(problem: GraphProblem, graph: str, solver: str, how: Row, runs: int) -> Row:
    """One point; the quickest of so many runs, or of as many as two seconds hold."""
    seconds: list[float] = []
    while len(seconds) < runs and sum(seconds) < 2.0:
        started = time.perf_counter()
        x, products, took = attempt(problem, solver, how)
        seconds.append(time.perf_counter() - started)
    row = {"problem": problem.name, "graph": graph, "solver": solver, "ran": took, **how}
    error = np.inf if x is None else problem.error(x)
    return {**row, "error": error, "products": products, "seconds": min(seconds)}


def behind(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where a peer's point costs less than anything of ours, in words."""
    for problem, graph in dict.fromkeys((row["problem"], row["graph"]) for row in rows):
        here = [row for row in rows if (row["problem"], row["graph"]) == (problem, graph)]
        for by in MEASURES:
            sides: list[dict[str, list[tuple[float, float]]]] = [{}, {}]
            for row in (row for row in here if row["error"] < np.inf):
                side = sides[":" in row["solver"]]
                point = max(row["error"], 1e-12), row[by]  # nothing to win beyond
                side.setdefault(row["solver"], []).append(point)
            for solver, error, work, least in ahead(*sides):
                what = f"{by}: {problem} on {graph}, {solver} at error {error:.1e}"
                yield f"{what}: {work:.3g}, we take {least:.3g}"


def draw(rows: list[Row], graph: str, by: str, out: Path) -> None:
    """One panel for each problem."""
    with mpl.rc_context({**STYLE, "lines.linewidth": 0.8, "lines.markersize": 3}):
        size = (COLUMN, 1.1 * COLUMN)
        figure, axes = plt.subplots(2, 2, sharex=True, figsize=size, layout="constrained")
        for ax, problem in zip(axes.flat, SOLVERS, strict=True):
            for solver, look in LOOKS.items():
                own = [r for r in rows if (r["problem"], r["solver"]) == (problem, solver)]
                ax.loglog([r["error"] for r in own], [r[by] for r in own], label=solver, **look)
            ax.set_title(problem, loc="left")
        ax.set(xlim=(3.0, 1e-14), xticks=[10.0**-k for k in (0, 4, 8, 12)])
        figure.supylabel(f"{MEASURES[by]}, {graph}", fontsize=7)
        plt.setp(axes[1], xlabel="relative error")
        legend = ax.get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(out / f"{by}_{graph.lower()}.png", dpi=300)
        plt.close(figure)


def main() -> None:
    """Solve everything, write as it goes, draw, and say where peers are ahead."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    for name, graph in graphs(args.quick).items():
        for make in (problems.heat, problems.allen_cahn, problems.grand, problems.wave):
            problem = make(graph, end=2.0 if args.quick else 10.0, channels=4)
            for solver in SOLVERS[problem.name]:
                for how in ladder(problem, solver, args.quick):
                    table.add(row := measure(problem, name, solver, how, 1 if args.quick else 3))
                table.save(args.out / "work_precision")
                did = f"error {row['error']:.1e} for {row['products']} products"
                print(f"{name}, {problem.name}, {solver}: {did}", flush=True)
        for by in MEASURES:
            draw([row for row in table.rows if row["graph"] == name], name, by, args.out)
    text = "\n".join(["Where peers are ahead:", *(list(behind(table.rows)) or ["nowhere"])])
    (args.out / "ahead.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
