"""plan, start, check, status, list: a cluster's life but for its end (`ending`) and its `resize`.

A start is a row of phases, each of which can be repeated; one that failed or was killed goes on
where it was when it is called again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clusterkit import cluster as clusters
from clusterkit.cluster import access, config, drain, providers, state, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.access import Identity
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.lock import hold
from clusterkit.cluster.providers import Machine, Plan, PrivateProvider, Provider
from clusterkit.cluster.remote import Site
from clusterkit.cluster.spec import AttachSpec, Built, Spec
from clusterkit.cluster.state import Status
from clusterkit.cluster.watch import Nobody, Phases, Watch
from clusterkit.errors import (
    ClusterError,
    ClusterNotStarted,
    CommandFailed,
    SetupFailed,
    TransportError,
    Unreachable,
)
from clusterkit.paths import Home

#: Asked with the plan before anything is made; raises when the user does not agree.
Agree = Callable[[Plan], None]

#: Seconds for which a machine that was there before may be silent.
_OLD_MACHINE = 30.0


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster that answers. `changed` counts what the playbooks had to change."""

    facts: Facts
    changed: int
    seconds: float
    log: Path
    notes: tuple[str, ...]
    nodes: tuple[str, ...] = ()


def made(
    home: Home, name: str, *, keep: bool, as_started: bool = False
) -> tuple[Spec, Provider | None]:
    """The settings of `name` and its provider (None for `attach`).

    With `keep` the cluster gets its id, if it has none, and the settings are remembered.
    `as_started` takes those that it was started with, whatever the settings file says by now.
    """
    folder = home.cluster(name)
    source = (stored.read(folder) if as_started else None) or config.source(home, name)
    spec = source.spec
    if isinstance(spec, AttachSpec):
        if keep:
            stored.write(folder, spec, source.file)
        return spec, None
    own_key = spec.key if isinstance(spec, Built) else None
    remote = isinstance(spec, Built)
    identity = access.identity(folder, name, own_key, make=keep and remote)
    if keep and remote:
        stored.write(folder, spec, source.file)
    return spec, providers.provider(spec, identity, folder)


def plan(home: Home, name: str) -> Plan:
    """What `start` would do; changes nothing."""
    spec, provider = made(home, name, keep=False)
    if provider is None:
        assert isinstance(spec, AttachSpec)
        return Plan((), notes=(f"attached to {spec.host or 'the SLURM of this machine'}",))
    return provider.plan()


def start(
    home: Home,
    name: str,
    *,
    agree: Agree = lambda _: None,
    watch: Watch | None = None,
    again: bool = False,
    replace_dead: bool = False,
) -> Started:
    """Start the cluster, or heal it, or find that all is well; ends with jobs that ran on it.

    `again` runs the playbooks even where everything seems done; `replace_dead` ends machines that
    do not come back and makes new ones. Raises SetupFailed, Busy, UnknownCluster, ClusterError.
    """
    began = time.monotonic()
    spec = config.cluster_spec(home, name)
    with hold(home, name), Phases(watch or Nobody(), home, name) as phase:
        if isinstance(spec, AttachSpec):
            from clusterkit.cluster import attach

            phase("attach")
            found = attach.remembered(home, name)
            return Started(found, 0, time.monotonic() - began, home.cluster(name), ())
        phase("plan")
        _, provider = made(home, name, keep=False)
        assert provider is not None
        planned = provider.plan()
        agree(planned)
        _, provider = made(home, name, keep=True)
        if isinstance(provider, PrivateProvider):
            done = _start_private(spec, provider, planned, phase)
        else:
            assert isinstance(spec, Built)
            assert provider is not None
            done = _Remote(spec, provider, watch or Nobody(), phase).start(
                again=again, replace_dead=replace_dead, agree=agree
            )
    return replace(done, seconds=time.monotonic() - began)


def _start_private(spec: Spec, provider: PrivateProvider, planned: Plan, phase: Phases) -> Started:
    """The caller's own daemons on this machine."""
    from clusterkit.cluster import ansible, inventory

    name, folder = provider.cluster, provider.folder
    phase("create")
    provider.create(planned, lambda _: None)
    phase("reach")
    hosts = inventory.build(name, planned.machines, provider.variables(), dict(spec.slurm))

    def play(playbook: str) -> ansible.Outcome:
        return ansible.run(
            playbook,
            hosts,
            folder=run_folder(folder),
            home=provider.ansible_home,
            on_play=phase,
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
    return Started(found, outcome.changed, 0.0, outcome.log, planned.notes)


class _Remote:
    """One start of machines that are reached by ssh."""

    def __init__(self, spec: Built, provider: Provider, watch: Watch, phase: Phases) -> None:
        self._spec, self._provider = spec, provider
        self._watch, self._phase = watch, phase
        self._identity: Identity = provider.identity
        self._folder = provider.folder
        self._ansible_home = str(provider.folder / "ansible")
        self._notes: list[str] = []

    def start(self, *, again: bool, replace_dead: bool, agree: Agree) -> Started:
        from clusterkit.cluster import ansible, remote

        provider = self._provider
        ansible.end_leftovers(self._ansible_home)
        planned = provider.plan()
        before = {machine.name: machine for machine in provider.machines()}
        lost = [
            machine
            for machine in planned.machines
            if machine.name in before and before[machine.name].state != "running"
        ]
        self._tell_slurm([machine.name for machine in lost if "head" not in machine.roles])
        if planned.surplus and not provider.disposable:  # the user took them out of the settings
            gone = [machine.name for machine in planned.surplus]
            self._phase("release")
            self._tell_slurm(gone)
            provider.destroy(self._watch.say, only=gone)
            planned = replace(planned, surplus=())
        if replace_dead and lost:
            names = [machine.name for machine in lost]
            if any("head" in machine.roles for machine in lost):
                # On the head's disk alone are the queue, the accounting and, over NFS, the homes.
                what = f"the head of {provider.cluster!r} is made anew, and what is on its disk is"
                agree(replace(planned, missing=(), asks=(f"{what} lost, results too",)))
            self._phase("replace")
            provider.destroy(self._watch.say, only=names)
            for name in names:
                self._identity.forget(name)
            planned = provider.plan()
        self._phase("create")
        provider.create(planned, self._watch.say)
        door = provider.open_door()
        if door:
            self._note(door)
        machines = self._wanted(planned)
        self._phase("reach")
        site = self._look(machines)
        changed, log = 0, self._folder / "runs"
        if site.head.seen.units.get("slurmctld") == "active":
            self._resume(site)
        if again or not site.done:
            remote.judge(provider, self._identity, site.reached)
            remote.place_munge_key(site, self._identity)
            changed, log = self._set_up(site)
            fresh = self._look(machines) if self._promised_unseen(site) else site
            if fresh.digest != site.digest:  # the driver came with the set-up: now the GPUs show
                site = fresh
                more, log = self._set_up(site)
                changed += more
        else:
            _, log = self._play("verify.yml", site)
        known = facts_file.read(self._folder)
        if known is None or known.digest != site.digest or again:
            known = remote.facts(provider, self._spec, site)
        hosts = {one.machine.name: one.address for one in site.reached}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        known = replace(known, hosts=hosts, started=known.started or now)
        known.write(self._folder)
        for machine in planned.surplus:
            self._note(
                f"{machine.name} is there, but the settings ask for fewer: "
                f"`clusterkit resize {provider.cluster}` ends it"
            )
        nodes = tuple(machine.name for machine in site.machines)
        return Started(known, changed, 0.0, log, tuple(self._notes), nodes)

    def _note(self, line: str) -> None:
        self._notes.append(line)
        self._watch.say(line)

    def _wanted(self, planned: Plan) -> list[Machine]:
        """The planned machines as the world has them now, and those that still run besides."""
        there = {machine.name: machine for machine in self._provider.machines()}
        wanted = [machine.name for machine in planned.machines]
        wanted += [one.name for one in planned.surplus if there[one.name].state == "running"]
        absent = [name for name in wanted if name not in there or there[name].state != "running"]
        if absent:
            symptoms = self._provider.symptoms()
            raise ClusterError(
                f"{', '.join(absent)} did not start, or ended again at once."
                + (f"\n{symptoms}" if symptoms else "")
                + f"\n`clusterkit start {self._provider.cluster}` tries again; with --replace it "
                "makes new ones."
            )
        return [there[name] for name in wanted]

    def _look(self, machines: list[Machine]) -> Site:
        from clusterkit.cluster import reach, remote

        boot = float(self._spec.timeouts.boot)
        reached = reach.reach(
            self._provider,
            self._identity,
            machines,
            boot if self._provider.disposable else min(boot, _OLD_MACHINE),
            self._watch.host,
        )
        for one in reached:
            for note in one.notes:
                self._note(note)
        return remote.site(self._provider, self._identity, self._spec, reached)

    def _set_up(self, site: Site) -> tuple[int, Path]:
        try:
            return self._play("site.yml", site)
        except SetupFailed as error:
            words = self._provider.symptoms()
            raise SetupFailed(
                f"{error}"
                + (f"\n{words}" if words else "")
                + f"\n`clusterkit start {self._provider.cluster}` goes on from here."
            ) from error

    def _play(self, playbook: str, site: Site) -> tuple[int, Path]:
        from clusterkit.cluster import ansible

        outcome = ansible.run(
            playbook,
            site.inventory,
            folder=run_folder(self._folder),
            home=self._ansible_home,
            on_play=self._phase,
            on_task=self._watch.host,
            timeout=float(self._spec.timeouts.setup),
        )
        return outcome.changed, outcome.log

    def _promised_unseen(self, site: Site) -> bool:
        return any(one.gpus_promised > len(one.gpus) for one in site.machines)

    def _tell_slurm(self, workers: list[str]) -> None:
        """Machines that are gone: their jobs go back into the queue now, not in SLURM's minute."""
        known = facts_file.read(self._folder)
        if known is None or not workers:
            return
        from clusterkit.cluster import remote

        names = ", ".join(workers)
        try:
            drain.requeue(remote.head_transport(known), workers, drain.GONE)
        except TransportError as error:
            # The head is gone too, or does not know them: it will see for itself.
            self._watch.say(f"SLURM was not told that {names} went: {error}")
        else:
            self._note(f"{names} went: the jobs there are back in the queue")

    def _resume(self, site: Site) -> None:
        """Nodes that were taken out for a reason that is no more run jobs again."""
        head = site.head.transport
        try:
            nodes = state.parse_nodes(head.run(state.NODES_ARGV, timeout=20).text)
        except CommandFailed as error:
            raise SetupFailed(f"SLURM was set up, but does not answer: {error}") from error
        ours = {machine.name for machine in site.machines}
        surplus = {machine.name for machine in self._provider.plan().surplus}
        down = [
            node.name
            for node in nodes
            if node.name in ours - surplus
            and node.state.rstrip("*").startswith(("down", "drain"))
            and _healed(node.reason)
        ]
        drain.resume(head, down)
        drain.release_held(head)


def _healed(reason: str) -> bool:
    """Whether a start mends what took the node out. What the user drained stays drained."""
    return not reason or reason.startswith(
        (
            drain.GONE,
            "Not responding",
            "Duplicate jobid",
            "clusterkit:",
            "Node unexpectedly rebooted",
            "Low RealMemory",
            "gres/",
        )
    )


def check(home: Home, name: str, watch: Watch | None = None) -> Started:
    """Run verify.yml over a started cluster again. Raises SetupFailed, ClusterNotStarted."""
    began = time.monotonic()
    known = facts_file.read(home.cluster(name))
    if known is None:
        raise ClusterNotStarted(
            f"the cluster {name!r} is not started. Start it with `clusterkit start {name}`."
        )
    spec, provider = made(home, name, keep=False)
    if not isinstance(spec, Built) or provider is None:
        raise ClusterError(
            f"the cluster {name!r} is {spec.provider}: `clusterkit start {name}` verifies it"
        )
    with hold(home, name), Phases(watch or Nobody(), home, name) as phase:
        work = _Remote(spec, provider, watch or Nobody(), phase)
        phase("reach")
        running = [one for one in provider.machines() if one.state == "running"]
        site = work._look(running)  # noqa: SLF001 - the same module
        _, log = work._play("verify.yml", site)  # noqa: SLF001
    nodes = tuple(machine.name for machine in site.machines)
    return Started(known, 0, time.monotonic() - began, log, (), nodes)


def status(home: Home, name: str, *, ask: bool = True) -> Status:
    """How the cluster is, asked of its machines or processes and of SLURM.

    Without `ask` a cluster of `attach` that was not used yet is left alone.
    """
    clusters.require_known(name, home)
    folder = home.cluster(name)
    known = facts_file.read(folder)
    if known is not None and not known.daemons:
        return _remote_status(home, name, known)
    spec, provider = made(home, name, keep=False)
    if provider is None:  # of a cluster somebody else runs the first use is its start
        if not ask:
            return Status(name, spec.provider, "stopped", {}, problem="not used yet")
        try:
            clusters.connect(name, home)
        except Unreachable as error:
            return Status(name, spec.provider, "unreachable", {}, problem=str(error))
        known = facts_file.read(folder)
        assert known is not None
        return _remote_status(home, name, known)
    if not isinstance(provider, PrivateProvider):
        there = provider.machines() if provider is not None and access.read_id(folder) else ()
        problem = f"half made; finished by `clusterkit start {name}`" if there else ""
        return Status(name, spec.provider, "broken" if there else "stopped", {}, problem=problem)
    return _private_status(name, provider, known)


def _remote_status(home: Home, name: str, known: Facts) -> Status:
    theirs = known.provider == "attach"
    try:
        nodes, running, pending = state.ask(clusters.connect(name, home), mine=theirs)
    except Unreachable as error:
        return Status(name, known.provider, "unreachable", {}, problem=str(error), facts=known)
    except (CommandFailed, ClusterError) as error:
        return Status(name, known.provider, "broken", {}, problem=str(error), facts=known)
    ill = [f"{n.name} is {n.state}" + (f" ({n.reason})" if n.reason else "") for n in nodes
           if n.state.startswith(("down", "drain", "fail")) or n.state.endswith("*")]  # fmt: skip
    problem = "; ".join(ill)
    if theirs and ill:  # somebody sees to it, and there may be hundreds
        problem = f"{len(ill)} of {len(nodes)} nodes are down or drained"
    elif problem and known.hosts:
        problem += f". `clusterkit start {name}` heals what died"
    return Status(
        name, known.provider, "running", {}, nodes, running, pending, problem=problem, facts=known
    )


def _private_status(name: str, provider: PrivateProvider, found: Facts | None) -> Status:
    seen = {daemon for machine in provider.machines() for daemon in machine.running}
    alive = {daemon: daemon in seen for daemon in ("munged", "slurmctld", "slurmd")}
    heal = f"healed by `clusterkit start {name}`"
    if not any(alive.values()):
        if found is None:
            return Status(name, provider.name, "stopped", alive)
        problem = f"its daemons died; {heal}"
        return Status(name, provider.name, "broken", alive, problem=problem, facts=found)
    if found is None:
        return Status(name, provider.name, "broken", alive, problem=heal)
    dead = [daemon for daemon, runs in alive.items() if not runs]
    if dead:
        problem = f"{', '.join(dead)} died; {heal}"
        return Status(name, provider.name, "broken", alive, problem=problem, facts=found)
    try:
        nodes, running, pending = state.ask(clusters.connection(found))
    except CommandFailed as error:
        return Status(name, provider.name, "broken", alive, problem=str(error), facts=found)
    return Status(name, provider.name, "running", alive, nodes, running, pending, facts=found)


def list_(home: Home) -> tuple[Status, ...]:
    """All known clusters."""
    return tuple(status(home, name, ask=False) for name in clusters.known(home))


def run_folder(folder: Path) -> Path:
    """A new folder for one run of Ansible, named for the moment (UTC)."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return folder / "runs" / stamp
