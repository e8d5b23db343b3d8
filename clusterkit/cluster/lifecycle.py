"""start, stop, status, list: the steps of a cluster's life, each of which can be repeated."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clusterkit import cluster as clusters
from clusterkit import slurm
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster import providers
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.providers import Plan, Provider
from clusterkit.errors import Busy, ClusterError, CommandFailed, SetupFailed
from clusterkit.paths import Home
from clusterkit.transport import Local

#: Called with a phase's name when it begins.
Say = Callable[[str], None]


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster that answers. `changed` counts what the playbooks had to change."""

    facts: Facts
    changed: int
    seconds: float
    log: Path
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A cluster that ended; that nothing is left of it was checked."""

    name: str
    jobs: int
    processes: int
    ports: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Node:
    """A node as sinfo sees it; `state` is its word ("idle", "mixed", "down*")."""

    name: str
    state: str
    cpus: int
    cpus_busy: int
    memory: int
    gres: str


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster now. `state`: running, broken (some daemon died or SLURM is silent) or stopped.

    `elements` are job elements (of arrays, each one) that run or wait.
    """

    name: str
    provider: str
    state: str
    daemons: Mapping[str, bool]
    nodes: tuple[Node, ...] = ()
    running: int = 0
    pending: int = 0
    problem: str = ""
    facts: Facts | None = None

    @property
    def busy(self) -> bool:
        return self.running + self.pending > 0


def plan(home: Home, name: str) -> Plan:
    """What `start` would do; changes nothing."""
    return _provider(home, name).plan()


def start(
    home: Home,
    name: str,
    *,
    slurm_conf: Mapping[str, object] | None = None,
    on_phase: Say = _silent,
) -> Started:
    """Start the cluster, or heal it, or find that all is well; ends with a job that ran on it.

    `slurm_conf` is laid over the role's settings. Raises SetupFailed, Busy, UnknownCluster.
    """
    provider = _provider(home, name)
    began = time.monotonic()
    with _lock(home, name):
        on_phase("plan")
        planned = provider.plan()
        on_phase("create")
        provider.create(planned)
        on_phase("reach")
        from clusterkit.cluster import ansible, inventory

        folder = home.cluster(name)
        hosts = inventory.build(name, planned.machines, provider.variables(), slurm_conf)

        def play(playbook: str) -> ansible.Outcome:
            return ansible.run(
                playbook,
                hosts,
                folder=_run_folder(folder),
                home=provider.ansible_home,
                on_play=on_phase,
            )

        try:
            try:
                outcome = play("site.yml")
            except SetupFailed:
                if not provider.mend():
                    raise
                outcome = play("site.yml")
            if provider.settle():
                play("verify.yml")
        except SetupFailed as error:
            words = provider.symptoms()
            raise SetupFailed(f"{error}\n{words}" if words else str(error)) from error
        found = provider.facts()
        found.write(folder)
    return Started(found, outcome.changed, time.monotonic() - began, outcome.log, planned.notes)


def stop(home: Home, name: str, *, on_phase: Say = _silent) -> Stopped:
    """Cancel all jobs and end the cluster; what experiments wrote stays.

    Raises ClusterError when a process or a port is left.
    """
    provider = _provider(home, name)
    folder = home.cluster(name)
    began = time.monotonic()
    if not folder.is_dir():
        return Stopped(name, 0, 0, (), 0.0)
    with _lock(home, name):
        found = facts_file.read(folder)
        facts_file.forget(folder)
        ended = provider.destroy(on_phase)
        on_phase("proving that nothing is left")
        left = provider.left()
        if left:
            raise ClusterError(
                f"cluster {name!r} was ended, but this is left: {', '.join(left)}. "
                f"Run `clusterkit stop {name}` again; if it stays, end it by hand."
            )
    ports = tuple(sorted(found.ports.values())) if found is not None else ()
    return Stopped(name, ended.jobs, ended.processes, ports, time.monotonic() - began)


def status(home: Home, name: str) -> Status:
    """How the cluster is, asked of its processes and of SLURM."""
    provider = _provider(home, name)
    seen = {daemon for machine in provider.machines() for daemon in machine.running}
    alive = {daemon: daemon in seen for daemon in ("munged", "slurmctld", "slurmd")}
    found = facts_file.read(home.cluster(name))
    if found is None or not any(alive.values()):
        state = "stopped" if not any(alive.values()) else "broken"
        problem = (
            "" if state == "stopped" and found is None else f"healed by `clusterkit start {name}`"
        )
        if state == "stopped" and found is not None:
            state, problem = "broken", f"its daemons died; {problem}"
        return Status(name, provider.name, state, alive, problem=problem, facts=found)
    dead = [daemon for daemon, runs in alive.items() if not runs]
    if dead:
        return Status(
            name, provider.name, "broken", alive, facts=found,
            problem=f"{', '.join(dead)} died; healed by `clusterkit start {name}`",
        )  # fmt: skip
    environment = clusters.slurm_environment(found.slurm_conf, found.slurm_bin)
    client = Local()
    try:
        listed = client.run(NODES_ARGV, env=environment, timeout=20)
        queue = client.run(QUEUE_ARGV, env={**environment, **slurm.SQUEUE_ENVIRONMENT}, timeout=20)
    except CommandFailed as error:
        return Status(name, provider.name, "broken", alive, problem=str(error), facts=found)
    running, pending = parse_queue(queue.text)
    return Status(
        name, provider.name, "running", alive, parse_nodes(listed.text), running, pending,
        facts=found,
    )  # fmt: skip


def list_(home: Home) -> tuple[Status, ...]:
    """All known clusters."""
    return tuple(status(home, name) for name in clusters.known(home))


NODES_ARGV = ("sinfo", "--noheader", "--Node", "--format=%N|%T|%C|%m|%G")
QUEUE_ARGV = ("squeue", "--noheader", "--states=RUNNING,COMPLETING,PENDING", "--format=%T|%K")


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Lines of NODES_ARGV; %C is allocated/idle/other/total. A node counts once."""
    found: dict[str, Node] = {}
    for line in text.splitlines():
        fields = line.split("|", 4)
        if len(fields) == 5:
            name, state, cpus, memory, gres = fields
            counts = [int(one) for one in cpus.split("/")]
            found[name] = Node(
                name, state, counts[3], counts[0], int(memory), "" if gres == "(null)" else gres
            )
    return tuple(found.values())


def parse_queue(text: str) -> tuple[int, int]:
    """Lines of QUEUE_ARGV as (running, pending) elements."""
    running = pending = 0
    for line in text.splitlines():
        state, _, indexes = line.partition("|")
        count = sum(last - first + 1 for first, last in slurm.parse_indexes(indexes)) or 1
        if state == "PENDING":
            pending += count
        else:
            running += count
    return running, pending


def _provider(home: Home, name: str) -> Provider:
    clusters.require_known(name, home)
    return providers.provider(clusters.EMBEDDED[name], name, home.cluster(name))


def _run_folder(folder: Path) -> Path:
    """A new folder for one run of Ansible, named for the moment (UTC)."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return folder / "runs" / stamp


@contextmanager
def _lock(home: Home, name: str) -> Iterator[None]:
    """Hold the cluster for oneself; the kernel lets go when this process ends, however it ends."""
    folder = home.cluster(name)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ClusterError(f"{error.filename}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Busy(
                f"another clusterkit (pid {owner}) is starting or stopping the cluster {name!r}. "
                "Wait for it to end, then try again."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
