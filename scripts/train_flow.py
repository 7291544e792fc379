"""Train a flow, sample it, judge the samples: pairs of laws in the plane, or traffic on a map.

    python scripts/train_flow.py                                        # seconds: a first look
    python scripts/train_flow.py --pair gaussian-checkerboard --train-steps 5000
    python scripts/train_flow.py --root DATA --train-steps 1000         # from noise to 8 o'clock
    python scripts/train_flow.py --root DATA --source-hour 6.5 --train-steps 1000   # as a bridge

In the plane velocity and score are trained, and sampled by the probability flow and by the
diffusion. With --root (a folder that holds sensors/metr_la_week.npz) states are the speeds of one
30-minute window on the Los Angeles sensor graph; each day in turn is left out of training, and the
Dirichlet energies of samples are compared with its own: W1 of samples over W1 of the other days.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from tqdm import tqdm

from analysis import held_out, median_bandwidths, mmd2, plots, wasserstein
from analysis.held_out import HeldOut
from neuralpde import data, flows, solve
from solvers import StochasticHeun

PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "8gaussians-moons": (flows.eight_gaussians, flows.moons),
    "gaussian-checkerboard": (lambda: flows.normal(2), flows.checkerboard),
    "gaussian-8gaussians": (lambda: flows.normal(2), flows.eight_gaussians),
    "moons-8gaussians": (flows.moons, flows.eight_gaussians),
}
MODES, SHOWN = 8, 5


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pair", default="8gaussians-moons", choices=PAIRS)
    add("--root", type=Path, help="traffic instead: the folder of the data sets")
    add("--hour", type=float, default=8.0, help="where the window of the target begins")
    add("--source-hour", type=float, help="a bridge from the states of this hour, not from noise")
    add("--days", type=int, nargs="+", help="which days to leave out in turn; default: all")
    add("--train-steps", type=int, default=200)
    add("--width", type=int, default=16, help="of the graph network")
    add("--sigma", type=float, default=0.5, help="noise of the bridge")
    add("--blur", type=float, default=0.7, help="of a bridge's first states (Silverman's rule)")
    add("--steps", type=int, default=10, help="of each sample")
    add("--schedule", default="cosine")
    add("--samples", type=int, default=1000)
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="default runs/flow-<pair or traffic>")
    args = parser.parse_args(arguments)
    args.out = args.out or Path(f"runs/flow-{'traffic' if args.root else args.pair}")
    return args


def in_the_plane(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on a pair, sample by both solvers, judge, draw."""
    source, target = (make() for make in PAIRS[args.pair])
    path = flows.BrownianBridge(args.sigma)
    model = flows.Learned(flows.MLP(2, heads=2), path, args.sigma)
    generator = torch.Generator().manual_seed(args.seed)
    with tqdm(total=args.train_steps, desc="training", disable=None) as bar:
        flows.train_bridge(
            model,
            *(source, target, flows.OptimalTransport()),
            steps=args.train_steps,
            batch=128,
            generator=generator,
            progress=lambda step, loss: bar.update(step - bar.n),
        )
    torch.save(model.state_dict(), args.out / "network.pt")
    x0, x1 = (law.sample(args.samples, generator).float() for law in (source, target))
    bandwidths, rows, films = median_bandwidths(target.sample(2000, generator)), [], {}
    samplers = {"heun": flows.ProbabilityFlow, "stochastic_heun": flows.StochasticSampler}
    for solver, sampler in samplers.items():
        how: Any = {"steps": args.steps, "schedule": args.schedule, "solver": solver}
        how |= {} if solver == "heun" else {"generator": generator}
        with torch.no_grad():
            found: Any = solve(sampler(model), x0, path.ends, save="steps", **how)
        errors = {"mmd2": mmd2(found.final, x1, bandwidths), "w2": wasserstein(found.final, x1)}
        rows.append({"solver": solver, "steps": args.steps, **errors})
        near = [int((found.t - t).abs().argmin()) for t in torch.linspace(0, 1, SHOWN)]
        films[solver.replace("_", "\n")] = [(float(found.t[k]), found.x[k]) for k in near]
    plots.clouds(films, x1).savefig(args.out / "points.png", dpi=200)
    return rows


def traffic(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Leave every day out in turn; draw the samples of the first one."""
    roads, rows = data.load_traffic(args.root), []
    left = args.days or range(len(roads.days))
    for day in tqdm(left, desc="days", disable=None):
        started = perf_counter()
        seen, unseen, states, seconds = without(args, roads, day)
        found: HeldOut = held_out(roads.graph, states, seen, unseen)
        whole = {"training": perf_counter() - started - seconds, "sampling": seconds}
        gap = {"w1": found.samples, "w1_training": found.training, "ratio": found.ratio}
        near = torch.cdist(torch.cat([states, unseen]), seen).min(1).values / seen.shape[1] ** 0.5
        aside = {
            "w1_between": found.between,
            "outside": float(((states < 0) | (states > 75)).double().mean()),
            "nearest": float(near[: len(states)].mean()),
            "nearest_held": float(near[len(states) :].mean()),
        }
        rows.append({"day": roads.days[day], **gap, **aside, **whole})
        kinds = {"left-out day": unseen, "samples": states, "training days": seen}
        shown = {k: x[torch.linspace(0, len(x) - 1, SHOWN - 1).long()] for k, x in kinds.items()}
        figure = plots.gallery(roads.graph, shown, "speed, miles an hour", limits=(0, 70))
        figure.savefig(args.out / f"map-{roads.days[day]}.png", dpi=200)
        plt.close(figure)
    ratios = [row["ratio"] for row in rows]
    print(f"W1 ratio: mean {sum(ratios) / len(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    return rows


def without(
    args: argparse.Namespace, roads: data.Traffic, day: int
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Training states, those left out, samples, all in miles an hour; seconds of sampling."""
    torch.manual_seed(args.seed)
    generator, graph = torch.Generator().manual_seed(args.seed), roads.graph
    noise, how = args.source_hour is None, {"steps": args.steps, "schedule": args.schedule}
    seen, unseen = roads.leave_out(day, args.hour)
    first, start = (seen, unseen) if noise else roads.leave_out(day, args.source_hour)
    known = torch.cat([seen, first])
    units, nodes = data.Standard.of(known), graph.num_nodes
    modes = flows.principal_modes(units.to(known), MODES).float()
    network = flows.ModalNetwork(modes, heads=1 if noise else 2, width=args.width)
    path = flows.Linear() if noise else flows.BrownianBridge(args.sigma)
    laws = [
        flows.normal(nodes) if noise else flows.Empirical(units.to(x), args.blur)
        for x in (first, start)
    ]
    ends, coupling = (laws[0], flows.Empirical(units.to(seen))), flows.OptimalTransport()
    steps = args.train_steps
    flows.train_on_graph(network, graph, path, *ends, coupling, steps=steps, generator=generator)
    x0 = laws[1].sample(args.samples, generator).float()
    sampler: Any = flows.ProbabilityFlow(network)
    if not noise:
        sampler = flows.StochasticSampler(flows.Learned(network, path, args.sigma))
        how |= {"solver": StochasticHeun(shared=False), "generator": generator}
    started = perf_counter()
    states = flows.carry(sampler, graph, x0, path.ends, **how)
    return seen, unseen, units.back(states.double()), perf_counter() - started


def main() -> None:
    """Train, sample, judge; write rows, settings and figures."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    rows = traffic(args) if args.root else in_the_plane(args)
    with (args.out / "rows.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    settings = {**vars(args), "command": " ".join(sys.argv)}
    (args.out / "settings.json").write_text(json.dumps(settings, indent=1, default=str))
    for row in rows:
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    print(f"wrote {args.out}/")


if __name__ == "__main__":
    main()
