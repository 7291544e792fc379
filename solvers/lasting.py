"""Tensors that outlive the inference mode in which they are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import torch


@contextmanager
def lasting() -> Iterator[None]:
    """Make tensors that may be written to, and take part in gradients, after inference mode.

    What is made under `torch.inference_mode()` may do neither outside it. Whatever is kept for
    later (matrices of a graph, room for energies) is therefore made as under `torch.no_grad()`.

    Example:
        >>> with torch.inference_mode():
        ...     with lasting():
        ...         x = torch.ones(1)
        >>> x.is_inference(), x.add_(1.0).item()
        (False, 2.0)
    """
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


if TYPE_CHECKING:
    kept = cached_property
else:

    class kept(cached_property):
        """A `cached_property` whose tensors last.

        Example:
            >>> class Square:
            ...     @kept
            ...     def sides(self):
            ...         return torch.full((1,), 4)
            >>> square = Square()
            >>> with torch.inference_mode():
            ...     square.sides.is_inference()
            False
        """

        def __get__(self, instance, owner=None):
            """Return what was found before, or find it."""
            with lasting():
                return super().__get__(instance, owner)
