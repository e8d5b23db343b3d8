"""The frozen nouns that the packages hand each other (design: "Words")."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

#: A parameter's value: what JSON can hold.
Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]


class TaskState(enum.StrEnum):
    """States of a task. The first block is ours, the second has SLURM's own names and meanings."""

    PENDING = "PENDING"  # no slot has claimed it yet, and one still may
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"  # its journal says exit code 0
    FAILED = "FAILED"  # its journal says another exit code, a signal, or that it could not start
    LOST = "LOST"  # journal and scheduler agree that nobody works on it and nobody finished it

    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"  # the scheduler used a word that this version does not know

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more without a rerun."""
        return self not in (TaskState.PENDING, TaskState.RUNNING)


class FlagStyle(enum.StrEnum):
    """How a point becomes command-line flags (`flags:` in grid.yaml)."""

    SPACE = "--key value"
    EQUALS = "--key=value"
    HYDRA = "key=value"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of parameters. `id` is the SHA-256 (hex) of `params` as canonical JSON."""

    id: str
    params: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class SlurmRequest:
    """What the `slurm:` section of a grid asks of the scheduler.

    `options` are sbatch's long option names (with hyphens) and their values; True is a bare flag.
    `throttle` is how many elements may run at once (None: no limit), over all arrays together.
    """

    options: Mapping[str, str | bool] = field(default_factory=dict)
    throttle: int | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid.yaml, read and multiplied out. `axes` are the parameters that take several values."""

    points: tuple[Point, ...]
    axes: tuple[str, ...]
    slurm: SlurmRequest = field(default_factory=SlurmRequest)
    run: str | None = None
    flags: FlagStyle = FlagStyle.SPACE
    warm: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The code as it was. `id` is the SHA-256 over paths, modes and contents; sizes in bytes."""

    id: str
    script: str  # path of the script inside the snapshot, posix
    files: tuple[tuple[str, int], ...]  # (relative posix path, size in bytes)
    commit: str | None = None
    branch: str | None = None
    diff: str | None = None  # uncommitted changes against `commit`, as `git diff HEAD` prints them

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(size for _, size in self.files)


@dataclass(frozen=True, slots=True)
class Environment:
    """The Python that runs the tasks. `packages` maps a distribution's name to its version."""

    id: str
    python: str  # path of the interpreter on the cluster
    version: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What one `parrun` made."""

    id: str
    name: str
    message: str
    cluster: str
    created: datetime
    script: str
    tasks: int
    root: str  # its folder on the cluster
    lib: str  # folder on the cluster that holds the shipped clusterkit.node
    axes: tuple[str, ...]
    snapshot: str
    commit: str | None
    branch: str | None
    cancelled: bool = False
    cluster_id: str = ""  # of the very cluster: a later one of the same name is another one


@dataclass(frozen=True, slots=True)
class Submission:
    """One job array: elements 0..size-1 of round `round`, standing for slots `offset`..."""

    experiment: str
    round: int
    chunk: int
    job_name: str
    job_id: int | None
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task as the database knows it. Seconds are wall time, memory is the peak in bytes."""

    index: int
    point: str
    params: Mapping[str, Value]
    state: TaskState
    reason: str | None = None
    exit_code: int | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    node: str | None = None
    attempt: int = 0
    result: Mapping[str, Value] | None = None
    slot: str | None = None
    log_start: int | None = None
    log_end: int | None = None
