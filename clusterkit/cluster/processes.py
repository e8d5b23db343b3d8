"""Processes and ports of this machine as /proc shows them, and ending them by event, not by sleep.

A pid alone names nothing: it is used again after a reboot or 32,768 processes later. Here a process
is its pid *and* the tick at which it started (proc(5), /proc/pid/stat, field 22).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `start` is in clock ticks since boot, `name` its comm (at most 15 letters)."""

    pid: int
    start: int
    name: str
    parent: int

    @property
    def alive(self) -> bool:
        now = look(self.pid)
        return now is not None and now.start == self.start


def look(pid: int) -> Process | None:
    """The process with this pid, or None; a zombie has ended and counts as none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:  # it ended
        return None
    # comm may hold anything, a closing bracket too: the last one ends it.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if fields[0] in ("Z", "X"):
        return None
    return Process(pid, int(fields[19]), head.partition("(")[2], int(fields[1]))


def mine() -> list[Process]:
    """All processes of the calling user."""
    uid = os.getuid()
    found = []
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != uid:
                continue
        except OSError:  # it ended
            continue
        process = look(int(entry.name))
        if process is not None:
            found.append(process)
    return found


def environment(process: Process) -> dict[str, str]:
    """The environment it was started with; empty when it ended or has overwritten it."""
    try:
        data = (_PROC / str(process.pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.decode(errors="replace").partition("=") for item in data.split(b"\0") if item)
    return {key: value for key, _, value in pairs}


def title(process: Process) -> str:
    """Its command line, or what it has put in that place; empty when it ended."""
    try:
        return (_PROC / str(process.pid) / "cmdline").read_text(errors="replace").strip("\0")
    except OSError:
        return ""


def open_files(process: Process) -> list[str]:
    """What its file descriptors point to: paths, "socket:[inode]" and the like."""
    folder = _PROC / str(process.pid) / "fd"
    targets = []
    try:
        links = list(folder.iterdir())
    except OSError:
        return []
    for link in links:
        try:
            targets.append(str(link.readlink()))
        except OSError:  # closed meanwhile
            continue
    return targets


def listening(process: Process) -> set[int]:
    """The TCP ports it listens on."""
    inodes = {target[8:-1] for target in open_files(process) if target.startswith("socket:[")}
    if not inodes:
        return set()
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:  # no IPv6 on this machine
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def descendants(roots: Iterable[Process], among: Sequence[Process]) -> list[Process]:
    """Children, their children and so on, without the roots themselves."""
    known = {process.pid for process in roots}
    found: list[Process] = []
    grown = True
    while grown:
        fresh = [one for one in among if one.parent in known and one.pid not in known]
        found += fresh
        known |= {one.pid for one in fresh}
        grown = bool(fresh)
    return found


def ancestors_and_self() -> set[int]:
    """The pids of the calling process and of all above it."""
    found = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        process = look(pid)
        pid = process.parent if process is not None else 0
    return found


def wait(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait until all have ended, at most so long; those that have not.

    A pidfd becomes readable when its process ends (pidfd_open(2)).
    """
    return _send_and_wait(processes, None, seconds)


def end(processes: Iterable[Process], grace: float) -> list[Process]:
    """SIGTERM, at most `grace` seconds of waiting, SIGKILL; the processes that even that left."""
    left = _send_and_wait(processes, signal.SIGTERM, grace)
    return _send_and_wait(left, signal.SIGKILL, 5.0)


def kill(processes: Iterable[Process]) -> list[Process]:
    """SIGKILL at once; the processes that even that left."""
    return _send_and_wait(processes, signal.SIGKILL, 5.0)


def _send_and_wait(
    processes: Iterable[Process], number: signal.Signals | None, seconds: float
) -> list[Process]:
    handles: dict[int, Process] = {}
    poller = select.poll()
    try:
        for process in processes:
            try:
                handle = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            handles[handle] = process
            if not process.alive:  # ended, or the pid is somebody else's by now
                os.close(handle)
                del handles[handle]
                continue
            poller.register(handle, select.POLLIN)
            if number is not None:
                try:
                    signal.pidfd_send_signal(handle, number)
                except ProcessLookupError:  # it ended just now; the poll sees that
                    continue
        deadline = time.monotonic() + seconds
        while handles:
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                break
            for handle, _ in ready:
                poller.unregister(handle)
                os.close(handle)
                del handles[handle]
        return [process for process in handles.values() if process.alive]
    finally:
        for handle in handles:
            os.close(handle)


def free_port(taken: Callable[[int], bool] = lambda _: False) -> int:
    """A TCP port of the loopback that nobody uses and `taken` does not claim."""
    held: list[socket.socket] = []  # kept open, so that the kernel offers another one each time
    try:
        while True:
            one = socket.socket()
            held.append(one)
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if not taken(port):
                return port
    finally:
        for one in held:
            one.close()


def port_in_use(port: int) -> bool:
    """Whether a daemon could not listen there now."""
    with socket.socket() as probe:
        # As SLURM does: connections of an ended daemon that linger (TIME_WAIT) do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return True
    return False


def answers(unix_socket: Path | str) -> bool:
    """Whether somebody accepts connections on a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(unix_socket))
        except OSError:
            return False
    return True
