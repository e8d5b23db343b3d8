"""What the tasks' environment is made of: a project's own files. Reads files, runs nothing."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from clusterkit.errors import UsageError

#: In each folder from the script's upwards, the first of these that is there is taken.
NAMES: Final = ("uv.lock", "pyproject.toml", "requirements.txt")


@dataclass(frozen=True, slots=True)
class Recipe:
    """`kind` is lock (uv.lock with its pyproject.toml), project or requirements.

    `python` is a version, or a condition such as ">=3.11"; "" for whatever the cluster has.
    """

    kind: str
    main: str  # the file that uv is given, of `files`
    files: Mapping[str, str]  # relative posix path -> text
    python: str
    source: Path  # for messages

    @property
    def id(self) -> str:
        """SHA-256 (hex) of all that decides what becomes of it, but for the machine."""
        text = json.dumps([self.kind, self.main, dict(self.files), self.python], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def find(script: Path, top: Path) -> Path | None:
    """The nearest such file, from the script's folder up to `top`; None: there is none.

    A pyproject.toml that names no dependencies (settings of tools alone) is none.
    """
    folder = script.resolve().parent
    top = top.resolve()
    while folder.is_relative_to(top):
        for name in NAMES:
            file = folder / name
            if not file.is_file():
                continue
            if name == "uv.lock" and not (folder / "pyproject.toml").is_file():
                continue
            if name != "pyproject.toml" or "dependencies" in _project(file):
                return file
        if folder == top:
            break
        folder = folder.parent
    return None


def read(file: Path, python: str = "") -> Recipe:
    """The recipe that `file` is; its kind is told by its name. `python` is stronger than the file.

    Raises UsageError when it cannot be read or names what is only on this machine.
    """
    file = file.resolve()
    if file.name == "uv.lock":
        project = file.with_name("pyproject.toml")
        if not project.is_file():
            raise UsageError(f"{file}: there is no pyproject.toml beside it, which belongs to it")
        files = {"uv.lock": _text(file), "pyproject.toml": _text(project)}
        return Recipe("lock", "uv.lock", files, python or _python(project), file)
    if file.name == "pyproject.toml":
        found = _project(file)
        if "dependencies" not in found:
            raise UsageError(f"{file}: has no `dependencies` under [project]")
        # Only what decides: to change a linter's settings shall not build anything anew.
        tables = tomllib.loads(_text(file))
        uv = tables.get("tool", {}).get("uv", {})
        text = _text(file) if uv else _dependencies(found)
        return Recipe(
            "project", "pyproject.toml", {"pyproject.toml": text}, python or _python(file), file
        )
    files = {}
    _requirements(file, file.parent, files)
    return Recipe("requirements", file.name, files, python or _pinned(file.parent), file)


def search_path(recipe: Recipe, top: Path) -> tuple[str, ...]:
    """Folders of the snapshot (relative to it) that hold the project's own modules.

    The project itself is never part of an environment: tasks import it from the snapshot.
    """
    if recipe.kind == "requirements" or not recipe.source.is_relative_to(top.resolve()):
        return ()
    folder = recipe.source.parent
    inner = folder / "src" if (folder / "src").is_dir() else folder
    return (inner.relative_to(top.resolve()).as_posix(),)


def _dependencies(project: Mapping[str, Any]) -> str:
    """A pyproject.toml with nothing but what is installed."""
    lines = ["[project]", 'name = "tasks"', 'version = "0"']
    if isinstance(project.get("requires-python"), str):
        lines.append(f"requires-python = {json.dumps(project['requires-python'])}")
    lines.append(f"dependencies = {json.dumps(project['dependencies'])}")
    return "\n".join(lines) + "\n"


def _project(file: Path) -> Mapping[str, Any]:
    """The [project] table, {} where there is none."""
    try:
        found = tomllib.loads(_text(file)).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: is no TOML: {error}") from error
    return found if isinstance(found, dict) else {}


def _python(file: Path) -> str:
    wanted = _project(file).get("requires-python", "")
    return _pinned(file.parent) or (wanted if isinstance(wanted, str) else "")


def _pinned(folder: Path) -> str:
    """Uv's own `.python-version` beside the file: its first line."""
    file = folder / ".python-version"
    if not file.is_file():
        return ""
    lines = [line.strip() for line in _text(file).splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


def _requirements(file: Path, top: Path, files: dict[str, str]) -> None:
    """The file and those that it includes (-r, -c), which must lie beside or below it."""
    try:
        name = file.relative_to(top).as_posix()
    except ValueError:
        raise UsageError(f"{file}: lies outside of {top}, so it cannot be sent along") from None
    if name in files:
        return
    files[name] = _text(file)
    for number, line in enumerate(files[name].splitlines(), 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        included = re.match(r"(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)", text)
        if included:
            target = included[1]
            if "://" not in target:
                inner = PurePosixPath(target)
                _requirements((file.parent / inner).resolve(), top, files)
        elif re.match(r"(-e|--editable)\b|\.{0,2}/|\.$|file:|[\w.-]+\s*@\s*(file:|\.{0,2}/)", text):
            raise UsageError(
                f"{file}, line {number}: {text}: a folder of this machine cannot be part of an "
                "environment on the cluster. The project's own code is sent with every experiment: "
                "take the line out, or name another file with --environment"
            )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
