"""What a bound field tells the solvers of itself."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from neuralpde.fields.field import Field
from solvers.noise import declared
from solvers.rows import State
from solvers.structure import Structure


def structure(field: Field | None, name: str, *, packed: bool) -> Structure:
    """The parts of a bound field as functions of packed states.

    Nothing is known of a plain callable (None), and of a field with a `forward` of its own only
    the noise.

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
    if field is None:
        return Structure(name=name)
    noise = None if field.noise is None else replace(declared(field.noise), packed=packed)
    if not field.splits:
        return Structure(noise=noise, name=name)
    if field.has_force:
        if not packed:
            raise TypeError(f"{name} is of second order: its state is a pair (x, v), not a tensor")
        return Structure(
            force=field.force,
            damping=field.damping,
            stiffness=field.stiffness,
            noise=noise,
            name=name,
        )

    def rest(t: Tensor, x: State) -> State:
        return tuple(field.rest(t, x)) if packed else (field.rest(t, x[0]),)

    return Structure(
        field.operator,
        field.source,
        rest if field.has_rest else None,
        field.pointwise or not field.has_rest,
        noise=noise,
        name=name,
    )
