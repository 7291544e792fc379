"""Solve one graph PDE and write its states, energies, settings and a figure.

Without arguments: heat spreads from one town over the road network of Minnesota.

    python scripts/solve_graph_pde.py
    python scripts/solve_graph_pde.py --graph grid:40x40 --field allen-cahn --t 20
    python scripts/solve_graph_pde.py --graph Cora --root data --field grand --t 18

docs/fields.md lists the fields with their equations.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import matplotlib as mpl
import torch

from analysis import plots
from neuralpde import Graph, catalogue, fields, solve
from neuralpde.fields.registry import FIELDS, Entry, first_state
from solvers.failure import SolveFailed
from solvers.trajectory import Trajectory

NORMED = {
    "heat": fields.Heat,
    "wave": fields.Wave,
    "allen-cahn": lambda norm: fields.allen_cahn(norm=norm),
    "fisher": lambda norm: fields.fisher(norm=norm),
}
SEVERAL, FEW, LARGE, CHANNELS = 33, 5, 10**6, 8


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--graph",
        default="minnesota",
        help="minnesota, karate, a benchmark (Cora, ...), or family:sizes such as grid:40x40; "
        "default minnesota",
    )
    add("--root", type=Path, help="folder of the benchmark sets, in torch_geometric's layout")
    add("--field", default="heat", choices=tuple(FIELDS), metavar="FIELD", help=", ".join(FIELDS))
    add(
        "--norm",
        choices=("comb", "sym", "rw", "augmented"),
        help=f"which Laplacian ({', '.join(NORMED)}); default comb",
    )
    add("--t", type=float, help="end time; by default one that shows something")
    add("--solver", default="auto", help="a solver's name; default auto")
    add("--steps", type=int, help="a fixed grid of so many steps; stochastic fields need one")
    add("--rtol", type=float, help="relative tolerance; default 1e-4")
    add("--atol", type=float, help="absolute tolerance; default 1e-6")
    add("--seed", type=int, default=0, help="seed of random first states and weights")
    add("--device", default="cpu")
    add("--out", type=Path, help="folder to write to; default runs/<graph>-<field>")
    return parser.parse_args(arguments)


def first_values(
    entry: Entry, seed: int, graph: Graph, features: torch.Tensor | None
) -> torch.Tensor:
    """The features of a benchmark where the field takes any, else a patch, signs or noise."""
    if entry.start == "patch":
        return warm_patch(graph)
    generator = torch.Generator().manual_seed(seed)
    if entry.start == "signs":
        return 0.2 * torch.randn(graph.num_nodes, entry.channels or 1, generator=generator)
    if features is not None and entry.channels is None:
        return features.float()
    return torch.rand(graph.num_nodes, entry.channels or CHANNELS, generator=generator)


def warm_patch(graph: Graph) -> torch.Tensor:
    """One on the tenth of the nodes nearest to the middle of the map, else zero."""
    where = torch.as_tensor(plots.layout(graph).copy())
    distance = (where - where.mean(0)).norm(dim=1)
    warm = distance.argsort()[: max(1, graph.num_nodes // 10)]
    x = torch.zeros(graph.num_nodes, 1)
    x[warm] = 1.0
    return x


def make_field(args: argparse.Namespace, channels: int) -> fields.Field:
    """The field, its weights drawn by the seed."""
    torch.manual_seed(args.seed)
    if args.norm is None:
        return FIELDS[args.field].make(channels).eval()
    if args.field not in NORMED:
        raise ValueError(f"--norm is for {', '.join(NORMED)}; leave it out for {args.field}")
    return NORMED[args.field](norm=args.norm)


def write(folder: Path, trajectory: Trajectory, settings: dict[str, object]) -> None:
    """States as npz, energies as csv, settings as json, and the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    trajectory.save(folder / "trajectory.npz")
    energy, norm, rayleigh = (trajectory[name] for name in ("energy", "norm", "rayleigh"))
    with (folder / "energy.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["t", "energy", "norm", "rayleigh"])
        rows = zip(energy.t, energy.y, norm.y, rayleigh.y, strict=True)
        writer.writerows([f"{float(value):.10g}" for value in row] for row in rows)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    plots.summary(trajectory).savefig(folder / "figure.png", dpi=200)


def run(args: argparse.Namespace) -> int:
    """Solve, write, and say what happened."""
    found = catalogue.named(args.graph, args.root)
    graph, features = found.graph, found.x
    entry = FIELDS[args.field]
    values = first_values(entry, args.seed, graph, features).to(args.device)
    field = make_field(args, values.shape[1]).to(args.device)
    end = entry.end if args.t is None else args.t
    # Closer together at the start, where most happens; few for states that fill the memory.
    points = SEVERAL if values.numel() <= LARGE else FEW
    times = end * torch.linspace(0, 1, points, dtype=torch.float64) ** 2
    started = time.perf_counter()
    with torch.no_grad():
        trajectory = solve(
            field,
            first_state(field, graph, values),
            times,
            graph,
            solver=args.solver,
            steps=args.steps or entry.steps,
            rtol=args.rtol,
            atol=args.atol,
            generator=torch.Generator().manual_seed(args.seed),
            progress=sys.stderr.isatty(),
            raise_on_failure=False,
        )
    print(graph)
    print(trajectory)
    print(f"slope of log E over the later half: {trajectory.energy.rate():.4g}")
    name = args.graph.replace(":", "-")
    folder = args.out or Path("runs") / f"{name}-{args.field}"
    options = {key: str(value) for key, value in vars(args).items() if value is not None}
    write(folder, trajectory, {"options": options, **trajectory.settings})
    print(
        f"wrote {', '.join(sorted(p.name for p in folder.iterdir()))} to {folder}/ "
        f"({time.perf_counter() - started:.1f} s)"
    )
    return 0 if trajectory.succeeded else 1


def main() -> None:
    """Turn mistakes of the caller into one clear line."""
    args = parse()
    mpl.use("agg")
    try:
        sys.exit(run(args))
    except (ValueError, TypeError, FileNotFoundError, SolveFailed) as error:
        sys.exit(f"solve_graph_pde: {error}")


if __name__ == "__main__":
    main()
