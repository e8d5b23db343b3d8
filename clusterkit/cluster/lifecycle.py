"""plan, start, check: a cluster's life but for its end (`ending`) and its `resize`.

A start is a row of phases, each of which can be repeated; one that failed or was killed goes on
where it was when it is called again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clusterkit.cluster import access, config, drain, paused, providers, state, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.access import Identity
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.lock import hold
from clusterkit.cluster.providers import Machine, Plan, PrivateProvider, Provider
from clusterkit.cluster.remote import Site
from clusterkit.cluster.spec import AttachSpec, Built, Spec
from clusterkit.cluster.watch import Nobody, Phases, Watch
from clusterkit.errors import (
    ClusterError,
    ClusterNotStarted,
    CommandFailed,
    SetupFailed,
    TransportError,
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
    provider = _provider(home, name, source)
    if keep:
        _keep(home, name, source, provider)
    return source.spec, provider


def _provider(home: Home, name: str, source: stored.Stored) -> Provider | None:
    """Of a cluster that has no id yet with a new one, which is kept by `_keep`."""
    spec, folder = source.spec, home.cluster(name)
    if isinstance(spec, AttachSpec):
        return None
    own_key = spec.key if isinstance(spec, Built) else None
    return providers.provider(spec, access.identity(folder, name, own_key, make=False), folder)


def _keep(home: Home, name: str, source: stored.Stored, provider: Provider | None) -> None:
    """Remember the settings, and the id that the provider goes by."""
    if provider is not None and provider.remote:
        access.keep(provider.identity)
    if provider is None or provider.remote:
        stored.write(home.cluster(name), source.spec, source.file)


def plan(
    home: Home,
    name: str,
    *,
    allow: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """What `start` would do; changes nothing. `say` is told about long waits."""
    spec, provider = made(home, name, keep=False)
    if provider is None:
        assert isinstance(spec, AttachSpec)
        return Plan((), notes=(f"attached to {spec.host or 'the SLURM of this machine'}",))
    provider.tell(say)
    provider.allow(allow)
    return provider.plan()


def start(
    home: Home,
    name: str,
    *,
    agree: Agree = lambda _: None,
    watch: Watch | None = None,
    again: bool = False,
    replace_dead: bool = False,
    allow: Sequence[str] = (),
) -> Started:
    """Start the cluster, or heal it, or find that all is well; ends with jobs that ran on it.

    `again` runs the playbooks even where everything seems done; `replace_dead` ends machines that
    do not come back and makes new ones; `allow` are networks that may come in by ssh too. Raises
    SetupFailed, Busy, UnknownCluster, ClusterError.
    """
    began = time.monotonic()
    source = config.source(home, name)
    spec = source.spec
    with hold(home, name), Phases(watch or Nobody(), home, name) as phase:
        if isinstance(spec, AttachSpec):
            from clusterkit.cluster import attach

            phase("attach")
            found = attach.remembered(home, name)
            return Started(found, 0, time.monotonic() - began, home.cluster(name), ())
        phase("plan")
        provider = _provider(home, name, source)
        assert provider is not None
        provider.tell((watch or Nobody()).say)
        provider.allow(allow)
        planned = provider.plan()
        agree(planned)
        _keep(home, name, source, provider)
        if isinstance(provider, PrivateProvider):
            done = _start_private(spec, provider, planned, phase)
        else:
            assert isinstance(spec, Built)
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


def mend_door(provider: Provider, say: Callable[[str], None]) -> None:
    """Make machines that are there reachable from here, and say what had to be mended.

    That it could not be looked at is only said: they may be reachable all the same.
    """
    try:
        mended = provider.open_door()
    except ClusterError as error:
        mended = f"who may come in by ssh was left as it is: {error}"
    if mended:
        say(mended)


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
        from clusterkit.cluster.cloud.known import CLOUDS

        provider = self._provider
        ansible.end_leftovers(self._ansible_home)
        planned = provider.plan()
        before = {machine.name: machine for machine in provider.machines()}
        # A cloud's machine that is switched off is only paused: it is switched on again.
        there = {"running", "stopped"} if provider.name in CLOUDS else {"running"}
        lost = [
            machine
            for machine in planned.machines
            if machine.name in before and before[machine.name].state not in there
        ]
        if any(machine.state != "dead" for machine in before.values()):  # else `create` makes it
            mend_door(provider, self._note)
        self._tell_of_lost(planned, before)
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
                agree(Plan((), asks=(f"{what} lost, results too",)))
            self._phase("replace")
            provider.destroy(self._watch.say, only=names)
            for name in names:
                self._identity.forget(name)
            planned = provider.plan()
        self._phase("create")
        provider.create(planned, self._watch.say)
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
        paused.forget(self._folder)
        for machine in planned.surplus:
            self._note(
                f"{machine.name} is there, but the settings ask for fewer: "
                f"`clusterkit resize {provider.cluster}` ends it"
            )
        nodes = tuple(machine.name for machine in site.machines)
        return Started(known, changed, 0.0, log, tuple(self._notes), nodes)

    def _tell_of_lost(self, planned: Plan, before: Mapping[str, Machine]) -> None:
        """Tell SLURM of workers that do not run any more, also of those that left no trace."""
        running = {name for name, machine in before.items() if machine.state == "running"}
        if not any("head" in machine.roles for name, machine in before.items() if name in running):
            return  # there is nobody to tell
        known = facts_file.read(self._folder)
        hosts = known.hosts if known is not None else {}
        lost: dict[str, list[str]] = {}
        for machine in planned.machines:
            name = machine.name
            if "head" in machine.roles or name in running or name not in {*before, *hosts}:
                continue
            lost.setdefault(before[name].why if name in before else "", []).append(name)
        for why, names in lost.items():
            self._tell_slurm(names, why)

    def _note(self, line: str) -> None:
        self._notes.append(line)
        self._watch.say(line)

    def _wanted(self, planned: Plan) -> list[Machine]:
        """The planned machines as the world has them now, and those that still run besides."""
        there = {machine.name: machine for machine in self._provider.machines()}
        wanted = [machine.name for machine in planned.machines]
        surplus = [there[one.name] for one in planned.surplus if one.name in there]
        wanted += [one.name for one in surplus if one.state == "running"]
        absent = [name for name in wanted if name not in there or there[name].state != "running"]
        lacking = self._provider.lacking(absent) if absent else ()
        if absent and not lacking:
            self._note(f"no {', '.join(absent)} for now: `start` tries again, fewer are enough")
            wanted = [name for name in wanted if name not in absent]
        if lacking:
            absent = list(lacking)
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
        homes = remote.homes(self._provider, self._spec, reached)
        return remote.site(self._provider, self._identity, self._spec, reached, homes)

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

    def _tell_slurm(self, workers: list[str], why: str = "") -> None:
        """Machines that are gone: their jobs go back into the queue now, not in SLURM's minute."""
        known = facts_file.read(self._folder)
        if known is None or not workers:
            return
        from clusterkit.cluster import remote

        names = ", ".join(workers)
        try:
            reason = f"{drain.GONE}: {why}" if why else drain.GONE
            drain.requeue(remote.head_transport(known), workers, reason)
        except TransportError as error:
            # The head is gone too, or does not know them: it will see for itself.
            self._watch.say(f"SLURM was not told that {names} went: {error}")
        else:
            self._note(
                f"{names} went{f' ({why})' if why else ''}: the jobs there are back in the queue"
            )

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
        from clusterkit import cluster

        raise ClusterNotStarted(cluster.not_started(name, home))
    spec, provider = made(home, name, keep=False)
    if not isinstance(spec, Built) or provider is None:
        raise ClusterError(
            f"the cluster {name!r} is {spec.provider}: `clusterkit start {name}` verifies it"
        )
    with hold(home, name), Phases(watch or Nobody(), home, name) as phase:
        work = _Remote(spec, provider, watch or Nobody(), phase)
        mend_door(provider, (watch or Nobody()).say)
        phase("reach")
        running = [one for one in provider.machines() if one.state == "running"]
        site = work._look(running)  # noqa: SLF001 - the same module
        _, log = work._play("verify.yml", site)  # noqa: SLF001
    nodes = tuple(machine.name for machine in site.machines)
    return Started(known, 0, time.monotonic() - began, log, (), nodes)


def run_folder(folder: Path) -> Path:
    """A new folder for one run of Ansible, named for the moment (UTC)."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return folder / "runs" / stamp
