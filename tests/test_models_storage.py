"""Models on disk: what comes back is what was saved, and nothing is unpickled."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from neuralpde import catalogue
from neuralpde.fields import Heat, Layers, SheafDiffusion
from neuralpde.models import NodeModel, Recipe, chosen, load, save
from neuralpde.models.recipe import MODELS

RECIPES = [
    Recipe("grand", 3, 2, 4, {"heads": 2, "source": True}, end=2.0, learned_end=True),
    Recipe("graff", 3, 2, 4, {"weights": "diag"}, encoder_layers=2),
    Recipe("graff", 3, 2, 4, encoder_layers=3, encoder_residual=True),
    Recipe("sheaf", 3, 2, 4, {"stalk": 2, "variant": "frozen"}, layers=3, steps=3, act="elu"),
    Recipe("g2", 3, 2, 4, {"p": 2.0}, steps=4, solver="euler", batch_norm=True),
    Recipe("heat", 3, 2, 4, end=3.0, rtol=1e-3),
    Recipe("gat", 3, 2, 4, {"heads": 2}, layers=2),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.model)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_comes_back_bit_for_bit(recipe: Recipe, dtype: torch.dtype, tmp_path: Path) -> None:
    path, graph = tmp_path / "model.safetensors", catalogue.ring(7)
    one = recipe.build().to(dtype)
    for parameter in one.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    one.eval()
    save(path, one, recipe)
    torch.manual_seed(1)
    again = load(path)
    x = torch.randn(7, 3, dtype=dtype)
    assert not again.training
    assert torch.equal(again(x, graph), one(x, graph))
    assert {name: value.dtype for name, value in again.state_dict().items()} == {
        name: value.dtype for name, value in one.state_dict().items()
    }


def test_the_header_holds_the_recipe_as_json(tmp_path: Path) -> None:
    path, recipe = tmp_path / "model.safetensors", RECIPES[0]
    save(path, recipe.build(), recipe)
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])["__metadata__"]
    assert Recipe(**json.loads(header["recipe"])) == recipe


def test_a_field_that_stands_twice_is_saved_once(tmp_path: Path) -> None:
    def build() -> NodeModel:
        one = SheafDiffusion(2, 2)
        return NodeModel(nn.Linear(3, 4), Layers([one, one]), nn.Linear(4, 2))

    path, model, other = tmp_path / "tied.safetensors", build(), build()
    save(path, model)
    load(path, other)
    x, graph = torch.randn(5, 3), catalogue.ring(5)
    assert torch.equal(model(x, graph), other(x, graph))


def test_wrong_files_and_models_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    model = NodeModel(nn.Linear(3, 4), Heat(), nn.Linear(4, 2), channels=4)
    save(path, model)
    with pytest.raises(ValueError, match="model="):
        load(path)
    with pytest.raises(RuntimeError):
        load(path, NodeModel(nn.Linear(3, 5), Heat(), nn.Linear(5, 2), channels=5))
    save_file({"weight": torch.zeros(2)}, str(path))
    with pytest.raises(ValueError, match="not written"):
        load(path)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("data", ["Cora", "Texas", "Chameleon", "Minesweeper", "Karate"])
def test_presets_survive_json_and_name_no_data_twice(name: str, data: str) -> None:
    recipe, training = chosen(data, name, 5, 2)
    assert Recipe(**json.loads(json.dumps(recipe.settings()))) == recipe
    assert training.score == ("auc" if data == "Minesweeper" else "accuracy")


def test_a_moved_end_is_kept(tmp_path: Path) -> None:
    recipe = Recipe("graff", 3, 2, 4, end=1.0, solver="euler", steps=4)
    model = recipe.build()
    model.end = 2.5
    save(tmp_path / "model.safetensors", model, recipe)
    again = load(tmp_path / "model.safetensors")
    assert (float(again.end), again.steps) == (2.5, 10)
