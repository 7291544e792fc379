"""Studies: the results of many paired runs, as rows that tables, tests and figures read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.runs import AGAIN, FAILED, GROUP, PAIR, Row
from analysis.significance import Paired, compare_pairs, holm
from analysis.tables import Table
from solvers.failure import unknown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Study:
    """Results of a comparison, one row per run.

    A row names its problem, solver, control (a number of steps, or "rtol 1e-4"), schedule, replica
    and seed, and holds numbers: errors by name, `evaluations`, `products` where they were counted,
    and `fitting` (evaluations spent on the schedule before). Runs that failed say so under
    `failed`, and hold no errors.

    Args:
        rows: the rows.
        baseline: the schedule that others are compared with.

    >>> row = {"problem": "p", "solver": "heun", "control": 5, "replica": 0, "evaluations": 10}
    >>> rows = [row | {"schedule": s, "seed": i, "error": e + i / 10} for i in range(3)
    ...         for s, e in (("uniform", 2.0), ("cosine", 1.0))]
    >>> study = Study(rows, "uniform")
    >>> [round(one["gain"], 3) for one in study.paired("error").rows]
    [0.476]
    """

    rows: Sequence[Row]
    baseline: str

    @property
    def metrics(self) -> list[str]:
        """Names of the errors, in order of appearance."""
        known = {*GROUP, *PAIR, "schedule", "evaluations", "products", "fitting", FAILED}
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if name not in known]

    def groups(self) -> Iterator[tuple[Row, dict[str, dict[tuple[Any, ...], Row]]]]:
        """Each problem, solver and control, with its rows by schedule and pair."""
        found: dict[tuple[Any, ...], dict[str, dict[tuple[Any, ...], Row]]] = {}
        for row in self.rows:
            group = found.setdefault(tuple(row[name] for name in GROUP), {})
            pair = tuple(row[name] for name in PAIR)
            group.setdefault(row["schedule"], {})[pair] = row
        for key, group in found.items():
            yield dict(zip(GROUP, key, strict=True)), group

    def table(self) -> Table:
        """Means and standard errors of every metric, for each problem, solver, control, schedule.

        `fitting` is what the schedule cost once, in evaluations of a batch.
        """
        table, metrics = Table(), self.metrics
        for named, group in self.groups():
            for schedule, pairs in group.items():
                good = [row for row in pairs.values() if FAILED not in row]
                row: dict[str, Any] = {**named, "schedule": schedule, "runs": len(good)}
                if len(good) < len(pairs):
                    row[FAILED] = len(pairs) - len(good)
                for name in ("evaluations", "products", "fitting", *metrics):
                    values = np.array([one[name] for one in good if name in one], float)
                    if len(values):
                        row[name] = float(values.mean())
                    if len(values) > 1 and name in metrics:
                        row[f"{name} se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
                table.add(row)
        return table

    def paired(self, metric: str, baseline: str | None = None) -> Table:
        """Every schedule against the baseline, pair by pair, with p-values after Holm.

        Holm's rule counts the schedules of a problem, solver and control; the row of the baseline
        under fresh seeds is no candidate and is not counted. Its gain is noise, and so is whatever
        is not larger.

        Args:
            metric: which error.
            baseline: another baseline than the study's.

        Raises:
            ValueError: for a metric or a baseline that the study does not hold.
        """
        baseline = baseline or self.baseline
        if metric not in self.metrics:
            raise unknown_name("metric", metric, self.metrics)
        names = list(dict.fromkeys(str(row["schedule"]) for row in self.rows))
        if baseline not in names:
            raise unknown_name("schedule", baseline, names)
        table = Table()
        for named, group in self.groups():
            if baseline not in group:
                continue
            found = {
                schedule: _against(group[baseline], pairs, metric)
                for schedule, pairs in group.items()
                if schedule != baseline
            }
            tests = {name: one for name, one in found.items() if not name.endswith(AGAIN)}
            for kind in ("t", "wilcoxon"):
                raw = {name: getattr(one, kind) for name, one in tests.items()}
                kept = {name: p for name, p in raw.items() if not np.isnan(p)}
                adjusted = dict(zip(kept, holm(list(kept.values())), strict=True))
                for name, p in adjusted.items():
                    tests[name] = _with(tests[name], kind, p)
            for name, one in found.items():
                table.add({**named, "schedule": name, **vars(tests.get(name, one))})
        return table

    def plot(self, metric: str, ax: Axes | None = None, **where: Any) -> Axes:
        """Error against evaluations, one line per schedule; bars are standard errors.

        Args:
            metric: which error.
            ax: where; new axes by default.
            where: which problem and solver, by name, where there are several.

        Raises:
            ValueError: for an unknown metric, or when rows of several problems or solvers remain.
        """
        from analysis.plots.studies import against_evaluations

        return against_evaluations(self.rows, metric, ax, **where)

    def save(self, folder: Path) -> None:
        """Write rows.csv, and the table and the paired tests of every metric (csv, markdown)."""
        folder.mkdir(parents=True, exist_ok=True)
        Table([dict(row) for row in self.rows]).save(folder / "rows")
        self.table().save(folder / "table")
        for metric in self.metrics:
            self.paired(metric).save(folder / f"paired-{metric.replace(' ', '-')}")


def _against(
    baseline: Mapping[tuple[Any, ...], Row], candidate: Mapping[tuple[Any, ...], Row], metric: str
) -> Paired:
    good = {pair for pair, row in baseline.items() if metric in row}
    shared = [pair for pair, row in candidate.items() if pair in good and metric in row]
    if not shared:
        nan = float("nan")
        return Paired(0, nan, nan, nan, nan, nan, nan, nan)
    return compare_pairs(
        [float(baseline[pair][metric]) for pair in shared],
        [float(candidate[pair][metric]) for pair in shared],
    )


def _with(found: Paired, kind: str, p: float) -> Paired:
    return Paired(**{**vars(found), kind: p})
