"""From a script and a grid to a recorded job array; and again for a part of its tasks.

The order of things, so that a kill at any point loses nothing: the files are on the cluster, then
the experiment is in the database, then sbatch is called, then the job's id is recorded. A job whose
id is missing is found by its unique name (`track`).
"""

from __future__ import annotations

import json
import math
import re
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from clusterkit import slurm
from clusterkit.errors import ClusterkitError, CommandFailed, SubmitError, UsageError
from clusterkit.records import (
    Environment,
    Experiment,
    FlagStyle,
    Grid,
    SlurmRequest,
    Snapshot,
    Submission,
)
from clusterkit.store import Store
from clusterkit.sweep import command, library, script, snapshot, track, upload
from clusterkit.sweep.snapshot import top as snapshot_top
from clusterkit.transport import Connection, Content

#: Seconds for which sbatch may think.
SBATCH_TIMEOUT = 120.0
#: In so many of the latest experiments files are looked for that need not be sent again.
_EARLIER = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """How an experiment's tasks are run; kept in the database, so that a rerun is the same."""

    run: str | None
    flags: str
    warm: tuple[str, ...]
    script: str  # relative to `cwd`
    cwd: str  # folder inside the snapshot
    options: Mapping[str, str | bool]  # of `slurm:`
    throttle: int | None
    alloc: tuple[str, ...]  # raw sbatch options, stronger than `options`
    pack: bool = True
    min_slot_time: float = 60.0  # seconds
    grace: int = 60  # seconds
    max_attempts: int = 3
    log_limit: int = 64 << 20  # bytes
    path: tuple[str, ...] = ()  # folders inside the snapshot that Python finds modules in

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Plan:
        """Raises nothing for what an earlier version stored."""
        lists = {name: tuple(stored.get(name, ())) for name in ("warm", "alloc", "path")}
        return cls(**{**stored, **lists})


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a submission needs, before anything was written anywhere."""

    experiment: Experiment
    grid: Grid
    snapshot: Snapshot
    files: Mapping[str, Path]
    environment: Environment
    plan: Plan
    script: str  # the batch script
    submissions: tuple[Submission, ...]
    commands: tuple[tuple[str, ...], ...]  # the first points' command lines


def prepare(
    connection: Connection,
    *,
    grid: Grid,
    snapshot: Snapshot,
    files: Mapping[str, Path],
    environment: Environment,
    plan: Plan,
    name: str,
    message: str,
) -> Prepared:
    """Put an experiment together. Pure but for the experiment's random id.

    Raises UsageError when the script cannot be run as the grid wants it.
    """
    _check_runnable(plan, files[snapshot.script])
    identity = secrets.token_hex(4)
    experiment = Experiment(
        id=identity,
        name=name,
        message=message,
        cluster=connection.cluster,
        created=datetime.now(UTC),
        script=snapshot.script,
        tasks=len(grid.points),
        root=connection.experiment(identity),
        lib=library.folder(connection),
        cluster_id=connection.cluster_id,
        axes=grid.axes,
        snapshot=snapshot.id,
        commit=snapshot.commit,
        branch=snapshot.branch,
    )
    text, submissions = _round(connection, experiment, plan, 0, experiment.tasks)
    style = FlagStyle(plan.flags)
    commands = [
        tuple(command.argv_for(plan.run, plan.script, point.params, style))
        for point in grid.points[:3]
    ]
    return Prepared(
        experiment, grid, snapshot, files, environment, plan, text, submissions, tuple(commands)
    )


def submit(prepared: Prepared, store: Store, connection: Connection) -> Experiment:
    """Upload, record, call sbatch. Raises SubmitError; then nothing is left of the experiment."""
    experiment, plan = prepared.experiment, prepared.plan
    library.ship(connection)
    settings = {
        "experiment": experiment.id,
        "python": prepared.environment.python,
        "lib": experiment.lib,
        "cwd": plan.cwd,
        "warm": list(plan.warm),
        "min_slot_time": plan.min_slot_time,
        "max_attempts": plan.max_attempts,
        "log_limit": plan.log_limit,
        "path": list(plan.path),
    }
    tasks, index = _tasks(prepared)
    content: dict[str, Content] = {
        "run.json": json.dumps(settings, indent=1).encode(),
        "tasks": tasks,
        "tasks.idx": index,
        "grid.yaml": prepared.grid.text.encode(),
        "rounds/0/script": prepared.script.encode(),
        "slots/.made": b"",
    }
    earlier = [e.root for e in store.experiments() if e.cluster == connection.cluster]
    try:
        upload.put(
            connection,
            experiment.lib,
            experiment.root,
            content,
            prepared.files,
            earlier[:_EARLIER],
        )
        snapshot.verify(prepared.snapshot, prepared.files)
        with store.submitting(experiment.id) as mark:
            store.add_experiment(
                experiment,
                grid=prepared.grid,
                snapshot=prepared.snapshot,
                environment=prepared.environment,
                plan=asdict(plan),
                submissions=prepared.submissions,
            )
            _sbatch(store, connection, experiment, plan, prepared.submissions, mark)
    except _RefusedError as refusal:
        store.remove_experiment(experiment.id)
        _remove(connection, experiment.root)
        raise SubmitError(str(refusal)) from refusal
    except ClusterkitError:
        # Without its row in the database nobody would ever find the folder again.
        if not store.has_experiment(experiment.id):
            _remove(connection, experiment.root)
        raise
    return experiment


def resubmit(
    experiment: Experiment, tasks: Sequence[int], store: Store, connection: Connection
) -> int:
    """A further round for some of an experiment's tasks; how many were submitted.

    Tasks that another rerun has submitted meanwhile are left out. Raises SubmitError, then the
    tasks are as they were, and Busy.
    """
    with store.submitting(experiment.id) as mark:
        again = {t.index for t in store.tasks(experiment.id) if t.state in track.AGAIN}
        chosen = [task for task in tasks if task in again]
        if chosen:
            _resubmit(experiment, chosen, store, connection, mark)
        return len(chosen)


def _resubmit(
    experiment: Experiment,
    tasks: Sequence[int],
    store: Store,
    connection: Connection,
    mark: int,
) -> None:
    plan = Plan.load(store.plan(experiment.id))
    number = 1 + max((s.round for s in store.submissions(experiment.id)), default=-1)
    attempts = store.attempts(experiment.id)
    queue = b"".join(struct.pack("<II", task, attempts.get(task, 0)) for task in tasks)
    text, submissions = _round(connection, experiment, plan, number, len(tasks))
    folder = f"{experiment.root}/rounds/{number}"
    connection.transport.put({"queue": queue, "script": text.encode()}, folder)
    connection.run(["rm", "-f", "--", f"{experiment.root}/cancelled"])
    store.begin_round(experiment.id, submissions, tasks)
    try:
        _sbatch(store, connection, experiment, plan, submissions, mark)
    except _RefusedError as refusal:
        store.drop_round(experiment.id, number, tasks, "its rerun was refused by sbatch")
        _remove(connection, folder)
        raise SubmitError(str(refusal)) from refusal


class _RefusedError(Exception):
    """sbatch said no: nothing of this round runs."""


def _sbatch(
    store: Store,
    connection: Connection,
    experiment: Experiment,
    plan: Plan,
    submissions: Sequence[Submission],
    mark: int,
) -> None:
    done: list[Submission] = []
    for submission in submissions:
        options = [*plan.alloc, f"--array=0-{submission.size - 1}{_throttle(plan)}"]
        options.append(f"--job-name={submission.job_name}")
        options.append(f"--chdir={experiment.root}/code")
        if done and plan.throttle:  # so that the throttle holds for all arrays together
            options.append(f"--dependency=afterany:{done[-1].job_id}")
        argv = slurm.sbatch_argv(
            f"{experiment.root}/rounds/{submission.round}/script",
            [str(submission.offset), str(submission.size)],
            options,
        )
        try:
            answer = connection.run(argv, timeout=SBATCH_TIMEOUT, holding=[mark])
            job_id = slurm.parse_sbatch(answer.text)
        except CommandFailed as error:
            if error.returncode is None or "timed out" in error.stderr:
                # It may have been submitted all the same; asking again could submit it twice.
                raise SubmitError(
                    f"sbatch gave no answer for experiment {experiment.id}: {error}. "
                    f"`clusterkit status {experiment.id}` finds out whether it was submitted; "
                    f"if not, `clusterkit rerun {experiment.id} --missing` submits it."
                ) from error
            if done:
                connection.run(slurm.scancel_argv(s.job_id for s in done if s.job_id), check=False)
            words = error.stderr.strip() or error.stdout.strip() or str(error)
            raise _RefusedError(
                f"sbatch refused the job array, nothing was submitted: {words}\n"
                f"Its options were: {' '.join(options)} and those of `slurm:` in the grid."
            ) from error
        except ValueError as error:  # such as with `--alloc --test-only`, which submits nothing
            queued = connection.run(slurm.squeue_argv([submission.job_name]))
            if not slurm.parse_squeue(queued.text):
                raise _RefusedError(f"sbatch submitted nothing: {error}") from error
            raise SubmitError(
                f"{error}; `clusterkit status {experiment.id}` finds out what became of it"
            ) from error
        done.append(store.set_job_id(submission, job_id))


def _throttle(plan: Plan) -> str:
    return f"%{plan.throttle}" if plan.throttle else ""


def _round(
    connection: Connection, experiment: Experiment, plan: Plan, number: int, total: int
) -> tuple[str, tuple[Submission, ...]]:
    """The batch script of a round and the arrays it is submitted as."""
    size = connection.limits.max_array_size
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", experiment.name).strip("-")[:40] or "experiment"
    submissions = tuple(
        Submission(
            experiment=experiment.id,
            round=number,
            chunk=chunk,
            job_name=f"{safe}-{experiment.id}-{number}.{chunk}",
            job_id=None,
            offset=chunk * size,
            size=min(size, total - chunk * size),
        )
        for chunk in range(math.ceil(total / size))
    )
    # The cluster's own defaults, such as an account, lie under what the user said.
    options = {**connection.limits.sbatch, **plan.options}
    limit = _time_limit(connection, plan, options)
    text = script.render(
        script.Round(
            experiment=experiment.id,
            root=experiment.root,
            number=number,
            total=total,
            workers=_workers(connection, plan, options, total),
            pack=plan.pack,
            time_limit=limit,
            grace=min(plan.grace, limit // 4),
            job_name=submissions[0].job_name,
            python=connection.python,
            program=library.program(experiment.lib),
        ),
        SlurmRequest(options, plan.throttle),
    )
    return text, submissions


def _time_limit(connection: Connection, plan: Plan, options: Mapping[str, str | bool]) -> int:
    """Seconds; 0: unlimited. A raw option is stronger than the grid, the grid than the cluster."""
    said = slurm.time_in(plan.alloc) or options.get("time")
    if isinstance(said, str):
        try:
            return slurm.parse_time(said) or 0
        except ValueError:
            return 0  # sbatch will refuse it in its own words
    return connection.limits.default_time or 0


def _workers(
    connection: Connection, plan: Plan, options: Mapping[str, str | bool], total: int
) -> int:
    """How many slots will work at once, about: claims shrink by it towards the end."""
    cpus = options.get("cpus-per-task", "1")
    each = int(cpus) if isinstance(cpus, str) and cpus.isdigit() else 1
    most = max(1, connection.limits.cpus // max(1, each))
    return max(1, min(total, most, plan.throttle or most))


def _tasks(prepared: Prepared) -> tuple[bytes, bytes]:
    """The task list, one JSON line each, and the index of its lines (see clusterkit.node)."""
    plan = prepared.plan
    style = FlagStyle(plan.flags)
    encode = json.JSONEncoder(separators=(",", ":")).encode
    lines = []
    offsets = [0]
    for number, point in enumerate(prepared.grid.points):
        argv = command.argv_for(plan.run, plan.script, point.params, style)
        fields = {"task": number, "point": point.id, "params": point.params, "argv": argv}
        line = encode(fields).encode() + b"\n"
        lines.append(line)
        offsets.append(offsets[-1] + len(line))
    return b"".join(lines), struct.pack(f"<{len(offsets)}Q", *offsets)


def _check_runnable(plan: Plan, file: Path) -> None:
    """Without `run:`, what is no Python must be able to run by itself."""
    if plan.run is None and file.suffix != ".py":
        with file.open("rb") as opened:
            start = opened.read(4)
        if not file.stat().st_mode & 0o111 or not (start[:2] == b"#!" or start == b"\x7fELF"):
            raise UsageError(
                f"{file}: is no .py and cannot be run by itself: chmod +x it and give it a "
                "#! line, or say how in the grid, such as `run: bash {script} {flags}`"
            )


def place(snapshot: Snapshot, files: Mapping[str, Path], cwd: Path) -> tuple[str, str]:
    """Where the tasks run, inside the snapshot, and the script's path from there.

    Tasks stand where the user stood: in the snapshot's folder that is `cwd`, else the script's.
    """
    relative = PurePosixPath(snapshot.script)
    top = snapshot_top(snapshot, files)
    here = cwd.resolve()
    if here.is_relative_to(top):
        folder = PurePosixPath(here.relative_to(top).as_posix())
        if folder == PurePosixPath() or any(
            PurePosixPath(name).is_relative_to(folder) for name in files
        ):
            up = [".."] * len(folder.parts)
            if relative.is_relative_to(folder):
                return str(folder), str(relative.relative_to(folder))
            return str(folder), str(PurePosixPath(*up, relative))
    return str(relative.parent), relative.name


def _remove(connection: Connection, folder: str) -> None:
    connection.run(["rm", "-rf", "--", folder])
