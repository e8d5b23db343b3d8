"""SLURM's commands as argument lists, and what they print as values. Pure: nothing is run here.

Sources: the manual pages of SLURM 22.05 (sbatch, squeue, sacct, scancel, scontrol, sinfo).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clusterkit.records import TaskState

#: squeue cuts array expressions at 64 characters unless told otherwise (squeue(1), ENVIRONMENT).
SQUEUE_ENVIRONMENT = {"SLURM_BITSTR_LEN": "0"}

_STATES: Mapping[str, TaskState] = {
    "PENDING": TaskState.PENDING,
    "CONFIGURING": TaskState.PENDING,
    "REQUEUED": TaskState.PENDING,
    "REQUEUE_HOLD": TaskState.PENDING,
    "REQUEUE_FED": TaskState.PENDING,
    "SPECIAL_EXIT": TaskState.PENDING,
    "RESV_DEL_HOLD": TaskState.PENDING,
    "RUNNING": TaskState.RUNNING,
    "COMPLETING": TaskState.RUNNING,
    "RESIZING": TaskState.RUNNING,
    "SIGNALING": TaskState.RUNNING,
    "STAGE_OUT": TaskState.RUNNING,
    "STOPPED": TaskState.RUNNING,
    "SUSPENDED": TaskState.RUNNING,
    "COMPLETED": TaskState.COMPLETED,
    "FAILED": TaskState.FAILED,
    "TIMEOUT": TaskState.TIMEOUT,
    "DEADLINE": TaskState.TIMEOUT,
    "OUT_OF_MEMORY": TaskState.OUT_OF_MEMORY,
    "NODE_FAIL": TaskState.NODE_FAIL,
    "BOOT_FAIL": TaskState.NODE_FAIL,
    "PREEMPTED": TaskState.PREEMPTED,
    "CANCELLED": TaskState.CANCELLED,
    "REVOKED": TaskState.CANCELLED,
}


def state(word: str) -> TaskState:
    """SLURM's word for a job's state; an unknown one is UNKNOWN, with a warning."""
    first = word.strip().split(" ", 1)[0].rstrip("+").upper()  # "CANCELLED by 1000", "CANCELLED+"
    found = _STATES.get(first)
    if found is None:
        warnings.warn(f"SLURM says {word!r}, a state unknown to this version", stacklevel=2)
        return TaskState.UNKNOWN
    return found


@dataclass(frozen=True, slots=True)
class JobElement:
    """One line of squeue: some elements of an array in one state. `indexes` is empty for a job."""

    job_id: int
    job_name: str
    state: TaskState
    word: str  # SLURM's own word for the state
    reason: str
    node: str
    indexes: tuple[tuple[int, int], ...]  # inclusive ranges

    def holds(self, index: int) -> bool:
        return any(first <= index <= last for first, last in self.indexes)

    @property
    def count(self) -> int:
        return sum(last - first + 1 for first, last in self.indexes) or 1


def sbatch_argv(
    script: str, arguments: Sequence[str] = (), options: Sequence[str] = ()
) -> list[str]:
    """`--parsable` makes sbatch print nothing but the job's id."""
    return ["sbatch", "--parsable", *options, script, *arguments]


def parse_sbatch(text: str) -> int:
    """The job id of `sbatch --parsable`: "17" or "17;cluster" on the last line.

    Raises ValueError when there is none.
    """
    lines = text.strip().splitlines()
    match = re.fullmatch(r"(\d+)(;.*)?", lines[-1].strip()) if lines else None
    if match is None:
        raise ValueError(f"sbatch printed no job id: {text!r}")
    return int(match[1])


_SQUEUE_FORMAT = "%F|%K|%T|%r|%N|%j"


def squeue_argv(job_names: Iterable[str]) -> list[str]:
    """All elements, finished ones too as far as slurmctld still knows them (MinJobAge)."""
    names = ",".join(job_names)
    return ["squeue", "--noheader", "--states=all", f"--format={_SQUEUE_FORMAT}", f"--name={names}"]


def parse_squeue(text: str) -> list[JobElement]:
    """Lines of `squeue_argv`. Lines of another form are left out with a warning."""
    elements = []
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) != 6 or not fields[0].isdigit():
            if line.strip():
                warnings.warn(f"squeue printed an unexpected line: {line!r}", stacklevel=2)
            continue
        job, indexes, word, reason, node, name = fields
        elements.append(
            JobElement(int(job), name, state(word), word, reason, node, parse_indexes(indexes))
        )
    return elements


def parse_indexes(text: str) -> tuple[tuple[int, int], ...]:
    """An array expression ("3", "0-9,12", "0-99:3", "[5-7]%2") as inclusive ranges; N/A is none."""
    ranges: list[tuple[int, int]] = []
    for part in text.split("%", 1)[0].strip("[]").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part.strip())
        if match is None:
            continue
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if step == 1:
            ranges.append((first, last))
        else:
            ranges.extend((index, index) for index in range(first, last + 1, step))
    return tuple(ranges)


#: Why a job waits, in words (squeue(1), JOB REASON CODES). A key may be the beginning of a code.
_WAITS: Mapping[str, str] = {
    "Resources": "others use the processors, memory or GPUs that it needs",
    "Priority": "others come before it",
    "Dependency": "it follows an array of the same experiment",
    "JobArrayTaskLimit": "as many run as `throttle` allows",
    "BeginTime": "it was requeued, and starts again in a moment",
    "PartitionConfig": "no node of the partition has what it asks for",
    "PartitionNodeLimit": "it asks for more than the partition's limits allow",
    "PartitionTimeLimit": "its time limit is longer than the partition's",
    "PartitionDown": "the partition starts nothing now",
    "PartitionInactive": "the partition starts nothing now",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "Nodes_required_for_job": "the nodes that it needs are down, drained or reserved",
    "JobHeld": "it is held: `scontrol release` lets it run",
    "Assoc": "a limit of its account is reached",
    "QOS": "a limit of its quality of service is reached",
    "MaxJobs": "as many run as its account may have",
    "InvalidAccount": "its account does not exist there",
    "InvalidQOS": "its quality of service does not exist there",
    "Licenses": "it waits for a licence",
}


def explain(reason: str) -> str:
    """SLURM's code for why a job waits, with what it means where that is known."""
    for code, words in _WAITS.items():
        if reason.replace(" ", "_").startswith(code):
            return f"{words} ({reason})"
    return reason


def scancel_argv(job_ids: Iterable[int], *, pending_only: bool = False) -> list[str]:
    only = ["--state=PENDING"] if pending_only else []
    return ["scancel", *only, *(str(job) for job in job_ids)]


_SACCT_FORMAT = "JobID,State,ExitCode,Reason"


def sacct_argv(job_ids: Iterable[int]) -> list[str]:
    """`-S 1970-01-01`: the window begins at midnight otherwise (sacct(1), --starttime)."""
    jobs = ",".join(str(job) for job in job_ids)
    return [
        "sacct", "--noheader", "--parsable2", "--allocations", "--array", "--starttime=1970-01-01",
        f"--format={_SACCT_FORMAT}", f"--jobs={jobs}",
    ]  # fmt: skip


def parse_sacct(text: str) -> list[JobElement]:
    """Lines of `sacct_argv`: "12_3|TIMEOUT|0:0|TimeLimit"."""
    elements = []
    for line in text.splitlines():
        fields = line.split("|")
        match = re.fullmatch(r"(\d+)_(\[?[\d,:%-]+\]?)", fields[0]) if len(fields) >= 4 else None
        if match is None:
            continue
        elements.append(
            JobElement(
                int(match[1]),
                "",
                state(fields[1]),
                fields[1],
                fields[3],
                "",
                parse_indexes(match[2]),
            )
        )
    return elements


def show_config_argv() -> list[str]:
    return ["scontrol", "show", "config"]


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config` as key -> value, both stripped."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, sep, value in pairs if sep}


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition. Times in seconds, None: unlimited or not set."""

    name: str
    default: bool
    max_time: int | None
    default_time: int | None
    cpus: int


def partitions_argv() -> list[str]:
    return ["sinfo", "--noheader", "--format=%P|%l|%L|%C"]


def parse_partitions(text: str) -> list[Partition]:
    """Lines of `partitions_argv`; %C is allocated/idle/other/total."""
    found = []
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 4:
            continue
        name, max_time, default_time, cpus = fields
        limit = parse_time(max_time)
        found.append(
            Partition(
                name.rstrip("*"),
                name.endswith("*"),
                limit,
                parse_time(default_time) or limit,
                int(cpus.rsplit("/", 1)[-1]),
            )
        )
    return found


def parse_time(text: str) -> int | None:
    """A SLURM time in seconds; None for "infinite", "UNLIMITED", "n/a" and "0".

    Forms (sbatch(1), --time): "minutes", "minutes:seconds", "hours:minutes:seconds",
    "days-hours", "days-hours:minutes", "days-hours:minutes:seconds". Raises ValueError for others.
    """
    word = text.strip().lower()
    if word in ("infinite", "unlimited", "n/a", "none", "invalid", "0", "-1"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", word)
    if match is None:
        raise ValueError(f"not a SLURM time: {text!r}")
    days, *rest = match.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(numbers) == 1:
        return numbers[0] * 60
    if len(numbers) == 2:
        return numbers[0] * 60 + numbers[1]
    return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]


def time_in(options: Sequence[str]) -> str | None:
    """The value of `--time`/`-t` in raw sbatch options, the last one; None when there is none."""
    found = None
    for position, option in enumerate(options):
        following = options[position + 1] if position + 1 < len(options) else None
        if option in ("-t", "--time"):
            found = following
        elif option.startswith("--time="):
            found = option.partition("=")[2]
        elif option.startswith("-t") and len(option) > 2:
            found = option[2:]
    return found
