"""The end of a cluster: everything of it goes, and that is proved by looking."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from clusterkit.cluster import access, ansible, lifecycle, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.facts import Facts, as_user
from clusterkit.cluster.lock import hold
from clusterkit.cluster.providers import Ended
from clusterkit.cluster.watch import Nobody, Phases, Watch
from clusterkit.errors import ClusterError, UsageError
from clusterkit.paths import Home
from clusterkit.transport import Ssh


@dataclass(frozen=True, slots=True)
class Stopped:
    """A cluster that ended; that nothing is left of it was checked.

    `looked_for` are the kinds of things that were looked for and not found.
    """

    name: str
    jobs: int
    processes: int
    ports: tuple[int, ...]
    seconds: float
    machines: tuple[str, ...] = ()
    looked_for: tuple[str, ...] = ()
    attached: bool = False  # somebody else runs it: it was only forgotten


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
        if not provider.remote or access.read_id(folder):
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
        if provider.remote:
            access.forget(folder)
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
    )


def _hang_up(found: Facts) -> None:
    """End the shared connections: their processes would stay for a minute more."""
    for name, address in found.hosts.items():
        Ssh(address).close()
        if name == found.head and found.user:
            Ssh(as_user(found)).close()
