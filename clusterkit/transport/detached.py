"""Processes that outlive this one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clusterkit.errors import CommandFailed

# The shell ends at once, so that the command belongs to process 1: it is no zombie of ours when it
# ends before we do. "$@" & is exec'ed by its own process: $! is the command itself.
_SCRIPT = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


def spawn(argv: Sequence[str], *, log: Path, cwd: Path | None = None) -> int:
    """Start `argv` in a session of its own, its output appended to `log`; its process id.

    It gets no terminal and none of our open files, and our end does not reach it. Raises
    CommandFailed when there is no such program or the log cannot be written.
    """
    if shutil.which(argv[0]) is None:
        raise CommandFailed(argv, 127, "", f"{argv[0]}: not found")
    try:
        log.open("a").close()
        done = subprocess.run(
            ["/bin/sh", "-c", _SCRIPT, "sh", str(log), *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=cwd,
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise CommandFailed(argv, 126, "", f"{error.filename}: {error.strerror}") from error
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, "", done.stderr.decode(errors="replace"))
    return int(done.stdout)
