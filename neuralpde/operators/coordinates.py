"""In which coordinates an operator is a plain matrix on the rows of a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from neuralpde.operators.linear import Operator
    from neuralpde.operators.reordered import Reordered
    from neuralpde.operators.tags import Tags


class Coordinates:
    """How functions of an operator are found: enter its coordinates, work there, leave them.

    Most operators act on the rows of a state as they are, every column by itself. Others act on
    states `[nodes, stalk, channels]` and mix the axis of the stalk. With an orthogonal Q, `enter`,
    such an operator is `Q^T core Q`, so that `f(A) x = leave(f(core) enter(x))`, with norms kept.

    Attributes:
        stalk: rows of `core` that belong to one node; 1 for plain operators.

    >>> import torch
    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> A = SparseOperator(Pattern.identity(2), torch.ones(2))
    >>> A.core is A, A.stalk
    (True, 1)
    """

    stalk: int = 1

    if TYPE_CHECKING:
        tags: Tags

    @property
    def separate(self) -> bool:
        """Whether the columns of a state do not see each other, and are all treated alike."""
        return self.tags.channels is None and self.stalk == 1

    @property
    def reordered(self) -> Reordered | None:
        """Products with the nodes in an order that suits the cache better, or None."""
        return None

    @property
    def core(self) -> Operator:
        """The operator in its own coordinates, on `nodes x stalk` rows or on nodes."""
        return cast("Operator", self)

    def enter(self, x: Float[Tensor, "nodes columns"]) -> Float[Tensor, "rows some"]:
        """Return a state in the coordinates of `core`; differentiable."""
        return x

    def leave(self, y: Float[Tensor, "*times rows some"]) -> Float[Tensor, "*times nodes columns"]:
        """Return states from the coordinates of `core`; differentiable."""
        return y
