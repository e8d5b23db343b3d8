"""`clusterkit start`: from nothing to a cluster that answers.

`connect` is all that the other packages need: a connected cluster. Modules that are slow to import
(Ansible's above all) are imported by the functions that use them.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.errors import ClusterNotStarted, UsageError
from clusterkit.paths import Home
from clusterkit.transport import Connection, Limits, Local, Ssh, Transport

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


def connect(name: str, home: Home, *, running: bool = True) -> Connection:
    """The cluster `name`, ready for commands. Runs none itself, so it is quick.

    One of `attach` is looked at first when that was not done yet, or its settings have changed.
    Without `running`, its daemons may be dead: its files can be read all the same.

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
    return connection(facts)


def connection(facts: Facts) -> Connection:
    """A started cluster, from what is known of it."""
    transport: Transport = Local()
    if facts.hosts:
        from clusterkit.cluster.facts import as_user

        transport = Ssh(as_user(facts))
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


def node_transport(name: str, home: Home, node: str) -> Transport:
    """A machine of a started cluster, as the account that sets it up.

    Raises UsageError for a node that the cluster does not have, ClusterNotStarted.
    """
    from clusterkit.cluster import facts as facts_file

    require_known(name, home)
    facts = facts_file.read(home.cluster(name))
    if facts is None:
        raise ClusterNotStarted(f"the cluster {name!r} is not started: `clusterkit start {name}`")
    if node not in facts.hosts:
        there = ", ".join(facts.hosts) or "none that is reached by ssh"
        raise UsageError(f"the cluster {name!r} has no node {node!r}; it has {there}")
    return Ssh(facts.hosts[node])


def _attached(name: str, home: Home) -> Facts:
    """A cluster that somebody else runs needs no start: the first use connects to it."""
    from clusterkit.cluster import config
    from clusterkit.cluster.spec import AttachSpec

    spec = config.cluster_spec(home, name)
    if not isinstance(spec, AttachSpec):
        raise ClusterNotStarted(
            f"the cluster {name!r} is not started. Start it with `clusterkit start {name}`."
        )
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
