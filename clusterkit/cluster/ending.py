"""The end of a cluster: everything of it goes, and that is proved by looking. Or its pause."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clusterkit.cluster import access, ansible, drain, lifecycle, paused, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.cloud import place
from clusterkit.cluster.facts import Facts, as_user
from clusterkit.cluster.lock import hold
from clusterkit.cluster.paused import Paused
from clusterkit.cluster.providers import Ended
from clusterkit.cluster.watch import Nobody, Phases, Watch
from clusterkit.errors import (
    ClusterError,
    ClusterkitError,
    ClusterNotStarted,
    TransportError,
    UsageError,
)
from clusterkit.paths import Home
from clusterkit.transport import Ssh

if TYPE_CHECKING:
    from clusterkit.cluster.cloud.provider import CloudProvider
    from clusterkit.cluster.providers import Provider


@dataclass(frozen=True, slots=True)
class Stopped:
    """A cluster that ended; that nothing is left of it was checked.

    `looked_for` are the kinds of things that were looked for and not found, `stays` what is kept
    on purpose and costs money: saved images.
    """

    name: str
    jobs: int
    processes: int
    ports: tuple[int, ...]
    seconds: float
    machines: tuple[str, ...] = ()
    looked_for: tuple[str, ...] = ()
    attached: bool = False  # somebody else runs it: it was only forgotten
    stays: tuple[str, ...] = ()
    proved: bool = False  # something of it may have been there, and was looked for


@dataclass(frozen=True, slots=True)
class Rested:
    """A cluster that was paused: which machines are off, which were ended, what it costs now."""

    name: str
    off: tuple[str, ...]
    ended: tuple[str, ...]
    cost: str
    seconds: float


def stop(
    home: Home, name: str, *, watch: Watch | None = None, abandon: Sequence[str] = ()
) -> Stopped:
    """End the cluster. What experiments wrote stays where its machines do.

    `abandon` are machines (of the user's own) that will never answer again. Raises ClusterError
    when something is left; the same call again goes on.
    """
    folder = home.cluster(name)
    began = time.monotonic()
    if not folder.is_dir():
        return Stopped(name, 0, 0, (), 0.0)
    watch = watch or Nobody()
    with hold(home, name), Phases(watch, home, name) as phase:
        found = facts_file.read(folder)
        _, provider = lifecycle.made(home, name, keep=False, as_started=True)
        if provider is not None and _cloud(provider) is not None and access.read_id(folder):
            provider.tell(watch.say)
            provider.machines()  # a cloud that refuses to answer leaves a cluster that can be used
        facts_file.forget(folder)
        if found is not None:
            _hang_up(found)
        if provider is None:  # attached: nothing of ours is there
            stored.forget(folder)
            return Stopped(name, 0, 0, (), time.monotonic() - began, attached=found is not None)
        if abandon:
            from clusterkit.cluster.providers.ssh import SshProvider

            if not isinstance(provider, SshProvider):
                raise UsageError("--abandon is for machines of your own, of the provider ssh")
            provider.abandon(abandon)
        ended = Ended()
        mine = bool(access.read_id(folder))
        if not provider.remote or mine:
            if provider.remote:
                ansible.end_leftovers(str(folder / "ansible"))  # of a start that was killed
                phase("ending the machines" if provider.disposable else "ending SLURM")
                ended = provider.destroy(watch.say)
            else:
                ended = provider.destroy(phase)
        phase("proving that nothing is left")
        left = provider.left()
        if left:
            raise ClusterError(
                f"cluster {name!r} was ended, but this is left: {', '.join(left)}. "
                f"Run `clusterkit stop {name}` again; if it stays, end it by hand."
            )
        stays = _stays(provider) if mine else ()
        if provider.remote:
            paused.forget(folder)
            access.forget(folder)
            place.forget(folder)
            stored.forget(folder)
    ports = tuple(sorted(found.ports.values())) if found is not None else ()
    return Stopped(
        name,
        ended.jobs,
        ended.processes,
        ports,
        time.monotonic() - began,
        ended.machines,
        provider.looked_for,
        stays=stays,
        proved=mine,
    )


def pause(home: Home, name: str, *, watch: Watch | None = None) -> Rested:
    """Switch the cluster's machines off and keep their disks; spot machines are ended.

    Jobs that run go back into the queue, and run again after the next `start`. The same call again
    goes on. Raises ClusterNotStarted, ClusterError for machines that cannot be paused, Busy.
    """
    folder = home.cluster(name)
    began = time.monotonic()
    watch = watch or Nobody()
    _, provider = lifecycle.made(home, name, keep=False, as_started=True)
    if provider is None or _cloud(provider) is None:
        what = "attach" if provider is None else provider.name
        raise ClusterError(
            f"the cluster {name!r} is {what}: only the machines of a cloud can be paused"
        )
    if not access.read_id(folder):
        raise ClusterNotStarted(f"the cluster {name!r} is not started: nothing was changed")
    with hold(home, name), Phases(watch, home, name) as phase:
        ansible.end_leftovers(str(folder / "ansible"))
        provider.tell(watch.say)
        before = {one.name for one in provider.machines() if one.state in ("running", "stopped")}
        if not before:
            raise ClusterNotStarted(f"the cluster {name!r} has no machines: nothing was changed")
        _require_lasting_head(provider)
        found = facts_file.read(folder)
        if found is not None:
            _let_in(provider, watch)
            phase("putting jobs back into the queue")
            _requeue(found, watch)
            _hang_up(found)
        # From here on nothing connects to it: its addresses will be others.
        facts_file.forget(folder)
        phase("switching off")
        provider.pause(watch.say)
        after = {one.name: one.state for one in provider.machines()}
        off = tuple(sorted(one for one in before if after.get(one) == "stopped"))
        on = sorted(name for name, state in after.items() if state == "running")
        if on:
            raise ClusterError(
                f"{', '.join(on)} still run. Repeat `clusterkit pause {name}`: it goes on."
            )
        note = _cost(provider)
        paused.write(folder, note)
    ended = tuple(sorted(before - set(off)))
    return Rested(name, off, ended, note.cost, time.monotonic() - began)


def _require_lasting_head(provider: Provider) -> None:
    """Refuse to pause where the head would end, for it is a spot machine. Raises ClusterError."""
    from clusterkit.cluster.cloud import api, wishes

    cloud = _cloud(provider)
    if cloud is None:
        return
    heads = [one for one in cloud.fleet.instances() if one.labels.get(api.GROUP) == wishes.HEAD]
    if any(one.alive and one.market == "spot" for one in heads):
        raise ClusterError(
            f"the head of {provider.cluster!r} is a spot machine, which cannot be switched off: it "
            "would end, and with it the queue, the accounting and all of /home. Nothing was "
            f"changed. `clusterkit stop {provider.cluster}` ends the cluster, and lets you harvest "
            "first; with `market: on-demand` for the head, the next one can be paused."
        )


def _let_in(provider: Provider, watch: Watch) -> None:
    """The head is asked for its jobs; where the way to it stays shut, it is paused all the same."""
    try:
        mended = provider.open_door()
    except ClusterkitError as error:
        mended = str(error)
    if mended:
        watch.say(mended)


def _requeue(found: Facts, watch: Watch) -> None:
    """Nodes whose machines are switched off run nothing; `start` lets them work again."""
    from clusterkit.cluster import remote, state

    try:
        head = remote.head_transport(found)
        nodes = state.parse_nodes(head.run(state.NODES_ARGV, timeout=20).text)
        up = [node.name for node in nodes if not node.state.startswith(("down", "drain"))]
        drain.requeue(head, up, "clusterkit: paused")
    except TransportError as error:
        watch.say(f"SLURM was not told of the pause: {error}")


def _cost(provider: Provider) -> Paused:
    """What the disks cost while all else is off, as far as it can be found out."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    cloud = _cloud(provider)
    if cloud is None:
        return Paused(since)
    from clusterkit.cluster.cloud import found

    try:
        disks = sum(map(found.gib, cloud.cloud.resources(provider.identity.id)))
        price = cloud.cloud.disk_price()
    except ClusterkitError:  # it is paused all the same
        return Paused(since)
    each = price.amount if disks else None
    return Paused(since, disks, None if each is None else each * disks, price.currency)


def _stays(provider: Provider) -> tuple[str, ...]:
    """Saved images of the cluster: they are kept, and cost."""
    cloud = _cloud(provider)
    if cloud is None:
        return ()
    from clusterkit.cluster.cloud import found

    return found.kept(cloud.cloud, provider.identity.id)


def _cloud(provider: Provider) -> CloudProvider | None:
    from clusterkit.cluster.cloud.known import CLOUDS

    if provider.name not in CLOUDS:
        return None
    from clusterkit.cluster.cloud.provider import CloudProvider

    assert isinstance(provider, CloudProvider)
    return provider


def _hang_up(found: Facts) -> None:
    """End the shared connections: their processes would stay for a minute more."""
    for name, address in found.hosts.items():
        Ssh(address).close()
        if name == found.head and found.user:
            Ssh(as_user(found)).close()
