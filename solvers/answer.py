"""What an adapter to another library hands back, and the field as that library calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.rows import State

FieldFunction = Callable[[Tensor, State], State]

BLIND = (
    "the field returned nan or inf there (first: row {row}) although x was finite. Look at the "
    "field: a division by zero, a logarithm, an overflow?"
)
MORE_STEPS = (
    "loosen rtol and atol, raise max_steps, or, where the field is stiff, use solver='scipy:BDF' "
    "(a linear one: solver='exact')."
)


@dataclass
class Answer:
    """The states another library's solver computed, and how it ended.

    Attributes:
        x: States at the saved times, `[saved, ...]` parts; NaN where not reached.
        last: Where every graph ended.
        ended: The time each graph reached.
        status: One word per graph.
        messages: Why, for the graphs that did not end as asked.
        nfe: Evaluations of the field.
        accepted: Accepted steps.
        rejected: Rejected steps.
        notes: What else the library counted or did, in words.
        interrupted: Whether Ctrl-C ended it.

    >>> Answer((torch.zeros(2, 3),), (torch.zeros(3),), [1.0], ["done"]).nfe
    0
    """

    x: State
    last: State
    ended: list[float]
    status: list[str]
    messages: dict[int, str] = field(default_factory=dict)
    nfe: int = 0
    accepted: int = 0
    rejected: int = 0
    notes: tuple[str, ...] = ()
    interrupted: bool = False


def padded(rows: State, saved: int) -> State:
    """Fill up the times that were not reached with NaN.

    >>> padded((torch.ones(1, 2),), 2)[0].tolist()
    [[1.0, 1.0], [nan, nan]]
    """
    return tuple(
        torch.cat([part, part.new_full((saved - len(part), *part.shape[1:]), torch.nan)])
        for part in rows
    )


def blind_rows(f: FieldFunction, t: Tensor, x: State) -> int | None:
    """The first row in which the field is not finite at a finite state, or None.

    >>> x = (torch.tensor([1.0, 0.0]),)
    >>> blind_rows(lambda t, x: (1 / x[0],), torch.tensor(0.0), x)
    1
    """
    with torch.no_grad():
        for part in f(t, x):
            bad = (~part.isfinite()).reshape(part.shape[0] if part.dim() else 1, -1).any(1)
            if bool(bad.any()):
                return int(torch.nonzero(bad)[0])
    return None
