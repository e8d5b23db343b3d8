"""What the tasks' environment is made of: found, read, identified."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit.cli import environment
from clusterkit.errors import UsageError
from clusterkit.sweep import recipe

PROJECT = '[project]\nname = "p"\nrequires-python = ">=3.10"\ndependencies = ["numpy"]\n'


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_dot_", ".").replace("_", "-")).write_text(text)
    return folder


def test_the_nearest_file_is_found_and_none_above_the_project(tmp_path: Path) -> None:
    top = write(tmp_path / "outer" / "project", pyproject_dot_toml=PROJECT)
    inner = write(top / "a" / "b")
    write(tmp_path / "outer", requirements_dot_txt="six\n")
    assert recipe.find(inner / "train.py", top) == top / "pyproject.toml"
    write(top / "a", requirements_dot_txt="numpy\n")
    assert recipe.find(inner / "train.py", top) == top / "a" / "requirements.txt"
    assert recipe.find(top / "train.py", top) == top / "pyproject.toml"
    write(top, uv_dot_lock="version = 1\n")
    assert recipe.find(top / "train.py", top) == top / "uv.lock"


def test_settings_of_tools_alone_are_no_environment(tmp_path: Path) -> None:
    write(tmp_path, pyproject_dot_toml="[tool.ruff]\nline-length = 100\n")
    assert recipe.find(tmp_path / "train.py", tmp_path) is None
    with pytest.raises(UsageError, match="no `dependencies`"):
        recipe.read(tmp_path / "pyproject.toml")


def test_only_what_decides_makes_another_environment(tmp_path: Path) -> None:
    file = write(tmp_path, pyproject_dot_toml=PROJECT) / "pyproject.toml"
    first = recipe.read(file)
    assert (first.kind, first.python) == ("project", ">=3.10")
    file.write_text(PROJECT + "[tool.ruff]\nline-length = 100\n")
    assert recipe.read(file).id == first.id
    file.write_text(PROJECT.replace("numpy", "scipy"))
    assert recipe.read(file).id != first.id
    assert recipe.read(file, "3.12").python == "3.12"
    assert recipe.read(file, "3.12").id != recipe.read(file).id


def test_the_pinned_python_is_stronger_than_the_condition(tmp_path: Path) -> None:
    write(tmp_path, pyproject_dot_toml=PROJECT, uv_dot_lock="version = 1\n")
    (tmp_path / ".python-version").write_text("# ours\n3.12\n")
    found = recipe.read(tmp_path / "uv.lock")
    assert (found.kind, found.python, set(found.files)) == (
        "lock",
        "3.12",
        {"uv.lock", "pyproject.toml"},
    )


def test_included_requirements_come_along(tmp_path: Path) -> None:
    write(tmp_path / "more", base_dot_txt="-c ../limits.txt\nsix  # -e .\n")
    (tmp_path / "limits.txt").write_text("six<2\n")
    file = tmp_path / "requirements.txt"
    file.write_text("-r more/base.txt\n--requirement=https://x/y.txt\nnumpy\n")
    assert set(recipe.read(file).files) == {"requirements.txt", "more/base.txt", "limits.txt"}


@pytest.mark.parametrize(
    "line", ["-e .", "--editable=.", ".", "./lib", "../lib", "/opt/x", "p @ file:///x", "p @ ./x"]
)
def test_a_folder_of_this_machine_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(f"numpy\n{line}\n")
    with pytest.raises(UsageError, match=r"requirements\.txt, line 2: .*--environment"):
        recipe.read(file)


def test_what_lies_outside_cannot_come_along(tmp_path: Path) -> None:
    file = write(tmp_path / "project", requirements_dot_txt="-r ../all.txt\n") / "requirements.txt"
    (tmp_path / "all.txt").write_text("six\n")
    with pytest.raises(UsageError, match=r"all\.txt: lies outside"):
        recipe.read(file)


def test_tasks_import_the_project_from_the_snapshot(tmp_path: Path) -> None:
    inner = write(tmp_path / "sub", pyproject_dot_toml=PROJECT)
    found = recipe.read(inner / "pyproject.toml")
    assert recipe.search_path(found, tmp_path) == ("sub",)
    (inner / "src").mkdir()
    assert recipe.search_path(found, tmp_path) == ("sub/src",)
    assert recipe.search_path(found, tmp_path / "elsewhere") == ()


@pytest.mark.parametrize(
    ("word", "version"),
    [("3.12", True), (">=3.11", True), (">= 3.10, <3.13", True), ("/usr/bin/python3", False),
     ("python3.12", False), ("./env/bin/python", False)],
)  # fmt: skip
def test_a_version_is_told_from_an_interpreter(word: str, version: bool) -> None:
    assert environment.is_version(word) is version
