"""Train fields, and networks to compare with, to classify the nodes of a real graph.

Without arguments: GRAND on the karate club, in seconds, from the package alone.

    python scripts/train_nodes.py
    python scripts/train_nodes.py --data Cora --root data --model grand,gcn --seeds 10
    python scripts/train_nodes.py --data Texas --root data --model graff,g2,mlp --seeds 10
    python scripts/train_nodes.py --data Cora --root data --set dropout=0.2 --set end=8.0
    python scripts/train_nodes.py --data Texas --root data --model g2,mlp --seeds 3 --tune 8
    python scripts/train_nodes.py --data Texas --root data --model g2,mlp --seeds 10 --tuned FILE
    python scripts/train_nodes.py --table

Every run is a row of runs.csv in the folder; runs that stand there with the same settings are not
run again, so that a call that was broken off goes on when it is repeated. Seed k takes the k-th
fixed split where there are several, counted around, else draws the split (karate, Photo); "public"
is one split for all seeds. Early stopping and the choice of the epoch see validation alone. --tune
tries the presets and random settings (`neuralpde.models.search`): trials.csv holds them, without
test scores, and tuned.json what validation chooses, which --tuned reads, for other sets too.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from tqdm.auto import tqdm

from analysis.plots import PAGE, STYLE, energy
from analysis.trainings import Trainings
from analysis.trials import Ledger, by_validation, revision, summary
from neuralpde import data
from neuralpde.data import Benchmark
from neuralpde.models import PUBLISHED, NodeModel, Recipe, Split, Trained, Training, chosen, train
from neuralpde.models import save as save_model
from neuralpde.models.recipe import MODELS
from neuralpde.models.search import changed, keep, kept, parsed

SETS = (
    *("Cora", "PubMed", "Texas", "Wisconsin", "Cornell", "Chameleon", "chameleon_filtered"),
    *("Minesweeper", "Photo", "Karate"),
)
BEYOND = 4.0
"""How many times the end of training the energy is followed."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="Karate", choices=SETS, metavar="SET", help=", ".join(SETS))
    add("--root", type=Path, help="folder of the benchmark sets, in torch_geometric's layout")
    add("--split", help="public (default) or geom-gcn, of Cora and PubMed")
    add("--model", default="grand", help=f"one or several of {', '.join(MODELS)}")
    add("--seeds", type=int, default=1, help="how many runs of each model")
    add("--first", type=int, default=0, help="the first seed")
    add("--set", action="append", default=[], metavar="NAME=VALUE",
        help="a setting of the recipe or the training, as json; may be repeated")  # fmt: skip
    add("--tune", type=int, default=0, metavar="N", help="try N settings of each model, no more")
    add("--tuned", type=Path, metavar="FILE", help="take the settings that --tune wrote")
    add("--save", action="store_true", help="keep the trained models as .safetensors")
    add("--energy", action="store_true", help="draw the energy along time for the last seed")
    add("--table", action="store_true", help="train nothing: show what runs.csv amounts to")
    add("--best", metavar="MODELS", help="show what validation chooses among these")
    add("--quiet", action="store_true", help="no progress")
    add("--out", type=Path, default=Path("runs/train-nodes"), help="folder to write to")
    return parser.parse_args(arguments)


def settled(args: argparse.Namespace, model: str, found: Benchmark) -> tuple[Recipe, Training]:
    """The presets of a model, changed as the command line says."""
    assert found.x is not None
    recipe, training = chosen(args.data, model, found.x.shape[1], found.num_classes)
    if args.tuned is not None:
        recipe, training = kept(args.tuned, model, recipe.inputs, recipe.outputs)
    return changed(recipe, training, dict(map(parsed, args.set)))


def draw(model: NodeModel, found: Benchmark, path: Path, title: str) -> None:
    """The energy of the trained field to the end of training and beyond."""
    import matplotlib.pyplot as plt

    assert found.x is not None
    end = float(model.end.detach())
    flow = model.trajectory(found.x, found.graph, BEYOND * end)
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(PAGE / 2, PAGE / 3), layout="constrained")
        energy(flow, ax)
        ax.axvline(end, color="0.4", lw=0.8, ls="--")
        figure.suptitle(f"{title}; dashed: the end of training", fontsize=7)
        figure.savefig(path, dpi=200)
    plt.close(figure)


def trainings(args: argparse.Namespace, found: Benchmark, name: str) -> Trainings:
    """The runs that are asked for, with a bar, and what is kept of each beside its row."""

    def fit(model: torch.nn.Module, parts: Split, recipe: Recipe, training: Training) -> Trained:
        assert found.x is not None
        assert found.y is not None
        with tqdm(total=training.epochs, disable=args.quiet, leave=False, desc=recipe.model) as bar:

            def report(epoch: int, loss: float, val: float) -> None:
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", val=f"{val:.3f}", refresh=False)

            return train(model, found.x, found.y, found.graph, parts, training, report)

    def ended(row: Mapping[str, Any], model: torch.nn.Module, recipe: Recipe) -> None:
        label = f"{args.data}-{recipe.model}-{row['seed']}"
        shown = [f"{k} {row[k]:.4g}" for k in ("trial", "val", "test", "seconds") if k in row]
        print(label, *shown)
        if args.save:
            save_model(args.out / f"{label}.safetensors", model, recipe)
        if args.energy and isinstance(model, NodeModel):
            draw(model, found, args.out / f"{label}-energy.png", label)

    seeds = range(args.first, args.first + args.seeds)
    origin = {"command": shlex.join(sys.argv), "commit": revision(Path(__file__).parent)}
    ledger = Ledger(args.out / name)
    return Trainings(found, ledger, seeds, (args.data, args.split), origin, fit, ended)


def tune(args: argparse.Namespace, found: Benchmark) -> None:
    """Try settings of each model, and keep those that are best on validation."""
    trials, path = trainings(args, found, "trials.csv"), args.out / "tuned.json"
    for name in args.model.split(","):
        number, *made = trials.tuned(*settled(args, name, found), args.tune)
        print(name, keep(path, *made, trial=number, trials=args.tune))


def run(args: argparse.Namespace) -> None:
    """Train what is missing, then show the tables."""
    found = None if args.table else data.load(args.data, args.root, split=args.split)
    if found is not None and args.tune:
        tune(args, found)
        return
    if found is not None:
        done = trainings(args, found, "runs.csv")
        for name in args.model.split(","):
            done.runs(*settled(args, name, found))
    rows = Ledger(args.out / "runs.csv").rows
    if not rows:
        raise FileNotFoundError(f"{args.out} holds no runs: leave out --table to make some")
    table = summary(rows, PUBLISHED)
    table.save(args.out / "table.csv")
    print(table.markdown())
    if args.best:
        table = by_validation(rows, args.best.split(","))
        table.save(args.out / "best.csv")
        print(table.markdown())


def main() -> None:
    """Turn mistakes of the caller into one clear line."""
    args = parse()
    mpl.use("agg")
    try:
        run(args)
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"train_nodes: {error}")


if __name__ == "__main__":
    main()
