"""Whether the kernel killed something here for its memory: the counter of this process's cgroup."""

from __future__ import annotations

import os
from typing import Optional

_counter: Optional[str] = None
_looked = False


def kills(proc: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> int:
    """How many processes of this job's cgroup the kernel has killed so far; 0 where it can't tell.

    cgroup v2: `oom_kill` in memory.events; v1: in memory/.../memory.oom_control
    (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux).
    """
    global _counter, _looked  # the cgroup of a process does not change
    if not _looked:
        _counter, _looked = _find(proc, mount), True
    return 0 if _counter is None else _read(_counter)


def _find(proc: str, mount: str) -> Optional[str]:
    try:
        with open(proc, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if path in ("", "/"):
            continue  # the whole machine's: another job's kill would count as ours
        if controllers == "":
            candidate = os.path.join(mount, path.lstrip("/"), "memory.events")
        elif "memory" in controllers.split(","):
            candidate = os.path.join(mount, "memory", path.lstrip("/"), "memory.oom_control")
        else:
            continue
        if os.access(candidate, os.R_OK):
            return candidate
    return None


def _read(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    except (OSError, ValueError):
        return 0
    return 0
