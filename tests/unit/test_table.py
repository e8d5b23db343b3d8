"""The table of results: columns never lost, files that come back as they were."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from store_rows import experiment, task

from clusterkit.errors import ClusterkitError, UsageError
from clusterkit.harvest import table
from clusterkit.harvest.table import FACTS
from clusterkit.records import TaskState


def test_clashing_names_are_prefixed() -> None:
    made = table.build(
        experiment(axes=("seed",)),
        [
            task(
                params={"seed": 1, "state": "a", "lr": 1, "result.lr": 3},
                result={"lr": 2, "seconds": 9, "state": 5, "param.state": 6},
            )
        ],
    )
    (row,) = made.rows
    assert made.columns == (
        "seed", "param.state", "lr", "result.lr", "result.result.lr", "result.seconds",
        "result.state", "result.param.state", *FACTS,
    )  # fmt: skip
    assert len(set(made.columns)) == len(made.columns)
    assert (row["param.state"], row["state"], row["lr"], row["result.lr"]) == (
        "a", "COMPLETED", 1, 3,
    )  # fmt: skip
    assert (row["result.result.lr"], row["result.state"], row["result.param.state"]) == (2, 5, 6)
    assert made.axes == ("seed",)


def test_nested_results_are_flat_and_rows_whole() -> None:
    made = table.build(
        experiment(),
        [
            task(0, result={"a": {"b": 1, "c": {"d": 2}}, "e": {}, "l": [1, {"x": 2}]}),
            task(1, result=None, state=TaskState.FAILED, reason="exit code 1"),
            task(2, result={"a.b": 5}),
        ],
    )
    assert made.results == ("a.b", "a.c.d", "e", "l")
    assert [row["a.b"] for row in made.rows] == [1, None, 5]
    assert made.rows[0]["e"] == {}
    assert made.rows[0]["l"] == [1, {"x": 2}]
    assert all(tuple(row) == made.columns for row in made.rows)


def test_a_nested_axis() -> None:
    made = table.build(
        experiment(axes=("model",)), [task(params={"model": {"depth": 2, "width": 3}, "lr": 1})]
    )
    assert made.axes == ("model.depth", "model.width")


AWKWARD = [
    {"f": 0.1, "mix": 1, "b": True, "t": "a,b\n\"c\" 'd' é", "l": [1, 2], "n": math.nan},
    {"f": 2, "mix": "x", "b": False, "t": "", "l": [], "n": math.inf},
    {"f": None, "mix": True, "b": None, "t": None, "l": None, "n": 1.5, "big": 10**30},
    {"f": 1e-300, "mix": 2.5, "t": "half \udc80 pair", "d": {"": 0}},
]


@pytest.fixture
def made() -> table.Table:
    return table.build(experiment(), [task(n, result=r) for n, r in enumerate(AWKWARD)])


def test_json(made: table.Table, tmp_path: Path) -> None:
    table.write(made, tmp_path / "deep" / "t.json")
    rows = json.loads((tmp_path / "deep" / "t.json").read_text(encoding="utf-8"))
    assert len(rows) == 4
    for row, values in zip(rows, AWKWARD, strict=True):
        for name, value in values.items():
            if name == "d":
                assert row["d."] == 0
            elif isinstance(value, float) and not math.isfinite(value):
                assert row[name] is None
            else:
                assert row[name] == value
                assert type(row[name]) is type(value)


def test_csv(made: table.Table, tmp_path: Path) -> None:
    table.write(made, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == made.columns
    assert rows[0]["t"] == AWKWARD[0]["t"]
    assert [row["n"] for row in rows] == ["nan", "inf", "1.5", ""]
    assert rows[0]["l"] == "[1, 2]"
    assert rows[2]["big"] == str(10**30)
    assert rows[3]["t"] == "half \\udc80 pair"
    assert len(rows) == 4


def test_parquet(made: table.Table, tmp_path: Path) -> None:
    table.write(made, tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert tuple(frame.columns) == made.columns
    assert frame["f"].tolist()[:2] == [0.1, 2.0]
    assert frame["mix"].tolist() == ["1", "x", "true", "2.5"]
    texts = [None if pd.isna(text) else text for text in frame["t"]]
    assert texts == [AWKWARD[0]["t"], "", None, "half \\udc80 pair"]
    assert frame["b"].tolist()[:2] == [True, False]
    assert frame["big"].tolist()[2] == str(10**30)
    assert math.isinf(frame["n"].tolist()[1])
    assert frame["state"].tolist() == ["COMPLETED"] * 4


def test_an_experiment_without_results(tmp_path: Path) -> None:
    empty = table.build(experiment(), [])
    for ending in ("csv", "json", "parquet"):
        table.write(empty, tmp_path / f"t.{ending}")
        assert (tmp_path / f"t.{ending}").exists()


def test_files_are_whole_or_absent(
    made: table.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "t.csv"
    target.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table.os, "fsync", full)
    with pytest.raises(ClusterkitError, match="cannot be written: No space left on device"):
        table.write(made, target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_other_endings_are_refused(made: table.Table, tmp_path: Path) -> None:
    for name in ("t.xlsx", "t", ".csv"):
        with pytest.raises(UsageError, match=r"one of \.csv, \.json, \.parquet"):
            table.write(made, tmp_path / name)
        with pytest.raises(UsageError):
            table.check_target(tmp_path / name)
    table.check_target(tmp_path / "T.CSV")


def test_mean_and_deviation() -> None:
    assert table.mean([]) is None
    assert table.mean([2.0]) == (2.0, None)
    assert table.mean([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    found = table.mean([1.0, math.nan])
    assert found is not None
    assert math.isnan(found[0])


def test_summary_groups_over_seeds_and_leaves_failures_out() -> None:
    tasks = [
        task(n, params={"lr": lr, "seed": seed}, result={"loss": lr + seed, "name": "x"})
        for n, (lr, seed) in enumerate((lr, seed) for lr in (0.1, [1]) for seed in (1, 2))
        if lr != [1]
    ]
    tasks.append(task(9, params={"lr": 0.1, "seed": 3}, result=None, state=TaskState.FAILED))
    tasks.append(task(10, params={"lr": [1], "seed": 1}, result={"loss": 7}))
    made = table.build(experiment(axes=("lr", "seed")), tasks)
    summary = table.summarise(made)
    assert summary.columns == ("lr", "n", "loss")
    first, second = summary.groups
    assert first[:2] == (0.1, 2)
    assert first[2] == (pytest.approx(1.6), pytest.approx(math.sqrt(0.5)))
    assert second == ([1], 1, (7.0, None))


def test_summary_without_numbers_shows_seconds() -> None:
    made = table.build(experiment(), [task(0, seconds=2.0, result={"ok": True, "s": "x"})])
    assert table.summarise(made).results == ("seconds",)
