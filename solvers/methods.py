"""The one-step methods by their names."""

from __future__ import annotations

from collections.abc import Callable

from solvers.explicit import explicit
from solvers.stepper import Stepper
from solvers.tableaus import TABLEAUS

METHODS: dict[str, Callable[[], Stepper]] = {}
"""Methods that are no tableau, each with what makes its stepper."""


def stepper(name: str) -> Stepper:
    """Return the method of that name.

    Example:
        >>> stepper("tsit5").order
        5
    """
    return METHODS[name]() if name in METHODS else explicit(name)


def names() -> tuple[str, ...]:
    """Every method that has a name.

    Example:
        >>> "heun" in names()
        True
    """
    return (*TABLEAUS, *METHODS)
