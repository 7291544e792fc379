"""How trained models fare beyond their end, and how deep they can be trained at all.

    python scripts/study_depth.py                                     # the karate club, seconds
    python scripts/study_depth.py --data Cora --root data --study depth
    python scripts/study_depth.py --data Cora --root data --study horizon
    python scripts/study_depth.py --data Cora,Chameleon --root data --study smoothing

depth       every model trained at every depth (layers, units of time), read at its end
horizon     every model trained once, read along time to t = 64
smoothing   linear gradient flow with a symmetric W (GRAFF), trained to t = 4 by steps of 0.5, then
            read to t = 64; on Cora it smooths, on Chameleon it sharpens

Read are accuracy on test nodes and Rayleigh quotient, norm and rank of the state that the decoder
gets. Rows that stand in rows.csv are not run again. Cora has its public split (geom-gcn for
"smoothing"), others the first of theirs, karate a random one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from tqdm.auto import tqdm

from analysis import plots
from analysis.depths import Depth, along, last_of
from analysis.tables import Table
from neuralpde import data
from neuralpde.data import Benchmark
from neuralpde.models import NodeModel, Recipe, Split, Training, train
from solvers.failure import SolveFailed

MODELS = ("gcn", "grand", "graphcon", "g2", "graff", "sheaf")
DEPTHS = (2, 4, 8, 16, 32, 64)
TIMES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0)
END = 4.0
PUBLISHED = {
    "Cora": ((0, 42.5, 0.308), (2, 66.2, 0.182), (4, 80.3, 0.088), (8, 84.3, 0.045),
             (16, 77.3, 0.029), (32, 43.7, 0.020), (48, 29.4, 0.016), (64, 22.3, math.nan)),
    "Chameleon": ((0, 23.5, 0.684), (2, 28.3, 0.833), (4, 38.4, 0.657), (8, 41.0, 0.413),
                  (16, 32.7, 0.458), (32, 29.4, 1.12), (48, 19.5, 1.71), (64, 11.6, math.nan)),
}  # fmt: skip
"""Time, accuracy and Rayleigh quotient of a sweep of the authors' (JRowbottomGit/graff)."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="Karate", help="a set, or several with commas; default Karate")
    add("--root", type=Path, help="folder of the benchmark sets")
    add("--study", default="horizon", choices=("depth", "horizon", "smoothing"))
    add("--models", default=",".join(MODELS), help="some of " + ", ".join(MODELS))
    add("--depths", type=int, nargs="+", default=DEPTHS, help="of the study of depth")
    add("--channels", type=int, default=32)
    add("--epochs", type=int, default=100, help="at most; patience is a third of them")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/study-depth"), help="folder to write to")
    return parser.parse_args(arguments)


def recipe(name: str, depth: float, inputs: int, outputs: int, channels: int) -> Recipe:
    """A model of some depth: as many layers, or as much time by steps of 1 (GRAFF: of 1/2)."""
    count, made = int(depth), Recipe(name, inputs, outputs, channels, end=depth, dropout=0.3)
    layered = {"steps": count, "encoder_act": True}
    changes: dict[str, dict[str, object]] = {
        "gcn": {"layers": count},
        "grand": {"options": {"heads": 4}},
        "graphcon": {**layered, "solver": "graphcon", "velocity": "position"},
        "g2": {**layered, "solver": "euler"},
        "graff": {"options": {"weights": "sum"}, "solver": "euler", "steps": 2 * count},
        "sheaf": {**layered, "solver": "euler", "layers": count, "channels": channels // 2},
    }
    changes["graphcon"]["options"] = {"damping": 0.2}  # with 1 it is a plain network
    changes["sheaf"]["options"] = {"stalk": 2}
    return replace(made, **changes[name])


def trained(
    args: argparse.Namespace, made: Recipe, found: Benchmark, split: Split
) -> nn.Module | None:
    """Train a model; None where its state left the range of the numbers."""
    assert found.x is not None
    assert found.y is not None
    torch.manual_seed(args.seed)
    model, about = made.build(), Training(0.01, 5e-4, epochs=args.epochs)
    about = replace(about, patience=max(args.epochs // 3, 1))
    try:
        train(model, found.x, found.y, found.graph, split, about)
    except SolveFailed as error:
        tqdm.write(f"{made.model} to {made.end:g}: {error}")
        return None
    return model


def study(args: argparse.Namespace, name: str, ledger: Path) -> dict[str, list[Depth]]:
    """All rows of one data set, by model."""
    smoothing = args.study == "smoothing"
    geom = smoothing and name in ("Cora", "PubMed")
    found = data.load(name, args.root, split="geom-gcn" if geom else None)
    assert found.x is not None
    assert found.y is not None
    split = Split.random(found.y, 0) if found.train_mask is None else Split.fixed(found, 0)
    sizes, told = (found.x.shape[1], found.num_classes, args.channels), {}
    rest = found.x, found.y, found.graph, split.test
    # Layers of a GCN end where they end.
    flows = [m for m in args.models.split(",") if args.study == "depth" or m != "gcn"]
    wanted = ["graff"] if smoothing else flows
    depths = args.depths if args.study == "depth" else [END]
    known = Table.load(ledger).rows if ledger.exists() else []
    for model_name, depth in tqdm([(m, d) for m in wanted for d in depths], desc=name):
        made = recipe(model_name, depth, *sizes)
        if smoothing:
            made = replace(made, options={"weights": "sum", "external": False})
        elif args.study == "horizon" and model_name == "sheaf":
            made = replace(made, layers=1, options={"stalk": 2})
        key = {"study": args.study, "data": name, "model": model_name, "trained": float(depth)}
        key |= {"epochs": args.epochs, "seed": args.seed, "channels": args.channels}
        rows = [row for row in known if all(row[k] == key[k] for k in key)]
        line = [Depth(**{k: float(row[k]) for k in Depth.__annotations__}) for row in rows]
        if not line:
            model = trained(args, made, found, split)
            if model is None:
                line = [Depth(float(depth), *[math.nan] * 4)]
            elif args.study == "depth" or not isinstance(model, NodeModel):
                line = [last_of(model, float(depth), *rest)]
            else:
                line = along(model, *rest, TIMES)
            known = [*known, *(key | asdict(one) for one in line)]
            Table(known).save(ledger)
        told.setdefault(model_name, []).extend(line)
    return told


def run(args: argparse.Namespace) -> None:
    """Study every set, print, draw."""
    args.out.mkdir(parents=True, exist_ok=True)
    ledger, sets = args.out / "rows.csv", args.data.split(",")
    told = {name: study(args, name, ledger) for name in sets}
    lines = {
        f"{s}, {m}" if len(sets) > 1 else m: v for s, of in told.items() for m, v in of.items()
    }
    rows = [{"line": k} | asdict(one) for k, line in lines.items() for one in line]
    print(Table(rows).markdown())
    published = {}
    if args.study == "smoothing":
        lines = {s: of["graff"] for s, of in told.items()}
        published = {
            s: [Depth(t, a / 100, r, *[math.nan] * 2) for t, a, r in PUBLISHED.get(s, ())]
            for s in lines
        }
    axis, end = ("layers or time", None) if args.study == "depth" else ("time $t$", END)
    for label, width in (("column", plots.COLUMN), ("page", plots.PAGE)):
        figure = plots.depths(lines, published=published, axis=axis, width=width, end=end)
        figure.savefig(args.out / f"{args.study}-{label}.png", dpi=200)
        plt.close(figure)
    settings = {**vars(args), "command": " ".join(sys.argv)}
    (args.out / f"{args.study}.json").write_text(json.dumps(settings, default=str, indent=1))


def main() -> None:
    """Turn mistakes of the caller into one clear line."""
    args = parse()
    try:
        run(args)
    except (ValueError, TypeError, FileNotFoundError, KeyError) as error:
        sys.exit(f"study_depth: {error}")


if __name__ == "__main__":
    main()
