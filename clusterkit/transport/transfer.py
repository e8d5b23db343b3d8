"""Files over ssh: put, push and pull. rsync where both sides have it, else one tar stream."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from clusterkit.errors import CommandFailed, TransportError, Unreachable
from clusterkit.transport import archive, copying, processes, remote
from clusterkit.transport.base import Content

if TYPE_CHECKING:
    from clusterkit.transport.ssh import Ssh

# What is there, and whether rsync is. A target ($1) gets the folder above it ($2).
_ASK_TARGET = """
if [ -d "$1" ]; then echo folder; else echo other; mkdir -p -- "$2" || exit 1; fi
command -v rsync || true
"""
_ASK_SOURCE = """
if [ -d "$1" ]; then echo folder; elif [ -e "$1" ]; then echo other
else echo "$1: not there" >&2; exit 1; fi
command -v rsync || true
"""


def put(ssh: Ssh, files: Mapping[str, Content], folder: str) -> None:
    """See `Transport.put`: one ssh, one stream."""
    name = archive.unique(folder)
    _send(
        ssh,
        folder,
        archive.pays(list(files.values())),
        lambda packed: archive.unpack(folder, name, packed),
        lambda stream, packed: archive.write(stream, files, name, packed),
    )


def push(ssh: Ssh, local: Path, target: str, *, update: bool) -> None:
    """See `Transport.push`."""
    source = Path.cwd() / local
    if not source.exists():
        raise TransportError(f"{local}: not there, so it cannot be copied")
    whole = source.is_dir()
    there = PurePosixPath(target)
    folder, rsync = _asked(ssh, _ASK_TARGET, target, str(there.parent))
    goal = there / source.name if folder and not (update and whole) else there
    if rsync:
        _rsync(ssh, _named(str(source), whole), _there(ssh, goal, whole), whole, update, target)
        return
    into, name = (goal, ".") if whole else (goal.parent, goal.name)
    _send(
        ssh,
        target,
        True,
        lambda packed: archive.extract(str(into), packed),
        lambda stream, packed: archive.write_tree(stream, source.resolve(), name, packed),
    )


def pull(ssh: Ssh, source: str, local: Path, *, update: bool) -> None:
    """See `Transport.pull`."""
    there = PurePosixPath(source)
    whole, rsync = _asked(ssh, _ASK_SOURCE, source)
    goal = Path.cwd() / local
    if goal.is_dir() and not (update and whole):
        goal /= there.name
    try:
        (goal if whole else goal.parent).mkdir(parents=True, exist_ok=True)
        if rsync:
            _rsync(ssh, _there(ssh, there, whole), _named(str(goal), whole), whole, update, source)
        elif whole:
            _receive(ssh, source, ".", goal)
        else:
            with copying.beside(goal) as staging:
                _receive(ssh, str(there.parent), there.name, staging)
                (staging / there.name).replace(goal)
    except OSError as error:
        raise TransportError(f"{local}: cannot be written: {error.strerror}") from error


def rsync_here() -> bool:
    return shutil.which("rsync") is not None


def _asked(ssh: Ssh, script: str, *words: str) -> tuple[bool, bool]:
    """Whether it is a folder there, and whether both sides have rsync."""
    try:
        answer = ssh.run(["sh", "-c", script.strip(), "sh", *words]).text.splitlines()
    except CommandFailed as error:
        why = error.stderr.strip().removeprefix("sh: ") or str(error)
        raise TransportError(f"{words[0]} on {ssh.address.host}: {why}") from error
    return answer[0] == "folder", len(answer) > 1 and rsync_here()


def _rsync(ssh: Ssh, source: str, target: str, whole: bool, update: bool, shown: str) -> None:
    """One rsync over the shared connection. Nothing is deleted; files appear whole.

    -s: names reach the far side without its shell. -I: without `update`, size and time prove
    nothing. A file that was named itself is followed when it is a link; links in a folder stay.
    """
    flags = ["-rlpt" if whole else "-Lpt", "-s", "-z"]
    flags += [] if update else ["-I"]
    if ssh.become:
        flags.append("--rsync-path=sudo -n -H -- rsync")
    argv = ["rsync", *flags, "-e", _shell(["ssh", *ssh.quiet_options]), "--", source, target]
    try:
        processes.completed(argv, argv[:1], judge=ssh.judged)
    except Unreachable:
        raise
    except CommandFailed as error:
        raise TransportError(f"{shown}: not all of it could be copied: {error}") from error


def _shell(words: list[str]) -> str:
    """Words as rsync's -e splits them: quotes keep blanks, a quote in quotes is doubled."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in words)


def _there(ssh: Ssh, path: PurePosixPath, whole: bool) -> str:
    host = ssh.address.host
    name = str(path) if path.is_absolute() else f"./{path}"
    return f"[{host}]:{_named(name, whole)}" if ":" in host else f"{host}:{_named(name, whole)}"


def _named(path: str, whole: bool) -> str:
    """As rsync is told: a slash at the end means a folder's content."""
    return f"{path.rstrip('/')}/" if whole else path


def _send(
    ssh: Ssh,
    folder: str,
    packed: bool,
    argv: Callable[[bool], list[str]],
    write: Callable[[IO[bytes], bool], None],
) -> None:
    """Run `argv` on the stream that `write` makes; not packed where gzip is missing."""
    ssh.open()
    command = argv(packed)
    line = remote.line(command, become=ssh.become)
    try:
        done = processes.fed(
            ssh.command(line), command, lambda stream: write(stream, packed), ssh.judged
        )
    except OSError as error:
        raise TransportError(f"{folder}: cannot be written: {error.strerror}") from error
    if done.returncode == archive.NO_GZIP and packed:
        _send(ssh, folder, False, argv, write)
    elif done.returncode != 0:
        words = done.error_text.strip() or f"exit code {done.returncode}"
        raise TransportError(f"{folder}: cannot be written on {ssh.address.host}: {words}")


def _receive(ssh: Ssh, folder: str, name: str, target: Path) -> None:
    """Unpack `name` of the far `folder` into `target`, over what is there."""
    try:
        with ssh.stream(archive.give(folder, name)) as stream:
            done = subprocess.run(
                ["tar", "-xzpof", "-", "-C", str(target)],
                stdin=stream,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
    except CommandFailed as error:
        words = error.stderr.strip() or str(error)
        raise TransportError(f"{folder}/{name}: cannot be read: {words}") from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise TransportError(f"{target}: cannot be written: {words}")
