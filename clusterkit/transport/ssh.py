"""A machine that is reached by ssh: every command over one shared connection."""

from __future__ import annotations

import fcntl
import socket
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from clusterkit.errors import TransportError, Unreachable
from clusterkit.transport import diagnosis, processes, remote, transfer
from clusterkit.transport.address import (
    Address,
    control_folder,
    options,
    socket_of,
    with_options,
)
from clusterkit.transport.base import Completed, Content, Stream, Transport

BROKEN = 255  # ssh's own exit code
_QUIET = ("ControlMaster=no",)
_ALONE = ("ControlMaster=no", "ControlPath=none", "ControlPersist=no")
_SIGPIPE = 128 + 13
#: Connecting, with ConnectTimeout and the other side's slow start; never reached while it speaks.
_OPENING = 120.0
#: One thread makes the connection to an address; a lock on a file keeps other processes out.
_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

#: Told why a machine is silent, it may open the way; whether it did. It may raise better words.
Mend = Callable[[Unreachable], bool]


class Ssh(Transport):
    """A machine that is reached by ssh. With `become`, commands run there as root by sudo.

    With `ask`, a connection by the user's own settings may ask on the terminal: a password, a
    second factor, whether to believe a host key. Not where several are made at once. `mend` is
    called when a connection cannot be made because the machine is silent; where it opened the way,
    that is tried once more.

    The first command makes the connection, all later ones share it, and it ends 60 s after the
    last one. One that broke is made anew by the next command.
    """

    def __init__(
        self,
        address: Address,
        *,
        become: bool = False,
        ask: bool = True,
        mend: Mend | None = None,
    ) -> None:
        self.address = address
        self.ask = ask
        self.mend = mend
        self.become = become and address.user != "root"

    @cached_property
    def options(self) -> list[str]:
        """The options for any program that speaks ssh, so that it shares the connection."""
        own = self.address.own_settings and self._users_socket is not None
        return options(self.address, None if own else control_folder())

    @property
    def quiet_options(self) -> list[str]:
        """The options for one command that never becomes everybody's connection (see `command`)."""
        return with_options(_QUIET, self.options)

    def open(self) -> None:
        """Make the shared connection, if there is none. Raises Unreachable."""
        if self.alive():
            return
        with self._alone():
            if not self.alive():
                try:
                    self._connect()
                except Unreachable as error:
                    if error.why != "silent" or self.mend is None or not self.mend(error):
                        raise
                    self._connect()

    def alive(self) -> bool:
        """Whether a shared connection is there; does not ask the other side."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._socket))
            except OSError:
                return False
        return True

    def close(self) -> None:
        """End the shared connection, if there is one. One by the user's own settings is his."""
        if self._users_socket is None and self.alive():
            subprocess.run(
                self._ssh(["-O", "exit"], []),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        holding: Sequence[int] = (),
    ) -> Completed:
        self.open()
        command = self.command(remote.line(argv, env=env, cwd=cwd, become=self.become))
        if holding:  # ssh closes what it did not open itself; a shell around it does not
            command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
        return processes.completed(
            command,
            argv,
            data=input,
            env=None,
            cwd=None,
            timeout=timeout,
            check=check,
            holding=holding,
            judge=self.judged,
        )

    def stream(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        env: Mapping[str, str] | None = None,
    ) -> Stream:
        return processes.ProcessStream(
            self.command(remote.line(argv, env=env, become=self.become)),
            argv,
            input,
            None,
            judge=self.judged,
            left_first=(_SIGPIPE,),
            before=self.open,
        )

    def put(self, files: Mapping[str, Content], folder: str) -> None:
        transfer.put(self, files, folder)

    def interactive(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        """Run `argv` on the user's own terminal; without one word in it: a login shell."""
        self.open()
        terminal = ["-t"] if sys.stdin.isatty() else ["-T"]
        if argv:
            line = remote.line(argv, env=env, become=self.become, replace=True)
        else:
            line = remote.login(env, become=self.become)
        first = [*_QUIET, "LogLevel=ERROR"]  # no "Shared connection closed" at the end
        return subprocess.run(self._ssh(terminal, [line], first), check=False).returncode

    def push(self, local: Path, target: str, *, update: bool = False) -> None:
        transfer.push(self, local, target, update=update)

    def pull(self, source: str, local: Path, *, update: bool = False) -> None:
        transfer.pull(self, source, local, update=update)

    def command(self, line: str) -> list[str]:
        """The argv on this machine that runs `line` there.

        ControlMaster=no: a connection that broke a moment ago makes this command connect by itself
        instead of becoming everybody's connection, which would keep its standard error open.
        """
        return self._ssh(["-T"], [line], _QUIET)

    def judged(self, returncode: int, stderr: bytes) -> bytes:
        """Standard error of an ssh that ended; raises Unreachable when the connection failed."""
        words, own = remote.unmarked(stderr)
        if returncode == BROKEN and not own:
            raise diagnosis.unreachable(self.address, words.decode(errors="replace"))
        if self.become:
            refused = diagnosis.no_root(self.address, returncode, words.decode(errors="replace"))
            if refused is not None:
                raise refused
        return diagnosis.without_noise(words)

    def _connect(self) -> None:
        """Make the shared connection, by a command that does nothing.

        ControlPersist sends it to the background when that command ends. It keeps our standard
        error for the rest of its life, so that is a file: nobody waits for the end of a file.
        """
        with suppress(FileNotFoundError):  # of a connection that broke: nobody listens any more
            self._socket.unlink()
        asks = self.ask and self.address.own_settings and sys.stdin.isatty() and sys.stderr.isatty()
        # A password, a second factor: asked for once, then the connection is shared.
        code, words = self._tried(["BatchMode=no"] if asks else [], asks)
        if code == BROKEN and diagnosis.way_failed(words):
            # ssh drops what its way says when it is to share the connection: ask once more.
            code, words = self._tried(_ALONE, asks)
        if code == BROKEN:
            raise diagnosis.unreachable(self.address, words)
        if code != 0:
            raise diagnosis.turned_away(self.address, code, words)

    def _tried(self, first: Sequence[str], asks: bool) -> tuple[int, str]:
        """The exit code of a command that does nothing, and all that was said."""
        with tempfile.TemporaryFile() as said:
            try:
                code = subprocess.run(
                    self._ssh(["-T"], ["exec true"], first),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    check=False,
                    timeout=None if asks else _OPENING,
                    start_new_session=not asks,  # without a terminal, nothing on the way can ask
                ).returncode
            except FileNotFoundError as error:
                raise TransportError(
                    "there is no ssh on this machine; install OpenSSH's client "
                    "(Debian, Ubuntu: `apt install openssh-client`)"
                ) from error
            except subprocess.TimeoutExpired as error:
                raise Unreachable(
                    f"{self.address} cannot be reached: no shell there within {_OPENING:g} s",
                    "silent",
                ) from error
            said.seek(0)
            return code, said.read().decode(errors="replace")

    @cached_property
    def _socket(self) -> Path:
        return self._users_socket or socket_of(self.address, control_folder())

    @cached_property
    def _users_socket(self) -> Path | None:
        """Where the user's own settings have this connection shared, if they say so.

        It may be there already, with a second factor that we could not give.
        """
        if not self.address.own_settings:
            return None
        argv = ["ssh", "-G", *options(self.address, None), "--", self.address.host]
        for line in processes.completed(argv, argv, judge=processes.as_it_is).text.splitlines():
            name, _, value = line.partition(" ")
            if name == "controlpath" and value != "none":
                return Path(value)
        return None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One maker of this connection at a time, in this process and in all of this user's.

        Two at once would leave one that nobody knows.
        """
        name = socket_of(self.address, control_folder()).name
        with _LOCKS[name], (control_folder() / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _ssh(self, flags: list[str], words: list[str], first: Sequence[str] = ()) -> list[str]:
        return [
            "ssh",
            *flags,
            *with_options(first, self.options),
            "--",
            self.address.host,
            *words,
        ]
