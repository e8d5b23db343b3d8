"""Make the Python environment of tasks, once for each content, with uv.

`envs/<id>/` is a virtual environment; `.complete` in it is written last and says what is installed.
It is made where it stays, because scripts in `bin/` name their own interpreter by its path: until
`.complete` is there nobody uses the folder, and afterwards nobody changes it. The lock is held by
uv as well, so it lasts until the last process that writes there has ended, however this one ended.

Says what it does as JSON lines: {"say": text}, and last {"complete": ...} or {"failed": text}.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import json
import os
import platform
import select
import shutil
import subprocess
import sys
from typing import Any, Optional

COMPLETE = ".complete"
#: Lines of uv's that are kept to be told when it fails.
_WORDS = 40


def main(root: str, arguments: "dict[str, Any]") -> int:
    """`root` is clusterkit's folder on the cluster. Arguments:

    look: only say where the environment is, and whether it is complete;
    id: of its content; label: what it is called in messages;
    uv: the program; kind: lock, project or requirements; python: which one is wanted, or "".
    The files (name -> text) come as one JSON line over standard input.
    """
    identity = _identity(arguments["id"])
    folder = os.path.join(root, "envs", identity)
    found = _complete(folder)
    if arguments.get("look") or found is not None:
        _tell({"complete": found, "folder": folder, "machine": platform.machine()})
        return 0
    files = json.loads(sys.stdin.readline())
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _tell({"say": "another parrun is building it; waiting for that"})
        fcntl.flock(lock, fcntl.LOCK_EX)
    if _complete(folder) is None:
        try:
            _make(folder, files, arguments, lock)
        except _FailedError as error:
            _tell({"failed": str(error)})
            return 1
    _tell({"complete": _complete(folder), "folder": folder, "machine": platform.machine()})
    return 0


def _identity(content: str) -> str:
    """The same files give another environment on another kind of machine or system Python."""
    libc = "".join(platform.libc_ver())
    text = f"{content} {platform.machine()} {sys.version_info[:2]} {libc}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _complete(folder: str) -> "Optional[dict[str, Any]]":
    try:
        with open(os.path.join(folder, COMPLETE), encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if isinstance(found, dict) else None


class _FailedError(Exception):
    pass


def _make(folder: str, files: "dict[str, str]", arguments: "dict[str, Any]", lock: int) -> None:
    """Build it whole, or raise _FailedError and leave what the next call takes away."""
    if os.path.isdir(folder):
        shutil.rmtree(folder)  # half made: whoever made it has ended
    tools = os.path.join(os.path.dirname(os.path.dirname(folder)), "uv")
    env = {
        **os.environ,
        **_pip_settings(dict(os.environ)),
        "UV_CACHE_DIR": os.path.join(tools, "cache"),
        "UV_PYTHON_INSTALL_DIR": os.path.join(tools, "python"),
        "UV_PYTHON_PREFERENCE": "system",
        "UV_PROJECT_ENVIRONMENT": folder,
        # Many tasks start at once, and nobody shall write into a complete environment.
        "UV_COMPILE_BYTECODE": "1",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }
    env.pop("VIRTUAL_ENV", None)
    uv = arguments["uv"]
    # The cluster's own Python, which is on every node, before others that uv may find here.
    wanted = arguments["python"]
    if fits(wanted, sys.version_info[:3]):
        wanted = sys.executable
    _run([uv, "venv", "--no-project", "--python", wanted, folder], env, folder, lock)
    project = os.path.join(folder, "project")
    for name, text in files.items():
        path = os.path.join(project, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    python = os.path.join(folder, "bin", "python")
    if arguments["kind"] == "lock":
        argv = [
            uv, "sync", "--frozen", "--no-dev", "--no-install-project", "--no-install-workspace",
            "--project", project, "--python", python,
        ]  # fmt: skip
    else:
        argv = [uv, "pip", "install", "--python", python, "-r", arguments["main"]]
    _run(argv, env, project, lock)
    probe = [python, "-I", "-c", arguments["probe"]]
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode != 0:
        raise _FailedError(f"{python} cannot be run: {done.stderr.strip()}")
    version, names = json.loads(done.stdout)
    staging = os.path.join(folder, f"{COMPLETE}.part")
    with open(staging, "w", encoding="utf-8") as file:
        json.dump({"version": version, "names": names, "label": arguments["label"]}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(staging, os.path.join(folder, COMPLETE))


def fits(wanted: str, version: "tuple[int, ...]") -> bool:
    """Whether a Python of this version is what is wanted ("3.12", ">=3.10,<3.13", "").

    False also for what is not understood here: uv understands more.
    """
    for part in filter(None, wanted.replace(" ", "").split(",")):
        number = part.lstrip("<>=!~")
        sign = part[: len(part) - len(number)]
        fields = number[:-2].split(".") if number.endswith(".*") else number.split(".")
        if not all(field.isdigit() for field in fields):
            return False
        asked = tuple(map(int, fields))
        same = version[: len(asked)] == asked
        whole = version == asked + (0,) * (3 - len(asked))
        holds = {
            "": same,
            "==": same if fields != number.split(".") else whole,
            "!=": not (same if fields != number.split(".") else whole),
            ">=": version >= asked,
            ">": version > asked and not same,
            "<=": version < asked or whole,
            "<": version < asked,
            "~=": version >= asked and version[: len(asked) - 1] == asked[:-1],
        }
        if not holds.get(sign, False):
            return False
    return True


def _run(argv: "list[str]", env: "dict[str, str]", folder: str, lock: int) -> None:
    """Run uv, passing on what it says; ended when nobody listens any more."""
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=folder if os.path.isdir(folder) else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[lock],
        )
    except OSError as error:
        raise _FailedError(f"{argv[0]} cannot be run: {error.strerror}") from error
    assert process.stderr is not None
    words: "list[str]" = []
    rest = b""
    while True:
        ready, _, _ = select.select([process.stderr, sys.stdin], [], [])
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
            process.terminate()
            process.wait()
            raise _FailedError("interrupted")
        if process.stderr not in ready:
            continue
        data = os.read(process.stderr.fileno(), 1 << 16)
        *lines, rest = (rest + data).split(b"\n")
        for line in [*lines, *([] if data else [rest])]:
            text = line.decode(errors="replace").rstrip()
            if text and not text.startswith("Activate with"):
                words = [*words[1 - _WORDS :], text]
                _tell({"say": text.strip()})
        if not data:
            break
    if process.wait() != 0:
        raise _FailedError("\n".join(words) or f"uv ended with exit code {process.returncode}")


def _pip_settings(environ: "dict[str, str]") -> "dict[str, str]":
    """Where packages come from on this machine: people write that for pip, and uv does not read it.

    What is set for uv itself is stronger.
    """
    reader = configparser.RawConfigParser()
    home = os.path.expanduser("~")
    reader.read(
        ["/etc/pip.conf", f"{home}/.pip/pip.conf", f"{home}/.config/pip/pip.conf"],
        encoding="utf-8",
    )
    found: "dict[str, str]" = {}
    for option, variable in (
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("find-links", "UV_FIND_LINKS"),
        ("cert", "SSL_CERT_FILE"),
    ):
        value = environ.get("PIP_" + option.upper().replace("-", "_"))
        for section in ("install", "global"):
            if not value and reader.has_option(section, option):
                value = reader.get(section, option)
        if value and variable not in environ:
            separator = "," if variable == "UV_FIND_LINKS" else " "
            found[variable] = separator.join(value.split())
    if "UV_INDEX" in found and "UV_INDEX_STRATEGY" not in environ:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # to pip all indexes are equal
    return found


def _tell(record: "dict[str, Any]") -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
