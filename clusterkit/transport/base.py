"""The interface: one machine, as seen from here, and what `cluster.connect` hands on."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path


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

        `holding` are descriptors of this process that the command's process on this machine keeps
        open, so that a lock on one lasts as long as it, even when this process is killed.
        Raises CommandFailed when it cannot be started, takes longer than `timeout` seconds, or
        (with `check`) ends with a non-zero exit code; Unreachable when the machine is.
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

    @abc.abstractmethod
    def push(self, local: Path, target: str, *, update: bool = False) -> None:
        """Copy a file or a folder of this machine to `target` on the machine.

        As `cp -r local target`: into `target` where that is a folder, else as `target`; folders
        above it are made. With `update` a folder's content goes into `target` itself, which makes
        a repeated call the same call, and files of the same size and time are not sent again.
        Links stay links, modes and times are kept. Nothing is ever deleted on the other side. A
        relative `target` is relative to the account's home folder; `~` is a name like any other.
        Where one side has no rsync everything is sent. Raises TransportError.
        """

    @abc.abstractmethod
    def pull(self, source: str, local: Path, *, update: bool = False) -> None:
        """Copy a file or a folder of the machine to `local` on this machine: `push`, reversed."""


class Stream(abc.ABC):
    """A context manager around a running command; leaving it ends the command."""

    @abc.abstractmethod
    def __enter__(self) -> BufferedReader: ...

    @abc.abstractmethod
    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cluster's scheduler allows. Times in seconds; None: unlimited.

    `sbatch` are the options that every submission to this cluster has, unless it says otherwise.
    """

    max_array_size: int = 1001
    default_time: int | None = None
    cpus: int = 1  # of all nodes together; how many slots can work at once
    sbatch: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connected cluster: how to reach it and where things are on it."""

    cluster: str
    transport: Transport
    root: str  # folder of clusterkit on the cluster's shared file system, posix
    python: str  # the interpreter that runs clusterkit.node there (>= 3.9)
    env: Mapping[str, str] = field(default_factory=dict)  # for SLURM's commands, e.g. SLURM_CONF
    limits: Limits = field(default_factory=Limits)
    cluster_id: str = ""  # "" where it has none; a later cluster of the same name has another one

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
