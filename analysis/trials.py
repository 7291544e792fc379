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


def by_validation(rows: Iterable[Mapping[str, str]], models: Iterable[str]) -> Table:
    """What the best of several models on validation reaches on the test nodes.

    Two choices for each set and kind of split. "whole set": one model and its settings for all
    seeds, by the mean of their validation scores. "each split": for every seed the one with the
    best validation score there; of equals the one that is better on the whole set. Both see
    validation alone, and the first is the plainer claim.

    Args:
        rows: Of a ledger, with `val` and `test` in [0, 1].
        models: Names of those to choose among.

    Raises:
        ValueError: For a model without runs, and runs on other seeds than those of the rest.

    >>> scores = {"a": ("0.9", "0.5"), "b": ("0.8", "0.7")}
    >>> rows = [dict.fromkeys(KEY, "") | {"model": name, "val": val, "test": test}
    ...         for name, (val, test) in scores.items()]
    >>> by_validation(rows, ["a", "b"]).rows[0]["test"]
    '50.00'
    """
    names = tuple(models)
    sets: dict[tuple[str, str], dict[tuple[str, str], dict[str, tuple[float, float]]]] = {}
    for row in rows:
        if row["model"] in names:
            runs = sets.setdefault((row["data"], row["split"]), {})
            scores = 100 * float(row["val"]), 100 * float(row["test"])
            runs.setdefault((row["model"], row["settings"]), {})[row["seed"]] = scores
    table = Table()
    for (data, split), runs in sets.items():
        missing = set(names) - {model for model, _ in runs}
        seeds = list(next(iter(runs.values())))
        uneven = {model for (model, _), found in runs.items() if set(found) != set(seeds)}
        if missing or uneven:
            raise ValueError(
                f"models on {data} are compared on the same seeds: "
                + ", ".join(sorted(missing | uneven))
                + " has none or others; run what is missing"
            )
        means = {one: statistics.fmean(val for val, _ in runs[one].values()) for one in runs}
        whole = max(runs, key=lambda one: means[one])
        each = [max(runs, key=lambda one: (runs[one][s][0], means[one])) for s in seeds]
        for choice, picked in (("whole set", [whole] * len(seeds)), ("each split", each)):
            counts = {name: sum(one[0] == name for one in picked) for name in names}
            line = {"data": data, "split": split, "chosen for": choice, "trials": len(seeds)}
            line["models"] = " ".join(f"{k}:{n}" for k, n in counts.items() if n)
            pairs = [runs[one][seed] for one, seed in zip(picked, seeds, strict=True)]
            for place, name in enumerate(("val", "test")):
                line[name] = _both(*_moments([pair[place] for pair in pairs]))
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
