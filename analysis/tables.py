"""Rows of results as csv and markdown."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Table:
    """Rows with named columns; a row may lack some of them.

    Args:
        rows: One mapping per row.

    >>> table = Table([{"solver": "euler", "error": 0.5}, {"solver": "rk4", "error": 1.25e-7}])
    >>> print(table.markdown())
    | solver | error |
    |---|---|
    | euler | 0.5 |
    | rk4 | 1.25e-07 |
    """

    rows: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def columns(self) -> Sequence[str]:
        """All names, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(dict(row))

    def markdown(self) -> str:
        """The table in markdown, numbers to three digits."""
        names = self.columns
        lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [
            f"| {' | '.join(_short(row.get(name, '')) for name in names)} |" for row in self.rows
        ]
        return "\n".join(lines)

    @staticmethod
    def load(path: Path) -> Table:
        """Read the .csv that `save` wrote; what looks like a number is one."""
        with path.open(newline="") as file:
            return Table([{k: _read(v) for k, v in row.items()} for row in csv.DictReader(file)])

    def save(self, path: Path) -> None:
        """Write `path` with .csv, all digits, and with .md."""
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        path.with_suffix(".md").write_text(self.markdown() + "\n")


def _read(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
