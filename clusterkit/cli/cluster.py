"""start, stop, list, ssh."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from clusterkit import cluster
from clusterkit.cli.questions import confirm
from clusterkit.cluster import lifecycle
from clusterkit.errors import ClusterError, UsageError
from clusterkit.paths import Home


class _Phases:
    """One line per phase: its name when it begins, its seconds when the next one does."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._began = 0.0
        self._open = False

    def __call__(self, phase: str) -> None:
        if self._silent:
            return
        self.close()
        click.echo(f"  {phase:<32}", nl=False)
        sys.stdout.flush()
        self._began = time.monotonic()
        self._open = True

    def close(self) -> None:
        if self._open:
            click.echo(f"{time.monotonic() - self._began:6.1f} s")
            self._open = False

    def abandon(self) -> None:
        if self._open:
            click.echo("failed")
            self._open = False


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, default=str))


@click.command("start")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def start_command(home: Home, name: str, dry_run: bool, as_json: bool) -> None:
    """Start the cluster NAME, or heal it; ends when a job has run on it.

    `local` is a SLURM of your own on this machine: it needs no settings, no account and no root
    (but to install SLURM's packages where they are missing).
    """
    if dry_run:
        _show_plan(home, name, as_json)
        return
    phases = _Phases(as_json)
    try:
        started = lifecycle.start(home.prepared(), name, on_phase=phases)
    except BaseException:
        phases.abandon()
        raise
    phases.close()
    if as_json:
        _print_json(asdict(started))
        return
    for note in started.notes:
        if note.startswith("no "):
            click.echo(f"  {note}")
    facts = started.facts
    gpus = f", {len(facts.gpus)} GPU{'' if len(facts.gpus) == 1 else 's'}" if facts.gpus else ""
    click.echo(
        f"Cluster {name!r} is up: SLURM {facts.slurm_version}, {facts.cpus} CPUs, "
        f"{facts.memory / 1024:.1f} GiB{gpus}; changed {started.changed}, {started.seconds:.1f} s."
    )


def _show_plan(home: Home, name: str, as_json: bool) -> None:
    plan = lifecycle.plan(home, name)
    if as_json:
        _print_json(asdict(plan))
        return
    for machine in plan.machines:
        gpus = "".join(f", {gpu.type} ({gpu.device})" for gpu in machine.gpus)
        click.echo(
            f"{machine.name}: {' and '.join(machine.roles)}, {machine.cpus} CPUs, "
            f"{machine.memory / 1024:.1f} GiB{gpus}"
        )
    if plan.packages:
        click.echo(f"packages to install: {' '.join(plan.packages)}")
    for note in plan.notes:
        click.echo(note)
    click.echo("Nothing was changed (--dry-run).")


@click.command("stop")
@click.argument("name")
@click.option("--harvest", is_flag=True, help="Harvest its experiments first.")
@click.option("--discard", is_flag=True, help="Stop although results were not harvested.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def stop_command(
    home: Home,
    name: str,
    harvest: bool,
    discard: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cancel all jobs of the cluster NAME, end it, and prove that nothing of it is left.

    What experiments wrote stays in the data folder.
    """
    if harvest and discard:
        raise UsageError("--harvest and --discard exclude each other")
    cluster.require_known(name, home)
    if dry_run:
        _show_end(home, name, as_json)
        return
    _guard_unfinished(home, name, harvest, discard, yes)
    phases = _Phases(as_json)
    try:
        stopped = lifecycle.stop(home, name, on_phase=phases)
    except BaseException:
        phases.abandon()
        raise
    phases.close()
    if as_json:
        _print_json(asdict(stopped))
    elif stopped.processes == 0:
        click.echo(f"Cluster {name!r} was not running; nothing of it is left.")
    else:
        click.echo(
            f"Cluster {name!r} has ended: {stopped.jobs} jobs cancelled, {stopped.processes} "
            f"processes ended, none left, no port left; {stopped.seconds:.1f} s."
        )


def _show_end(home: Home, name: str, as_json: bool) -> None:
    status = lifecycle.status(home, name)
    unfinished = _unharvested(home, name)
    if as_json:
        _print_json({**asdict(status), "unharvested": unfinished})
        return
    click.echo(
        f"Cluster {name!r} is {status.state}: {status.running} running and {status.pending} "
        f"waiting job elements would be cancelled."
    )
    if unfinished:
        click.echo(f"not harvested: {', '.join(unfinished)}")
    click.echo("Nothing was stopped (--dry-run).")


def _guard_unfinished(home: Home, name: str, harvest: bool, discard: bool, yes: bool) -> None:
    """Let `stop` go on only when nothing would be lost that the user has not agreed to lose.

    `--harvest` brings results in first, cancelling what still runs; `--discard` leaves them.
    """
    status = lifecycle.status(home, name)
    if status.state == "stopped" or discard:
        return
    unfinished = _unharvested(home, name)
    if unfinished and not harvest:
        raise ClusterError(
            f"{name!r} has results that were not harvested: {', '.join(unfinished)}. Nothing was "
            f"stopped. `clusterkit stop {name} --harvest` brings them in first, "
            f"`clusterkit stop {name} --discard` leaves them."
        )
    if unfinished:
        _harvest_all(home, name, unfinished, yes)
        status = lifecycle.status(home, name)
    if status.busy:
        confirm(
            f"There are {status.running} running and {status.pending} waiting job elements on "
            f"{name!r}. Cancel them?",
            yes,
        )


def _unharvested(home: Home, name: str) -> list[str]:
    """Ids of experiments on this cluster that have unfinished tasks, as far as is known here."""
    if not home.database.exists():
        return []
    from clusterkit.records import TaskState
    from clusterkit.store import Store

    store = Store(home.database)
    counts = store.counts()
    return [
        experiment.id
        for experiment in store.experiments()
        if experiment.cluster == name
        and {TaskState.PENDING, TaskState.RUNNING} & set(counts.get(experiment.id, ()))
    ]


def _harvest_all(home: Home, name: str, experiments: Sequence[str], yes: bool) -> None:
    from clusterkit.cli import progress
    from clusterkit.store import Store
    from clusterkit.sweep import track

    store = Store(home.database)
    connection = cluster.connect(name, home)
    for identity in experiments:
        experiment = store.experiment(identity)
        progress.refresh(store, connection, experiment)
        now = progress.progress(store, experiment)
        if now.finished:
            continue
        confirm(f"Experiment {identity} is unfinished ({progress.counts(now)}). Cancel it?", yes)
        track.cancel(store, connection, experiment)
        progress.finish(store, connection, store.experiment(identity))


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_obj
def list_command(home: Home, as_json: bool) -> None:
    """List the clusters and how they are."""
    found = lifecycle.list_(home)
    if as_json:
        _print_json([asdict(status) for status in found])
        return
    rows = [("NAME", "PROVIDER", "STATE", "NODES", "RUNNING", "WAITING", "")]
    rows += [
        (
            status.name,
            status.provider,
            status.state,
            str(len(status.nodes)) if status.nodes else "-",
            str(status.running),
            str(status.pending),
            status.problem,
        )
        for status in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


@click.command(
    "ssh", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh_command(home: Home, name: str, command: Sequence[str]) -> int:
    """A shell on the head of the cluster NAME, or COMMAND there; its exit code is passed on.

    \b
      clusterkit ssh local
      clusterkit ssh local -- squeue --me
    """
    connection = cluster.connect(name, home)
    words = list(command)
    if words[:1] == ["--"]:
        del words[0]
    argv = words or [os.environ.get("SHELL") or "/bin/sh"]
    code = connection.transport.interactive(argv, env=connection.env)
    return 128 - code if code < 0 else code
