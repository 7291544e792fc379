"""Time our solvers against torchdiffeq and scipy on the same graphs, in one process, in turn.

    python scripts/benchmark.py                    # Minnesota and random graphs
    python scripts/benchmark.py --root data        # Cora and PubMed too
    python scripts/benchmark.py --smoke            # seconds, for tests

A ratio is the median of paired ratios, the baseline's time over ours; errors are relative to a
float64 reference. Every row is written to runs/benchmark (csv, markdown) as soon as it is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from scipy.sparse.linalg import expm_multiply
from torch import Tensor

from analysis.tables import Table
from analysis.timing import compare, peak_memory, relative_error
from neuralpde import Graph, catalogue, data, fields, solve
from solvers.scratch import release

Row = dict[str, Any]
HEAT_TIME, STEP_TIME, RTOL, ATOL = 18.3, 10.0, 1e-4, 1e-6


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the benchmark sets")
    parser.add_argument("--smoke", action="store_true", help="one tiny graph, one round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    return parser.parse_args(arguments)


def random_graph(nodes: int, pairs: int) -> Graph:
    """The same random graph every time."""
    return catalogue.random_pairs(nodes, pairs, generator=torch.Generator().manual_seed(0))


def first_state(graph: Graph, channels: int) -> Tensor:
    """Normal noise, the same every time."""
    return torch.randn(graph.num_nodes, channels, generator=torch.Generator().manual_seed(1))


def theirs(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, end: float) -> Tensor:
    """Torchdiffeq's dopri5 at the same tolerances."""
    t = torch.tensor([0.0, end])
    return torchdiffeq.odeint(f, x, t, rtol=RTOL, atol=ATOL, method="dopri5")[-1]


def exact_heat(name: str, graph: Graph, channels: int, rounds: int) -> Iterator[Row]:
    """The exact solve of heat against dopri5 on two products, scipy, and its own floor."""
    x, field = first_state(graph, channels), fields.Heat("sym")
    reference = solve(field, x.double(), HEAT_TIME, graph, rtol=1e-9).final
    A = graph.like(x).laplacian("sym") * -1.0
    weight, (source, target) = graph.like(x).adjacency("sym").values, graph.edge_index

    def ours() -> Any:
        return solve(field, x, HEAT_TIME, graph)

    def gathered(t: Tensor, x: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add_(0, target, weight[:, None] * x[source]) - x

    degree = (found := ours()).stats.operator_products
    csr, (y, z, total) = A.pattern.csr(A.values), torch.randn(3, *x.shape)

    def by_hand(in_turn: bool, add: bool) -> None:
        for k in range(degree):
            last, now = (z, y) if in_turn and k % 2 else (y, z)
            torch.addmm(last, csr, now, beta=-1.0, alpha=1.0, out=last)
            if add:
                total.add_(last, alpha=0.5)

    solver, scipy_A, scipy_x = f"our {found.stats.solver}", A.to_scipy(), x.numpy()
    release()
    more = {
        "products": degree,
        "error / |x0|": float((found.final.double() - reference).norm() / x.norm()),
        "peak MB": peak_memory(ours),
    }
    for baseline, call in (
        ("torchdiffeq dopri5, CSR product", lambda: theirs(lambda t, x: A @ x, x, HEAT_TIME)),
        ("torchdiffeq dopri5, gather-scatter", lambda: theirs(gathered, x, HEAT_TIME)),
        ("scipy expm_multiply", lambda: expm_multiply(scipy_A * HEAT_TIME, scipy_x)),
        ("degree x addmm, the same states", lambda: by_hand(False, False)),
        ("degree x addmm, states in turn", lambda: by_hand(True, False)),
        ("degree x (addmm, sum), in turn", lambda: by_hand(True, True)),
    ):
        yield compare("exact heat", name, {baseline: call, solver: ours}, rounds=rounds, **more)


def dopri5(name: str, graph: Graph, channels: int, rounds: int) -> Iterator[Row]:
    """The same method, callable and tolerances: ours against torchdiffeq's."""
    x = first_state(graph, channels)
    A, exact = (graph.like(state).adjacency("row") for state in (x, x.double()))
    for kind, f, reference_field in (
        ("Ax - x", lambda t, x: A @ x - x, lambda t, x: exact @ x - x),
        (
            "tanh(Ax) - x",
            lambda t, x: torch.tanh(A @ x) - x,
            lambda t, x: torch.tanh(exact @ x) - x,
        ),
    ):
        counted = [0]

        def counting(t: Tensor, x: Tensor, f: Any = f, counted: list[int] = counted) -> Tensor:
            counted[0] += 1
            return f(t, x)

        reference = solve(
            reference_field, x.double(), STEP_TIME, rtol=1e-10, atol=1e-12, solver="dopri8"
        ).final
        peer = theirs(counting, x, STEP_TIME)
        found = solve(f, x, STEP_TIME, solver="dopri5")
        calls = {
            "torchdiffeq dopri5": lambda f=f: theirs(f, x, STEP_TIME),
            "our dopri5": lambda f=f: solve(f, x, STEP_TIME, solver="dopri5"),
        }
        yield compare(
            "dopri5",
            f"{name} x {channels}, {kind}",
            calls,
            rounds=rounds,
            **{
                "evaluations": found.stats.nfe,
                "baseline evaluations": counted[0],
                "error": relative_error(found.final, reference),
                "baseline error": relative_error(peer, reference),
            },
        )


def graphs(args: argparse.Namespace) -> dict[str, tuple[Graph, int]]:
    """The graphs with their channels."""
    if args.smoke:
        return {"random 100": (random_graph(100, 300), 8)}
    found = {
        "Minnesota": (data.minnesota(), 8),
        "random 100": (random_graph(100, 300), 8),
        "random 2,708": (random_graph(2_708, 5_278), 64),
        "random 19,717": (random_graph(19_717, 44_324), 64),
    }
    if args.root:
        found |= {name: (data.load(name, root=args.root).graph, 64) for name in ("Cora", "PubMed")}
    return found


def main() -> None:
    """Run the parts, print each row as it comes, write the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    with torch.no_grad():
        for name, (graph, channels) in graphs(args).items():
            for part in (exact_heat, dopri5):
                if args.only not in part.__name__:
                    continue
                for row in part(name, graph, channels, 1 if args.smoke else args.rounds):
                    table.add({**row, "threads": torch.get_num_threads()})
                    table.save(args.out / "benchmark")
                    ours = f"{row['ours']} {row['seconds']:.3g} s, {row['ratio']:.3g}x"
                    print(f"{row['part']}, {row['graph']}: {ours} {row['baseline']}", flush=True)
    print(table.markdown())


if __name__ == "__main__":
    main()
