"""Bring an experiment up to date, and watch it: tracking and harvesting, put together."""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import click

from clusterkit import cluster
from clusterkit.cli.questions import tell
from clusterkit.errors import ClusterNotStarted, TransportError, UnknownCluster
from clusterkit.harvest import collect, keep
from clusterkit.paths import Home
from clusterkit.records import Experiment, TaskState
from clusterkit.store import Store
from clusterkit.sweep import track
from clusterkit.sweep.track import Progress
from clusterkit.transport import Connection

#: When nothing was heard for so long (seconds), the scheduler is asked whether anybody still works;
#: the next time later, so that a long wait costs the controller little.
FIRST_QUIET, LONGEST_QUIET = 2.0, 60.0


def connect(home: Home, experiment: Experiment, *, running: bool = True) -> Connection:
    """The cluster that the experiment ran on. Without `running`, its daemons may be dead.

    Raises ClusterNotStarted, also when the cluster of that name is another one by now, and
    UnknownCluster.
    """
    connection = cluster.connect(experiment.cluster, home, running=running, say=tell)
    if experiment.cluster_id not in ("", connection.cluster_id):
        raise ClusterNotStarted(
            f"experiment {experiment.id} ran on an earlier cluster {experiment.cluster!r}, "
            "which has ended"
        )
    return connection


def files_of(home: Home, experiment: Experiment) -> tuple[Connection, Experiment]:
    """Where the experiment's files can be read: on its cluster, or kept here since that ended.

    The experiment is told with its folder there. Raises as `connect` when they are nowhere.
    """
    try:
        return connect(home, experiment, running=False), experiment
    except (ClusterNotStarted, UnknownCluster):
        found = keep.kept(home, experiment)
        if found is None:
            raise
        return found


def refresh(store: Store, connection: Connection, experiment: Experiment) -> track.Look | None:
    """Ask the scheduler (only if something is unfinished), harvest, and settle what is lost."""
    if progress(store, experiment).finished:
        collect.once(store, connection, experiment)
        if progress(store, experiment).finished:
            return None
    seen = track.look(store, connection, experiment.id)
    collect.once(store, connection, experiment)
    store.settle(experiment.id, track.judge(experiment, store.tasks(experiment.id), seen))
    return seen


def refresh_as_possible(store: Store, home: Home, experiment: Experiment) -> str | None:
    """The same, or only what the files tell, and then why the cluster was not asked."""
    try:
        refresh(store, connect(home, experiment), experiment)
    except (ClusterNotStarted, UnknownCluster) as error:
        try:
            connection, there = files_of(home, experiment)
            collect.once(store, connection, there)
        except (ClusterNotStarted, UnknownCluster, TransportError):
            return str(error)
        return None if progress(store, experiment).finished else str(error)
    except TransportError as error:
        return str(error)
    return None


def progress(store: Store, experiment: Experiment) -> Progress:
    """How far the experiment is, as far as the database knows."""
    return track.progress(store.count(experiment.id), store.pace(experiment.id))


def watch(store: Store, connection: Connection, experiment: Experiment) -> Iterator[Progress]:
    """The experiment's progress after every piece of news, until all of it is finished."""
    quiet, heard = FIRST_QUIET, time.monotonic()
    with closing(collect.follow(store, connection, experiment, forever=True)) as passes:
        for new in passes:
            if new:
                quiet, heard = FIRST_QUIET, time.monotonic()
            elif time.monotonic() - heard >= quiet:
                quiet, heard = min(LONGEST_QUIET, 2 * quiet), time.monotonic()
                refresh(store, connection, experiment)
            now = progress(store, experiment)
            yield now
            if now.finished:
                return


def finish(store: Store, connection: Connection, experiment: Experiment) -> Progress:
    """Watch to the end, showing nothing."""
    now = progress(store, experiment)
    for now in watch(store, connection, experiment):  # noqa: B007 - the last one is the result
        pass
    return now


def wait(store: Store, connection: Connection, experiment: Experiment) -> Progress:
    """Watch to the end with one line that is rewritten (on a terminal; else nothing is shown)."""
    gc.enable()  # switched off for commands that end at once (cli.main)
    show = _line(sys.stderr.isatty())
    now = progress(store, experiment)
    try:
        for now in watch(store, connection, experiment):
            show(describe(now))
    except KeyboardInterrupt:
        show("")
        click.echo(
            f"Not waiting any longer; experiment {experiment.id} goes on. "
            f"`clusterkit status {experiment.id}` shows it, "
            f"`clusterkit cancel {experiment.id}` ends it.",
            err=True,
        )
        raise
    show("")
    return now


def _line(terminal: bool) -> Callable[[str], None]:
    """Rewrites the terminal's current line, at most ten times a second; "" clears it."""
    shown = 0.0

    def show(text: str) -> None:
        nonlocal shown
        if terminal and (not text or time.monotonic() - shown >= 0.1):
            shown = time.monotonic()
            fitting = text[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r\033[K{fitting}", nl=False, err=True)

    return show


_ORDER = (
    TaskState.COMPLETED, TaskState.RUNNING, TaskState.PENDING, TaskState.FAILED, TaskState.TIMEOUT,
    TaskState.OUT_OF_MEMORY, TaskState.NODE_FAIL, TaskState.PREEMPTED, TaskState.CANCELLED,
    TaskState.LOST, TaskState.UNKNOWN,
)  # fmt: skip


def counts(found: Progress) -> str:
    """ "12 completed, 2 running, 3 failed"."""
    return ", ".join(
        f"{found.counts[state]} {state.lower().replace('_', ' ')}"
        for state in _ORDER
        if found.counts.get(state)
    )


def describe(found: Progress) -> str:
    """One line: a bar, the counts, the rate and the time left."""
    total = sum(found.counts.values())
    ended = sum(count for state, count in found.counts.items() if state.finished)
    filled = round(24 * ended / total) if total else 0
    parts = [f"[{'#' * filled}{'.' * (24 - filled)}] {ended}/{total}", counts(found)]
    if found.rate is not None and not found.finished:
        rate = f"{found.rate:.1f}/s" if found.rate >= 1 else f"{60 * found.rate:.1f}/min"
        parts.append(f"{rate}, {duration(found.left)} left")
    return "  ".join(parts)


def duration(seconds: float | None) -> str:
    """ "42 s", "3 min", "2 h 05 min"."""
    if seconds is None:
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
