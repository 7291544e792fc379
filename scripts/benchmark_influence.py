"""Time the influence of some nodes of a large graph on all others, at all times.

python scripts/benchmark_influence.py --nodes 20000 --sources 16 --times 51
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import analysis
from analysis.tables import Table
from neuralpde import catalogue
from neuralpde.fields.registry import FIELDS, first_state


def main() -> None:
    """Print a line for each field and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--neighbours", type=int, default=6)
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--channels", type=int, default=16, help="of linear fields")
    parser.add_argument("--times", type=int, default=51)
    parser.add_argument("--end", type=float, default=10.0)
    parser.add_argument("--fields", nargs="+", default=["heat", "allen-cahn"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_influence"))
    parser.add_argument("--smoke", action="store_true", help="a small graph")
    options = parser.parse_args()
    options.nodes = 300 if options.smoke else options.nodes
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(options.nodes, 2, generator=generator)
    graph = catalogue.knn(points, options.neighbours)
    sources = torch.randperm(options.nodes, generator=generator)[: options.sources]
    t = torch.linspace(0.0, options.end, options.times, dtype=torch.float64)
    print(f"{graph}, {options.sources} sources, {options.times} times to {options.end:g}")
    for name in options.fields:
        torch.manual_seed(0)
        channels = options.channels if name in ("heat", "wave") else 1
        field = FIELDS[name].make(channels)
        x = torch.randn(options.nodes, channels, generator=generator)
        started = time.perf_counter()
        found = analysis.sensitivity(
            field,
            first_state(field, graph, x),
            t,
            graph,
            sources=sources,
            rtol=1e-4,
            atol=1e-8,
        )
        profile = analysis.influence_profile(found, graph)
        seconds = time.perf_counter() - started
        print(f"{name} ({channels} channels, {found.method}): {seconds:.1f} s; {profile}")
        row = {"field": name, "channels": channels, "method": found.method.replace(",", ";")}
        table.add({**row, "nodes": options.nodes, "seconds": seconds})
        table.save(options.out / "benchmark")


if __name__ == "__main__":
    main()
