"""nspawn: real systemd machines on this Linux machine, each with its own address and sshd.

<images>/
  <release>-<digest>[-slurm]/       images, shared by all clusters (nspawn/base.py)
  machines/<cluster id>/
    network.json                    the cluster's own /24
    home/                           /home of all its machines (`shared: auto`)
    hosts/<machine>/                disks and consoles (nspawn/host.py)

For tests: a folder `pretend/<group>/` in the cluster's own folder is laid over the image of that
group's machines ("head" for the head), and the files in its `dev/` are bound into their /dev, so
that a machine can be given an nvidia-smi and devices that this one does not have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import ClassVar

from clusterkit.cluster.access import Identity
from clusterkit.cluster.nspawn import base, cgroup, host, needs, network, surroundings
from clusterkit.cluster.nspawn.host import Bind, Host
from clusterkit.cluster.nspawn.network import Network
from clusterkit.cluster.providers import Ended, Machine, Plan, Provider, Say
from clusterkit.cluster.spec import NspawnSpec, Spec
from clusterkit.errors import ClusterError

IMAGES = Path("/var/lib/clusterkit/images")
#: Machines that are booted or ended at the same time; each costs a processor for a second or two.
_AT_ONCE = 8
_ROLE = "clusterkit-role"
_GROUP = "clusterkit-group"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A machine that the settings ask for."""

    name: str
    roles: tuple[str, ...]
    group: str = ""
    cpus: int = 0
    memory: int = 0
    gpus: int = 0


class NspawnProvider(Provider):
    name: ClassVar[str] = "nspawn"
    shares_by_bind: ClassVar[bool] = True
    looked_for: ClassVar[tuple[str, ...]] = (
        "processes", "control groups", "a bridge", "an nft table", "disks and shared folders",
    )  # fmt: skip

    def __init__(
        self, spec: Spec, identity: Identity, folder: Path, *, pretend: Path | None = None
    ) -> None:
        super().__init__(spec, identity, folder)
        assert isinstance(spec, NspawnSpec)
        self.settings: NspawnSpec = spec
        self.images = spec.images or IMAGES
        self.place = self.images / "machines" / identity.id
        self.pretend = pretend or folder / "pretend"

    def plan(self) -> Plan:
        needs.check()
        base.check(self._recipe, self.images)
        net = self._network()
        there = {machine.name: machine for machine in self.machines()}
        wanted = list(self._wanted())
        for one in wanted:
            if one.gpus and not self._pretended(one.group).is_dir():
                raise ClusterError(
                    f"cluster {self.cluster!r}: workers.{one.group}.gpus: nspawn machines have no "
                    "GPUs. Leave `gpus` out, or use the provider `local`, `ssh` or a cloud."
                )
        machines = tuple(there.get(one.name) or self._machine(one, "absent") for one in wanted)
        missing = tuple(one for one in machines if one.state in ("absent", "dead"))
        stopped = [one for one in machines if one.state == "stopped"]
        names = {one.name for one in wanted}
        surplus = tuple(one for one in there.values() if one.name not in names)
        notes = []
        if missing:
            minutes = self._recipe.minutes(self.images)
            if minutes:
                notes.append(
                    f"the image {self.settings.image} is made first, once: about {minutes} min"
                )
            warning = network.warning(net.bridge)
            if warning:
                notes.append(warning)
            notes.append(
                f"all machines share this one's {os.cpu_count()} processors and "
                f"{_memory()} MiB of memory"
            )
        if stopped:
            notes.append(f"switched on again: {', '.join(one.name for one in stopped)}")
        return Plan(machines=machines, missing=missing, surplus=surplus, notes=tuple(notes))

    def create(self, plan: Plan, say: Say) -> None:
        todo = {one.name for one in plan.machines}
        wanted = [one for one in self._wanted() if one.name in todo]
        layers = base.prepare(self._recipe, self.images, say)
        for folder in (self.place.parent, self.place, self.place / "hosts"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.place / "home").mkdir(exist_ok=True, mode=0o755)
        net = self._network()
        _keep(net, self.place / "network.json")
        net.up()
        around = surroundings.read()
        running = host.running(self.identity.id)
        hosts: dict[str, Host] = {}
        for one in wanted:
            folder = self._folder(one.name)
            known = host.read(folder)
            if known is None and one.name in running:  # its disk was removed under it
                host.end(self.identity.id, one.name, folder)
            hosts[one.name] = known or self._host(one, net, layers, hosts.values())

        def start(one: Host) -> None:
            if host.read(one.folder) is None:
                say(f"{one.name}: new, {one.address}")
                one.seed(self.identity.user_data(one.name), around)
            elif not one.alive():
                say(f"{one.name}: switched on, {one.address}")
            one.boot()

        _each(start, hosts.values())

    def machines(self) -> tuple[Machine, ...]:
        running = host.running(self.identity.id)
        order = {one.name: (number, one) for number, one in enumerate(self._wanted())}
        names = set(running) | {one.name for one in self._folders()}
        found = []
        for name in sorted(names, key=lambda name: (order.get(name, (len(order), None))[0], name)):
            known = host.read(self._folder(name))
            if known is None:
                if name in running:
                    found.append(Machine(name, "", (), state="dead", why="its disk was removed"))
                continue  # else: half made, and made anew by `create`
            role, group = known.labels.get(_ROLE, "worker"), known.labels.get(_GROUP, "")
            _, planned = order.get(name, (0, None))
            one = planned or _Wanted(name, (role,), group)
            state = "running" if name in running else "stopped"
            found.append(replace(self._machine(one, state), address=str(known.address)))
        return tuple(found)

    def pause(self, say: Say) -> None:
        def stop(one: Host) -> None:
            one.power_off()
            say(f"{one.name}: switched off")

        running = host.running(self.identity.id)
        _each(stop, [one for one in self._hosts() if one.name in running])

    def symptoms(self) -> str:
        running = host.running(self.identity.id)
        return "\n".join(
            f"{one.name} has died; its console's last words:\n{one.words()}"
            for one in self._hosts()
            if one.name not in running
        )

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        names = set(host.running(self.identity.id)) | {one.name for one in self._folders()}
        if only is not None:
            names &= set(only)
        counts: list[int] = []

        def end(name: str) -> None:
            counts.append(host.end(self.identity.id, name, self._folder(name)))
            say(f"{name}: ended")

        _each(end, sorted(names))
        if only is None:
            cgroup.remove(cgroup.group(self.identity.id))
            Network(self.identity.id, IPv4Network("0.0.0.0/0")).down()
            base.remove_tree(self.place)
        return Ended(processes=sum(counts), machines=tuple(sorted(names)))

    def left(self) -> tuple[str, ...]:
        found = [
            f"process {process.pid} ({process.name}) of {name}"
            for name, some in sorted(host.running(self.identity.id).items())
            for process in some
        ]
        if cgroup.there(cgroup.group(self.identity.id)):
            found.append(f"control group {cgroup.group(self.identity.id)}")
        found += Network(self.identity.id, IPv4Network("0.0.0.0/0")).left()
        if self.place.exists():
            found.append(f"folder {self.place}")
        return tuple(found)

    @cached_property
    def _recipe(self) -> base.Recipe:
        spec = self.settings
        return base.Recipe(spec.image, spec.mirror, spec.prepared)

    def _wanted(self) -> Iterator[_Wanted]:
        head = self.settings.head
        roles = ("head", "worker") if head.worker else ("head",)
        yield _Wanted(f"{self.cluster}-head", roles, cpus=head.cpus or 0, memory=head.memory or 0)
        for name, group in self.settings.workers.items():
            for number in range(1, group.count + 1):
                yield _Wanted(
                    f"{self.cluster}-{name}-{number}",
                    ("worker",),
                    name,
                    group.cpus or 0,
                    group.memory or 0,
                    group.gpus,
                )

    def _machine(self, one: _Wanted, state: str) -> Machine:
        return Machine(
            name=one.name,
            address="",
            roles=one.roles,
            cpus=one.cpus,
            memory=one.memory,
            group=one.group,
            gpus_promised=one.gpus,
            state=state,
            login=self.settings.login or self.settings.image.partition("-")[0],
        )

    def _host(
        self, one: _Wanted, net: Network, layers: tuple[Path, ...], others: Iterable[Host]
    ) -> Host:
        taken = [known.address for known in (*self._hosts(), *others)]
        binds = []
        if self.settings.shared == "auto":
            binds.append(Bind(str(self.place / "home"), "/home", read_only=False))
        pretended = self._pretended(one.group)
        if pretended.is_dir():
            layers = (pretended, *layers)
            devices = sorted((pretended / "dev").glob("*"))
            binds += [Bind(str(file), f"/dev/{file.name}", read_only=False) for file in devices]
        labels = {**self.identity.labels(one.roles[0]), _GROUP: one.group}
        return Host(
            name=one.name,
            address=host.free_address(net.range, taken),
            folder=self._folder(one.name),
            net=net,
            layers=layers,
            binds=tuple(binds),
            labels=labels,
        )

    def _pretended(self, group: str) -> Path:
        return self.pretend / (group or "head")

    def _network(self) -> Network:
        """The one that `create` kept, so that addresses stay, or a free one."""
        known = _range(self.place / "network.json")
        if known is None:
            others = (_range(one) for one in self.place.parent.glob("*/network.json"))
            taken = [one for one in others if one is not None]
            known = network.choose(self.identity.id, self.settings.network, taken)
        return Network(self.identity.id, known)

    def _folder(self, name: str) -> Path:
        return self.place / "hosts" / name

    def _folders(self) -> list[Path]:
        try:
            return sorted((self.place / "hosts").iterdir())
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise ClusterError(
                f"cluster {self.cluster!r}: its machines belong to root; run clusterkit with sudo"
            ) from error

    def _hosts(self) -> list[Host]:
        known = (host.read(folder) for folder in self._folders())
        return [one for one in known if one is not None]


def _keep(net: Network, file: Path) -> None:
    if not file.exists():
        staging = file.with_name(".network.json")
        staging.write_text(json.dumps({"range": str(net.range)}))
        staging.rename(file)


def _range(file: Path) -> IPv4Network | None:
    try:
        return IPv4Network(json.loads(file.read_text())["range"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ClusterError(f"{file} cannot be read: {error}") from error


def _each(act: Callable[..., None], items: Iterable[object]) -> None:
    """Do it for all at the same time; the first error is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for done in [pool.submit(act, item) for item in items]:
            done.result()


def _memory() -> int:
    """MiB of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
