"""Published hyper-parameters: what a field was trained with on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from solvers.failure import unknown_name


@dataclass(frozen=True)
class Preset:
    """Settings that belong to one published result.

    Attributes:
        settings: Keyword arguments of the field, `channels` among them.
        solver: Name of the solver.
        end: End time.
        step: Step size; the solve takes `end / step` of them, rounded.
        training: Learning rate, weight decay, dropout and the like, as far as they are published.

    >>> preset = Preset({"channels": 64}, "euler", 3.0, 0.25)
    >>> preset.steps
    12
    """

    settings: Mapping[str, Any]
    solver: str
    end: float
    step: float
    training: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of steps to the end; at least one."""
        return max(1, round(self.end / self.step))


def preset(table: Mapping[str, Preset], name: str) -> Preset:
    """Look up a preset.

    Raises:
        ValueError: For a name that is not there, with the nearest one.

    >>> preset({"Cora": Preset({}, "rk4", 4.0, 0.5)}, "Cora").steps
    8
    """
    if name not in table:
        raise unknown_name("preset", name, tuple(table))
    return table[name]
