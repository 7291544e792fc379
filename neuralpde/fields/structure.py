"""What a bound field tells the solvers of itself."""

from __future__ import annotations

from torch import Tensor

from neuralpde.fields.field import Field
from solvers.rows import State
from solvers.structure import Structure


def structure(field: Field | None, name: str, *, packed: bool) -> Structure:
    """The parts of a bound field as functions of packed states.

    Nothing is known of a plain callable (None), nor of a field with a `forward` of its own.

    Args:
        field: Bound; or None.
        name: What it is called in messages.
        packed: Whether the user's state is a tuple.

    >>> import torch
    >>> from neuralpde.fields.reaction import Reaction
    >>> x = torch.ones(2, 1)
    >>> found = structure(Reaction([0.0, 2.0]).bind(None, x), "growth", packed=False)
    >>> found.rest(torch.tensor(0.0), (x,))[0].tolist(), found.pointwise
    ([[2.0], [2.0]], True)
    """
    if field is None or not field.splits:
        return Structure(name=name)
    if field.has_force:
        return Structure(force=field.force, damping=field.damping, noise=field.noise, name=name)

    def rest(t: Tensor, x: State) -> State:
        return tuple(field.rest(t, x)) if packed else (field.rest(t, x[0]),)

    return Structure(
        field.operator,
        field.source,
        rest if field.has_rest else None,
        field.pointwise or not field.has_rest,
        noise=field.noise,
        name=name,
    )
