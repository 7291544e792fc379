"""Models on disk: weights as safetensors, settings as json in their header."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuralpde.models.node import NodeModel
from neuralpde.models.recipe import Recipe

FORM = "neuralpde.models/1"


def save(path: str | Path, model: nn.Module, recipe: Recipe | None = None) -> None:
    """Write a model: its weights, and the recipe that makes it again.

    Args:
        path: Of the file, by custom `.safetensors`.
        model: Any module.
        recipe: What it was built from; without one, `load` needs the module. An end that moved
            since then, and its steps, are written in place of the recipe's.

    >>> import tempfile
    >>> recipe = Recipe("heat", inputs=3, outputs=2, channels=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/model.safetensors", recipe.build(), recipe)
    ...     load(f"{folder}/model.safetensors").width
    8
    """
    from safetensors.torch import save_model

    if recipe is not None and isinstance(model, NodeModel) and model.log_end is None:
        recipe = replace(recipe, end=float(model.end), steps=model.steps)
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in model.parameters()})
    header = {
        "form": FORM,
        "torch": torch.__version__,
        "dtypes": json.dumps(kinds),
        "recipe": json.dumps(None if recipe is None else recipe.settings()),
    }
    save_model(model, str(path), header)


def load(path: str | Path, model: nn.Module | None = None) -> Any:
    """Read a model, in eval mode.

    Args:
        path: Of the file.
        model: Where the weights go, for files without a recipe; changed in place.

    Returns:
        The model.

    Raises:
        ValueError: For a file that `save` did not write, and one without a recipe where no model
            is given.
        RuntimeError: For weights that do not fit the model.

    >>> import tempfile
    >>> model = torch.nn.Linear(1, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/weights.safetensors", model)
    ...     again = load(f"{folder}/weights.safetensors", torch.nn.Linear(1, 1))
    >>> torch.equal(again.weight, model.weight)
    True
    """
    from safetensors import safe_open
    from safetensors.torch import load_model

    with safe_open(str(path), "pt") as stored:
        header = stored.metadata() or {}
        names = stored.keys()
        types = {name: stored.get_tensor(name).dtype for name in names}
    if header.get("form") != FORM:
        raise ValueError(
            f"{path} has form {header.get('form')!r}, and this reads {FORM!r}; it was not written "
            "by neuralpde.models.save"
        )
    if model is None:
        settings = json.loads(header["recipe"])
        if settings is None:
            raise ValueError(f"{path} holds weights alone: build the model and pass it, model=")
        model = Recipe(**settings).build()
    for name, one in [*model.named_parameters(), *model.named_buffers()]:
        # Otherwise what was trained in double precision would come back rounded.
        if name in types and one.dtype != types[name]:
            one.data = one.data.to(types[name])
    load_model(model, str(path))
    return model.eval()
