"""Fresh views of every tensor a bound field holds: the exact frontier of an adjoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


def shallow(module: nn.Module) -> Any:
    """Copy a module whose attributes, parameters and children can be set without touching it."""
    new = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules"):
        new.__dict__[name] = dict(module.__dict__[name])
    return new


def freshen(value: Any, memo: dict[int, Any]) -> Any:
    """Replace each tensor that requires grad by a view of itself, through modules and operators.

    An adjoint differentiates with respect to a list of tensors. When one of them is computed from
    another (frozen attention from a parameter that the field also reads), the second would be
    counted twice. Views taken after everything is prepared have no such relation: each is upstream
    of the field alone.

    Args:
        value: A tensor, a module, an operator, or a list, tuple or dict of them; anything else is
            returned as it is.
        memo: What was replaced so far, by identity, so that sharing survives.
    """
    if id(value) in memo:
        return memo[id(value)][1]
    new = value
    if isinstance(value, Tensor):
        new = value.view_as(value) if value.requires_grad else value
    elif isinstance(value, nn.Module):
        new = _fresh_module(value, memo)
    elif hasattr(value, "fresh"):
        new = value.fresh()
    elif type(value) in (list, tuple):
        new = type(value)(freshen(item, memo) for item in value)
    elif type(value) is dict:
        new = {key: freshen(item, memo) for key, item in value.items()}
    # The original stays in the memo too: an id is only good while its object lives.
    memo[id(value)] = (value, new)
    return new


def _fresh_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    if not any(True for _ in tensors(module)):
        return module
    new: nn.Module = shallow(module)
    memo[id(module)] = (module, new)
    held = {k: v for k, v in vars(module).items() if k not in ("_parameters", "_modules")}
    for name, value in held.items():
        if not name.startswith("_") and name != "graph":
            vars(new)[name] = freshen(value, memo)
    for name, parameter in module._parameters.items():
        if parameter is not None and parameter.requires_grad:
            del new._parameters[name]
            vars(new)[name] = freshen(parameter, memo)
    for name, child in module._modules.items():
        new._modules[name] = None if child is None else freshen(child, memo)
    return new


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor requiring grad that a module, operator or container holds, with repetitions."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            yield value
    elif isinstance(value, nn.Module):
        for name, held in vars(value).items():
            if name in ("_parameters", "_modules"):
                for part in held.values():
                    yield from tensors(part)
            elif not name.startswith("_") and name != "graph":
                yield from tensors(held)
    elif hasattr(value, "tensors") and hasattr(value, "fresh"):
        yield from (part for part in value.tensors if part.requires_grad)
    elif type(value) in (list, tuple):
        for item in value:
            yield from tensors(item)
    elif type(value) is dict:
        for item in value.values():
            yield from tensors(item)
