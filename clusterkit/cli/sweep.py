"""parrun, status, logs, cancel, rerun."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from clusterkit import cluster, slurm
from clusterkit.cli import progress as tracking
from clusterkit.cli.questions import confirm, tell
from clusterkit.errors import (
    ClusterkitError,
    ClusterNotStarted,
    FileProblems,
    UnknownCluster,
    Unreachable,
    UsageError,
)
from clusterkit.paths import Home
from clusterkit.records import Experiment, TaskRow, TaskState
from clusterkit.store import Store
from clusterkit.sweep import track
from clusterkit.sweep.track import Progress
from clusterkit.transport import Local


@click.command("parrun")
@click.argument("script", type=click.Path(path_type=Path))
@click.argument("cluster_name", metavar="[CLUSTER]", default="local")
@click.option(
    "--grid", "grid_file", type=click.Path(path_type=Path), required=True, help="The grid.yaml."
)
@click.option("-m", "--message", default="", help="What this experiment is for.")
@click.option("--name", help="Name of the experiment [default: the script's].")
@click.option("--alloc", default="", help="Raw sbatch options, such as '--gres=gpu:1 --mem=8G'.")
@click.option(
    "--pack",
    type=click.Choice(["on", "off"]),
    default="on",
    help="off: one task per array element.",
)
@click.option(
    "--min-slot-time", type=click.FloatRange(min=0), default=60.0, show_default=True,
    help="Seconds for which an element runs tasks before it makes room.",
)  # fmt: skip
@click.option(
    "--grace", type=click.IntRange(min=0), default=60, show_default=True,
    help="Seconds before the time limit at which a task gets SIGUSR1, if it handles it.",
)  # fmt: skip
@click.option("--python", help="Interpreter of the tasks, or its version, such as 3.12.")
@click.option(
    "--environment", "wanted", metavar="FILE|none",
    help="What the tasks' environment is made of [default: uv.lock, pyproject.toml or "
    "requirements.txt beside the script; on `local` the active environment].",
)  # fmt: skip
@click.option("--max-points", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option(
    "--max-snapshot", type=click.IntRange(min=1), default=50, show_default=True,
    help="MiB that the project's files may have together.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be submitted, and do nothing.")
@click.option("--wait", is_flag=True, help="Wait for the end, harvesting as results come.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def parrun_command(
    home: Home,
    script: Path,
    cluster_name: str,
    grid_file: Path,
    message: str,
    name: str | None,
    alloc: str,
    pack: str,
    min_slot_time: float,
    grace: int,
    python: str | None,
    wanted: str | None,
    max_points: int,
    max_snapshot: int,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Run SCRIPT once for every point of a grid, on CLUSTER [default: local]."""
    from clusterkit.cli import environment
    from clusterkit.sweep import grid, recipe, snapshot, submit

    here = Local()
    own = environment.is_own(cluster_name, python, wanted)
    options, points, (taken, files), packages, connection = _all(
        lambda: _alloc(alloc),
        lambda: grid.load(grid_file, max_points=max_points),
        lambda: snapshot.take(script, run=here, max_bytes=max_snapshot << 20, without=home.root),
        lambda: environment.own(python) if own else None,
        lambda: cluster.connect(cluster_name, home, say=tell),
    )
    cwd, relative = submit.place(taken, files, Path.cwd())
    top = snapshot.top(taken, files)
    path: tuple[str, ...] = ()
    if packages is None:
        choice = environment.choose(
            home, connection, script=script, top=top, python=python, wanted=wanted
        )
        packages = environment.made(connection, choice, dry_run=dry_run)
        path = recipe.search_path(choice.recipe, top) if choice.recipe is not None else ()
    prepared = submit.prepare(
        connection,
        grid=points,
        snapshot=taken,
        files=files,
        environment=packages,
        plan=submit.Plan(
            run=points.run,
            flags=points.flags,
            warm=points.warm,
            script=relative,
            cwd=cwd,
            options=points.slurm.options,
            throttle=points.slurm.throttle,
            alloc=options,
            pack=pack == "on",
            min_slot_time=min_slot_time,
            grace=grace,
            path=path,
        ),
        name=name or script.stem,
        message=message,
    )
    if dry_run:
        _show(prepared, as_json)
        return 0
    store = Store(home.prepared().database)
    experiment = submit.submit(prepared, store, connection)
    if not wait:
        if as_json:
            click.echo(json.dumps(_described(experiment, tracking.progress(store, experiment))))
        else:
            click.echo(
                f"Experiment {experiment.id} ({experiment.name}): {_tasks(experiment.tasks)} "
                f"submitted to {experiment.cluster}.\n"
                f"`clusterkit status {experiment.id}` shows it, "
                "`clusterkit harvest` brings the results."
            )
        return 0
    if not as_json:
        click.echo(f"Experiment {experiment.id} ({experiment.name}): {_tasks(experiment.tasks)}.")
    return _finish(store, experiment, tracking.wait(store, connection, experiment), as_json)


def _all(*steps: Callable[[], Any]) -> list[Any]:
    """The results of all steps, or all their problems at once."""
    results, problems = [], []
    for step in steps:
        try:
            results.append(step())
        except ClusterkitError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        words = "\n".join(f"- {problem}" for problem in problems)
        kind = UsageError if any(isinstance(p, UsageError) for p in problems) else ClusterkitError
        raise kind(f"{len(problems)} things to mend, nothing was submitted:\n{words}")
    return results


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _alloc(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--alloc {text!r}: {error}") from error
    if words and not words[0].startswith("-"):
        raise UsageError(
            f"--alloc {text!r}: sbatch options begin with a hyphen, such as '--gres=gpu:1'"
        )
    return words


def _show(prepared: object, as_json: bool) -> None:
    from clusterkit.sweep.submit import Prepared

    assert isinstance(prepared, Prepared)
    experiment, snapshot = prepared.experiment, prepared.snapshot
    if as_json:
        shown = {
            "tasks": experiment.tasks,
            "axes": experiment.axes,
            "points": [dict(point.params) for point in prepared.grid.points[:3]],
            "commands": prepared.commands,
            "files": len(snapshot.files),
            "bytes": snapshot.size,
            "script": prepared.script,
        }
        click.echo(json.dumps(shown, indent=1))
        return
    arrays = len(prepared.submissions)
    click.echo(
        f"{_tasks(experiment.tasks)} in {arrays} job array{'' if arrays == 1 else 's'} on "
        f"{experiment.cluster}; axes: {', '.join(experiment.axes) or 'none'}"
    )
    click.echo(
        f"code: {len(snapshot.files)} files, {snapshot.size / 1024:.0f} KiB"
        + (f", commit {snapshot.commit[:10]}" if snapshot.commit else "")
        + (" with uncommitted changes" if snapshot.diff else "")
    )
    click.echo(f"python: {prepared.environment.python} ({prepared.environment.version})")
    click.echo("first points:")
    for point, words in zip(prepared.grid.points, prepared.commands, strict=False):
        click.echo(f"  {json.dumps(point.params)}  ->  {shlex.join(words)}")
    click.echo(f"\n{prepared.script}\nNothing was submitted (--dry-run).")


def _finish(store: Store, experiment: Experiment, end: Progress, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(_described(experiment, end)))
    else:
        click.echo(f"{experiment.id}: {tracking.counts(end)}.")
        _show_troubles(experiment, store.tasks(experiment.id))
    return 0 if end.done == experiment.tasks else 1


def _described(experiment: Experiment, found: Progress) -> dict[str, object]:
    row = asdict(experiment)
    row["created"] = experiment.created.isoformat()
    row["states"] = {str(state): count for state, count in found.counts.items()}
    row["finished"] = found.finished
    row["rate"] = found.rate
    row["left"] = found.left
    return row


def _show_troubles(experiment: Experiment, tasks: Sequence[TaskRow], most: int = 5) -> None:
    troubled = [t for t in tasks if t.state.finished and t.state is not TaskState.COMPLETED]
    for task in troubled[:most]:
        click.echo(f"  task {task.index}: {task.state}: {task.reason or 'no reason known'}")
    if len(troubled) > most:
        click.echo(f"  ... and {len(troubled) - most} more")
    if troubled:
        shown = next((t for t in troubled if t.slot is not None), None)
        if shown is not None:
            click.echo(f"`clusterkit logs {experiment.id} {shown.index}` shows what it printed.")
        flags = [
            flag
            for flag, states in (("--missing", track.MISSING), ("--failed", track.FAILED))
            if any(task.state in states for task in troubled)
        ]
        click.echo(f"`clusterkit rerun {experiment.id} {' '.join(flags)}` runs them again.")


@click.command("status")
@click.argument("name", metavar="[EXPERIMENT|CLUSTER]", required=False)
@click.option("--watch", "-w", is_flag=True, help="Go on showing it until it is finished.")
@click.option("--check", is_flag=True, help="Of a cluster: verify it anew, with jobs on its nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_obj
def status_command(home: Home, name: str | None, watch: bool, check: bool, as_json: bool) -> int:
    """How far an experiment is (without a name: the latest), or how a cluster is."""
    if name is not None and name in cluster.known(home):
        from clusterkit.cli.cluster import show_status

        show_status(home, name, check, as_json)
        return 0
    if check:
        raise UsageError("--check is for clusters: `clusterkit status CLUSTER --check`")
    store = Store(home.prepared().database)
    experiment = store.experiment(name)
    waits_for, unreachable = "", ""
    try:
        connection = tracking.connect(home, experiment)
        if watch and not as_json:
            tracking.wait(store, connection, experiment)
        seen = tracking.refresh(store, connection, experiment)
        waits_for = seen.reason if seen is not None else ""
    except (ClusterNotStarted, UnknownCluster, Unreachable, FileProblems) as error:
        unreachable = str(error)
    found = tracking.progress(store, experiment)
    if as_json:
        shown = _described(experiment, found) | {"unreachable": unreachable or None}
        click.echo(json.dumps(shown, indent=1))
        return 0
    about = f'  "{experiment.message}"' if experiment.message else ""
    when = experiment.created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    click.echo(f"{experiment.id}  {experiment.name}  on {experiment.cluster}, {when}{about}")
    click.echo(f"  {tracking.describe(found)}")
    if (
        waits_for
        and found.counts.get(TaskState.PENDING)
        and not found.counts.get(TaskState.RUNNING)
    ):
        click.echo(f"  waiting: {slurm.explain(waits_for)}")
    if unreachable:
        click.echo(f"  as last known: {unreachable}")
    _show_troubles(experiment, store.tasks(experiment.id))
    return 1 if watch and unreachable else 0  # who watches wants to know that the end was not seen


@click.command("logs")
@click.argument("experiment_name", metavar="EXPERIMENT")
@click.argument("task", type=click.IntRange(min=0))
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.pass_obj
def logs_command(home: Home, experiment_name: str, task: int, follow: bool) -> int:
    """What task number TASK of EXPERIMENT printed, in its last attempt."""
    store = Store(home.prepared().database)
    experiment = store.experiment(experiment_name)
    if task >= experiment.tasks:
        raise UsageError(f"experiment {experiment.id} has tasks 0 to {experiment.tasks - 1}")
    dead = tracking.refresh_as_possible(store, home, experiment)
    connection, there = tracking.files_of(home, experiment)
    row = store.tasks(experiment.id)[task]
    if follow and not dead and row.slot is None:
        for _ in tracking.watch(store, connection, experiment):
            row = store.tasks(experiment.id)[task]
            if row.slot is not None:
                break
    if row.slot is None:
        raise ClusterkitError(
            f"task {task} has printed nothing: it is {row.state}"
            + (
                f" ({row.reason})"
                if row.reason
                else " and has not started yet; --follow waits for it"
            )
        )
    arguments = {"slot": row.slot, "task": task, "attempt": row.attempt, "follow": follow}
    program = f"{there.lib}/clusterkit/node/__main__.py"
    argv = [connection.python, "-I", "-S", program, "log", there.root, json.dumps(arguments)]
    with connection.transport.stream(argv, env=connection.env) as stream:
        while data := stream.read1(1 << 16):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return 0


@click.command("cancel")
@click.argument("experiment_name", metavar="[EXPERIMENT]", required=False)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be cancelled.")
@click.pass_obj
def cancel_command(home: Home, experiment_name: str | None, yes: bool, dry_run: bool) -> None:
    """Cancel what is left of an experiment (without a name: the latest)."""
    store = Store(home.prepared().database)
    experiment = store.experiment(experiment_name)
    connection = tracking.connect(home, experiment)
    tracking.refresh(store, connection, experiment)
    now = tracking.progress(store, experiment)
    if now.finished:
        click.echo(f"Experiment {experiment.id} is finished: {tracking.counts(now)}.")
        return
    if dry_run:
        click.echo(f"Experiment {experiment.id} would be cancelled: {tracking.counts(now)}.")
        return
    confirm(f"Cancel experiment {experiment.id} ({tracking.counts(now)})?", yes)
    track.cancel(store, connection, experiment)
    experiment = store.experiment(experiment.id)
    now = tracking.finish(store, connection, experiment)
    click.echo(f"Experiment {experiment.id}: {tracking.counts(now)}.")


@click.command("rerun")
@click.argument("experiment_name", metavar="EXPERIMENT")
@click.option("--missing", is_flag=True, help="Tasks that nobody ran to an end of their own.")
@click.option("--failed", is_flag=True, help="Tasks that failed, timed out or ran out of memory.")
@click.option("--dry-run", is_flag=True, help="Only say which tasks.")
@click.option("--wait", is_flag=True, help="Wait for the end, harvesting as results come.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def rerun_command(
    home: Home,
    experiment_name: str,
    missing: bool,
    failed: bool,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Run tasks of EXPERIMENT again, with the code it was submitted with."""
    from clusterkit.sweep import submit

    if not (missing or failed):
        raise UsageError("say which tasks: --missing, --failed, or both")
    store = Store(home.prepared().database)
    experiment = store.experiment(experiment_name)
    connection = tracking.connect(home, experiment)
    tracking.refresh(store, connection, experiment)
    tasks = track.choose(store.tasks(experiment.id), missing=missing, failed=failed)
    if dry_run or not tasks:
        now = tracking.progress(store, experiment)
        if as_json:
            click.echo(json.dumps({"tasks": tasks}))
        else:
            said = ", ".join(map(str, tasks[:20])) + (" ..." if len(tasks) > 20 else "")
            click.echo(
                f"{_tasks(len(tasks))} would run again: {said}"
                if tasks
                else f"Nothing to run again: {tracking.counts(now)}."
            )
        return 0
    count = submit.resubmit(experiment, tasks, store, connection)
    experiment = store.experiment(experiment.id)
    if wait:
        return _finish(store, experiment, tracking.wait(store, connection, experiment), as_json)
    if as_json:
        click.echo(json.dumps({"tasks": tasks}))
    else:
        click.echo(f"Experiment {experiment.id}: {_tasks(count)} submitted again.")
    return 0
