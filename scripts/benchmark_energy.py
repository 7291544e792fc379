"""What energy, norm and Rayleigh quotient cost beside the solve that they belong to.

    python scripts/benchmark_energy.py                 # random graphs as large as PubMed
    python scripts/benchmark_energy.py --root data     # PubMed itself too
    python scripts/benchmark_energy.py --smoke         # seconds, for tests

Steps: every accepted step of a nonlinear solve is measured, against the same solve without a graph.
Exact solves: the energy is read once, at 64 times and more, against the solve alone. `cost` is the
median over pairs of (time with / time without) - 1. Written to runs/benchmark_energy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.tables import Table
from analysis.timing import compare
from neuralpde import Graph, catalogue, data, fields, solve

STEP_TIME, HEAT_TIME = 10.0, 18.3


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the benchmark sets")
    parser.add_argument("--smoke", action="store_true", help="one tiny graph, one round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_energy"))
    return parser.parse_args(arguments)


def random_graph(nodes: int, pairs: int) -> Graph:
    """The same random graph every time."""
    return catalogue.random_pairs(nodes, pairs, generator=torch.Generator().manual_seed(0))


def cases(graph: Graph, x: Tensor) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """What is solved: without and with its energy."""
    A = graph.like(x).adjacency("row")
    torch.manual_seed(0)
    attention = fields.GRAND(x.shape[1], variant="nonlinear").eval().bind(graph.like(x), x)
    for kind, f in (
        ("steps of tanh(Ax) - x", lambda t, x: torch.tanh(A @ x) - x),
        ("steps of nonlinear GRAND", lambda t, x: attention(t, x)),
    ):
        yield (
            kind,
            lambda f=f: solve(f, x, STEP_TIME, solver="dopri5"),
            lambda f=f: solve(f, x, STEP_TIME, graph, solver="dopri5"),
        )
    for norm in ("sym", "rw"):
        field = fields.Heat(norm)
        yield (
            f"exact heat, {norm}",
            lambda f=field: solve(f, x, HEAT_TIME, graph),
            lambda f=field: solve(f, x, HEAT_TIME, graph).energy,
        )


def main() -> None:
    """Run the cases, print each row as it comes, write the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    graphs = {"random 100": (random_graph(100, 300), 8)}
    if not args.smoke:
        graphs["random 2,708"] = random_graph(2_708, 5_278), 64
        graphs["random 19,717"] = random_graph(19_717, 44_324), 64
    if args.root:
        graphs["PubMed"] = data.load("PubMed", root=args.root).graph, 64
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    with torch.no_grad():
        for name, (graph, channels) in graphs.items():
            x = torch.randn(graph.num_nodes, channels, generator=torch.Generator().manual_seed(1))
            for kind, without, with_energy in cases(graph, x):
                calls = {"without energy": without, "with energy": with_energy}
                row = compare(kind, name, calls, rounds=1 if args.smoke else args.rounds)
                table.add({**row, "cost": 1 / row["ratio"] - 1, "threads": torch.get_num_threads()})
                table.save(args.out / "benchmark")
                print(f"{kind}, {name}: {row['seconds']:.3g} s, {1 / row['ratio'] - 1:+.1%}")
    print(table.markdown())


if __name__ == "__main__":
    main()
