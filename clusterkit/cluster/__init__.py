"""`clusterkit start`: from nothing to a cluster that answers.

`connect` is all that the other packages need: a connected cluster. Modules that are slow to import
(Ansible's above all) are imported by the functions that use them.

    hardware    what a machine has: processors, memory, GPUs
    packages    whether SLURM is installed here, and whether it can be
    private     the private folder of a cluster that runs as the user
    daemons     which processes are a private cluster's
    processes   processes and ports of this machine, and ending them
    providers/  one file per place where machines come from
    inventory   machines -> Ansible inventory (pure)
    ansible     run one playbook, stream its events, return its outcome
    facts       what a started cluster is, in a file
    lifecycle   start, stop, status, list
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clusterkit.errors import ClusterNotStarted, UnknownCluster
from clusterkit.paths import Home
from clusterkit.transport import Connection, Limits, Local

#: Clusters that need no settings: name -> provider.
EMBEDDED = {"local": "local"}


def known(home: Home) -> list[str]:  # noqa: ARG001 - for clusters with settings
    """The names of all clusters that can be started or connected to."""
    return sorted(EMBEDDED)


def require_known(name: str, home: Home) -> None:
    """Raise UnknownCluster, with the nearest name, unless `name` is one."""
    names = known(home)
    if name in names:
        return
    import difflib

    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownCluster(
        f"there is no cluster {name!r}.{hint} Known: {', '.join(names)}. "
        "`clusterkit start local` makes one on this machine."
    )


def connect(name: str, home: Home, *, running: bool = True) -> Connection:
    """The cluster `name`, ready for commands. Runs none itself, so it is quick.

    Without `running`, its daemons may be dead: its files can be read all the same.

    Raises UnknownCluster, or ClusterNotStarted when it was not started or its daemons have died.
    """
    from clusterkit.cluster import facts as facts_file
    from clusterkit.cluster import processes

    require_known(name, home)
    facts = facts_file.read(home.cluster(name))
    if facts is None:
        raise ClusterNotStarted(
            f"the cluster {name!r} is not started. Start it with `clusterkit start {name}`."
        )
    for daemon, one in facts.daemons.items() if running else ():
        process = processes.look(one.pid)
        if process is None or process.start != one.start:
            raise ClusterNotStarted(
                f"the cluster {name!r} was started, but its {daemon} (pid {one.pid}) does not run "
                f"any more. It is healed by `clusterkit start {name}`."
            )
    return Connection(
        cluster=name,
        transport=Local(),
        root=facts.root,
        python=facts.python,
        env=slurm_environment(facts.slurm_conf, facts.slurm_bin),
        limits=Limits(
            max_array_size=facts.max_array_size, default_time=facts.default_time, cpus=facts.cpus
        ),
    )


def slurm_environment(slurm_conf: str, slurm_bin: str) -> dict[str, str]:
    """What SLURM's commands need; their folder joins PATH only where it is missing from it."""
    environment = {"SLURM_CONF": slurm_conf}
    found = shutil.which("sbatch")
    if found is None or Path(found).parent != Path(slurm_bin):
        environment["PATH"] = os.pathsep.join([slurm_bin, *os.get_exec_path()])
    return environment
