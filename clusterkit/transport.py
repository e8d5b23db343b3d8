"""Run a command, move files, here or elsewhere: the only module that starts processes.

A `Connection` is what `cluster.connect` hands to `sweep` and `harvest`: a transport and where
things are. They know nothing of clouds.
"""

from __future__ import annotations

import abc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from clusterkit.errors import CommandFailed, TransportError


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. Output is bytes as it came."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        return self.stderr.decode(errors="replace")


#: What a file to put is made of: its bytes, or a file on this machine (its mode is kept).
Content = bytes | Path


class Transport(abc.ABC):
    """One machine, as seen from here."""

    @abc.abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 - subprocess's own word
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        holding: Sequence[int] = (),
    ) -> Completed:
        """Run `argv` to its end; `env` is added to the machine's own environment.

        `holding` are descriptors of this process that the command's process keeps open, so that a
        lock on one lasts as long as the command, even when this process is killed.
        Raises CommandFailed when it cannot be started, takes longer than `timeout` seconds, or
        (with `check`) ends with a non-zero exit code.
        """

    @abc.abstractmethod
    def stream(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        env: Mapping[str, str] | None = None,
    ) -> Stream:
        """Run `argv` and read its standard output while it runs.

        `input` is written first; standard input stays open until the context is left, so that the
        command can tell when nobody listens any more.
        """

    @abc.abstractmethod
    def put(self, files: Mapping[str, Content], folder: str) -> None:
        """Make `folder` on the machine with these files (relative posix path -> content).

        All or nothing: `folder` appears complete or not at all; one that is there already is left
        as it is. Raises TransportError.
        """

    @abc.abstractmethod
    def interactive(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        """Run `argv` on the user's own terminal; its exit code."""


class Stream(abc.ABC):
    """A context manager around a running command; leaving it ends the command."""

    @abc.abstractmethod
    def __enter__(self) -> BufferedReader: ...

    @abc.abstractmethod
    def __exit__(self, *exc: object) -> None: ...


class Local(Transport):
    """This machine."""

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
        try:
            done = subprocess.run(
                list(argv),
                input=input,
                capture_output=True,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                timeout=timeout,
                check=False,
                pass_fds=holding,
            )
        except FileNotFoundError as error:
            raise CommandFailed(argv, 127, "", f"{error.filename}: not found") from error
        except OSError as error:
            raise CommandFailed(argv, 126, "", f"{error.filename}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            out, err = (
                part.decode(errors="replace") if part else ""
                for part in (error.stdout, error.stderr)
            )
            raise CommandFailed(argv, None, out, err, f"no end after {timeout:g} s") from error
        completed = Completed(tuple(argv), done.returncode, done.stdout, done.stderr)
        if check and done.returncode != 0:
            raise CommandFailed(argv, done.returncode, completed.text, completed.error_text)
        return completed

    def stream(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        env: Mapping[str, str] | None = None,
    ) -> Stream:
        return _LocalStream(argv, input, env)

    def put(self, files: Mapping[str, Content], folder: str) -> None:
        target = Path(folder)
        if target.exists():
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _beside(target) as staging:
                for name, content in files.items():
                    file = staging / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if isinstance(content, Path):
                        shutil.copy(content, file, follow_symlinks=False)
                    else:
                        file.write_bytes(content)
                try:
                    staging.rename(target)
                except OSError:
                    if not target.is_dir():  # else: another one was faster, with the same content
                        raise
        except OSError as error:
            raise TransportError(f"{folder}: cannot be written: {error.strerror}") from error

    def interactive(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        try:
            return subprocess.run(
                list(argv), env=None if env is None else {**os.environ, **env}, check=False
            ).returncode
        except OSError as error:
            raise CommandFailed(argv, 127, "", f"{error.filename}: {error.strerror}") from error


class _LocalStream(Stream):
    def __init__(self, argv: Sequence[str], data: bytes, env: Mapping[str, str] | None) -> None:
        self._argv = list(argv)
        self._data = data
        self._env = None if env is None else {**os.environ, **env}

    def __enter__(self) -> BufferedReader:
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=self._env,
            )
        except OSError as error:
            self._stderr.close()
            raise CommandFailed(
                self._argv, 127, "", f"{error.filename}: {error.strerror}"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # stdin stays open: its end tells the command that nobody listens any more.
        with suppress(BrokenPipeError):  # it has ended already: its exit code will tell why
            self._process.stdin.write(self._data)
            self._process.stdin.flush()
        assert isinstance(self._process.stdout, BufferedReader)
        return self._process.stdout

    def __exit__(self, *exc: object) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._stderr.seek(0)
        words = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        if exc[0] is None and process.returncode not in (0, -13):  # 13: SIGPIPE, we left first
            raise CommandFailed(self._argv, process.returncode, "", words)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A fresh folder next to `target`, removed if it is still there at the end."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    staging.chmod(0o755)
    try:
        yield staging
    finally:
        if staging.is_dir():
            shutil.rmtree(staging)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster's scheduler allows. Times in seconds; None: unlimited."""

    max_array_size: int = 1001
    default_time: int | None = None
    cpus: int = 1  # of all nodes together; how many slots can work at once


@dataclass(frozen=True, slots=True)
class Connection:
    """A connected cluster: how to reach it and where things are on it."""

    cluster: str
    transport: Transport
    root: str  # folder of clusterkit on the cluster's shared file system, posix
    python: str  # the interpreter that runs clusterkit.node there (>= 3.9)
    env: Mapping[str, str] = field(default_factory=dict)  # for SLURM's commands, e.g. SLURM_CONF
    limits: Limits = field(default_factory=Limits)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        cwd: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        holding: Sequence[int] = (),
    ) -> Completed:
        """Run a command on the cluster's head with the cluster's environment."""
        return self.transport.run(
            argv,
            input=input,
            env=self.env,
            cwd=cwd,
            timeout=timeout,
            check=check,
            holding=holding,
        )

    def experiment(self, experiment: str) -> str:
        """The folder of one experiment on the cluster."""
        return f"{self.root}/experiments/{experiment}"
