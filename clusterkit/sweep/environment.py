"""The Python environment of the tasks: which interpreter, and what is installed for it."""

from __future__ import annotations

import hashlib
import json
import re
import site
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from clusterkit.errors import CommandFailed, UsageError
from clusterkit.records import Environment
from clusterkit.transport import Local, Transport

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
    packages = _packages(names)
    text = json.dumps([version, packages], sort_keys=True, separators=(",", ":"))
    return Environment(hashlib.sha256(text.encode()).hexdigest(), python, version, packages)


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
    try:
        done = transport.run([python, "-I", "-c", _PROBE])
        version, names = json.loads(done.text)
    except CommandFailed as error:
        raise UsageError(f"{python}: cannot be run ({error}); {advice}") from error
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
