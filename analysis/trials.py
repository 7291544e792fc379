"""Trials of trained models: a ledger that a run can be resumed from, and what it amounts to."""

from __future__ import annotations

import csv
import math
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tables import Table

KEY = ("data", "split", "model", "seed", "settings")
"""What tells trials apart: one that agrees in all of these was run already."""

GROUP = ("data", "split", "model", "settings")
"""What trials have in common whose scores are averaged."""


@dataclass
class Ledger:
    """A csv of trials, one row each, written as they end.

    Args:
        path: Of the file; made with the first row.

    Raises:
        ValueError: When a row is added whose columns are not those of the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger(Path(folder) / "runs.csv")
    ...     row = dict.fromkeys(KEY, "a") | {"test": 0.5}
    ...     ledger.add(row)
    ...     ledger.holds(row), ledger.holds(row | {"seed": "b"}), len(ledger.rows)
    (True, False, 1)
    """

    path: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows so far, as text; a last one that was cut off is left out."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            found = list(csv.DictReader(file))
        return [row for row in found if None not in row and None not in row.values()]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether that trial was run."""
        return bool(self._found(row))

    def row(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What stands there of a trial, all of it.

        Raises:
            ValueError: For a trial that was not run.
        """
        found = self._found(row)
        if not found:
            raise ValueError(f"{self.path} holds no trial {[str(row[name]) for name in KEY]}")
        return found[0]

    def _found(self, row: Mapping[str, Any]) -> list[dict[str, str]]:
        wanted = tuple(str(row[name]) for name in KEY)
        return [one for one in self.rows if tuple(one[name] for name in KEY) == wanted]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; the file is whole again after each."""
        kept = self.rows
        if kept and list(kept[0]) != list(row):
            raise ValueError(
                f"{self.path} has columns {list(kept[0])} and the row {list(row)}; write to "
                "another file"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*kept, row])
        beside.replace(self.path)


def summary(
    rows: Iterable[Mapping[str, str]],
    published: Mapping[tuple[str, str, str], tuple[float, float]] | None = None,
) -> Table:
    """Mean and standard deviation of the scores of each model, beside published figures.

    Args:
        rows: Of a ledger, with `val` and `test` in [0, 1], `seconds` and `epochs`.
        published: Mean and standard deviation in per cent by data, split and model.

    Returns:
        Per cent; the standard deviation over trials is that of a sample (n - 1), nan of one alone.
        `off` is ours less the published mean, and its standard error stands beside it where both
        scatters are known: from ours, and from the published one over ten splits.

    >>> rows = [dict.fromkeys(GROUP, "a") | {"val": "0.5", "test": t, "seconds": "2", "epochs": "4"}
    ...         for t in ("0.6", "0.8")]
    >>> row = summary(rows, {("a", "a", "a"): (75.0, 1.0)}).rows[0]
    >>> row["test"], row["published"], row["off"]
    ('70.00 +- 14.14', '75.00 +- 1.00', -5.0)
    """
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    table = Table()
    variants: dict[tuple[str, ...], int] = {}
    for key, members in groups.items():
        data, split, model, _ = key
        variants[key[:3]] = variants.get(key[:3], 0) + 1
        scores = {name: [100 * float(row[name]) for row in members] for name in ("val", "test")}
        line: dict[str, Any] = {
            "data": data,
            "split": split,
            "model": model,
            "settings": variants[key[:3]],
            "trials": len(members),
            "val": _both(*_moments(scores["val"])),
            "test": _both(*_moments(scores["test"])),
        }
        known = (published or {}).get((data, split, model))
        if known is not None:
            line["published"] = _both(*known)
            line["off"] = round(_moments(scores["test"])[0] - known[0], 2)
        seconds, epochs = (
            sum(float(row[name]) for row in members) for name in ("seconds", "epochs")
        )
        line["s/epoch"] = seconds / max(epochs, 1.0)
        line["s/trial"] = seconds / len(members)
        table.add(line)
    return table


def revision(folder: Path) -> str:
    """The commit that a folder stands at, with a plus if files differ from it; "" outside git.

    >>> revision(Path("/"))
    ''
    """
    said = []
    for words in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain", "-uno")):
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        said.append(done.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def _moments(values: list[float]) -> tuple[float, float]:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), spread


def _both(mean: float, spread: float) -> str:
    return f"{mean:.2f}" if math.isnan(spread) else f"{mean:.2f} +- {spread:.2f}"
