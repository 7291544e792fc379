"""Does the Laplacian bridge gain from a time grid of its own? Against the Brownian bridge's grid.

    python scripts/bridge_grids.py                                         # the flow: minutes
    python scripts/bridge_grids.py --process --rates 1 10 --steps 20 40    # the stochastic equation
    python scripts/bridge_grids.py --process --rates 100 --steps 200 --fine 1500   # a stiff one
    python scripts/bridge_grids.py --smoke                                 # seconds, for tests

On Minnesota (norm sym) with few steps. The flow is run by Heun's method from exact samples and
compared with the exact solution, which keeps `V_t^(-1/2) (x - m_t)`; the process by stochastic
Heun, compared with many steps along the same Brownian path. `end` is the error at the last time,
`path` its root mean square over time, from the grid's points. Grids are equal quantiles of |entropy
rate| to a power, mixed with equal steps; the rate is that of the Laplacian or of the Brownian
bridge. All grids meet the same ends and samples: own / Brownian is paired, with a 95 % interval
over the pairs. Written to runs/bridge_grids.
"""

from __future__ import annotations

import argparse
import pathlib
from itertools import product

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from analysis.tables import Table
from neuralpde import Graph, catalogue, data, solve
from neuralpde.fields import Heat
from neuralpde.flows import BridgeFlow, BridgeProcess, BrownianBridge, LaplacianBridge, Path
from solvers.schedules import Cosine, Points, Schedule, Uniform
from solvers.stochastic import StochasticHeun

SHAPES = {"literal": (1.0, 0.0), "tempered": (0.5, 0.25)}
"""Power of the rate, and share of equal steps."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0, 100.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--pairs", type=int, default=8, help="pairs of ends, a sample each")
    parser.add_argument("--cut", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--process", action="store_true", help="the SDE instead of the flow")
    parser.add_argument("--fine", type=int, default=300, help="steps that the SDE is compared with")
    parser.add_argument("--smoke", action="store_true", help="a small grid, one rate")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/bridge_grids"))
    return parser.parse_args(arguments)


def grid(path: Path, dim: int, n: int, power: float, mix: float) -> Schedule:
    """Equal quantiles of the tempered and mixed rate between the path's ends."""
    first = np.geomspace(path.ends[0], 0.5, 400)
    t = np.unique(np.concatenate([first, 1 - first]))
    rate = path.entropy_rate(torch.from_numpy(t), dim).abs().numpy() ** power
    pieces = np.diff(t) * (rate[1:] + rate[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum(pieces)]) / pieces.sum()
    unit = (t - t[0]) / (t[-1] - t[0])
    times = np.interp(np.arange(n + 1) / n, (1 - mix) * mass + mix * unit, unit)
    times[0], times[-1] = 0.0, 1.0
    return Points(times.tolist())


def errors(
    path: LaplacianBridge,
    ends: Tensor,
    z: Tensor,
    n: int,
    schedule: Schedule,
    fine: int | None,
) -> dict[str, Tensor]:
    """Root mean square errors over nodes, of every sample: at the last time and along the way."""
    (x0, x1), (low, high) = ends, path.ends
    times = low + (high - low) * torch.from_numpy(schedule.grid(n))
    start = path.mean(low, x0, x1) + path.spread(low, z)
    if fine is not None:
        field, solver = BridgeProcess(path, x1), StochasticHeun(seed=1)
        how = {"steps": fine, "schedule": Cosine(), "solver": StochasticHeun(seed=1)}
        exact = solve(field, start, times, path.graph, **how).x
    else:
        field, solver = BridgeFlow(path, x0, x1), "heun"
        exact = torch.stack([path.mean(t, x0, x1) + path.spread(t, z) for t in times])
    run = solve(field, start, times, path.graph, solver=solver, steps=n, schedule=schedule)
    squares = (run.x - exact).square().mean(1)
    along = torch.trapezoid(squares, times, dim=0) / (high - low)
    return {"end": squares[-1].sqrt(), "path": along.sqrt()}


def paired(own: Tensor, other: Tensor) -> str:
    """Mean ratio over pairs (geometric), and its 95 % interval by Student's t."""
    logs = (own / other).log()
    half = student.ppf(0.975, len(logs) - 1) * logs.std().item() / len(logs) ** 0.5
    middle = logs.mean().item()
    ratio, low, high = np.exp([middle, middle - half, middle + half])
    return f"{ratio:.3g} [{low:.3g}, {high:.3g}]"


def problem(args: argparse.Namespace) -> tuple[Graph, Tensor, Tensor]:
    """A graph; pairs of ends, smooth with some noise; noise for the samples."""
    graph = catalogue.grid(6, 6) if args.smoke else data.minnesota()
    rng = torch.Generator().manual_seed(args.seed)
    states = torch.randn(5, graph.num_nodes, args.pairs, generator=rng, dtype=torch.float64)
    smooth = torch.stack([solve(Heat("sym"), x, 20.0, graph).final for x in states[:2]])
    return graph, smooth / smooth.std() + 0.1 * states[2:4], states[4]


def main() -> None:
    """Run all rates, steps and grids."""
    args = parse()
    graph, ends, z = problem(args)
    n, table = graph.num_nodes, Table()
    rates, steps = ([10.0], [5]) if args.smoke else (args.rates, args.steps)
    brownian = BrownianBridge(1.0, args.cut)
    for c, count in product(rates, steps):
        path = LaplacianBridge(graph, c, norm="sym", cut=args.cut)
        grids: dict[str, Schedule] = {"uniform": Uniform(), "cosine": Cosine()}
        for shape, (power, mix) in SHAPES.items():
            grids[f"Brownian {shape}"] = grid(brownian, n, count, power, mix)
            grids[f"own {shape}"] = grid(path, n, count, power, mix)
        fine = args.fine if args.process else None
        found = {k: errors(path, ends, z, count, s, fine) for k, s in grids.items()}
        for where in ("end", "path"):
            row = {"c": c, "steps": count, "error": where}
            row |= {name: float(each[where].mean()) for name, each in found.items()}
            for shape in SHAPES:
                own, other = found[f"own {shape}"][where], found[f"Brownian {shape}"][where]
                row[f"own / Brownian, {shape}"] = paired(own, other)
            table.add(row)
            print(*table.markdown().splitlines()[-1:], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    table.save(args.out / "grids.csv")
    print(table.markdown())


if __name__ == "__main__":
    main()
