"""How many products with sparse matrices have been taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Piece = TypeVar("Piece")


class ProductCounter:
    """Number of sparse products `A x` and `A^T g` taken so far, in either direction of autograd.

    Attributes:
        total: the count; only differences mean anything.

    Example:
        >>> counter = ProductCounter()
        >>> counter.total += 1
        >>> counter.total
        1
    """

    def __init__(self) -> None:
        self.total = 0

    def once(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Iterate over the pieces of a state; what is done to all of them counts as done once.

        Example:
            >>> counter = ProductCounter()
            >>> for columns in counter.once(["left half", "right half"]):
            ...     counter.total += 3
            >>> counter.total
            3
        """
        for number, piece in enumerate(pieces):
            before = self.total
            yield piece
            if number:
                self.total = before


products = ProductCounter()
"""The counter of this process: operators add to it."""
