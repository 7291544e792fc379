"""Time one epoch of GRAND, forward and backward, on our solvers and on torchdiffeq's dopri5.

    python scripts/benchmark_training.py --data Cora --root data
    python scripts/benchmark_training.py

The model is that of the published settings (Cora: 80 channels, 8 heads, T = 18.3, tolerances 8.2e-5
as in best_params.py, no adjoint), the same weights and the same dropout for all; without --data it
is a small one on the karate club. Routes take turns, so that noise of the machine meets all of
them; times are medians, ratios medians of paired ratios. "error" is that of the output against an
exact solve to 1e-6, relative and in the Frobenius norm, with dropout off.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from analysis.tables import Table
from neuralpde import data
from neuralpde.data import Benchmark
from neuralpde.models import Recipe, Split, chosen

TOLERANCE = 8.2e-5
ROUTES = {
    "exact, default rtol": {"solver": "auto"},
    "exact": {"solver": "auto", "rtol": TOLERANCE},
    "tsit5": {"solver": "tsit5", "rtol": TOLERANCE, "atol": TOLERANCE},
    "torchdiffeq dopri5": {"solver": "torchdiffeq:dopri5", "rtol": TOLERANCE, "atol": TOLERANCE},
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="Karate", help="a data set; default Karate")
    add("--root", type=Path, help="folder of the benchmark sets")
    add("--rounds", type=int, default=7, help="how often every route takes its turn")
    add("--warm", type=int, default=20, help="epochs of training before, that attention may form")
    add("--out", type=Path, default=Path("runs/benchmark-training"), help="folder to write to")
    return parser.parse_args(arguments)


def epoch(model: nn.Module, found: Benchmark, seen: Tensor) -> float:
    """Seconds of one forward and backward pass of the training loss."""
    assert found.y is not None
    torch.manual_seed(0)
    model.train()
    model.zero_grad()
    started = time.perf_counter()
    out = model(found.x, found.graph)
    nn.functional.cross_entropy(out[seen], found.y[seen]).backward()
    return time.perf_counter() - started


def output(model: nn.Module, found: Benchmark) -> Tensor:
    """The output with dropout off."""
    model.eval()
    with torch.no_grad():
        out: Tensor = model(found.x, found.graph)
    return out


def warmed(recipe: Recipe, found: Benchmark, seen: Tensor, epochs: int, rate: float) -> nn.Module:
    """A model after some epochs."""
    torch.manual_seed(0)
    model = recipe.build()
    optimiser = torch.optim.Adamax(model.parameters(), lr=rate)
    for _ in range(epochs):
        epoch(model, found, seen)
        optimiser.step()
    return model


def run(args: argparse.Namespace) -> None:
    """Warm up, take turns, print, write."""
    found = data.load(args.data, args.root)
    assert found.x is not None
    assert found.y is not None
    drawn = found.train_mask is None
    seen = (Split.random(found.y, 0) if drawn else Split.fixed(found)).train
    recipe, training = chosen(args.data, "grand", found.x.shape[1], found.num_classes)
    weights = warmed(recipe, found, seen, args.warm, training.learning_rate).state_dict()
    models = {}
    for name, settings in {**ROUTES, "reference": {"solver": "auto", "rtol": 1e-6}}.items():
        models[name] = replace(recipe, **settings).build()
        models[name].load_state_dict(weights)
    truth = output(models.pop("reference"), found)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(args.rounds + 1):
        for name, model in models.items():
            seconds[name].append(epoch(model, found, seen))
    table = Table()
    first = seconds["exact"][1:]
    for name, model in models.items():
        # The first turn meets cold caches.
        taken = seconds[name][1:]
        stats = model.trajectory(found.x, found.graph).stats
        table.add(
            {
                "route": name,
                "seconds": median(taken),
                "times exact": median(b / a for a, b in zip(first, taken, strict=True)),
                "solver": stats.solver,
                "products": stats.operator_products or stats.nfe,
                "error": float((output(model, found) - truth).norm() / truth.norm()),
            }
        )
    args.out.mkdir(parents=True, exist_ok=True)
    table.save(args.out / "training.csv")
    print(f"{args.data}, T = {recipe.end:g}, {recipe.channels} channels, {args.rounds} rounds")
    print(table.markdown())


def main() -> None:
    """Turn mistakes of the caller into one clear line."""
    args = parse()
    try:
        run(args)
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"benchmark_training: {error}")


if __name__ == "__main__":
    main()
