"""Warm starts: one process imports the modules once, and every task is a fork of it.

`Warm` is the slot's side. The other side is this file, run as a program by the tasks' own
interpreter; the two talk in JSON lines over a socket. The fork is the task's process: it has its
own process group, output and environment, and runs the script as `__main__`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from typing import Any, Optional

_SOCKET, _LOG = 3, 4  # descriptors of the warm process


class Warm:
    """A warm process, as its slot sees it."""

    def __init__(
        self, python: str, script: str, modules: list[str], env: dict[str, str], log: int
    ) -> None:
        self._modules = modules
        ours, theirs = socket.socketpair()
        # Move both out of the way of the fixed numbers that the child gets.
        high_socket = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
        high_log = fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, 10)
        try:
            self._pid = os.posix_spawn(
                python,
                [python, os.path.abspath(__file__), script, *modules],
                env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, high_socket, _SOCKET),
                    (os.POSIX_SPAWN_DUP2, high_log, _LOG),
                ],
                setpgroup=0,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        finally:
            os.close(high_socket)
            os.close(high_log)
            theirs.close()
        self._socket = ours
        self._received = b""
        self._broken = self._receive().get("error")
        if self._broken:
            print(f"no warm start, every task imports for itself: {self._broken}", file=sys.stderr)
            return
        # From here on, news arrive as SIGCHLD-like events: SIGCHLD is what the slot waits for.
        fcntl.fcntl(ours, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(ours, fcntl.F_SETSIG, signal.SIGCHLD)
        fcntl.fcntl(ours, fcntl.F_SETFL, fcntl.fcntl(ours, fcntl.F_GETFL) | os.O_ASYNC)

    def start(self, argv: list[str], env: dict[str, str]) -> Optional[WarmProcess]:
        """Fork a task; None when it must be started the ordinary way."""
        if self._broken:
            return None
        try:
            self._socket.sendall(json.dumps({"argv": argv[1:], "env": env}).encode() + b"\n")
        except OSError as error:
            self._broken = str(error)
            return None
        answer = self._receive()
        if "pid" not in answer:
            self._broken = answer.get("error", "it ended")
            return None
        return WarmProcess(answer["pid"], self)

    def news(self) -> Optional[dict[str, Any]]:
        """How the task ended, if it has."""
        if b"\n" not in self._received:
            self._socket.setblocking(False)
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            finally:
                self._socket.setblocking(True)
            if not data:
                self._broken = "it ended"
                return {"status": signal.SIGKILL, "memory": 0, "seconds": 0.0}
            self._received += data
            if b"\n" not in self._received:
                return None
        return self._receive()

    def close(self) -> None:
        self._socket.close()
        os.waitpid(self._pid, 0)

    def _receive(self) -> dict[str, Any]:
        """The next line, waiting for it."""
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(65536)
            except OSError:  # it was killed with a request of ours unread
                data = b""
            if not data:
                return {"error": "it ended; see the slot's log"}
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


class WarmProcess:
    """A running fork: the same face as `attempt.Process`."""

    def __init__(self, pid: int, warm: Warm) -> None:
        self.pid = pid
        self._warm = warm

    def poll(self) -> Optional[Any]:
        from clusterkit.node import attempt

        news = self._warm.news()
        if news is None:
            return None
        self.kill(signal.SIGKILL)
        return attempt.outcome(news["status"], news["seconds"], news["memory"])

    def kill(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left in it


def serve(script: str, modules: list[str]) -> None:
    """The warm process: import, then fork a task for every request until the slot leaves.

    Modules are found as `script` would find them: in its folder first.
    """
    import importlib
    import time

    os.dup2(_LOG, 1)
    os.dup2(_LOG, 2)
    channel = socket.socket(fileno=_SOCKET)
    requests = channel.makefile("rb")
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    try:
        for name in modules:
            importlib.import_module(name)
    except BaseException as error:  # whatever the import of a user's module raises: say it and end
        channel.sendall(json.dumps({"error": f"import {name}: {error!r}"}).encode() + b"\n")
        return
    channel.sendall(b'{"ready": true}\n')
    for line in requests:
        request = json.loads(line)
        started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            requests.detach()
            channel.close()
            os.close(_LOG)
            _run(request["argv"], request["env"])
        try:
            os.setpgid(pid, pid)  # on both sides: whoever is first
        except (ProcessLookupError, PermissionError):
            pass  # it has ended already
        channel.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        _, status, usage = os.wait4(pid, 0)
        news = {
            "status": status,
            "memory": usage.ru_maxrss,
            "seconds": time.monotonic() - started,
        }
        channel.sendall(json.dumps(news).encode() + b"\n")


def _run(argv: list[str], env: dict[str, str]) -> None:
    """In the fork: become the task; never returns."""
    import runpy

    code: Any = 1
    try:
        os.setpgid(0, 0)
        os.environ.clear()
        os.environ.update(env)
        _reseed()
        sys.argv = argv
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        code = 0
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as error:
        code = error.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # the interpreter's own last resort, done by hand
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        import atexit
        import threading

        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit below would leave them out
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit((code or 0) & 0xFF)


def _reseed() -> None:
    """Forks would all draw the same "random" numbers from generators seeded before the fork."""
    import random

    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
