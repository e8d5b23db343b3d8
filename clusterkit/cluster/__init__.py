"""`clusterkit start`: from nothing to a cluster that answers.

`connect` is all that the other packages need: a connected cluster. Modules that are slow to import
(Ansible's above all) are imported by the functions that use them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.errors import ClusterkitError, ClusterNotStarted, Unreachable, UsageError
from clusterkit.paths import Home
from clusterkit.transport import Connection, Limits, Local, Mend, Ssh, Transport

if TYPE_CHECKING:
    from clusterkit.cluster.facts import Facts


def known(home: Home) -> list[str]:
    """The names of all clusters that can be started or connected to."""
    from clusterkit.cluster import config

    return sorted(config.names(home))


def require_known(name: str, home: Home) -> None:
    """Raise UnknownCluster, with the nearest name, unless `name` is one."""
    if name == "local":
        return
    from clusterkit.cluster import config

    config.require(home, name)


def connect(
    name: str,
    home: Home,
    *,
    running: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Connection:
    """The cluster `name`, ready for commands. Runs none itself, so it is quick.

    One of `attach` is looked at first when that was not done yet, or its settings have changed.
    Without `running`, its daemons may be dead: its files can be read all the same. `say` is told
    when the way to it had to be mended.

    Raises UnknownCluster, or ClusterNotStarted when it was not started or its daemons have died.
    """
    from clusterkit.cluster import facts as facts_file

    require_known(name, home)
    facts = facts_file.read(home.cluster(name))
    if facts is None:
        facts = _attached(name, home)
    elif running and facts.provider == "attach" and _outdated(home.cluster(name)):
        with suppress(UsageError):  # a mistake in the settings keeps nobody from his results
            facts = _attached(name, home)
    if running:
        _require_daemons(facts)
    return connection(facts, _mend(home, facts, facts.head, say))


def connection(facts: Facts, mend: Mend | None = None) -> Connection:
    """A started cluster, from what is known of it. `mend` may open a way that is shut."""
    transport: Transport = Local()
    if facts.hosts:
        from clusterkit.cluster.facts import as_user

        transport = Ssh(as_user(facts), mend=mend)
    return Connection(
        cluster=facts.cluster,
        transport=transport,
        root=facts.root,
        python=facts.python,
        env=slurm_environment(facts.slurm_conf, facts.slurm_bin)
        | ({"PATH": facts.path} if facts.path else {}),
        limits=Limits(
            max_array_size=facts.max_array_size,
            default_time=facts.default_time,
            cpus=facts.cpus,
            sbatch=facts.sbatch,
        ),
        # Machines that stay keep their experiments, whatever cluster they belong to next.
        cluster_id=facts.id if facts.disposable else "",
    )


def _mend(home: Home, facts: Facts, machine: str, say: Callable[[str], None]) -> Mend | None:
    """For machines that were made for the cluster: what to do when one is silent.

    The cloud's part is imported then, and not before.
    """
    if not facts.disposable:
        return None

    def mend(error: Unreachable) -> bool:
        from clusterkit.cluster.cloud import mending

        return mending.mend(home, facts, machine, error, say)

    return mend


def node_transport(
    name: str, home: Home, node: str, *, say: Callable[[str], None] = lambda _: None
) -> Transport:
    """A machine of a started cluster, as the account that sets it up. `say` as in `connect`.

    Raises UsageError for a node that the cluster does not have, ClusterNotStarted.
    """
    from clusterkit.cluster import facts as facts_file

    require_known(name, home)
    facts = facts_file.read(home.cluster(name))
    if facts is None:
        raise ClusterNotStarted(not_started(name, home))
    if node not in facts.hosts:
        there = ", ".join(facts.hosts) or "none that is reached by ssh"
        raise UsageError(f"the cluster {name!r} has no node {node!r}; it has {there}")
    return Ssh(facts.hosts[node], mend=_mend(home, facts, node, say))


def not_started(name: str, home: Home) -> str:
    """What to say of a cluster that does not run: it was not started, or it is paused."""
    from clusterkit.cluster import lock, paused

    since = paused.read(home.cluster(name))
    if since is not None:
        return f"the cluster {name!r} is paused. Resume it with `clusterkit start {name}`."
    pid = lock.holder(home, name)
    if pid:
        return f"the cluster {name!r} is not started: another clusterkit (pid {pid}) works on it."
    words = f"the cluster {name!r} is not started. Start it with `clusterkit start {name}`."
    return f"{words} {adoption(name)}" if _may_be_elsewhere(name, home) else words


def adoption(name: str) -> str:
    """What to do about a cluster of a cloud that this computer does not know."""
    return f"If it was started on another computer, `clusterkit adopt {name}` takes it over."


def _may_be_elsewhere(name: str, home: Home) -> bool:
    """Whether its settings are a cloud's and it has no id here. Asks no cloud."""
    from clusterkit.cluster import access, config
    from clusterkit.cluster.spec import CloudSpec

    try:
        known_here = access.read_id(home.cluster(name)) != ""
        return not known_here and isinstance(config.cluster_spec(home, name), CloudSpec)
    except ClusterkitError:  # told by whoever needs the file
        return False


def _attached(name: str, home: Home) -> Facts:
    """A cluster that somebody else runs needs no start: the first use connects to it."""
    from clusterkit.cluster import config
    from clusterkit.cluster.spec import AttachSpec

    spec = config.cluster_spec(home, name)
    if not isinstance(spec, AttachSpec):
        raise ClusterNotStarted(not_started(name, home))
    from clusterkit.cluster import attach

    return attach.remembered(home.prepared(), name)


def _outdated(folder: Path) -> bool:
    """Whether the settings were written since the cluster in `folder` was attached to."""
    from clusterkit.cluster import stored

    file = stored.file(folder)
    try:
        return (
            file is not None and file.stat().st_mtime_ns > (folder / stored.FILE).stat().st_mtime_ns
        )
    except OSError:
        return False  # the file is gone: what it said is kept


def _require_daemons(facts: Facts) -> None:
    if not facts.daemons:
        return
    from clusterkit.cluster import processes

    for daemon, one in facts.daemons.items():
        process = processes.look(one.pid)
        if process is None or process.start != one.start:
            raise ClusterNotStarted(
                f"the cluster {facts.cluster!r} was started, but its {daemon} (pid {one.pid}) does "
                f"not run any more. It is healed by `clusterkit start {facts.cluster}`."
            )


def slurm_environment(slurm_conf: str, slurm_bin: str) -> dict[str, str]:
    """What SLURM's commands need; their folder joins PATH only where it is missing from it."""
    environment = {"SLURM_CONF": slurm_conf} if slurm_conf else {}
    if slurm_bin:
        found = shutil.which("sbatch")
        if found is None or Path(found).parent != Path(slurm_bin):
            environment["PATH"] = os.pathsep.join([slurm_bin, *os.get_exec_path()])
    return environment
