"""Time the sparse product and its gradients, and measure their memory.

    python scripts/benchmark_products.py            # up to 170,000 nodes, 2.3 million entries
    python scripts/benchmark_products.py --smoke    # seconds, for tests

A ratio is the median of paired ratios, the baseline's time over ours. Written to
runs/benchmark_products (csv, markdown).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.tables import Table
from analysis.timing import compare, paired, peak_memory
from neuralpde import Graph
from neuralpde.operators import SparseOperator
from solvers.exact import propagate

Row = dict[str, Any]
CHANNELS = 64
LARGEST_DENSE_GB = 8.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="one tiny graph, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_products"))
    return parser.parse_args(arguments)


def random_edges(nodes: int, pairs: int) -> Tensor:
    """Random pairs both ways, in random order, as a file would list them."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(0, nodes, (2, pairs), generator=generator)
    both = torch.cat([ends, ends.flip(0)], dim=1)
    return both[:, torch.randperm(both.shape[1], generator=generator)]


def forward(name: str, edges: Tensor, graph: Graph, rounds: int) -> Iterator[Row]:
    """The product against gather, scale, scatter."""
    x = torch.randn(graph.num_nodes, CHANNELS)
    A = graph.like(x).adjacency("none")
    ones = torch.ones(edges.shape[1])
    by_receiver = edges[:, edges[1].argsort(stable=True)]
    for order, (source, target) in (("sorted by receiver", by_receiver), ("as loaded", edges)):

        def scatter(source: Tensor = source, target: Tensor = target) -> Tensor:
            return torch.zeros_like(x).index_add_(0, target, ones[:, None] * x[source])

        apart = float((A @ x - scatter()).abs().max())
        yield compare(
            f"product, edges {order}",
            name,
            {"gather-scatter": scatter, "A @ x": lambda: A @ x},
            rounds=rounds,
            **{"largest difference": apart},
        )


def gradient(name: str, graph: Graph, rounds: int) -> Iterator[Row]:
    """The gradient of the edge values, its memory, and torch's own where that fits into memory."""
    x, g = (torch.randn(graph.num_nodes, CHANNELS) for _ in range(2))
    A = graph.like(x).adjacency("sym")
    values = A.values.clone().requires_grad_()
    learned = SparseOperator(A.pattern, values)

    def torchs() -> Tensor:
        return torch.autograd.grad(((A.pattern.csr(values) @ x) * g).sum(), values)[0]

    def ours() -> Tensor:
        return torch.autograd.grad(((learned @ x) * g).sum(), values)[0]

    largest = values.numel() * CHANNELS * values.element_size() / 2**20
    memory = {"peak MB": peak_memory(ours), "edges x channels MB": largest}
    dense = graph.num_nodes**2 * values.element_size() / 2**30
    part = "gradient of edge values"
    if dense < LARGEST_DENSE_GB:
        calls = {"torch CSR": torchs, "ours": ours}
        yield compare(part, name, calls, rounds=rounds, **memory)
    else:
        seconds = paired({"ours": ours}, rounds=rounds)["ours"].seconds
        peer = f"torch CSR asks for {dense:.0f} GB"
        yield {"part": part, "graph": name, "baseline": peer, "seconds": seconds, **memory}


def reversible(name: str, nodes: int) -> Iterator[Row]:
    """Memory of an exact solve's backward pass at rising degree, edge gradients included."""
    graph = Graph(random_edges(nodes, 4 * nodes))
    x = torch.randn(graph.num_nodes, 16)
    L = graph.like(x).laplacian("sym")
    for z in (100.0, 1000.0, 10000.0):
        values = L.values.clone().requires_grad_()
        A = SparseOperator.tagged(L.pattern, values, L.tags, L.graphs) * -1.0
        times = torch.tensor([0.0, z], dtype=torch.float64)
        found = propagate(A, x, times, rtol=1e-2)
        rise = peak_memory(lambda out=found.x, v=values: torch.autograd.grad(out[-1].sum(), v))
        yield {
            "part": "backward of an exact solve",
            "graph": f"{name}, z = {z:g}",
            "degree": found.degree,
            "peak MB": rise,
        }


def main() -> None:
    """Run the parts, print each row as it comes, write the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    sizes = ((200, 800),) if args.smoke else ((19_717, 44_324), (170_000, 1_150_000))
    rounds = 1 if args.smoke else args.rounds

    def rows() -> Iterator[Row]:
        for nodes, pairs in sizes:
            edges = random_edges(nodes, pairs)
            graph = Graph(edges, nodes)
            name = f"{nodes:,} nodes, {graph.edge_index.shape[1]:,} entries"
            with torch.no_grad():
                yield from forward(name, edges, graph, rounds)
            yield from gradient(name, graph, rounds)
        yield from reversible(f"{sizes[0][0]:,} nodes", sizes[0][0])

    for row in rows():
        table.add({**row, "threads": torch.get_num_threads()})
        table.save(args.out / "benchmark")
        print(
            ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()),
            flush=True,
        )
    print(table.markdown())


if __name__ == "__main__":
    main()
