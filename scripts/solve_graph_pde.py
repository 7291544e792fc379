"""Solve one graph PDE and write its states, energies, settings and a figure.

Without arguments: heat spreads from one town over the road network of Minnesota.

    python scripts/solve_graph_pde.py
    python scripts/solve_graph_pde.py --graph grid:40x40 --field allen-cahn --t 20
    python scripts/solve_graph_pde.py --graph Cora --root data --field grand --t 18
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
from neuralpde import Graph, catalogue, data, fields, solve
from solvers.failure import SolveFailed
from solvers.trajectory import Trajectory

FAMILIES = ("path", "ring", "grid", "torus", "complete", "star", "hypercube", "barbell", "tree")
SEVERAL, FEW, LARGE = 33, 5, 10**6


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--graph",
        default="minnesota",
        help=f"minnesota, karate, a benchmark (Cora, ...), or family:sizes such as grid:40x40 "
        f"({', '.join(FAMILIES)}); default minnesota",
    )
    add("--root", type=Path, help="folder of the benchmark sets, in torch_geometric's layout")
    add("--field", default="heat", choices=("heat", "grand", "allen-cahn", "fisher", "wave"))
    add(
        "--norm",
        default="comb",
        choices=("comb", "sym", "rw", "augmented"),
        help="which Laplacian (heat, allen-cahn, fisher, wave); default comb",
    )
    add("--t", type=float, help="end time; by default one that shows something")
    add("--solver", default="auto", help="a solver's name; default auto")
    add("--rtol", type=float, help="relative tolerance; default 1e-4")
    add("--atol", type=float, help="absolute tolerance; default 1e-6")
    add("--seed", type=int, default=0, help="seed of random first states and weights")
    add("--device", default="cpu")
    add("--out", type=Path, help="folder to write to; default runs/<graph>-<field>")
    return parser.parse_args(arguments)


def load_graph(name: str, root: Path | None) -> tuple[Graph, torch.Tensor | None]:
    """The graph of that name, with its features if it has any."""
    family, _, sizes = name.partition(":")
    if family in FAMILIES and sizes:
        try:
            numbers = [int(size) for size in sizes.split("x")]
        except ValueError:
            raise ValueError(
                f"sizes of {name!r} are not whole numbers; say e.g. grid:40x40"
            ) from None
        return getattr(catalogue, family)(*numbers), None
    if name == "minnesota":
        return data.minnesota(), None
    if name == "karate":
        return data.karate(), None
    benchmark = data.load(name, root=root)
    return benchmark.graph, benchmark.x


def first_state(
    args: argparse.Namespace, graph: Graph, features: torch.Tensor | None
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """A warm patch around one node, random noise for Allen-Cahn, or the features of a benchmark."""
    generator = torch.Generator().manual_seed(args.seed)
    if args.field == "grand":
        noise = torch.rand(graph.num_nodes, 8, generator=generator)
        return (noise if features is None else features.float()).to(args.device)
    if args.field == "allen-cahn":
        return 0.2 * torch.randn(graph.num_nodes, 1, generator=generator).to(args.device)
    patch = warm_patch(graph).to(args.device)
    return (patch, torch.zeros_like(patch)) if args.field == "wave" else patch


def warm_patch(graph: Graph) -> torch.Tensor:
    """One on the tenth of the nodes nearest to the middle of the map, else zero."""
    where = torch.as_tensor(plots.layout(graph).copy())
    distance = (where - where.mean(0)).norm(dim=1)
    warm = distance.argsort()[: max(1, graph.num_nodes // 10)]
    x = torch.zeros(graph.num_nodes, 1)
    x[warm] = 1.0
    return x


def make_field(args: argparse.Namespace, channels: int) -> tuple[fields.Field, float]:
    """The field and a time that shows what it does."""
    torch.manual_seed(args.seed)
    heat = fields.Heat(args.norm)
    return {
        "heat": lambda: (heat, 200.0),
        "grand": lambda: (fields.GRAND(channels).eval(), 20.0),
        "allen-cahn": lambda: (heat + fields.Reaction.allen_cahn(), 15.0),
        "fisher": lambda: (heat + fields.Reaction.fisher(), 15.0),
        "wave": lambda: (fields.Wave(norm=args.norm), 30.0),
    }[args.field]()


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
    graph, features = load_graph(args.graph, args.root)
    x0 = first_state(args, graph, features)
    channels = (x0[0] if isinstance(x0, tuple) else x0).shape[-1]
    field, usual = make_field(args, channels)
    end = usual if args.t is None else args.t
    # Closer together at the start, where most happens; few for states that fill the memory.
    entries = (x0[0] if isinstance(x0, tuple) else x0).numel()
    points = SEVERAL if entries <= LARGE else FEW
    times = end * torch.linspace(0, 1, points, dtype=torch.float64) ** 2
    started = time.perf_counter()
    with torch.no_grad():
        trajectory = solve(
            field.to(args.device),
            x0,
            times,
            graph,
            solver=args.solver,
            rtol=args.rtol,
            atol=args.atol,
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
