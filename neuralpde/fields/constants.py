"""Numbers that a field holds: given once, or learned."""

from __future__ import annotations

import math

from torch import Tensor, nn


def hold(module: nn.Module, name: str, value: float | Tensor, dims: int | None = 1) -> None:
    """Set a number of a field: a parameter is registered, a tensor follows the device.

    A plain number stays one, in double precision whatever the state's dtype.

    Args:
        module: The field.
        name: The attribute.
        value: A finite number or tensor; an `nn.Parameter` is learned.
        dims: Most dimensions that a tensor may have; None for any.

    Raises:
        ValueError: For a number that is not finite or a tensor of too many dimensions.

    >>> field = nn.Module()
    >>> hold(field, "rate", 0.1)
    >>> field.rate
    0.1
    """
    if not isinstance(value, Tensor):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}; give a finite number")
        setattr(module, name, float(value))
        return
    if dims is not None and value.dim() > dims:
        allowed = "0-d or one entry per graph" if dims else "0-d"
        raise ValueError(f"{name} has shape {tuple(value.shape)}; allowed: a number, {allowed}")
    if not bool(value.detach().isfinite().all()):
        raise ValueError(f"{name} is {value!r}; give finite numbers")
    if isinstance(value, nn.Parameter):
        setattr(module, name, value)
    else:
        module.register_buffer(name, value, persistent=False)


def per_graph(name: str, value: float | Tensor, num_graphs: int) -> float | Tensor:
    """Return the number as operators take it, checked against the number of graphs.

    Raises:
        ValueError: For another number of entries than graphs.

    >>> per_graph("rate", 2.0, 3)
    2.0
    """
    if isinstance(value, Tensor) and value.dim() and len(value) != num_graphs:
        raise ValueError(f"{len(value)} values of {name} for {num_graphs} graphs; give one each")
    return value


def spend(module: nn.Module, *names: str) -> None:
    """Leave of a bound field's numbers what they were: something was built that stands for them.

    Args:
        module: The field, in `prepare`.
        names: Of its numbers; those that are learned become constants.

    >>> import torch
    >>> field = nn.Module()
    >>> hold(field, "rate", nn.Parameter(torch.tensor(0.5)))
    >>> spend(field, "rate")
    >>> field.rate, len(list(field.parameters()))
    (tensor(0.5000), 0)
    """
    for name in names:
        number = module._parameters.pop(name, None)
        if number is not None:
            setattr(module, name, number.detach())
