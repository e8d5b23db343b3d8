"""docs/grid.md shows what happens, not what somebody remembers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clusterkit.errors import FileProblems
from clusterkit.sweep import axes, grid

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "grid.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_loads(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(blocks("yaml")[0], encoding="utf-8")
    assert len(grid.load(file).points) == 165


def test_the_error_is_the_one_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(blocks("yaml")[1], encoding="utf-8")
    with pytest.raises(FileProblems) as caught:
        grid.load(Path("grid.yaml"))
    assert str(caught.value).strip() == blocks("text")[0].strip()


def test_every_key_option_and_form_is_on_the_page() -> None:
    for name in (*grid._KEYS, *grid._LATER_KEYS, *axes._FORMS, *axes._LATER_FORMS, *grid._OPTIONS):
        assert name in PAGE, name


def test_the_grids_of_the_experiments_load() -> None:
    files = sorted((ROOT / "experiments").glob("*/grid.yaml"))
    assert files
    for file in files:
        assert grid.load(file).points
