"""Many trainings on one set of data: resumed from a ledger, tuned on validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from analysis.trials import Ledger
from neuralpde.data import Benchmark
from neuralpde.models import NodeModel, Recipe, Split, Trained, Training, best, drawn, train

Ended = Callable[[Mapping[str, Any], nn.Module, Recipe], object]


def split_of(found: Benchmark, seed: int) -> tuple[str, Split]:
    """The split of a seed, and what it is called.

    Seed k takes the k-th fixed split where there are several ("fixed"), counted around, the only
    one where there is one ("public"), else it draws the split ("random").

    >>> from neuralpde import data
    >>> split_of(data.load("karate"), 0)[0]
    'random'
    """
    if found.train_mask is None:
        assert found.y is not None
        return "random", Split.random(found.y, seed)
    several = found.train_mask.view(len(found.train_mask), -1).shape[1]
    return "public" if several == 1 else "fixed", Split.fixed(found, seed % several)


@dataclass
class Trainings:
    """Trainings on one set of data, each a row of a ledger when it ends, and none done twice.

    Args:
        found: The data.
        ledger: Where the rows go.
        seeds: Of the runs of every setting; they choose the splits too.
        names: What the rows say of the data: `data`, and `split`, or the kind of split if None.
        origin: What else they say: the command, the commit.
        fit: Trains a model on a split; by default `train`.
        ended: Called after each run with its row, the model and its recipe.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from neuralpde import data
    >>> club = data.load("karate")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     several = Trainings(club, Ledger(Path(folder) / "runs.csv"), range(2))
    ...     len(several.runs(Recipe("mlp", 34, 2, 8), Training(epochs=2)))
    2
    """

    found: Benchmark
    ledger: Ledger
    seeds: range
    names: tuple[str, str | None] = ("", None)
    origin: Mapping[str, str] | None = None
    fit: Callable[[nn.Module, Split, Recipe, Training], Trained] | None = None
    ended: Ended | None = None

    def runs(
        self, recipe: Recipe, training: Training, trial: int | None = None
    ) -> list[dict[str, str]]:
        """The rows of all seeds of some settings; trains those that are missing.

        Args:
            recipe: Of the models.
            training: Settings.
            trial: Number of a trial of tuning, whose row keeps no score of the test nodes.
        """
        settings = json.dumps({"recipe": recipe.settings(), "training": asdict(training)})
        rows = []
        for seed in self.seeds:
            kind, parts = split_of(self.found, seed)
            data, split = self.names
            key: dict[str, Any] = {"data": data, "split": split or kind, "model": recipe.model}
            key |= {"seed": seed, "settings": settings}
            if not self.ledger.holds(key):
                torch.manual_seed(seed)
                model = recipe.build()
                result = asdict((self.fit or self._train)(model, parts, recipe, training))
                del result["history"]
                if trial is not None:
                    del result["test"]
                    key["trial"] = trial
                end = float(model.end.detach()) if isinstance(model, NodeModel) else ""
                row = key | result | {"score": training.score, "end": end} | dict(self.origin or {})
                self.ledger.add(row)
                if self.ended is not None:
                    self.ended(row, model, recipe)
            rows.append(self.ledger.row(key))
        return rows

    def tuned(
        self, recipe: Recipe, training: Training, trials: int
    ) -> tuple[int, Recipe, Training]:
        """The best of some trials on validation, over the seeds: its number and settings.

        Args:
            recipe: Of trial 0.
            training: Settings of trial 0; the others are drawn about them.
            trials: How many there are.
        """
        made = [drawn(recipe, training, k) for k in range(trials)]
        scores = {
            k: [float(row["val"]) for row in self.runs(*one, trial=k)] for k, one in enumerate(made)
        }
        return best(scores), *made[best(scores)]

    def _train(self, model: nn.Module, parts: Split, recipe: Recipe, training: Training) -> Trained:
        assert self.found.x is not None
        assert self.found.y is not None
        return train(model, self.found.x, self.found.y, self.found.graph, parts, training)
