"""One clusterkit at a time on one cluster: the kernel lets go when a process ends, however."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clusterkit.errors import Busy, ClusterError
from clusterkit.paths import Home


@contextmanager
def hold(home: Home, name: str) -> Iterator[None]:
    """Hold the cluster for oneself. Raises Busy when another process does."""
    folder = home.cluster(name)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ClusterError(f"{error.filename}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Busy(
                f"another clusterkit (pid {owner}) is working on the cluster {name!r}. "
                "Wait for it to end, then try again."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(home: Home, name: str) -> str:
    """The pid of who else holds it, "" for nobody. It only looks: taken, it would refuse others.

    /proc/locks: "1: FLOCK ADVISORY WRITE <pid> <device>:<inode> 0 EOF" (proc_locks(5)).
    """
    file = home.cluster(name) / "lock"
    try:
        inode = f":{file.stat().st_ino}"
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        if any("FLOCK" in one and "->" not in one and one[5].endswith(inode) for one in held):
            pid = file.read_text(errors="replace").strip() or "unknown"
            return pid if pid != str(os.getpid()) else ""
    except (OSError, IndexError):
        return ""  # no system that tells; who needs to know takes the lock
    return ""
