"""The words of a study: what its rows are called, and which belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""One run: what it was, and the numbers that came out."""

AGAIN = " again"
"""Ends the name of the baseline under fresh seeds: the row that shows how large noise is."""

GROUP = ("problem", "solver", "control")
"""Runs that differ in none of these are compared with each other."""

PAIR = ("replica", "seed")
"""What two runs of a pair share."""

FAILED = "failed"
"""Why a run holds no errors."""
