"""Show that the combinatorial and the normalised energy tell different stories of one propagation.

Features pass a linear layer without bias (16 channels) and are then multiplied 49 times by
D^(-1/2) A D^(-1/2): the settings of Bison and Sperduti, arXiv:2512.09890. Of the graph, its largest
component counts. Beside it stands a regular graph, where both energies are in the ratio d.

    python scripts/compare_energies.py
    python scripts/compare_energies.py --graph Cora --root data
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor, nn

from analysis import Dirichlet, Norm, plots
from analysis.propagation import propagate
from analysis.tables import Table
from neuralpde import Graph, catalogue
from solvers.series import Series

CHANNELS = 16


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--graph", default="karate", help="an irregular graph with or without features")
    add("--regular", default="torus:7x9", help="a regular one")
    add("--root", type=Path, help="folder of the benchmark sets, in torch_geometric's layout")
    add("--layers", type=int, default=50, help="the linear one included; default 50")
    add("--seed", type=int, default=42)
    add("--self-loops", action="store_true", help="D + I and A + I, as in GCN")
    add("--out", type=Path, default=Path("runs/compare-energies"))
    return parser.parse_args(arguments)


def encoded(args: argparse.Namespace, name: str) -> tuple[Graph, Tensor]:
    """The largest component with its features (or noise) after the linear layer."""
    from torch_geometric.transforms import LargestConnectedComponents

    found = catalogue.named(name, args.root)
    generator = torch.Generator().manual_seed(args.seed)
    data = found.graph.to_pyg()
    features = found.x
    if features is None:
        features = torch.randn(data.num_nodes, CHANNELS, generator=generator)
    data.x = features.float()
    data = LargestConnectedComponents()(data)
    torch.manual_seed(args.seed)
    layer = nn.Linear(data.x.shape[1], CHANNELS, bias=False)
    with torch.no_grad():
        return Graph.of(data), layer(data.x).double()


def curves(args: argparse.Namespace, name: str) -> dict[str, Series]:
    """Energies per node, norm, and the ratio of the energies."""
    graph, x = encoded(args, name)
    traj = propagate(graph, x, args.layers - 1, self_loops=args.self_loops)
    told = {norm: traj.measure(Dirichlet(norm)) for norm in ("comb", "sym")}
    n = graph.num_nodes
    found = {k: Series(s.t, s.y / n, s.convention, s.floor / n) for k, s in told.items()}
    found["norm"] = traj.measure(Norm())
    found["ratio"] = Series(found["norm"].t, told["comb"].y / told["sym"].y, "E_comb / E_sym")
    degree = graph.degree
    print(f"{name}: {graph}, degrees {degree.min():g} to {degree.max():g}")
    return found


def draw(told: dict[str, dict[str, Series]], path: Path) -> None:
    """Energies and norm above, their ratio below, a column for each graph."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(plots.STYLE):
        size = (plots.PAGE, 0.62 * plots.PAGE)
        figure, axes = plt.subplots(2, len(told), figsize=size, layout="constrained", sharex=True)
        labels = {"comb": "$E_{comb} / n$", "sym": "$E_{sym} / n$", "norm": "$|X|_F$"}
        for column, (name, series) in enumerate(told.items()):
            top, bottom = axes[:, column]
            for (key, label), color in zip(labels.items(), plots.CYCLE, strict=False):
                plots.course(series[key], top, color=color, label=label, floor=False)
            plots.course(series["ratio"], bottom)
            top.set_title(name, loc="left")
            top.legend(frameon=False)
            top.set_ylabel("energy per node, norm")
            bottom.set_ylabel("$E_{comb} / E_{sym}$")
            bottom.set_xlabel("layer")
        figure.savefig(path, dpi=200)


def run(args: argparse.Namespace) -> int:
    """Propagate on both graphs, print and write."""
    told = {name: curves(args, name) for name in (args.graph, args.regular)}
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table()
    for name, series in told.items():
        for k in sorted({0, 1, 2, 4, 8, 16, 32, args.layers - 1}):
            if k < args.layers:
                row = {key: float(one.y[k]) for key, one in series.items()}
                table.add({"graph": name, "layer": k + 1, **row})
    table.save(args.out / "energies.csv")
    draw(told, args.out / "energies.png")
    print(table.markdown())
    print(f"wrote energies.csv, energies.md, energies.png to {args.out}/")
    return 0


def main() -> None:
    """Turn mistakes of the caller into one clear line."""
    args = parse()
    mpl.use("agg")
    try:
        sys.exit(run(args))
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"compare_energies: {error}")


if __name__ == "__main__":
    main()
