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
is one split for all seeds. Early stopping and the choice of the epoch see validation alone.

--tune tries the presets and random settings (`neuralpde.models.search`), each on the same splits.
All trials go to trials.csv, with validation scores alone, and what they choose to tuned.json, which
--tuned reads, for this or another set.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from tqdm.auto import tqdm

from analysis.plots import PAGE, STYLE, energy
from analysis.trials import Ledger, revision, summary
from neuralpde import data
from neuralpde.data import Benchmark
from neuralpde.models import (
    PUBLISHED,
    NodeModel,
    Recipe,
    Split,
    Trained,
    Training,
    best,
    changed,
    chosen,
    drawn,
    train,
)
from neuralpde.models import save as save_model
from neuralpde.models.recipe import MODELS

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
    add("--quiet", action="store_true", help="no progress")
    add("--out", type=Path, default=Path("runs/train-nodes"), help="folder to write to")
    return parser.parse_args(arguments)


def settled(args: argparse.Namespace, model: str, found: Benchmark) -> tuple[Recipe, Training]:
    """The presets of a model, changed as the command line says."""
    assert found.x is not None
    recipe, training = chosen(args.data, model, found.x.shape[1], found.num_classes)
    if args.tuned is not None:
        stored = json.loads(args.tuned.read_text())[model]
        kept = {"inputs": recipe.inputs, "outputs": recipe.outputs}
        recipe, training = Recipe(**stored["recipe"] | kept), Training(**stored["training"])
    changes = {}
    for text in args.set:
        name, _, value = text.partition("=")
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    return changed(recipe, training, changes)


def split_of(found: Benchmark, seed: int) -> tuple[str, Split]:
    """The split of a seed, and what it is called."""
    if found.train_mask is None:
        assert found.y is not None
        return "random", Split.random(found.y, seed)
    several = found.train_mask.view(len(found.train_mask), -1).shape[1]
    return "public" if several == 1 else "fixed", Split.fixed(found, seed % several)


def trial(
    args: argparse.Namespace, found: Benchmark, parts: Split, recipe: Recipe, training: Training
) -> tuple[torch.nn.Module, Trained]:
    """Build and train one model, with a bar."""
    assert found.x is not None
    assert found.y is not None
    model = recipe.build()
    with tqdm(total=training.epochs, disable=args.quiet, leave=False, desc=recipe.model) as bar:

        def report(epoch: int, loss: float, val: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", val=f"{val:.3f}", refresh=False)

        return model, train(model, found.x, found.y, found.graph, parts, training, report)


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


def runs(
    args: argparse.Namespace,
    found: Benchmark,
    ledger: Ledger,
    made: tuple[Recipe, Training],
    more: dict[str, Any] | None = None,
) -> list[dict[str, str]]:
    """Train with all seeds but those in the ledger; its rows of these settings."""
    recipe, training = made
    settings = json.dumps({"recipe": recipe.settings(), "training": asdict(training)})
    rows = []
    for seed in range(args.first, args.first + args.seeds):
        kind, parts = split_of(found, seed)
        key: dict[str, Any] = {"data": args.data, "split": args.split or kind}
        key |= {"model": recipe.model, "seed": seed, "settings": settings}
        if not ledger.holds(key):
            torch.manual_seed(seed)
            model, result = trial(args, found, parts, recipe, training)
            hidden = {"history", "test"} if args.tune else {"history"}
            scores = {k: v for k, v in asdict(result).items() if k not in hidden}
            end = float(model.end.detach()) if isinstance(model, NodeModel) else ""
            origin = {"command": shlex.join(sys.argv), "commit": revision(Path(__file__).parent)}
            ledger.add(key | (more or {}) | scores | {"score": training.score, "end": end} | origin)
            label = f"{args.data}-{recipe.model}-{seed}"
            said = {k: round(v, 4) for k, v in scores.items() if k in ("val", "test", "seconds")}
            print(label, more or "", said)
            if args.save:
                save_model(args.out / f"{label}.safetensors", model, recipe)
            if args.energy and isinstance(model, NodeModel):
                draw(model, found, args.out / f"{label}-energy.png", label)
        rows.append(ledger.row(key))
    return rows


def tune(args: argparse.Namespace, found: Benchmark) -> None:
    """Try settings of each model, and keep those that are best on validation."""
    ledger, path = Ledger(args.out / "trials.csv"), args.out / "tuned.json"
    for name in args.model.split(","):
        made = [drawn(*settled(args, name, found), k) for k in range(args.tune)]
        scores = {
            k: [float(row["val"]) for row in runs(args, found, ledger, one, {"trial": k})]
            for k, one in enumerate(made)
        }
        recipe, training = made[best(scores)]
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept[name] = {"recipe": recipe.settings(), "training": asdict(training)}
        kept[name] |= {"trial": best(scores), "trials": args.tune}
        path.write_text(json.dumps(kept, indent=1) + "\n")
        print(name, json.dumps(kept[name]))


def run(args: argparse.Namespace) -> None:
    """Train what is missing, then show the table."""
    if args.tune:
        tune(args, data.load(args.data, args.root, split=args.split))
        return
    ledger = Ledger(args.out / "runs.csv")
    found = None if args.table else data.load(args.data, args.root, split=args.split)
    for name in [] if found is None else args.model.split(","):
        assert found is not None
        runs(args, found, ledger, settled(args, name, found))
    if not ledger.rows:
        raise FileNotFoundError(f"{ledger.path} holds no runs: leave out --table to make some")
    table = summary(ledger.rows, PUBLISHED)
    table.save(args.out / "table.csv")
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
