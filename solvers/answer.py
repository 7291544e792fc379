"""What an adapter to another library hands back, and the field as that library calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.rows import State

FieldFunction = Callable[[Tensor, State], State]

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
        growth: Largest |x| seen on a fixed grid, in multiples of the first.
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
    growth: float = 1.0
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


class Blind(Exception):
    """A field gave NaN at a finite state.

    Args:
        t: When.
        rows: In which rows.
    """

    def __init__(self, t: float, rows: list[int]) -> None:
        super().__init__(t, rows)
        self.t, self.rows = t, rows

    def __str__(self) -> str:
        """For messages."""
        return (
            f"the field returned nan or inf at t={self.t:.6g} in {len(self.rows)} rows (first: row "
            f"{self.rows[0]}) although x was finite. Look at the field: a division by zero, a "
            "logarithm, an overflow?"
        )


def blind_rows(f: FieldFunction, t: Tensor, x: State) -> list[int]:
    """The rows in which the field is not finite at a finite state.

    >>> x = (torch.tensor([1.0, 0.0]),)
    >>> blind_rows(lambda t, x: (1 / x[0],), torch.tensor(0.0), x)
    [1]
    """
    with torch.no_grad():
        return _rows_where([~part.isfinite() for part in f(t, x)])


def lookout(f: FieldFunction) -> FieldFunction:
    """The field, raising `Blind` where it gives NaN at a finite state.

    >>> lookout(lambda t, x: (x[0].log(),))(torch.tensor(0.0), (torch.ones(1),))
    (tensor([0.]),)
    """

    def call(t: Tensor, x: State) -> State:
        out = f(t, x)
        rows = _rows_where([part.isnan() for part in out])
        if rows and all(bool(part.isfinite().all()) for part in x):
            raise Blind(float(t), rows)
        return out

    return call


def _rows_where(bad: list[Tensor]) -> list[int]:
    marked: set[int] = set()
    for part in bad:
        flat = part.reshape(part.shape[0] if part.dim() else 1, -1).any(1)
        marked.update(torch.nonzero(flat).squeeze(1).tolist())
    return sorted(marked)
