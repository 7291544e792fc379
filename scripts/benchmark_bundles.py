"""Sheaves and bundles: exact flow against Taylor's series, and what building a sheaf costs.

    python scripts/benchmark_bundles.py                # random graphs, up to a million edges
    python scripts/benchmark_bundles.py --root data    # Chameleon itself
    python scripts/benchmark_bundles.py --smoke        # seconds, for tests

Taylor: the series of degree 8 that bundle networks use, against `BundleDiffusion`; errors in
units of the first state, against a solve in float64 to 1e-12. Building: a sheaf Laplacian, from
given maps, against one of its products with 32 channels per component, and with all features.
Evaluation: dx/dt of a bound field, and memory with its binding. Written to runs/benchmark_bundles.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from operator import matmul
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.tables import Table
from analysis.timing import compare, paired, peak_memory
from neuralpde import Graph, catalogue, data, fields, solve
from neuralpde.operators import orthogonal, products, sheaf_laplacian

Row = dict[str, Any]
DEGREE, CHANNELS, STALK = 8, 32, 3


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the benchmark sets")
    parser.add_argument("--smoke", action="store_true", help="tiny graphs, one round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_bundles"))
    return parser.parse_args(arguments)


def taylor(field: fields.BundleDiffusion, graph: Graph, x: Tensor, time: float) -> Tensor:
    """The truncated series of e^(-time L), in the frames."""
    f, term, total = field.bind(graph, x), x, x
    for k in range(1, DEGREE + 1):
        term = f(torch.tensor(0.0), term) * (time / k)
        total = total + term
    return total


def growth(graph: Graph, time: float) -> float:
    """The operator norm of the series: its largest modulus on the spectrum of L."""
    z = -time * torch.linalg.eigvalsh(graph.laplacian("sym", dtype=torch.float64).to_dense())
    powers = torch.stack([(z / k) for k in range(1, DEGREE + 1)]).cumprod(0)
    return float((1 + powers.sum(0)).abs().max())


def series(name: str, graph: Graph, rounds: int) -> Iterator[Row]:
    """The exact flow against the series, in error, products and time."""
    torch.manual_seed(0)
    field = fields.BundleDiffusion(16, 2)
    x = torch.randn(graph.num_nodes, 2, 16)
    twin = fields.BundleDiffusion(16, 2).double()
    twin.load_state_dict(field.state_dict())
    for time in (1.0, 4.0, 10.0):
        reference = solve(twin, x.double(), time, graph, rtol=1e-12).final
        before = products.total
        found = solve(field, x, time, graph, rtol=1e-5).final
        spent = products.total - before
        both = taylor(field, graph, x, time), found
        apart = [float((y.double() - reference).norm() / x.norm()) for y in both]
        yield compare(
            f"bundle, time {time:g}",
            name,
            {
                f"Taylor, degree {DEGREE}": partial(taylor, field, graph, x, time),
                "solve, rtol 1e-5": partial(solve, field, x, time, graph, rtol=1e-5),
            },
            rounds=rounds,
            **{
                "Taylor's norm": growth(graph, time),
                "Taylor's error": apart[0],
                "error": apart[1],
                "products / Taylor's": spent / DEGREE,
            },
        )


def building(name: str, graph: Graph, features: int, rounds: int) -> Iterator[Row]:
    """What it costs to make the operator, in products with it."""
    entries, count = graph.pattern.nnz, STALK * (STALK - 1) // 2
    made = {
        "diagonal": torch.randn(STALK, entries).T,
        "householder": orthogonal(torch.randn(count, entries).T, STALK),
        "general": torch.randn(STALK, STALK, entries).movedim(-1, 0),
    }
    for kind, maps in made.items():
        promised = kind == "householder"
        build = partial(sheaf_laplacian, graph, maps, "augmented", orthogonal=promised)
        for width in (CHANNELS, features // STALK):
            product = partial(matmul, build(), torch.randn(graph.num_nodes, STALK, width))
            part = f"building a {kind} sheaf, stalk {STALK}, in products of {width} channels"
            yield compare(part, name, {"building": build, "product": product}, rounds=rounds)


def evaluation(name: str, graph: Graph, rounds: int) -> Iterator[Row]:
    """One evaluation of a bound field on a large graph."""
    for label, field in {
        "sheaf": fields.SheafDiffusion(CHANNELS, 2),
        "sheaf, general maps, stalk 3": fields.SheafDiffusion(CHANNELS, 3, kind="general"),
        "nonlinear sheaf": fields.SheafDiffusion(CHANNELS, 2, variant="nonlinear"),
        "bundle": fields.BundleDiffusion(CHANNELS, 2),
    }.items():
        x, t = torch.randn(graph.num_nodes, field.stalk, CHANNELS), torch.tensor(0.0)
        calls = {"bind": partial(field.bind, graph, x), "f": partial(field.bind(graph, x), t, x)}
        times = paired(calls, rounds=max(1, rounds // 5))
        peak = peak_memory(lambda t=t, x=x, f=field: f.bind(graph, x)(t, x))
        yield {
            "part": f"evaluation of {label}",
            "graph": name,
            "seconds": times["f"].seconds,
            "bind ms": 1e3 * times["bind"].seconds,
            "peak MB": peak,
        }


@torch.no_grad()
def main() -> None:
    """Run the parts, print each row as it comes, write the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    table, rounds = Table(), 1 if args.smoke else args.rounds
    side, size = (6, (200, 800)) if args.smoke else (30, (100_000, 1_000_000))
    name, features = "random, as large as Chameleon", 12 if args.smoke else 2_325
    graph = catalogue.random_pairs(*((60, 200) if args.smoke else (2_277, 31_371)))
    if args.root is not None:
        graph, name = data.load("Chameleon", root=args.root).graph, "Chameleon"

    def rows() -> Iterator[Row]:
        yield from series(f"grid {side} x {side}", catalogue.grid(side, side), rounds)
        yield from building(name, graph, features, rounds)
        shape = "{:,} nodes, {:,} pairs".format(*size)
        yield from evaluation(shape, catalogue.random_pairs(*size), rounds)

    for row in rows():
        table.add({**row, "threads": torch.get_num_threads()})
        table.save(args.out / "benchmark")
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    print(table.markdown())


if __name__ == "__main__":
    main()
