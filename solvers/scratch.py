"""Memory that one solve hands on to the next: fresh memory costs as much as several products."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.lasting import lasting

# Larger pieces of memory are not kept, in bytes.
MOST = 2**26

# The last piece that was given back. Threads take it and give it back in single operations.
_kept: deque[Tensor] = deque(maxlen=1)


@contextmanager
def lent(like: Tensor, count: int) -> Iterator[Float[Tensor, " count"]]:
    """Lend room for so many numbers, not initialised; whoever has it is alone with it.

    A system hands out large pieces of memory page by page, at the first touch of each, and that
    takes as long as several passes over the numbers. On the CPU one piece of at most 64 MiB is
    therefore kept for the next that asks; other devices keep memory themselves.

    Args:
        like: gives dtype and device.
        count: how many numbers.

    Example:
        >>> with lent(torch.ones(1), 100_000) as room:
        ...     place = room.data_ptr()
        >>> with lent(torch.ones(1).double(), 50_000) as again:
        ...     again.shape, again.dtype, again.data_ptr() == place
        (torch.Size([50000]), torch.float64, True)
    """
    size = count * like.element_size()
    if like.device.type != "cpu" or size > MOST:
        yield like.new_empty(count)
        return
    with lasting():
        try:
            memory = _kept.pop()
        except IndexError:
            memory = torch.empty(0, dtype=torch.uint8, device="cpu")
        if len(memory) < size:
            memory = torch.empty(size, dtype=torch.uint8, device="cpu")
        room = memory[:size].view(like.dtype)
    try:
        yield room
    finally:
        _kept.append(memory)


def release() -> None:
    """Free what is kept.

    Example:
        >>> with lent(torch.ones(1), 100_000):
        ...     pass
        >>> release()
        >>> len(_kept)
        0
    """
    _kept.clear()
