"""Which columns a plot shows, and that it becomes a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from store_rows import experiment, task

from clusterkit.errors import ClusterkitError, UsageError
from clusterkit.harvest import report, table
from clusterkit.records import TaskState


def made(axes: tuple[str, ...], *rows: tuple[dict[str, Any], dict[str, Any] | None]) -> table.Table:
    tasks = [
        task(n, params=p, result=r, state=TaskState.FAILED if r is None else TaskState.COMPLETED)
        for n, (p, r) in enumerate(rows)
    ]
    return table.build(experiment(axes=axes), tasks)


GRID = made(
    ("model", "width", "seed"),
    *(
        ({"model": m, "width": w, "seed": s}, {"time": 1, "loss": w + s, "accuracy": 0.5})
        for m in ("a", "b")
        for w in (16, 64, 256)
        for s in (0, 1)
    ),
)


def test_choice_of_axes() -> None:
    assert report.choose(GRID, None, None, None) == report.Axes("width", "accuracy", "model")
    assert report.choose(GRID, "model", "loss", None) == report.Axes("model", "loss", "width")


@pytest.mark.parametrize("word", ["x", "y", "by"])
def test_unknown_columns_name_the_known(word: str) -> None:
    given = {"x": None, "y": None, "by": None, word: "nope"}
    with pytest.raises(UsageError, match="no column 'nope' to draw; there are: "):
        report.choose(GRID, given["x"], given["y"], given["by"])


def test_nothing_varies() -> None:
    with pytest.raises(UsageError, match="nothing varies but the seed"):
        report.choose(made(("seed",), ({"seed": 1}, {"v": 1})), None, None, None)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_is_a_file(tmp_path: Path, ending: str) -> None:
    target = tmp_path / "deep" / f"p.{ending}"
    report.plot(GRID, report.choose(GRID, None, None, None), target, "title é $x$")
    assert target.stat().st_size > 1000


def test_what_a_plot_shows(tmp_path: Path) -> None:
    """The text of an SVG is its paths' comments: axes, legend, ticks."""
    target = tmp_path / "p.svg"
    report.plot(GRID, report.Axes("width", "loss", "model"), target, "the title")
    words = re.findall(r"<!-- (.*?) -->", target.read_text())
    for word in ("width", "loss (mean ± std, n = 2)", "model = a", "model = b", "16", "256"):
        assert word in words


def test_awkward_values_are_drawn(tmp_path: Path) -> None:
    odd = made(
        ("on",),
        ({"on": True}, {"v": float("nan")}),
        ({"on": None}, {"v": 1}),
        ({"on": [1, 2]}, {"v": 2}),
        ({"on": "x"}, None),
    )
    report.plot(odd, report.choose(odd, None, None, None), tmp_path / "p.png", "t")
    assert (tmp_path / "p.png").exists()


def test_nothing_completed(tmp_path: Path) -> None:
    none = made(("lr",), ({"lr": 1}, None), ({"lr": 2}, None))
    with pytest.raises(ClusterkitError, match="nothing to draw"):
        report.plot(none, report.choose(none, None, None, None), tmp_path / "p.png", "t")


def test_other_endings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end with"):
        report.plot(GRID, report.Axes("width", "loss", None), tmp_path / "p.gif", "t")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ClusterkitError, match="cannot be written"):
        report.plot(GRID, report.Axes("width", "loss", None), tmp_path / "f" / "p.png", "t")
