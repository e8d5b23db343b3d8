"""Machines that are there already: a lab's workstations. They are set up, and left as they were.

Nothing is made and nothing goes with the cluster but its SLURM. How they are reached is the user's
own ssh settings' matter; host keys are those of the user's known_hosts, or of `host_keys:`.

<data folder>/clusters/<name>/machines.json   the machines that were ever set up for this cluster
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import paths
from clusterkit.cluster import values
from clusterkit.cluster.providers import Ended, Machine, Plan, Provider, Say
from clusterkit.cluster.spec import SshSpec
from clusterkit.cluster.values import Host
from clusterkit.errors import ClusterError, CommandFailed, Unreachable
from clusterkit.transport import Address, Local, Ssh

if TYPE_CHECKING:
    from clusterkit.cluster.access import Identity


class SshProvider(Provider):
    """See the module."""

    name = "ssh"
    disposable = False
    looked_for = ("SLURM's daemons", "its settings", "the cluster's claim on each machine")

    spec: SshSpec

    def __init__(self, spec: SshSpec, identity: Identity, folder: Path) -> None:
        super().__init__(spec, identity, folder)

    def plan(self) -> Plan:
        wanted = self._wanted()
        names = {machine.name for machine in wanted}
        gone = [one for one in self._kept() if one.name not in names]
        asks = [
            f"{one.name} is no longer in the settings: it leaves the cluster, and its jobs go back "
            "into the queue"
            for one in gone
        ]
        notes = [f"{one.name}: {_where(one)}" for one in wanted]
        return Plan(wanted, notes=tuple(notes), surplus=tuple(gone), asks=tuple(asks))

    def create(self, plan: Plan, say: Say) -> None:  # noqa: ARG002 - nothing is made
        for machine in plan.machines:
            key = self._told_key(machine)
            if key:
                self.identity.believe(machine.name, {key}, instead=True)
        there = {machine.name: machine for machine in self._kept()}
        self._keep({**there, **{machine.name: machine for machine in plan.machines}}.values())

    def machines(self) -> tuple[Machine, ...]:
        """Those of the settings and those set up before: each is asked when it is reached."""
        wanted = {machine.name: machine for machine in self._wanted()}
        return tuple({**{one.name: one for one in self._kept()}, **wanted}.values())

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        chosen = [one for one in self._kept() if only is None or one.name in only]
        if not chosen:
            return Ended()
        # The head first: without its controller nothing new starts elsewhere.
        chosen.sort(key=lambda one: "head" not in one.roles)
        script = (paths.templates() / "release.sh").read_bytes()

        def release(machine: Machine) -> int:
            argv = ["sh", "-s", "--", self.identity.id, " ".join(machine.roles)]
            done = self._root(machine).run(argv, input=script, timeout=120)
            match = re.search(r"^jobs (\d+)$", done.text, re.MULTILINE)
            return int(match[1]) if match else 0

        jobs, ended, silent = 0, [], []
        with ThreadPoolExecutor(max_workers=16) as pool:
            heads = [one for one in chosen if "head" in one.roles]
            for batch in (heads, [one for one in chosen if one not in heads]):
                for machine, task in [(one, pool.submit(release, one)) for one in batch]:
                    try:
                        jobs += task.result()
                    except Unreachable as error:
                        say(
                            f"{machine.name} does not answer, its SLURM stays set up there: {error}"
                        )
                        silent.append(machine.name)
                    else:
                        say(f"{machine.name}: SLURM ended, settings removed")
                        ended.append(machine.name)
        gone = {*ended, *(silent if only is not None else ())}
        self._keep(one for one in self._kept() if one.name not in gone)
        return Ended(jobs=jobs, machines=tuple(ended))

    def left(self) -> tuple[str, ...]:
        def look(machine: Machine) -> str:
            try:
                found = self._root(machine).run(["sh", "-s"], input=_LOOK, check=False, timeout=30)
            except (Unreachable, CommandFailed) as error:
                return (
                    f"{machine.name} (it does not answer: {error}; if it is gone for good, take it "
                    "out of the settings and `start`, or `stop --abandon` it)"
                )
            words = found.text.split()
            return f"{machine.name} ({', '.join(words)})" if words else ""

        with ThreadPoolExecutor(max_workers=16) as pool:
            return tuple(filter(None, pool.map(look, self._kept())))

    def abandon(self, names: Collection[str]) -> None:
        """Forget machines that will never answer again. Raises ClusterError for unknown ones."""
        kept = self._kept()
        unknown = set(names) - {one.name for one in kept}
        if unknown:
            raise ClusterError(
                f"{', '.join(sorted(unknown))}: no machine of {self.cluster!r}; it has "
                f"{', '.join(one.name for one in kept) or 'none'}"
            )
        self._keep(one for one in kept if one.name not in names)

    # -- the machines -----------------------------------------------------------------------------

    def _wanted(self) -> tuple[Machine, ...]:
        spec = self.spec
        head = values.host(spec.head.host)
        if spec.head.worker:
            first = next(iter(spec.workers), "main")
            found = [self._machine(head, ("head", "worker"), first, 0)]
        else:
            found = [self._machine(head, ("head",), "", 0)]
        for name, group in spec.workers.items():
            found += [
                self._machine(values.host(host), ("worker",), name, group.gpus)
                for host in group.hosts
            ]
        names = [machine.name for machine in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ClusterError(
                f"cluster {self.cluster!r}: two machines would have the same name in SLURM: "
                f"{', '.join(twice)}. Give them different names in ~/.ssh/config."
            )
        return tuple(found)

    def _machine(self, host: Host, roles: tuple[str, ...], group: str, gpus: int) -> Machine:
        name = _node_name(host.name)
        key = self.spec.host_keys.get(host.name) or self.spec.host_keys.get(str(host))
        return Machine(
            name=name,
            address=_address(host.name),
            roles=roles,
            group=group,
            gpus_promised=gpus,
            login=host.user or self.spec.login or "",
            port=host.port,
            reach=Address(
                host=host.name,
                user=host.user or self.spec.login or "",
                port=host.port,
                key=str(self.spec.key) if self.spec.key else "",
                known_hosts=str(self.identity.known_hosts) if key else "",
                host_key_alias=name if key else "",
                own_settings=True,
            ),
        )

    def _told_key(self, machine: Machine) -> str:
        assert machine.reach is not None
        return self.spec.host_keys.get(machine.reach.host, "")

    def _root(self, machine: Machine) -> Ssh:
        assert machine.reach is not None
        return Ssh(machine.reach, become=True)

    # -- what was set up --------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.folder / "machines.json"

    def _kept(self) -> list[Machine]:
        try:
            data = json.loads(self._file.read_text())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise ClusterError(f"{self._file} cannot be read: {error}") from error
        return [
            self._machine(values.host(one["host"]), tuple(one["roles"]), one["group"], 0)
            for one in data
        ]

    def _keep(self, machines: Iterable[Machine]) -> None:
        kept = list(machines)
        if not kept:
            self._file.unlink(missing_ok=True)
            return
        data = [{"host": _where(one), "roles": list(one.roles), "group": one.group} for one in kept]
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        staging = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        staging.write_text(json.dumps(data, indent=1))
        staging.rename(self._file)


#: What `left` asks a machine; it prints a word for all that it finds.
_LOOK = b"""\
for unit in slurmctld slurmdbd slurmd; do
  systemctl is-active --quiet $unit 2>/dev/null && echo $unit
done
for file in /var/lib/clusterkit/cluster /etc/slurm/slurm.conf; do
  [ -e $file ] && echo $file
done
:
"""


def _where(machine: Machine) -> str:
    reach = machine.reach
    assert reach is not None
    return str(Host(reach.host, reach.user, reach.port))


def _node_name(host: str) -> str:
    """A SLURM node's name: the first part of a host's name; of an address, its numbers."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return re.sub(r"[^a-z0-9-]+", "-", host.partition(".")[0].lower()).strip("-") or "node"
    return "node-" + re.sub(r"[^0-9a-f]+", "-", host).strip("-")


@cache
def _address(host: str) -> str:
    """Where the machines reach each other; the name itself where only they can resolve it.

    A name of the user's own ~/.ssh/config is known to nobody else: `ssh -G` tells what it means.
    """
    told = Local().run(["ssh", "-G", host], check=False).text
    match = re.search(r"^hostname (\S+)$", told, re.MULTILINE)
    name = match[1] if match else host
    try:
        found = socket.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return name
    return str(found[0][4][0])
