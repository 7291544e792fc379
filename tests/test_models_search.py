"""Random search: what is drawn, for whom, and what is chosen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neuralpde.models import Recipe, Training, chosen
from neuralpde.models.baselines import KINDS
from neuralpde.models.search import (
    DEPTHS,
    WIDTHS,
    best,
    changed,
    deepened,
    drawn,
    keep,
    kept,
    parsed,
)

DRAWN = ("sheaf", "graff", "graphcon", "g2", "bundle", "grand", "heat", *KINDS)


def ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def test_trials_fill_the_stated_space_and_stay_inside() -> None:
    found = [drawn(Recipe("gcn", 3, 2), Training(), trial) for trial in range(1, 301)]
    assert {recipe.channels for recipe, _ in found} == set(WIDTHS)
    assert {recipe.layers for recipe, _ in found} == set(DEPTHS)
    assert ends([recipe.dropout for recipe, _ in found]) == pytest.approx((0.1, 0.7), abs=0.02)
    assert ends([one.input_dropout for one, _ in found]) == pytest.approx((0.0, 0.7), abs=0.02)
    rates = sorted(training.learning_rate for _, training in found)
    decays = sorted(training.weight_decay for _, training in found)
    for values, low, high in ((rates, 0.002, 0.03), (decays, 5e-4, 0.05)):
        assert ends(values) == pytest.approx((low, high), rel=0.1)
        # Even in the logarithm: the median is the geometric mean of the ends.
        assert values[150] == pytest.approx((low * high) ** 0.5, rel=0.35)


def test_draws_are_not_tied_to_one_another() -> None:
    found = [drawn(Recipe("gcn", 3, 2), Training(), trial) for trial in range(1, 301)]
    columns = [
        [recipe.dropout, recipe.input_dropout, training.learning_rate, training.weight_decay]
        for recipe, training in found
    ]
    together = torch.corrcoef(torch.tensor(columns).log1p().T) - torch.eye(4)
    assert float(together.abs().max()) < 0.2


@pytest.mark.parametrize("model", DRAWN)
def test_a_trial_means_the_same_to_every_model(model: str) -> None:
    base, training = chosen("Texas", model, 1703, 5)
    plain, shared = drawn(Recipe("gcn", 3, 2), Training(), 4)
    recipe, tuned = drawn(base, training, 4)
    assert (recipe.dropout, recipe.input_dropout) == (plain.dropout, plain.input_dropout)
    assert tuned.learning_rate == shared.learning_rate
    assert tuned.weight_decay == shared.weight_decay
    assert (tuned.epochs, tuned.patience) == (training.epochs, training.patience)
    assert recipe.options == base.options
    made = replace(recipe, inputs=3).build()
    if model not in KINDS:
        assert plain.channels - 3 < made.width <= plain.channels


def test_the_first_trial_is_what_was_given_and_draws_leave_the_generator_alone() -> None:
    base, training = chosen("Texas", "sheaf", 1703, 5)
    before = torch.get_rng_state()
    assert drawn(base, training, 0) == (base, training)
    assert drawn(base, training, 3) == drawn(base, training, 3)
    assert drawn(base, training, 3) != drawn(base, training, 2)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="from 0"):
        drawn(base, training, -1)


def test_depth_is_layers_of_networks_and_steps_of_flows() -> None:
    assert deepened(Recipe("gcn", 3, 2, layers=2), 4).layers == 4
    flow = deepened(Recipe("graff", 3, 2, end=2.985, steps=6, solver="euler"), 3)
    assert (flow.layers, flow.steps, flow.end) == (1, 3, pytest.approx(2.985 / 2))
    layered = Recipe("sheaf", 3, 2, layers=4, end=4.0, steps=8, solver="euler")
    for depth in DEPTHS:
        one = deepened(layered, depth)
        assert (one.layers, one.steps, one.end) == (depth, 2 * depth, float(depth))
    free = deepened(Recipe("grand", 3, 2, end=1.5), 4)
    assert (free.steps, free.end) == (None, 6.0)


def test_the_best_mean_wins_and_of_equals_the_first() -> None:
    assert best({0: [0.5, 0.6], 1: [0.8, 0.4], 2: [0.6, 0.5]}) == 1
    assert best({2: [0.5, 0.6], 1: [0.6, 0.5]}) == 1
    for uneven in ({0: [0.5], 1: [0.6, 0.7]}, {}, {0: []}):
        with pytest.raises(ValueError, match="equally many"):
            best(uneven)


def test_changes_find_their_place_by_name() -> None:
    base = Recipe("graff", 3, 2), Training()
    recipe, training = changed(*base, {"end": 2.0, "patience": 7})
    assert recipe == replace(base[0], end=2.0)
    assert training == replace(base[1], patience=7)
    for name in ("endings", "penalty"):
        with pytest.raises(ValueError, match=f"{name}: unknown; known are .*patience"):
            changed(*base, {name: 1})
    assert dict(map(parsed, ["steps=null", "act=elu", 'options={"p": 2}'])) == {
        "steps": None,
        "act": "elu",
        "options": {"p": 2},
    }


def test_settings_come_back_for_data_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    for model in ("graff", "gcn"):
        recipe, training = drawn(*chosen("Texas", model, 1703, 5), 2)
        entry = json.loads(keep(path, recipe, training, trial=2))
        assert entry["trial"] == 2
        found = kept(path, model, 9, 3)
        assert found == (replace(recipe, inputs=9, outputs=3), training)
    assert list(json.loads(path.read_text())) == ["graff", "gcn"]
    keep(path, replace(recipe, layers=1), training)
    assert kept(path, "gcn", 9, 3)[0].layers == 1
    with pytest.raises(ValueError, match="graff"):
        kept(path, "graf", 9, 3)
