"""Piecewise fields: one after the other along time, as the layers of a deep network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from neuralpde.fields.field import Field


class Layers(Field):
    """A piecewise field, dx/dt = f_k(t, x) for t in the k-th piece of the interval of the solve.

    `solve` takes the pieces one by one: each is bound to the state at which it starts (attention is
    frozen anew), steps land on the boundaries, and each piece is solved by its own best method.
    With `steps=n` the grid of the whole interval is used, the boundaries added. Deep networks with
    weights per layer are this; gradients flow through the chain.

    Args:
        fields: The pieces, in the order of the solve (also when it runs backwards).
        times: Boundaries as fractions of the interval, from 0 to 1, one more than there are
            pieces; pieces of equal length by default.

    Raises:
        ValueError: For no pieces, pieces of different order, or boundaries that do not fit.

    >>> from neuralpde.fields.diffusion import Heat
    >>> Layers([Heat(rate=1.0), Heat(rate=2.0)]).fractions
    (0.0, 0.5, 1.0)
    """

    def __init__(self, fields: Sequence[Field], times: Sequence[float] | None = None) -> None:
        super().__init__()
        if not fields:
            raise ValueError("Layers of no fields; give at least one")
        orders = {field.order for field in fields}
        if len(orders) > 1:
            raise ValueError(f"layers share one state, but theirs have orders {sorted(orders)}")
        count = len(fields)
        given = [k / count for k in range(count + 1)] if times is None else times
        self.fractions = tuple(float(fraction) for fraction in given)
        rising = all(a < b for a, b in zip(self.fractions, self.fractions[1:], strict=False))
        ends = self.fractions[:1] + self.fractions[-1:]
        if len(self.fractions) != count + 1 or ends != (0.0, 1.0) or not rising:
            raise ValueError(
                f"times is {list(self.fractions)}; give {count + 1} rising fractions from 0 to 1"
            )
        self.layers = nn.ModuleList(fields)
        self.order = orders.pop()

    @property
    def pieces(self) -> tuple[Any, ...]:
        """The fields of the pieces."""
        return tuple(self.layers)

    def forward(self, t: Tensor, x: Any) -> Any:
        """Refuse: the pieces are bound where they start, which only a solve knows."""
        raise TypeError(
            "Layers is no function of (t, x) before it is solved: each layer is bound to the state "
            "at which it starts; call solve(layers, x0, t, graph)"
        )
