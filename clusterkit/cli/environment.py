"""Which Python the tasks get: the caller's, the cluster's, or one made of the project's files."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from clusterkit.errors import UsageError
from clusterkit.paths import Home
from clusterkit.records import Environment
from clusterkit.sweep import environment, recipe
from clusterkit.sweep.recipe import Recipe
from clusterkit.transport import Connection, Local


@dataclass(frozen=True, slots=True)
class Choice:
    """Either an interpreter that is on the cluster, or what an environment is made of there."""

    python: str = ""
    recipe: Recipe | None = None
    note: str = ""  # for the user


def is_version(python: str | None) -> bool:
    """Whether `--python` names a version ("3.12", ">=3.11"), and not an interpreter."""
    return python is not None and re.fullmatch(r"[<>=!~]*\s*\d[\d.,*<>=!~ ]*", python) is not None


def is_own(cluster: str, python: str | None, wanted: str | None) -> bool:
    """Whether tasks run with an interpreter of this machine, as it can be told at once."""
    return cluster == "local" and wanted in (None, "none") and not is_version(python)


def own(python: str | None) -> Environment:
    """The interpreter that `--python` names, or that of the active environment, as it is here."""
    interpreter = python or environment.caller_python(os.environ, sys.executable)
    return environment.describe(interpreter, Local())


def choose(
    home: Home,
    connection: Connection,
    *,
    script: Path,
    top: Path,
    python: str | None,
    wanted: str | None,
) -> Choice:
    """What `--python` and `--environment` (a file, or "none") mean on this cluster.

    Unless told, the cluster's settings say; else, on other machines, the nearest of uv.lock,
    pyproject.toml, requirements.txt from the script's folder up to `top`. Raises UsageError.
    """
    from clusterkit.cluster import config

    settings = config.cluster_spec(home, connection.cluster).environment
    version = python if is_version(python) else ""
    if python and not version:
        if wanted not in (None, "none"):
            raise UsageError(
                f"--python {python} is used as it is, so nothing is made of --environment "
                f"{wanted}: leave one of them out, or give a version, such as --python 3.12"
            )
        return Choice(python)
    version = version or settings.python or ""
    here = isinstance(connection.transport, Local)
    file: Path | None = None
    if wanted == "none":
        pass
    elif wanted is not None:
        file = Path(wanted)
        if not file.is_file():
            raise UsageError(f"--environment {wanted}: no such file")
    elif settings.requirements is not None:
        file = settings.requirements
    elif not here:
        file = recipe.find(script, top)
    if file is not None:
        return Choice(recipe=recipe.read(file, version))
    if version:
        nothing = Recipe(
            "requirements", "requirements.txt", {"requirements.txt": ""}, version, top / "--python"
        )
        return Choice(recipe=nothing)
    if here:
        return Choice(environment.caller_python(os.environ, sys.executable))
    if wanted == "none":
        return Choice(connection.python)
    return Choice(
        connection.python,
        note=f"no {', '.join(recipe.NAMES)} beside the script: the tasks get "
        f"{connection.cluster}'s own {connection.python}",
    )


def made(connection: Connection, choice: Choice, *, dry_run: bool) -> Environment:
    """That environment, made if it is not there; with `dry_run` only as far as it is known."""
    if choice.recipe is None:
        if choice.note:
            click.echo(choice.note, err=True)
        return environment.describe(choice.python, connection.transport)
    if dry_run:
        folder, found = environment.look(connection, choice.recipe)
        label = f"not built yet, of {choice.recipe.source.name}"
        return found or Environment("", f"{folder}/bin/python", label, {})
    say, done = _line(sys.stderr.isatty())
    try:
        return environment.make(connection, choice.recipe, say)
    finally:
        done()


def _line(terminal: bool) -> tuple[Callable[[str], None], Callable[[], None]]:
    """One line that says what is built and how far; without a terminal, its beginning alone."""
    head = ""

    def say(text: str) -> None:
        nonlocal head
        if not head:
            head = text
            if not terminal:
                click.echo(text, err=True)
        if terminal:
            shown = head if text == head else f"{head}: {text}"
            shown = shown[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r\033[K{shown}", nl=False, err=True)

    def done() -> None:
        if head and terminal:
            click.echo(err=True)

    return say, done
