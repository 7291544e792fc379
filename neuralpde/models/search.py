"""Random search over settings: the same draws for every model, judged on validation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from neuralpde.models.baselines import KINDS
from neuralpde.models.recipe import Recipe
from neuralpde.models.training import Training
from solvers.failure import unknown_name

RATES = (0.002, 0.03)
"""Ends of the learning rate, drawn evenly in its logarithm."""

DECAYS = (5e-4, 0.05)
"""Of the weight decay, likewise."""

DROPOUTS = (0.1, 0.7)
"""Of the dropout, drawn evenly; that of the features is drawn between 0 and 0.7."""

WIDTHS = (32, 64, 128)
"""Numbers of a node's state; the components of a stalk share them."""

DEPTHS = (1, 2, 3, 4)
"""Layers of a network or of `Layers`, steps of a flow whose steps keep their size, or, without
fixed steps, times the end."""


def drawn(recipe: Recipe, training: Training, trial: int) -> tuple[Recipe, Training]:
    """The settings of a trial: those given for trial 0, else random ones fixed by its number.

    Learning rate, decay, both dropouts, width and depth are drawn, and do not depend on the model:
    trial k means the same to all of them. What else a recipe says stays.

    Args:
        recipe: Of the model.
        training: Its settings.
        trial: Number of the trial.

    Raises:
        ValueError: For a negative number.

    >>> one, _ = drawn(Recipe("gcn", 3, 2), Training(), 5)
    >>> other, _ = drawn(Recipe("grand", 3, 2), Training(), 5)
    >>> one.dropout == other.dropout, one.channels == other.channels
    (True, True)
    """
    if trial < 0:
        raise ValueError(f"trial is {trial}; they are counted from 0")
    if trial == 0:
        return recipe, training
    generator = torch.Generator().manual_seed(trial)
    rate, decay, dropout, first, width, depth = torch.rand(
        6, generator=generator, dtype=torch.float64
    ).tolist()
    made = replace(
        deepened(recipe, DEPTHS[int(depth * len(DEPTHS))]),
        channels=WIDTHS[int(width * len(WIDTHS))] // _stalk(recipe),
        dropout=round(DROPOUTS[0] + dropout * (DROPOUTS[1] - DROPOUTS[0]), 2),
        input_dropout=round(first * DROPOUTS[1], 2),
    )
    return made, replace(
        training, learning_rate=_between(*RATES, rate), weight_decay=_between(*DECAYS, decay)
    )


def deepened(recipe: Recipe, depth: int) -> Recipe:
    """A recipe of another depth.

    A network gets so many layers, and so does a flow in layers, each as long and of as many steps
    as before; a flow with fixed steps takes so many of them, of the size they had; another one goes
    on for so many times its end.

    >>> deepened(Recipe("heat", 3, 2, end=1.0, steps=2, solver="euler"), 6).end
    3.0
    """
    if recipe.model in KINDS:
        return replace(recipe, layers=depth)
    before = recipe.layers if recipe.layers > 1 else recipe.steps or 1
    factor = depth / before
    steps = None if recipe.steps is None else max(1, round(recipe.steps * factor))
    layers = depth if recipe.layers > 1 else 1
    return replace(recipe, layers=layers, end=recipe.end * factor, steps=steps)


def changed(
    recipe: Recipe, training: Training, changes: Mapping[str, Any]
) -> tuple[Recipe, Training]:
    """Settings with some of them changed, by the names that they have in either.

    Raises:
        ValueError: For a name that neither has, and the penalty, which is no number or name.

    >>> recipe, training = changed(Recipe("gcn", 3, 2), Training(), {"layers": 3, "epochs": 9})
    >>> recipe.layers, training.epochs
    (3, 9)
    """
    mine = [one.name for one in fields(Recipe)]
    other = [one.name for one in fields(Training) if one.name != "penalty"]
    for name in changes:
        if name not in (*mine, *other):
            raise ValueError(f"setting {name}: unknown; known are {', '.join((*mine, *other))}")
    return (
        replace(recipe, **{k: v for k, v in changes.items() if k in mine}),
        replace(training, **{k: v for k, v in changes.items() if k in other}),
    )


def parsed(text: str) -> tuple[str, Any]:
    """The name and the value of `NAME=VALUE`, a value in json or else the text itself.

    >>> parsed("dropout=0.5"), parsed("solver=euler")
    (('dropout', 0.5), ('solver', 'euler'))
    """
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def keep(path: Path, recipe: Recipe, training: Training, **notes: float | str) -> str:
    """Put settings under the name of the model into a json file, beside those of other models.

    Args:
        path: Of the file; made if it is not there.
        recipe: Of the model.
        training: Its settings.
        notes: What else is noted of them.

    Returns:
        The entry, as json.
    """
    entries = json.loads(path.read_text()) if path.exists() else {}
    entry = {"recipe": recipe.settings(), "training": asdict(training)} | notes
    entries[recipe.model] = entry
    path.write_text(json.dumps(entries, indent=1) + "\n")
    return json.dumps(entry)


def kept(path: Path, model: str, inputs: int, outputs: int) -> tuple[Recipe, Training]:
    """The settings of a model that `keep` wrote, for data of other channels and classes perhaps.

    Raises:
        ValueError: For a model that is not in the file.
    """
    entries = json.loads(path.read_text())
    if model not in entries:
        raise unknown_name("tuned model", model, entries)
    sizes = {"inputs": inputs, "outputs": outputs}
    entry = entries[model]
    return Recipe(**entry["recipe"] | sizes), Training(**entry["training"])


def best(scores: Mapping[int, Sequence[float]]) -> int:
    """The trial with the best mean of its validation scores; of equals the first.

    Args:
        scores: By the number of the trial, as many for each.

    Raises:
        ValueError: For no trials, and trials with other numbers of scores.

    >>> best({0: [0.5, 0.7], 1: [0.9, 0.4], 2: [0.4, 0.9]})
    1
    """
    if len({len(found) for found in scores.values()}) != 1 or not all(scores.values()):
        counts = {trial: len(found) for trial, found in scores.items()}
        raise ValueError(f"trials are compared by equally many scores; there are {counts}")
    return max(sorted(scores), key=lambda trial: fmean(scores[trial]))


def _between(low: float, high: float, share: float) -> float:
    return float(f"{low * math.exp(share * math.log(high / low)):.3g}")


def _stalk(recipe: Recipe) -> int:
    """Components of the stalk, 1 of fields and networks without."""
    with torch.random.fork_rng(devices=[]):
        made: Any = replace(recipe, inputs=1, outputs=1).build()
    return 1 if recipe.model in KINDS else int(made.width) // recipe.channels
