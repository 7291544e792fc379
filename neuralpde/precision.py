"""The precision of a state is that of the solve, whatever surrounds it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def own_precision(x: Any) -> AbstractContextManager[Any]:
    """Turn autocast off on the device of a state: no tolerance is kept in half precision.

    A field that wants its networks in half precision turns autocast on again where it calls them.

    Args:
        x: A state, or a tuple of states.

    >>> x = torch.ones(1, 1)
    >>> with torch.autocast("cpu", torch.bfloat16), own_precision(x):
    ...     (x @ x).dtype
    torch.float32
    """
    first = x[0] if isinstance(x, (tuple, list)) and x else x
    kind = first.device.type if isinstance(first, Tensor) else "cpu"
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
