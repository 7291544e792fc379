"""The ledger of trials and the table made of it."""

import statistics
import subprocess
from pathlib import Path

import pytest

from analysis.trials import GROUP, KEY, Ledger, by_validation, revision, summary


def row(**changes: object) -> dict[str, object]:
    known = {"data": "Texas", "split": "fixed", "model": "graff", "seed": 0, "settings": "{}"}
    return known | {"val": 0.5, "test": 0.6, "seconds": 2.0, "epochs": 10} | changes


def text(**changes: object) -> dict[str, str]:
    return {name: str(value) for name, value in row(**changes).items()}


def test_trials_are_told_apart_by_their_key_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "runs.csv")
    ledger.add(row(settings='{"a": "b, c"}'))
    assert ledger.holds(row(settings='{"a": "b, c"}', test=0.1))
    for name in KEY:
        assert not ledger.holds(row(**{"settings": '{"a": "b, c"}', name: "other"}))


def test_a_run_that_was_broken_off_leaves_whole_rows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs.csv")
    ledger.add(row())
    with ledger.path.open("a") as file:
        file.write("Texas,fixed,gra")
    assert [one["seed"] for one in ledger.rows] == ["0"]
    ledger.add(row(seed=1))
    assert [one["seed"] for one in ledger.rows] == ["0", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_columns_of_another_form_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs.csv")
    ledger.add(row())
    with pytest.raises(ValueError, match="another file"):
        ledger.add(row(more=1))
    assert len(ledger.rows) == 1


def test_the_table_has_means_and_sample_deviations_beside_the_published() -> None:
    tests = (0.81, 0.86, 0.92)
    rows = [text(seed=k, test=value) for k, value in enumerate(tests)]
    rows.append(text(model="gcn"))
    rows.append(text(settings='{"other": 1}'))
    graff, gcn, other = summary(rows, {("Texas", "fixed", "graff"): (88.0, 4.0)}).rows
    mean, spread = 100 * statistics.fmean(tests), 100 * statistics.stdev(tests)
    assert graff["test"] == f"{mean:.2f} +- {spread:.2f}"
    assert graff["off"] == pytest.approx(mean - 88.0, abs=0.005)
    assert (graff["trials"], graff["s/epoch"], graff["s/trial"]) == (3, 0.2, 2.0)
    assert (gcn["test"], gcn["trials"]) == ("60.00", 1)
    assert "published" not in gcn
    assert (graff["settings"], other["settings"]) == (1, 2)
    assert set(GROUP) - {"settings"} <= set(graff)


def test_the_revision_says_when_files_differ(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    clean = revision(tmp_path)
    assert len(clean) == 10
    (tmp_path / "file").write_text("2")
    assert revision(tmp_path) == clean + "+"
    assert revision(tmp_path / "nothing") == ""


def chosen_among(*rows: dict[str, str]) -> list[dict[str, object]]:
    return list(by_validation(rows, ["graff", "sheaf"]).rows)


def test_validation_chooses_for_the_set_and_for_each_split() -> None:
    scores = {
        "graff": ((0.9, 0.5), (0.7, 0.9), (0.8, 0.6)),
        "sheaf": ((0.8, 0.8), (0.9, 0.4), (0.8, 0.8)),
        # Not among those that are asked for.
        "gcn": ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
    }
    rows = [
        text(model=name, seed=seed, val=val, test=test)
        for name, pairs in scores.items()
        for seed, (val, test) in enumerate(pairs)
    ]
    whole, each = chosen_among(*rows)
    # Means of validation are 0.8 and 0.8333.
    assert (whole["chosen for"], whole["models"], whole["trials"]) == ("whole set", "sheaf:3", 3)
    assert whole["test"] == f"{100 * statistics.fmean((0.8, 0.4, 0.8)):.2f} +- 23.09"
    # Of equals, on seed 2, the one that is better on the whole set.
    assert each["models"] == "graff:1 sheaf:2"
    assert each["test"] == f"{100 * statistics.fmean((0.5, 0.4, 0.8)):.2f} +- 20.82"
    assert each["val"] == f"{100 * statistics.fmean((0.9, 0.9, 0.8)):.2f} +- 5.77"


def test_settings_of_one_model_are_chosen_among_too_and_sets_stay_apart() -> None:
    rows = [text(settings="a", val=0.5, test=0.1), text(settings="b", val=0.6, test=0.2)]
    rows += [text(model="sheaf", val=0.4, test=0.9)]
    rows += [row | {"data": "Cornell", "test": "0.7"} for row in rows]
    assert [row["test"] for row in chosen_among(*rows)] == ["20.00", "20.00", "70.00", "70.00"]
    assert [row["data"] for row in chosen_among(*rows)] == ["Texas"] * 2 + ["Cornell"] * 2


def test_models_on_other_seeds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="sheaf has none"):
        chosen_among(text())
    with pytest.raises(ValueError, match="sheaf has none or others"):
        chosen_among(text(), text(seed=1), text(model="sheaf"))
