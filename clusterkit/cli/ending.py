"""Before a cluster ends: nothing is lost that the user has not agreed to lose."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from clusterkit.cli import progress
from clusterkit.cli.questions import confirm, tell
from clusterkit.cluster import access, lifecycle, looking, stored
from clusterkit.cluster.cloud.found import Found
from clusterkit.errors import ClusterError, ClusterNotStarted, TransportError
from clusterkit.harvest import keep
from clusterkit.paths import Home
from clusterkit.records import Experiment, TaskState
from clusterkit.store import Store
from clusterkit.sweep import track
from clusterkit.transport import Connection


@dataclass(frozen=True, slots=True)
class _Open:
    """What is not here yet of one experiment. `size` in bytes."""

    experiment: Experiment
    unfinished: int = 0  # tasks, as far as is known here
    files: int = 0  # on machines that go away
    size: int = 0

    def __str__(self) -> str:
        parts = [f"{self.unfinished} unfinished tasks"] if self.unfinished else []
        if self.files:
            parts.append(f"{self.files} files ({_amount(self.size)}) that are only there")
        return f"{self.experiment.id} ({self.experiment.name}): {', '.join(parts)}"


def unharvested(home: Home, name: str) -> list[str]:
    """Ids of experiments on this cluster with unfinished tasks, as far as is known here.

    Where the machines go away with the cluster, also of those with files that are only there.
    """
    goes = _goes_away(home, name)
    store, mine = _mine(home, name)
    connection = None
    if goes and mine:
        with suppress(ClusterNotStarted, TransportError):
            connection = progress.connect(home, mine[0])
    return [one.experiment.id for one in _open(home, store, mine, connection)]


def stranger(home: Home, name: str) -> Found | None:
    """A cluster of the settings that its cloud has, and this computer does not know."""
    from clusterkit.cluster.cloud import adopting

    return adopting.stranger(home, name)


def claim_before_end(home: Home, name: str, found: Found, *, discard: bool, yes: bool) -> None:
    """Make a cluster this computer's that it does not know, so that it can be ended.

    Raises ClusterError without `discard`: what lies on it cannot be seen from here.
    """
    from clusterkit.cluster.cloud import adopting

    if not discard:
        raise ClusterError(
            f"{name!r} is not known on this computer, so its results cannot be seen: "
            f"{found.whose}; {found.machines}. Nothing was stopped.\n"
            f"`clusterkit adopt {name}` takes it over, `clusterkit stop {name} --discard` ends it "
            "with all that it has."
        )
    claim = adopting.look(home, name)
    click.echo(
        f"{name!r} in {found.region}, id {found.id}: {found.whose}; {found.machines}", err=True
    )
    confirm("It is not known on this computer. End it, with all that is on it?", yes)
    adopting.take(home, name, claim)


def settle_before_pause(home: Home, name: str, yes: bool) -> None:
    """Ask before jobs are interrupted. Raises UsageError, click.Abort."""
    status = looking.status(home, name, say=tell)
    if status.running:
        confirm(
            f"{status.running} job elements run on {name!r}. They go back into the queue, and "
            "begin anew (or at their checkpoints) after the next start. Pause it?",
            yes,
        )


def settle_before_end(home: Home, name: str, *, harvest: bool, discard: bool, yes: bool) -> None:
    """Let `stop` go on only when nothing would be lost that the user has not agreed to lose.

    `harvest` cancels what still runs, brings rows and files, and proves that they are here;
    `discard` leaves them. Tasks that will never run any more are settled with that reason.
    Raises ClusterError, TransportError when something cannot be brought, click.Abort.
    """
    goes = _goes_away(home, name)
    store, mine = _mine(home, name)
    if goes is None:
        _before_forgetting(home, name, store, mine, harvest=harvest, discard=discard)
        return
    if discard:
        _discard(home, store, mine)
        return
    if looking.status(home, name).state == "stopped":
        if goes:
            _settle(store, mine, "its cluster has ended")
        return
    connection, silent = _reached(home, mine) if mine else (None, "")
    if goes and silent:
        raise _unreachable(name, silent)
    open_ = _open(home, store, mine, connection if goes else None)
    if open_ and not harvest:
        listed = "\n".join(f"  {one}" for one in open_)
        raise ClusterError(
            f"{name!r} has results that were not harvested; nothing was stopped.\n{listed}\n"
            f"`clusterkit stop {name} --harvest` brings them in first, "
            f"`clusterkit stop {name} --discard` leaves them."
        )
    for one in open_:
        if connection is None:
            raise _unreachable(name, silent)
        _bring_in(home, store, connection, one.experiment, goes, yes)
    status = looking.status(home, name)
    if status.busy:
        confirm(
            f"There are {status.running} running and {status.pending} waiting job elements on "
            f"{name!r}. Cancel them?",
            yes,
        )


def _before_forgetting(
    home: Home,
    name: str,
    store: Store,
    mine: Sequence[Experiment],
    *,
    harvest: bool,
    discard: bool,
) -> None:
    """Somebody else's cluster goes on, and its jobs too: nothing is cancelled, nothing settled."""
    open_ = _open(home, store, mine, None)
    if discard or not open_ or stored.provider(home.cluster(name)) is None:
        return
    if not harvest:
        listed = "\n".join(f"  {one}" for one in open_)
        raise ClusterError(
            f"{name!r} has results that were not harvested; nothing was forgotten.\n{listed}\n"
            f"`clusterkit stop {name} --harvest` brings in what is there so far, "
            f"`clusterkit stop {name} --discard` leaves it; their jobs go on either way."
        )
    for one in open_:
        progress.refresh(store, progress.connect(home, one.experiment), one.experiment)


def _goes_away(home: Home, name: str) -> bool | None:
    """Whether the machines, and what lies on them, go with the cluster; None: nothing ends."""
    _, provider = lifecycle.made(home, name, keep=False, as_started=True)
    return None if provider is None else provider.remote and provider.disposable


def _mine(home: Home, name: str) -> tuple[Store, list[Experiment]]:
    """The experiments of this very cluster. Those of an earlier one of its name are settled."""
    store = Store(home.prepared().database)
    now = access.read_id(home.cluster(name)) or ""
    named = [e for e in store.experiments() if e.cluster == name]
    earlier = [e for e in named if e.cluster_id and e.cluster_id != now]
    _settle(store, earlier, "its cluster has ended")
    return store, [e for e in named if e not in earlier]


def _reached(home: Home, mine: Sequence[Experiment]) -> tuple[Connection | None, str]:
    """The cluster, or why it is out of reach."""
    try:
        connection = progress.connect(home, mine[0])
        connection.run(["true"])
    except (ClusterNotStarted, TransportError) as error:
        return None, str(error)
    return connection, ""


def _unreachable(name: str, why: str) -> ClusterError:
    return ClusterError(
        f"{name!r} cannot be reached, so what lies only there cannot be brought: {why}\n"
        f"`clusterkit start {name}` heals it; `clusterkit stop {name} --discard` ends it "
        "with all that it has."
    )


def _open(
    home: Home, store: Store, mine: Sequence[Experiment], connection: Connection | None
) -> list[_Open]:
    """What is not here yet; files count where there is a `connection` to look for them."""
    counts = store.counts()
    found = []
    for experiment in mine:
        states = counts.get(experiment.id, {})
        left = sum(number for state, number in states.items() if not state.finished)
        files, size = (0, 0) if connection is None else keep.missing(connection, experiment, home)
        if left or files:
            found.append(_Open(experiment, left, files, size))
    return found


def _bring_in(
    home: Home,
    store: Store,
    connection: Connection,
    experiment: Experiment,
    goes: bool,
    yes: bool,
) -> None:
    progress.refresh(store, connection, experiment)
    now = progress.progress(store, experiment)
    if not now.finished:
        confirm(
            f"Experiment {experiment.id} is unfinished ({progress.counts(now)}). Cancel it?", yes
        )
        track.cancel(store, connection, experiment)
        progress.finish(store, connection, store.experiment(experiment.id))
    if goes:
        kept = keep.bring(connection, experiment, home)
        files, size = keep.missing(connection, experiment, home)
        if files:  # what `bring` has proved, once more and by other means
            raise ClusterError(
                f"experiment {experiment.id}: {files} files ({_amount(size)}) are still only on "
                "the cluster. Does a task write there? Nothing was stopped; repeat it."
            )
        click.echo(
            f"  {experiment.id}: {kept.files} files ({_amount(kept.size)}), {kept.new} of them "
            f"new, are in {kept.folder}",
            err=True,
        )


def _discard(home: Home, store: Store, mine: Sequence[Experiment]) -> None:
    counts = store.counts()
    for experiment in mine:
        if any(not state.finished for state in counts.get(experiment.id, {})):
            # What is known is taken along where that costs nothing.
            progress.refresh_as_possible(store, home, experiment)
    _settle(store, mine, "its cluster was ended (stop --discard)")


def _settle(store: Store, experiments: Sequence[Experiment], reason: str) -> None:
    """Tasks that nobody will run any more get a state, so that nothing is awaited for ever."""
    counts = store.counts()
    for experiment in experiments:
        if all(state.finished for state in counts.get(experiment.id, {})):
            continue
        words = {TaskState.PENDING: TaskState.CANCELLED, TaskState.RUNNING: TaskState.LOST}
        store.settle(
            experiment.id,
            {
                task.index: (words[task.state], reason)
                for task in store.tasks(experiment.id)
                if task.state in words
            },
        )


def _amount(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / 1024:,.1f} KiB"
