"""Does the Laplacian bridge gain from a time grid of its own? Against the Brownian bridge's grid.

    python scripts/bridge_grids.py               # minutes
    python scripts/bridge_grids.py --smoke       # seconds, for tests

The flow of the bridge on Minnesota (norm sym) is run by Heun's method with few steps, from exact
samples of its law at the first time, and compared at the last time with the exact solution, which
keeps `V_t^(-1/2) (x - m_t)`. Grids are equal quantiles of a density: |entropy rate| to a power p,
mixed with a share of equal steps, the rate being that of the Laplacian or of the Brownian bridge.
All grids meet the same pairs of ends and the same samples: the ratio own / Brownian is paired, with
a 95 % interval over the pairs. Written to runs/bridge_grids.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from analysis.tables import Table
from neuralpde import catalogue, data, solve
from neuralpde.flows import BridgeFlow, BrownianBridge, LaplacianBridge
from neuralpde.flows import Path as FlowPath
from solvers.schedules import Cosine, Points, Schedule, Uniform

SHAPES = {"literal": (1.0, 0.0), "tempered": (0.5, 0.25)}
"""Power of the rate, and share of equal steps."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0, 100.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--pairs", type=int, default=16, help="pairs of ends, a sample each")
    parser.add_argument("--cut", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a small grid, one rate")
    parser.add_argument("--out", type=Path, default=Path("runs/bridge_grids"))
    return parser.parse_args(arguments)


def grid(path: FlowPath, dim: int, n: int, power: float, mix: float) -> Schedule:
    """Equal quantiles of the tempered and mixed rate between the path's ends."""
    low, high = path.ends
    ends = np.geomspace(low, 0.5, 400)
    t = np.unique(np.concatenate([ends, 1 - ends]))
    rate = path.entropy_rate(torch.from_numpy(t), dim).abs().numpy() ** power
    pieces = np.diff(t) * (rate[1:] + rate[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum(pieces)]) / pieces.sum()
    unit = (t - low) / (high - low)
    times = np.interp(np.arange(n + 1) / n, (1 - mix) * mass + mix * unit, unit)
    times[0], times[-1] = 0.0, 1.0
    return Points(times.tolist())


def errors(path: LaplacianBridge, ends: Tensor, z: Tensor, n: int, schedule: Schedule) -> Tensor:
    """Root mean square error of every sample at the last time."""
    x0, x1 = ends
    start, exact = (path.mean(t, x0, x1) + path.spread(t, z) for t in path.ends)
    run = solve(
        BridgeFlow(path, x0, x1),
        start,
        path.ends,
        path.graph,
        solver="heun",
        steps=n,
        schedule=schedule,
    )
    return (run.final - exact).square().mean(0).sqrt()


def paired(own: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Mean ratio over pairs (geometric), and its 95 % interval by Student's t."""
    from scipy.stats import t as student

    logs = (own / other).log()
    half = student.ppf(0.975, len(logs) - 1) * logs.std().item() / len(logs) ** 0.5
    middle = logs.mean().item()
    return tuple(float(np.exp(v)) for v in (middle, middle - half, middle + half))


def main() -> None:
    """Run all rates, steps and grids."""
    args = parse()
    graph = catalogue.grid(6, 6) if args.smoke else data.minnesota()
    rates, steps = ([10.0], [5]) if args.smoke else (args.rates, args.steps)
    rng = torch.Generator().manual_seed(args.seed)
    n = graph.num_nodes
    states = torch.randn(3, n, args.pairs, generator=rng, dtype=torch.float64)
    # Ends as rough as a bridge of heat: half smooth, half noise.
    smooth = torch.stack([solve_heat(graph, x) for x in states[:2]])
    ends, z = smooth + 0.1 * states[:2].flip(0), states[2]
    brownian, table = BrownianBridge(1.0, args.cut), Table()
    for c in rates:
        path = LaplacianBridge(graph, c, norm="sym", cut=args.cut, probes=n if args.smoke else 64)
        for count in steps:
            found = {"uniform": errors(path, ends, z, count, Uniform())}
            found["cosine"] = errors(path, ends, z, count, Cosine())
            for shape, (power, mix) in SHAPES.items():
                for name, of in (("Brownian", brownian), ("own", path)):
                    schedule = grid(of, n, count, power, mix)
                    found[f"{name} {shape}"] = errors(path, ends, z, count, schedule)
            row = {"c": c, "steps": count, **{k: float(v.mean()) for k, v in found.items()}}
            for shape in SHAPES:
                ratio, low, high = paired(found[f"own {shape}"], found[f"Brownian {shape}"])
                row[f"own / Brownian, {shape}"] = f"{ratio:.3f} [{low:.3f}, {high:.3f}]"
            table.add(row)
            print(Table([row]).markdown(), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    table.save(args.out / "grids.csv")


def solve_heat(graph: object, x: Tensor) -> Tensor:
    """Noise after some diffusion, of size 1."""
    from neuralpde.fields import Heat

    y = solve(Heat("sym"), x, 20.0, graph).final
    return y / y.std()


if __name__ == "__main__":
    main()
