"""One attempt at a task: start the process, wait for it, keep its output within bounds."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Callable, NamedTuple, Optional

#: Signals that a slot waits for; blocked, so that they are events and never interruptions.
EVENTS = (signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

#: How often a running task's output is measured and the journal made visible, in seconds.
TICK = 0.25


class Outcome(NamedTuple):
    """How a process ended. `seconds` of wall time, `memory` peak in bytes."""

    exit: Optional[int]
    signal: Optional[int]
    reason: Optional[str]
    seconds: float
    memory: Optional[int]


class Process:
    """A task's process, in a process group of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._started = time.monotonic()

    def poll(self) -> Optional[Outcome]:
        """Its outcome, once it has ended; whatever it left behind in its group is then killed."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        seconds = time.monotonic() - self._started
        self.kill(signal.SIGKILL)
        return outcome(status, seconds, usage.ru_maxrss)

    def kill(self, number: int) -> None:
        """Send a signal to the whole group."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left in it, or only processes that became another user's


def outcome(status: int, seconds: float, memory_kib: int) -> Outcome:
    """From a wait status. Peak memory is in KiB on Linux (getrusage(2))."""
    memory = memory_kib * 1024
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Outcome(None, number, f"killed by {_signal_name(number)}", seconds, memory)
    code = os.WEXITSTATUS(status)
    return Outcome(code, None, None if code == 0 else f"exit code {code}", seconds, memory)


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


class CannotStart(Exception):
    """The program could not be started; `exit` is what a shell would say (126 or 127)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit = code
        self.reason = reason


def find(program: str, search: str) -> str:
    """Where `program` is: as it stands if it has a slash, else in the folders of `search` (PATH).

    Raises CannotStart.
    """
    if "/" in program:
        return program
    for folder in search.split(os.pathsep):
        path = os.path.join(folder or ".", program)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise CannotStart(127, f"{program}: not found in PATH={search}")


def spawn(program: str, argv: list[str], env: dict[str, str], log: int) -> Process:
    """Start a program with its output going to `log`. Raises CannotStart."""
    try:
        pid = os.posix_spawn(
            program,
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setpgroup=0,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two
        )
    except FileNotFoundError as error:
        where = "its interpreter (#! line) or the file itself" if os.path.exists(program) else "it"
        raise CannotStart(127, f"{program}: {where} was not found") from error
    except PermissionError as error:
        raise CannotStart(126, f"{program}: not executable (chmod +x it, or set run:)") from error
    except OSError as error:
        hint = " (no #! line?)" if error.errno == errno.ENOEXEC else ""
        raise CannotStart(126, f"{program}: {os.strerror(error.errno or 0)}{hint}") from error
    except ValueError as error:  # a NUL in an argument or a variable
        raise CannotStart(126, f"{program}: {error}") from error
    return Process(pid)


def wait(
    poll: Callable[[], Optional[Outcome]],
    on_signal: Callable[[int], None],
    on_tick: Callable[[], None],
) -> Outcome:
    """Wait for a task's end; signals of EVENTS (blocked by the caller) arrive as calls."""
    while True:
        event = signal.sigtimedwait(EVENTS, TICK)
        if event is None:
            on_tick()
        elif event.si_signo != signal.SIGCHLD:
            on_signal(event.si_signo)
        ended = poll()
        if ended is not None:
            return ended


class Log:
    """The file that a slot's tasks print to, one task's part after the other.

    A part that outgrows `limit` bytes keeps its first half and its newest output; what was between
    is dropped and counted. The task itself goes on: it writes with O_APPEND, so the file can be
    cut under it.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._limit = limit
        self.start = self.size()
        self._dropped = 0
        self._mark = b""

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def begin(self) -> int:
        """A new part begins here; its first byte."""
        self.start = self.size()
        self._dropped = 0
        self._mark = b""
        return self.start

    def explain(self, reason: Optional[str]) -> Optional[str]:
        """The reason with the last line of the current part: in Python, the exception's."""
        size = self.size()
        start = max(self.start, size - 4096)
        words = os.pread(self.descriptor, size - start, start).decode(errors="replace")
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        if not lines or reason is None:
            return reason
        line = "".join(char if char.isprintable() else " " for char in lines[-1])
        return f"{reason}: {line[:200]}"

    def bound(self) -> None:
        """Cut the current part if it is too large."""
        size = self.size()
        if size - self.start <= self._limit:
            return
        head = self.start + self._limit // 2
        keep = min(64 * 1024, self._limit // 4)
        tail = os.pread(self.descriptor, keep, size - keep)
        self._dropped += size - head - len(tail) - len(self._mark)
        self._mark = b"\n[clusterkit: %d bytes dropped here]\n" % self._dropped
        os.ftruncate(self.descriptor, head)
        os.write(self.descriptor, self._mark + tail)
