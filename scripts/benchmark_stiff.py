"""Stiff diffusion: rkl2 and "auto" against dopri5, ours and torchdiffeq's, on the same fields.

    python scripts/benchmark_stiff.py                     # Allen-Cahn on a random graph
    python scripts/benchmark_stiff.py --root data         # GRAND on Cora, hubs: 20 minutes

rtol = atol = 1e-3, float64; errors are |x - y| / |y| at the end, y from dopri8 at 1e-8 (on the hubs
rkl2 at 1e-6). Features go to a few standardised channels by a fixed random matrix. On the hubs
torchdiffeq is stopped after --limit evaluations. What the folder of rows has is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.tables import Table
from analysis.timing import relative_error
from neuralpde import Graph, Trajectory, data, fields, solve
from solvers.flow import Flow
from solvers.rows import Rows
from solvers.spectrum import outer_eigenvalues

Row = dict[str, Any]
F64, TOL = torch.float64, 1e-3
PEER, OURS = "torchdiffeq:dopri5", ("rkl2", "auto")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--root", type=Path, help="folder of the benchmark sets")
    parser.add_argument("--smoke", action="store_true", help="one tiny graph")
    parser.add_argument("--limit", type=int, default=10_000, help="evaluations of peers on hubs")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_stiff"))
    return parser.parse_args(arguments)


class Saturating(fields.Field):
    """Diffusion of what nodes show of themselves, with a restart, dx/dt = -L tanh(x) + x0 - x."""

    batched_time = True

    def prepare(self, graph: Graph, x0: Any) -> None:
        """Take the combinatorial Laplacian and the restart."""
        self.L, self.x0 = graph.laplacian("comb"), x0

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The field."""
        return self.x0 - x - self.L @ torch.tanh(x)


@dataclass(frozen=True)
class Case:
    """What flows where, for how long, and who computes the reference."""

    part: str
    name: str
    field: fields.Field
    graph: Graph
    x: Tensor
    T: float
    reference: tuple[str, float] = ("dopri8", 1e-8)
    limit: int = 1_000_000

    def run(self, solver: str, tol: float = TOL) -> Trajectory:
        """Solve; failures are reported, not raised."""
        steps = self.limit // 6 if solver == PEER else 200_000  # dopri5 evaluates six times
        how: Row = {"solver": solver, "rtol": tol, "atol": tol, "max_steps": steps}
        return solve(self.field, self.x, self.T, self.graph, raise_on_failure=False, **how)

    def rows(self, solvers: Sequence[str]) -> Iterator[Row]:
        """One row per solver; ratios are the first one's evaluations over its own."""
        exact = self.run(*self.reference).final
        about = {"part": self.part, "problem": self.name, "T": self.T, **self.spectrum(exact)}
        first: Trajectory | None = None
        for solver in solvers:
            found = self.run(solver)
            stats, ended, first = found.stats, found.succeeded, first or found
            yield {
                **about,
                "solver": solver,
                "status": found.status,
                "reached": float(found.ended),
                "evaluations": f"{'' if ended else '> '}{stats.nfe}",
                "products": stats.operator_products,
                "fewer": f"{'' if first.succeeded else '> '}{first.stats.nfe / stats.nfe:.3g}",
                "steps": f"{stats.accepted} + {stats.rejected}",
                "seconds": stats.seconds,
                "error": relative_error(found.final, exact) if ended else "",
                "reason": stats.reason,
            }

    def spectrum(self, end: Tensor) -> Row:
        """The radius and the largest imaginary part of the Jacobian at the start and the end."""
        bound, rows = self.field.bind(self.graph, self.x), Rows()
        flow = Flow(lambda t, x: (bound(t, x[0]),), rows, self.x)
        a, b = (outer_eigenvalues(flow, np.zeros(1), (x,), rows) for x in (self.x, end))
        height = max(float(a.oblique[0]), float(b.oblique[0]))
        return {"max |lambda|": float(max(a.radius, b.radius)[0]), "max |Im lambda|": height}


def attached(nodes: int) -> Graph:
    """Preferential attachment with two edges per node (Barabasi and Albert), always the same."""
    generator = torch.Generator().manual_seed(0)
    ends, pairs = [0, 1], [(0, 1)]
    for node in range(2, nodes):
        draws = torch.randint(len(ends), (20,), generator=generator).tolist()
        pairs += [(node, one) for one in list(dict.fromkeys(ends[k] for k in draws))[:2]]
        ends += [end for pair in pairs[-2:] for end in pair]
    edges = torch.tensor(pairs).T
    return Graph(torch.cat([edges, edges.flip(0)], 1), nodes)


def channels(features: Tensor, count: int) -> Tensor:
    """A few standardised channels of the features, the same every time."""
    generator = torch.Generator().manual_seed(0)
    x = features.double() @ torch.randn(features.shape[1], count, dtype=F64, generator=generator)
    return (x - x.mean(0)) / x.std(0)


def grand(channels: int, scale: float) -> fields.GRAND:
    """Nonlinear GRAND with a = 1 as it is initialised, its scores multiplied by the scale."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = fields.GRAND(channels, variant="nonlinear", rate=1.0).double()
    for parameter in field.attention.query.parameters():
        parameter.data.mul_(scale)
    return field


def cases(args: argparse.Namespace) -> Iterator[tuple[Case, tuple[str, ...]]]:
    """The problems with who solves them."""
    nodes, T = (60, 5.0) if args.smoke else (1000, 100.0)
    noise = torch.randn(nodes, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    about = "allen_cahn", f"Barabasi-Albert {nodes:,}", fields.allen_cahn(), attached(nodes)
    yield Case(*about, noise, T), ("dopri5", PEER, *OURS)
    if args.root is None:
        return
    cora = data.load("Cora", root=args.root)
    for scale, T in ((1.0, 20.0), (1.0, 400.0), (4.0, 20.0), (4.0, 400.0)):
        about = "grand", f"Cora, scores x {scale:g}", grand(64, scale), cora.graph
        yield Case(*about, channels(cora.x, 64), T), (PEER, *OURS)
    for name in ("Chameleon", "PubMed"):
        hub = data.load(name, root=args.root)
        x, tight = channels(hub.x, 8), ("rkl2", 1e-6)
        for field in (fields.allen_cahn(), Saturating()):
            about = "hubs", f"{name}, {field.label}", field, hub.graph, x, 100.0
            yield Case(*about, tight, args.limit), (PEER, *OURS)


def main() -> None:
    """Run the cases, print each row as it comes, write the table."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    written = args.out / "benchmark_stiff.csv"
    table = Table.load(written) if written.exists() else Table()
    done = {(row["problem"], row["T"]) for row in table.rows}
    with torch.no_grad():
        for case, solvers in cases(args):
            if args.only not in case.part or (case.name, case.T) in done:
                continue
            for row in case.rows(solvers):
                table.add(row)
                names = ("problem", "T", "solver", "status", "evaluations", "error", "reason")
                print(*(row[name] for name in names), sep=", ", flush=True)
            table.save(args.out / "benchmark_stiff")
    print(table.markdown())


if __name__ == "__main__":
    main()
