"""Processes found in /proc: those of tasks whose slot was killed, those that handle a signal."""

from __future__ import annotations

import os
import select
import signal

from clusterkit.node import journal


def boot_id() -> str:
    """Changes with every boot of this machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def end(experiment: str, slots: str) -> None:
    """Kill this experiment's tasks on this node whose slot is dead, and wait until they are gone.

    Never those of a living slot, of another experiment, or of another user (their environment
    cannot be read).
    """
    mark = b"CLUSTERKIT_EXPERIMENT=" + os.fsencode(experiment)
    dead: dict[bytes, bool] = {}
    waiting = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        if mark not in variables:
            continue
        path = next((v[19:] for v in variables if v.startswith(b"CLUSTERKIT_JOURNAL=")), b"")
        if os.path.dirname(path) != os.fsencode(slots):
            continue
        if path not in dead:
            dead[path] = not _alive(os.fsdecode(path))
        if dead[path]:
            try:
                descriptor = os.pidfd_open(int(name))
                os.kill(int(name), signal.SIGKILL)
            except ProcessLookupError:
                continue
            waiting.append(descriptor)
    for descriptor in waiting:
        select.select([descriptor], [], [], 10.0)
        os.close(descriptor)


def warn(group: int, number: int) -> None:
    """Send a signal to those processes of a group that handle it, and to no other."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()  # the name may hold anything
            if int(fields[2]) != group:
                continue
            with open(f"/proc/{name}/status", encoding="ascii", errors="replace") as file:
                caught = next(line for line in file if line.startswith("SigCgt:")).split()[1]
            if int(caught, 16) >> (number - 1) & 1:
                os.kill(int(name), number)
        except (OSError, StopIteration):
            continue  # it has ended, or is not ours


def _alive(path: str) -> bool:
    """Whether the slot that wrote this journal still runs on this node."""
    try:
        with open(path, "rb") as file:
            header = next(journal.records(file.readline()), {})
    except OSError:
        return True  # its journal cannot be read: leave it alone
    if header.get("boot") != boot_id():
        return False
    pid = header.get("pid")
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"clusterkit/node" in file.read()
    except OSError:
        return False
