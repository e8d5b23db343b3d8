"""The Python environment of the tasks: which interpreter, and what is installed for it.

Either an interpreter that is there is used where it is, or an environment is made on the cluster
from the project's own files (`recipe`), once for each content and never changed (`node.build`).
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import site
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from clusterkit.errors import ClusterkitError, CommandFailed, TransportError, UsageError
from clusterkit.records import Environment
from clusterkit.sweep import library
from clusterkit.sweep.recipe import Recipe
from clusterkit.transport import Connection, Local, Transport

# Folder names say enough (name-version.dist-info), and reading them takes a millisecond;
# importlib.metadata would open a file of each package. Where a virtual environment hides the
# user's own site-packages, so does this; -I keeps the working folder and PYTHONPATH out.
_PROBE: Final = """\
import json, os, site, sys
folders = list(site.getsitepackages())
if sys.prefix == sys.base_prefix:
    folders.insert(0, site.getusersitepackages())
names = [[name for name in sorted(os.listdir(folder)) if name.endswith("-info")]
         for folder in folders if os.path.isdir(folder)]
print(json.dumps([sys.version.split()[0], names]))
"""


def caller_python(environ: Mapping[str, str], executable: str) -> str:
    """The interpreter that the caller works with: the active environment's, else `executable`.

    A virtual environment's python is a link; it is not resolved, or it would be the base's.
    """
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = environ.get(variable)
        if prefix and (python := Path(prefix) / "bin" / "python").exists():
            return str(python.absolute())
    return executable


def describe(python: str, transport: Transport) -> Environment:
    """What `python` is on that machine; the running interpreter is not started again.

    `id` is the SHA-256 (hex) over version and packages: two environments with the same are equal
    for a task. Packages found through PYTHONPATH or .pth files are not listed.
    Raises UsageError when it cannot be run.
    """
    if isinstance(transport, Local) and python == sys.executable:
        version, names = sys.version.split()[0], _own()
    else:
        version, names = _probed(python, transport)
    return _environment(python, version, names)


def _environment(python: str, version: str, names: Iterable[Iterable[str]]) -> Environment:
    packages = _packages(names)
    text = json.dumps([version, packages], sort_keys=True, separators=(",", ":"))
    return Environment(hashlib.sha256(text.encode()).hexdigest(), python, version, packages)


def look(connection: Connection, recipe: Recipe) -> tuple[str, Environment | None]:
    """Where the environment of `recipe` is or would be on the cluster; None: not made yet."""
    answer = _look(connection, recipe)
    return str(answer["folder"]), _made(answer)


def make(connection: Connection, recipe: Recipe, say: Callable[[str], None]) -> Environment:
    """The environment of `recipe` on the cluster, made now unless it is there.

    `say` is called with a line for each step. Interrupted at any point, the next call makes it
    anew; one that is complete is never touched. Raises ClusterkitError with uv's own words.
    """
    answer = _look(connection, recipe)
    found = _made(answer)
    if found is not None:
        return found
    say(f"building environment {Path(answer['folder']).name[:8]} of {recipe.source.name}")
    arguments = _arguments(recipe) | {
        "uv": _uv(connection, str(answer["machine"])),
        "probe": _PROBE,
    }
    try:
        answer = _talk(connection, arguments, dict(recipe.files), say)
    except CommandFailed as error:
        raise ClusterkitError(
            f"the environment of {recipe.source} could not be made on {connection.cluster}: "
            f"{error.stderr.strip() or error}. The same command goes on."
        ) from error
    found = _made(answer)
    if found is None:
        words = answer.get("failed") or "the connection broke; the same command goes on"
        raise ClusterkitError(
            f"the environment of {recipe.source} could not be made on {connection.cluster}; "
            f"nothing was submitted. uv says:\n{words}\n{_advice(str(words))}"
        )
    return found


def _advice(words: str) -> str:
    if "No interpreter found" in words or "python-build-standalone" in words:
        return (
            "The cluster has no such Python, and none could be fetched: ask for one that it has "
            "(requires-python, .python-version, --python), or install it there."
        )
    if "error sending request" in words or "dns error" in words or "Failed to fetch" in words:
        return (
            "The cluster must reach a package index; /etc/pip.conf or UV_DEFAULT_INDEX there name "
            "another one. `--environment none` takes the cluster's own Python as it is."
        )
    return "Mend the file, or name another one with --environment."


def _arguments(recipe: Recipe) -> dict[str, Any]:
    return {
        "id": recipe.id,
        "label": recipe.source.name,
        "kind": recipe.kind,
        "main": recipe.main,
        "python": recipe.python,
    }


def _look(connection: Connection, recipe: Recipe) -> dict[str, Any]:
    arguments = _arguments(recipe) | {"look": True}
    try:
        return _talk(connection, arguments, None, lambda _: None)
    except CommandFailed:
        library.ship(connection)  # it was not there yet, most likely
        return _talk(connection, arguments, None, lambda _: None)


def _talk(
    connection: Connection,
    arguments: Mapping[str, Any],
    files: Mapping[str, str] | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the builder on the cluster; the last that it said."""
    argv = library.argv(
        connection, library.folder(connection), "build", connection.root, json.dumps(arguments)
    )
    given = b"" if files is None else json.dumps(files).encode() + b"\n"
    last: dict[str, Any] = {}
    try:
        with connection.transport.stream(argv, input=given, env=connection.env) as stream:
            for line in stream:
                last = json.loads(line)
                if "say" in last:
                    say(str(last["say"]))
    except CommandFailed:
        if "failed" not in last:
            raise
    except ValueError as error:
        raise TransportError(
            f"{connection.cluster}: {connection.python} printed something unexpected: {error}"
        ) from error
    return last


def _made(answer: Mapping[str, Any]) -> Environment | None:
    found = answer.get("complete")
    if not found:
        return None
    return _environment(f"{answer['folder']}/bin/python", found["version"], found["names"])


def _uv(connection: Connection, machine: str) -> str:
    """Where uv is on the cluster; this machine's is sent there, once for each version of it."""
    if machine == platform.machine():
        own = _own_uv()
        version = Local().run([str(own), "--version"]).text.split()[1]
        folder = f"{connection.root}/uv/{version}"
        connection.transport.put({"uv": own}, folder)
        return f"{folder}/uv"
    done = connection.run(
        ["sh", "-c", 'PATH="$PATH:$HOME/.local/bin:/opt/clusterkit/uv/bin" command -v uv'],
        check=False,
    )
    if done.returncode != 0 or not done.text.strip():
        raise ClusterkitError(
            f"{connection.cluster} is a {machine} and this machine a {platform.machine()}, so its "
            "uv cannot be sent: install uv there (https://docs.astral.sh/uv/), or choose "
            "`--environment none`"
        )
    return done.text.strip()


def _own_uv() -> Path:
    try:
        import uv

        return Path(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found is None:
            raise ClusterkitError(
                "uv makes the tasks' environment on the cluster and is missing here: "
                "`pip install uv`, or choose `--environment none`"
            ) from None
        return Path(found)


def _own() -> list[list[str]]:
    """What `_PROBE` finds, of this interpreter."""
    folders = site.getsitepackages()
    if sys.prefix == sys.base_prefix:
        folders.insert(0, site.getusersitepackages())
    return [
        sorted(entry.name for entry in Path(folder).iterdir() if entry.name.endswith("-info"))
        for folder in folders
        if Path(folder).is_dir()
    ]


def _probed(python: str, transport: Transport) -> tuple[str, list[list[str]]]:
    advice = "activate the environment that the tasks shall have, or make it anew"
    if not isinstance(transport, Local):
        advice = "name one that is on the cluster, or a version, such as --python 3.12"
    try:
        done = transport.run([python, "-I", "-c", _PROBE])
        version, names = json.loads(done.text)
    except CommandFailed as error:
        why = "not found" if error.returncode == 127 else str(error)
        raise UsageError(f"{python}: cannot be run ({why}); {advice}") from error
    except ValueError as error:
        raise UsageError(f"{python}: is no Python, or a broken one; {advice}") from error
    return version, names


def _packages(folders: Iterable[Iterable[str]]) -> dict[str, str]:
    """Distribution -> version; of one that is there twice, the first is the one imported.

    Names are normalised (PEP 503); old egg-info folders without a version have the version "".
    """
    packages: dict[str, str] = {}
    for names in folders:
        for name in names:
            stem = re.sub(r"(-py\d+(\.\d+)?)?\.(dist|egg)-info$", "", name)
            if stem == name:
                continue
            distribution, _, version = stem.partition("-")
            packages.setdefault(re.sub(r"[-_.]+", "-", distribution).lower(), version)
    return dict(sorted(packages.items()))
