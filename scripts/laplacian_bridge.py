"""The Laplacian bridge on the road network of Minnesota: simulated by solve, and in closed form.

    python scripts/laplacian_bridge.py                    # under a minute
    python scripts/laplacian_bridge.py --rate 0.1         # closer to the Brownian bridge
    python scripts/laplacian_bridge.py --smoke            # a grid of 8 x 8 nodes, for tests

Samples start in x0 (west against east) and are led to x1 (a bump) by the bridge's own stochastic
equation. For each time it prints how far mean, variance and Dirichlet energy are from the closed
forms, in standard errors over the samples, and draws states, energy and entropy rate. Written to
runs/laplacian_bridge.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from analysis import plots
from analysis.tables import Table
from neuralpde import Graph, catalogue, data, solve
from neuralpde.flows import BridgeProcess, LaplacianBridge
from solvers.stochastic import StochasticHeun

LINE = (
    "t = {t:<5g}{of:20} {closed form:9.2f} closed form {simulated:9.2f} simulated"
    "   {distance:+.2f} standard errors"
)
TIMES = (0.1, 0.25, 0.5, 0.75, 0.9)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=1.0, help="c in dx = -c L x dt + sigma dW")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--norm", default="comb", choices=("comb", "sym"))
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a small grid")
    parser.add_argument("--out", type=Path, default=Path("runs/laplacian_bridge"))
    return parser.parse_args(arguments)


def problem(smoke: bool) -> tuple[Graph, Tensor, Tensor]:
    """A graph, and two states of it."""
    graph = catalogue.grid(8, 8) if smoke else data.minnesota()
    pos = torch.from_numpy(plots.layout(graph))
    place = (pos - pos.mean(0)) / pos.std(0)
    x0 = torch.sin(2 * place[:, :1])
    x1 = 3 * torch.exp(-2 * (place - 0.5).square().sum(1, keepdim=True))
    return graph, x0, x1


def score(values: Tensor, expected: float) -> tuple[float, float, float]:
    """Mean over samples, its standard error, and its distance from what is expected in those."""
    mean, error = values.mean().item(), values.std().item() / len(values) ** 0.5
    return mean, error, (mean - expected) / error


def compared(path: LaplacianBridge, x0: Tensor, x1: Tensor, states: Tensor) -> Table:
    """Simulated moments beside the closed forms."""
    t = torch.tensor(TIMES, dtype=torch.float64)
    total, energy = path.total_variance(t).value[:, 0], path.energy(t, x0, x1).value[:, 0]
    rows = []
    for k, (at, x) in enumerate(zip(TIMES, states, strict=True)):
        mean = path.mean(at, x0, x1)
        size = mean.square().sum().item()
        for name, values, expected in (
            ("mean, along m", (mean * x).sum(0), size),
            ("variance, all nodes", (x - mean).square().sum(0), total[k].item()),
            ("Dirichlet energy", (x * (path.L @ x)).sum(0), energy[k].item()),
        ):
            found, error, distance = score(values, expected)
            row = {"t": at, "of": name, "closed form": expected, "simulated": found}
            rows.append({**row, "standard error": error, "distance": distance})
    return Table(rows)


def draw(path: LaplacianBridge, x0: Tensor, x1: Tensor, states: Tensor, out: Path) -> None:
    """States of one sample on the map; energy with its band and samples; entropy rates."""
    import matplotlib.pyplot as plt

    with plt.style.context(plots.STYLE):
        figure = plt.figure(figsize=(plots.PAGE, 0.52 * plots.PAGE), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=(0.62, 1))
        film = [(0.0, x0), *((TIMES[k], states[k, :, :1]) for k in (0, 2, 4)), (1.0, x1)]
        limits = (float(min(x.min() for _, x in film)), float(max(x.max() for _, x in film)))
        maps = upper.subplots(1, len(film))
        for ax, (t, x) in zip(maps, film, strict=True):
            plots.state(path.graph, x, ax, limits=limits, title=f"$t$ = {t:g}")
        bar = upper.colorbar(maps[-1].collections[-1], ax=list(maps), shrink=0.8, aspect=15)
        bar.set_label("state $x$, one sample")
        left, right = lower.subplots(1, 2)
        t = torch.linspace(0, 1, 101, dtype=torch.float64)
        energy = path.energy(t, x0, x1).value[:, 0]
        band = 2 * path.energy_deviation(t, x0, x1)[:, 0]
        left.fill_between(t, energy - band, energy + band, color=plots.BLUE, alpha=0.25, lw=0)
        left.plot(t, energy, color=plots.BLUE, label="expected, ±2 deviations of a sample")
        own = torch.stack([(x * (path.L @ x)).sum(0) for x in states])
        ticks = torch.tensor(TIMES).unsqueeze(1).expand_as(own).flatten()
        left.plot(ticks, own.flatten(), ".", ms=2, color=plots.ORANGE, label="samples")
        left.set(xlabel="time $t$", ylabel=f"Dirichlet energy ({path.norm})", ylim=(0, None))
        left.legend(frameon=False, loc="lower center")
        t = torch.linspace(0.01, 0.99, 100, dtype=torch.float64)
        nodes = path.graph.num_nodes
        own = path.rates(t).value[:, 0].abs() / nodes
        right.plot(t, own, color=plots.BLUE, label="Laplacian bridge")
        brownian = (0.5 / t - 0.5 / (1 - t)).abs()
        right.plot(t, brownian, "--", color=plots.GREY, label="Brownian bridge")
        right.set(xlabel="time $t$", ylabel="|entropy rate|, nats per node", yscale="log")
        right.legend(frameon=False)
        figure.savefig(out, dpi=200)
        plt.close(figure)


def main() -> None:
    """Simulate, compare, draw."""
    args = parse()
    started = time.perf_counter()
    graph, x0, x1 = problem(args.smoke)
    path = LaplacianBridge(graph, args.rate, args.sigma, norm=args.norm)
    print(path)
    start = x0.expand(graph.num_nodes, args.samples).contiguous()
    times = torch.tensor([0.0, *TIMES], dtype=torch.float64)
    solver = StochasticHeun(seed=args.seed)
    run = solve(BridgeProcess(path, x1), start, times, graph, solver=solver, steps=args.steps)
    print(run.stats.reason)
    table = compared(path, x0, x1, run.x[1:])
    for row in table.rows:
        print(LINE.format(**row))
    args.out.mkdir(parents=True, exist_ok=True)
    table.save(args.out / "moments.csv")
    draw(path, x0, x1, run.x[1:], args.out / "bridge.png")
    print(f"{time.perf_counter() - started:.0f} s; written to {args.out}")


if __name__ == "__main__":
    main()
