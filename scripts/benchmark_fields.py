"""Time one evaluation of each field, and attention diffusion against torch_geometric's parts.

    python scripts/benchmark_fields.py                             # seconds, for tests
    python scripts/benchmark_fields.py --sizes large --root data   # PubMed, a million edges

GRAND: nonlinear, 4 heads, 64 channels, against the same numbers by torch_geometric's `softmax` and
`scatter`; a ratio is the median of paired ratios, the baseline's time over ours. Fields: the median
time of one evaluation with 32 channels in single precision, and the tensors held at its peak beside
graph and state, against limits. Written to runs/benchmark_fields (csv, markdown).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from analysis.tables import Table
from analysis.timing import compare, paired, peak_memory
from neuralpde import Graph, catalogue, data
from neuralpde.fields import GRAND
from neuralpde.fields.registry import FIELDS, first_state

Row = dict[str, Any]
HEADS, DIMS, CHANNELS = 4, 64, 32
LIMIT_SECONDS, LIMIT_MB, CLOSE = 2.0, 2000.0, 1e-4


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the benchmark sets, for PubMed")
    parser.add_argument("--sizes", choices=("small", "large"), default="small")
    parser.add_argument("--rounds", type=int, help="default: 1 for small sizes, else 15")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own")
    parser.add_argument("--only", default="", help="fields whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_fields"))
    return parser.parse_args(arguments)


def by_torch_geometric(field: GRAND, graph: Graph) -> Callable[[Tensor, Tensor], Tensor]:
    """The slope of an unweighted GRAND with self-loops, as one writes it there."""
    nodes = torch.arange(graph.num_nodes)
    source, target = torch.cat([graph.edge_index, nodes.expand(2, -1)], dim=1)

    def slope(t: Tensor, x: Tensor) -> Tensor:
        q = field.attention.query(x).view(len(x), HEADS, DIMS // HEADS)
        k = field.attention.key(x).view(len(x), HEADS, DIMS // HEADS)
        scores = (q[target] * k[source]).sum(2) / (DIMS // HEADS) ** 0.5
        weights = softmax(scores, target, num_nodes=len(x)).mean(1, keepdim=True)
        mean = scatter(weights * x[source], target, dim_size=len(x), reduce="sum")
        return torch.sigmoid(field.alpha) * (mean - x)

    return slope


def distance(left: Tensor, right: Tensor) -> float:
    """Their largest difference, relative to the largest number."""
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-30))


def attention_rows(name: str, graph: Graph, rounds: int) -> Iterator[Row]:
    """GRAND by us and by torch_geometric: slopes, then slopes and all gradients."""
    torch.manual_seed(0)
    field = GRAND(DIMS, attention_dim=DIMS, heads=HEADS, variant="nonlinear")
    x, t = torch.randn(graph.num_nodes, DIMS, requires_grad=True), torch.tensor(0.0)
    inputs, weights = [x, *field.parameters()], torch.randn(graph.num_nodes, DIMS)
    ours, theirs = field.bind(graph, x), by_torch_geometric(field, graph)

    def forward(f: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (f(t, x),)

    def both(f: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(f(t, x), inputs, weights)

    for part, work in (("forward", forward), ("forward and backward", both)):
        pairs = zip(work(ours), work(theirs), inputs, strict=False)
        # Keys' biases cancel in the softmax: their gradient is rounding, as large as its parts'.
        bias = field.attention.key.bias
        apart = [distance(a, b) for a, b, of in pairs if of is not bias]
        assert max(apart) < CLOSE, f"{part}: results differ by {max(apart)}"
        calls = {
            "torch_geometric": lambda work=work: work(theirs),
            "neuralpde": lambda work=work: work(ours),
        }
        row = compare(f"GRAND, {part}", name, calls, rounds=rounds)
        yield {**row, "largest difference": max(apart)}


def field_rows(name: str, graph: Graph, rounds: int, only: str) -> Iterator[Row]:
    """One evaluation of each field of the registry."""
    for key, entry in FIELDS.items():
        if only not in key:
            continue
        torch.manual_seed(0)
        channels = entry.channels or CHANNELS
        field = entry.make(channels)
        state = first_state(field, graph, torch.randn(graph.num_nodes, channels))
        before = time.perf_counter()
        bound = field.bind(graph, state)
        bind_seconds = time.perf_counter() - before

        def evaluate(bound: Any = bound, state: Any = state) -> Any:
            return bound(torch.tensor(0.1), state)

        # The first evaluation also finds what is kept for the later ones.
        memory = peak_memory(evaluate)
        seconds = paired({key: evaluate}, rounds=rounds)[key].seconds
        yield {
            "part": f"{key}, {channels} channels",
            "graph": name,
            "seconds": seconds,
            "bind seconds": bind_seconds,
            "peak MB": memory,
            "limits": f"{LIMIT_SECONDS:g} s, {LIMIT_MB:g} MB",
            "kept": seconds <= LIMIT_SECONDS and memory <= LIMIT_MB,
        }


def main() -> None:
    """Run both parts, print each row as it comes, write the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    large = args.sizes == "large"
    rounds = args.rounds or (15 if large else 1)
    nodes, pairs = (100_000, 500_000) if large else (500, 2_500)
    rng = torch.Generator().manual_seed(0)
    graph = catalogue.random_pairs(nodes, pairs, generator=rng)
    name = f"{nodes:,} nodes, {graph.edge_index.shape[1]:,} edges"
    peers = ("Minnesota", data.minnesota()) if large else ("karate", data.karate())
    if args.root:
        peers = ("PubMed", data.load("PubMed", root=args.root).graph)

    def rows() -> Iterator[Row]:
        yield from attention_rows(*peers, rounds)
        with torch.no_grad():
            yield from field_rows(name, graph, rounds, args.only)

    table = Table()
    for row in rows():
        table.add({**row, "threads": torch.get_num_threads()})
        table.save(args.out / "benchmark")
        ratio = f", {row['ratio']:.3g}x {row['baseline']}" if "ratio" in row else ""
        print(f"{row['part']}, {row['graph']}: {row['seconds']:.3g} s{ratio}", flush=True)
    print(table.markdown())


if __name__ == "__main__":
    main()
