"""Recover the diffusivity of every road of Minnesota from noisy snapshots of a heat flow.

    python scripts/recover_diffusivity.py
    python scripts/recover_diffusivity.py --channels 1 --noise 0.005
    python scripts/recover_diffusivity.py --graph grid:10x10 --noise 0.05 --spread 0

The truth: weights exp(s + r) with s smooth over the map, r normal and independent from road to
road. From a first state of unit normal numbers, one or several tracers (channels), heat flows to
the end; snapshots at equal distances have independent normal noise. Known are the graph, the first
state, the times and the size of the noise. The weights come from gradients through the exact
solver; that their logarithms scatter is the only thing assumed of them (--spread).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor

from analysis.plots import PAGE, STYLE, edges, layout
from analysis.recovery import Recovery, recover_weights
from analysis.trials import revision
from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Conductances, Diffusion


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--graph", default="minnesota", help="minnesota, or a family with sizes")
    add("--snapshots", type=int, default=20)
    add("--channels", type=int, default=4, help="tracers that flow side by side; default 4")
    add("--noise", type=float, default=0.01, help="per standard deviation of the first state")
    add("--end", type=float, default=2.0, help="time of the last snapshot")
    add("--spread", type=float, default=0.5, help="of the logarithms; 0 to assume nothing")
    add("--iterations", type=int, default=100, help="of L-BFGS")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/recover-diffusivity"), help="folder to write to")
    return parser.parse_args(arguments)


def roads(graph: Graph, flow: Conductances, generator: torch.Generator) -> Tensor:
    """Logarithms of the true weights."""
    pos = torch.from_numpy(layout(graph).copy())
    pos = (pos - pos.mean(0)) / pos.std(0)
    x, y = pos[flow.ends].mean(0).T
    own = torch.randn(len(x), generator=generator, dtype=torch.float64)
    return 0.6 * torch.sin(1.5 * x) * torch.cos(1.2 * y) + 0.3 * own


def draw(graph: Graph, truth: Tensor, found: Recovery, path: Path) -> None:
    """True and recovered weights, and the relative error, side by side on the map."""
    import matplotlib.pyplot as plt

    off = 100 * (found.weights / truth - 1).abs()
    limits = tuple(truth.quantile(torch.tensor([0.01, 0.99]).double()).tolist())
    with plt.rc_context(STYLE):
        figure, places = plt.subplots(1, 3, figsize=(PAGE, PAGE / 2.7), layout="constrained")
        both = {"truth": truth, "recovered": found.weights}
        for ax, (title, values) in zip(places, both.items(), strict=False):
            shown = {"limits": limits, "log": True, "label": "diffusivity $w$", "title": title}
            edges(graph, found.ends, values, ax, **shown)
        edges(
            graph,
            found.ends,
            off,
            places[2],
            limits=(0.0, float(off.quantile(0.99))),
            cmap="magma_r",
            label="|recovered / true - 1|, %",
            title="relative error",
        )
        figure.savefig(path, dpi=200)
    plt.close(figure)


def run(args: argparse.Namespace) -> None:
    """Make data, recover, compare, write."""
    graph = catalogue.named(args.graph).graph
    generator = torch.Generator().manual_seed(args.seed)
    flow = Conductances(graph)
    theta = roads(graph, flow, generator)
    flow.log_weights.data = theta
    truth = theta.exp()
    shape = (graph.num_nodes, args.channels)
    x0 = torch.randn(shape, generator=generator, dtype=torch.float64)
    times = torch.linspace(0.0, args.end, args.snapshots + 1, dtype=torch.float64)
    with torch.no_grad():
        clean = solve(Diffusion(flow, "comb"), x0, times, graph, rtol=1e-10).x[1:]
    noise = args.noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    started = time.perf_counter()
    found = recover_weights(
        graph,
        x0,
        times[1:],
        clean + noise,
        args.noise,
        spread=args.spread or None,
        iterations=args.iterations,
    )
    seconds = time.perf_counter() - started
    off = (found.weights / truth - 1).abs()
    result = {
        "error": found.error(truth),
        "error of unit weights": float((1 - truth).norm() / truth.norm()),
        "median": float(off.median()),
        "worst road": float(off.max()),
        "misfit": found.misfit,
        "expected misfit": max(1 - len(truth) / clean.numel(), 0.0) ** 0.5,
        "solves": found.solves,
        "seconds": seconds,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(args).items()}
    settings |= {"command": shlex.join(sys.argv), "commit": revision(Path(__file__).parent)}
    text = json.dumps({"settings": settings, "result": result}, indent=2)
    (args.out / "recovery.json").write_text(text + "\n")
    draw(graph, truth, found, args.out / "recovery.png")
    per_cent = {name: f"{100 * float(value):.2g} %" for name, value in result.items()}
    print(f"{len(truth)} weights from {clean.numel()} numbers, noise {args.noise:g}")
    print(f"relative error {per_cent['error']} (unit weights: {per_cent['error of unit weights']})")
    print(f"single roads: {per_cent['median']} in the median, {per_cent['worst road']} at worst")
    print(f"misfit {found.misfit:.4f}, expected {result['expected misfit']:.4f}")
    print(f"{found.solves} solves with gradients in {seconds:.1f} s; wrote {args.out}/")


def main() -> None:
    """Turn mistakes of the caller into one clear line."""
    args = parse()
    mpl.use("agg")
    try:
        run(args)
    except (ValueError, TypeError) as error:
        sys.exit(f"recover_diffusivity: {error}")


if __name__ == "__main__":
    main()
