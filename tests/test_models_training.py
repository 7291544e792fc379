"""Training: what is learned, what decides, what is only looked at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn

from neuralpde import Graph, catalogue, data
from neuralpde.fields import Heat, Reaction
from neuralpde.models import (
    EnergyPenalty,
    NodeModel,
    Recipe,
    Split,
    Training,
    accuracy,
    roc_auc,
    train,
)


def club() -> tuple[Tensor, Tensor, Graph, Split]:
    found = data.load("karate")
    assert found.x is not None
    assert found.y is not None
    return found.x, found.y, found.graph, Split.random(found.y, 3)


class Scripted(nn.Module):
    """Says what it is told, one line an evaluation; what it learns changes nothing."""

    def __init__(self, lines: list[Tensor]) -> None:
        super().__init__()
        self.lines, self.place = lines, nn.Parameter(torch.zeros(()), requires_grad=True)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, graph: object) -> Tensor:
        if self.training:
            self.count += 1
        return self.lines[int(self.count) - 1] + 0.0 * self.place


def script(*rights: tuple[int, int]) -> tuple[list[Tensor], Tensor, Split]:
    """Lines that are right on so many of four validation and of four test nodes."""
    y, split = torch.zeros(12, dtype=torch.int64), torch.zeros(3, 12, dtype=torch.bool)
    for part in range(3):
        split[part, 4 * part : 4 * part + 4] = True
    lines = []
    for val, test in rights:
        out = torch.tensor([[1.0, 0.0]]).repeat(12, 1)
        out[4 + val : 8] = torch.tensor([0.0, 1.0])
        out[8 + test :] = torch.tensor([0.0, 1.0])
        lines.append(out)
    return lines, y, Split(*split)


def test_the_best_epoch_on_validation_is_kept_whatever_the_test_says() -> None:
    lines, y, split = script((1, 4), (3, 1), (2, 4), (3, 4), (2, 4))
    settings = Training(epochs=5, patience=10)
    found = train(Scripted(lines), torch.ones(12, 1), y, catalogue.ring(12), split, settings)
    assert (found.epoch, found.epochs) == (2, 5)
    assert (found.val, found.test) == (0.75, 0.25)


def test_patience_counts_epochs_since_the_best() -> None:
    lines, y, split = script((1, 0), (3, 0), *[(2, 0)] * 10)
    settings = Training(epochs=12, patience=3)
    found = train(Scripted(lines), torch.ones(12, 1), y, catalogue.ring(12), split, settings)
    assert (found.epoch, found.epochs, len(found.history)) == (2, 5, 5)


def test_equal_scores_are_told_apart_by_the_loss() -> None:
    lines, y, split = script((3, 0), (3, 1), (3, 2))
    lines[1] = lines[1] * 0.1
    settings = Training(epochs=3)
    found = train(Scripted(lines), torch.ones(12, 1), y, catalogue.ring(12), split, settings)
    # Less sure where it is wrong costs less than surer where it is right.
    losses = [float(nn.functional.cross_entropy(line[split.val], y[split.val])) for line in lines]
    assert found.epoch == 1 + int(np.argmin(losses))


def test_labels_outside_training_do_not_move_the_weights() -> None:
    x, y, graph, split = club()
    weights = []
    for labels in (y, torch.where(split.train, y, 1 - y)):
        torch.manual_seed(0)
        model = Recipe("grand", 34, 2, 8, end=2.0).build()
        states: list[Tensor] = []
        train(model, x, labels, graph, split, Training(epochs=1))
        states += [value.clone() for value in model.state_dict().values()]
        weights.append(states)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_same_seed_gives_the_same_run() -> None:
    x, y, graph, split = club()
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(
            train(Recipe("graff", 34, 2, 8).build(), x, y, graph, split, Training(epochs=8))
        )
    assert runs[0].history == runs[1].history


def test_the_factions_of_the_club_are_learned_through_the_graph() -> None:
    # Features name the nodes, so that without the graph unseen nodes are left to chance.
    x, y, graph, split = club()
    torch.manual_seed(0)
    found = train(Recipe("grand", 34, 2, 16, end=4.0).build(), x, y, graph, split)
    assert found.train == 1.0
    assert found.val >= 11 / 12


def test_numbers_are_learned_too() -> None:
    # Heat for the right time makes the target of the features: the end time is found.
    graph, x = catalogue.ring(20), torch.randn(20, 1, dtype=torch.float64)
    L = graph.laplacian().to_dense().double()
    y = torch.linalg.matrix_exp(-1.7 * L) @ x
    model = NodeModel(nn.Identity(), Heat(), nn.Identity(), channels=1, end=0.5, learned_end=True)
    parts = torch.arange(20) % 3
    split = Split(parts == 0, parts == 1, parts == 2)
    found = train(model, x, y, graph, split, Training(0.05, 0.0, epochs=150, score="error"))
    assert float(model.end.detach()) == pytest.approx(1.7, abs=0.02)
    assert found.test == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("weight", "sign"), [(30.0, -1), (-30.0, 1)])
def test_the_price_of_energy_moves_the_rayleigh_quotient(weight: float, sign: int) -> None:
    x, y, graph, split = club()
    ends = []
    for penalty in (None, EnergyPenalty(weight)):
        torch.manual_seed(0)
        model = Recipe("heat", 34, 2, 8, dropout=0.0, input_dropout=0.0).build()
        settings = Training(epochs=30, watch=10, penalty=penalty)
        found = train(model, x, y, graph, split, settings)
        assert [row["epoch"] for row in found.history if "rayleigh" in row] == [10, 20, 30]
        with torch.no_grad():
            ends.append(found.history[-1]["rayleigh"])
    assert sign * (ends[1] - ends[0]) > 0


def test_splits_are_disjoint_stratified_and_repeatable() -> None:
    y = torch.tensor([0] * 50 + [1] * 25 + [2] * 25)
    one, same, other = (Split.random(y, seed) for seed in (0, 0, 1))
    assert torch.equal(one.train, same.train)
    assert not torch.equal(one.train, other.train)
    assert bool((one.train.long() + one.val.long() + one.test.long() == 1).all())
    assert [int((y[one.train] == k).sum()) for k in range(3)] == [24, 12, 12]


def test_fixed_splits_are_those_of_the_data() -> None:
    club = data.load("karate")
    masks = torch.zeros(34, 2, dtype=torch.bool)
    masks[0, 0] = masks[1, 1] = True
    parts = {"train_mask": masks, "val_mask": masks.roll(1, 0), "test_mask": masks.roll(2, 0)}
    with_splits = replace(club, **parts)
    split = Split.fixed(with_splits, 1)
    assert [int(torch.nonzero(m)) for m in (split.train, split.val, split.test)] == [1, 2, 3]
    with pytest.raises(ValueError, match="there is no 2"):
        Split.fixed(with_splits, 2)
    with pytest.raises(ValueError, match="without splits"):
        Split.fixed(club)


@given(
    some.lists(some.integers(0, 4), min_size=2, max_size=12),
    some.randoms(use_true_random=False),
)
def test_auc_counts_the_pairs_in_order(values: list[int], random: object) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    y = torch.tensor([k % 2 for k in range(len(values))])
    out = torch.stack([torch.zeros_like(scores), scores], 1)
    pairs = [(a, b) for a in scores[y == 1] for b in scores[y == 0]]
    expected = sum(float(a > b) + 0.5 * float(a == b) for a, b in pairs) / len(pairs)
    assert roc_auc(out, y) == pytest.approx(expected)


def test_senseless_training_is_refused() -> None:
    x, y, graph, split = club()
    mlp = Recipe("mlp", 34, 2, 8, layers=2).build()
    with pytest.raises(ValueError, match="no state"):
        train(mlp, x, y, graph, split, Training(penalty=EnergyPenalty(1.0)))
    with pytest.raises(ValueError, match="use 'error'"):
        train(mlp, x, y.float(), graph, split, Training())
    with pytest.raises(ValueError, match="optimiser"):
        Training(optimiser="adm")
    with pytest.raises(ValueError, match="two parts"):
        Split(split.train, split.train, split.test)
    with pytest.raises(ValueError, match="empty"):
        Split(split.train, split.val, torch.zeros(34, dtype=torch.bool))
    with pytest.raises(ValueError, match="both classes"):
        roc_auc(torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="no nodes"):
        accuracy(torch.ones(0, 2), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_baselines_are_the_published_layers(kind: str) -> None:
    graph = data.karate()
    A = graph.adjacency("none").to_dense().double()
    x = torch.randn(34, 3, dtype=torch.float64)
    model = Recipe(kind, 3, 2, 4, layers=2).build().double().eval()

    def layer(one: nn.Module, x: Tensor) -> Tensor:
        if kind == "gcn":
            root = (A.sum(1) + 1).rsqrt()
            spread = root[:, None] * (A + torch.eye(34).double()) * root
            linear = getattr(one.lin, "linear", one.lin)
            return spread @ x @ linear.weight.T + one.bias
        mean = A @ x / A.sum(1, keepdim=True)
        return mean @ one.lin_l.weight.T + one.lin_l.bias + x @ one.lin_r.weight.T

    expected = layer(model.layers[1], torch.relu(layer(model.layers[0], x)))
    torch.testing.assert_close(model(x, graph), expected)


class Threshold(nn.Module):
    """Two scores of a node, the second larger where its number is above a half."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([0.0 * x + 0.5, x + 0.0 * self.place], 1)


def cooling() -> tuple[NodeModel, Tensor, Tensor, Graph, Split]:
    """Numbers that grow like e^t, each of which is right from a known time on."""
    y = torch.ones(12, dtype=torch.int64)
    parts = torch.zeros(3, 12, dtype=torch.bool)
    for part in range(3):
        parts[part, 4 * part : 4 * part + 4] = True
    x = 0.5 * torch.exp(-torch.tensor([0.1, 0.1, 0.1, 0.1, 0.5, 1.5, 2.5, 3.5] + [1.0] * 4))
    model = NodeModel(nn.Identity(), Reaction([0.0, 1.0]), Threshold(), channels=1, end=1.0)
    return model, x[:, None], y, Graph(torch.zeros(2, 0, dtype=torch.int64), 12), Split(*parts)


@pytest.mark.parametrize(("ends", "best", "share"), [
    ((0.3, 2.0), 2.0, 0.5), ((2.0, 3.0), 3.0, 0.75), ((0.2,), 1.0, 0.25)])  # fmt: skip
def test_validation_chooses_the_end_of_the_flow(
    ends: tuple[float, ...], best: float, share: float
) -> None:
    model, *rest = cooling()
    found = train(model, *rest, Training(epochs=2, ends=ends))
    assert float(model.end) == best
    assert found.val == share
    assert found.history[0]["end"] == best


def test_readings_are_the_outputs_of_models_that_end_there() -> None:
    x, _, graph, _ = club()
    torch.manual_seed(0)
    for name, how in (("grand", {}), ("graphcon", {"solver": "graphcon", "steps": 4})):
        model = Recipe(name, 34, 2, 8, end=2.0, dropout=0.0, input_dropout=0.0, **how).build()
        for end, out in zip((1.0, 3.0), model.readings(x, graph, (1.0, 3.0)), strict=True):
            model.end = end
            torch.testing.assert_close(out, model(x, graph).detach(), rtol=2e-3, atol=2e-3)
            model.end = 2.0
        assert model.steps == how.get("steps")


def test_ends_are_chosen_only_where_there_is_a_choice() -> None:
    x, y, graph, split = club()
    wishes = Training(epochs=1, ends=(1.0, 2.0))
    learned = Recipe("grand", 34, 2, 8, learned_end=True).build()
    for model in (learned, Recipe("grand", 34, 2, 8, layers=2).build()):
        with pytest.raises(ValueError, match="a learned end or several fields"):
            train(model, x, y, graph, split, wishes)
    with pytest.raises(ValueError, match="has none"):
        train(Recipe("mlp", 34, 2, 8).build(), x, y, graph, split, wishes)
    with pytest.raises(ValueError, match="it is exp"):
        learned.end = 2.0
    for ends in ((0.0, 1.0), (2.0, 1.0), (-1.0,)):
        with pytest.raises(ValueError, match="rising times after 0"):
            Training(ends=ends)
