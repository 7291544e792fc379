"""Trainings: what is trained, what is written down, what decides."""

from pathlib import Path

import pytest
import torch
from torch import nn

from analysis.trainings import Trainings, split_of
from analysis.trials import Ledger
from neuralpde import Graph
from neuralpde.data import Benchmark
from neuralpde.models import Recipe, Split, Trained, Training, drawn

GCN = Recipe("gcn", 4, 2, 8)
MLP = Recipe("mlp", 4, 2, 8)


def several(splits: int = 3) -> Benchmark:
    """Six nodes on a ring; split k tests node k."""
    masks = torch.zeros(3, 6, splits, dtype=torch.bool)
    for k in range(splits):
        masks[:, :, k] = torch.eye(6, dtype=torch.bool)[[k + 2, k + 1, k]]
    ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    graph = Graph(torch.cat([ring, ring.flip(0)], 1), 6)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    return Benchmark("ring", graph, torch.eye(6)[:, :4], y, *masks)


class Judge:
    """Gives every training the score that its settings and its split are worth."""

    def __init__(self, worth: dict[float, tuple[float, ...]]) -> None:
        self.worth, self.calls = worth, 0

    def __call__(self, model: nn.Module, parts: Split, recipe: Recipe, _: Training) -> Trained:
        self.calls += 1
        split = int(parts.test.nonzero())
        val = self.worth.get(recipe.dropout, (0.5, 0.5, 0.5))[split]
        return Trained(1, 1, 1.0, val, 1.0 - val, 0.0)


def trainings(folder: Path, judge: Judge, name: str = "runs.csv", seeds: int = 2) -> Trainings:
    return Trainings(several(), Ledger(folder / name), range(seeds), ("ring", None), {}, judge)


def test_seeds_go_round_the_splits_of_the_data() -> None:
    found = several()
    assert split_of(found, 4)[0] == "fixed"
    assert int(split_of(found, 4)[1].test.nonzero()) == 1
    assert split_of(several(1), 4)[0] == "public"
    kind, parts = split_of(Benchmark("ring", found.graph, found.x, torch.arange(90) % 2), 3)
    assert kind == "random"
    assert torch.equal(parts.test, Split.random(torch.arange(90) % 2, 3).test)


def test_no_run_is_done_twice_and_all_are_given_back(tmp_path: Path) -> None:
    judge, ended = Judge({}), []
    one = trainings(tmp_path, judge)
    one.ended = lambda row, model, recipe: ended.append(row["seed"])
    assert [row["seed"] for row in one.runs(GCN, Training())] == ["0", "1"]
    again = trainings(tmp_path, judge, seeds=3).runs(GCN, Training())
    assert [row["seed"] for row in again] == ["0", "1", "2"]
    assert (judge.calls, ended) == (3, [0, 1])
    trainings(tmp_path, judge).runs(GCN, Training(epochs=2))
    assert judge.calls == 5


def test_runs_start_from_their_seed(tmp_path: Path) -> None:
    weights = []
    one = trainings(tmp_path, Judge({}))
    one.ended = lambda row, model, recipe: weights.append(next(model.parameters()).detach().clone())
    one.runs(MLP, Training())
    torch.manual_seed(1)
    assert torch.equal(weights[1], next(MLP.build().parameters()))
    assert not torch.equal(weights[0], weights[1])


def test_validation_alone_tunes_and_no_test_score_is_written(tmp_path: Path) -> None:
    second, third = (drawn(GCN, Training(), k)[0].dropout for k in (1, 2))
    # The best on validation is the worst on the test nodes here.
    judge = Judge({GCN.dropout: (0.7, 0.6), second: (0.9, 0.6), third: (0.2, 1.0)})
    one = trainings(tmp_path, judge, "trials.csv")
    number, recipe, training = one.tuned(GCN, Training(), 3)
    assert number == 1
    assert (recipe, training) == drawn(GCN, Training(), 1)
    rows = one.ledger.rows
    assert [row["trial"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert "test" not in rows[0]
    assert one.tuned(GCN, Training(), 3)[0] == 1
    assert judge.calls == 6


def test_by_default_models_are_trained(tmp_path: Path) -> None:
    one = Trainings(several(), Ledger(tmp_path / "runs.csv"), range(1), ("ring", "mine"))
    (row,) = one.runs(GCN, Training(epochs=3))
    assert (row["epochs"], row["split"], row["data"], row["score"]) == (
        "3",
        "mine",
        "ring",
        "accuracy",
    )
    with pytest.raises(ValueError, match="holds no trial"):
        one.ledger.row(row | {"seed": "9"})
